"""Fixtures: the sandbox, images, and the programs of the end-to-end suite's harness.

The whole run is in the sandbox's network namespace: an ingress that a test starts is
reached by containers with the host's network, and by the tests, at 127.0.0.1."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Iterator

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RELEASE = ROOT / "build" / "release"
# A container takes longer than a process, and several of them more so.
os.environ.setdefault("PORTHOLE_PATIENCE_S", "30")
os.environ.setdefault("PORTHOLE_INGRESS_BIN", str(RELEASE / "ingress/porthole-ingress"))
os.environ.setdefault("PORTHOLE_SHIM_BIN", str(RELEASE / "shim/porthole-shim"))
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

from harness.stack import SHIM_BIN, INGRESS_BIN, Stack  # noqa: E402
from kit.roots import debian_root  # noqa: E402
from kit.sandbox import Container, Missing, Sandbox  # noqa: E402

# Release and packages: a server, the libraries that the ingress needs, and systemd to run it.
DEBIAN = {
    "12": ("bookworm", ["python3-minimal", "libpython3-stdlib", "libmicrohttpd12", "libzmq5",
                        "libprotobuf-c1", "libcjson1", "libuv1", "procps", "systemd-sysv"]),
    "13": ("trixie", ["libnss-myhostname"]),
}


def pytest_configure() -> None:
    for path in (INGRESS_BIN, SHIM_BIN):
        if not os.access(path, os.X_OK):
            raise pytest.UsageError(f"no program at {path}: build the preset release")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    try:
        sandbox = Sandbox()
    except Missing as why:
        pytest.skip(f"podman cannot be had: {why}")
    try:
        sandbox.enter_network()
        yield sandbox
    finally:
        sandbox.close()


@pytest.fixture
def stack(sandbox: Sandbox, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    try:
        yield stack
    finally:
        stack.close()


# Names are used once: a container that a failed test left does not fail the next one.
CONTAINERS = itertools.count(1)


@pytest.fixture
def run(sandbox: Sandbox, stack: Stack) -> Callable[..., Container]:
    """run(image, *words, options=[...]): a container, ended with the test."""
    def start(image: str, *words: object, name: str | None = None,
              options: list[object] | None = None) -> Container:
        name = name or f"container-{next(CONTAINERS)}"
        container = Container(sandbox, name, stack.log_path(name), image, words, options or [])
        stack.add(container)
        return container

    return start


# ---- images

@pytest.fixture(scope="session")
def build(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """build(name, dockerfile, *files): an image of a Dockerfile and files beside it."""

    def image(name: str, dockerfile: str, *files: Path) -> str:
        context = tmp_path_factory.mktemp(name)
        for source in files:
            shutil.copy(source, context)
        (context / "Dockerfile").write_text(dockerfile)
        sandbox.podman("build", "--quiet", "--pull-never", "--tag", name, context)
        return name

    return image


@pytest.fixture(scope="session")
def static_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("server") / "server"
    subprocess.run(["cc", "-std=gnu11", "-O1", "-Wall", "-Werror", "-static", "-pthread",
                    "-o", path, HERE / "servers/server.c"], check=True)
    return path


@pytest.fixture(scope="session")
def stripped_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim as it is installed."""
    prefix = tmp_path_factory.mktemp("installed")
    subprocess.run(["cmake", "--install", RELEASE, "--component", "shim", "--strip",
                    "--prefix", prefix], check=True, stdout=subprocess.DEVNULL)
    return prefix / "bin/porthole-shim"


@pytest.fixture(scope="session")
def porthole_image(sandbox: Sandbox) -> str:
    sandbox.run(ROOT / "packaging/images", "shim")
    return "porthole"


@pytest.fixture(scope="session")
def scratch_image(porthole_image: str, build: Callable[..., str], static_server: Path) -> str:
    """The shim and one static server, and nothing else at all."""
    return build("scratch-server", (
        "FROM scratch\n"
        "COPY --from=porthole /porthole-shim /porthole-shim\n"
        "COPY server /server\n"
        'ENTRYPOINT ["/porthole-shim", "--"]\n'
        'CMD ["/server", "8188"]\n'), static_server)


@pytest.fixture(scope="session")
def debian_roots(sandbox: Sandbox) -> dict[str, Path]:
    """Both roots, made at the same time."""
    with sandbox.at_home(), ThreadPoolExecutor() as pool:
        return dict(zip(DEBIAN, pool.map(lambda release: debian_root(*release), DEBIAN.values())))


@pytest.fixture(scope="session")
def debian_12(sandbox: Sandbox, debian_roots: dict[str, Path]) -> str:
    sandbox.podman("import", "--quiet", debian_roots["12"], "debian:12")
    return "debian:12"


@pytest.fixture(scope="session")
def debian_13(sandbox: Sandbox, debian_roots: dict[str, Path]) -> str:
    sandbox.podman("import", "--quiet", debian_roots["13"], "debian:13")
    return "debian:13"


@pytest.fixture(scope="session")
def packages() -> dict[str, Path]:
    """The Debian packages, by the names of the programs."""
    subprocess.run([ROOT / "packaging/debs"], check=True, stdout=subprocess.DEVNULL)
    found = list((ROOT / "build/debs").glob("*.deb"))
    return {path.name.partition("_")[0]: path for path in found}


@pytest.fixture(scope="session")
def ingress_image(sandbox: Sandbox, debian_12: str) -> str:
    """On a base that has the libraries already: there is no network to fetch them by."""
    sandbox.run("env", f"BASE={debian_12}", ROOT / "packaging/images", "ingress")
    return "porthole-ingress"
