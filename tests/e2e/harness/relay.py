"""porthole-relay (tests/relay): a line between two programs that delays, narrows and breaks."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Sequence

from .peer import Address
from .program import Program


def with_length(fault: str, seconds: float) -> str:
    return f"{fault} {round(seconds * 1000)}" if seconds else fault


class Relay(Program):
    """Every command returns when the relay has done it.

    Up is from the client to the target, down the way back."""

    def __init__(self, log_path: Path, binary: Path, target: str | int, delay_ms: int = 0,
                 rate: str | int = 0, listen: str = "127.0.0.1:0",
                 prefix: Sequence[str] = ()) -> None:
        target = target if isinstance(target, str) else f"127.0.0.1:{target}"
        super().__init__("relay", [*prefix, str(binary), "--target", target, "--listen", listen,
                                   "--delay", str(delay_ms), "--rate", str(rate)],
                         log_path, stdin=subprocess.PIPE)

    def wait_ready(self) -> "Relay":
        host, _, port = self.wait_log(r"(?m)^ready listen=(\S+)\n")[1].rpartition(":")
        self.address: Address = (host.strip("[]"), int(port))
        self.endpoint = f"tcp://{host}:{port}"  # as a shim's --ingress has it
        return self

    @property
    def port(self) -> int:
        return int(self.address[1])

    def command(self, line: str) -> str:
        """What the relay says to it, after its "ok"."""
        before = len(self.log)
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        answer = self.wait_log(r"(?m)^(ok|error)(?: (.*))?\n", after=before)
        assert answer[1] == "ok", f"{line!r}: {answer[2]}"
        return answer[2] or ""

    def delay(self, up_ms: int, down_ms: int | None = None) -> None:
        """Of each byte, one way; bandwidth stays what it is."""
        self.command(f"delay {up_ms} {up_ms if down_ms is None else down_ms}")

    def rate(self, up: str | int, down: str | int | None = None) -> None:
        """Bits a second of all connections together: 100_000_000, "100M", 0 for no limit."""
        self.command(f"rate {up} {up if down is None else down}")

    # A fault with a length ends by itself, in time however busy the test is.

    def freeze(self, seconds: float = 0) -> None:
        """Nothing moves, not even an end; connections stay open, dials wait."""
        self.command(with_length("freeze", seconds))

    def thaw(self) -> None:
        self.command("thaw")

    def cut(self) -> None:
        """FIN at both ends of every connection; what is on its way is lost.  New ones are taken."""
        self.command("cut")

    def half_close(self, way: str) -> None:
        """FIN "up" (towards the target) or "down"; the other way goes on."""
        self.command(f"half-close {way}")

    def reset(self) -> None:
        """RST at both ends of every connection.  New ones are taken."""
        self.command("reset")

    def refuse(self, seconds: float = 0) -> None:
        """New connections are refused; those there are go on."""
        self.command(with_length("refuse", seconds))

    def accept(self) -> None:
        """The end of refuse, and of drop for who dials again."""
        self.command("accept")

    def drop(self, seconds: float = 0) -> None:
        """What a cable does that is pulled out: connections stay open and nothing comes
        through them any more, dials hang."""
        self.command(with_length("drop", seconds))

    def target(self, address: str | int) -> None:
        """Where new connections lead."""
        self.command(f"target {address if isinstance(address, str) else f'127.0.0.1:{address}'}")

    def status(self) -> dict[str, int]:
        """connections, dead (of them), accepted, held_bytes, up_bytes, down_bytes."""
        pairs = (word.split("=") for word in self.command("status").split())
        return {name: int(value) for name, value in pairs}
