"""One static file in any image: COPY, ENTRYPOINT, CMD."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from harness.check import assert_answer
from harness.places import ROOT
from harness.program import Program
from harness.stack import Ingress, Stack, flags
from kit.options import HOST_NETWORK, LOCKED_DOWN, setting
from kit.sandbox import Sandbox

def facts(ingress: Ingress) -> dict[str, str]:
    lines = assert_answer(ingress.ask("GET", "/facts")).body.decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_the_three_lines(sandbox: Sandbox, stack: Stack, run, porthole_image: str,
                         debian_12: str) -> None:
    """examples/dockerfile: an application that knows nothing of Porthole."""
    sandbox.podman("build", "--quiet", "--pull-never", "--build-arg", f"BASE={debian_12}",
                   "--tag", "three-lines", ROOT / "examples/dockerfile")
    ingress = stack.start_ingress()
    container = run("three-lines", options=[HOST_NETWORK, *setting(ingress)]).wait_registered()
    answer = assert_answer(ingress.ask("GET", "/a?b"))
    assert re.fullmatch(rb"Hello from /a\?b, process \d+\n", answer.body), answer.body
    container.wait_log('"msg":"found the port of the command","port":8188')


def test_an_image_of_two_files(stack: Stack, run, scratch_image: str) -> None:
    ingress = stack.start_ingress()
    run(scratch_image, options=[HOST_NETWORK, *setting(ingress)]).wait_registered()
    assert assert_answer(ingress.ask()).body == b"hello\n"
    assert facts(ingress)["parent"] == "1"


def test_no_user_no_root_no_capability(stack: Stack, run, scratch_image: str) -> None:
    ingress = stack.start_ingress()
    run(scratch_image, options=[HOST_NETWORK, *LOCKED_DOWN, *setting(ingress)]).wait_registered()
    seen = facts(ingress)
    assert (seen["user"], seen["group"]) == ("65532", "65532")
    assert seen["root"] == "Read-only file system"
    assert int(seen["capabilities"], 16) == 0
    assert seen["no_new_privileges"] == "1"


def test_the_image_of_the_shim_names_a_user_by_number(sandbox: Sandbox, porthole_image: str) -> None:
    """Kubernetes' runAsNonRoot takes no names."""
    assert sandbox.podman("inspect", "--format", "{{.Config.User}}", porthole_image) == "65532:65532"
    assert sandbox.podman("run", "--rm", HOST_NETWORK, porthole_image, "--version").startswith("porthole-shim")


@pytest.mark.parametrize("options", [[], LOCKED_DOWN], ids=["as-it-is", "locked-down"])
def test_without_an_ingress_it_is_only_an_init(run, scratch_image: str, options) -> None:
    container = run(scratch_image, options=[HOST_NETWORK, *options])
    container.wait_log(r"listens")
    container.podman("kill", "--signal", "TERM")
    container.expect_exit(0)
    assert "porthole" not in container.log


@pytest.mark.parametrize("status", [0, 1, 42, 126, 255])
def test_the_status_of_the_command_is_the_containers(run, porthole_image: str, build, debian_12: str,
                                                     status: int) -> None:
    image = build("debian-shim", (
        "FROM debian:12\nCOPY --from=porthole /porthole-shim /porthole-shim\n"
        'ENTRYPOINT ["/porthole-shim", "--"]\n'))
    run(image, "sh", "-c", f"exit {status}", options=[HOST_NETWORK]).expect_exit(status)


def test_an_empty_root_without_proc(stack: Stack, stripped_shim: Path, static_server: Path,
                                    tmp_path: Path) -> None:
    """chroot: no /proc, no /dev, no /etc, no /tmp."""
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    shutil.copy(stripped_shim, root)
    shutil.copy(static_server, root)
    tmp_path.chmod(0o755)
    ingress = stack.start_ingress()
    # Without /proc nobody can tell which port the command opens: it is said.
    shim: Program = stack.run("shim", [
        shutil.which("chroot"), "--userspec=65532:65532", root, "/porthole-shim",
        *flags(ingress=ingress.shims, port=8188), "--", "/server", "8188"])
    shim.wait_log(r'"msg":"registered"')
    assert assert_answer(ingress.ask()).body == b"hello\n"
    assert facts(ingress)["user"] == "65532"
    assert sorted(os.listdir(root)) == ["porthole-shim", "server"]
