"""The ingress, seen from a scripted shim: what it says, and what it makes of wrong peers."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time

import pytest

from harness import http
from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.peer import Closed
from harness.stack import Stack
from harness.wire import EVENT_COST, FRAME_MIN, cost_of, fields_of

# Field 1023, three bytes: nobody knows it.
UNKNOWN_FIELD = b"\xfa\x3f\x03abc"
# As in test_disconnect.py.
NOTICED_S = 0.05 if os.environ.get("PORTHOLE_STRICT_TIMING") == "1" else 0.25


@pytest.fixture
def ingress(stack: Stack) -> Stack:
    stack.ingress = stack.start_ingress()
    return stack


@pytest.fixture
def shim(ingress, pb):
    return ingress.scripted_shim(pb)


def ask_later(stack, *args, **more):
    """A request whose answer is read later."""
    client = stack.client()
    client.send(http.request(*args, **more))
    return client


# ---- what it says

def test_welcome_says_what_a_shim_needs(shim):
    welcome = shim.welcomes[0]
    assert welcome.version == 1
    assert len(welcome.ingress_epoch) == 16
    assert len(welcome.resume_token) >= 16
    assert not welcome.resumed
    assert welcome.initial_credit >= 32 << 10
    assert 0 < welcome.ping_interval_ms <= 3000
    assert welcome.silent_timeout_ms == 10_000
    assert welcome.closed_timeout_ms == 1000
    assert welcome.message_bytes_max >= 1 << 20


def test_a_ping_is_answered(shim):
    shim.round_trip()


def test_it_pings_a_quiet_link(shim):
    wait_until(lambda: any(shim.batches.get().HasField("ping") for _ in range(shim.batches.qsize())),
               "a ping", 5)


def test_the_scope_says_everything_of_a_request(ingress, shim):
    fields = [(b"X-A", b"b"), (b"x-a", b"\xe9"), (b"traceparent", b"00-a-b-01"),
              (b"X-Request-Id", b"mine")]
    client = ask_later(ingress, "PROPFIND", "/a%2F?b", fields=fields, host=b"a.test:1")
    scope, body = shim.read_request()
    asked = scope.http
    assert (asked.method, asked.target, asked.http_version, body) == (b"PROPFIND", b"/a%2F?b", "1.1", b"")
    assert asked.framing == asked.NONE
    assert [f for f in fields_of(asked.headers) if f[0].lower() == b"x-a"] == fields[:2]
    assert (b"Host", b"a.test:1") in fields_of(asked.headers)
    assert asked.client.host == "127.0.0.1" and asked.client.port
    assert asked.server.port == ingress.ingress.port
    assert asked.context.request_id == "mine"
    assert asked.context.function == "default"
    assert scope.sequence == 0
    shim.answer(scope.call, b"hi")
    assert assert_answer(client.read_response()).body == b"hi"


def test_a_request_without_a_body_is_one_message(ingress, shim):
    client = ask_later(ingress)
    batch = wait_until(lambda: next((b for b in iter_batches(shim) if b.events), None), "a call")
    assert [event.WhichOneof("kind") for event in batch.events] == ["http", "http_request"]
    assert not batch.events[1].http_request.more_body
    shim.answer(batch.events[0].call)
    assert_answer(client.read_response())


def iter_batches(link):
    while not link.batches.empty():
        yield link.batches.get()


@pytest.mark.parametrize("size, framed", [(1, False), (FRAME_MIN - 1, False), (FRAME_MIN, True),
                                          (20_000, True)])
def test_large_pieces_of_a_body_travel_in_frames_of_their_own(ingress, shim, size, framed):
    client = ask_later(ingress, "POST", body=b"x" * size)
    scope, body = shim.read_request()
    assert body == b"x" * size
    assert scope.http.framing == scope.http.LENGTH
    shim.answer(scope.call)
    assert_answer(client.read_response())
    pieces = [event.http_request for batch in iter_batches(shim) for event in batch.events
              if event.WhichOneof("kind") == "http_request"]
    assert all(bool(piece.body_frame_bytes) == (len(piece.body) >= FRAME_MIN) for piece in pieces)
    assert framed == any(piece.body_frame_bytes for piece in pieces) or size > FRAME_MIN


def test_call_numbers_are_not_used_twice(ingress, shim):
    seen = []
    for _ in range(5):
        client = ask_later(ingress)
        scope, _body = shim.read_request()
        seen.append(scope.call)
        shim.answer(scope.call)
        assert_answer(client.read_response())
    assert len(set(seen)) == 5


def test_it_says_done_after_the_answer(ingress, shim):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.answer(scope.call, b"hi")
    assert_answer(client.read_response())
    shim.wait(lambda: scope.call in shim.done, "done")


def test_it_stays_within_the_credit(ingress, pb):
    """Credit is said whenever all of the last has been used; only headers may overdraw it."""
    window, size, slack = 32 << 10, 1 << 20, 512
    shim = ingress.scripted_shim(pb, credit=window)
    shim.acknowledges = False
    client = ingress.client()
    sender = threading.Thread(target=client.send, args=(http.request("POST", body=b"x" * size), 30),
                              daemon=True)
    sender.start()
    scope = shim.next_call()
    call, spent, allowed, body, more = shim.calls[scope.call], cost_of(scope, pb), window, b"", True
    while more:
        event = shim.next_event("http_request")
        body, more = body + event.http_request.body, event.http_request.more_body
        spent += cost_of(event, pb)
        assert spent <= allowed + slack
        if shim.events.empty():
            allowed = spent + window
            shim.send(calls=[pb.CallState(call=scope.call, next=event.sequence + 1, credit=allowed)])
    sender.join()
    assert len(body) == size
    assert call.next == event.sequence + 1
    shim.answer(scope.call)
    assert_answer(client.read_response())


@pytest.mark.parametrize("framing", [(b"Content-Length", b"60000"),
                                     (b"Transfer-Encoding", b"chunked")], ids=["length", "chunked"])
def test_a_body_that_waited_goes_on_with_the_first_credit(ingress, pb, framing):
    """What HELLO promises beyond the first window is there when a waiting call is given out,
    without a word of credit after it."""
    size = 60_000
    first = ingress.scripted_shim(pb, credit=1 << 20)
    first.close()
    ingress.ingress.wait_log('msg="container gone"')
    client = ingress.client()
    client.send(http.request("POST", fields=[framing]))
    body = b"x" * size
    written = http.chunk(body) + b"0\r\n\r\n" if framing[1] == b"chunked" else body
    sent = client.send_until_blocked(written, len(written), 0.3)
    shim = ingress.scripted_shim(pb, credit=1 << 20, hello=False)
    shim.acknowledges = False
    shim.hello()
    sender = threading.Thread(target=client.send, args=(written[sent:], 30), daemon=True)
    sender.start()
    scope, got = shim.read_request()
    assert got == body
    sender.join()
    shim.answer(scope.call, b"all")
    assert client.read_response().body == b"all"


def test_without_credit_it_sends_no_more_than_the_first_window(ingress, pb):
    window = 32 << 10
    shim = ingress.scripted_shim(pb, credit=window)
    shim.acknowledges = False
    client = ask_later(ingress, "POST", fields=[(b"Content-Length", b"%d" % (8 << 20))])
    client.send_until_blocked(b"x" * 65536, 8 << 20, 0.3)
    scope = shim.next_call()
    call = shim.calls[scope.call]
    # Only the first event goes without credit; what follows fits in the window.
    wait_until(lambda: call.cost > window // 2, "body events")
    shim.round_trip()
    assert call.cost <= window + EVENT_COST
    start = time.monotonic()
    client.reset()
    shim.wait(lambda: scope.call in shim.cancelled, "the cancel")
    assert time.monotonic() - start < NOTICED_S


@pytest.mark.parametrize("leave", ["close", "reset", "finish_writing"])
def test_a_client_that_leaves_is_a_cancel_at_once(ingress, shim, leave):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    start = time.monotonic()
    getattr(client, leave)()
    shim.wait(lambda: scope.call in shim.cancelled, "the cancel")
    assert time.monotonic() - start < NOTICED_S


def test_stop_ends_the_reading_of_a_body(ingress, shim, pb):
    client = ask_later(ingress, "POST", fields=[(b"Content-Length", b"100000000")])
    scope = shim.next_call()
    shim.send(shim.start(scope.call, 413), shim.body(scope.call, b"no"),
              calls=[pb.CallState(call=scope.call, next=1, credit=1 << 16, stop=True)])
    answer = client.read_response()
    assert (answer.status, answer.body) == (413, b"no")


# ---- what it makes of answers

def test_pieces_come_as_they_are_sent(ingress, shim):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.send(shim.start(scope.call, 200, [(b"X-A", b"b")]))
    head = client.read_final_head()
    pieces = client.body_pieces(head)
    for data in (b"one", b"two", b"three"):
        shim.send(shim.body(scope.call, data, more_body=True))
        got = b""
        while got != data:
            got += next(pieces)
    shim.send(shim.body(scope.call))
    assert b"".join(pieces) == b""


def test_a_body_in_a_frame_of_its_own(ingress, shim, pb):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    data = os.urandom(20_000)
    start = shim.start(scope.call)
    last = shim.event(scope.call, http_response_body=pb.HttpBody(body_frame_bytes=len(data)))
    shim.send(start, last, payloads=[data])
    assert client.read_response().body == data


def test_duplicates_are_dropped_by_their_number(ingress, shim):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    start, first, last = (shim.start(scope.call), shim.body(scope.call, b"one", more_body=True),
                          shim.body(scope.call, b"two"))
    shim.send(start, start)
    shim.send(first)
    shim.send(start, first)
    shim.send(last, last)
    assert client.read_response().body == b"onetwo"


@pytest.mark.parametrize("given, got", [
    ([(b"Content-Length", b"2")], b"hi"), ([], b"hi"),
])
def test_framing_follows_what_the_shim_says(ingress, shim, given, got):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.answer(scope.call, got, fields=given)
    answer = assert_answer(client.read_response())
    assert answer.body == got


@pytest.mark.parametrize("promised", [b"5", b"1"])
def test_more_or_less_than_content_length_is_noticed_by_the_client(ingress, shim, promised):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.answer(scope.call, b"hey", fields=[(b"Content-Length", promised)])
    try:
        answer = client.read_response()
    except Closed:
        return
    if answer.get("Porthole-Error"):
        assert answer.status == 502
    else:
        # What was promised, and then the end: never a whole answer that looks right.
        assert len(answer.body) == int(promised)
        client.expect_closed()


def test_informational_answers_pass(ingress, shim, pb):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.send(shim.event(scope.call, http_response_informational=pb.HttpInformational(
        status=103, headers=shim.headers([(b"Link", b"</a>")]))))
    assert client.read_head().get("Link") == b"</a>"
    shim.answer(scope.call, b"hi")
    assert client.read_response().body == b"hi"


def trailers(shim, pb, call, fields, more):
    return shim.event(call, http_response_trailers=pb.HttpTrailers(
        headers=shim.headers(fields), more_trailers=more))


def test_trailers_of_several_events_all_arrive(ingress, shim, pb):
    client = ask_later(ingress, fields=[(b"TE", b"trailers")])
    scope, _body = shim.read_request()
    assert scope.http.te_trailers
    shim.send(shim.start(scope.call, trailers=True), shim.body(scope.call, b"hi"),
              trailers(shim, pb, scope.call, [(b"X-A", b"1"), (b"X-A", b"2")], True),
              trailers(shim, pb, scope.call, [], True),
              trailers(shim, pb, scope.call, [(b"X-B", b"3")], False))
    answer = assert_answer(client.read_response())
    assert answer.body == b"hi"
    assert answer.trailers == [(b"X-A", b"1"), (b"X-A", b"2"), (b"X-B", b"3")]


def test_trailers_that_the_client_did_not_ask_for_are_dropped(ingress, shim, pb):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    assert not scope.http.te_trailers
    shim.send(shim.start(scope.call, trailers=True), shim.body(scope.call, b"some", more_body=True))
    head = client.read_final_head()
    shim.send(shim.body(scope.call, b"more"), trailers(shim, pb, scope.call, [(b"X-A", b"1")], False))
    assert b"".join(client.body_pieces(head)) == b"somemore"
    assert head.trailers == []


def test_trailers_without_end_are_a_violation(ingress, shim, pb):
    """All events together are held to the limit of a head."""
    client = ask_later(ingress, fields=[(b"TE", b"trailers")])
    scope, _body = shim.read_request()
    shim.send(shim.start(scope.call, trailers=True), shim.body(scope.call, b"hi"))
    for _ in range(20):
        shim.send(trailers(shim, pb, scope.call, [(b"X-A", b"v" * 1000)], True))
    shim.wait(lambda: scope.call in shim.cancelled, "the call's end")
    with pytest.raises(Closed):
        client.read_response()
    answered = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.answer(scope.call, b"on")
    assert answered.read_response().body == b"on"


FAILURES = [("SERVER_REFUSED", "server_refused"), ("SERVER_CLOSED", "server_closed"),
            ("SERVER_MALFORMED", "server_malformed"),
            ("RESPONSE_HEAD_TOO_LARGE", "response_head_too_large"),
            ("PROTOCOL_VIOLATION", "protocol_violation"), ("CONTAINER_EXITED", "container_lost")]


@pytest.mark.parametrize("reason, code", FAILURES)
def test_a_failure_that_the_shim_tells_of(ingress, shim, reason, code):
    client = ask_later(ingress, "POST", body=b"x")
    scope, _body = shim.read_request()
    shim.send(shim.failed(scope.call, reason, "it was like this", untouched=False))
    assert_error(client.read_response(), 502, code)


def test_a_failure_in_the_middle_of_an_answer(ingress, shim):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.send(shim.start(scope.call), shim.body(scope.call, b"some", more_body=True))
    head = client.read_final_head()
    pieces = client.body_pieces(head)
    assert next(pieces) == b"some"
    shim.send(shim.failed(scope.call, "SERVER_CLOSED", untouched=False))
    with pytest.raises(Closed):
        next(pieces)


# ---- rules that a shim may break: each ends that call, and nothing else

def bad_header(name: bytes, value: bytes):
    return lambda shim, pb, call: [shim.start(call, 200, [(name, value)])]


BEFORE = {
    "http.response.body": lambda shim, pb, call: [shim.body(call, b"early")],
    "http.response.trailers": lambda shim, pb, call: [
        shim.event(call, http_response_trailers=pb.HttpTrailers())],
    "websocket.accept": lambda shim, pb, call: [
        shim.event(call, websocket_accept=pb.WebsocketAccept())],
    "websocket.send": lambda shim, pb, call: [
        shim.event(call, websocket_send=pb.WebsocketMessage(data=b"x"))],
    "http.request": lambda shim, pb, call: [
        shim.event(call, http_request=pb.HttpRequest(body=b"x"))],
    "status 99": lambda shim, pb, call: [shim.start(call, 99)],
    "status 101": lambda shim, pb, call: [shim.start(call, 101)],
    "status 199": lambda shim, pb, call: [shim.start(call, 199)],
    "status 600": lambda shim, pb, call: [shim.start(call, 600)],
    "informational 200": lambda shim, pb, call: [
        shim.event(call, http_response_informational=pb.HttpInformational(status=200))],
    "informational 101": lambda shim, pb, call: [
        shim.event(call, http_response_informational=pb.HttpInformational(status=101))],
    "CR LF in a value": bad_header(b"X-A", b"b\r\nX-B: c"),
    "LF in a value": bad_header(b"X-A", b"b\nc"),
    "NUL in a value": bad_header(b"X-A", b"b\0c"),
    "CR LF in a name": bad_header(b"X-A: b\r\nX-B", b"c"),
    "colon in a name": bad_header(b"X:A", b"b"),
    "space in a name": bad_header(b"X A", b"b"),
    "no name": bad_header(b"", b"b"),
    "a gap": lambda shim, pb, call: [shim.start(call, sequence=1)],
    "a gap of millions": lambda shim, pb, call: [shim.start(call, sequence=1 << 40)],
    "no kind": lambda shim, pb, call: [shim.event(call)],
}
AFTER = {
    "http.response.start": lambda shim, pb, call: [shim.start(call)],
    "http.response.trailers": lambda shim, pb, call: [
        shim.event(call, http_response_trailers=pb.HttpTrailers())],
    "informational": lambda shim, pb, call: [
        shim.event(call, http_response_informational=pb.HttpInformational(status=103))],
    "a gap": lambda shim, pb, call: [shim.body(call, b"x", sequence=17)],
    "websocket.send": lambda shim, pb, call: [
        shim.event(call, websocket_send=pb.WebsocketMessage(data=b"x"))],
}


def assert_others_go_on(stack, shim, other, other_scope) -> None:
    """A call that was open beside the broken one, and one after it."""
    shim.answer(other_scope.call, b"other")
    assert assert_answer(other.read_response()).body == b"other"
    late = ask_later(stack, target="/late")
    scope, _body = shim.read_request()
    shim.answer(scope.call, b"late")
    assert assert_answer(late.read_response()).body == b"late"


@pytest.mark.parametrize("rule", BEFORE)
def test_a_broken_rule_before_the_answer_ends_that_call_only(ingress, shim, pb, rule):
    other = ask_later(ingress, "POST", "/other", body=b"x")
    other_scope, _body = shim.read_request()
    client = ask_later(ingress, "POST", "/broken", body=b"x")
    scope, _body = shim.read_request()
    shim.send(*BEFORE[rule](shim, pb, scope.call))
    answer = assert_error(client.read_response(), 502, "protocol_violation")
    if "." in rule:
        assert rule.encode() in answer.body, answer.body
    assert_others_go_on(ingress, shim, other, other_scope)


@pytest.mark.parametrize("rule", AFTER)
def test_a_broken_rule_in_an_answer_is_never_a_whole_answer(ingress, shim, pb, rule):
    other = ask_later(ingress, "POST", "/other", body=b"x")
    other_scope, _body = shim.read_request()
    client = ask_later(ingress, "POST", "/broken", body=b"x")
    scope, _body = shim.read_request()
    shim.send(shim.start(scope.call), shim.body(scope.call, b"some", more_body=True))
    client.read_until(b"some")
    shim.send(*AFTER[rule](shim, pb, scope.call))
    assert b"0\r\n\r\n" not in client.expect_closed()
    ingress.ingress.wait_log("protocol_violation")
    assert_others_go_on(ingress, shim, other, other_scope)


def test_events_after_the_last_are_ignored(ingress, shim):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.answer(scope.call, b"hi")
    shim.send(shim.body(scope.call, b"more"))
    assert assert_answer(client.read_response()).body == b"hi"
    next_client = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.answer(scope.call, b"next")
    assert next_client.read_response().body == b"next"


def test_more_than_the_credit_is_a_violation(ingress, shim, pb):
    client = ask_later(ingress, "POST", body=b"x")
    scope, _body = shim.read_request()
    window = shim.welcomes[0].initial_credit
    pieces = [shim.body(scope.call, b"x" * 4000, more_body=True) for _ in range(window // 4000 + 300)]
    shim.send(shim.start(scope.call), *pieces)
    try:
        assert_error(client.read_response(), 502, "protocol_violation")
    except Closed:
        pass  # its head had gone out already
    ingress.ingress.wait_log("protocol_violation")
    late = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.answer(scope.call, b"late")
    assert late.read_response().body == b"late"


def test_calls_that_were_never_made_are_ignored(ingress, shim, pb):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    for number in (scope.call + 1, 0, 1 << 63, (1 << 64) - 1):
        shim.send(shim.start(number, sequence=0),
                  shim.event(number, 1, http_response_body=pb.HttpBody(body=b"foreign")),
                  calls=[pb.CallState(call=number, next=5, credit=1 << 60, stop=True)])
    shim.answer(scope.call, b"mine")
    assert assert_answer(client.read_response()).body == b"mine"


def test_an_acknowledgement_of_what_was_never_sent(ingress, shim, pb):
    client = ask_later(ingress, "POST", body=b"x")
    scope, _body = shim.read_request()
    shim.send(calls=[pb.CallState(call=scope.call, next=1000, credit=1 << 20)])
    assert_error(client.read_response(), 502, "protocol_violation")


@pytest.mark.parametrize("bytes_, status", [(16 * 1024 - 16, 200), (16 * 1024, 502)])
def test_a_shim_cannot_send_a_larger_head_than_is_allowed(ingress, shim, bytes_, status):
    """Also when it does not look at the limit itself; other calls go on."""
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.answer(scope.call, b"hi", fields=[(b"X-Long", b"x" * bytes_)])
    answer = client.read_response()
    assert answer.status == status
    if status == 502:
        assert_error(answer, 502, "response_head_too_large")
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.answer(scope.call, b"hi")
    assert assert_answer(client.read_response()).body == b"hi"


def test_unknown_fields_are_ignored(ingress, shim, pb):
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    start = shim.start(scope.call).SerializeToString() + UNKNOWN_FIELD
    batch = pb.Batch()
    batch.events.add().ParseFromString(start)
    batch.events.add().CopyFrom(shim.body(scope.call, b"hi"))
    shim.send_raw([batch.SerializeToString() + UNKNOWN_FIELD])
    assert assert_answer(client.read_response()).body == b"hi"


# ---- what cannot be parsed

def frame_without_payload(shim, pb):
    return [pb.Batch(events=[shim.event(1, http_response_body=pb.HttpBody(
        body_frame_bytes=5000))]).SerializeToString()]


GARBAGE = {
    "noise": lambda shim, pb: [b"\xff" * 40],
    "half a message": lambda shim, pb: [pb.Batch(hello=shim.hello_message()).SerializeToString()[:-3]],
    "a payload too few": frame_without_payload,
    "a payload too many": lambda shim, pb: [pb.Batch(received_bytes=1).SerializeToString(), b"x" * 10],
    "a payload of another length": lambda shim, pb: [*frame_without_payload(shim, pb), b"x" * 4999],
    "a large frame of zeros": lambda shim, pb: [bytes(1 << 20)],
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_answered_with_goodbye_and_nothing_more(ingress, pb, kind):
    bad = ingress.scripted_shim(pb)
    client = ask_later(ingress, "POST", body=b"x")
    bad.read_request()
    bad.send_raw(GARBAGE[kind](bad, pb))
    bad.wait(lambda: bad.goodbyes, "GOODBYE")
    assert bad.goodbyes[0].reason == pb.Goodbye.MALFORMED
    answer = client.read_response()
    assert answer.status == 502 and answer.get("Porthole-Error"), answer.raw_head
    good = ingress.scripted_shim(pb)
    late = ask_later(ingress)
    scope, _body = good.read_request()
    good.answer(scope.call, b"well")
    assert late.read_response().body == b"well"
    assert bad.events.empty()


def test_what_comes_before_hello_counts_for_nothing(ingress, pb):
    stranger = ingress.scripted_shim(pb, hello=False)
    stranger.send(stranger.start(1), stranger.body(1, b"x"))
    shim = ingress.scripted_shim(pb)
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.answer(scope.call, b"hi")
    assert client.read_response().body == b"hi"
    assert not stranger.welcomes


@pytest.mark.parametrize("changes, reason", [
    ({"version": 99}, "VERSION"), ({"version": 0}, "VERSION"), ({"container": b"short"}, None),
    ({"container": b""}, None), ({"function": "a b"}, None), ({"function": "x" * 300}, None),
    ({"concurrency": 0}, None),
])
def test_a_hello_that_cannot_be_welcomed(ingress, pb, changes, reason):
    shim = ingress.scripted_shim(pb, hello=False)
    shim.hello(**changes)
    shim.wait(lambda: shim.goodbyes or shim.welcomes, "an answer")
    if reason is None and shim.welcomes and "concurrency" in changes:
        return
    assert shim.goodbyes, "it was welcomed"
    if reason:
        assert shim.goodbyes[0].reason == getattr(pb.Goodbye, reason)
    assert_error(ingress.ask(), 503, "no_container")


def test_strangers_on_the_shims_port_harm_nobody(ingress, shim):
    endpoint = ingress.ingress.shims.rpartition(":")
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b""):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", int(endpoint[2]))) as sock:
                sock.sendall(data)
    client = ask_later(ingress)
    scope, _body = shim.read_request()
    shim.answer(scope.call, b"hi")
    assert client.read_response().body == b"hi"


# ---- where calls go

def assert_quiet(link, seconds: float = 0.3) -> None:
    """Nothing comes for a while."""
    try:
        event = link.events.get(timeout=seconds)
    except queue.Empty:
        return
    pytest.fail(f"came although nothing should: {event}")


def test_busy_puts_the_call_back_at_the_head(ingress, shim):
    """And the container gets nothing until it has reported free slots."""
    first = ask_later(ingress, "POST", "/first", body=b"a")
    scope, _body = shim.read_request()
    assert scope.http.target == b"/first"
    shim.send(shim.failed(scope.call, "BUSY"))
    shim.round_trip()
    second = ask_later(ingress, "POST", "/second", body=b"b")
    assert_quiet(shim)
    shim.send(container=shim.status_message(shim.concurrency))
    again, body = shim.read_request()
    assert (again.http.target, body) == (b"/first", b"a")
    assert (scope.http.context.attempt, again.http.context.attempt) == (0, 1)
    assert again.call != scope.call
    later, body = shim.read_request()
    assert (later.http.target, body) == (b"/second", b"b")
    assert later.http.context.attempt == 0
    shim.answer(later.call, b"2")
    shim.answer(again.call, b"1")
    assert first.read_response().body == b"1"
    assert second.read_response().body == b"2"


@pytest.mark.parametrize("reason", ["BUSY", "DRAINING"])
def test_a_refused_call_goes_to_another_container(ingress, pb, reason):
    shims = [ingress.scripted_shim(pb, concurrency=1) for _ in range(2)]
    client = ask_later(ingress, "POST", body=b"content")
    refused = wait_until(lambda: next((s for s in shims if not s.events.empty()), None), "a call")
    other = shims[1 - shims.index(refused)]
    scope, _body = refused.read_request()
    refused.send(refused.failed(scope.call, reason))
    scope, body = other.read_request()
    assert body == b"content"
    other.answer(scope.call, b"other")
    assert client.read_response().body == b"other"


def test_no_more_calls_than_are_free(ingress, pb):
    """Another ingress has most of its slots: once refused, only what it says is free is sent."""
    shim = ingress.scripted_shim(pb, concurrency=20)
    clients = [ask_later(ingress, target=f"/{i}") for i in range(20)]
    scopes = [shim.read_request()[0] for _ in clients]
    shim.send(*(shim.failed(scope.call, "BUSY") for scope in scopes))
    shim.send(container=shim.status_message(2))
    again = [shim.read_request()[0] for _ in range(2)]
    assert [scope.http.target for scope in again] == [scope.http.target for scope in scopes[:2]]
    # Then one more every 100 ms, so that slots nobody else wants are found.
    began = time.monotonic()
    again += [shim.read_request()[0] for _ in range(5)]
    assert time.monotonic() - began > 0.25
    assert [scope.http.target for scope in again] == [scope.http.target for scope in scopes[:7]]
    for _ in clients:
        scope = again.pop(0) if again else shim.read_request()[0]
        shim.answer(scope.call, scope.http.target)
    for i, client in enumerate(clients):
        assert client.read_response().body == b"/%d" % i


def test_no_more_calls_than_the_concurrency(ingress, pb):
    shim = ingress.scripted_shim(pb, concurrency=2)
    clients = [ask_later(ingress, target=f"/{i}") for i in range(4)]
    open_calls = [shim.read_request()[0] for _ in range(2)]
    assert_quiet(shim)
    for i in range(4):
        scope = open_calls.pop(0)
        shim.answer(scope.call, scope.http.target)
        shim.send(container=shim.status_message(1))
        if i < 2:
            open_calls.append(shim.read_request()[0])
    for i, client in enumerate(clients):
        assert client.read_response().body == b"/%d" % i


def test_a_draining_container_gets_nothing_new(ingress, pb):
    draining, other = ingress.scripted_shim(pb), None
    status = draining.status_message(0)
    status.state = pb.ContainerStatus.DRAINING
    draining.send(container=status)
    other = ingress.scripted_shim(pb)
    for _ in range(5):
        client = ask_later(ingress)
        scope, _body = other.read_request()
        other.answer(scope.call, b"other")
        assert client.read_response().body == b"other"
    assert draining.events.empty()


def test_a_container_that_says_goodbye_loses_its_calls(ingress, shim, pb):
    client = ask_later(ingress, "POST", body=b"x")
    shim.read_request()
    start = time.monotonic()
    shim.send(goodbye=pb.Goodbye(reason=pb.Goodbye.STOPPING))
    assert_error(client.read_response(), 502, "container_lost")
    assert time.monotonic() - start < 1.5


def test_a_closed_link_loses_its_calls(ingress, shim):
    client = ask_later(ingress, "POST", body=b"x")
    shim.read_request()
    start = time.monotonic()
    shim.close()
    assert_error(client.read_response(), 502, "container_lost")
    assert time.monotonic() - start < 1.5


def test_a_silent_link_loses_its_calls(stack, pb):
    stack.ingress = stack.start_ingress("--link-silent-timeout-ms", "1500")
    shim = stack.scripted_shim(pb)
    client = ask_later(stack, "POST", body=b"x")
    shim.read_request()
    shim.pongs = shim.acknowledges = False
    assert_error(client.read_response(), 502, "container_lost")


def test_an_idempotent_call_of_a_lost_container_goes_to_another(ingress, pb):
    lost = ingress.scripted_shim(pb)
    client = ask_later(ingress, "PUT", body=b"content")
    scope, _body = lost.read_request()
    assert scope.http.context.attempt == 0
    other = ingress.scripted_shim(pb)
    lost.close()
    scope, body = other.read_request()
    assert (scope.http.method, body) == (b"PUT", b"content")
    assert scope.http.context.attempt == 1
    other.answer(scope.call, b"other")
    assert client.read_response().body == b"other"


def test_a_restarted_shim_has_another_id_and_its_old_calls_fail(ingress, pb):
    old = ingress.scripted_shim(pb)
    client = ask_later(ingress, "POST", body=b"x")
    old.read_request()
    old.close()
    new = ingress.scripted_shim(pb)
    assert_error(client.read_response(), 502, "container_lost")
    late = ask_later(ingress)
    scope, _body = new.read_request()
    new.answer(scope.call, b"new")
    assert late.read_response().body == b"new"
