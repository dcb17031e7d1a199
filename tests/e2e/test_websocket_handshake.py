"""WebSocket handshakes: the server decides; bad ones get what RFC 6455 section 4 says."""

from __future__ import annotations

import pytest

from harness import http
from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.server import serve
from harness.websocket import (BINARY, CLOSE, KEY, TEXT, accept_of, close_frame, echo, frame,
                               handshake, read_frame, read_message, serve_websocket, switch,
                               upgrade)

EXTENSIONS = b"Sec-WebSocket-Extensions"
PROTOCOL = b"Sec-WebSocket-Protocol"


@pytest.fixture
def echoing(shared):
    shared.servers[0].script(serve_websocket(echo))
    return shared


def leave(client) -> None:
    client.send(close_frame(1000))
    assert read_frame(client).opcode == CLOSE
    client.expect_closed()


# ---- what reaches the server

def test_the_request_arrives_as_it_was_sent(echoing):
    client = echoing.client()
    sent = [(b"Origin", b"http://example.test"), (b"Cookie", b"a=1; b=2"), (b"X-One", b"1"),
            (b"X-One", b"2"), (b"User-Agent", b"raw")]
    client.send(handshake(b"/chat?room=1&room=%20", sent, host=b"ws.example.test:81"))
    assert client.read_head().status == 101
    request = echoing.servers[0].next_request()
    assert (request.method, request.target) == (b"GET", b"/chat?room=1&room=%20")
    assert request.get("Host") == b"ws.example.test:81"
    for name in (b"Origin", b"Cookie", b"User-Agent"):
        assert request.get(name) == dict(sent)[name]
    assert request.all(b"X-One") == [b"1", b"2"]
    assert request.get("Upgrade") == b"websocket"
    assert request.get("Connection") == b"Upgrade"
    assert request.get("Sec-WebSocket-Version") == b"13"
    assert request.get("X-Forwarded-For") == b"127.0.0.1"
    leave(client)


def test_keys_are_each_connections_own(echoing):
    keys = set()
    for _ in range(3):
        client = echoing.client()
        upgrade(client)
        keys.add(echoing.servers[0].next_request().get("Sec-WebSocket-Key"))
        leave(client)
    assert len(keys) == 3 and KEY not in keys


def test_extensions_of_the_client_are_not_the_servers(echoing):
    client = echoing.client()
    upgrade(client, fields=[(EXTENSIONS, b"permessage-deflate, x-other")])
    assert echoing.servers[0].next_request().get(EXTENSIONS) is None
    leave(client)


# ---- what reaches the client

def test_fields_of_the_101_reach_the_client(shared):
    shared.servers[0].script(serve_websocket(echo, [
        (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"X-Mixed-Case", b"v")]))
    client = shared.client()
    answer = upgrade(client)
    assert answer.all("Set-Cookie") == [b"a=1", b"b=2"]
    assert (b"X-Mixed-Case", b"v") in answer.headers
    assert answer.get("X-Request-Id")
    assert answer.get("Content-Length") is None and answer.get("Transfer-Encoding") is None
    leave(client)


def test_a_subprotocol_is_chosen_by_the_server(shared):
    shared.servers[0].script(serve_websocket(echo, [(PROTOCOL, b"v2.chat")]))
    client = shared.client()
    answer = upgrade(client, fields=[(PROTOCOL, b"chat, v2.chat"), (PROTOCOL, b"v3")])
    assert answer.get(PROTOCOL) == b"v2.chat"
    assert shared.servers[0].next_request().all(PROTOCOL) == [b"chat, v2.chat", b"v3"]
    leave(client)


def test_no_subprotocol_is_chosen(echoing):
    client = echoing.client()
    assert upgrade(client, fields=[(PROTOCOL, b"chat")]).get(PROTOCOL) is None
    leave(client)


@pytest.mark.parametrize("status, body", [(403, b"not for you"), (401, b""), (200, b"x" * 300_000)])
def test_a_refusal_reaches_the_client_whole(shared, status, body):
    shared.servers[0].script(serve(lambda request, conn: http.reply(body=b"next")
                                   if request.target == b"/next" else http.reply(
        status, [(b"X-Why", b"because"), (b"Set-Cookie", b"a=1")], body, b"Whatever")))
    client = shared.client()
    client.send(handshake())
    answer = assert_answer(client.read_response(), status)
    assert answer.body == body
    assert (answer.get("X-Why"), answer.get("Set-Cookie")) == (b"because", b"a=1")
    # The connection goes on as any other.
    assert client.ask(target=b"/next").body == b"next"


def test_a_refusal_in_chunks(shared):
    shared.servers[0].script(serve(lambda request, conn: (
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"
        + http.chunked(b"no", b"thing"))))
    client = shared.client()
    client.send(handshake())
    assert assert_answer(client.read_response(), 404).body == b"nothing"


@pytest.mark.parametrize("answer", [
    lambda request: b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept_of(b"x" * 24) + b"\r\n\r\n",
    lambda request: b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\n\r\n",
    lambda request: switch(request, [(PROTOCOL, b"never-offered")]),
    lambda request: switch(request, [(EXTENSIONS, b"permessage-deflate")]),
    lambda request: switch(request).replace(b"Upgrade: websocket", b"Upgrade: other"),
    lambda request: switch(request).replace(b"Connection: Upgrade", b"Connection: close"),
], ids=["accept", "no-accept", "subprotocol", "extension", "upgrade", "connection"])
def test_a_101_that_is_none(shared, answer):
    shared.servers[0].script(serve(lambda request, conn: answer(request)))
    client = shared.client()
    client.send(handshake())
    assert b"101" in assert_error(client.read_response(), 502, "server_malformed").body


def test_a_server_that_closes(shared):
    shared.servers[0].script(lambda conn: conn.read_head(60))
    client = shared.client()
    client.send(handshake())
    assert_error(client.read_response(), 502, "server_closed")


def test_a_client_that_leaves_before_the_answer(shared):
    left = []

    def wait(conn):
        conn.server.requests.put(conn.read_head(60))
        left.append(conn.wait_left())

    shared.servers[0].script(wait)
    client = shared.client()
    client.send(handshake())
    shared.servers[0].next_request()
    client.close()
    wait_until(lambda: left, "the server hears of it")


# ---- bad handshakes

@pytest.mark.parametrize("version", [b"12", b"8", b"14", b"13, 8", b"", None])
def test_versions_but_13(shared, version):
    client = shared.client()
    client.send(handshake(version=version))
    answer = assert_error(client.read_response(), 426, "websocket_version")
    assert answer.get("Sec-WebSocket-Version") == b"13"
    assert answer.get("Upgrade") == b"websocket"
    assert answer.has_token("Connection", b"upgrade")
    assert client.ask().body == b"hello"


@pytest.mark.parametrize("key", [None, b"", b"abc", b"x" * 24, KEY + b"=", b"dGhlIHNhbXBsZSBub25j"])
def test_bad_keys(shared, key):
    client = shared.client()
    client.send(handshake(key=key))
    assert_error(client.read_response(), 400, "bad_request")
    assert shared.servers[0].requests.empty()


@pytest.mark.parametrize("raw", [
    handshake().replace(b"GET", b"POST", 1),
    handshake().replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    handshake(fields=[(b"Content-Length", b"3")]) + b"abc",
    handshake(fields=[(b"Sec-WebSocket-Key", KEY)]),
    handshake(fields=[(PROTOCOL, b"a b")]),
    handshake(fields=[(PROTOCOL, b"a, a")]),
    handshake(fields=[(EXTENSIONS, b"permessage-deflate;")]),
], ids=["POST", "1.0", "body", "two-keys", "token", "twice", "extension"])
def test_other_bad_handshakes(shared, raw):
    client = shared.client()
    client.send(raw)
    assert_error(client.read_response(), 400, "bad_request")


@pytest.mark.parametrize("raw", [
    handshake().replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    handshake().replace(b"Connection: Upgrade", b"Connection: keep-alive"),
], ids=["h2c", "not-named"])
def test_what_asks_for_no_websocket_is_a_request(shared, raw):
    client = shared.client()
    client.send(raw)
    assert assert_answer(client.read_response()).body == b"hello"


@pytest.mark.parametrize("raw", [
    handshake().replace(b"Upgrade: websocket", b"upgrade: h2c, WebSocket"),
    handshake().replace(b"Connection: Upgrade", b"connection: keep-alive, upgrade"),
], ids=["list", "case"])
def test_spellings(echoing, raw):
    client = echoing.client()
    client.send(raw)
    assert client.read_head().status == 101
    leave(client)


# ---- pieces

def test_byte_by_byte(echoing):
    """The handshake, and frames in both directions."""
    client = echoing.client()
    for byte in handshake():
        client.send(bytes([byte]))
    assert client.read_head().status == 101
    for byte in frame(TEXT, b"hello"):
        client.send(bytes([byte]))
    assert read_message(client) == (TEXT, b"hello")
    leave(client)


def test_frames_right_behind_the_handshake(echoing):
    """A client that does not wait for the 101."""
    client = echoing.client()
    client.send(handshake() + frame(TEXT, b"early") + frame(BINARY, b"bird"))
    assert client.read_head().status == 101
    assert read_message(client) == (TEXT, b"early")
    assert read_message(client) == (BINARY, b"bird")
    leave(client)


def test_frames_right_behind_the_101(shared):
    def greet(conn):
        request = conn.read_head(60)
        conn.send(switch(request) + frame(TEXT, b"welcome", mask=None))
        echo(conn)

    shared.servers[0].script(greet)
    client = shared.client()
    upgrade(client)
    assert read_message(client) == (TEXT, b"welcome")
    leave(client)


def test_after_other_requests_on_the_connection(shared):
    client = shared.client()
    assert client.ask().body == b"hello"
    shared.servers[0].script(serve_websocket(echo))
    upgrade(client)
    client.send(frame(TEXT, b"hello"))
    assert read_message(client) == (TEXT, b"hello")
    leave(client)
