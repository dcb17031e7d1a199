"""Interim answers: 1xx in their order before the answer, and Expect: 100-continue end to end."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from harness import http, settings
from harness.check import assert_answer, assert_error
from harness.program import resident_bytes
from harness.server import serve, serve_heads

EXPECT = (b"Expect", b"100-continue")
CONTINUE = b"HTTP/1.1 100 Continue\r\nX-Said-By: server\r\n\r\n"
# What the ingress waits for the server's word.
SILENCE_S = 1.0


def expecting(method: str = "POST", length: int = 3, **more) -> bytes:
    return http.request(method, fields=[EXPECT, (b"Content-Length", b"%d" % length)], **more)


def polite(request: http.Request, conn) -> bytes:
    """Says 100 where it is expected."""
    if request.get("Expect"):
        conn.send(CONTINUE)
    return http.reply(body=b"".join(conn.body_pieces(request)))


# ---- 1xx before the answer

@pytest.mark.parametrize("status", [102, 103, 150, 199])
def test_any_1xx_reaches_the_client_before_the_answer_is_written(shared, status):
    release = shared.servers[0].gate()

    def hint(_request: http.Request, conn) -> bytes:
        conn.send(b"HTTP/1.1 %d Some\r\nX-A: b\r\nX-A: c\r\nConnection: x\r\nX: y\r\n\r\n" % status)
        assert release.wait(20)
        return http.reply(body=b"page")

    shared.servers[0].script(serve(hint))
    client = shared.client()
    client.send(http.request())
    early = client.read_head()
    assert (early.status, early.all("X-A")) == (status, [b"b", b"c"])
    assert not early.all("X") and not early.all("Connection")
    release.set()
    assert client.read_response().body == b"page"


def test_interim_answers_keep_their_order(shared):
    statuses = [103, 102, 103, 103, 199, 102]
    shared.servers[0].script(serve(lambda request, conn: b"".join(
        b"HTTP/1.1 %d X\r\nX-Number: %d\r\n\r\n" % (status, number)
        for number, status in enumerate(statuses)) + http.reply(body=b"page")))
    client = shared.client()
    for _ in range(3):
        answer = assert_answer(client.ask())
        assert [head.status for head in answer.interim] == statuses
        assert [head.get("X-Number") for head in answer.interim] == [
            b"%d" % number for number in range(len(statuses))]


@pytest.mark.parametrize("fields", [[], [(b"Connection", b"keep-alive")]], ids=["close", "keep-alive"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_http_1_0_client_gets_none(shared, method, fields):
    """RFC 9110 section 15.2; also when all of it is one write."""
    shared.servers[0].script(serve(lambda request, conn: (
        b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 199 X\r\n\r\n" + http.reply(body=b"page"))))
    client = shared.client()
    for _ in range(2 if fields else 1):
        client.send(http.request(method, fields=fields, version=b"HTTP/1.0",
                                 body=b"abc" if method == "POST" else None))
        answer = assert_answer(client.read_response())
        assert (answer.interim, answer.body) == ([], b"page")


def test_interim_answers_in_the_middle_of_an_upload(shared):
    """Each hint is of the piece before it."""

    def hint(request: http.Request, conn) -> bytes:
        for piece in conn.body_pieces(request):
            conn.send(b"HTTP/1.1 103 Early Hints\r\nX-Piece: " + piece + b"\r\n\r\n")
        return http.reply(body=b"all")

    shared.servers[0].script(serve_heads(hint))
    client = shared.client()
    client.send(http.request("POST", fields=[(b"Transfer-Encoding", b"chunked")]))
    for number in range(20):
        client.send(http.chunk(b"%d" % number))
        assert client.read_head().get("X-Piece") == b"%d" % number
    client.send(b"0\r\n\r\n")
    assert client.read_response().body == b"all"


def hints(count: int) -> bytes:
    return b"".join(b"HTTP/1.1 103 Early Hints\r\nX-Number: %06d\r\nX-Filling: %s\r\n\r\n"
                    % (number, b"x" * 1000) for number in range(count))


def test_interim_answers_to_a_client_that_does_not_read_wait_for_it(pair, server):
    """They stop the server, and all arrive when the client reads."""
    count = 24_000
    data, blocked, resume = hints(count), threading.Event(), server.gate()

    def flood(request: http.Request, conn) -> bytes:
        if request.target == b"/other":
            return http.reply(body=b"other")
        sent = conn.send_until_blocked(data, len(data), 0.5)
        conn.server.sent = sent
        blocked.set()
        assert resume.wait(30)
        conn.send(data[sent:], 30)
        return http.reply(body=b"page")

    server.script(serve(flood))
    client = pair.client()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.send(http.request())
    assert blocked.wait(30)
    assert server.sent < len(data), "nothing stopped the server"
    assert resident_bytes(pair.ingress.pid) < 256 << 20
    assert pair.ask(target="/other").body == b"other"
    resume.set()
    answer = assert_answer(client.read_response(seconds=30))
    assert answer.body == b"page"
    assert [head.get("X-Number") for head in answer.interim] == [b"%06d" % n for n in range(count)]


def test_a_client_that_takes_no_interim_answer_is_ended(stack, server):
    data = hints(24_000)

    def flood(_request: http.Request, conn) -> None:
        conn.send_until_blocked(data, len(data), 60)

    server.script(serve(flood))
    stack.pair(server, settings.client_stall(400))
    client = stack.client()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.send(http.request())
    stack.ingress.wait_log("client_stalled", 20)
    assert server.wait_connection().finished.wait(10)


# ---- Expect: 100-continue

def test_the_100_is_the_servers(shared):
    """Nothing of the body crosses before it."""
    release = shared.servers[0].gate()

    def later(request: http.Request, conn) -> bytes:
        assert release.wait(20)
        return polite(request, conn)

    shared.servers[0].script(serve_heads(later))
    client = shared.client()
    client.send(expecting())
    assert shared.servers[0].next_request().get("Expect") == b"100-continue"
    release.set()
    interim = client.read_head()
    assert (interim.status, interim.get("X-Said-By")) == (100, b"server")
    client.send(b"abc")
    answer = assert_answer(client.read_response())
    assert (answer.body, answer.interim) == (b"abc", [])
    assert client.ask().status == 200


def test_a_chunked_body_waits_for_100_too(shared):
    shared.servers[0].script(serve_heads(polite))
    client = shared.client()
    for body in (b"abc", b"defg"):
        client.send(http.request("POST", fields=[EXPECT, (b"Transfer-Encoding", b"chunked")]))
        assert client.read_head().get("X-Said-By") == b"server"
        client.send(http.chunked(body))
        answer = assert_answer(client.read_response())
        assert (answer.body, answer.interim) == (body, [])


def test_after_a_second_of_silence_the_ingress_says_100(shared):
    """The server's own, later, does not go on: the client has had one."""

    def silent(request: http.Request, conn) -> bytes:
        body = b"".join(conn.body_pieces(request))
        conn.send(CONTINUE)
        return http.reply(body=body)

    shared.servers[0].script(serve_heads(silent))
    client = shared.client()
    start = time.monotonic()
    client.send(expecting())
    interim = client.read_head()
    took = time.monotonic() - start
    assert interim.raw_head == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert took >= SILENCE_S - 0.05, f"said after {took:.2f} s"
    assert shared.servers[0].wait_connection().seen.endswith(b"\r\n\r\n")
    client.send(b"abc")
    answer = assert_answer(client.read_response())
    assert (answer.body, answer.interim) == (b"abc", [])


@pytest.mark.parametrize("status", [401, 413, 417])
@pytest.mark.parametrize("closes", [True, False], ids=["closes", "keeps"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_refusal_comes_without_the_body_having_crossed(shared, status, closes, framing):
    fields = [(b"Connection", b"close")] if closes else []

    def refuse(_request: http.Request, conn) -> None:
        conn.send(http.reply(status, body=b"no", reason=b"No", fields=fields))
        if closes:
            conn.close()

    shared.servers[0].script(serve_heads(refuse))
    client = shared.client()
    start = time.monotonic()
    client.send(expecting(length=1 << 30) if framing == "length" else
                http.request("POST", fields=[EXPECT, (b"Transfer-Encoding", b"chunked")]))
    answer = assert_answer(client.read_response(), status)
    assert time.monotonic() - start < SILENCE_S
    assert (answer.body, answer.interim) == (b"no", [])
    # Whether the body follows cannot be known: the connection ends.
    assert answer.has_token("Connection", b"close")
    assert client.expect_closed() == b""
    assert shared.servers[0].wait_connection().seen.endswith(b"\r\n\r\n")


def test_a_body_over_the_limit_is_refused_before_it_is_sent(stack, server):
    stack.pair(server, settings.body_bytes(1000))
    client = stack.client()
    client.send(expecting(length=1001))
    answer = assert_error(client.read_response(), 413, "body_too_large")
    assert answer.interim == []
    assert not server.connections


def test_a_client_that_does_not_wait_is_not_told_to_go_on(shared):
    """Not the server's word for it, nor ours when the server takes its time."""
    release = shared.servers[0].gate()

    def slow(request: http.Request, conn) -> bytes:
        if request.target == b"/silent":
            return http.reply(body=b"".join(conn.body_pieces(request)))
        answer = polite(request, conn)
        assert release.wait(20)
        return answer

    shared.servers[0].script(serve_heads(slow))
    hasty, patient = shared.client(), shared.client()
    hasty.send(expecting() + b"abc")
    # More than the second has passed when this one is told.
    patient.send(expecting(target=b"/silent"))
    assert patient.read_head().status == 100
    assert hasty.sock_peek() == b""
    release.set()
    answer = assert_answer(hasty.read_response())
    assert (answer.body, answer.interim) == (b"abc", [])
    patient.send(b"abc")
    assert patient.read_response().body == b"abc"


def test_a_call_that_waits_for_a_container_is_not_told_to_go_on(stack, server):
    """A client that is told to go on while nobody takes its call would fill our memory."""
    release = server.gate()

    def by_target(request: http.Request, conn) -> bytes:
        if request.target == b"/parked":
            assert release.wait(20)
            return http.reply()
        if request.target == b"/silent":
            return http.reply(body=b"".join(conn.body_pieces(request)))
        return polite(request, conn)

    server.script(serve_heads(by_target))
    stack.pair(server, shim_flags=settings.concurrency(2))
    parked, silent, waiting = stack.client(), stack.client(), stack.client()
    for client, data in ((parked, http.request(target=b"/parked")),
                         (silent, expecting(target=b"/silent"))):
        client.send(data)
        server.next_request()
    waiting.send(expecting())
    assert silent.read_head(5).status == 100
    assert waiting.sock_peek() == b""
    release.set()
    assert waiting.read_head().get("X-Said-By") == b"server"
    for client in (waiting, silent):
        client.send(b"abc")
        assert client.read_response().body == b"abc"


@pytest.mark.parametrize("request_bytes", [
    http.request("POST", fields=[EXPECT], body=b"abc", version=b"HTTP/1.0"),
    http.request("POST", fields=[EXPECT, (b"Content-Length", b"0")]),
    http.request("GET", fields=[EXPECT]),
], ids=["HTTP/1.0", "a body of no bytes", "no body"])
def test_an_expectation_of_nothing_does_not_go_on(shared, request_bytes):
    client = shared.client()
    client.send(request_bytes)
    answer = assert_answer(client.read_response())
    assert (answer.body, answer.interim) == (b"hello", [])
    assert shared.servers[0].next_request().get("Expect") is None


def test_expecting_clients_one_after_the_other(shared):
    shared.servers[0].script(serve_heads(polite))
    client = shared.client()
    for number in range(5):
        client.send(expecting())
        assert client.read_head().get("X-Said-By") == b"server"
        body = b"%03d" % number
        client.send(body)
        assert client.read_response().body == body


def test_an_expecting_client_that_leaves(shared):
    """The server learns of it as ever."""
    client = shared.client()
    client.send(expecting())
    conn = shared.servers[0].wait_connection()
    client.close()
    assert conn.finished.wait(10)
