"""Functions of the file: from none to many containers and back, with real processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
import threading
from pathlib import Path

import pytest

from harness import http
from harness.check import assert_answer, assert_error
from harness.client import Client
from harness.deadline import wait_until
from harness.places import ROOT
from harness.program import descendants, is_alive
from harness.server import serve
from harness.stack import SHIM_BIN, Stack
from harness.websocket import close_frame, echo, handshake, serve_websocket, switch

SERVER = str(Path(__file__).parent / "servers" / "sample_server.py")
PROCESS = [str(SHIM_BIN), "--log-format", "text", "--", sys.executable, SERVER, "{port}"]


def write(path: Path, functions: dict, **settings: object) -> None:
    """Whole at once, as whoever replaces a configuration does."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({**settings, "functions": functions}))
    fresh.rename(path)


def serverless(stack: Stack, functions: dict, *flags: str, **settings: object):
    path = stack.folder / "config.json"
    write(path, functions, **settings)
    stack.ingress = stack.start_ingress("--config", str(path), *flags)
    return stack.ingress


def hello(**more: object) -> dict:
    return {"launcher": {"process": PROCESS}, "scaledown_window": "300ms", **more}


def in_threads(count: int, action) -> list:
    """What each of the calls returned, all at the same time."""
    results: list = [None] * count

    def run(i: int) -> None:
        results[i] = action(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


def test_from_zero_to_one_and_back(stack):
    ingress = serverless(stack, {"hello": hello()})
    assert descendants(ingress.pid) == []
    pid = int(assert_answer(stack.ask()).body)
    assert pid in descendants(ingress.pid)
    ingress.wait_log(r"container launched.* function=hello .*why=calls")
    ingress.wait_log(r"container stopping.* function=hello .*why=\"it is not needed\"")
    ingress.wait_log(r"container ended.* function=hello")
    wait_until(lambda: descendants(ingress.pid) == [], "its processes are gone")
    # And again.
    assert int(assert_answer(stack.ask()).body) != pid


def test_a_function_whose_calls_do_not_wait(stack):
    """Refused at once; but a container starts for those who come again."""
    ingress = serverless(stack, {"hello": hello(queue=False, scaledown_window="20s")})
    refused = assert_error(stack.ask(), 503, "queue_full")
    assert b"do not wait" in refused.body
    ingress.wait_log('msg="container ready"')
    assert_answer(stack.ask())


def test_what_a_process_is_given(stack):
    """A free port of its own, twice; who it is; its words are in the log, with its id."""
    script = ('echo "own $PORT {port} $PORTHOLE_FUNCTION $PORTHOLE_CONTAINER_ID '
              '$PORTHOLE_INGRESS $PORTHOLE_ZONE $EXTRA"; echo words >&2; exec sleep 1000')
    ingress = serverless(stack, {"hello": hello(
        min_containers=3, max_containers=3,
        launcher={"process": ["/bin/sh", "-c", script]})}, "--zone", "z1")
    wait_until(lambda: ingress.log.count("line=words") == 3, "all three have spoken")
    ids, ports = set(), set()
    for container in containers(ingress):
        own = re.search(rf'msg="container says" function=hello container={container["id"][:16]} '
                        r'line="own (.*)"', ingress.log)
        assert own[1].split() == [str(container["port"]), str(container["port"]), "hello",
                                  container["id"], ingress.shims, "z1"]
        ids.add(container["id"])
        ports.add(container["port"])
        assert container["process"] in descendants(ingress.pid)
    assert len(ids) == len(ports) == 3


def test_more_descriptors_for_the_ingress_than_for_its_processes(stack):
    """It takes as many as the hard limit says; a server that uses select(2) must not."""
    path = stack.folder / "config.json"
    write(path, {"hello": hello(min_containers=1, launcher={
        "process": ["/bin/sh", "-c", "echo limits $(ulimit -Sn) $(ulimit -Hn); exec sleep 1000"]})})
    stack.ingress = stack.start_ingress("--config", str(path), prefix=["prlimit", "--nofile=64:256"])
    stack.ingress.wait_log('line="limits 64 256"')
    clients = [stack.client() for _ in range(100)]  # none of them is refused or kept waiting
    for client in clients:
        client.send(http.request(target=b"/.porthole/readyz"))
    for client in clients:
        assert client.read_response().status == 200


def test_many_calls_many_containers_and_none_again(stack, tmp_path):
    ingress = serverless(stack, {"hello": hello(target_concurrency=2, max_concurrency=2,
                                                max_containers=3)})
    gate = tmp_path / "gate"

    def call(i: int) -> int:
        return int(assert_answer(stack.ingress.ask("GET", f"/wait{gate}")).body)

    results: list = []
    caller = threading.Thread(target=lambda: results.extend(in_threads(9, call)))
    caller.start()
    wait_until(lambda: ingress.log.count("msg=\"container ready\"") == 3, "three are ready")
    gate.touch()
    caller.join(60)
    # Six at a time in three containers of two slots; three waited.
    assert len(results) == 9 and len(set(results)) == 3
    assert ingress.log.count("container launched") == 3
    wait_until(lambda: descendants(ingress.pid) == [], "none is left")


def test_one_that_does_not_start_beside_one_that_does(stack):
    """It is tried three times, then those who wait hear how it died."""
    ingress = serverless(stack, {
        "broken": {"launcher": {"process": [str(SHIM_BIN), "--", "/bin/sh", "-c", "exit 7"]}},
        "missing": {"launcher": {"process": ["/nowhere/program"]}},
        "hello": hello(scaledown_window="1m")})

    def call(i: int) -> http.Response:
        host = (b"broken.x", b"missing.x", b"hello.x")[i]
        with Client(ingress.address) as client:
            return client.ask("GET", "/", host=host, seconds=30)

    broken, missing, works = in_threads(3, call)
    assert_answer(works)
    assert_error(broken, 502, "container_failed_to_start")
    assert b"3 times in a row" in broken.body and b"status 7" in broken.body
    assert_error(missing, 502, "container_failed_to_start")
    assert b"No such file or directory" in missing.body


def test_one_that_never_gets_ready(stack):
    ingress = serverless(stack, {
        "hangs": {"startup_timeout": "300ms", "launcher": {
            "process": [str(SHIM_BIN), "--", sys.executable, SERVER, "{port}", "--after",
                        str(stack.folder / "never")]}},
        "hello": hello(scaledown_window="1m")})

    def call(i: int) -> http.Response:
        with Client(ingress.address) as client:
            return client.ask("GET", "/", host=(b"hangs.x", b"hello.x")[i], seconds=30)

    hangs, works = in_threads(2, call)
    assert_answer(works)
    assert_error(hangs, 502, "container_failed_to_start")
    assert b"not ready within 300 ms" in hangs.body


def test_kill_9_of_containers_under_load(stack):
    """Calls that may be sent again do not notice."""
    ingress = serverless(stack, {"hello": hello(target_concurrency=2, max_containers=3,
                                                scaledown_window="1m")})
    stop = threading.Event()
    statuses: list = []

    def load(i: int) -> None:
        with Client(ingress.address) as client:
            while not stop.is_set():
                statuses.append(client.ask("GET", "/", seconds=30).status)

    caller = threading.Thread(target=lambda: in_threads(6, load))
    caller.start()
    wait_until(lambda: ingress.log.count("msg=\"container ready\"") >= 3, "three are ready")
    for _ in range(4):
        before = len(statuses)
        launched = ingress.log.count("container launched")
        ready = ingress.log.count("msg=\"container ready\"")
        # The first below the ingress is a shim, its server is below that.
        os.kill(descendants(ingress.pid)[0], signal.SIGKILL)
        wait_until(lambda: ingress.log.count("container launched") > launched, "a new one")
        wait_until(lambda: ingress.log.count("msg=\"container ready\"") > ready, "it is ready")
        wait_until(lambda: len(statuses) > before + 20, "calls go on")
    stop.set()
    caller.join(60)
    assert set(statuses) == {200}


def test_the_own_zone_comes_first(stack, server):
    """Calls leave the zone when it has nobody."""
    ingress = stack.ingress = stack.start_ingress("--zone", "near")
    shims = {}
    for zone in ("far", "near"):
        target = server if zone == "far" else stack.server()
        target.script(serve(lambda request, conn, zone=zone: http.reply(body=zone.encode())))
        shims[zone] = stack.start_shim(ingress, "--zone", zone, server=target)
    wait_until(lambda: scale_of(ingress, "default")["containers_ready"] == 2, "both are ready")
    assert {assert_answer(stack.ask()).body for _ in range(12)} == {b"near"}
    shims["near"].stop()
    assert assert_answer(stack.ask()).body == b"far"


TIDIES = ("n=0; trap 'n=$((n + 1))' TERM; echo up; while [ $n = 0 ]; do sleep 0.02; done; "
          "sleep 0.3; sleep 0.3; echo heard $n; exit 0")


def test_one_sigterm_and_time_to_end(stack):
    """Of a shim a second one would cut its drain short."""
    ingress = serverless(stack, {"hello": hello(
        min_containers=2, launcher={"process": ["/bin/sh", "-c", TIDIES]})})
    wait_until(lambda: ingress.log.count("line=up") == 2, "two have started")
    ingress.signal(signal.SIGTERM)
    ingress.expect_exit(0)
    assert ingress.log.count('line="heard 1"') == 2
    assert ingress.log.count('how="exited with status 0"') == 2


def test_one_that_does_not_end_is_killed(stack):
    ingress = serverless(stack, {"hello": hello(min_containers=1, launcher={
        "process": ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"],
        "stop_timeout": "300ms"})})
    ingress.wait_log("line=up")
    (one,) = containers(ingress)
    with Client(ingress.admin) as admin:
        assert admin.ask("POST", f"/v1/containers/{one['id']}/drain").status == 202
    ingress.wait_log(rf"container killed.* container={one['id'][:16]}")
    ingress.wait_log(rf"container ended.* container={one['id'][:16]} how=\"was killed by signal 9")
    # Another one is needed, and the end of the ingress waits no longer for it.
    wait_until(lambda: ingress.log.count("line=up") == 2, "another one is there")
    ingress.signal(signal.SIGTERM)
    ingress.expect_exit(0, 5)


def test_everything_of_a_client_meets_one_container(stack):
    serverless(stack, {"hello": hello(min_containers=3, max_containers=3, target_concurrency=1,
                                      affinity={"cookie": "sid"})})
    wait_until(lambda: stack.ingress.log.count("msg=\"container ready\"") == 3, "three are ready")
    homes = set()
    for _ in range(12):
        first = assert_answer(stack.ask())
        cookie = first.get("Set-Cookie")
        assert cookie.startswith(b"sid=") and cookie.endswith(b"; Path=/; HttpOnly; SameSite=Lax")
        homes.add(first.body)
        for _ in range(3):
            more = assert_answer(stack.ask(fields=[(b"Cookie", cookie.partition(b";")[0])]))
            assert more.body == first.body
            assert more.get("Set-Cookie") is None
    assert len(homes) > 1  # chance of all in one: 3 ** -11


def test_hosts_and_prefixes(stack, server):
    """By the file first; what only registers by its name."""
    stack.ingress = serverless(stack, {
        "a": {"hosts": ["a.example.com"]},
        "stripped": {"hosts": ["a.example.com"], "path_prefix": "/api", "strip_prefix": True}})
    for name in (b"a", b"stripped", b"other"):
        target = stack.server()
        target.script(serve(lambda request, conn, name=name: http.reply(
            body=name + b" " + request.target)))
        stack.start_shim(stack.ingress, server=target, function=name.decode())
    cases = [(b"a.example.com", b"/x", b"a /x"),
             (b"A.example.com:80", b"/apis", b"a /apis"),
             (b"a.example.com", b"/api/x?y=/api", b"stripped /x?y=/api"),
             (b"a.example.com", b"/api", b"stripped /"),
             (b"other.localhost", b"/api", b"other /api")]
    for host, target, body in cases:
        assert assert_answer(stack.ask("GET", target, host=host)).body == body
    assert_error(stack.ask(host=b"b.example.com"), 404, "no_such_function")


def test_strict_refuses_what_is_not_in_the_file(stack, server):
    ingress = serverless(stack, {"a": {}}, "--strict")
    shim = stack.start_shim(ingress, server=server, function="b", wait=False)
    shim.wait_log("the functions of its file only")
    stack.start_shim(ingress, server=stack.server(), function="A")
    assert_answer(stack.ask(host=b"whatever"))


def test_reload_under_load(stack):
    """Functions come, change and go; no connection is cut and no call fails."""
    ingress = serverless(stack, {"hello": hello(hosts=["*"], scaledown_window="1m")})
    path = stack.folder / "config.json"
    stop = threading.Event()
    statuses: list = []

    def load(i: int) -> None:
        with Client(ingress.address) as client:
            while not stop.is_set():
                statuses.append(client.ask("GET", "/", seconds=30).status)

    caller = threading.Thread(target=lambda: in_threads(4, load))
    caller.start()
    wait_until(lambda: len(statuses) > 20, "calls are answered")
    for round_ in range(4):
        loaded = ingress.log.count("configuration loaded")
        before = len(statuses)
        functions = {"hello": hello(hosts=["*"], max_concurrency=10 + round_)}
        if round_ % 2 == 0:
            functions["second"] = hello(hosts=["second.x"])
        write(path, functions)
        ingress.signal(signal.SIGHUP)
        wait_until(lambda: ingress.log.count("configuration loaded") > loaded, "it is loaded")
        if round_ == 0:
            second = ingress.ask("GET", "/", host=b"second.x")
            assert_answer(second)
        wait_until(lambda: len(statuses) > before + 20, "calls go on")
    stop.set()
    caller.join(60)
    assert set(statuses) == {200}
    # What is wrong is refused whole, and the old one stands.
    write(path, {"hello": {"max_containers": 0}})
    ingress.signal(signal.SIGHUP)
    ingress.wait_log(r"configuration not loaded.*hello.max_containers")
    assert_answer(ingress.ask())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("launched", ["itself", "by a shell"])
def test_nothing_is_left_behind(stack, number, launched):
    process = PROCESS
    if launched == "by a shell":
        process = ["/bin/sh", "-c", shlex.join(PROCESS) + "; exit $?"]
    ingress = serverless(stack, {"hello": hello(min_containers=2, max_containers=2,
                                                launcher={"process": process})})
    wait_until(lambda: ingress.log.count("msg=\"container ready\"") == 2, "two are ready")
    below = descendants(ingress.pid)
    assert len(below) >= 4
    if number == signal.SIGKILL:
        ingress.kill()
    else:
        ingress.signal(number)
        ingress.expect_exit(0)
        # They had the time to end by themselves.  A shell does not wait for its own.
        assert launched != "itself" or len(re.findall(r'msg="container ended".* how="exited with status 0"',
                              ingress.log)) == 2
    wait_until(lambda: not any(is_alive(pid) for pid in below), "they are gone")


def test_a_command_that_scales(stack, server, tmp_path):
    told = tmp_path / "told"
    script = ("echo $PORTHOLE_FUNCTION $PORTHOLE_DESIRED $PORTHOLE_READY $PORTHOLE_REASON "
              f"$(cat) >>{told}; echo words >&2")
    ingress = serverless(stack, {"hello": {
        "launcher": {"exec": ["/bin/sh", "-c", script]}, "scaledown_window": "300ms"}})
    client = ingress.client()
    client.send(http.request())
    ingress.wait_log(r"scale command says.*line=words")
    stack.start_shim(ingress, server=server, function="hello")
    assert_answer(client.read_response())
    wait_until(lambda: told.read_text().count("\n") == 2, "it is told of the end")
    # What was desired before is not known: it is told nothing before the first call.
    first, second = told.read_text().splitlines()
    assert first.startswith("hello 1 0 calls {") and second.startswith("hello 0 1 idle {")
    scale = json.loads(first.partition("calls ")[2])
    assert scale["waiting"] == 1 and scale["desired"] == 1 and scale["function"] == "hello"


def test_five_thousand_calls_wait(stack):
    """All of them are answered when the first container comes."""
    ingress = serverless(stack, {"hello": hello(
        max_containers=1, max_concurrency=20, queue={"max_calls": 5000}, launcher={"process": [
            str(SHIM_BIN), "--", sys.executable, SERVER, "{port}", "--after",
            str(stack.folder / "go")]})})
    clients = []
    for i in range(5000):
        client = Client(ingress.address)
        clients.append(client)
        client.send(http.request())
    try:
        wait_until(lambda: waiting(ingress) == 5000, "all of them wait", 60)
        assert_error(ingress.ask(), 503, "queue_full")
        (stack.folder / "go").touch()
        for client in clients:
            assert client.read_response(seconds=60).status == 200
    finally:
        for client in clients:
            client.close()


def waiting(ingress) -> int:
    with Client(ingress.admin) as admin:
        return json.loads(admin.ask("GET", "/v1/functions/hello/scale").body)["waiting"]


def containers(ingress) -> list[dict]:
    with Client(ingress.admin) as admin:
        return json.loads(admin.ask("GET", "/v1/containers").body)["containers"]


def test_rolling_restart(stack):
    """Each container is drained in turn, under load; no call fails."""
    ingress = serverless(stack, {"hello": hello(min_containers=2, max_containers=2)})
    wait_until(lambda: [c["state"] for c in containers(ingress)] == ["ready"] * 2, "two")
    stop = threading.Event()
    statuses: list = []

    def load(i: int) -> None:
        with Client(ingress.address) as client:
            while not stop.is_set():
                statuses.append(client.ask("POST", "/", body=b"x", seconds=30).status)

    caller = threading.Thread(target=lambda: in_threads(4, load))
    caller.start()
    old = [c["id"] for c in containers(ingress)]
    for id_ in old:
        with Client(ingress.admin) as admin:
            answer = admin.ask("POST", f"/v1/containers/{id_}/drain")
        assert answer.status == 202 and json.loads(answer.body)["state"] == "draining"
        wait_until(lambda: id_ not in [c["id"] for c in containers(ingress)], "it is gone")
        wait_until(lambda: [c["state"] for c in containers(ingress)] == ["ready"] * 2,
                   "another one is there")
    stop.set()
    caller.join(60)
    assert set(statuses) == {200} and len(statuses) > 20
    assert not set(old) & {c["id"] for c in containers(ingress)}


def test_what_operators_see(stack, server):
    ingress = serverless(stack, {"hello": hello(), "other": {}})
    shim = stack.start_shim(ingress, "--concurrency", "7", server=server, function="other")
    wait_until(lambda: [c["state"] for c in containers(ingress)] == ["ready"], "it is ready")
    with Client(ingress.admin) as admin:
        functions = json.loads(admin.ask("GET", "/v1/functions").body)["functions"]
        scale = json.loads(admin.ask("GET", "/v1/functions/Other/scale").body)
        assert scale in functions and [f["function"] for f in functions] == ["hello", "other"]
        assert scale == {"function": "other", "in_flight": 0, "waiting": 0, "websockets": 0,
                         "containers_starting": 0, "containers_ready": 1,
                         "containers_draining": 0, "desired": 0, "idle_seconds": 0,
                         "reason": "idle"}
        (one,) = json.loads(admin.ask("GET", "/v1/containers").body)["containers"]
        assert one["function"] == "other" and one["state"] == "ready" and one["registered"]
        assert one["concurrency"] == 7 and one["process"] == 0
        assert f"container={one['id'][:16]}" in shim.log
        # By the beginning that the log shows; it is somebody else's, so it only gets no calls.
        drain = f"/v1/containers/{one['id'][:16]}/drain"
        assert admin.ask("GET", drain).status == 405
        assert admin.ask("POST", drain).status == 202
        (one,) = json.loads(admin.ask("GET", "/v1/containers").body)["containers"]
        assert one["state"] == "draining"
        for path in ("/v1/containers/00112233445566778/drain", "/v1/containers//drain",
                     "/v1/containers/x", "/v1/functions/nobody/scale", "/v1/functions/hello",
                     "/v1/functions//scale", "/v1/nothing"):
            assert admin.ask("POST" if "drain" in path else "GET", path).status == 404, path
        assert admin.ask("POST", "/v1/functions").status == 405


def test_draining_a_container_that_somebody_else_started(stack, server):
    """No new calls from this ingress, and nothing else: what it has goes on, and so does it."""
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply(body=b"old")))
    ingress = serverless(stack, {"hello": {}})
    other = stack.start_ingress()
    shim = stack.start_shim([ingress.shims, other.shims], server=server, function="hello")
    wait_until(lambda: shim.log.count("msg=registered") == 2, "both know it")
    client = stack.client()
    client.send(http.request("POST", body=b"x"))
    server.next_request()
    (one,) = containers(ingress)
    with Client(ingress.admin) as admin:
        assert admin.ask("POST", f"/v1/containers/{one['id']}/drain").status == 202
    waits = stack.client()
    waits.send(http.request())
    wait_until(lambda: waiting(ingress) == 1, "the next call waits for another one")
    fresh = stack.server()
    fresh.script(serve(lambda request, conn: http.reply(body=b"new")))
    stack.start_shim(ingress, server=fresh, function="hello")
    assert assert_answer(waits.read_response()).body == b"new"
    gate.set()
    assert assert_answer(client.read_response()).body == b"old"
    for _ in range(5):
        assert assert_answer(stack.ask()).body == b"new"
    assert assert_answer(other.ask("GET", "/")).body == b"old"
    assert "draining" not in shim.log


EXEC_ROW = re.compile(r"^\| .* \| `(\[\"sh\", .*\])` \|$", re.M)
EXEC_SAYS = [
    ["docker compose up -d --no-recreate --scale web=2 web"],
    ["docker service scale --detach web=2"],
    ["kubectl scale deployment/web --replicas=2"],
    ["systemctl start web@1", "systemctl start web@2",
     *(f"systemctl stop --no-block web@{i}" for i in range(3, 10))]]


def test_the_commands_of_the_documentation(stack, tmp_path):
    """Each does what its line says, with programs that only write down how they were called."""
    told = tmp_path / "told"
    for name in ("docker", "kubectl", "systemctl"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{told}.$PORTHOLE_FUNCTION"\n')
        (tmp_path / name).chmod(0o755)
    rows = EXEC_ROW.findall((ROOT / "docs/scaling.md").read_text())
    assert len(rows) == len(EXEC_SAYS)
    path = stack.folder / "config.json"
    write(path, {f"f{i}": {"min_containers": 2, "launcher": {"exec": json.loads(row)}}
                 for i, row in enumerate(rows)})
    ingress = stack.start_ingress("--config", str(path),
                                  env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    for i, words in enumerate(EXEC_SAYS):
        said = tmp_path / f"told.f{i}"
        wait_until(lambda: said.exists() and said.read_text().splitlines() == words, words)
    assert "scale command failed" not in ingress.log


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not here")
def test_zero_to_many_and_back_under_wrk(stack):
    """Requests by thousands: all are answered with 200, containers come and all of them go."""
    ingress = serverless(stack, {"hello": hello(target_concurrency=4, max_containers=3,
                                                scaledown_window="500ms")})
    wrk = stack.run("wrk", ["wrk", "-t1", "-c32", "-d3s", "--timeout", "30s",
                            f"http://127.0.0.1:{ingress.port}/"])
    wait_until(lambda: [c["state"] for c in containers(ingress)] == ["ready"] * 3, "three are ready")
    wrk.expect_exit(0)
    assert re.search(r"^ *([0-9]+) requests in", wrk.log, re.M)
    assert "Non-2xx" not in wrk.log and "Socket errors" not in wrk.log, wrk.log
    wait_until(lambda: containers(ingress) == [] and descendants(ingress.pid) == [], "none is left")


def scale_of(ingress, name: str) -> dict:
    with Client(ingress.admin) as admin:
        return json.loads(admin.ask("GET", f"/v1/functions/{name}/scale").body)


def test_websockets_count_and_keep_their_container(stack, server):
    """One that takes no slot leaves it to others; one keeps a container desired, or does not."""
    server.script(serve_websocket(echo))
    ingress = serverless(stack, {
        "awake": {"hosts": ["awake.x"], "scaledown_window": "200ms", "max_concurrency": 1,
                  "websockets": {"count": False}, "affinity": {"cookie": "sid"}},
        "asleep": {"hosts": ["asleep.x"], "scaledown_window": "200ms",
                   "websockets": {"keep_awake": False}}})
    for name in ("awake", "asleep"):
        stack.start_shim(ingress, server=server, function=name)
        wait_until(lambda: scale_of(ingress, name)["containers_ready"] == 1, "it is ready")
    clients = {}
    for name in ("awake", "awake", "asleep"):
        client = ingress.client()
        answer = upgrade_at(client, name + ".x")
        assert (answer.get("Set-Cookie") or b"").startswith(b"sid=") == (name == "awake")
        clients.setdefault(name, []).append(client)
    assert scale_of(ingress, "awake")["websockets"] == 2
    # The window has passed when the other one's is over: it has nothing but a WebSocket.
    wait_until(lambda: scale_of(ingress, "asleep")["desired"] == 0, "nothing keeps it awake")
    awake = scale_of(ingress, "awake")
    assert (awake["desired"], awake["reason"]) == (1, "websockets")
    for client in clients["awake"]:
        client.send(close_frame(1000))
    wait_until(lambda: scale_of(ingress, "awake")["desired"] == 0, "it may go")


def test_a_websocket_without_a_slot_leaves_the_only_one_to_requests(stack, server):
    """As ComfyUI has it: one job at a time, and browsers that listen all day."""

    def answer(request, conn):
        if request.get("Upgrade") is None:
            return http.reply(body=b"job")
        conn.send(switch(request))
        echo(conn)
        return conn.close()

    server.script(serve(answer))
    ingress = serverless(stack, {"one": {"websockets": {"count": False}}})
    stack.start_shim(ingress, "--concurrency", "1", server=server, function="one")
    listeners = [ingress.client() for _ in range(3)]
    for listener in listeners:
        upgrade_at(listener, "one.x")
    assert assert_answer(ingress.ask()).body == b"job"
    assert scale_of(ingress, "one")["websockets"] == 3
    for listener in listeners:
        listener.send(close_frame(1000))


def upgrade_at(client, host: str):
    client.send(handshake(host=host.encode()))
    answer = client.read_head()
    assert answer.status == 101, answer.raw_head
    return answer
