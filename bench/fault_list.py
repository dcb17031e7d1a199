"""The faults that bench/faults makes, one function each.

A function starts what it needs, makes the fault with calls in flight, and returns what
happened to them and how long it took.  Whatever is not as promised raises AssertionError.
Durations of faults are slept; everything else is waited for.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from harness import http
from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.dns import Dns, resolving_prefix
from harness.netns import Namespaces, Unavailable
from harness.places import ROOT
from harness.program import descendants
from harness.server import RawServer, ServerConnection, serve_heads
from harness.stack import Shim, Stack, free_port

PATIENCE_S = 30.0
PIECE = random.Random(7).randbytes(64 * 1024)
PACE_S = 0.02  # between two pieces of a call that moves bytes
WAITING, DOWNLOADS, UPLOADS, SMALL = 8, 4, 4, 4
FLIGHT = WAITING + DOWNLOADS + UPLOADS + SMALL
STORM_SHIMS = 1000
SAMPLE_SERVER = [sys.executable, str(ROOT / "tests/e2e/servers/sample_server.py")]


class Skipped(Exception):
    """This machine or this user cannot make the fault; the text says why."""


@dataclass
class Seen:
    what: str
    seconds: float


@dataclass
class Fault:
    name: str
    title: str
    measured: str  # from … to …
    promised_s: float  # 0: no time is promised
    run: Callable[[Stack], Seen]


FAULTS: dict[str, Fault] = {}


def fault(name: str, title: str, measured: str, promised_s: float = 0.0):
    def add(run: Callable[[Stack], Seen]) -> Callable[[Stack], Seen]:
        FAULTS[name] = Fault(name, title, measured, promised_s, run)
        return run

    return add


def play(which: Fault, folder: Path) -> Seen:
    """One round; every program that the fault left alive must end clean."""
    stack = Stack(folder)
    try:
        seen = which.run(stack)
    except (AssertionError, Skipped):
        with contextlib.suppress(AssertionError):  # the first complaint is the one to read
            stack.close()
        raise
    stack.close()
    return seen


# ---- calls in flight

class Flight:
    """Calls that wait for their answer, downloads, uploads; small ones join at any time.

    Downloads and uploads move bytes until land(), and both ends hash them."""

    def __init__(self, stack: Stack, server: RawServer) -> None:
        self.stack = stack
        self.server = server
        self.landing = server.gate()
        self.sent: dict[bytes, str] = {}  # of downloads, by the server
        self.moving = threading.Semaphore(0)
        self.pool = concurrent.futures.ThreadPoolExecutor(FLIGHT)
        self.calls: list[concurrent.futures.Future[None]] = []
        server.script(serve_heads(self._serve))

    def start(self) -> "Flight":
        for _ in range(WAITING):
            self._add(self._wait)
        for n in range(DOWNLOADS):
            self._add(self._download, b"/down/%d" % n)
        for _ in range(UPLOADS):
            self._add(self._upload)
        for _ in range(WAITING + DOWNLOADS + UPLOADS):
            assert self.moving.acquire(timeout=PATIENCE_S), "the calls do not start"
        return self

    def join_small(self) -> None:
        """New calls, while the fault is there."""
        for _ in range(SMALL):
            self._add(self._small)

    def land(self) -> float:
        """Everything may end; returns how long it took until everything had."""
        start = time.monotonic()
        self.landing.set()
        for call in self.calls:
            call.result(PATIENCE_S)
        took = time.monotonic() - start
        served = self.server.requests.qsize()
        assert served == len(self.calls), f"{len(self.calls)} calls, the server saw {served}"
        self.pool.shutdown()
        return took

    @property
    def all_answered(self) -> str:
        return f"{len(self.calls)} of {len(self.calls)} calls answered, every byte once"

    def _add(self, call: Callable, *args: object) -> None:
        self.calls.append(self.pool.submit(call, *args))

    # the server

    def _serve(self, request: http.Request, conn: ServerConnection) -> bytes | None:
        if request.target.startswith(b"/down/"):
            return self._send(request.target, conn)
        seen = hashlib.sha256()
        for n, piece in enumerate(conn.body_pieces(request, PATIENCE_S)):
            seen.update(piece)
            if not n and request.target == b"/up":
                self.moving.release()
        if request.target == b"/wait":
            self.moving.release()
            self.landing.wait(PATIENCE_S)
        return http.reply(body=seen.hexdigest().encode())

    def _send(self, target: bytes, conn: ServerConnection) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent = hashlib.sha256()
        n = 0
        while not self.landing.wait(PACE_S):
            piece = PIECE[n % len(PIECE):] or PIECE
            conn.send(http.chunk(piece), PATIENCE_S)
            sent.update(piece)
            n += 1
        self.sent[target] = sent.hexdigest()
        conn.send(b"0\r\n\r\n", PATIENCE_S)

    # the clients

    def _wait(self) -> None:
        with self.stack.client() as client:
            body = random.randbytes(100)
            client.send(http.request("POST", "/wait", body=body))
            answer = assert_answer(client.read_response(seconds=PATIENCE_S))
            assert answer.body == hashlib.sha256(body).hexdigest().encode()

    def _small(self) -> None:
        with self.stack.client() as client:
            answer = assert_answer(client.ask(target="/small", seconds=PATIENCE_S))
            assert answer.body == hashlib.sha256().hexdigest().encode()

    def _download(self, target: bytes) -> None:
        with self.stack.client() as client:
            client.send(http.request(target=target))
            head = assert_answer(client.read_final_head(PATIENCE_S))
            seen = hashlib.sha256()
            for n, piece in enumerate(client.body_pieces(head, seconds=PATIENCE_S)):
                seen.update(piece)
                if not n:
                    self.moving.release()
            assert seen.hexdigest() == self.sent[target], f"{target!r}: other bytes than were sent"

    def _upload(self) -> None:
        with self.stack.client() as client:
            client.send(http.request("POST", "/up", [(b"Transfer-Encoding", b"chunked")]))
            sent = hashlib.sha256()
            n = 0
            while not self.landing.wait(PACE_S):
                piece = PIECE[n % len(PIECE):] or PIECE
                client.send(http.chunk(piece), PATIENCE_S)
                sent.update(piece)
                n += 1
            client.send(b"0\r\n\r\n", PATIENCE_S)
            answer = assert_answer(client.read_response(seconds=PATIENCE_S))
            assert answer.body == sent.hexdigest().encode(), "other bytes than were sent"


def start_line(stack: Stack) -> RawServer:
    """Ingress, tests/relay, shim and a server; stack.relay is what breaks."""
    server = stack.server()
    stack.ingress = stack.start_ingress()
    stack.relay = stack.start_relay(stack.ingress.shims.removeprefix("tcp://"))
    stack.shim = stack.start_shim(stack.relay.endpoint, server=server)
    return server


def noticed(shim: Shim) -> str:
    return "the link was resumed" if "link resumed" in shim.log else "nobody noticed"


# ---- the link: nothing is lost

ALL_ENDED = "from the fault's end to the end of every call"


def survive(stack: Stack, flight: Flight, begin: Callable[[], None], seconds: float,
            end: Callable[[], None]) -> Seen:
    """A fault that no call may notice."""
    flight.start()
    begin()
    if seconds:
        flight.join_small()
        time.sleep(seconds)  # the fault's length
    end()
    took = flight.land()
    return Seen(f"{flight.all_answered}; {noticed(stack.shim)}", took)


def frozen(stack: Stack, seconds: float) -> Seen:
    flight = Flight(stack, start_line(stack))
    return survive(stack, flight, stack.relay.freeze, seconds, stack.relay.thaw)


@fault("frozen-1s", "the link is frozen for 1 s", ALL_ENDED)
def frozen_1s(stack: Stack) -> Seen:
    return frozen(stack, 1)


@fault("frozen-5s", "… for 5 s", ALL_ENDED)
def frozen_5s(stack: Stack) -> Seen:
    return frozen(stack, 5)


@fault("frozen-9s", "… for 9 s", ALL_ENDED)
def frozen_9s(stack: Stack) -> Seen:
    return frozen(stack, 9)


@fault("unplugged", "nothing comes through this connection ever again; a new one would work",
       "from the fault to the end of every call")
def unplugged(stack: Stack) -> Seen:
    flight = Flight(stack, start_line(stack))
    return survive(stack, flight, stack.relay.drop, 0, stack.relay.accept)


@fault("cut", "the link's connection is closed (FIN)", "from the cut to the end of every call")
def cut(stack: Stack) -> Seen:
    flight = Flight(stack, start_line(stack))
    return survive(stack, flight, stack.relay.cut, 0, lambda: None)


@fault("reset", "… is reset (RST)", "from the reset to the end of every call")
def reset(stack: Stack) -> Seen:
    flight = Flight(stack, start_line(stack))
    return survive(stack, flight, stack.relay.reset, 0, lambda: None)


@fault("away-0.8s", "… is closed, and nobody answers for 0.8 s", ALL_ENDED)
def away(stack: Stack) -> Seen:
    flight = Flight(stack, start_line(stack))

    def begin() -> None:
        stack.relay.refuse(0.8)  # ends by itself, however busy this machine is
        stack.relay.cut()

    return survive(stack, flight, begin, 0.8, lambda: None)


def stopped(stack: Stack, who: str, seconds: float) -> Seen:
    server = stack.server()
    stack.pair(server)
    program = getattr(stack, who)
    return survive(stack, Flight(stack, server), lambda: program.signal(signal.SIGSTOP), seconds,
                   lambda: program.signal(signal.SIGCONT))


@fault("shim-stopped-5s", "the shim is stopped for 5 s (SIGSTOP), then goes on", ALL_ENDED)
def shim_stopped(stack: Stack) -> Seen:
    return stopped(stack, "shim", 5)


@fault("ingress-stopped-5s", "the ingress is stopped for 5 s, then goes on", ALL_ENDED)
def ingress_stopped(stack: Stack) -> Seen:
    return stopped(stack, "ingress", 5)


# ---- beyond: the right error, in time

class Doomed:
    """Calls that wait, and one whose answer has begun; sorted by what becomes of them."""

    def __init__(self, stack: Stack, ask: bytes = b"/wait", begun: bool = True) -> None:
        self.waiting = [stack.client() for _ in range(WAITING)]
        self.begun = stack.client() if begun else None
        for client in self.waiting:
            client.send(http.request("POST", ask, body=b"once"))
        if self.begun:
            self.begun.send(http.request(target="/down"))
            assert_answer(self.begun.read_final_head())

    def errors(self, status: int, code: str, seconds: float = PATIENCE_S) -> str:
        """Each has its error; returns them in words."""
        texts = set()
        for client in self.waiting:
            answer = assert_error(client.read_response(seconds=seconds), status, code)
            texts.add(answer.body.decode().splitlines()[1])
        assert len(texts) == 1, texts
        what = f"{len(self.waiting)} calls that waited: {status} `{code}`, “{texts.pop()}”"
        if self.begun:
            self.expect_cut_off(seconds)
            what += "; one whose answer had begun: connection closed without the last chunk"
        return what

    def expect_cut_off(self, seconds: float) -> None:
        assert self.begun
        rest = self.begun.expect_closed(seconds)
        assert not rest.endswith(b"0\r\n\r\n"), "a response that was cut off looks whole"


def doom(stack: Stack, server: RawServer) -> Doomed:
    """In flight when it returns."""

    def answer(request: http.Request, conn: ServerConnection) -> bytes | None:
        if request.target == b"/after":
            return http.reply(body=b"after")
        if request.target == b"/down":
            conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + http.chunk(PIECE))
        conn.wait_left(PATIENCE_S)
        return None

    server.script(serve_heads(answer))
    doomed = Doomed(stack)
    for _ in range(WAITING + 1):
        server.next_request()
    return doomed


def afterwards(stack: Stack) -> None:
    assert assert_answer(stack.ask(target="/after", seconds=PATIENCE_S)).body == b"after"


@fault("gone", "the link's connection is closed, and nobody answers any more",
       "from the cut to the last error", 1.5)
def gone(stack: Stack) -> Seen:
    doomed = doom(stack, start_line(stack))
    stack.relay.refuse()
    start = time.monotonic()
    stack.relay.cut()
    what = doomed.errors(502, "container_lost")
    took = time.monotonic() - start
    stack.relay.accept()
    afterwards(stack)
    return Seen(what + "; then the shim registers afresh", took)


@fault("silent", "the link falls silent for good", "from the last byte to the last error", 11.0)
def silent(stack: Stack) -> Seen:
    doomed = doom(stack, start_line(stack))
    start = time.monotonic()
    stack.relay.drop()
    what = doomed.errors(502, "container_lost")
    took = time.monotonic() - start
    stack.relay.accept()
    afterwards(stack)
    return Seen(what + "; then the shim registers afresh", took)


def start_command(stack: Stack, *ingress_flags: str) -> int:
    """A shim that started its server; the server's process id."""
    stack.ingress = stack.start_ingress(*ingress_flags)
    stack.shim = stack.start_shim(stack.ingress, "--grace", "6",
                                  command=[*SAMPLE_SERVER, str(free_port())])
    assert_answer(stack.ask())
    return descendants(stack.shim.pid)[0]


def wait_calls(pid: int, calls: int) -> None:
    """So many threads of the sample server are busy with one each."""
    tasks = Path(f"/proc/{pid}/task")
    wait_until(lambda: len(list(tasks.iterdir())) >= calls + 1, f"{calls} calls at the server")


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@fault("command-killed", "the command is killed (kill -9)", "from the kill to the last error", 0.1)
def command_killed(stack: Stack) -> Seen:
    pid = start_command(stack)
    doomed = Doomed(stack, b"/hang", begun=False)
    wait_calls(pid, WAITING)
    start = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    what = doomed.errors(502, "container_lost")
    took = time.monotonic() - start
    stack.shim.expect_exit(128 + signal.SIGKILL)
    return Seen(what + "; the shim ends with status 137", took)


@fault("command-exits", "the command ends with status 3 by itself",
       "from the request that makes it end to the last error", 0.1)
def command_exits(stack: Stack) -> Seen:
    pid = start_command(stack)
    doomed = Doomed(stack, b"/hang", begun=False)
    wait_calls(pid, WAITING)
    doomed.waiting.append(stack.client())
    start = time.monotonic()
    doomed.waiting[-1].send(http.request("POST", "/exit/3", body=b""))
    what = doomed.errors(502, "container_lost")
    took = time.monotonic() - start
    stack.shim.expect_exit(3)
    return Seen(what + "; the shim ends with status 3", took)


@fault("shim-killed", "the shim is killed (kill -9)", "from the kill to the last error", 1.5)
def shim_killed(stack: Stack) -> Seen:
    server = stack.server()
    stack.pair(server)
    doomed = doom(stack, server)
    start = time.monotonic()
    stack.shim.kill()
    what = doomed.errors(502, "container_lost")
    return Seen(what, time.monotonic() - start)


@fault("shim-thawed", "the shim is stopped until its calls are lost, then goes on",
       "from SIGCONT to the answer of a new call", 1.0)
def shim_thawed(stack: Stack) -> Seen:
    server = stack.server()
    stack.pair(server)
    doomed = doom(stack, server)
    connections = list(server.connections)
    stack.shim.signal(signal.SIGSTOP)
    try:
        what = doomed.errors(502, "container_lost")
        before = len(stack.shim.log)
    finally:
        start = time.monotonic()
        stack.shim.signal(signal.SIGCONT)
    afterwards(stack)
    took = time.monotonic() - start
    stack.shim.wait_registered(after=before)
    for conn in connections:
        assert conn.finished.wait(PATIENCE_S), "a call that was lost is still at the server"
    return Seen(what + "; thawed, the shim cancels them at the server and registers afresh", took)


@fault("ingress-killed", "the ingress is killed (kill -9)",
       "from the kill until the server's last connection is closed", 1.5)
def ingress_killed(stack: Stack) -> Seen:
    server = stack.server()
    stack.pair(server)
    doomed = doom(stack, server)
    connections = list(server.connections)
    start = time.monotonic()
    stack.ingress.kill()
    for client in doomed.waiting:
        assert client.expect_closed() == b"", "an answer of a dead ingress"
    doomed.expect_cut_off(PATIENCE_S)
    for conn in connections:
        assert conn.finished.wait(PATIENCE_S), "the shim does not cancel"
    took = max(conn.left_at or 0.0 for conn in connections) - start
    return Seen(f"{len(connections)} clients: connection closed at once; the shim cancels their "
                "calls at the server", took)


@fault("ingress-restarted", "… and is started again at once, on the same port",
       "from its start (`ready`) to the answer of a new call", 1.0)
def ingress_restarted(stack: Stack) -> Seen:
    server = stack.server()
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    stack.ingress = stack.start_ingress(shims=endpoint)
    stack.shim = stack.start_shim(stack.ingress, server=server)
    doom(stack, server)
    connections = list(server.connections)
    stack.ingress.kill()
    before = len(stack.shim.log)
    stack.ingress = stack.start_ingress(shims=endpoint)
    start = time.monotonic()
    stack.shim.wait_registered(after=before)
    afterwards(stack)
    took = time.monotonic() - start
    for conn in connections:
        assert conn.finished.wait(PATIENCE_S), "the shim does not cancel"
    return Seen("the shim registers afresh, what it carried is cancelled; the new call is answered",
                took)


# ---- not the link

@fault("server-hung", "the server hangs (SIGSTOP); `--first-byte-timeout-ms 1000`",
       "from the request to the last error", 1.5)
def server_hung(stack: Stack) -> Seen:
    pid = start_command(stack, "--first-byte-timeout-ms", "1000")
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state_of(pid) == "T", "it has stopped")
        start = time.monotonic()
        doomed = Doomed(stack, b"/", begun=False)
        what = doomed.errors(504, "first_byte_timeout")
        took = time.monotonic() - start
    finally:
        os.kill(pid, signal.SIGCONT)
    # connections that it had no room for are dialled again by the kernel, a second later
    wait_until(lambda: stack.ask(seconds=PATIENCE_S).status == 200, "new calls are answered")
    return Seen(what + "; when it goes on, so do new calls", took)


@fault("client-gone", "a client closes its connection while its call waits",
       "from the close until the server's connection is closed", 0.1)
def client_gone(stack: Stack) -> Seen:
    server = stack.server()
    stack.pair(server)
    server.script(serve_heads(lambda request, conn: conn.wait_left(PATIENCE_S) and None))
    client = stack.client()
    client.send(http.request())
    server.next_request()
    start = time.monotonic()
    client.close()
    conn = server.connections[0]
    assert conn.finished.wait(PATIENCE_S) and conn.left_at, "the server was not told"
    return Seen("the call is cancelled, the server sees its connection closed",
                conn.left_at - start)


@fault("unresolved", "a name of an ingress does not resolve (another one does)",
       "from the name's coming to the first answer", 5.5)
def unresolved(stack: Stack) -> Seen:
    try:
        namespaces = Namespaces()
    except Unavailable as error:
        raise Skipped(str(error)) from None
    try:
        namespace = namespaces.add()
        dns = Dns(namespace)
        try:
            return resolve_late(stack, namespace, dns)
        finally:
            dns.close()
            stack.close()
    finally:
        namespaces.close()


def resolve_late(stack: Stack, namespace, dns: Dns) -> Seen:
    name, port, complaint = "gateway.test", 7700, "the ingress's name does not resolve"
    with namespace.inside():
        server = stack.server()
    here, late = (stack.start_ingress(shims=f"tcp://127.0.0.{n}:{port}", prefix=namespace.prefix)
                  for n in (2, 3))
    shim = stack.start_shim([f"tcp://127.0.0.2:{port}", f"tcp://{name}:{port}"], server=server,
                            prefix=resolving_prefix(namespace, stack.folder / "etc"))
    shim.wait_log(complaint)
    dns.wait_questions(name, 5)
    assert shim.log.count(complaint) == 1, shim.log
    with namespace.inside():
        assert_answer(here.ask())
        dns.set(name, "127.0.0.3")
        start = time.monotonic()
        shim.wait_log("registered.*127.0.0.3")
        assert_answer(late.ask())
    took = time.monotonic() - start
    return Seen("the log says so once (a minute), the other ingress is served; looked up again "
                "at each dial, registered when it resolves", took)


@fault("storm", f"the ingress of {STORM_SHIMS:,} shims is killed, is away until all have dialled "
       "three times, and comes back on its port", "from its `ready` until all are registered", 10.0)
def storm(stack: Stack) -> Seen:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    ingress = stack.start_ingress(shims=endpoint)
    load = stack.start_load(ingress, STORM_SHIMS, "--concurrency", "1", "--answer-ms", "500")
    load.wait_registered(PATIENCE_S)
    mark = len(load.log)
    ingress.kill()
    wait_until(lambda: load.status()["dials"] >= 4 * STORM_SHIMS, "everybody has tried", PATIENCE_S)
    ingress = stack.start_ingress(shims=endpoint)
    start = time.monotonic()
    ingress.wait_log("container registered")
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        asked = [pool.submit(ingress.ask, seconds=PATIENCE_S) for _ in range(200)]
        load.wait_registered(PATIENCE_S, mark)
        took = time.monotonic() - start
        for answer in asked:
            assert_answer(answer.result(PATIENCE_S))
    status = load.status()
    assert status["calls_lost"] == 0 and status["answered"] == status["calls"], status
    return Seen(f"{len(asked)} of {len(asked)} calls answered that came while most were away; "
                "none lost", took)


__all__ = ["FAULTS", "Fault", "Seen", "Skipped", "play"]
