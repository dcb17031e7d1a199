"""Backpressure: who does not read stops who writes, and nobody else."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest

from harness import http
from harness.check import assert_answer
from harness.program import resident_bytes
from harness.server import serve, serve_heads

# Two windows of 16 MiB and the sockets' buffers are what may be on the way.
ON_THE_WAY_MAX = 64 << 20
BODY = 256 << 20
BLOCK = bytes(range(256)) * 4096
FAST_S = 1.0


def expected_digest(size: int) -> str:
    digest, left = hashlib.sha256(), size
    while left:
        digest.update(BLOCK[:min(left, len(BLOCK))])
        left -= min(left, len(BLOCK))
    return digest.hexdigest()


def send_rest(peer, sent: int, size: int) -> None:
    while sent < size:
        piece = BLOCK[sent % len(BLOCK):][:size - sent]
        peer.send(piece, 30)
        sent += len(piece)


def assert_others_are_fast(stack) -> None:
    for _ in range(5):
        start = time.monotonic()
        assert assert_answer(stack.ask(target="/other")).body == b"other"
        assert time.monotonic() - start < FAST_S


def test_a_client_that_stops_reading_stops_the_server(pair, server):
    blocked, resume = threading.Event(), server.gate()
    sent: list[int] = []

    def send(request: http.Request, conn) -> bytes | None:
        if request.target == b"/other":
            return http.reply(body=b"other")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY)
        sent.append(conn.send_until_blocked(BLOCK, BODY))
        blocked.set()
        assert resume.wait(30)
        send_rest(conn, sent[0], BODY)
        return None

    server.script(serve(send))
    client = pair.client()
    client.send(http.request())
    assert blocked.wait(30), "the server never stopped"
    assert sent[0] < ON_THE_WAY_MAX
    assert_others_are_fast(pair)
    for program in (pair.ingress, pair.shim):
        assert resident_bytes(program.pid) < 512 << 20
    resume.set()
    head, digest = client.read_final_head(), hashlib.sha256()
    assert client.feed_body(head, digest.update, 30) == BODY
    assert digest.hexdigest() == expected_digest(BODY)


def test_a_server_that_stops_reading_stops_the_client(pair, server):
    resume = server.gate()

    def take(request: http.Request, conn) -> bytes:
        if request.target == b"/other":
            return http.reply(body=b"other")
        assert resume.wait(30)
        digest = hashlib.sha256()
        for piece in conn.body_pieces(request, 30):
            digest.update(piece)
        return http.reply(body=digest.hexdigest().encode())

    server.script(serve_heads(take))
    client = pair.client()
    client.send(http.request("POST", fields=[(b"Content-Length", b"%d" % BODY)]))
    sent = client.send_until_blocked(BLOCK, BODY)
    assert sent < ON_THE_WAY_MAX
    assert_others_are_fast(pair)
    resume.set()
    send_rest(client, sent, BODY)
    assert client.read_response(seconds=30).body.decode() == expected_digest(BODY)


@pytest.mark.parametrize("stalled", [20])
def test_many_stalled_readers_leave_others_alone(pair, server, stalled):
    def send(request: http.Request, conn) -> bytes | None:
        if request.target == b"/other":
            return http.reply(body=b"other")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY)
        conn.send_until_blocked(BLOCK, 32 << 20, 0.3)
        conn.wait_left(30)
        return None

    server.script(serve(send))
    clients = [pair.client() for _ in range(stalled)]
    for client in clients:
        client.send(http.request())
    for client in clients:
        assert_answer(client.read_final_head())
    assert_others_are_fast(pair)
    for client in clients:
        client.reset()
    for conn in list(server.connections):
        if b"/other" not in conn.seen:
            assert conn.finished.wait(10)
