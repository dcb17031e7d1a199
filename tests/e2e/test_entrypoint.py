"""The shim as a container's entrypoint: what becomes of calls when the server starts, dies
and is started again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import http, settings
from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.program import clean_environment, descendants
from harness.stack import SANITIZED, SHIM_BIN, free_port

COMMAND = str(Path(__file__).parent / "servers" / "sample_server.py")
# "Calls in flight have their error within 100 ms of the command's death."
TOLD_S = 0.1 if os.environ.get("PORTHOLE_STRICT_TIMING") == "1" else 0.5


def sample(port: int | str, *more: str) -> list[str]:
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
    (signal.SIGKILL, "was killed by signal 9 (Killed)"), (signal.SIGSEGV, "was killed by signal 11"),
    (signal.SIGABRT, "was killed by signal 6"),
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
        assert b"the server " in answer.body and how.encode() in answer.body, answer.body
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
        answer = assert_error(call(stack, "/eat").read_response(seconds=60), 502, "container_lost")
        assert b"killed by signal 9 (out of memory)" in answer.body, answer.body
        assert b"(out of memory)" in assert_error(held.read_response(), 502, "container_lost").body
        stack.shim.expect_exit(137)
        assert "out_of_memory=true" in stack.ingress.wait_log("container exited.*")[0]


# ---- standard error

class Raw:
    """A shim whose standard error is a pipe of the test's own."""

    def __init__(self, stack, *argv: str, env=None) -> None:
        read, write = os.pipe()
        self.out = read
        self.process = subprocess.Popen([str(SHIM_BIN), *argv], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=write, env=clean_environment(env))
        os.close(write)

    def read_all(self) -> bytes:
        with os.fdopen(self.out, "rb") as file:
            return file.read()


def test_standard_error_is_copied_byte_for_byte(stack):
    """As much as waits for a reader without loss."""
    stack.ingress = stack.start_ingress()
    script = ("import os\nfor i in range(48):\n"
              "  os.write(2, bytes((i * 31 + j * 7) & 255 for j in range(5000)))\n"
              "os.write(1, b'out')")
    raw = Raw(stack, "--ingress", stack.ingress.shims, "--log-level", "error", "--stderr", "pipe",
              "--", sys.executable, "-c", script)
    assert raw.read_all() == b"".join(bytes((i * 31 + j * 7) & 255 for j in range(5000))
                                      for i in range(48))
    assert raw.process.communicate()[0] == b"out"
    assert raw.process.returncode == 0


def test_a_log_that_nobody_reads_does_not_hold_up_the_server(stack):
    port = free_port()
    stack.ingress = stack.start_ingress()
    raw = Raw(stack, "--ingress", stack.ingress.shims, "--port", str(port), "--", *sample(port))
    try:
        stack.ingress.wait_log("container ready")
        # A pipe holds 64 KiB, and the shim a quarter of a MiB.
        for _ in range(80):
            assert_answer(stack.ask(target="/say/" + "x" * 7000))
        raw.process.send_signal(signal.SIGTERM)
        assert raw.process.wait(20) == 0
        said = raw.read_all()
        assert b"x" * 7000 + b"\n" in said and len(said) < 80 * 7000
    finally:
        raw.process.kill()


def test_what_is_missing_of_standard_error_is_said(stack):
    port = free_port()
    stack.ingress = stack.start_ingress()
    raw = Raw(stack, "--ingress", stack.ingress.shims, "--port", str(port), "--", *sample(port))
    stack.ingress.wait_log("container ready")
    for _ in range(80):
        assert_answer(stack.ask(target="/say/" + "x" * 7000))
    said = b""
    while b"some of it is missing" not in said:
        said += os.read(raw.out, 65536)
    raw.process.send_signal(signal.SIGTERM)
    raw.read_all()
    assert raw.process.wait(20) == 0


def stderr_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/fd/2")


@pytest.mark.parametrize("flags, env, inherits", [
    ((), {}, False), (("--stderr", "inherit"), {}, True), ((), {"PORTHOLE_STDERR": "inherit"}, True),
    (("--stderr", "pipe"), {"PORTHOLE_STDERR": "inherit"}, False),
])
def test_what_the_command_has_as_standard_error(stack, flags, env, inherits):
    start(stack, *flags, env=env)
    pid = int(assert_answer(stack.ask()).body)
    assert (stderr_of(pid) == stderr_of(stack.shim.pid)) == inherits


def test_without_an_ingress_standard_error_is_the_shims(stack):
    shim = stack.run("shim", [str(SHIM_BIN), "--", "sh", "-c", "echo up; sleep 1000"])
    shim.wait_log("up")
    assert {stderr_of(pid) for pid in descendants(shim.pid)} == {stderr_of(shim.pid)}


def test_on_a_terminal_standard_error_is_the_terminal(stack):
    port = free_port()
    stack.ingress = stack.start_ingress()
    master, slave = os.openpty()
    process = subprocess.Popen(
        [str(SHIM_BIN), "--ingress", stack.ingress.shims, "--port", str(port), "--", *sample(port)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=slave, env=clean_environment())
    try:
        pid = int(assert_answer(stack.ask() if stack.ingress.wait_log("container ready") else None).body)
        assert stderr_of(pid) == os.ttyname(slave)
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("shown", [False, True])
def test_the_last_words_of_a_server(stack, shown):
    start(stack, ingress=("--stderr-in-errors",) if shown else ())
    held = call(stack, "/hang")
    assert_answer(stack.ask(target="/say/MemoryError:a<b>"))
    pid = int(assert_answer(stack.ask(target="/say/the-end")).body)
    os.kill(pid, signal.SIGKILL)
    body = assert_error(held.read_response(), 502, "container_lost").body
    assert (b"it said at last: " in body) == shown
    assert (b"MemoryError:a<b> | the-end" in body) == shown
    line = stack.ingress.wait_log("container exited.*")[0]
    assert "MemoryError:a<b>\\nthe-end" in line
    stack.shim.expect_exit(137)


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
    stack.ingress.wait_log("(?s)exited.*container starting.*container ready")
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
@pytest.mark.parametrize("code", [0, 3])
def test_a_signal_while_the_command_is_not_running(stack, number, code):
    """The shim has ended nothing: the status is that of the command, which ended by itself."""
    start(stack, *settings.restart("always"))
    call(stack, f"/exit/{code}").read_response()
    stack.shim.wait_log("started again")
    stack.shim.signal(number)
    stack.shim.expect_exit(code)


def test_a_signal_while_the_command_cannot_be_started(stack, tmp_path):
    program = tmp_path / "once"
    program.write_text('#!/bin/sh\nrm "$0"\n')
    program.chmod(0o755)
    shim = stack.run("shim", [str(SHIM_BIN), *settings.restart("always"), "--", str(program)])
    shim.wait_log("cannot start")
    shim.signal(signal.SIGTERM)
    shim.expect_exit(127)


def test_without_an_ingress_a_command_is_started_again(stack, tmp_path):
    runs = tmp_path / "runs"
    shim = stack.run("shim", [str(SHIM_BIN), *settings.restart("on-failure"), "--", "sh", "-c",
                              f"echo x >>{runs}; test $(wc -l <{runs}) = 2 || exit 5"])
    shim.expect_exit(0)
    assert runs.read_text() == "x\nx\n"


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
    other = "trap 'echo it was asked to end; exit' TERM; echo up; while :; do sleep 0.05; done"
    script = f'sh -c "$0" & exec {sys.executable} {COMMAND} {port}'
    stack.shim = stack.start_shim(stack.ingress, "--port", str(port), *settings.restart("always"),
                                  command=["sh", "-c", script, other])
    stack.shim.wait_log("up\n")
    before = set(descendants(stack.shim.pid))
    call(stack, "/exit/0").read_response()
    assert_answer(stack.ask())
    assert not before & set(descendants(stack.shim.pid))
    assert "it was asked to end" in stack.shim.log


@pytest.mark.parametrize("as_pid_1", [False, True])
def test_a_server_that_left_its_session_is_gone_when_it_is_started_again(stack, as_pid_1):
    """It lives on, with its port and with the connections of calls: those end anyway."""
    port = free_port()
    stack.ingress = stack.start_ingress()
    prefix = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child") if as_pid_1 else ()
    shim = stack.shim = stack.start_shim(
        stack.ingress, "--port", str(port), *settings.restart("always"), *settings.grace(6), prefix=prefix,
        command=["sh", "-c", f"setsid {sys.executable} {COMMAND} {port} & wait; exit"])
    held = call(stack, "/hang")
    wait_until(lambda: stack.ask().status == 200, "it serves")
    command, server = descendants(shim.pid)[-2:]
    begin = time.monotonic()
    os.kill(command, signal.SIGKILL)
    answer = assert_error(held.read_response(), 502, "container_lost")
    assert b"killed by signal 9" in answer.body and time.monotonic() - begin < TOLD_S
    assert_answer(stack.ask())
    assert not Path(f"/proc/{server}").exists()
    if as_pid_1:  # unshare passes nothing on
        os.kill(descendants(shim.pid)[0], signal.SIGTERM)
        shim.expect_exit(0)


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


def test_the_time_to_start_is_one_for_finding_the_port_and_readiness(stack):
    """What finding the port took is not given a second time."""
    port = free_port()
    stack.ingress = stack.start_ingress()
    script = f"sleep 2.5; exec {sys.executable} {COMMAND} {port}"
    shim = stack.start_shim(stack.ingress, "--startup-timeout", "4", "--ready-path", "/ready/nowhere",
                            command=["sh", "-c", script], wait=False)
    shim.wait_log("found the port")
    begin = time.monotonic()
    shim.expect_exit(1)
    assert time.monotonic() - begin < 3
    assert re.search("did not accept in time.*seconds=4", shim.log)


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


# ---- readiness over HTTP

def test_a_server_is_ready_when_its_path_answers_so(stack, tmp_path):
    """It accepts long before; calls wait until then, and progress is in the log."""
    port, go = free_port(), tmp_path / "go"
    stack.ingress = stack.start_ingress()
    shim = stack.start_shim(stack.ingress, "--port", str(port), "--ready-path", f"/ready{go}",
                            command=sample(port), wait=False)
    client = call(stack, "/") if stack.ingress.wait_log("container starting") else None
    shim.wait_log("waiting for the server to be ready.*status=503", 15)
    assert "msg=ready" not in shim.log
    go.touch()
    assert_answer(client.read_response())


def test_images_of_the_lambda_web_adapter_work_as_they_are(stack, tmp_path):
    """Its variables, its defaults: any status below 500 means ready."""
    port, go = free_port(), tmp_path / "go"
    stack.ingress = stack.start_ingress()
    shim = stack.start_shim(stack.ingress, wait=False, command=sample(port), env={
        "AWS_LWA_PORT": str(port), "AWS_LWA_READINESS_CHECK_PATH": f"/ready{go}"})
    stack.ingress.wait_log("container starting")
    client = call(stack, "/")
    go.touch()
    assert_answer(client.read_response())
    shim.stop()
    other = stack.start_shim(stack.ingress, command=sample(port), env={
        "AWS_LWA_PORT": str(port), "AWS_LWA_READINESS_CHECK_PATH": "/ready/nowhere",
        "AWS_LWA_READINESS_CHECK_HEALTHY_STATUS": "200,503"})
    assert_answer(stack.ask())
    other.stop()
    stack.start_shim(stack.ingress, command=sample(port), env={
        "AWS_LWA_PORT": str(port), "AWS_LWA_READINESS_CHECK_PATH": "/ready/nowhere",
        "AWS_LWA_READINESS_CHECK_PROTOCOL": "tcp"})
    assert_answer(stack.ask())


def test_readiness_on_another_port(stack, server):
    """What is asked there opens the way to the server's own."""
    port = free_port()
    stack.ingress = stack.start_ingress()
    stack.start_shim(stack.ingress, "--port", str(port), "--ready-port", str(server.port),
                     "--ready-path", "/up", command=sample(port))
    assert server.next_request().target == b"/up"
    wait_until(lambda: stack.ask("POST", body=b"x").status == 200, "its server answers")


def test_readiness_on_a_port_of_a_server_on_a_unix_socket(stack, server, tmp_path):
    path = tmp_path / "socket"
    stack.ingress = stack.start_ingress()
    stack.start_shim(stack.ingress, "--port", f"unix:{path}", "--ready-port", str(server.port),
                     "--ready-path", "/up", command=sample(f"unix:{path}"))
    assert server.next_request().target == b"/up"
    wait_until(lambda: stack.ask("POST", body=b"x").status == 200, "its server answers")


@pytest.mark.parametrize("flags, expected", [((), b"a.example:1"),
                                             (("--host-header", "localhost:5173"), b"localhost:5173")])
def test_the_host_that_the_server_sees(stack, flags, expected):
    start(stack, *flags)
    assert stack.ask(target="/host", host=b"a.example:1").body == expected


# ---- probes

def probe(what: str, *flags: str, env=None) -> tuple[int, str]:
    done = subprocess.run([str(SHIM_BIN), "probe", what, *flags], capture_output=True, text=True,
                          env=clean_environment(env), timeout=30)
    return done.returncode, done.stderr


def test_probes_follow_the_life_of_a_container(stack, tmp_path):
    port, go = free_port(), tmp_path / "go"
    flags = ("--port", str(port))
    code, why = probe("live", *flags)
    assert code == 1 and "no shim runs here" in why
    stack.ingress = stack.start_ingress()
    shim = stack.start_shim(stack.ingress, *flags, *settings.grace(60), wait=False,
                            command=sample(port, "--after", str(go)))
    shim.wait_log("sample server waits")
    stack.ingress.wait_log("container starting")
    assert probe("live", *flags) == (0, "")
    code, why = probe("ready", *flags)
    assert code == 1 and "starting" in why
    go.touch()
    stack.ingress.wait_log("container ready")
    assert probe("ready", *flags) == (0, "") == probe("live", *flags)
    # The twin of the flag, as a HEALTHCHECK has it.
    assert probe("ready", env={"PORTHOLE_TARGET_PORT": str(port)})[0] == 0
    done = tmp_path / "done"
    held = call(stack, f"/wait{done}")
    held_by = stack.ask()
    assert_answer(held_by)
    shim.signal(signal.SIGTERM)
    shim.wait_log("draining")
    assert probe("live", *flags)[0] == 0
    code, why = probe("ready", *flags)
    assert code == 1 and "draining" in why
    done.touch()
    assert_answer(held.read_response())
    shim.expect_exit(0)
    assert probe("live", *flags)[0] == 1


def test_a_shim_that_is_stopped_does_not_live(stack):
    start(stack)
    port = re.search(r"--port (\d+)", " ".join(stack.shim.argv))[1]
    assert probe("live", "--port", port)[0] == 0
    stack.shim.signal(signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{stack.shim.pid}/stat").read_text().split()[2] == "T", "it stops")
    code, why = probe("live", "--port", port)
    stack.shim.signal(signal.SIGCONT)
    assert code == 1 and "does not answer" in why


def test_shims_in_one_network_namespace_do_not_meet(stack):
    ready, starting = free_port(), free_port()
    stack.ingress = stack.start_ingress()
    stack.start_shim(stack.ingress, "--port", str(ready), command=sample(ready))
    stack.start_shim(stack.ingress, "--port", str(starting), wait=False,
                     command=["sleep", "1000"])
    wait_until(lambda: probe("live", "--port", str(starting))[0] == 0, "it answers")
    assert probe("ready", "--port", str(ready))[0] == 0
    assert probe("ready", "--port", str(starting))[0] == 1


def test_probes_where_the_port_is_found_and_without_an_ingress(stack):
    """In a network of its own: another such shim beside it, of another run, has the same name."""
    shim = stack.run("shim", ["unshare", "--net", str(SHIM_BIN), "--", "sh", "-c", "echo up; exec sleep 1000"])
    shim.wait_log("up")
    network = os.open(f"/proc/{shim.pid}/ns/net", os.O_RDONLY)

    def ask(what: str) -> tuple[int, str]:
        done = subprocess.run(["nsenter", f"--net=/proc/self/fd/{network}", str(SHIM_BIN), "probe", what],
                              capture_output=True, text=True, env=clean_environment(), timeout=30,
                              pass_fds=[network])
        return done.returncode, done.stderr

    wait_until(lambda: ask("ready")[0] == 0, "it answers")
    assert ask("live") == (0, "")
    shim.stop()
    assert ask("live")[0] == 1
    os.close(network)


def test_a_probe_of_a_shim_without_a_command(stack):
    """Its port is 8080, and nobody has to say so."""
    shim = stack.run("shim", ["unshare", "--net", str(SHIM_BIN), "--ingress", "tcp://127.0.0.1:7700"])
    network = f"--net=/proc/{shim.pid}/ns/net"

    def ask(what: str) -> tuple[int, str]:
        done = subprocess.run(["nsenter", network, str(SHIM_BIN), "probe", what], capture_output=True,
                              text=True, env=clean_environment(), timeout=30)
        return done.returncode, done.stderr

    wait_until(lambda: ask("live")[0] == 0, "it answers")
    assert ask("ready") == (1, "porthole-shim: probe: starting\n")


@pytest.mark.skipif(SANITIZED, reason="sanitizers take longer to start than the whole probe")
def test_a_probe_takes_two_milliseconds(stack):
    start(stack)
    port = re.search(r"--port (\d+)", " ".join(stack.shim.argv))[1]
    times = []
    for _ in range(51):
        begin = time.monotonic()
        pid = os.posix_spawn(str(SHIM_BIN), [str(SHIM_BIN), "probe", "ready", "--port", port],
                             clean_environment())
        _, status = os.waitpid(pid, 0)
        times.append(time.monotonic() - begin)
        assert status == 0
    limit_s = 0.002 if os.environ.get("PORTHOLE_STRICT_TIMING") == "1" else 0.02
    assert sorted(times)[25] <= limit_s
