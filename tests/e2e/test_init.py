"""The shim as an init: what a container relies on of its PID 1.  The command is started
without an ingress; what changes with one is tested in test_entrypoint.py."""

from __future__ import annotations

import concurrent.futures
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.deadline import wait_until
from harness.program import clean_environment, descendants
from harness.stack import SANITIZED, SHIM_BIN

# What no process can catch, and what tells the shim of its children.
NEVER = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
CATCHABLE = [n for n in [*range(1, 32), *range(signal.SIGRTMIN, signal.SIGRTMAX + 1)] if n not in NEVER]

# Says "got N" for each signal that comes, and ends on "end" at its standard input.
CATCHER = f"""
import os, signal, sys
for n in {[int(n) for n in CATCHABLE]}:
    signal.signal(n, lambda n, frame: os.write(1, b"got %d\\n" % n))
os.write(1, b"up\\n")
while True:
    signal.pause()
"""


def run(*command: str, flags: tuple[str, ...] = (), **more) -> subprocess.CompletedProcess:
    return subprocess.run([str(SHIM_BIN), *flags, "--", *command], capture_output=True, text=True,
                          env=clean_environment(more.pop("env", None)), timeout=60, **more)


def start(stack, *command: str, flags: tuple[str, ...] = (), prefix: tuple[str, ...] = ()):
    return stack.run("shim", [*prefix, str(SHIM_BIN), *flags, "--", *command])


# ---- its end

def test_every_exit_status():
    wanted = range(0, 256, 15 if SANITIZED else 1)  # what is slow need not do all
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        codes = pool.map(lambda n: run("sh", "-c", f"exit {n}").returncode, wanted)
    assert list(codes) == list(wanted)


@pytest.mark.parametrize("command, status, words", [
    (["/nowhere/at/all"], 127, "cannot start /nowhere/at/all: No such file or directory"),
    (["no-such-command"], 127, "not found in PATH"),
    (["/etc/passwd"], 126, "Permission denied"),
    (["/etc"], 126, "is a directory"),
])
def test_a_start_that_fails_is_one_clear_line(command, status, words):
    done = run(*command)
    assert done.returncode == status and done.stdout == ""
    assert words in done.stderr and done.stderr.count("\n") == 1


def test_nothing_to_do_is_a_mistake():
    done = subprocess.run([str(SHIM_BIN)], capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "nothing to do" in done.stderr


# ---- signals

def test_every_signal_that_can_be_is_forwarded(stack):
    shim = start(stack, sys.executable, "-c", CATCHER, flags=("--grace", "60"))
    shim.wait_log("up")
    blocked = int(re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{shim.pid}/status").read_text())[1], 16)
    forwarded = [n for n in CATCHABLE if blocked >> (n - 1) & 1]
    # Only what a sanitizer has caught for itself is missing.
    assert set(CATCHABLE) - set(forwarded) <= {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE,
                                               signal.SIGILL, signal.SIGABRT, signal.SIGTRAP}
    for number in forwarded:
        at = len(shim.log)
        shim.signal(number)
        shim.wait_log(rf"got {int(number)}\n", after=at)
    assert shim.process.poll() is None
    for pid in descendants(shim.pid):
        os.kill(pid, signal.SIGKILL)
    shim.expect_exit(0)  # it was asked to end


def test_a_signal_that_comes_twice_is_forwarded_twice(stack):
    """Also SIGTERM: what the second one means is the command's business."""
    shim = start(stack, sys.executable, "-c", CATCHER, flags=("--grace", "60"))
    shim.wait_log("up")
    for number in (signal.SIGTERM, signal.SIGINT) * 2:
        at = len(shim.log)
        shim.signal(number)
        shim.wait_log(f"got {int(number)}\n", after=at)
    for pid in descendants(shim.pid):
        os.kill(pid, signal.SIGKILL)
    shim.wait_exit()


def test_a_signal_goes_to_grandchildren_too(stack):
    shim = start(stack, "sh", "-c", "sleep 1000 & (sleep 1000 & sleep 1000) & echo up; wait")
    shim.wait_log("up")
    wait_until(lambda: len(descendants(shim.pid)) >= 4, "all of them run")
    everybody = descendants(shim.pid)
    shim.signal(signal.SIGTERM)
    shim.expect_exit(0)
    assert not [pid for pid in everybody if Path(f"/proc/{pid}").exists()]


def test_a_signal_that_the_command_ignores_reaches_its_children(stack):
    """And one that they die of is not the command's end."""
    shim = start(stack, "sh", "-c", "trap '' USR1; env --default-signal=USR1 sh -c 'echo up; exec sleep 1000'; "
                 "echo it ended with $?; exit 6")
    shim.wait_log("up")
    shim.signal(signal.SIGUSR1)
    shim.expect_exit(6)
    assert f"it ended with {128 + signal.SIGUSR1}" in shim.log


def ignore_all() -> None:
    for number in CATCHABLE:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, CATCHABLE)


def test_what_was_ignored_or_blocked_before_is_not_so_for_the_command():
    done = run("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status", preexec_fn=ignore_all)
    assert re.findall(r"\w+:\s*(\w+)", done.stdout) == ["0" * 16] * 2


def test_signals_are_forwarded_although_they_were_ignored_before():
    process = subprocess.Popen(
        [str(SHIM_BIN), "--", sys.executable, "-c", CATCHER], stdout=subprocess.PIPE,
        env=clean_environment(), preexec_fn=ignore_all)
    assert process.stdout.readline() == b"up\n"
    # SIGTERM last: SIGCONT follows it, for a command that is stopped.
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        process.send_signal(number)
        assert process.stdout.readline() == b"got %d\n" % number
    for pid in descendants(process.pid):
        os.kill(pid, signal.SIGKILL)
    assert process.wait(10) == 0


def test_a_stopped_command_is_ended(stack):
    shim = start(stack, "sh", "-c", "echo up; exec sleep 1000")
    shim.wait_log("up")
    shim.signal(signal.SIGTSTP)
    command = descendants(shim.pid)[0]
    wait_until(lambda: Path(f"/proc/{command}/stat").read_text().rpartition(")")[2].split()[0] == "T",
               "it stops")
    shim.signal(signal.SIGTERM)
    shim.expect_exit(0, 5)


# ---- processes

def test_the_command_has_a_group_of_its_own_and_no_shell():
    done = run(sys.executable, "-c", "import os; print(os.getpgrp() == os.getpid(), os.getsid(0), os.getppid())")
    own, session, parent = done.stdout.split()
    assert own == "True" and int(session) != int(parent)


def zombies(pid: int) -> list[int]:
    found = []
    for child in descendants(pid):
        try:
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                found.append(child)
        except FileNotFoundError:
            pass
    return found


DOUBLE_FORK = """
import os, time
for i in range(50):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid() if i % 2 else None
            time.sleep(0.02)
        os._exit(i)
    os.wait()
print("up", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("as_pid_1", [False, True])
def test_double_forks_leave_no_zombie(stack, as_pid_1):
    prefix = ("unshare", "--pid", "--fork", "--kill-child") if as_pid_1 else ()
    shim = start(stack, sys.executable, "-c", DOUBLE_FORK, prefix=prefix)
    shim.wait_log("up")
    root = descendants(shim.pid)[0] if as_pid_1 else shim.pid
    wait_until(lambda: len(descendants(root)) == 1, "every orphan is reaped")
    assert not zombies(root)
    os.kill(root, signal.SIGTERM)
    shim.expect_exit(0)


@pytest.mark.parametrize("script, status", [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_as_pid_1_it_ends_as_its_command(stack, script, status):
    start(stack, "sh", "-c", f"test $PPID = 1 || exit 99; {script}",
          prefix=("unshare", "--pid", "--fork")).expect_exit(status)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_as_pid_1_it_forwards_signals(stack, number):
    """The kernel gives PID 1 no signal that it does not wait for."""
    shim = start(stack, "sh", "-c", f"trap 'echo caught; exit 0' {int(number)}; echo up; "
                 "while :; do sleep 0.02; done", prefix=("unshare", "--pid", "--fork", "--kill-child"))
    shim.wait_log("up")
    os.kill(descendants(shim.pid)[0], number)
    shim.wait_log("caught")
    shim.expect_exit(0)


def test_what_leaves_the_group_does_not_outlive_the_shim(stack, tmp_path):
    """A daemon of another session: the end of the command is its end too."""
    go = tmp_path / "go"
    shim = start(stack, "sh", "-c", "setsid sleep 1000 & setsid sh -c '(setsid sleep 1000 &)'; "
                 f"while [ ! -e {go} ]; do sleep 0.02; done")

    def strays() -> list[int]:
        return [pid for pid in descendants(shim.pid)
                if Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001000\x00"]

    wait_until(lambda: len(strays()) == 2, "both are there")
    left = strays()
    go.touch()
    shim.expect_exit(0)
    assert "processes that the command left were killed" in shim.log
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]


def test_a_server_that_goes_into_the_background_is_told_not_to(stack):
    stack.ingress = stack.start_ingress()
    shim = stack.start_shim(stack.ingress, command=["sh", "-c", "sleep 1000 & exit 0"], wait=False)
    shim.expect_exit(0)
    assert "start it in the foreground" in shim.log


def test_the_whole_group_is_killed_at_the_deadline(stack):
    shim = start(stack, "sh", "-c", "trap '' TERM; (trap '' TERM; while :; do sleep 0.02; done) & "
                 "echo up; while :; do sleep 0.02; done", flags=("--grace", "500ms"))
    shim.wait_log("up")
    everybody = descendants(shim.pid)
    begin = time.monotonic()
    shim.signal(signal.SIGTERM)
    shim.expect_exit(0)
    assert time.monotonic() - begin > 0.45
    assert not [pid for pid in everybody if Path(f"/proc/{pid}").exists()]
    # Not one by one afterwards, as what has left the group.
    assert "were killed" not in shim.log


# ---- what the command gets

def test_no_descriptor_and_no_secret_is_left_to_the_command(stack):
    stack.ingress = stack.start_ingress()
    secrets = {"PORTHOLE_SECRET_KEY": "s1", "PORTHOLE_TOKEN": "s2", "PORTHOLE_CURVE_KEY_FILE": "s3"}
    shim = stack.start_shim(stack.ingress, wait=False, env={**secrets, "MY_SECRET_KEY": "mine"},
                            command=["sh", "-c", "ls /proc/$$/fd; env; exec cat /proc/self/environ"])
    shim.expect_exit(0)
    assert re.search(r"(?m)^0\n1\n2\n(?!3)", shim.log)
    assert not [value for value in secrets.values() if f"={value}" in shim.log]
    assert "MY_SECRET_KEY=mine" in shim.log


def test_a_descriptor_that_the_shim_was_started_with_is_not_the_commands():
    """Of a container's runtime, for example."""
    read, write = os.pipe()
    done = run("sh", "-c", f"test ! -e /proc/$$/fd/{read}", pass_fds=[read])
    assert done.returncode == 0
    os.close(read)
    os.close(write)


def test_the_limit_of_descriptors_is_the_commands_too():
    """The shim takes as many as the hard limit says; servers that use select(2) must not."""
    done = subprocess.run(
        ["prlimit", "--nofile=64:256", str(SHIM_BIN), "--", "sh", "-c",
         "ulimit -Sn; ulimit -Hn; grep '^Max open files' /proc/$PPID/limits"],
        capture_output=True, text=True, env=clean_environment(), timeout=60)
    assert done.stdout.split() == ["64", "256", *"Max open files 256 256 files".split()]


def close_standard() -> None:
    for fd in range(3):
        os.close(fd)


def test_standard_descriptors_that_are_closed(tmp_path):
    """Nothing of the shim's own gets into their place."""
    out = tmp_path / "out"
    process = subprocess.Popen(
        [str(SHIM_BIN), "--", "sh", "-c", f"for i in 0 1 2; do readlink /proc/$$/fd/$i; done >{out}"],
        env=clean_environment(), preexec_fn=close_standard)
    assert process.wait(10) == 0
    assert set(out.read_text().split()) <= {"/dev/null", str(out)}


def test_standard_input_is_the_commands():
    assert run("cat", input="through\n").stdout == "through\n"


# ---- anywhere

ENTER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
os.chroot(sys.argv[1])
os.chdir("/")
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.setgroups([])
os.setresgid(65532, 65532, 65532)
os.setresuid(65532, 65532, 65532)  # from root: every capability goes
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
os.execv("/porthole-shim", ["porthole-shim", *sys.argv[2:]])
"""
EMPTY_ROOT = ('mount --bind "$2" "$2" && mount -o remount,bind,ro "$2" && '
              f'exec {sys.executable} -c "$1" "${{@:2}}"')


def is_static(path: Path) -> bool:
    return b"/ld-linux" not in path.read_bytes()[:4096]


@pytest.mark.skipif(not is_static(SHIM_BIN), reason="only what ships is one static file")
def test_in_an_empty_read_only_root_as_nobody(stack, server, tmp_path):
    """FROM scratch: no file but the shim, no right to do anything."""
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(SHIM_BIN, root / "porthole-shim")
    root.chmod(0o755)
    inside = ("unshare", "--mount", "bash", "-c", EMPTY_ROOT, "bash", ENTER, str(root))
    # Its only possible command is itself.
    shim = stack.run("shim", [*inside, "--", "/porthole-shim", "--version"])
    shim.expect_exit(0)
    assert "porthole-shim " in shim.log
    stack.run("shim", [*inside, "--", "/nothing"]).expect_exit(127)
    stack.ingress = stack.start_ingress()
    shim = stack.run("shim", [*inside, "--log-format", "text", "--ingress", stack.ingress.shims,
                              "--port", str(server.port)])
    shim.wait_log("msg=registered")
    shim.wait_log("msg=ready")
    status = Path(f"/proc/{shim.pid}/status").read_text()
    assert re.search(r"Uid:\s+65532\s+65532", status)
    assert set(re.findall(r"Cap\w+:\s+(\w+)", status)) == {"0" * 16}
    assert os.listdir(f"/proc/{shim.pid}/root/") == ["porthole-shim"]
    assert stack.ask().body == b"hello"
    shim.stop()


# ---- a terminal

class Terminal:
    """The shim in a session of its own, on a terminal."""

    def __init__(self, *command: str, prefix: tuple[str, ...] = (str(SHIM_BIN), "--")) -> None:
        argv = [*prefix, *command]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(argv[0], argv, clean_environment())
        self.said = b""
        os.set_blocking(self.fd, False)

    def wait(self, words: bytes) -> None:
        def there() -> bool:
            try:
                self.said += os.read(self.fd, 4096)
            except OSError:
                pass
            return words in self.said

        wait_until(there, f"{words!r} on the terminal, which said {self.said!r}")

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def status(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def test_the_command_has_the_foreground_of_the_terminal():
    terminal = Terminal("sh", "-c", "read line; echo got $line; exit 4")
    terminal.type(b"words\n")
    terminal.wait(b"got words")
    assert terminal.status() == 4


def test_control_c_is_the_commands():
    terminal = Terminal("sh", "-c", "trap 'echo interrupted; exit 3' INT; echo u''p; while :; do sleep 0.02; done")
    terminal.wait(b"up")
    terminal.type(b"\x03")
    terminal.wait(b"interrupted")
    assert terminal.status() == 3


def test_an_interactive_shell_has_job_control():
    terminal = Terminal("sh", "-i")
    terminal.type(b"sleep 1000\n")

    def in_front() -> bool:
        try:
            front = os.tcgetpgrp(terminal.fd)
            return Path(f"/proc/{front}/cmdline").read_bytes() == b"sleep\x001000\x00"
        except OSError:
            return False  # nobody yet

    wait_until(in_front, "it runs in the foreground")
    terminal.type(b"\x1a")  # control-Z
    terminal.type(b"echo stop''ped; kill %1; fg; exit 5\n")
    terminal.wait(b"stopped")
    assert terminal.status() == 5
    assert b"job control turned off" not in terminal.said


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


READER = "sh -c 'echo u\"\"p; read x; echo got $x; exit 4'"


def test_control_z_stops_the_shim_with_its_command():
    """As a job of an interactive shell, which has its prompt back and continues both."""
    terminal = Terminal("-i", prefix=("sh",))
    terminal.type(f"{SHIM_BIN} -- {READER}\n".encode())
    terminal.wait(b"up")
    shim, command = descendants(terminal.pid)
    for word in (b"fir''st\n", b"seco''nd\n"):
        terminal.type(b"\x1a")
        wait_until(lambda: state_of(shim) == state_of(command) == "T", "both stand still")
        terminal.type(b"echo " + word)
        terminal.wait(word.strip().replace(b"''", b""))
        terminal.type(b"fg\n")
        wait_until(lambda: os.tcgetpgrp(terminal.fd) == command, "it is in front")
    terminal.type(b"words\n")
    terminal.wait(b"got words")
    terminal.type(b"exit $?\n")
    assert terminal.status() == 4


def test_a_job_that_was_started_in_the_background_is_brought_to_the_front():
    """It stops when it reads, and the shim with it."""
    terminal = Terminal("-i", prefix=("sh",))
    terminal.type(f"{SHIM_BIN} -- {READER} &\n".encode())
    terminal.wait(b"up")
    shim, command = descendants(terminal.pid)
    wait_until(lambda: state_of(shim) == state_of(command) == "T", "both stand still")
    terminal.type(b"fg\n")
    wait_until(lambda: os.tcgetpgrp(terminal.fd) == command, "it is in front")
    terminal.type(b"words\n")
    terminal.wait(b"got words")
    terminal.type(b"exit $?\n")
    assert terminal.status() == 4


@pytest.mark.parametrize("prefix", [(), ("unshare", "--pid", "--fork", "--kill-child")])
def test_control_z_where_nobody_could_continue_it(prefix):
    """A session of its own, or a container's PID 1: nothing stands still for ever."""
    terminal = Terminal("sh", "-c", "trap 'echo contin''ued' CONT; echo u''p; "
                        "while ! read x; do :; done; echo got $x; exit 4",
                        prefix=(*prefix, str(SHIM_BIN), "--"))
    terminal.wait(b"up")
    terminal.type(b"\x1a")
    terminal.wait(b"continued")
    terminal.type(b"words\n")
    terminal.wait(b"got words")
    assert terminal.status() == 4


def test_the_end_of_the_terminal_is_the_end():
    terminal = Terminal("sh", "-c", "echo u''p; exec sleep 1000")
    terminal.wait(b"up")
    left = descendants(terminal.pid)
    os.close(terminal.fd)  # SIGHUP
    _, status = os.waitpid(terminal.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]
