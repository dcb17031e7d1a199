"""The two programs, started as a user starts them."""

from __future__ import annotations

import os
import random
import socket
import time
from pathlib import Path
from types import ModuleType
from typing import Mapping, Sequence

from .client import Client
from .peer import Address
from .load import Load
from .places import ROOT
from .program import Program
from .relay import Relay
from .server import RawServer
from .wire import Link, ScriptedIngress, ScriptedShim

LOOPBACK = "127.0.0.1:0"


def binary(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or ROOT / default).resolve()


INGRESS_BIN = binary("PORTHOLE_INGRESS_BIN", "build/dev/ingress/porthole-ingress")
SHIM_BIN = binary("PORTHOLE_SHIM_BIN", "build/dev/shim/porthole-shim")
# The build that the ingress is of: programs of the tests' own are in it too.
BUILD = INGRESS_BIN.parent.parent


def has_sanitizer(path: Path) -> bool:
    try:
        return b"__asan_init" in path.read_bytes()
    except OSError:
        return False


SANITIZED = has_sanitizer(INGRESS_BIN) or has_sanitizer(SHIM_BIN)


def flags(**settings: object) -> list[str]:
    """head_timeout_ms=300 → --head-timeout-ms 300; True is a flag without a value."""
    out: list[str] = []
    for name, value in settings.items():
        out.append("--" + name.replace("_", "-"))
        if value is not True:
            out.append(str(value))
    return out


def free_port() -> int:
    """A port that nobody listens on at the moment, for servers that cannot say which one they
    got.  It is not one that the kernel gives out, so that no port 0 of another test takes it."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(min(10_000, lowest // 2), lowest)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue


def parse_listen(text: str) -> Address:
    if text.startswith("unix:"):
        return text[5:]
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class Ingress(Program):
    """porthole-ingress, with the addresses of its ready line."""

    def __init__(self, log_path: Path, extra: Sequence[str] = (), listen: str = LOOPBACK,
                 shims: str = "tcp://127.0.0.1:0", env: Mapping[str, str] | None = None,
                 prefix: Sequence[str] = ()) -> None:
        argv = [*prefix, str(INGRESS_BIN), "--log-format", "text", "--listen", listen,
                "--shims", shims, "--admin", LOOPBACK, *extra]
        super().__init__("ingress", argv, log_path, env)
        self.clients: list[Client] = []

    def wait_ready(self) -> "Ingress":
        line = self.wait_log(
            r'msg="?ready"? listen="?(\S+?)"? shims="?(\S+?)"? admin="?(\S+?)"?(?:\s|$)')
        self.address = parse_listen(line[1].split(",")[0])
        self.shims = line[2]
        self.admin = parse_listen(line[3])
        return self

    @property
    def port(self) -> int:
        assert isinstance(self.address, tuple)
        return self.address[1]

    def client(self) -> Client:
        """A new connection; closed at the end of the test."""
        client = Client(self.address)
        self.clients.append(client)
        return client

    def ask(self, *args: object, **more: object):
        """One exchange on a connection of its own."""
        with self.client() as client:
            return client.ask(*args, **more)  # type: ignore[arg-type]

    def close_clients(self) -> None:
        for client in self.clients:
            client.close()
        self.clients.clear()


class Shim(Program):
    """porthole-shim, beside a scripted server or with a command."""

    def __init__(self, log_path: Path, ingress: Ingress | str | Sequence[str],
                 server: RawServer | None = None, command: Sequence[str] = (),
                 function: str = "default", extra: Sequence[str] = (),
                 env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> None:
        endpoints = ([ingress.shims] if isinstance(ingress, Ingress)
                     else [ingress] if isinstance(ingress, str) else list(ingress))
        argv = [*prefix, str(SHIM_BIN), "--log-format", "text", "--ingress", ",".join(endpoints),
                "--function", function]
        if server is not None:
            argv += ["--port", str(server.port) if server.port else f"unix:{server.path}"]
        argv += extra
        if command:
            argv += ["--", *command]
        super().__init__("shim", argv, log_path, env)

    def wait_registered(self, seconds: float | None = None, after: int = 0) -> "Shim":
        self.wait_log(r'msg="?registered"?', seconds, after)
        return self


class Stack:
    """Everything one test (or one module) runs; ends all of it, clean."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: list[Program] = []
        self.servers: list[RawServer] = []
        self.links: list[Link] = []
        self._count = 0

    # ---- starting

    def log_path(self, name: str) -> Path:
        self._count += 1
        return self.folder / f"{self._count:02}-{name}.log"

    def add(self, program: Program) -> Program:
        self.programs.append(program)
        return program

    def server(self, *args: object, **more: object) -> RawServer:
        server = RawServer(*args, **more)  # type: ignore[arg-type]
        self.servers.append(server)
        return server

    def start_ingress(self, *extra: str, wait: bool = True, **more: object) -> Ingress:
        ingress = Ingress(self.log_path("ingress"), extra, **more)  # type: ignore[arg-type]
        self.add(ingress)
        return ingress.wait_ready() if wait else ingress

    def start_shim(self, ingress: Ingress | str | Sequence[str], *extra: str, wait: bool = True,
                   **more: object) -> Shim:
        shim = Shim(self.log_path("shim"), ingress, extra=extra, **more)  # type: ignore[arg-type]
        self.add(shim)
        if wait:
            shim.wait_registered()
            shim.wait_log(r'msg="?ready"?')
        return shim

    def start_relay(self, target: str | int, **more: object) -> Relay:
        """A bad line to the target, HOST:PORT or a port of this machine."""
        relay = Relay(self.log_path("relay"), BUILD / "tests/relay/porthole-relay", target,
                      **more)  # type: ignore[arg-type]
        self.add(relay)
        return relay.wait_ready()

    def start_load(self, ingress: Ingress | str, shims: int, *extra: str, **more: object) -> Load:
        """Many shims at one ingress; they are registered when wait_registered says so."""
        endpoint = ingress if isinstance(ingress, str) else ingress.shims
        load = Load(self.log_path("load"), BUILD / "tests/load/porthole-load", endpoint, shims,
                    extra, **more)  # type: ignore[arg-type]
        self.add(load)
        return load

    def run(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Program:
        return self.add(Program(name, argv, self.log_path(name), env))

    def scripted_shim(self, pb: ModuleType, **more: object) -> ScriptedShim:
        """A shim of the test's own at the ingress of this stack."""
        link = ScriptedShim(pb, self.ingress.shims, **more)  # type: ignore[arg-type]
        self.links.append(link)
        return link

    def scripted_ingress(self, pb: ModuleType, **more: object) -> ScriptedIngress:
        link = ScriptedIngress(pb, **more)  # type: ignore[arg-type]
        self.links.append(link)
        return link

    # ---- the usual pair

    ingress: Ingress
    shim: Shim

    def pair(self, server: RawServer | None = None, ingress_flags: Sequence[str] = (),
             shim_flags: Sequence[str] = (), **more: object) -> "Stack":
        """One ingress and one shim in front of one server."""
        self.ingress = self.start_ingress(*ingress_flags)
        self.shim = self.start_shim(self.ingress, *shim_flags, server=server, **more)
        return self

    def client(self) -> Client:
        return self.ingress.client()

    def ask(self, *args: object, **more: object):
        return self.ingress.ask(*args, **more)

    # ---- the end

    def close(self) -> None:
        """Clients, shims, ingresses, servers; the first complaint is raised at the end."""
        complaints: list[AssertionError] = []

        def attempt(step) -> None:
            try:
                step()
            except AssertionError as error:
                complaints.append(error)

        for program in self.programs:
            if isinstance(program, Ingress):
                program.close_clients()
        for link in self.links:
            if isinstance(link, ScriptedShim):
                attempt(link.close)
        for program in reversed(self.programs):
            attempt(program.stop)
        for link in self.links:
            attempt(link.close)
        for server in self.servers:
            attempt(server.close)
            attempt(server.check)
        if complaints:
            raise complaints[0]


def timed(action) -> tuple[float, object]:
    """How long it took, and what it returned."""
    start = time.monotonic()
    value = action()
    return time.monotonic() - start, value
