"""Starting, draining, dying: nothing hangs, the right error comes, a new one works."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import http, settings
from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.peer import Closed, Late
from harness.program import cpu_seconds, descendants, open_descriptors
from harness.server import serve
from harness.stack import SHIM_BIN, free_port

# "a link closed (FIN, RST), dialled again within 1 s", and some for the machine.
LOST_S = 1.5
GRACE_S = 7  # the last 5 seconds of it are the command's

COMMAND = str(Path(__file__).parent / "servers" / "sample_server.py")


def holding(server, body: bytes = b"held"):
    """The server answers when the gate is opened."""
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply(body=body)))
    return gate


# ---- SIGTERM

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_ingress_finishes_what_is_in_flight(pair, server, number):
    gate = holding(server)
    client, idle = pair.client(), pair.client()
    client.send(http.request())
    server.next_request()
    pair.ingress.signal(number)
    pair.ingress.wait_log("draining")
    # Nothing new: neither a connection nor, on an idle one, a request.
    assert idle.expect_closed() == b""
    with pytest.raises((ConnectionError, Closed)):
        pair.client().ask()
    assert pair.ingress.process.poll() is None
    gate.set()
    answer = client.read_response()
    assert answer.body == b"held"
    assert answer.has_token("Connection", b"close")
    assert client.expect_closed() == b""
    pair.ingress.expect_exit(0)


def test_the_ingress_finishes_a_download(pair, server):
    size = 64 << 20
    server.script(serve(lambda request, conn: http.reply(body=b"x" * size)))
    client = pair.client()
    client.send(http.request())
    head = client.read_final_head()
    pair.ingress.signal(signal.SIGTERM)
    pair.ingress.wait_log("draining")
    assert client.feed_body(head, lambda piece: None) == size
    pair.ingress.expect_exit(0)


def test_the_ingress_finishes_an_upload(pair, server):
    server.script(serve(lambda request, conn: http.reply(body=request.body)))
    client = pair.client()
    client.send(http.request("POST", fields=[(b"Content-Length", b"6")]) + b"abc")
    server.wait_connection()
    pair.ingress.signal(signal.SIGTERM)
    pair.ingress.wait_log("draining")
    client.send(b"def")
    assert client.read_response().body == b"abcdef"
    pair.ingress.expect_exit(0)


def test_signals_without_end_do_not_spoil_the_end_of_the_ingress(stack):
    """Whenever another one comes, it is still a clean end."""
    for _ in range(5):
        ingress = stack.start_ingress()
        while ingress.process.poll() is None:
            ingress.signal(signal.SIGTERM)
        ingress.expect_exit(0)


def test_a_second_signal_ends_the_ingress_at_once(pair, server):
    holding(server)
    client = pair.client()
    client.send(http.request())
    server.next_request()
    pair.ingress.signal(signal.SIGTERM)
    pair.ingress.wait_log("draining")
    start = time.monotonic()
    pair.ingress.signal(signal.SIGTERM)
    pair.ingress.wait_exit(3)
    pair.ingress.check_log()
    assert time.monotonic() - start < 2
    client.expect_closed()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_shim_finishes_what_is_in_flight(pair, server, number):
    gate = holding(server)
    client = pair.client()
    client.send(http.request())
    server.next_request()
    pair.shim.signal(number)
    pair.shim.wait_log("drain")
    assert pair.shim.process.poll() is None
    gate.set()
    assert client.read_response().body == b"held"
    pair.shim.expect_exit(0)


def test_calls_go_elsewhere_while_a_shim_drains(pair, server):
    gate = holding(server, b"old")
    client = pair.client()
    client.send(http.request())
    server.next_request()
    other = pair.server(serve(lambda request, conn: http.reply(body=b"new")))
    pair.start_shim(pair.ingress, server=other)
    pair.shim.signal(signal.SIGTERM)
    pair.shim.wait_log("drain")
    for _ in range(10):
        assert assert_answer(pair.ask("POST", body=b"x")).body == b"new"
    gate.set()
    assert client.read_response().body == b"old"
    pair.shim.expect_exit(0)


def test_the_shim_gives_up_after_its_grace(stack, server):
    """A call that never ends does not keep the shim."""
    holding(server)
    stack.pair(server, shim_flags=settings.grace(1))
    client = stack.client()
    client.send(http.request("POST", body=b"x"))
    server.next_request()
    start = time.monotonic()
    stack.shim.signal(signal.SIGTERM)
    stack.shim.expect_exit(0, 5)
    assert time.monotonic() - start < 3
    assert_error(client.read_response(), 502, "container_lost")


def test_a_second_signal_ends_the_shim_at_once(pair, server):
    holding(server)
    client = pair.client()
    client.send(http.request("POST", body=b"x"))
    server.next_request()
    pair.shim.signal(signal.SIGTERM)
    pair.shim.wait_log("drain")
    pair.shim.signal(signal.SIGTERM)
    pair.shim.wait_exit(3)
    pair.shim.check_log()
    assert_error(client.read_response(), 502, "container_lost")


# ---- kill -9

def test_a_killed_shim_is_a_lost_container(pair, server):
    holding(server)
    client = pair.client()
    client.send(http.request("POST", body=b"x"))
    server.next_request()
    start = time.monotonic()
    pair.shim.kill()
    assert_error(client.read_response(), 502, "container_lost")
    assert time.monotonic() - start < LOST_S
    server.script(serve(lambda request, conn: http.reply(body=b"new")))
    pair.start_shim(pair.ingress, server=server)
    assert pair.ask("POST", body=b"x").body == b"new"


def test_a_killed_shim_in_the_middle_of_an_answer(pair, server):
    def stream(_request: http.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + http.chunk(b"some"))
        conn.wait_left(20)
        conn.close()

    server.script(serve(stream))
    client = pair.client()
    client.send(http.request())
    client.read_until(b"some")
    start = time.monotonic()
    pair.shim.kill()
    assert b"0\r\n\r\n" not in client.expect_closed()
    assert time.monotonic() - start < LOST_S


def test_an_idempotent_request_survives_a_killed_shim(pair, server):
    gate = holding(server, b"old")
    client = pair.client()
    client.send(http.request("PUT", body=b"content"))
    server.next_request()
    other = pair.server(serve(lambda request, conn: http.reply(body=b"new " + request.body)))
    pair.start_shim(pair.ingress, server=other)
    pair.shim.kill()
    assert client.read_response().body == b"new content"
    gate.set()


def test_other_containers_do_not_notice_a_killed_one(pair, server):
    other = pair.server(serve(lambda request, conn: http.reply(body=b"other")))
    pair.start_shim(pair.ingress, server=other)
    pair.shim.kill()
    for _ in range(20):
        assert_answer(pair.ask())


def test_a_killed_ingress_is_found_again(pair, server):
    gate = holding(server, b"hello")
    client = pair.client()
    client.send(http.request())
    server.next_request()
    at = len(pair.shim.log)
    pair.ingress.kill()
    with pytest.raises(Closed):
        client.read_response()
    # What the old one asked for is cancelled.
    gate.set()
    pair.ingress = pair.start_ingress(shims=pair.ingress.shims)
    pair.shim.wait_registered(10, at)
    assert assert_answer(pair.ask()).body == b"hello"


def test_a_killed_ingress_cancels_its_calls(pair, server):
    def hold(_request: http.Request, conn) -> None:
        conn.wait_left(20)
        conn.close()

    server.script(serve(hold))
    client = pair.client()
    client.send(http.request())
    server.next_request()
    pair.ingress.kill()
    pair.ingress = pair.start_ingress(shims=pair.ingress.shims)
    assert server.connections[0].finished.wait(12), "the server still works for nobody"


def test_an_ingress_that_is_started_later(stack, server):
    port = free_port()
    shim = stack.start_shim(f"tcp://127.0.0.1:{port}", server=server, wait=False)
    wait_until(lambda: shim.log, "its first words")
    stack.ingress = stack.start_ingress(shims=f"tcp://127.0.0.1:{port}")
    shim.wait_registered(15)
    assert_answer(stack.ask())


# ---- the command

def sample(port: int, *more: str) -> list[str]:
    return [sys.executable, COMMAND, str(port), *more]


@pytest.fixture
def commanded(stack):
    """An ingress and a shim that started its server itself."""
    port = free_port()
    stack.ingress = stack.start_ingress()
    stack.shim = stack.start_shim(stack.ingress, "--port", str(port), *settings.grace(GRACE_S),
                                  command=sample(port))
    return stack


def test_a_command_is_started_and_ended(commanded):
    pid = int(assert_answer(commanded.ask()).body)
    assert pid in descendants(commanded.shim.pid)
    commanded.shim.stop()
    assert not Path(f"/proc/{pid}").exists()


def test_the_port_of_a_command_is_found(stack):
    stack.ingress = stack.start_ingress()
    stack.start_shim(stack.ingress, command=sample(free_port()))
    assert_answer(stack.ask())


def test_calls_wait_for_a_container_that_is_starting(stack, tmp_path):
    """Until its port accepts it is known, but gets nothing."""
    port, go = free_port(), tmp_path / "go"
    stack.ingress = stack.start_ingress()
    shim = stack.start_shim(stack.ingress, "--port", str(port), wait=False,
                            command=sample(port, "--after", str(go)))
    shim.wait_log("sample server waits")
    stack.ingress.wait_log("container starting")
    client = stack.client()
    client.send(http.request("POST", body=b"x"))
    assert "msg=ready" not in shim.log
    go.touch()
    assert int(assert_answer(client.read_response()).body) in descendants(shim.pid)
    stack.ingress.wait_log("(?s)container starting.*container ready")
    assert_answer(stack.ask())


def test_a_killed_server_is_closed_or_lost_and_the_shim_ends(commanded):
    client = commanded.client()
    client.send(http.request("POST", "/hang", body=b"x"))
    pid = int(commanded.ask().body)
    start = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    answer = client.read_response()
    assert answer.status == 502
    assert answer.get("Porthole-Error") in (b"server_closed", b"container_lost")
    assert time.monotonic() - start < LOST_S
    commanded.shim.expect_exit(128 + signal.SIGKILL)


def test_a_killed_server_beside_a_shim(pair, server):
    """The shim did not start it: calls are refused until it is back."""
    port = server.port
    holding(server)
    client = pair.client()
    client.send(http.request("POST", body=b"x"))
    server.next_request()
    server.stop_listening()
    server.drop_connections()
    assert_error(client.read_response(), 502, "server_closed")
    assert_error(pair.ask("POST", body=b"x"), 502, "server_refused")
    again = pair.run("server", sample(port))
    again.wait_log("sample server listens")
    assert int(assert_answer(pair.ask("POST", body=b"x")).body) == again.pid
    again.kill()


def run_shim(stack, *command: str, flags: tuple[str, ...] = ()):
    return stack.run("shim", [str(SHIM_BIN), *flags, "--", *command])


@pytest.mark.parametrize("script, status", [
    ("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -SEGV $$", 139),
    ("kill -TERM $$", 143),
])
def test_the_shim_ends_with_its_commands_status(stack, script, status):
    run_shim(stack, "sh", "-c", script).expect_exit(status)


@pytest.mark.parametrize("with_ingress", [False, True])
def test_a_command_that_ends_by_itself(stack, with_ingress):
    flags = []
    if with_ingress:
        stack.ingress = stack.start_ingress()
        flags = ["--ingress", stack.ingress.shims]
    run_shim(stack, "sh", "-c", "exit 3", flags=tuple(flags)).expect_exit(3)


def test_a_command_that_is_not_there(stack):
    run_shim(stack, "/nowhere/at/all").expect_exit(127)


def test_a_command_that_is_not_executable(stack, tmp_path):
    path = tmp_path / "plain"
    path.write_text("plain")
    run_shim(stack, str(path)).expect_exit(126)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_ends_on_sigterm_is_a_clean_end(stack, number):
    shim = run_shim(stack, "sh", "-c", "trap 'exit 5' TERM INT; echo up; while :; do sleep 0.05; done")
    shim.wait_log("up")
    shim.signal(number)
    shim.expect_exit(0)


def test_a_command_that_ignores_sigterm_is_killed(stack):
    shim = run_shim(stack, "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done",
                    flags=("--grace", "1"))
    shim.wait_log("up")
    start = time.monotonic()
    shim.signal(signal.SIGTERM)
    shim.expect_exit(0)
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("with_ingress", [False, True])
def test_other_signals_are_passed_on(stack, with_ingress):
    flags = ("--ingress", stack.start_ingress().shims) if with_ingress else ()
    shim = run_shim(stack, "sh", "-c",
                    "trap 'echo got usr1' USR1; trap 'echo got hup' HUP; echo up; "
                    "while :; do sleep 0.05; done", flags=flags)
    shim.wait_log("up")
    for number, word in ((signal.SIGUSR1, "usr1"), (signal.SIGHUP, "hup")) * 2:
        at = len(shim.log)
        shim.signal(number)
        shim.wait_log(f"got {word}", after=at)
    assert "draining" not in shim.log


def test_orphans_are_reaped(stack):
    """They come to the shim, and none of them stays a zombie."""
    shim = run_shim(stack, "sh", "-c",
                    "for i in 1 2 3 4 5; do (sleep 0.02 &) ; done; echo up; while :; do sleep 0.05; done")
    shim.wait_log("up")

    def no_zombie() -> bool:
        states = []
        for pid in descendants(shim.pid):
            try:
                states.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
            except FileNotFoundError:
                pass
        return len(states) <= 2 and "Z" not in states

    wait_until(no_zombie, "no zombie is left", 5)


def test_the_commands_output_is_passed_through(stack):
    shim = run_shim(stack, "sh", "-c", "echo to stdout; echo to stderr >&2")
    shim.expect_exit(0)
    assert "to stdout" in shim.log and "to stderr" in shim.log


def test_the_command_goes_when_the_shim_is_killed(commanded):
    pid = int(commanded.ask().body)
    commanded.shim.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the command is gone")


# ---- descriptors

FEW = 64


def test_an_ingress_out_of_descriptors(stack, server):
    """No spin, no crash; those who have a connection are served; it recovers."""
    stack.ingress = stack.start_ingress(prefix=["prlimit", f"--nofile={FEW}:{FEW}"])
    stack.start_shim(stack.ingress, server=server)
    crowd = [stack.client() for _ in range(FEW * 2)]
    first = crowd[0]
    assert_answer(first.ask())
    for client in crowd[1:]:
        client.send(http.request())

    def answered() -> int:
        return sum(bool(client.sock_peek()) for client in crowd[1:])

    wait_until(lambda: answered() >= 5, "some of the crowd are served")
    assert open_descriptors(stack.ingress.pid) <= FEW
    before, start = cpu_seconds(stack.ingress.pid), time.monotonic()
    threading.Event().wait(1.0)  # what is measured is a second of idleness
    used = cpu_seconds(stack.ingress.pid) - before
    assert used < 0.3 * (time.monotonic() - start), f"it spins: {used} s of CPU"
    assert_answer(first.ask())
    for client in crowd:
        client.close()
    assert_answer(stack.ask())
    crowd = [stack.client() for _ in range(10)]
    for client in crowd:
        assert_answer(client.ask())


def test_those_who_wait_for_a_descriptor_are_served_in_the_end(stack, server):
    stack.ingress = stack.start_ingress(prefix=["prlimit", f"--nofile={FEW}:{FEW}"])
    stack.start_shim(stack.ingress, server=server)
    crowd = [stack.client() for _ in range(FEW * 2)]
    for client in crowd:
        client.send(http.request(fields=[(b"Connection", b"close")]))
    for client in crowd:
        assert_answer(client.read_response())


def test_a_shim_out_of_descriptors(stack, server):
    gate = holding(server)
    stack.ingress = stack.start_ingress()
    shim = stack.start_shim(stack.ingress, server=server, prefix=["prlimit", f"--nofile={FEW}:{FEW}"])
    crowd = [stack.client() for _ in range(FEW * 2)]
    for client in crowd:
        client.send(http.request())
    wait_until(lambda: len(server.connections) >= 10, "some reach the server")
    before = cpu_seconds(shim.pid)
    threading.Event().wait(1.0)  # what is measured is a second of idleness
    assert cpu_seconds(shim.pid) - before < 0.4
    gate.set()
    for client in crowd:
        assert_answer(client.read_response())
    for _ in range(10):
        assert_answer(stack.ask())


def test_descriptors_are_given_back(pair, server):
    """A thousand requests, left, refused and answered, leave nothing open."""
    for _ in range(20):
        pair.ask()
    counts = [open_descriptors(program.pid) for program in (pair.ingress, pair.shim)]
    for i in range(200):
        client = pair.client()
        if i % 4 == 0:
            client.send(b"GET / HT")
        elif i % 4 == 1:
            client.send(b"nonsense\r\n\r\n")
        else:
            client.ask("POST", body=b"x")
        client.close()

    now: list[int] = []

    def back() -> bool:
        now[:] = [open_descriptors(program.pid) for program in (pair.ingress, pair.shim)]
        return all(a <= b + 4 for a, b in zip(now, counts))

    try:
        wait_until(back, "descriptors are given back", 5)
    except AssertionError:
        pytest.fail(f"ingress and shim had {counts} descriptors, now {now}")


# ---- the reload

def test_sighup_keeps_everything_running(pair, server):
    gate = holding(server)
    client = pair.client()
    client.send(http.request())
    server.next_request()
    at = len(pair.ingress.log)
    pair.ingress.signal(signal.SIGHUP)
    pair.ingress.wait_log("config|reload|loaded", after=at)
    gate.set()
    assert client.read_response().body == b"held"
    try:
        assert_answer(client.ask())
    except (Closed, Late):
        pytest.fail("the connection did not survive SIGHUP")


def test_sighup_takes_new_values_and_refuses_what_needs_a_restart(stack, server, tmp_path):
    file = tmp_path / "ingress.json"
    file.write_text('{"request_body_bytes_max": 10}')
    stack.ingress = stack.start_ingress("--config", str(file))
    stack.start_shim(stack.ingress, server=server)
    server.script(serve(lambda request, conn: http.reply(body=request.body)))
    assert stack.ask("POST", body=b"x" * 11).status == 413
    file.write_text('{"request_body_bytes_max": 20}')
    stack.ingress.signal(signal.SIGHUP)
    stack.ingress.wait_log("configuration loaded")
    assert stack.ask("POST", body=b"x" * 11).body == b"x" * 11
    at = len(stack.ingress.log)
    file.write_text('{"request_body_bytes_max": 5, "connections_max": 7}')
    stack.ingress.signal(signal.SIGHUP)
    stack.ingress.wait_log("need a restart", after=at)
    assert stack.ask("POST", body=b"x" * 11).body == b"x" * 11
