"""Limits and deadlines: small values, so that nobody waits for the real ones."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from harness import http, settings
from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.peer import Closed
from harness.program import open_descriptors
from harness.server import serve, serve_heads

SHORT_MS = 300
# Of a client that takes something, each time after 0.7 of it.
STALL_MS = 1000
# A deadline may be seen a little late, never early.
LATE_S = 2.0
# A connection whose request waits for longer than a second is not looked at until its answer
# comes.
REST_S = 1.4


def until_closed(client) -> float:
    start = time.monotonic()
    client.expect_closed()
    return time.monotonic() - start


# ---- sizes, with the defaults

def test_a_head_below_the_limit_passes(shared):
    fields = [(b"X-%d" % i, b"v" * 1000) for i in range(15)]
    assert_answer(shared.ask(fields=fields))


def test_a_cookie_of_15_kib_passes(shared):
    assert_answer(shared.ask(fields=[(b"Cookie", b"c" * (15 << 10))]))


@pytest.mark.parametrize("fields", [
    [(b"X-A", b"v" * (17 << 10))], [(b"X-%d" % i, b"v" * 1000) for i in range(20)],
    [(b"X-A", b"v" * (200 << 10))],
], ids=["one field", "many", "much too large"])
def test_a_head_above_the_limit(shared, fields):
    client = shared.client()
    try:
        client.send(http.request(fields=fields))
    except Closed:
        pass
    assert_error(client.read_response(), 431, "header_too_large")
    client.expect_closed()
    assert shared.servers[0].seen == b""


def test_a_head_that_never_ends(shared):
    client = shared.client()
    try:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"v" * (64 << 10))
    except Closed:
        pass
    assert_error(client.read_response(), 431, "header_too_large")


def test_128_fields_pass_and_129_do_not(shared):
    fields = [(b"X-%d" % i, b"v") for i in range(127)]
    assert_answer(shared.ask(fields=fields))
    assert_error(shared.ask(fields=[*fields, (b"X-Last", b"v")]), 431, "header_too_large")


def test_a_target_at_the_limit_passes_and_a_longer_one_does_not(shared):
    assert_answer(shared.ask(target=b"/" + b"a" * 8191))
    assert_error(shared.ask(target=b"/" + b"a" * 8192), 414, "target_too_long")


def test_a_target_that_never_ends(shared):
    client = shared.client()
    try:
        client.send(b"GET /" + b"a" * (100 << 10))
    except Closed:
        pass
    assert client.read_response().status in (414, 431)
    client.expect_closed()


# ---- sizes, configured

def test_configured_sizes(stack, server):
    stack.pair(server, settings.head_bytes(2048) + settings.fields(10) + settings.target_bytes(100))
    assert_answer(stack.ask(target=b"/" + b"a" * 99))
    assert_error(stack.ask(target=b"/" + b"a" * 100), 414, "target_too_long")
    assert_error(stack.ask(fields=[(b"X-A", b"v" * 2048)]), 431, "header_too_large")
    assert_error(stack.ask(fields=[(b"X-%d" % i, b"v") for i in range(10)]), 431, "header_too_large")


def test_a_body_above_a_configured_limit(stack, server):
    stack.pair(server, settings.body_bytes(1000))
    assert_answer(stack.ask("POST", body=b"x" * 1000))
    assert_error(stack.ask("POST", body=b"x" * 1001), 413, "body_too_large")


def test_a_chunked_body_above_a_configured_limit(stack, server):
    server.script(serve_heads(
        lambda request, conn: http.reply(body=b"".join(conn.body_pieces(request)))))
    stack.pair(server, settings.body_bytes(1000))
    client = stack.client()
    client.send(http.request("POST", fields=[(b"Transfer-Encoding", b"chunked")]))
    server.next_request()
    client.send(http.chunk(b"x" * 600) + http.chunk(b"x" * 600))
    assert_error(client.read_response(), 413, "body_too_large")
    assert server.connections[0].finished.wait(5), "the server still waits for the rest"


# ---- deadlines

def test_a_head_that_comes_too_slowly(stack, server):
    stack.pair(server, settings.head_timeout(SHORT_MS))
    client = stack.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
    start = time.monotonic()
    assert_error(client.read_response(), 408, "request_timeout")
    assert SHORT_MS / 1000 * 0.9 <= time.monotonic() - start < SHORT_MS / 1000 + LATE_S
    assert client.expect_closed() == b""


def test_a_byte_now_and_then_does_not_stretch_the_heads_deadline(stack, server):
    stack.pair(server, settings.head_timeout(SHORT_MS))
    client = stack.client()
    start = time.monotonic()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ")

    def another_byte() -> bool:
        if client.is_closed_now():
            return True
        try:
            client.send(b"v")
        except Closed:
            return True
        return b"408" in client.sock_peek()

    wait_until(another_byte, "408 in spite of a byte now and then", 5)
    assert time.monotonic() - start < SHORT_MS / 1000 + LATE_S


def test_the_408_comes_before_a_clean_end_for_a_client_that_sends_on(stack, server):
    """A reset would take the answer away from it."""
    stack.pair(server, settings.head_timeout(SHORT_MS))
    client = stack.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ")
    wait_until(lambda: b"408" in client.sock_peek(), "408")
    for _ in range(5):
        client.sock.setblocking(True)
        client.sock.sendall(b"v")
        stack.ask()  # the ingress has had a turn with it
    raw = b""
    while data := client.sock.recv(65536):  # an exception is a reset
        raw += data
    assert raw.startswith(b"HTTP/1.1 408 ") and b"Porthole-Error: request_timeout\r\n" in raw


def test_a_refused_client_that_says_nothing_more_is_closed(stack, server):
    stack.pair(server, settings.head_timeout(SHORT_MS))
    before = open_descriptors(stack.ingress.pid)
    client = stack.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
    assert_error(client.read_response(), 408, "request_timeout")
    wait_until(lambda: open_descriptors(stack.ingress.pid) <= before, "its descriptors are given back", 5)


def test_a_body_that_comes_too_slowly(stack, server):
    stack.pair(server, settings.body_timeout(SHORT_MS))
    client = stack.client()
    client.send(http.request("POST", fields=[(b"Content-Length", b"10")]) + b"abc")
    assert_error(client.read_response(), 408, "request_timeout")
    assert client.expect_closed() == b""
    assert server.wait_connection().finished.wait(5)


def test_a_slow_body_that_never_stops_is_fine(stack, server):
    server.script(serve(lambda request, conn: http.reply(body=request.body)))
    stack.pair(server, settings.body_timeout(SHORT_MS))
    client = stack.client()
    client.send(http.request("POST", fields=[(b"Content-Length", b"10")]))
    for byte in b"0123456789":
        time.sleep(SHORT_MS / 1000 / 3)  # what is tested is the passing of time
        client.send(bytes([byte]))
    assert client.read_response().body == b"0123456789"


def test_a_server_that_does_not_read_is_not_the_clients_fault(stack, server):
    """The body's deadline runs only while the ingress would take more of it."""
    release = server.gate()

    def wait_then_read(request: http.Request, conn) -> bytes:
        assert release.wait(20)
        return http.reply(body=b"%d" % sum(map(len, conn.body_pieces(request, 20))))

    server.script(serve_heads(wait_then_read))
    stack.pair(server, settings.body_timeout(SHORT_MS))
    client = stack.client()
    size = 64 << 20
    client.send(http.request("POST", fields=[(b"Content-Length", b"%d" % size)]))
    sent = client.send_until_blocked(b"x" * (1 << 20), size, SHORT_MS / 1000 * 3)
    assert sent < size
    release.set()
    client.send(b"x" * (size - sent), 30)
    assert client.read_response().body == b"%d" % size


def test_an_idle_connection_is_closed(stack, server):
    stack.pair(server, settings.keep_alive(SHORT_MS))
    client = stack.client()
    assert_answer(client.ask())
    assert SHORT_MS / 1000 * 0.9 <= until_closed(client) < SHORT_MS / 1000 + LATE_S


def test_a_connection_that_never_says_anything_is_closed(stack, server):
    stack.pair(server, settings.keep_alive(SHORT_MS) + settings.head_timeout(SHORT_MS))
    client = stack.client()
    assert until_closed(client) < SHORT_MS / 1000 + LATE_S


def test_waiting_for_an_answer_is_not_idle(stack, server):
    release = server.gate()
    server.script(serve(lambda request, conn: release.wait(20) and http.reply(body=b"late")))
    stack.pair(server, settings.keep_alive(SHORT_MS) + settings.head_timeout(SHORT_MS)
               + settings.body_timeout(SHORT_MS) + settings.client_stall(SHORT_MS))
    client = stack.client()
    client.send(http.request("POST", body=b"abc"))
    server.next_request()
    assert not release.wait(SHORT_MS / 1000 * 4)  # what is tested is the passing of time
    assert not client.is_closed_now()
    release.set()
    assert client.read_response().body == b"late"


def send_more_than_is_taken(_request: http.Request, conn) -> None:
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (256 << 20))
    conn.send_until_blocked(b"x" * (1 << 20), 256 << 20, 20)
    conn.close()


def test_a_client_that_takes_no_byte_is_given_up(stack, server):
    server.script(serve(send_more_than_is_taken))
    stack.pair(server, settings.client_stall(SHORT_MS))
    client = stack.client()
    client.send(http.request())
    stack.ingress.wait_log("client_stalled")
    assert server.connections[0].finished.wait(10)


def test_a_client_that_takes_no_byte_after_a_long_wait_is_given_up(stack, server):
    """While it waited nobody looked at its deadlines."""
    go = server.gate()

    def send(_request: http.Request, conn) -> None:
        assert not go.wait(REST_S)  # the passing of time
        send_more_than_is_taken(_request, conn)

    server.script(serve(send))
    stack.pair(server, settings.client_stall(SHORT_MS))
    client = stack.client()
    client.send(http.request())
    stack.ingress.wait_log("client_stalled")
    assert server.connections[0].finished.wait(10)


def test_a_client_that_takes_a_byte_in_time_is_never_given_up(stack, server):
    """Each byte begins the time anew, not half of it."""
    server.script(serve(send_more_than_is_taken))
    stack.pair(server, settings.client_stall(STALL_MS))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(stack.ingress.address)
        client.sendall(http.request())
        for _ in range(6):
            threading.Event().wait(0.7 * STALL_MS / 1000)  # its pace
            taken = 0
            while taken < 8192:  # the kernel says so, and we are not asked for more
                taken += len(client.recv(8192 - taken))
        assert "client_stalled" not in stack.ingress.log
        stack.ingress.wait_log("client_stalled")


def test_a_slow_stream_is_no_stalled_client(stack, server):
    """Nothing to take is not the same as not taking it."""
    go = server.gate()

    def stream(_request: http.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + http.chunk(b"one"))
        assert go.wait(20)
        conn.send(http.chunked(b"two"))

    server.script(serve(stream))
    stack.pair(server, settings.client_stall(SHORT_MS))
    client = stack.client()
    client.send(http.request())
    client.read_until(b"one")
    assert not go.wait(SHORT_MS / 1000 * 4)  # what is tested is the passing of time
    go.set()
    client.read_until(b"two")
    assert "client_stalled" not in stack.ingress.log
