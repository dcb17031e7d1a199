"""Health checks in an image that has no shell."""

from __future__ import annotations

from pathlib import Path

from harness.stack import Stack
from kit.options import HOST_NETWORK, LOCKED_DOWN, control, release, setting
from kit.sandbox import Sandbox

READY = ["/porthole-shim", "probe", "ready"]
LIVE = ["/porthole-shim", "probe", "live"]
# podman asks only when it is told to: there is no systemd with its timers.
HEALTH = ["--health-cmd=[\"/porthole-shim\", \"probe\", \"ready\"]", "--health-interval=disable"]


def test_ready_and_live(stack: Stack, run, scratch_image: str, tmp_path: Path) -> None:
    """Alive while it starts, ready when it serves, as nobody on a read-only root; beside it, in the
    same network, a container that goes on starting."""
    ingress = stack.start_ingress()
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    container, other = (
        run(scratch_image, "/server", str(8188 + number), "wait", options=[
            HOST_NETWORK, *LOCKED_DOWN, *HEALTH, control(folder), *setting(ingress)])
        for number, folder in enumerate(folders))
    for one in container, other:
        one.wait_log("waits")
        one.execute(*LIVE)
        assert not one.succeeds(*READY)
    release(folders[0])
    container.wait_registered()
    container.execute(*READY)
    container.podman("healthcheck", "run")
    assert not other.succeeds(*READY)
    other.execute(*LIVE)
    release(folders[1])
    other.wait_registered()
    other.execute(*READY)


def test_a_frozen_shim_is_not_alive(sandbox: Sandbox, stack: Stack, run, scratch_image: str) -> None:
    ingress = stack.start_ingress()
    container = run(scratch_image, options=[HOST_NETWORK, *HEALTH, *setting(ingress)])
    container.wait_registered()
    first = container.podman("inspect", "--format", "{{.State.Pid}}")
    sandbox.run("kill", "-STOP", first)
    assert not container.succeeds(*LIVE)
    assert not container.succeeds(*READY)
    sandbox.run("kill", "-CONT", first)
    container.execute(*LIVE)
