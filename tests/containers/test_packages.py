"""Debian packages: installed, run and removed; and how big, fast and small the shim is."""

from __future__ import annotations

import os
import re
import shlex
import socket
import statistics
import subprocess
import time
from math import inf
from pathlib import Path
from typing import Iterator

import pytest

from harness.check import assert_answer
from harness.client import Client
from harness.deadline import PATIENCE_S, wait_until
from harness.program import resident_bytes
from harness.stack import Stack, flags
from kit.options import HOST_NETWORK
from kit.sandbox import Sandbox, command

SHIM_BYTES_MAX = 4 << 20
SHIM_RESIDENT_BYTES_MAX = 6 << 20
FIRST_BYTE_MS_MAX = 5.0
SERVICE = "porthole-ingress.service"
COMM_BYTES = 15  # of a program's name, in /proc/PID/comm
STARTS = 21
ROUNDS = 10
UNIT = "/usr/lib/systemd/system/porthole-ingress.service"


def field(package: Path, name: str) -> str:
    return command("dpkg-deb", "--field", package, name)


def test_what_the_packages_need(packages) -> None:
    """The ingress its libraries, by their versions; the shim nothing at all."""
    assert set(packages) == {"porthole-ingress", "porthole-shim"}
    assert re.search(r"libmicrohttpd\S* \(>= 0\.9\.75", field(packages["porthole-ingress"], "Depends"))
    assert field(packages["porthole-shim"], "Depends") == ""
    for package in packages.values():
        listed = command("dpkg-deb", "--contents", package)
        assert all(line.split()[1] == "root/root" for line in listed.splitlines()), listed


def test_installed_run_and_purged(sandbox: Sandbox, stack: Stack, run, packages, debian_12: str) -> None:
    """The service's own command line in a Debian that has only the packages, then without."""
    folder = packages["porthole-shim"].parent
    container = run(debian_12, "sh", "-c", "echo runs; exec sleep infinity",
                    options=[HOST_NETWORK, f"--volume={folder}:/debs:ro"])
    container.wait_log("runs")
    container.execute("sh", "-c", "dpkg --install /debs/*.deb")
    container.execute("dpkg", "--verify", "porthole-shim", "porthole-ingress")
    unit = container.execute("cat", UNIT)
    start = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    settings = re.search(r"^EnvironmentFile=-(.*)$", unit, re.MULTILINE)
    assert start and settings, unit
    container.execute("sh", "-c", (
        "printf 'PORTHOLE_%s\\n' LISTEN=127.0.0.1:0 SHIMS=ipc:///shims ADMIN=127.0.0.1:0"
        f" >>{settings[1]}"))
    ingress = stack.run("ingress", [*sandbox.prefix(), "podman", "exec", container.container, "sh", "-ec", (
        f"set -a; . {settings[1]}; exec {shlex.join(shlex.split(start[1]))}")], sandbox.environment())
    port = int(ingress.wait_log(r'"listen":"127.0.0.1:(\d+)"')[1])
    shim = stack.run("shim", [*sandbox.prefix(), "podman", "exec", "--env=PORTHOLE_INGRESS=ipc:///shims",
                              container.container, "porthole-shim", "--", "python3", "-m", "http.server",
                              "--bind", "127.0.0.1", "8188"], sandbox.environment())
    shim.wait_log('"msg":"registered"')
    with Client(("127.0.0.1", port)) as client:
        assert b"Directory listing" in assert_answer(client.ask()).body
    for program in (shim, ingress):
        name = "porthole-" + program.name
        container.execute("sh", "-c", f"kill -TERM $(grep -lx {name[:COMM_BYTES]} /proc/[0-9]*/comm | cut -d/ -f3)")
        program.expect_exit(0)
    container.execute("dpkg", "--purge", "porthole-shim", "porthole-ingress")
    assert container.execute("find", "/", "-xdev", "-name", "*porthole*", "-not", "-path", "/debs/*") == ""
    container.kill()


def test_the_service(sandbox: Sandbox, stack: Stack, run, packages, debian_12: str) -> None:
    """Under a real systemd: installed, enabled, reloaded, upgraded while it runs, purged."""
    server = stack.server()
    debs = packages["porthole-ingress"].parent
    machine = run(debian_12, "/sbin/init", options=[
        HOST_NETWORK, "--systemd=always", "--cap-add=SYS_ADMIN", "--env=container=podman",
        f"--volume={debs}:/debs:ro"])
    wait_until(lambda: machine.succeeds("systemctl", "is-system-running", "--wait"),
               "systemd is up")

    def shows(name: str) -> str:
        return machine.execute("systemctl", "show", "--value", "--property", name, SERVICE)

    def log(pattern: str) -> re.Match[str]:
        return wait_until(lambda: re.search(pattern, machine.execute(
            "journalctl", "--no-pager", "--output=cat", f"--unit={SERVICE}")), pattern)

    machine.execute("sh", "-c", "dpkg --install /debs/porthole-ingress_*.deb")
    assert (shows("ActiveState"), shows("UnitFileState")) == ("inactive", "disabled")
    machine.execute("systemd-analyze", "verify", SERVICE)
    machine.execute("sh", "-c", (
        "printf 'PORTHOLE_%s\\n' LISTEN=127.0.0.1:0 SHIMS=tcp://127.0.0.1:0 ADMIN=127.0.0.1:0"
        " >>/etc/default/porthole-ingress"))
    machine.execute("systemctl", "enable", "--now", SERVICE)
    ready = log(r"msg=ready listen=127.0.0.1:(\d+) shims=(\S+)")
    stack.start_shim(ready[2], server=server)
    with Client(("127.0.0.1", int(ready[1]))) as client:
        assert_answer(client.ask())
    first = shows("MainPID")
    user = machine.execute("sed", "-n", "s/^Uid:\t\\([0-9]*\\).*/\\1/p", f"/proc/{first}/status")
    assert int(user) > 0
    machine.execute("systemctl", "reload", SERVICE)
    log("configuration loaded")
    machine.execute("sh", "-c", "dpkg --install /debs/porthole-ingress_*.deb")
    assert (shows("ActiveState"), shows("Result")) == ("active", "success")
    assert shows("MainPID") != first
    machine.execute("dpkg", "--purge", "porthole-ingress")
    log(r"(?s)msg=stopped.*msg=stopped")
    assert shows("LoadState") == "not-found"
    machine.kill()


def test_size(stripped_shim: Path) -> None:
    assert stripped_shim.stat().st_size <= SHIM_BYTES_MAX
    headers = command("readelf", "--program-headers", stripped_shim)
    assert "INTERP" not in headers and "DYNAMIC" not in headers, headers


@pytest.fixture
def priority(sandbox: Sandbox) -> Iterator[None]:
    """Ahead of what else the machine does: that is not what is measured."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    yield
    os.setpriority(os.PRIO_PROCESS, 0, before)


def test_start(priority, stripped_shim: Path) -> None:
    """From exec to the first byte of ZeroMQ's greeting: the median of a round.  Another round
    is for a machine that others use meanwhile."""
    rounds_ms: list[float] = []
    with listen() as listener, listen() as server:
        endpoint = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        words = [stripped_shim, *flags(ingress=endpoint, port=server.getsockname()[1])]
        while len(rounds_ms) < ROUNDS and min(rounds_ms, default=inf) > FIRST_BYTE_MS_MAX:
            rounds_ms.append(statistics.median(
                first_byte_ms(words, listener) for _ in range(STARTS)))
    print(f"first byte after {min(rounds_ms):.2f} ms (median of {STARTS})")
    assert min(rounds_ms) <= FIRST_BYTE_MS_MAX, rounds_ms


def first_byte_ms(words: list[object], listener: socket.socket) -> float:
    # Not the harness's Program, whose threads would be measured too.
    begin = time.monotonic()
    shim = subprocess.Popen(words, stderr=subprocess.DEVNULL)  # type: ignore[arg-type]
    try:
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(PATIENCE_S)
            assert peer.recv(1)
            return (time.monotonic() - begin) * 1000
    finally:
        shim.kill()
        shim.wait()


def test_memory(stripped_shim: Path, stack: Stack) -> None:
    """What it holds while it is registered and nobody calls."""
    ingress = stack.start_ingress()
    with listen() as server:
        shim = stack.run("shim", [stripped_shim, *flags(ingress=ingress.shims,
                                                        port=server.getsockname()[1])])
        shim.wait_log('"msg":"registered"')
        print(f"{resident_bytes(shim.pid) / 1024:.0f} KiB resident")
        assert resident_bytes(shim.pid) <= SHIM_RESIDENT_BYTES_MAX
        shim.stop()


def listen() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE_S)
    return listener
