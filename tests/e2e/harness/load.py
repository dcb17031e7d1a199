"""porthole-load (tests/load): many shims in one process."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Sequence

from .program import Program


class Load(Program):
    """Shims that answer every call with "shim N" and dial again when they lose their link."""

    def __init__(self, log_path: Path, binary: Path, endpoint: str, shims: int,
                 extra: Sequence[str] = (), prefix: Sequence[str] = ()) -> None:
        super().__init__("load", [*prefix, str(binary), "--ingress", endpoint, "--shims",
                                  str(shims), *extra], log_path, stdin=subprocess.PIPE)

    def wait_registered(self, seconds: float | None = None, after: int = 0) -> int:
        """Until all are; how many ms it took: since its start, or since the first was lost."""
        return int(self.wait_log(r"(?m)^registered all=\d+ ms=(\d+)\n", seconds, after)[1])

    def status(self) -> dict[str, int]:
        """registered, shims, dials, links_lost, calls, answered, cancelled, calls_lost."""
        before = len(self.log)
        assert self.process.stdin is not None
        self.process.stdin.write(b"status\n")
        self.process.stdin.flush()
        answer = self.wait_log(r"(?m)^ok (.*)\n", after=before)
        pairs = (word.split("=") for word in answer[1].split())
        return {name: int(value) for name, value in pairs}
