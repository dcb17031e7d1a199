"""Network namespaces joined by narrow lines: `ip netns`, veth pairs, token buckets.

Everything is named porthole-PID-N and removed at the end; what a test run that was killed
left behind is removed by the next one."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import Iterator, Sequence

CLONE_NEWNET = 0x40000000
NAME = "porthole-{pid}-{number}"
NAMES = Path("/run/netns")
# What may wait in front of a line before packets are dropped.
QUEUE_MS = 100
# Several large packets (64 KiB with segmentation offload) pass at once.
BURST_BYTES = 128 * 1024


class Unavailable(Exception):
    """This machine or this user has none; the text says why."""


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Namespace:
    """A network of its own, with a loopback interface that is up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = ""  # on the line
        self.device = ""
        _run("ip", "netns", "add", name)
        _run("ip", "-n", name, "link", "set", "lo", "up")

    @property
    def prefix(self) -> Sequence[str]:
        """In front of a command: it runs in here, with the process id that it gets."""
        return ("ip", "netns", "exec", self.name)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread does meanwhile it does in here; sockets stay where they were made."""
        libc = ctypes.CDLL(None, use_errno=True)

        def enter(fd: int) -> None:
            if libc.setns(fd, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

        # of the thread: /proc/self is the whole process
        with open(f"/proc/self/task/{threading.get_native_id()}/ns/net") as outside, \
                (NAMES / self.name).open() as here:
            enter(here.fileno())
            try:
                yield
            finally:
                enter(outside.fileno())

    def sent_bytes(self) -> int:
        """So far, into the line."""
        shown = json.loads(_run("ip", "-n", self.name, "-s", "-j", "link", "show", self.device))
        return shown[0]["stats64"]["tx"]["bytes"]

    def remove(self) -> None:
        _run("ip", "netns", "del", self.name)  # and with it its end of the line


class Namespaces:
    """Makes them and removes all of them."""

    _numbers = itertools.count(1)

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise Unavailable("network namespaces are for root")
        self.made: list[Namespace] = []
        try:
            _remove_stale()
            probe = self.add()
        except (RuntimeError, OSError) as error:
            raise Unavailable(f"no network namespaces here: {error}") from None
        probe.remove()
        self.made.clear()

    def add(self) -> Namespace:
        namespace = Namespace(NAME.format(pid=os.getpid(), number=next(self._numbers)))
        self.made.append(namespace)
        return namespace

    def line(self, rate: str) -> tuple[Namespace, Namespace]:
        """Two namespaces with a line between them: `rate` (100mbit) each way."""
        ends = self.add(), self.add()
        _run("ip", "link", "add", "line", "netns", ends[0].name,
             "type", "veth", "peer", "name", "line", "netns", ends[1].name)
        for number, end in enumerate(ends, 1):
            end.device, end.address = "line", f"192.0.2.{number}"  # RFC 5737
            _run("ip", "-n", end.name, "address", "add", f"{end.address}/24", "dev", "line")
            _run("ip", "-n", end.name, "link", "set", "line", "up")
            _run("tc", "-n", end.name, "qdisc", "add", "dev", "line", "root", "tbf",
                 "rate", rate, "burst", str(BURST_BYTES), "latency", f"{QUEUE_MS}ms")
        return ends

    def close(self) -> None:
        """Removes all of them, whatever happens to one."""
        errors = []
        for namespace in self.made:
            try:
                namespace.remove()
            except RuntimeError as error:
                errors.append(str(error))
        self.made.clear()
        assert not errors, errors


def _remove_stale() -> None:
    for path in NAMES.glob("porthole-*") if NAMES.is_dir() else ():
        match = re.fullmatch(NAME.format(pid=r"(\d+)", number=r"\d+"), path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            _run("ip", "netns", "del", path.name)
