"""The programs that are compared: starting, ending, and what the kernel says of them.

A Group is one candidate (what stands between client and backend) or the backend
itself: some processes and the port that answers.  All of it is on 127.0.0.1, on ports
that were free, with its files in one temporary directory.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Callable, Sequence

# Puts a line in front of a port, and says which port leads to it.
Line = Callable[["Group", int], int]

START_SECONDS = 10.0
END_SECONDS = 10.0
SMALL_BYTES = 100

NGINX = """\
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/error.log error;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    server_tokens off;
    keepalive_requests 100000000;
    keepalive_timeout 300s;
    client_max_body_size 0;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
{http}
}}
"""

STATIC = """\
    sendfile on;
    open_file_cache max=16;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /small {{ default_type text/plain; return 200 "{small}"; }}
        location / {{ root {files}; }}
    }}
"""

HOP = """\
    upstream next {{
        server 127.0.0.1:{next};
        keepalive 1024;
        keepalive_requests 100000000;
        keepalive_timeout 300s;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://next;
            proxy_http_version 1.1;
            proxy_set_header Connection "{connection}";
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host $http_host;
            proxy_buffering off;
            proxy_request_buffering off;
            {buffers}
        }}
    }}
"""

LARGE_BUFFERS = """\
proxy_buffer_size 64k;
            proxy_buffers 8 64k;
            client_body_buffer_size 64k;
"""


class Failed(Exception):
    """A program did not start, or answered wrongly."""


class Group:
    """Processes that belong together, and the port to talk to."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.name = name
        self.port = port
        self.admin = 0  # of an ingress
        self.processes: list[subprocess.Popen] = []
        self.logs: list[Path] = []

    def pids(self) -> list[int]:
        """Every process, children too."""
        found, todo = [], [p.pid for p in self.processes]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += _children(pid)
        return found

    def cpu_us(self) -> float:
        """CPU time so far, of all threads, from the scheduler (not from ticks)."""
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1000

    def workers(self) -> list[int]:
        """The processes that do the work: nginx's masters are left out."""
        return [pid for pid in self.pids() if not _children(pid)]

    def resident_kib(self, key: str = "VmRSS") -> dict[str, int]:
        """Resident memory of each process that works: VmRSS now, VmHWM at most."""
        sizes: dict[str, int] = {}
        for pid in self.workers():
            text = Path(f"/proc/{pid}/status").read_text()
            command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
            name = os.path.basename(command.split(":")[0])
            name = name if name not in sizes else f"{name} ({len(sizes) + 1})"
            sizes[name] = int(re.search(rf"^{key}:\s+(\d+)", text, re.M)[1])
        return sizes

    def complaints(self) -> list[str]:
        """What went to the logs at level warn or error."""
        bad = re.compile(r"\[(error|crit|alert|emerg)\]|level=(warn|error)")
        return [
            line
            for log in self.logs
            if log.exists()
            for line in log.read_text(errors="replace").splitlines()
            if bad.search(line)
        ]


def _children(pid: int) -> list[int]:
    try:
        return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


class Crowd:
    """Many clients of one kind, until end()."""

    OPEN_SECONDS = 120.0

    def __init__(self, group: Group, log: Path) -> None:
        self.group = group
        self.log = log
        self.asked = 0

    def wait_open(self) -> None:
        wait_log(self.log, r"(?m)^open \d+\n", self.OPEN_SECONDS)

    def close(self) -> None:
        self.group.processes[0].stdin.close()

    def report(self) -> dict[str, str]:
        """open, ended, answers, status, age_ms: as bench/crowd.c says them."""
        self.asked += 1
        self.group.processes[0].stdin.write(b"\n")
        self.group.processes[0].stdin.flush()
        # All lines but those before this answer.
        line = wait_log(self.log, r"\A(?:.*\n)*?(?:open=.*\n){%d}(open=.*)\n"
                        % (self.asked - 1))[1]
        return dict(word.partition("=")[::2] for word in line.split())


class Programs:
    """Starts groups; ends every process that it started, by its id, at exit."""

    def __init__(self, temp: Path, build: Path) -> None:
        self.temp = temp
        self.build = build
        self.prefix: list[str] = []  # what Porthole's programs run under
        self.stubborn: list[str] = []  # what had to be killed
        self.started: list[subprocess.Popen] = []
        self.count = 0

    def __enter__(self) -> "Programs":
        return self

    def __exit__(self, *_: object) -> None:
        self.end(self.started)

    def end(self, processes: list[subprocess.Popen]) -> None:
        for process in reversed(processes):
            if process.poll() is None:
                process.terminate()
        for process in reversed(processes):
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                name = Path(process.args[0]).name
                self.stubborn.append(f"{name} did not end in {END_SECONDS:.0f} s")
        self.started = [p for p in self.started if p not in processes]

    def end_groups(self, groups: list[Group]) -> None:
        self.end([p for g in groups for p in g.processes])

    # What can be started ---------------------------------------------------------

    def static(self, files: Path) -> Group:
        """nginx, one worker, giving out a short text and files."""
        port = free_port()
        group = Group("backend alone", port)
        self._nginx(group, STATIC.format(port=port, files=files, small="x" * SMALL_BYTES))
        return group

    def sink(self) -> Group:
        """What takes uploads: bench/sink.c."""
        return self._server("sink")

    def echo(self) -> Group:
        """What sends WebSocket messages back: bench/echo_server.c."""
        return self._server("echo_server")

    def park(self) -> Group:
        """What answers some requests and keeps others waiting: bench/park.c."""
        return self._server("park")

    def crowd(self, kind: str, port: int, count: int, *more: object) -> "Crowd":
        """Many clients of one kind: bench/crowd.c."""
        group = Group(f"{count} {kind}")
        log = self._start(group, f"crowd-{kind}",
                          [self.compiled("crowd"), kind, str(port), str(count),
                           *map(str, more)],
                          stdin=subprocess.PIPE)  # it ends with its input
        return Crowd(group, log)

    def compiled(self, name: str) -> str:
        """A program of this folder, with the codec of proto/."""
        program = self.temp / name
        if not program.exists():
            folder = Path(__file__).resolve().parent
            subprocess.run(
                ["cc", "-D_GNU_SOURCE", "-O3", "-I", str(folder.parent), "-o", str(program),
                 str(folder / f"{name}.c"),
                 str(self.build / "proto" / "libporthole_proto.a"), "-lz"], check=True
            )
        return str(program)

    def _server(self, name: str) -> Group:
        group = Group("backend alone", free_port())
        self._start(group, name, [self.compiled(name), str(group.port)])
        wait_port(group.port)
        return group

    def relay(self, group: Group, port: int, delay_ms: int, rate: str) -> int:
        """tests/relay in front of a port: delay each way, bits a second each way."""
        log = self._start(group, "porthole-relay",
                          [str(self.build / "tests" / "relay" / "porthole-relay"),
                           "--target", f"127.0.0.1:{port}", "--delay", str(delay_ms),
                           "--rate", rate],
                          stdin=subprocess.PIPE)  # it ends with its input
        return int(wait_log(log, r"ready listen=127\.0\.0\.1:(\d+)")[1])

    def hops(self, count: int, backend: int, large: bool = False,
             line: Line | None = None, upgrade: bool = False) -> Group:
        """nginx in front of nginx ..., one worker each; between two of them a line."""
        name = "one nginx hop" if count == 1 else "two nginx hops"
        group = Group(name + (", 64 KiB buffers" if large else ""))
        port = backend
        for n in range(count):
            if line and n:
                port = line(group, port)
            after, port = port, free_port()
            buffers = LARGE_BUFFERS if large else ""
            self._nginx(group, HOP.format(port=port, next=after, buffers=buffers,
                                          connection="upgrade" if upgrade else ""))
        group.port = port
        return group

    def porthole(self, backend: int, line: Line | None = None,
                 ingress_flags: Sequence[str] = (), shim_flags: Sequence[str] = ()) -> Group:
        """An ingress, and a shim beside a server that runs already; between them a line."""
        group = Group("Porthole")
        any_tcp = "127.0.0.1:0"
        log = self._start(
            group,
            "porthole-ingress",
            [*self.prefix, str(self.build / "ingress" / "porthole-ingress"), "--listen", any_tcp,
             "--access-log", "off", "--shims", f"tcp://{any_tcp}", "--admin", any_tcp,
             "--log-format", "text", *ingress_flags],
        )
        ready = wait_log(
            log, r"msg=ready listen=127\.0\.0\.1:(\d+) shims=(\S+) admin=127\.0\.0\.1:(\d+)")
        group.port = int(ready[1])
        group.admin = int(ready[3])
        shims = int(ready[2].rpartition(":")[2])
        if line:
            shims = line(group, shims)
        log = self._start(
            group,
            "porthole-shim",
            [*self.prefix, str(self.build / "shim" / "porthole-shim"), "--ingress", f"tcp://127.0.0.1:{shims}",
             "--port", str(backend), "--log-format", "text", *shim_flags],
        )
        wait_log(log, r"msg=registered")
        return group

    def candidates(self, backend: Group, large: bool = False,
                   upgrade: bool = False) -> list[Group]:
        """Everything that is compared, in front of one backend."""
        return [
            Group("backend alone", backend.port),
            self.hops(1, backend.port, upgrade=upgrade),
            self.hops(2, backend.port, upgrade=upgrade),
            *([self.hops(2, backend.port, large=True, upgrade=upgrade)] if large else []),
            self.porthole(backend.port),
        ]

    # ------------------------------------------------------------------------------

    def _nginx(self, group: Group, http: str) -> None:
        self.count += 1
        folder = self.temp / f"nginx{self.count}"
        folder.mkdir()
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(dir=folder, http=http, user=user))
        port = int(re.search(r"listen 127\.0\.0\.1:(\d+)", http)[1])
        error_log = folder / "error.log"
        log = self._start(
            group,
            f"nginx{self.count}",
            ["nginx", "-p", str(folder), "-e", str(error_log), "-c", str(config)],
        )
        group.logs.append(error_log)
        try:
            wait_port(port)
        except Failed as e:
            raise Failed(f"{e}: {log.read_text()}") from e

    def _start(self, group: Group, name: str, command: list[str],
               stdin: int = subprocess.DEVNULL) -> Path:
        self.count += 1
        log = self.temp / f"{name}.{self.count}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdin=stdin, stdout=out, stderr=out
            )
        self.started.append(process)
        group.processes.append(process)
        group.logs.append(log)
        return log


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise Failed(f"nothing accepts on port {port}")


def wait_log(log: Path, pattern: str, seconds: float = START_SECONDS) -> re.Match:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = re.search(pattern, log.read_text(errors="replace"))
        if found:
            return found
        time.sleep(0.01)
    raise Failed(f"no {pattern!r} in {log.name}:\n{log.read_text(errors='replace')}")
