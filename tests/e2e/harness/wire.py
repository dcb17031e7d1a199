"""The wire, spoken raw: a scripted shim and a scripted ingress.

Written from docs/protocol.md, not from the programs: messages of proto/asgi.proto over a
ZeroMQ DEALER or ROUTER, nothing of Porthole's own code.  A thread of its own owns the
socket, answers PING, acknowledges what came and gives credit, so that a test only says
what it is about."""

from __future__ import annotations

import collections
import importlib
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Iterable

import zmq

from .deadline import Deadline, PATIENCE_S, wait_until
from .http import Fields
from .places import ROOT

VERSION = 1
EVENT_COST = 64
HEADER_COST = 16
FRAME_MIN = 4096
CREDIT = 1 << 20

# Fields of Event's oneof whose messages may have their body in a frame of its own.
BODY_FIELD = {"http_request": "body", "http_response_body": "body", "websocket_receive": "data",
              "websocket_send": "data", "websocket_http_response_body": "body",
              "function_input": "data", "function_output": "data"}


def load_messages(folder: Path) -> ModuleType:
    """proto/asgi.proto as a Python module, generated into the folder."""
    subprocess.run(["protoc", f"--python_out={folder}", f"-I{ROOT / 'proto'}", "asgi.proto"],
                   check=True)
    sys.path.insert(0, str(folder))
    return importlib.import_module("asgi_pb2")


def message_of(event: Any) -> Any:
    return getattr(event, event.WhichOneof("kind"))


def body_of(event: Any) -> bytes:
    """The body of an event; wherever it came, it is in its own field here."""
    return getattr(message_of(event), BODY_FIELD[event.WhichOneof("kind")])


def fields_of(headers: Iterable[Any]) -> Fields:
    return [(header.name, header.value) for header in headers]


def cost_of(event: Any, pb: ModuleType) -> int:
    """What an event takes of its stream's credit."""
    kind = event.WhichOneof("kind")
    if kind is None:
        return EVENT_COST
    message = getattr(event, kind)
    cost = EVENT_COST
    for name in ("headers", "trailers"):
        listed = getattr(message, name, ())
        if not isinstance(listed, bool):
            cost += sum(HEADER_COST + len(h.name) + len(h.value) for h in listed)
    if kind in BODY_FIELD:
        cost += len(getattr(message, BODY_FIELD[kind]))
    return cost


def set_fields(message: Any, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        setattr(message, name, value)


class Call:
    """What this end knows of one call."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent = 0           # events of ours
        self.next = 0           # event expected from the peer
        self.cost = 0           # of all that came
        self.state: Any = None  # the newest CallState of the peer


class Link:
    """One ZeroMQ socket and the thread that owns it.  Batches that came are in `inbox`."""

    def __init__(self, pb: ModuleType, sock: zmq.Socket, credit: int = CREDIT) -> None:
        self.pb = pb
        self.sock = sock
        self.credit = credit
        self.calls: dict[int, Call] = {}
        self.batches: queue.Queue[Any] = queue.Queue()
        self.events: queue.Queue[Any] = queue.Queue()
        self.done: set[int] = set()
        self.cancelled: dict[int, Any] = {}
        self.stopped: set[int] = set()
        self.goodbyes: list[Any] = []
        self.hellos: list[Any] = []
        self.welcomes: list[Any] = []
        self.statuses: list[Any] = []
        self.received_bytes = 0
        self.pinged = 0
        self.ponged = 0
        self.error: Exception | None = None
        self.acknowledges = True
        self.pongs = True
        self.routing_id: bytes | None = None
        self.changed = threading.Condition()
        self._out: collections.deque[list[bytes]] = collections.deque()
        self._wake_read, self._wake_write = os.pipe()
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # ---- the thread that owns the socket

    def _run(self) -> None:
        try:
            self._turn()
        except Exception as error:  # noqa: BLE001 - told to the test by whatever waits
            with self.changed:
                self.error = error
                self.changed.notify_all()
        finally:
            self.sock.close(linger=200)

    def _turn(self) -> None:
        poller = zmq.Poller()
        poller.register(self.sock, zmq.POLLIN)
        poller.register(self._wake_read, zmq.POLLIN)
        while not self._ending:
            ready = dict(poller.poll())
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            while self._out:
                self.sock.send_multipart(self._out.popleft())
            while self.sock.poll(0):
                self._take(self.sock.recv_multipart())

    def _take(self, frames: list[bytes]) -> None:
        frames = self._strip(frames)
        self.received_bytes += sum(map(len, frames))
        batch = self.pb.Batch()
        batch.ParseFromString(frames[0])
        payloads = iter(frames[1:])
        answer = self.pb.Batch()
        with self.changed:
            for event in batch.events:
                self._take_event(event, payloads, answer)
            for state in batch.calls:
                self._take_state(state)
            self.done.update(batch.done)
            self.ponged = max(self.ponged, batch.pong.id)
            for name, into in (("hello", self.hellos), ("welcome", self.welcomes),
                               ("goodbye", self.goodbyes), ("container", self.statuses)):
                if batch.HasField(name):
                    into.append(getattr(batch, name))
            self.changed.notify_all()
        if batch.HasField("ping") and self.pongs:
            answer.pong.id = batch.ping.id
        self.batches.put(batch)
        if answer.ByteSize():
            self._post(answer)

    def _take_event(self, event: Any, payloads: Any, answer: Any) -> None:
        kind = event.WhichOneof("kind")
        if kind in BODY_FIELD and message_of(event).body_frame_bytes:
            payload = next(payloads)
            assert len(payload) == message_of(event).body_frame_bytes
            setattr(message_of(event), BODY_FIELD[kind], payload)
        call = self.calls.setdefault(event.call, Call(event.call))
        assert event.sequence == call.next, f"event {event.sequence} after {call.next - 1}"
        call.next += 1
        call.cost += cost_of(event, self.pb)
        if self.acknowledges:
            answer.calls.add(call=call.number, next=call.next, credit=call.cost + self.credit)
        self.events.put(event)

    def _take_state(self, state: Any) -> None:
        call = self.calls.setdefault(state.call, Call(state.call))
        call.state = state
        if state.cancel:
            self.cancelled[state.call] = state
        if state.stop:
            self.stopped.add(state.call)

    def _strip(self, frames: list[bytes]) -> list[bytes]:
        return frames

    def _wrap(self, frames: list[bytes]) -> list[bytes]:
        return frames

    def _post(self, batch: Any, payloads: list[bytes] | None = None) -> None:
        batch.received_bytes = self.received_bytes
        self.send_raw([batch.SerializeToString(), *(payloads or [])])

    # ---- sending

    def send_raw(self, frames: list[bytes]) -> None:
        """Frames as they stand, garbage too."""
        self._out.append(self._wrap(frames))
        os.write(self._wake_write, b"x")

    def send(self, *events: Any, payloads: list[bytes] | None = None, **parts: Any) -> None:
        """One batch."""
        batch = self.pb.Batch(events=events, **parts)
        self._post(batch, payloads)

    def event(self, call: int, sequence: int | None = None, **kind: Any) -> Any:
        """An event of this call, numbered by itself unless the test says otherwise."""
        state = self.calls.setdefault(call, Call(call))
        if sequence is None:
            sequence = state.sent
            state.sent += 1
        return self.pb.Event(call=call, sequence=sequence, **kind)

    def headers(self, fields: Fields) -> list[Any]:
        return [self.pb.Header(name=name, value=value) for name, value in fields]

    # ---- waiting

    def wait(self, condition: Callable[[], Any], what: str, seconds: float | None = None) -> Any:
        deadline = Deadline(seconds)
        with self.changed:
            while not (value := condition()):
                assert not self.error, f"the peer broke a rule: {self.error}"
                assert not deadline.passed, f"not in time: {what}"
                self.changed.wait(deadline.left)
            return value

    def round_trip(self) -> None:
        """Afterwards the peer has read everything that was sent before."""
        self.pinged += 1
        wanted = self.pinged
        self.send(ping=self.pb.Ping(id=wanted))
        self.wait(lambda: self.ponged >= wanted, "a pong")

    def next_event(self, kind: str | None = None, call: int | None = None,
                   seconds: float | None = None) -> Any:
        """The next event, which is to be of this kind and call."""
        try:
            event = self.events.get(timeout=PATIENCE_S if seconds is None else seconds)
        except queue.Empty:
            raise AssertionError(f"no event came, {kind or 'any'} was waited for; "
                                 f"error: {self.error}") from None
        assert kind is None or event.WhichOneof("kind") == kind, event
        assert call is None or event.call == call, event
        return event

    def close(self) -> None:
        if self._ending:
            return
        self._ending = True
        os.write(self._wake_write, b"x")
        self._thread.join(5)
        os.close(self._wake_read)
        os.close(self._wake_write)


class ScriptedShim(Link):
    """Dials an ingress as a shim does."""

    def __init__(self, pb: ModuleType, endpoint: str, function: str = "default",
                 concurrency: int = 100, credit: int = CREDIT, hello: bool = True,
                 container: bytes | None = None) -> None:
        sock = zmq.Context.instance().socket(zmq.DEALER)
        sock.sndhwm = 0
        sock.connect(endpoint)
        super().__init__(pb, sock, credit)
        self.container = container or os.urandom(16)
        self.function = function
        self.concurrency = concurrency
        if hello:
            self.hello()
            self.wait(lambda: self.welcomes, "WELCOME")

    def hello_message(self, **changes: Any) -> Any:
        hello = self.pb.Hello(
            version=VERSION, container=self.container, function=self.function,
            concurrency=self.concurrency, initial_credit=self.credit,
            status=self.status_message(self.concurrency))
        set_fields(hello, changes)
        return hello

    def status_message(self, free: int) -> Any:
        return self.pb.ContainerStatus(state=self.pb.ContainerStatus.READY, free_slots=free,
                                       in_flight=self.concurrency - free)

    def hello(self, **changes: Any) -> None:
        self.send(hello=self.hello_message(**changes))

    def next_call(self, seconds: float | None = None) -> Any:
        """The scope of the next call; what came before of other kinds is an error."""
        return self.next_event("http", seconds=seconds)

    def read_request(self, seconds: float | None = None) -> tuple[Any, bytes]:
        """A whole call that nothing else is mixed with: its scope and its body."""
        scope = self.next_call(seconds)
        body, more = b"", True
        while more:
            event = self.next_event("http_request", scope.call, seconds)
            body += event.http_request.body
            more = event.http_request.more_body
        return scope, body

    def start(self, call: int, status: int = 200, fields: Fields | None = None,
              trailers: bool = False, **more: Any) -> Any:
        return self.event(call, http_response_start=self.pb.HttpResponseStart(
            status=status, headers=self.headers(fields or []), trailers=trailers), **more)

    def body(self, call: int, data: bytes = b"", more_body: bool = False, **more: Any) -> Any:
        return self.event(call, http_response_body=self.pb.HttpBody(body=data, more_body=more_body),
                          **more)

    def failed(self, call: int, reason: str, text: str = "", untouched: bool = True) -> Any:
        return self.event(call, call_failed=self.pb.CallFailed(
            reason=self.pb.CallFailed.Reason.Value(reason), text=text, untouched=untouched))

    def answer(self, call: int, body: bytes = b"", status: int = 200,
               fields: Fields | None = None) -> None:
        """A whole answer."""
        self.send(self.start(call, status, fields), self.body(call, body))


def bind(sock: zmq.Socket, endpoint: str) -> bool:
    """ZeroMQ gives an address back some time after its socket was closed."""
    try:
        sock.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            return False
        raise
    return True


class ScriptedIngress(Link):
    """Binds, and plays the ingress for one shim."""

    def __init__(self, pb: ModuleType, credit: int = CREDIT, welcome: bool = True,
                 endpoint: str = "tcp://127.0.0.1:0") -> None:
        sock = zmq.Context.instance().socket(zmq.ROUTER)
        sock.sndhwm = 0  # credit bounds what waits; a full ROUTER would drop messages
        wait_until(lambda: bind(sock, endpoint), f"{endpoint} is free")
        self.endpoint = sock.getsockopt_string(zmq.LAST_ENDPOINT)
        self.epoch = os.urandom(16)
        self.welcomes_peers = welcome
        self.last_call = 0
        self.received_of: dict[bytes, int] = {}
        super().__init__(pb, sock, credit)

    def _strip(self, frames: list[bytes]) -> list[bytes]:
        if frames[0] != self.routing_id:
            # Who spoke last is who we talk to; what was received is counted for each.
            if self.routing_id is not None:
                self.received_of[self.routing_id] = self.received_bytes
            self.routing_id = frames[0]
            self.received_bytes = self.received_of.get(frames[0], 0)
        return frames[1:]

    def _wrap(self, frames: list[bytes]) -> list[bytes]:
        assert self.routing_id is not None, "nobody has come yet"
        return [self.routing_id, *frames]

    def _take(self, frames: list[bytes]) -> None:
        before = len(self.hellos)
        super()._take(frames)
        if len(self.hellos) > before and self.welcomes_peers:
            self.welcome()

    def welcome(self, **changes: Any) -> None:
        welcome = self.pb.Welcome(
            version=VERSION, ingress_epoch=self.epoch, initial_credit=self.credit,
            resume_token=b"t" * 32, ping_interval_ms=1000, silent_timeout_ms=10000,
            closed_timeout_ms=1000, message_bytes_max=2 << 20)
        set_fields(welcome, changes)
        self.send(welcome=welcome)

    def wait_hello(self, count: int = 1, seconds: float | None = None) -> Any:
        return self.wait(lambda: len(self.hellos) >= count and self.hellos[count - 1], "HELLO", seconds)

    def new_call(self) -> int:
        self.last_call += 1
        return self.last_call

    def scope(self, call: int, method: bytes = b"GET", target: bytes = b"/",
              fields: Fields | None = None, framing: str = "NONE", sequence: int | None = None,
              **more: Any) -> Any:
        return self.event(call, sequence, http=self.pb.HttpScope(
            http_version="1.1", method=method, target=target,
            headers=self.headers([(b"Host", b"example.test")] if fields is None else fields),
            framing=self.pb.HttpScope.Framing.Value(framing), **more))

    def request(self, call: int, data: bytes = b"", more_body: bool = False,
                sequence: int | None = None) -> Any:
        return self.event(call, sequence, http_request=self.pb.HttpRequest(
            body=data, more_body=more_body))

    def ask(self, target: bytes = b"/", **more: Any) -> int:
        """A whole request without a body; returns its number."""
        call = self.new_call()
        self.send(self.scope(call, target=target, **more), self.request(call))
        return call

    def read_answer(self, call: int, seconds: float | None = None) -> tuple[Any, bytes]:
        """A whole answer that nothing else is mixed with: its start and its body."""
        start = self.next_event("http_response_start", call, seconds)
        body, more = b"", True
        while more:
            event = self.next_event("http_response_body", call, seconds)
            body += event.http_response_body.body
            more = event.http_response_body.more_body
        return start.http_response_start, body

    def tell_done(self, *calls: int) -> None:
        self.send(done=list(calls))
