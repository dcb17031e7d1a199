"""Fixtures: programs are started on port 0, waited for by their log, ended clean."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Iterator

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness.netns import Namespaces, Unavailable  # noqa: E402
from harness.server import RawServer, hello, serve  # noqa: E402
from harness.stack import INGRESS_BIN, SHIM_BIN, Stack  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    for path in (INGRESS_BIN, SHIM_BIN):
        if not os.access(path, os.X_OK) and not os.environ.get("PORTHOLE_HARNESS_ONLY"):
            raise pytest.UsageError(
                f"no program at {path}: build it, or set PORTHOLE_INGRESS_BIN and PORTHOLE_SHIM_BIN")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("PORTHOLE_SLOW") == "1":
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: runs with PORTHOLE_SLOW=1"))


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    """Name it before `stack`: they are removed when what ran in them has ended."""
    try:
        namespaces = Namespaces()
    except Unavailable as error:
        pytest.skip(str(error))
    try:
        yield namespaces
    finally:
        namespaces.close()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Empty: a test starts in it what it needs."""
    stack = Stack(tmp_path)
    try:
        yield stack
    finally:
        stack.close()


@pytest.fixture
def server(stack: Stack) -> RawServer:
    """A scripted server of the test's own stack; answers hello until told otherwise."""
    return stack.server()


@pytest.fixture
def pair(stack: Stack, server: RawServer) -> Stack:
    """Ingress, shim and the scripted server, for this test alone."""
    return stack.pair(server)


@pytest.fixture(scope="module")
def module_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("pair"))
    try:
        yield stack.pair(stack.server())
    finally:
        stack.close()


@pytest.fixture
def shared(module_pair: Stack) -> Iterator[Stack]:
    """Ingress, shim and server of the module, for tests that break nothing: starting both
    for each row of a table would take most of the suite's time."""
    server = module_pair.servers[0]
    while not server.requests.empty():
        server.requests.get()
    server.script(serve(hello))
    server.forget_connections()
    yield module_pair
    module_pair.ingress.close_clients()
    try:
        server.check()
    finally:
        server.errors.clear()


@pytest.fixture(scope="session")
def pb(tmp_path_factory: pytest.TempPathFactory):
    """The messages of proto/asgi.proto."""
    from harness.wire import load_messages

    return load_messages(tmp_path_factory.mktemp("proto"))
