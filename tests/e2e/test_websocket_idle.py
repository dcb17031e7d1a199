"""Idle WebSockets: they take little memory, and cost other requests nothing.

bench/idle measures the same with 10,000 of them; the bounds here are wide enough for a machine that
does other things meanwhile, and narrow enough that one stream of zlib for each, or one look at
every WebSocket for each request, does not pass."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from harness import http, settings
from harness.park import ParkServer, need_descriptors
from harness.peer import Peer
from harness.program import resident_bytes, run_time_us
from harness.stack import SANITIZED, Stack
from harness.websocket import (FIN, RSV1, TEXT, accept_of, deflate, frame, handshake, inflate,
                               read_frame, switch, xor)

SOCKETS = 2000
KIB = 1024
SOCKET_BYTES_MAX = 12 * KIB
BATCHES, REQUESTS = 10, 200
CPU_FACTOR_MAX = 1.35
WARM_REQUESTS = 300
TEXT_BYTES = b'{"id": 17, "user": "somebody", "side": "buy"},' * 20
OFFER = [(b"Sec-WebSocket-Extensions", b"permessage-deflate; client_max_window_bits")]
pytestmark = pytest.mark.slow


class EchoServer(ParkServer):
    """Messages come back as they came, if each comes whole in one read."""

    def _take(self, sock: socket.socket, data: bytes) -> None:
        if b"\r\nUpgrade: websocket\r\n" in data:
            sock.sendall(switch(http.parse_request_head(data)))
        elif data.startswith(b"GET "):
            super()._take(sock, data)
        elif data[:2] == bytes([FIN | TEXT, 0x80 | 126]) and data[2:4] == b"%c%c" % (
                len(TEXT_BYTES) >> 8, len(TEXT_BYTES) & 255) and len(data) == 8 + len(TEXT_BYTES):
            sock.sendall(frame(TEXT, xor(data[8:], data[4:8]), mask=None))
        else:
            self.errors.append(f"not one frame: {data[:50]!r}")


@pytest.fixture
def pair(stack: Stack, tmp_path: Path) -> Stack:
    need_descriptors(2 * SOCKETS + 1000)
    config = tmp_path / "ingress.json"
    config.write_text(json.dumps({"functions": {"default": {"max_concurrency": 65535}}}))
    server = EchoServer()
    stack.servers.append(server)
    stack.pair(server, ["--config", str(config), "--access-log", "off"],
               settings.concurrency(65535))
    return stack


def ask_many(stack: Stack, count: int) -> None:
    with stack.client() as client:
        for _ in range(count):
            assert client.ask(target=b"/small").body == b"hello"


def cpu_us(stack: Stack) -> float:
    """Of a request, of both programs: the least of some batches."""
    pids = stack.ingress.pid, stack.shim.pid
    costs = []
    for _ in range(BATCHES):
        before = sum(map(run_time_us, pids))
        ask_many(stack, REQUESTS)
        costs.append((sum(map(run_time_us, pids)) - before) / REQUESTS)
    return min(costs)


def sizes(stack: Stack) -> tuple[int, int]:
    return resident_bytes(stack.ingress.pid), resident_bytes(stack.shim.pid)


def open_idle(stack: Stack) -> list[Peer]:
    """Each has agreed on compression, sent one message and has it back."""
    clients = []
    for _ in range(SOCKETS):
        client = stack.client()
        client.send(handshake(fields=OFFER))
        answer = client.read_head()
        assert answer.status == 101 and answer.get("Sec-WebSocket-Accept") == accept_of(
            b"dGhlIHNhbXBsZSBub25jZQ=="), answer.raw_head
        assert answer.get("Sec-WebSocket-Extensions").startswith(b"permessage-deflate")
        echo(client)
        clients.append(client)
    return clients


def echo(client: Peer) -> None:
    client.send(frame(TEXT, deflate(TEXT_BYTES), rsv=RSV1))
    got = read_frame(client)
    assert (got.opcode, got.fin, got.rsv) == (TEXT, True, RSV1), got
    assert inflate(got.payload) == TEXT_BYTES


def test_idle_websockets_take_little_memory_and_cost_others_nothing(pair: Stack) -> None:
    ask_many(pair, WARM_REQUESTS)
    alone_us, before = cpu_us(pair), sizes(pair)
    clients = open_idle(pair)
    each = [(b - a) / SOCKETS for a, b in zip(before, sizes(pair))]
    beside_us = cpu_us(pair)
    print(f"{alone_us:.1f} µs a request, {beside_us:.1f} beside {SOCKETS} idle WebSockets; "
          f"ingress {each[0] / KIB:.1f} KiB, shim {each[1] / KIB:.1f} KiB each")
    assert beside_us <= CPU_FACTOR_MAX * alone_us, (alone_us, beside_us)
    # A sanitizer's allocations have red zones, and what is freed stays for a while.
    if not SANITIZED:
        assert max(each) <= SOCKET_BYTES_MAX, each
    for client in clients[::100]:
        echo(client)
