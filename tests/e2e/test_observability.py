"""What a gateway says of its calls: a line each, and counters for Prometheus."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess

import pytest

from harness import http, settings
from harness.check import assert_answer, assert_error
from harness.client import Client
from harness.deadline import wait_until
from harness.places import ROOT
from harness.server import serve
from harness.websocket import close_frame, echo, read_frame, serve_websocket, upgrade

LINE = re.compile(r'^\{"ts":.*\}$', re.M)
KEYS = ["ts", "request_id", "function", "container", "remote", "method", "status",
        "received_bytes", "sent_bytes", "wait_ms", "first_byte_ms", "total_ms", "cold", "end",
        "host", "target"]


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in LINE.findall(text)]


def line_of(ingress, answer: http.Response) -> dict:
    """The line of the call that was answered so."""
    request_id = answer.get("X-Request-Id").decode()

    def found() -> dict | None:
        return next((x for x in lines(ingress.log) if x["request_id"] == request_id), None)

    return wait_until(found, f"a line of {request_id}")


def test_a_line_for_each_call(pair, server):
    server.script(serve(lambda request, conn: http.reply(body=b"four")))
    assert_answer(pair.ask())  # the container is ready: a call that waits for that is cold
    answer = assert_answer(pair.ask("POST", "/a?b", body=b"six by", host=b"Some.Host:1"))
    line = line_of(pair.ingress, answer)
    assert list(line) == KEYS
    assert (line["function"], line["method"], line["host"], line["target"]) == (
        "default", "POST", "Some.Host:1", "/a?b")
    assert (line["status"], line["received_bytes"], line["sent_bytes"]) == (200, 6, 4)
    assert (line["end"], line["cold"], line["remote"]) == ("ok", False, "127.0.0.1")
    assert 0 <= line["wait_ms"] <= line["first_byte_ms"] <= line["total_ms"] < 10_000
    assert f"container={line['container'][:16]}" in pair.ingress.log


def test_lines_of_errors_and_of_clients_that_leave(stack, server):
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply()))
    stack.pair(server, ingress_flags=settings.first_byte(300), function="one")
    late = assert_error(stack.ask(), 504, "first_byte_timeout")
    line = line_of(stack.ingress, late)
    assert (line["status"], line["end"]) == (504, "first_byte_timeout")
    assert line["wait_ms"] is not None
    client = stack.client()
    client.send(http.request(fields=[(b"X-Request-Id", b"leaves")]))
    server.next_request()
    server.next_request()
    client.close()
    gone = wait_until(lambda: [x for x in lines(stack.ingress.log)
                               if x["request_id"] == "leaves"], "its line")[0]
    assert (gone["status"], gone["end"], gone["sent_bytes"]) == (None, "client_gone", 0)
    gate.set()
    stack.start_shim(stack.ingress, server=stack.server(), function="two")
    nobody = assert_error(stack.ask(host=b"nobody.x"), 404, "no_such_function")
    line = line_of(stack.ingress, nobody)
    assert (line["function"], line["container"], line["wait_ms"]) == (None, None, None)


def test_a_call_that_waited_for_its_container_was_cold(stack, server):
    stack.ingress = stack.start_ingress()
    shim = stack.start_shim(stack.ingress, server=server)
    shim.stop()
    client = stack.client()
    client.send(http.request())
    stack.start_shim(stack.ingress, server=server)
    line = line_of(stack.ingress, assert_answer(client.read_response()))
    assert line["cold"] and line["wait_ms"] > 0
    assert not line_of(stack.ingress, assert_answer(client.ask()))["cold"]


def test_a_call_that_waited_for_room_was_not_cold(stack, server):
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply()))
    stack.pair(server, shim_flags=settings.concurrency(1), function="hello")
    clients = [stack.client() for _ in range(2)]
    for client in clients:
        client.send(http.request())
    wait_until(lambda: metric(stack.ingress, "porthole_waiting", 'function="hello"') == 1,
               "one waits")
    gate.set()
    seen = [line_of(stack.ingress, assert_answer(client.read_response())) for client in clients]
    assert [line["cold"] for line in seen] == [False, False]
    assert sum(line["wait_ms"] > 0 for line in seen) == 1


def test_a_line_for_a_websocket(pair, server):
    server.script(serve_websocket(echo))
    client = pair.client()
    answer = upgrade(client)
    assert lines(pair.ingress.log) == []  # it goes on
    client.send(close_frame(1000))
    read_frame(client)
    line = line_of(pair.ingress, answer)
    assert (line["status"], line["end"], line["received_bytes"]) == (101, "ok", 8)
    assert line["sent_bytes"] > 100 and line["remote"] == "127.0.0.1"


def test_a_file_that_is_moved_away(stack, server, tmp_path):
    path = tmp_path / "access.log"
    stack.pair(server, ingress_flags=["--access-log", str(path)])
    assert_answer(stack.ask())
    wait_until(lambda: len(lines(path.read_text())) == 1, "one line")
    path.rename(tmp_path / "old")
    stack.ingress.signal(signal.SIGHUP)
    stack.ingress.wait_log("configuration loaded")
    assert_answer(stack.ask())
    wait_until(lambda: path.exists() and len(lines(path.read_text())) == 1, "a new file")
    assert len(lines((tmp_path / "old").read_text())) == 1


def test_off_and_what_cannot_be_opened(stack, server):
    stack.pair(server, ingress_flags=["--access-log", "off"])
    assert_answer(stack.ask())
    stack.ingress.stop()
    assert lines(stack.ingress.log) == []
    bad = stack.start_ingress("--access-log", "/nowhere/log", wait=False)
    bad.expect_exit(1)
    assert "/nowhere/log" in bad.log


def test_a_slow_reader_of_the_log_holds_up_nobody(stack, server, tmp_path):
    """Nobody reads: lines are dropped and counted, calls go on."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        stack.pair(server, ingress_flags=["--access-log", str(path)])
        target = b"/" + b"x" * 1000
        with stack.client() as client:
            for _ in range(600):
                assert_answer(client.ask("GET", target))
        dropped = wait_until(lambda: metric(stack.ingress, "porthole_access_log_dropped_total"),
                             "some are dropped")
        # When it reads again, the next line says how many are missing.
        while b"log_dropped" not in os.read(reader, 1 << 20):
            assert_answer(stack.ask())
        assert metric(stack.ingress, "porthole_access_log_dropped_total") == dropped
    finally:
        os.close(reader)


# ---- metrics

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.]+)')


def scrape(ingress) -> str:
    with Client(ingress.admin) as admin:
        answer = admin.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.get("Content-Type") == b"text/plain; version=0.0.4; charset=utf-8"
    return answer.body.decode()


def samples(text: str) -> dict[tuple[str, str], float]:
    """By name and labels; every rule of the format that could be broken is looked at."""
    values: dict[tuple[str, str], float] = {}
    families: dict[str, str] = {}
    family = None
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            assert family not in families, f"{family} comes twice"
            assert line.endswith(".")
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family and kind in ("counter", "gauge", "histogram")
            assert name.endswith("_total") == (kind == "counter"), name
            families[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            name, labels, value = match[1], match[2] or "", float(match[3])
            assert family is not None
            base = re.sub(r"_(bucket|sum|count)$", "", name) if families[family] == "histogram" \
                else name
            assert base == family, line
            assert (name, labels) not in values, line
            assert families[family] == "gauge" or value >= 0
            values[name, labels] = value
    check_histograms(values, families)
    return values


def check_histograms(values: dict, families: dict) -> None:
    for name, kind in families.items():
        buckets: dict[str, list[float]] = {}
        for (sample, labels), value in values.items():
            if kind == "histogram" and sample == name + "_bucket":
                rest, _, le = labels.rpartition('le="')
                buckets.setdefault(rest.rstrip(","), []).append(value)
        for rest, counts in buckets.items():
            assert counts == sorted(counts), (name, rest)
            assert counts[-1] == values[name + "_count", rest]


def metric(ingress, name: str, labels: str = "") -> float:
    return samples(scrape(ingress)).get((name, labels), 0)


def test_metrics(stack, server):
    server.script(serve(lambda request, conn: http.reply(body=b"four")))
    stack.pair(server, function="hello")
    for _ in range(3):
        assert_answer(stack.ask("POST", "/secret/path", body=b"six by"))
    assert stack.ask(fields=[(b"Expect", b"wonders")]).status == 417
    with stack.client() as client:
        assert_answer(client.ask("HEAD"))
        text = scrape(stack.ingress)
    seen = samples(text)
    assert seen["porthole_requests_total", 'function="hello",code="200"'] == 4
    assert seen["porthole_requests_total", 'function="",code="417"'] == 1
    assert seen["porthole_errors_total", 'function="",error="bad_expectation"'] == 1
    assert seen["porthole_received_bytes_total", 'function="hello"'] == 18
    assert seen["porthole_sent_bytes_total", 'function="hello"'] == 12
    assert seen["porthole_wait_seconds_count", 'function="hello"'] == 4
    assert seen["porthole_duration_seconds_count", 'function="hello"'] == 4
    assert seen["porthole_containers", 'function="hello",state="ready"'] == 1
    assert seen["porthole_in_flight", 'function="hello"'] == 0
    assert seen["porthole_links", ""] == 1 and seen["porthole_connections", ""] >= 1
    assert seen["process_open_fds", ""] > 3 and seen["process_resident_memory_bytes", ""] > 1e6
    assert "secret" not in text and "127.0.0.1" not in text


PROMTOOL = shutil.which("promtool", path=f"{ROOT / 'build/tools'}:{os.environ['PATH']}")


@pytest.mark.skipif(not PROMTOOL, reason="promtool is not here: scripts/test gets it")
def test_metrics_are_clean_under_promtool(stack, server):
    """Every family has samples: of calls, errors, WebSockets, containers, histograms."""
    server.script(serve(lambda request, conn: http.reply(body=b"four")))
    stack.pair(server, function="hello")
    assert_answer(stack.ask("POST", "/", body=b"six by"))
    assert stack.ask(fields=[(b"Expect", b"wonders")]).status == 417
    text = scrape(stack.ingress)
    names = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    assert names == {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in samples(text)}
    checked = subprocess.run([PROMTOOL, "check", "metrics"], input=text, text=True,
                             capture_output=True, timeout=30)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_gauges_follow_calls(stack, server):
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply()))
    stack.pair(server, function="hello", shim_flags=settings.concurrency(1))
    clients = [stack.client() for _ in range(3)]
    for client in clients:
        client.send(http.request())
    server.next_request()
    wait_until(lambda: metric(stack.ingress, "porthole_waiting", 'function="hello"') == 2,
               "two wait")
    assert metric(stack.ingress, "porthole_in_flight", 'function="hello"') == 1
    gate.set()
    for client in clients:
        assert_answer(client.read_response())
    assert metric(stack.ingress, "porthole_waiting", 'function="hello"') == 0


# ---- draining

@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_readyz_on_the_public_port(pair, method):
    answer = pair.ask(method, "/.porthole/readyz")
    assert (answer.status, answer.get("Cache-Control")) == (200, b"no-store")
    assert answer.body == (b"ready\n" if method == "GET" else b"")
    # Of the gateway itself: no call, no line.
    assert lines(pair.ingress.log) == []


def test_a_new_connection_has_a_moment_for_its_request(stack, server):
    """It was let in, and no proxy sends a POST a second time."""
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply()
                        if request.target == b"/held" else http.reply(body=b"served")))
    stack.pair(server)
    held, fresh, silent, used = (stack.client() for _ in range(4))
    held.send(http.request(target="/held"))
    server.next_request()
    assert_answer(used.ask())
    stack.ingress.signal(signal.SIGTERM)
    stack.ingress.wait_log("draining")
    answer = fresh.ask("POST", "/", body=b"x")
    assert assert_answer(answer).body == b"served" and answer.get("Connection") == b"close"
    assert used.is_closed_now()  # at once, the other one in a second
    assert silent.expect_closed() == b""
    gate.set()
    assert_answer(held.read_response())
    stack.ingress.expect_exit(0)


def test_a_delay_before_connections_are_refused(stack, server):
    stack.pair(server, ingress_flags=["--shutdown-delay-ms", "1500"])
    stack.ingress.signal(signal.SIGTERM)
    stack.ingress.wait_log("draining")
    unready = stack.ask("GET", "/.porthole/readyz")
    assert (unready.status, unready.body) == (503, b"draining\n")
    with Client(stack.ingress.admin) as admin:
        assert admin.ask("GET", "/readyz").status == 503
    answer = assert_answer(stack.ask())  # whoever has not noticed is served all the same
    assert answer.get("Connection") == b"close"
    stack.ingress.expect_exit(0)
