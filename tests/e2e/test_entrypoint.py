"""The shim as a container's entrypoint: what becomes of calls when the server starts, dies
and is started again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import http, settings
from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.program import descendants
from harness.stack import SHIM_BIN, free_port

COMMAND = str(Path(__file__).parent / "servers" / "sample_server.py")
# "Calls in flight have their error within 100 ms of the command's death."
TOLD_S = 0.1 if os.environ.get("PORTHOLE_STRICT_TIMING") == "1" else 0.5


def sample(port: int, *more: str) -> list[str]:
    return [sys.executable, COMMAND, str(port), *more]


def start(stack, *flags: str, ingress: tuple[str, ...] = (), **more):
    """An ingress, and a shim that starts the sample server."""
    port = free_port()
    stack.ingress = stack.start_ingress(*ingress)
    stack.shim = stack.start_shim(stack.ingress, "--port", str(port), *settings.grace(6), *flags,
                                  command=sample(port), **more)
    return stack


def call(stack, target: str):
    """A call that nobody sends twice."""
    client = stack.client()
    client.send(http.request("POST", target, body=b"x"))
    return client


# ---- how it died

@pytest.mark.parametrize("number, how", [
    (signal.SIGKILL, "killed by signal 9 (Killed)"), (signal.SIGSEGV, "killed by signal 11"),
    (signal.SIGABRT, "killed by signal 6"),
])
def test_the_error_says_how_the_server_died(stack, number, how):
    start(stack)
    clients = [call(stack, "/hang") for _ in range(5)]
    pid = int(assert_answer(stack.ask()).body)
    begin = time.monotonic()
    os.kill(pid, number)
    for client in clients:
        answer = assert_error(client.read_response(), 502, "container_lost")
        assert time.monotonic() - begin < TOLD_S
        assert how.encode() in answer.body, answer.body
    stack.shim.expect_exit(128 + number)
    assert how in stack.ingress.wait_log("container exited.*")[0]


def test_the_error_says_the_status_of_a_server_that_ended(stack):
    start(stack)
    held = call(stack, "/hang")
    answer = assert_error(call(stack, "/exit/3").read_response(), 502, "container_lost")
    assert b"exited with status 3" in answer.body
    assert b"exited with status 3" in assert_error(held.read_response(), 502, "container_lost").body
    stack.shim.expect_exit(3)
    stack.ingress.wait_log('container gone.*its server exited with status 3')


def test_a_worker_that_dies_is_not_the_servers_death(stack):
    """The command lives: the call says what was seen, and others go on."""
    stack.ingress = stack.start_ingress()
    port = free_port()
    script = f"while :; do {sys.executable} {COMMAND} {port} & wait $!; done"
    stack.shim = stack.start_shim(stack.ingress, "--port", str(port), *settings.grace(6),
                                  command=["sh", "-c", script])
    held = call(stack, "/hang")
    worker = int(assert_answer(stack.ask()).body)
    os.kill(worker, signal.SIGKILL)
    assert_error(held.read_response(), 502, "server_closed")
    # While its port refuses calls wait; one may still find it out.
    for _ in range(3):
        answer = stack.ask()
        if answer.status == 200:
            break
        assert_error(answer, 502, "server_refused")
    assert int(assert_answer(stack.ask()).body) != worker


@contextlib.contextmanager
def memory_group(bytes_max: int):
    """A cgroup (version 1) below our own, or None where there cannot be one."""
    own = re.search(r"^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$", Path("/proc/self/cgroup").read_text(), re.M)
    group = Path("/sys/fs/cgroup/memory" + (own[1] if own else "")) / f"porthole-test-{os.getpid()}"
    try:
        assert own
        group.mkdir()
    except (AssertionError, OSError):
        yield None
        return
    try:
        (group / "memory.limit_in_bytes").write_text(str(bytes_max))
        yield group
    finally:
        def gone() -> bool:
            try:
                group.rmdir()
            except OSError:
                return False
            return True

        wait_until(gone, "the cgroup is empty")


def test_out_of_memory_is_told_from_other_kills(stack):
    with memory_group(256 << 20) as group:
        if group is None:
            pytest.skip("no memory cgroup of version 1 can be made here")
        into = ["sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh"]
        start(stack, prefix=into)
        held = call(stack, "/hang")
        answer = assert_error(call(stack, "/eat").read_response(60), 502, "container_lost")
        assert b"killed by signal 9 (out of memory)" in answer.body, answer.body
        assert b"(out of memory)" in assert_error(held.read_response(), 502, "container_lost").body
        stack.shim.expect_exit(137)
        assert "out_of_memory=true" in stack.ingress.wait_log("container exited.*")[0]


# ---- started again

def test_a_server_is_started_again(stack):
    start(stack, *settings.restart("on-failure"))
    held = call(stack, "/hang")
    pid = int(assert_answer(stack.ask()).body)
    os.kill(pid, signal.SIGKILL)
    assert b"killed by signal 9" in assert_error(held.read_response(), 502, "container_lost").body
    waiting = call(stack, "/")
    begin = time.monotonic()
    second = int(assert_answer(waiting.read_response()).body)
    assert second != pid and time.monotonic() - begin > 0.5  # a second after the first
    states = re.findall(r"container (registered|starting|ready|exited|gone)", stack.ingress.log)
    assert states == ["registered", "starting", "ready", "exited", "starting", "ready"]
    # And again: later.
    at = len(stack.shim.log)
    os.kill(second, signal.SIGKILL)
    assert "in_ms=2000" in stack.shim.wait_log("the command is started again.*", after=at)[0]
    assert int(assert_answer(stack.ask()).body) not in (pid, second)
    stack.shim.stop()


@pytest.mark.parametrize("policy, code, again", [
    ("never", 3, False), ("on-failure", 0, False), ("on-failure", 3, True), ("always", 0, True),
])
def test_when_a_server_is_started_again(stack, policy, code, again):
    start(stack, *settings.restart(policy))
    assert_error(call(stack, f"/exit/{code}").read_response(), 502, "container_lost")
    if again:
        assert_answer(stack.ask())
        stack.shim.stop()
    else:
        stack.shim.expect_exit(code)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_command_is_not_running(stack, number):
    start(stack, *settings.restart("always"))
    call(stack, "/exit/3").read_response()
    stack.shim.wait_log("started again")
    stack.shim.signal(number)
    stack.shim.expect_exit(0)


def test_a_command_that_is_gone_when_it_is_started_again(stack, tmp_path):
    """Its start fails; that is no reason to end."""
    program = tmp_path / "server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {COMMAND} "$@"\n')
    program.chmod(0o755)
    port = free_port()
    stack.ingress = stack.start_ingress()
    stack.shim = stack.start_shim(stack.ingress, "--port", str(port), *settings.restart("always"),
                                  command=[str(program), str(port)])
    text = program.read_text()
    program.unlink()
    call(stack, "/exit/0").read_response()
    stack.shim.wait_log("cannot start")
    program.write_text(text)
    program.chmod(0o755)
    assert_answer(stack.ask())


def test_nothing_of_the_first_is_left_when_it_is_started_again(stack):
    port = free_port()
    stack.ingress = stack.start_ingress()
    script = f"sleep 1000 & exec {sys.executable} {COMMAND} {port}"
    stack.shim = stack.start_shim(stack.ingress, "--port", str(port), *settings.restart("always"),
                                  command=["sh", "-c", script])
    before = set(descendants(stack.shim.pid))
    assert len(before) == 2
    call(stack, "/exit/0").read_response()
    assert_answer(stack.ask())
    after = set(descendants(stack.shim.pid))
    assert len(after) == 2 and not before & after


def test_a_server_that_does_not_start_in_time(stack):
    stack.ingress = stack.start_ingress()
    shim = stack.start_shim(stack.ingress, "--port", str(free_port()), "--startup-timeout", "1",
                            command=["sh", "-c", "exec sleep 1000"], wait=False)
    waiting = call(stack, "/") if stack.ingress.wait_log("container starting") else None
    shim.expect_exit(1)
    assert "the server did not accept in time" in shim.log
    stack.ingress.wait_log("container exited.*did not accept within 1 s")
    # Another container takes the call that waited.
    port = free_port()
    stack.start_shim(stack.ingress, "--port", str(port), command=sample(port))
    assert_answer(waiting.read_response())


def test_a_server_that_does_not_start_in_time_is_started_again(stack, tmp_path):
    """The first one only waits, the second one serves."""
    port, mark = free_port(), tmp_path / "mark"
    script = (f"if [ -e {mark} ]; then exec {sys.executable} {COMMAND} {port}; fi; "
              f"touch {mark}; exec sleep 1000")
    stack.ingress = stack.start_ingress()
    stack.start_shim(stack.ingress, "--port", str(port), "--startup-timeout", "3",
                     *settings.restart("on-failure"), command=["sh", "-c", script])
    assert_answer(stack.ask())


# ---- idle

def test_an_idle_container_ends(stack):
    start(stack, *settings.idle_exit("700ms"))
    pid = int(assert_answer(stack.ask()).body)
    begin = time.monotonic()
    stack.shim.expect_exit(0)
    assert time.monotonic() - begin > 0.6
    assert "why=idle" in stack.shim.log
    assert not Path(f"/proc/{pid}").exists()


def test_a_container_with_a_call_is_not_idle(stack, tmp_path):
    start(stack, *settings.idle_exit("300ms"))
    go = tmp_path / "go"
    client = call(stack, f"/wait{go}")
    # What is measured is that it does not end within more than its time.
    threading.Event().wait(1.0)
    assert stack.shim.process.poll() is None and "draining" not in stack.shim.log
    go.touch()
    assert_answer(client.read_response())
    stack.shim.expect_exit(0)


# ---- rolling restart

def test_a_rolling_restart_under_load_fails_no_request(stack):
    """Containers are replaced one after the other while requests of every kind come."""
    stack.ingress = stack.start_ingress()

    def container():
        port = free_port()
        return stack.start_shim(stack.ingress, "--port", str(port), *settings.grace(7),
                                command=sample(port))

    shims = [container(), container()]
    stop = threading.Event()
    statuses: list[int] = []
    failures: list[str] = []

    def load(method: str) -> None:
        client = stack.client()
        while not stop.is_set():
            answer = client.ask(method, body=b"x" if method == "POST" else None)
            statuses.append(answer.status)
            if answer.status != 200:
                failures.append(repr(answer.body))

    threads = [threading.Thread(target=load, args=(method,)) for method in ("GET", "POST") * 4]
    for thread in threads:
        thread.start()
    for _ in range(3):
        for i in range(len(shims)):
            new = container()
            shims[i].signal(signal.SIGTERM)
            shims[i].expect_exit(0)
            shims[i] = new
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures and set(statuses) == {200}
    assert len(statuses) > 100
