"""What a program holds of what it was sent: resident memory, its peak, and what waits in sockets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from .deadline import Deadline
from .program import Program, resident_bytes, resident_peak_bytes

POLL_S = 0.002
# As long as nothing changes it is over.
STILL_POLLS = 10


@dataclass
class Held:
    """One door: what came in by it and what was held of it at most."""

    door: str
    program: str
    sent: int
    held: int

    @property
    def ratio(self) -> float:
        return self.held / self.sent

    def __str__(self) -> str:
        return (f"| {self.door} | {self.program} | {self.sent / 1024:.0f} | {self.held / 1024:.0f} "
                f"| {self.ratio:.1f} |")


def tcp_lines() -> list[str]:
    return Path("/proc/net/tcp").read_text().splitlines()[1:]


def unread_bytes(port: int) -> int:
    """What lies in the receive queues of a port's connections, not read by their program."""
    wanted, total = f":{port:04X}", 0
    for line in tcp_lines():
        fields = line.split()
        if fields[1].endswith(wanted) and fields[3] != "0A":  # listening: a count of connections
            total += int(fields[4].split(":")[1], 16)
    return total


def sockets_of(port: int) -> list[tuple[str, int]]:
    """State, and bytes that are not acknowledged, of the connections of a listener."""
    found = []
    for line in tcp_lines():
        _, local, _, state, queues = line.split()[:5]
        if int(local.rpartition(":")[2], 16) == port:
            found.append((state, int(queues.partition(":")[0], 16)))
    return found


def connections_to(port: int) -> int:
    """How many connections to a port somebody has, or has asked for."""
    wanted = f":{port:04X}"
    return sum(line.split()[2].endswith(wanted) for line in tcp_lines())


class Meter:
    """From its making on: how much more a program holds, at most."""

    def __init__(self, program: Program) -> None:
        self.program = program
        Path(f"/proc/{program.pid}/clear_refs").write_text("5")  # the peak begins anew
        self.before = resident_bytes(program.pid)

    def held(self) -> int:
        return max(0, resident_peak_bytes(self.program.pid) - self.before)


def wait_still(programs: list[Program], ports: list[int], seconds: float = 20) -> None:
    """Until neither memory nor sockets change any more: everything that will be read was."""
    deadline, same, last = Deadline(seconds), 0, None
    while same < STILL_POLLS:
        seen = [resident_bytes(program.pid) for program in programs] + [unread_bytes(p) for p in ports]
        same = same + 1 if seen == last else 0
        last = seen
        assert not deadline.passed, "it does not come to rest"
        time.sleep(POLL_S)


def wait_read(port: int, unread: int = 0, seconds: float = 10) -> None:
    """Until the program has taken everything from its sockets, or all but so much."""
    deadline = Deadline(seconds)
    while unread_bytes(port) > unread:
        assert not deadline.passed, "it does not read"
        time.sleep(POLL_S / 4)
