"""Processes: every one is ended by its own id, and ours must end clean."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import Mapping, Sequence

from .deadline import Deadline, PATIENCE_S

SANITIZER_REPORT = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:")
SANITIZER_EXIT = 99
LEAKS_OF_OTHERS = Path(__file__).resolve().parent / "leaks.supp"
STOP_S = 10.0
# A shell that runs the suite in the background has these ignored; a program that is started
# so keeps it, and a script may not even trap them.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT
                      else signal.SIG_DFL)
# Variables that would change what our programs or the servers do.
FOREIGN = ("PORTHOLE_", "AWS_LWA_", "PORT", "HTTP_PROXY", "http_proxy", "ASAN_OPTIONS",
           "LSAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without what would leak into a program under test."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    env["ASAN_OPTIONS"] = f"abort_on_error=0:exitcode={SANITIZER_EXIT}:quarantine_size_mb=8"
    env["LSAN_OPTIONS"] = f"suppressions={LEAKS_OF_OTHERS}:print_suppressions=0"
    env["UBSAN_OPTIONS"] = f"print_stacktrace=1:halt_on_error=1:exitcode={SANITIZER_EXIT}"
    env["TSAN_OPTIONS"] = f"exitcode={SANITIZER_EXIT}"
    env["PYTHONUNBUFFERED"] = "1"
    env.update(extra or {})
    return env


class Program:
    """One running program.  What it writes to stderr is its log."""

    def __init__(self, name: str, argv: Sequence[str], log_path: Path,
                 env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL) -> None:
        self.name = name
        self.argv = [str(arg) for arg in argv]
        self.log_path = log_path
        self._log = ""
        self._changed = threading.Condition()
        self._log_ended = False
        self.process = subprocess.Popen(
            self.argv, stdin=stdin, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=clean_environment(env))
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._ended = False

    def __repr__(self) -> str:
        return f"<{self.name} pid={self.pid}>"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        with self._changed:
            return self._log

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        with self.log_path.open("ab", buffering=0) as out:
            while chunk := self.process.stdout.read1(65536):
                out.write(chunk)
                with self._changed:
                    self._log += chunk.decode("utf-8", "replace")
                    self._changed.notify_all()
        with self._changed:
            self._log_ended = True
            self._changed.notify_all()

    def wait_log(self, pattern: str, seconds: float | None = None, after: int = 0) -> re.Match[str]:
        """Wait for a line of the log; `after` skips that many characters of it."""
        wanted = re.compile(pattern)
        deadline = Deadline(seconds)
        with self._changed:
            while True:
                if match := wanted.search(self._log, after):
                    return match
                if deadline.passed or (self._log_ended and self.process.poll() is not None):
                    raise AssertionError(f"{self.name}: no {pattern!r} in its log:\n{self._log}")
                self._changed.wait(min(deadline.left, 0.25))

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait_exit(self, seconds: float | None = None) -> int:
        """Its exit status; negative for a signal, as subprocess has it."""
        try:
            code = self.process.wait(PATIENCE_S if seconds is None else seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} is still running:\n{self.log}") from None
        self._ended = True
        self._reader.join(2.0)
        return code

    def check_log(self) -> None:
        report = SANITIZER_REPORT.search(self.log)
        assert not report, f"{self.name}: sanitizer report:\n{self.log[-20000:]}"

    def expect_exit(self, code: int, seconds: float | None = None) -> None:
        got = self.wait_exit(seconds)
        self.check_log()
        assert got == code, f"{self.name} ended with {got}, not {code}:\n{self.log[-20000:]}"

    def kill(self) -> None:
        """kill -9: no clean end is expected of this one any more."""
        self.signal(signal.SIGKILL)
        self.wait_exit()
        self.check_log()

    def stop(self) -> None:
        """SIGTERM; every test ends with a clean exit, a leak or a crash fails it here."""
        if self._ended:
            return
        self.signal(signal.SIGTERM)
        try:
            self.expect_exit(0, STOP_S)
        except AssertionError:
            self.end_anyhow()
            raise

    def end_anyhow(self) -> None:
        """Leave nothing behind, whatever the test made of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._ended = True


def descendants(pid: int) -> list[int]:
    """The processes below pid, nearest first."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return found
    for task in tasks:
        try:
            children = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            found += [int(child), *descendants(int(child))]
    return found


def is_alive(pid: int) -> bool:
    """Does it run?  One that has ended and was not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_time_us(pid: int) -> float:
    """CPU time of all threads, as the scheduler counted it: exact, where cpu_seconds has
    ticks."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def resident_peak_bytes(pid: int) -> int:
    """The most that it ever held."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]


def open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
