"""Bytes held for one byte sent, at every door: under 50, whoever sends.

What a connection, a call or a link takes by itself is bounded by their number and is not looked
at here, as far as it is there before the bytes are sent.  `bench/amplification/run` prints the
table that is in docs/security.md."""

from __future__ import annotations

import socket
import threading
from typing import Iterator

import pytest

from harness import http, settings, websocket
from harness.deadline import wait_until
from harness.holding import (
    Held, Meter, connections_to, unread_bytes, wait_read, wait_still)
from harness.server import serve_heads
from harness.stack import SANITIZED, Stack
from harness.wire import Link

RATIO_MAX = 50
KIB = 1024
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = POST + b"Content-Length: 1000000\r\n\r\n"
TINY_FIELDS = b"a:\r\n" * 120

pytestmark = pytest.mark.skipif(SANITIZED, reason="sanitizers' own memory would be measured")


def judge(door: str, sent: int, *meters: Meter) -> None:
    for meter in meters:
        held = Held(door, meter.program.name, sent, meter.held())
        print(f"\n{held}")
        assert held.ratio < RATIO_MAX, str(held)


def parked(stack: Stack, server, slots: int = 1) -> Stack:
    """The one slot of the one container is taken: every other call waits in the ingress."""
    release = server.gate()
    server.script(serve_heads(lambda request, conn: release.wait(60) and None))
    stack.pair(server, shim_flags=settings.concurrency(slots))
    stack.client().send(http.request())
    server.next_request()
    return stack


class Silent:
    """A server that never accepts: whoever connects now is answered by the kernel, and once it is
    full, by nobody."""

    path = None

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self.port = self.listener.getsockname()[1]
        self.taken: list[socket.socket] = []

    def fill(self) -> None:
        for _ in range(8):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self.port))
            self.taken.append(sock)

    def close(self) -> None:
        for sock in [*self.taken, self.listener]:
            sock.close()


@pytest.fixture
def silent(stack) -> Iterator[Silent]:
    server = Silent()
    try:
        yield server
    finally:
        server.close()


def clients(stack: Stack, count: int, first: bytes = b"") -> list:
    made = [stack.client() for _ in range(count)]
    for client in made:
        client.send(first or b"P")
    wait_read(stack.ingress.port)
    return made


def rounds(stack: Stack, made: list, pieces: list[bytes]) -> int:
    """Each piece on every connection, read before the next one is sent: the loop that answers has
    looked at all that came before."""
    with stack.client() as marker:
        for piece in pieces:
            for client in made:
                client.send(piece)
            marker.ask(target="/.porthole/readyz")
    wait_read(stack.ingress.port)
    return len(made) * sum(map(len, pieces))


# ---- what is there before the bytes are counted

def by_itself(what: str, meter: Meter, count: int, bytes_max: int) -> None:
    each = meter.held() / count
    print(f"\n= | {what} | {each:,.0f} |")
    assert each < bytes_max, (what, each)


def test_what_each_takes_by_itself(stack, server):
    """Bounded by connections_max, by queue_calls_max and by concurrency."""
    count = 200
    release = server.gate()
    server.script(serve_heads(lambda request, conn: release.wait(60) and None))
    stack.pair(server, shim_flags=settings.concurrency(count))
    meter = Meter(stack.ingress)
    running = clients(stack, count)
    by_itself("ingress: a client's connection that has sent a byte", meter, count, 16 * KIB)
    meters = [Meter(stack.ingress), Meter(stack.shim)]
    rounds(stack, running, [b"OST / HTTP/1.1\r\nHost: a\r\n\r\n"])
    for _ in running:
        server.next_request()
    by_itself("ingress: a call that runs, beside its connection", meters[0], count, 16 * KIB)
    by_itself("shim: a call that runs, with its connection to the server", meters[1], count, 16 * KIB)
    waiting = clients(stack, count)
    meter = Meter(stack.ingress)
    rounds(stack, waiting, [b"OST / HTTP/1.1\r\nHost: a\r\n\r\n"])
    by_itself("ingress: a call that waits, beside its connection", meter, count, 16 * KIB)


# ---- clients: heads

HEADS = {
    "request head, one field": [b"OST / HTTP/1.1\r\nHost: a\r\nX: "] + [b"x" * 1000] * 15,
    "request head, 120 fields of 4 bytes": [b"OST / HTTP/1.1\r\nHost: a\r\n"] + [b"a:\r\n" * 10] * 12,
    "request head, byte by byte": [bytes([byte]) for byte in (POST + b"X: " + b"x" * 200)[1:]],
}


@pytest.mark.parametrize("door", HEADS)
def test_unfinished_heads(stack, door):
    stack.ingress = stack.start_ingress()
    made = clients(stack, 200)
    meter = Meter(stack.ingress)
    judge(door, rounds(stack, made, HEADS[door]), meter)


def test_whole_heads_that_wait(stack, server):
    parked(stack, server)
    made = clients(stack, 200)
    meter = Meter(stack.ingress)
    sent = rounds(stack, made, [b"OST / HTTP/1.1\r\nHost: a\r\n" + TINY_FIELDS + b"\r\n"])
    judge("whole requests that wait, 120 fields", sent, meter)


# ---- clients: bodies

BODIES = {
    "chunk extensions of 4,000 bytes": (CHUNKED, [b"1;" + b"x" * 4000 + b"\r\ny\r\n"] * 20),
    "chunks of 1 byte, together": (CHUNKED, [b"1\r\ny\r\n" * 500] * 10),
    "chunks of 1 byte, each by itself": (CHUNKED, [b"1\r\ny\r\n"] * 300),
    "a body by length, each byte by itself": (LENGTH, [b"y"] * 300),
    "trailers, 120 fields of 4 bytes": (CHUNKED + b"0\r\n", [b"a:\r\n" * 10] * 12),
}


@pytest.mark.parametrize("door", BODIES)
def test_bodies_that_wait_for_a_container(stack, server, door):
    parked(stack, server)
    first, pieces = BODIES[door]
    made = clients(stack, 50, first)
    meter = Meter(stack.ingress)
    judge(f"{door}, waiting", rounds(stack, made, pieces), meter)


@pytest.mark.parametrize("door", BODIES)
def test_bodies_that_the_server_does_not_take(stack, silent, door):
    stack.pair(silent)
    silent.fill()
    first, pieces = BODIES[door]
    others = connections_to(silent.port)
    made = clients(stack, 50, first)
    # What a call takes by itself is there then.
    wait_until(lambda: connections_to(silent.port) == others + len(made), "all are with the shim")
    meters = [Meter(stack.ingress), Meter(stack.shim)]
    judge(f"{door}, the server takes none", rounds(stack, made, pieces), *meters)


# ---- clients: WebSockets

MESSAGES = {
    "WebSocket messages of 1 byte, each by itself": [websocket.frame(websocket.BINARY, b"x")] * 300,
    "WebSocket messages of no byte, each by itself": [websocket.frame(websocket.BINARY)] * 300,
    "WebSocket messages of no byte, together": [websocket.frame(websocket.BINARY) * 100] * 10,
    "a WebSocket message in fragments of 1 byte": [websocket.frame(websocket.BINARY, b"x", fin=False)]
    + [websocket.frame(websocket.CONTINUATION, b"x", fin=False)] * 300,
    "pings of a WebSocket": [websocket.frame(websocket.PING, b"x" * 100)] * 100,
}


@pytest.mark.parametrize("door", MESSAGES)
def test_websockets_whose_shim_takes_nothing(stack, pb, door):
    """It acknowledges nothing, and gives a first window of credit."""
    stack.ingress = stack.start_ingress()
    shim = stack.scripted_shim(pb, credit=32 * KIB)
    shim.acknowledges = False
    made = [stack.client() for _ in range(50)]
    for client in made:
        client.send(websocket.handshake())
        call = shim.next_event("websocket").call
        shim.next_event("websocket_connect", call)
        shim.send(shim.event(call, websocket_accept=shim.pb.WebsocketAccept()))
        assert client.read_head().status == 101
    wait_still([stack.ingress], [])
    meter, sent = Meter(stack.ingress), 0
    with stack.client() as marker:
        for piece in MESSAGES[door]:
            for client in made:
                client.send(piece)
                sent += len(piece)
            marker.ask(target="/.porthole/readyz")
    wait_still([stack.ingress], [stack.ingress.port])
    judge(f"{door}, the shim takes none", sent - unread_bytes(stack.ingress.port), meter)


# ---- servers

HEAD = b"HTTP/1.1 200 OK\r\n"
INTERIM = b"HTTP/1.1 103 X\r\na: b\r\n\r\n"
# What is there before it is looked at: an answer that streams has a buffer in the ingress.
ANSWERS = {
    "response head, one field": (HEAD, [b"X: "] + [b"x" * 1000] * 15),
    "response head, 250 fields of 4 bytes": (HEAD, [b"a:\r\n" * 25] * 10),
    "response head, byte by byte": (HEAD, [b"X", b":"] + [b"x"] * 250),
    "response trailers, 250 fields of 4 bytes": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", [b"a:\r\n" * 25] * 10),
    "response by length, each byte by itself": (HEAD + b"Content-Length: 1000\r\n\r\n", [b"x"] * 300),
    "response chunks of 1 byte, each by itself": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", [b"1\r\nx\r\n"] * 300),
    "interim answers of 25 bytes": (INTERIM, [INTERIM * 20] * 20),
}


@pytest.mark.parametrize("door", ANSWERS)
def test_answers(stack, server, door):
    """Each piece is written when the shim has read the one before."""
    first, pieces = ANSWERS[door]
    release, count = server.gate(), 50
    begun, held = threading.Barrier(count + 1), []

    def begin(request: http.Request, conn) -> bytes | None:
        if request.target == b"/marker":
            return http.reply()
        held.append(conn)
        conn.send(first)
        begun.wait(20)
        assert release.wait(60)
        conn.close()
        return None

    server.script(serve_heads(begin))
    stack.pair(server)
    clients(stack, count, http.request(fields=[(b"TE", b"trailers")]))
    begun.wait(20)
    wait_still([stack.ingress, stack.shim], [])
    meters, sent = [Meter(stack.ingress), Meter(stack.shim)], 0
    with stack.client() as marker:
        for piece in pieces:
            for conn in held:
                conn.send(piece)
                sent += len(piece)
            assert marker.ask(target="/marker").status == 200
    wait_still([stack.ingress, stack.shim], [])
    judge(door, sent, *meters)


# ---- the other end of a link

# Pieces of a Batch that take more memory than bytes, as many as 600 KiB hold.
BATCHES = {
    "a batch of empty events": b"\x0a\x00",
    "a batch of events that hold an empty body": b"\x0a\x03\xb2\x01\x00",
    "a batch of scopes with one empty header": b"\x0a\x04\x1a\x02\x32\x00",
    "a batch of empty states": b"\x12\x00",
    "a batch of one-byte numbers": b"\x20\x01",
    "a batch of unknown fields": b"\xf8\x01\x00",
    "a batch of unknown fields, one byte of tag": b"\x7a\x00",
}


def one_event(inner: bytes) -> bytes:
    return b"\x0a" + varint(len(inner)) + inner


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def scope_of_headers(size: int) -> bytes:
    headers = b"\x32\x00" * (size // 2)
    return one_event(b"\x1a" + varint(len(headers)) + headers)


FRAMES = {
    **{door: [piece * (600 * KIB // len(piece))] for door, piece in BATCHES.items()},
    "an event of empty headers": [scope_of_headers(600 * KIB)],
    "garbage": [b"\xff" * (600 * KIB)],
    "10,000 empty frames": [b"\x3a\x00"] + [b""] * 10_000,
    "100,000 empty frames": [b"\x3a\x00"] + [b""] * 100_000,
}


def wire_bytes(frames: list[bytes]) -> int:
    """With ZMTP's two bytes before each frame, nine before a large one."""
    return sum(len(frame) + (2 if len(frame) < 256 else 9) for frame in frames)


def send_hostile(link: Link, frames: list[bytes]) -> None:
    """Until it was judged: it is malformed, or harms nobody and the ping behind it is answered."""
    link.send_raw(frames)
    link.send(ping=link.pb.Ping(id=99))
    link.wait(lambda: link.goodbyes or link.ponged == 99, "goodbye or pong", 20)


@pytest.mark.parametrize("door", FRAMES)
def test_a_hostile_shim(stack, pb, door):
    stack.ingress = stack.start_ingress()
    shim = stack.scripted_shim(pb)
    shim.round_trip()
    meter = Meter(stack.ingress)
    send_hostile(shim, FRAMES[door])
    judge(f"{door}, from a shim", wire_bytes(FRAMES[door]), meter)


@pytest.mark.parametrize("door", FRAMES)
def test_a_hostile_ingress(stack, server, pb, door):
    peer = stack.scripted_ingress(pb)
    shim = stack.start_shim(peer.endpoint, server=server)
    peer.round_trip()
    meter = Meter(shim)
    send_hostile(peer, FRAMES[door])
    judge(f"{door}, from an ingress", wire_bytes(FRAMES[door]), meter)
