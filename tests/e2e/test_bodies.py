"""Bodies: by length and chunked, both ways, from none to beyond 4 GiB, never collected."""

from __future__ import annotations

import hashlib
import random
import threading
import time

import pytest

from harness import http
from harness.check import assert_answer
from harness.program import resident_bytes, resident_peak_bytes
from harness.server import serve, serve_heads

SIZES = [0, 1, 4095, 4096, 65536, 65537, 10 << 20]
CHUNKED = (b"Transfer-Encoding", b"chunked")
PIECE = bytes(range(256)) * 4096


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def pieces(data: bytes, seed: int = 1) -> list[bytes]:
    """Cut at random places: small ones first, then larger ones."""
    rng, out, at = random.Random(seed), [], 0
    while at < len(data):
        step = rng.randint(1, 50) if at < 500 else rng.randint(1, 200_000)
        out.append(data[at:at + step])
        at += step
    return out


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def summing(request: http.Request, _conn) -> bytes:
    return http.reply(body=b"%d %s" % (len(request.body), digest(request.body)))


@pytest.mark.parametrize("size", SIZES)
def test_upload_by_length(shared, size):
    shared.servers[0].script(serve(summing))
    data = content(size)
    answer = assert_answer(shared.ask("POST", body=data))
    assert answer.body == b"%d %s" % (size, digest(data))
    assert shared.servers[0].next_request().get("Content-Length") == b"%d" % size


@pytest.mark.parametrize("size", SIZES)
def test_upload_chunked(shared, size):
    shared.servers[0].script(serve(summing))
    data = content(size)
    client = shared.client()
    client.send(http.request("PUT", fields=[CHUNKED]) + http.chunked(*pieces(data)))
    answer = assert_answer(client.read_response())
    assert answer.body == b"%d %s" % (size, digest(data))
    assert shared.servers[0].next_request().get("Content-Length") is None


def test_upload_byte_by_byte(shared):
    shared.servers[0].script(serve(summing))
    client = shared.client()
    raw = http.request("POST", fields=[CHUNKED]) + http.chunked(b"abc", b"defgh")
    for at in range(len(raw)):
        client.send(raw[at:at + 1])
    assert client.read_response().body == b"8 " + digest(b"abcdefgh")


def test_chunk_extensions_are_skipped(shared):
    shared.servers[0].script(serve(summing))
    client = shared.client()
    client.send(http.request("POST", fields=[CHUNKED]) + b"3;a=b\r\nabc\r\n0;c=\"d\"\r\n\r\n")
    assert client.read_response().body == b"3 " + digest(b"abc")


@pytest.mark.parametrize("size", SIZES)
def test_download_by_length(shared, size):
    data = content(size)
    shared.servers[0].script(serve(lambda request, conn: http.reply(body=data)))
    answer = assert_answer(shared.ask())
    assert answer.content_length == size
    assert digest(answer.body) == digest(data)


@pytest.mark.parametrize("size", SIZES)
def test_download_chunked(shared, size):
    data = content(size)
    shared.servers[0].script(serve(lambda request, conn: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + http.chunked(*pieces(data)))))
    client = shared.client()
    for _ in range(2):
        answer = assert_answer(client.ask())
        assert digest(answer.body) == digest(data)


@pytest.mark.parametrize("size", SIZES)
def test_both_at_once(shared, size):
    """The server sends back what comes while it comes."""

    def echo(request: http.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in conn.body_pieces(request):
            conn.send(http.chunk(piece))
        conn.send(b"0\r\n\r\n")

    shared.servers[0].script(serve_heads(echo))
    data = content(size)
    client = shared.client()
    sender = threading.Thread(
        target=client.send, args=(http.request("POST", body=data), 30), daemon=True)
    sender.start()
    answer = client.read_response(seconds=30)
    sender.join()
    assert digest(answer.body) == digest(data)


@pytest.mark.parametrize("head", [
    b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\nContent-Length: 77\r\nX-A: b\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nX-A: b\r\n\r\n",
])
def test_statuses_without_a_body(shared, head):
    shared.servers[0].script(serve(lambda request, conn: head))
    client = shared.client()
    for _ in range(2):
        answer = client.ask()
        assert answer.raw_head.startswith(head[:12])
        assert answer.get("X-A") == b"b"
        assert answer.get("ETag") == (b"\"e\"" if b"ETag" in head else None)
        assert not client.buffer
    if answer.status == 204:
        assert answer.content_length is None and not answer.chunked
    elif b"77" in head:
        assert answer.content_length == 77


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_head_keeps_the_connection_in_step(shared, framing):
    def answer_of(request: http.Request, _conn) -> bytes:
        if request.method == b"HEAD":
            return b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n"
        return http.reply(body=b"after")

    shared.servers[0].script(serve(answer_of))
    client = shared.client()
    assert client.ask("HEAD").status == 200
    assert client.ask("GET").body == b"after"


def test_other_statuses_pass_with_their_bodies(shared):
    for status in (200, 201, 206, 301, 404, 418, 451, 500, 503, 599):
        shared.servers[0].script(serve(
            lambda request, conn, status=status: http.reply(status, body=b"mine", reason=b"Mine")))
        shared.servers[0].drop_connections()
        answer = assert_answer(shared.ask(), status)
        assert answer.body == b"mine"


MORE_THAN_4_GIB = (4 << 30) + 12345


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_upload_beyond_4_gib(pair, server):
    def count(request: http.Request, conn) -> bytes:
        total = sum(len(piece) for piece in conn.body_pieces(request, 60))
        return http.reply(body=b"%d" % total)

    server.script(serve_heads(count))
    client = pair.client()
    client.send(http.request("POST", fields=[(b"Content-Length", b"%d" % MORE_THAN_4_GIB)]))
    left = MORE_THAN_4_GIB
    while left:
        client.send(PIECE[:min(left, len(PIECE))], 60)
        left -= min(left, len(PIECE))
    assert client.read_response(seconds=60).body == b"%d" % MORE_THAN_4_GIB


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_download_beyond_4_gib(pair, server):
    def send(_request: http.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MORE_THAN_4_GIB)
        left = MORE_THAN_4_GIB
        while left:
            conn.send(PIECE[:min(left, len(PIECE))], 60)
            left -= min(left, len(PIECE))

    server.script(serve(send))
    client = pair.client()
    client.send(http.request())
    head = client.read_final_head()
    assert head.content_length == MORE_THAN_4_GIB
    assert client.feed_body(head, lambda piece: None, 60) == MORE_THAN_4_GIB


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_large_body_is_not_collected(pair, server, direction):
    """256 MiB go through; neither program grows by the half of it."""
    size, piece = 256 << 20, b"x" * (1 << 20)

    def handle(request: http.Request, conn) -> bytes | None:
        total = sum(len(part) for part in conn.body_pieces(request, 30))
        if direction == "up":
            return http.reply(body=b"%d" % total)
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)):
            conn.send(piece, 30)
        return None

    server.script(serve_heads(handle))
    before = [resident_bytes(program.pid) for program in (pair.ingress, pair.shim)]
    client = pair.client()
    if direction == "up":
        client.send(http.request("POST", fields=[(b"Content-Length", b"%d" % size)]))
        for _ in range(size // len(piece)):
            client.send(piece, 30)
        assert client.read_response(seconds=30).body == b"%d" % size
    else:
        client.send(http.request())
        head = client.read_final_head()
        assert client.feed_body(head, lambda part: None, 30) == size
    after = [resident_bytes(program.pid) for program in (pair.ingress, pair.shim)]
    for name, low, high in zip(("ingress", "shim"), before, after):
        assert high - low < size // 2, f"{name} grew from {low} to {high}"


MEMORY_BYTES_MAX = 64 << 20
SLOW_S = 10.0


class Dawdler:
    """Takes a body fast, so that windows widen; then slowly for a while; then fast again."""

    def __init__(self) -> None:
        self.total = 0
        self.slow_until: float | None = None

    def take(self, piece: bytes) -> None:
        self.total += len(piece)
        if self.total < 64 << 20:
            return
        if self.slow_until is None:
            self.slow_until = time.monotonic() + SLOW_S
        if time.monotonic() < self.slow_until:
            threading.Event().wait(0.1)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_gib_with_a_slow_reader_takes_little_memory(pair, server, direction):
    size, reader = 1 << 30, Dawdler()

    def handle(request: http.Request, conn) -> bytes | None:
        for piece in conn.body_pieces(request, 60):
            reader.take(piece)
        if direction == "up":
            return http.reply(body=b"%d" % reader.total)
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(PIECE)):
            conn.send(PIECE, 60)
        return None

    server.script(serve_heads(handle))
    client = pair.client()
    if direction == "up":
        client.send(http.request("POST", fields=[(b"Content-Length", b"%d" % size)]))
        for _ in range(size // len(PIECE)):
            client.send(PIECE, 60)
        assert client.read_response(seconds=60).body == b"%d" % size
    else:
        client.send(http.request())
        assert client.feed_body(client.read_final_head(), reader.take, 60) == size
    assert reader.slow_until is not None and time.monotonic() > reader.slow_until
    for program in (pair.ingress, pair.shim):
        assert resident_peak_bytes(program.pid) < MEMORY_BYTES_MAX, program.name
