"""Options of podman run that several tests give."""

from __future__ import annotations

import os
from pathlib import Path

from harness.stack import Ingress

# The network namespace of the tests, where their ingress is.
HOST_NETWORK = "--network=host"
# Nothing that a container can be denied is left.
LOCKED_DOWN = ["--user=65532:65532", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all",
               "--security-opt=no-new-privileges"]


def setting(ingress: Ingress | str, function: str = "default") -> list[str]:
    """What the shim in a container is told."""
    endpoint = ingress if isinstance(ingress, str) else ingress.shims
    return [f"--env=PORTHOLE_INGRESS={endpoint}", f"--env=PORTHOLE_FUNCTION={function}"]


def control(folder: Path) -> str:
    """The FIFO that lets the server in the container go on."""
    os.mkfifo(folder / "release")
    return f"--volume={folder}:/control"


def release(folder: Path) -> None:
    """Let it go on: returns when the server has opened the FIFO too."""
    os.close(os.open(folder / "release", os.O_WRONLY))
