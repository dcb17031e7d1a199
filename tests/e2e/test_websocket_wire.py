"""WebSocket calls on the wire: each program beside a scripted other one."""

from __future__ import annotations

import pytest

from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.http import request
from harness.stack import Stack
from harness.websocket import (CLOSE, CONTINUATION, TEXT, close_frame, echo, frame, frames_of,
                               handshake, read_frame, read_message, serve_websocket, upgrade)
from harness.wire import ScriptedIngress, ScriptedShim, fields_of

PROTOCOL = b"Sec-WebSocket-Protocol"


# ---- the ingress, before a scripted shim

@pytest.fixture
def shim(stack: Stack, pb) -> ScriptedShim:
    stack.ingress = stack.start_ingress()
    shim = stack.scripted_shim(pb)
    shim.stack = stack
    return shim


def ask(shim: ScriptedShim, **more):
    """A client's handshake; returns the client and the number of its call."""
    client = shim.stack.client()
    client.send(handshake(**more))
    scope = shim.next_event("websocket")
    assert shim.next_event("websocket_connect").call == scope.call
    return client, scope.call, scope.websocket


def accept(shim: ScriptedShim, call: int, subprotocol: str = "", fields=()):
    return shim.event(call, websocket_accept=shim.pb.WebsocketAccept(
        subprotocol=subprotocol, headers=shim.headers(list(fields))))


def message(shim, call: int, data: bytes, more: bool = False, text: bool = True):
    return shim.event(call, websocket_send=shim.pb.WebsocketMessage(data=data, text=text, more=more))


def close(shim, call: int, code: int = 0, reason: bytes = b""):
    return shim.event(call, websocket_close=shim.pb.WebsocketClose(code=code, reason=reason))


def opened(shim: ScriptedShim):
    client, call, _ = ask(shim)
    shim.send(accept(shim, call))
    assert client.read_head().status == 101
    return client, call


def test_the_scope_says_what_the_client_sent(shim):
    client, _, scope = ask(shim, target=b"/a?b", fields=[(PROTOCOL, b"x, y"), (b"Cookie", b"c=1")])
    assert (scope.target, scope.scheme, scope.http_version) == (b"/a?b", "ws", "1.1")
    assert list(scope.subprotocols) == ["x", "y"]
    assert (b"Cookie", b"c=1") in fields_of(scope.headers)
    assert scope.client.host == "127.0.0.1"
    assert scope.context.request_id
    client.close()


@pytest.mark.parametrize("trusted, proto, schemes", [
    ("127.0.0.0/8", b"https", ("wss", "https")), ("127.0.0.0/8", b"wss", ("wss", "https")),
    ("127.0.0.0/8", b"http", ("ws", "")), ("127.0.0.0/8", None, ("ws", "")),
    ("192.0.2.0/24", b"https", ("ws", "")), ("192.0.2.0/24", b"wss", ("ws", ""))])
def test_the_scheme_behind_a_proxy_that_ends_tls(stack, pb, trusted, proto, schemes):
    stack.ingress = stack.start_ingress("--trusted-proxies", trusted)
    shim = stack.scripted_shim(pb)
    shim.stack = stack
    fields = [(b"X-Forwarded-Proto", proto)] if proto else []
    client, _, scope = ask(shim, fields=fields)
    client.close()
    other = stack.client()
    other.send(request(fields=fields))
    assert (scope.scheme, shim.next_event("http").http.scheme) == schemes
    believed = proto if proto and trusted.startswith("127.") else b"http"
    assert (b"X-Forwarded-Proto", believed) in fields_of(scope.headers)


def test_everything_in_one_batch(shim):
    client, call, _ = ask(shim)
    shim.send(accept(shim, call, fields=[(b"X-A", b"1")]), message(shim, call, b"hel", more=True),
              message(shim, call, b"lo"), close(shim, call, 1001, b"bye"))
    answer = client.read_head()
    assert (answer.status, answer.get("X-A")) == (101, b"1")
    assert read_message(client) == (TEXT, b"hello")
    got = read_frame(client)
    assert (got.code, got.reason) == (1001, b"bye")
    client.send(close_frame(1001))
    client.expect_closed()


def test_messages_to_the_shim(shim):
    client, call = opened(shim)
    client.send(frame(TEXT, b"a", fin=False))
    first = shim.next_event("websocket_receive", call).websocket_receive
    client.send(frame(CONTINUATION, b"b"))
    second = shim.next_event("websocket_receive", call).websocket_receive
    assert [(m.data, m.text, m.more) for m in (first, second)] == [(b"a", True, True), (b"b", True, False)]
    client.send(close_frame(4000, b"mine"))
    told = shim.next_event("websocket_disconnect", call).websocket_disconnect
    assert (told.code, told.reason) == (4000, b"mine")
    shim.send(close(shim, call, 4000))
    shim.wait(lambda: call in shim.done, "done")


def test_a_close_without_a_code_is_1005(shim):
    client, call = opened(shim)
    client.send(close_frame())
    assert shim.next_event("websocket_disconnect", call).websocket_disconnect.code == 1005
    shim.send(close(shim, call))


def test_a_client_that_vanishes_is_a_cancel(shim):
    client, call = opened(shim)
    client.close()
    shim.wait(lambda: call in shim.cancelled, "cancel")


def test_a_call_ends_when_the_shim_never_answers_the_disconnect(shim):
    client, call = opened(shim)
    client.send(close_frame(1000))
    shim.next_event("websocket_disconnect", call)
    assert read_frame(client).opcode == CLOSE
    client.expect_closed()
    shim.wait(lambda: call in shim.cancelled, "cancel", 15)


def test_a_close_before_the_accept_is_403(shim):
    client, call, _ = ask(shim)
    shim.send(close(shim, call, 1000))
    assert client.read_response().status == 403


def test_a_denial(shim):
    client, call, _ = ask(shim)
    pb = shim.pb
    shim.send(shim.event(call, websocket_http_response_start=pb.HttpResponseStart(
        status=401, headers=shim.headers([(b"X-A", b"1")]))),
        shim.event(call, websocket_http_response_body=pb.HttpBody(body=b"who ", more_body=True)),
        shim.event(call, websocket_http_response_body=pb.HttpBody(body=b"are you")))
    answer = assert_answer(client.read_response(), 401)
    assert (answer.body, answer.get("X-A")) == (b"who are you", b"1")


@pytest.mark.parametrize("events, text", [
    (lambda s, c: [accept(s, c, "z")], b"a subprotocol that the client did not offer"),
    (lambda s, c: [accept(s, c, fields=[(b"X", b"v" * 20_000)])], b"a header over the limit"),
    (lambda s, c: [message(s, c, b"early")], b"websocket.send before websocket.accept"),
    (lambda s, c: [s.start(c)], b"not an event of a websocket call"),
    (lambda s, c: [accept(s, c, fields=[(PROTOCOL, b"x")])], b"a header sec-websocket-protocol"),
], ids=["subprotocol", "header", "early", "http", "field"])
def test_violations_before_the_accept(shim, events, text):
    client, call, _ = ask(shim, fields=[(PROTOCOL, b"x, y")])
    shim.send(*events(shim, call))
    assert text in assert_error(client.read_response(), 502, "protocol_violation").body


@pytest.mark.parametrize("event", [
    lambda s, c: accept(s, c),
    lambda s, c: close(s, c, 1006),
    lambda s, c: close(s, c, 1000, b"\xff"),
    lambda s, c: s.event(c, websocket_http_response_start=s.pb.HttpResponseStart(status=200)),
], ids=["accept-twice", "1006", "reason", "denial"])
def test_violations_of_an_open_one_close_with_1011(shim, event):
    client, call = opened(shim)
    shim.send(event(shim, call))
    got = read_frame(client)
    assert (got.code, got.reason) == (1011, b"protocol_violation")
    shim.wait(lambda: call in shim.cancelled, "cancel")


@pytest.mark.parametrize("reason, code", [("SERVER_CLOSED", None), ("CONTAINER_EXITED", 1011),
                                          ("SERVER_MALFORMED", 1011)])
def test_a_failure_of_an_open_one(shim, reason, code):
    client, call = opened(shim)
    shim.send(message(shim, call, b"last words"), shim.failed(call, reason, untouched=False))
    assert read_message(client) == (TEXT, b"last words")
    if code:
        assert read_frame(client).code == code
    else:
        assert client.expect_closed() == b""


def test_a_refused_handshake_waits_for_room(shim):
    """As any call: it is put back, and sent again."""
    client, call, _ = ask(shim)
    shim.send(shim.failed(call, "BUSY"))
    shim.round_trip()
    shim.send(container=shim.status_message(5))
    again = shim.next_event("websocket")
    assert again.call > call
    shim.next_event("websocket_connect")
    shim.send(accept(shim, again.call))
    assert client.read_head().status == 101


# ---- the shim, behind a scripted ingress

@pytest.fixture
def peer(stack: Stack, server, pb) -> ScriptedIngress:
    peer = stack.scripted_ingress(pb)
    peer.server = server
    stack.start_shim(peer.endpoint, server=server)
    return peer


def open_call(peer: ScriptedIngress, connect: bool = True, **more) -> int:
    call = peer.new_call()
    pb = peer.pb
    events = [peer.event(call, websocket=pb.WebsocketScope(
        http_version="1.1", scheme="ws", target=b"/x", headers=peer.headers([
            (b"Host", b"example.test"), (b"Sec-WebSocket-Key", b"theirs"),
            (b"Sec-WebSocket-Extensions", b"permessage-deflate")]), **more))]
    if connect:
        events.append(peer.event(call, websocket_connect=pb.WebsocketConnect()))
    peer.send(*events)
    return call


def receive(peer, call: int, data: bytes, more: bool = False):
    return peer.event(call, websocket_receive=peer.pb.WebsocketMessage(data=data, text=True, more=more))


def disconnect(peer, call: int, code: int, reason: bytes = b""):
    return peer.event(call, websocket_disconnect=peer.pb.WebsocketClose(code=code, reason=reason))


def cancel(peer, call: int) -> None:
    peer.send(calls=[peer.pb.CallState(call=call, cancel=True)])


def test_the_shim_makes_a_handshake_of_its_own(peer):
    peer.server.script(serve_websocket(echo, [(b"X-A", b"1"), (b"Set-Cookie", b"a")]))
    call = open_call(peer)
    got = peer.next_event("websocket_accept", call).websocket_accept
    assert fields_of(got.headers) == [(b"X-A", b"1"), (b"Set-Cookie", b"a")]
    request = peer.server.next_request()
    assert len(request.get("Sec-WebSocket-Key")) == 24
    assert request.get("Sec-WebSocket-Extensions") is None
    cancel(peer, call)


def test_messages_and_a_disconnect(peer):
    peer.server.script(serve_websocket(echo))
    call = open_call(peer)
    peer.next_event("websocket_accept", call)
    peer.send(receive(peer, call, b"hel", more=True), receive(peer, call, b"lo"))
    data, more = b"", True
    while more:
        event = peer.next_event("websocket_send", call).websocket_send
        data, more = data + event.data, event.more
        assert event.text
    assert data == b"hello"
    peer.send(disconnect(peer, call, 4000, b"mine"))
    last = peer.next_event("websocket_close", call).websocket_close
    assert (last.code, last.reason) == (4000, b"mine")


@pytest.mark.parametrize("code", [1005, 1006])
def test_a_disconnect_with_a_code_that_is_never_sent(peer, code):
    """The server gets a close without one."""
    peer.server.script(serve_websocket(echo))
    call = open_call(peer)
    peer.next_event("websocket_accept", call)
    peer.send(disconnect(peer, call, code))
    assert peer.next_event("websocket_close", call).websocket_close.code == 0


def test_a_cancel_is_1006_for_the_server(peer):
    ended: list = []

    def record(conn):
        ended.append([got.opcode for got in frames_of(conn)])

    peer.server.script(serve_websocket(record))
    call = open_call(peer)
    peer.next_event("websocket_accept", call)
    cancel(peer, call)
    wait_until(lambda: ended, "the server hears of it")
    assert ended == [[]]


def failure_of(peer, call):
    return peer.next_event("call_failed", call).call_failed


def test_a_message_before_the_accept_is_a_violation(peer):
    peer.server.script(lambda conn: conn.read_head(60) and conn.wait_left())
    call = open_call(peer)
    peer.send(receive(peer, call, b"early"))
    failed = failure_of(peer, call)
    assert failed.reason == peer.pb.CallFailed.PROTOCOL_VIOLATION
    assert "before websocket.accept" in failed.text


@pytest.mark.parametrize("event", [
    lambda p, c: p.event(c, websocket_connect=p.pb.WebsocketConnect()),
    lambda p, c: disconnect(p, c, 1004),
    lambda p, c: disconnect(p, c, 1000, b"\xff"),
    lambda p, c: p.request(c),
], ids=["connect-twice", "1004", "reason", "http"])
def test_violations_by_the_ingress(peer, event):
    peer.server.script(serve_websocket(echo))
    call = open_call(peer)
    peer.next_event("websocket_accept", call)
    peer.send(event(peer, call))
    assert failure_of(peer, call).reason == peer.pb.CallFailed.PROTOCOL_VIOLATION


def test_nothing_accepts(peer):
    peer.server.stop_listening()
    failed = failure_of(peer, open_call(peer))
    assert failed.reason in (peer.pb.CallFailed.SERVER_REFUSED, peer.pb.CallFailed.BUSY)
    assert failed.untouched


def test_an_open_websocket_takes_a_slot(stack, server, pb):
    server.script(serve_websocket(echo))
    peer = stack.scripted_ingress(pb)
    stack.start_shim(peer.endpoint, "--concurrency", "1", server=server)
    first = open_call(peer)
    peer.next_event("websocket_accept", first)
    second = open_call(peer)
    assert failure_of(peer, second).reason == pb.CallFailed.BUSY
    peer.send(disconnect(peer, first, 1000))
    peer.next_event("websocket_close", first)
    peer.wait(lambda: peer.statuses and peer.statuses[-1].free_slots == 1, "a free slot")
    third = open_call(peer)
    peer.next_event("websocket_accept", third)
    cancel(peer, third)
