"""Containers on a network of podman's that find each other by name."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

import pytest

from harness.check import assert_answer
from harness.client import Client
from kit.options import LOCKED_DOWN, setting
from kit.sandbox import Container, Sandbox

GATEWAY = "gateway"
HTTP_PORT = 8080
ENDPOINT = f"tcp://{GATEWAY}:7700"
LISTEN = ["--listen", f"0.0.0.0:{HTTP_PORT}", "--shims", "tcp://0.0.0.0:7700", "--insecure-shims"]


@pytest.fixture
def network(sandbox: Sandbox) -> Iterator[str]:
    """A network with names; it is removed after the containers of the test."""
    name = "porthole"
    sandbox.podman("network", "create", "--internal=false", name)
    yield name
    sandbox.podman("network", "rm", "--force", name)


@pytest.fixture
def start_ingress(network: str, run: Callable[..., Container], ingress_image: str):
    def start() -> Container:
        container = run(ingress_image, *LISTEN, name=GATEWAY,
                        options=[f"--network={network}", *LOCKED_DOWN])
        container.wait_log('"msg":"ready"')
        return container

    return start


def ask(ingress: Container) -> bytes:
    with Client((ingress.address(), HTTP_PORT)) as client:
        return assert_answer(client.ask()).body


def test_the_ingress_is_found_by_its_containers_name(network, start_ingress, run, scratch_image) -> None:
    ingress = start_ingress()
    run(scratch_image, options=[f"--network={network}", *LOCKED_DOWN, *setting(ENDPOINT)]).wait_registered()
    assert ask(ingress) == b"hello\n"


@pytest.mark.parametrize("release", ["12", "13"])
def test_a_debian_image_that_finds_it(request, network, start_ingress, run, build, porthole_image,
                                      static_server: Path, release: str) -> None:
    """The name is asked of DNS, behind what nsswitch.conf names before it: in Debian 13 a module
    that a static program must not load."""
    image = build(f"debian-{release}-server", (
        f"FROM {request.getfixturevalue(f'debian_{release}')}\n"
        "COPY --from=porthole /porthole-shim /porthole-shim\n"
        "COPY server /server\n"
        'ENTRYPOINT ["/porthole-shim", "--"]\n'
        'CMD ["/server", "8188"]\n'), static_server)
    ingress = start_ingress()
    container = run(image, options=[f"--network={network}", *LOCKED_DOWN, *setting(ENDPOINT)])
    container.wait_registered()
    assert ask(ingress) == b"hello\n"
    before_dns = container.execute("sed", "-n", "s/^hosts:\\(.*\\) dns.*/\\1/p", "/etc/nsswitch.conf")
    assert before_dns.split() == (["files", "myhostname"] if release == "13" else ["files"])


def test_the_ingress_comes_later_and_moves(network, start_ingress, run, scratch_image) -> None:
    """A name that nobody has yet is asked for again; one that moved is followed."""
    container = run(scratch_image, options=[f"--network={network}", *setting(ENDPOINT)])
    container.wait_log(r'"msg":"[^"]*","[^}]*gateway')
    first = start_ingress()
    container.wait_registered()
    assert ask(first) == b"hello\n"
    before = first.address()
    first.kill()
    first.remove()
    # The address is taken, so the next ingress gets another.
    run(scratch_image, options=[f"--network={network}", f"--ip={before}"])
    seen = len(container.log)
    second = start_ingress()
    assert second.address() != before
    container.wait_registered(after=seen)
    assert ask(second) == b"hello\n"
