"""The shim, seen from a scripted ingress: what it says, and what it makes of wrong peers."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import threading
import time

import pytest

from harness import http, settings
from harness.deadline import wait_until
from harness.server import serve, serve_heads
from harness.stack import Stack
from harness.wire import FRAME_MIN, ScriptedIngress, fields_of

UNKNOWN_FIELD = b"\xfa\x3f\x03abc"
NOTICED_S = 0.05 if os.environ.get("PORTHOLE_STRICT_TIMING") == "1" else 0.25


def wait_ready(peer: ScriptedIngress, pb):
    """The status that says READY, of HELLO or behind it."""

    def ready():
        return next((status for status in [peer.hellos[-1].status, *peer.statuses]
                     if status.state == pb.ContainerStatus.READY), None)

    peer.wait_hello()
    peer.wait(ready, "READY")
    return ready()


@pytest.fixture
def wired(stack: Stack, server, pb) -> Stack:
    """A shim in front of the scripted server, welcomed by a scripted ingress."""
    stack.peer = stack.scripted_ingress(pb)
    stack.shim = stack.start_shim(stack.peer.endpoint, server=server)
    wait_ready(stack.peer, pb)
    return stack


@pytest.fixture
def peer(wired) -> ScriptedIngress:
    return wired.peer


def failure_of(peer: ScriptedIngress, call: int):
    """The call_failed of a call; whatever came of its answer before is passed over."""
    while True:
        event = peer.next_event()
        if event.call == call and event.WhichOneof("kind") == "call_failed":
            return event.call_failed


def assert_works(peer: ScriptedIngress, body: bytes = b"hello") -> None:
    start, got = peer.read_answer(peer.ask())
    assert (start.status, got) == (200, body)


# ---- what it says

def test_hello_says_what_an_ingress_needs(stack, server, pb):
    peer = stack.scripted_ingress(pb)
    stack.start_shim(peer.endpoint, *settings.concurrency(7), "--zone", "z1", server=server,
                     function="fun")
    hello = peer.wait_hello()
    assert hello.version == 1
    assert len(hello.container) == 16
    assert (hello.function, hello.concurrency, hello.zone) == ("fun", 7, "z1")
    assert hello.initial_credit >= 32 << 10
    # The server may be found to accept before or after it.
    status = wait_ready(peer, pb)
    assert status.free_slots == 7
    assert hello.status.free_slots == (7 if hello.status == status else 0)
    assert not hello.resume_token


def test_each_start_has_a_container_id_of_its_own(stack, server, pb):
    peer = stack.scripted_ingress(pb)
    for _ in range(2):
        stack.start_shim(peer.endpoint, server=server)
    assert peer.wait_hello(1).container != peer.wait_hello(2).container


def test_a_ping_is_answered(peer):
    peer.round_trip()


def test_a_call_reaches_the_server_as_it_was_sent(wired, peer):
    fields = [(b"Host", b"a.test"), (b"X-A", b"b"), (b"x-a", b"\xe9"), (b"X-Empty", b"")]
    start, body = peer.read_answer(peer.ask(b"/a%2F?b", method=b"M-SEARCH", fields=fields))
    assert (start.status, body) == (200, b"hello")
    request = wired.servers[0].next_request()
    assert (request.method, request.target) == (b"M-SEARCH", b"/a%2F?b")
    assert request.starting_with(b"host", b"x-") == fields


def test_a_small_answer_is_one_message(peer):
    call = peer.ask()
    batch = wait_until(lambda: next((b for b in drained(peer) if b.events), None), "an answer")
    assert [event.WhichOneof("kind") for event in batch.events] == [
        "http_response_start", "http_response_body"]
    assert batch.events[0].call == call
    assert not batch.events[1].http_response_body.more_body


def drained(peer):
    while not peer.batches.empty():
        yield peer.batches.get()


def test_large_pieces_travel_in_frames_of_their_own(wired, peer):
    data = os.urandom(300_000)
    wired.servers[0].script(serve(lambda request, conn: http.reply(body=data)))
    _start, body = peer.read_answer(peer.ask())
    assert body == data
    pieces = [event.http_response_body for batch in drained(peer) for event in batch.events
              if event.WhichOneof("kind") == "http_response_body"]
    assert all(bool(piece.body_frame_bytes) == (len(piece.body) >= FRAME_MIN) for piece in pieces)


def test_a_body_in_frames_of_its_own(wired, peer, pb):
    wired.servers[0].script(serve(lambda request, conn: http.reply(body=request.body)))
    data = os.urandom(20_000)
    call = peer.new_call()
    last = peer.event(call, None)
    scope = peer.scope(call, b"POST", fields=[(b"Host", b"a"), (b"Content-Length", b"20000")],
                       framing="LENGTH", sequence=0)
    last.http_request.body_frame_bytes = len(data)
    last.sequence = 1
    peer.calls[call].sent = 2
    peer.send(scope, last, payloads=[data])
    assert peer.read_answer(call)[1] == data


def test_a_chunked_request(wired, peer):
    wired.servers[0].script(serve(lambda request, conn: http.reply(
        body=request.body + (b" chunked" if request.chunked else b""))))
    call = peer.new_call()
    peer.send(peer.scope(call, b"POST", framing="CHUNKED"), peer.request(call, b"one ", True))
    peer.send(peer.request(call, b"two", True))
    peer.send(peer.request(call))
    assert peer.read_answer(call)[1] == b"one two chunked"


def test_headers_of_an_answer_come_as_they_are(wired, peer):
    fields = [(b"X-A", b"b"), (b"Set-Cookie", b"a"), (b"x-a", b"\xe9"), (b"Set-Cookie", b"b"),
              (b"X-Empty", b"")]
    wired.servers[0].script(serve(lambda request, conn: http.reply(fields=fields)))
    start, _body = peer.read_answer(peer.ask())
    assert [f for f in fields_of(start.headers) if f in fields] == fields


def test_it_stays_within_the_credit(stack, server, pb):
    window, size = 64 << 10, 4 << 20
    server.script(serve(lambda request, conn: http.reply(body=b"x" * size)))
    peer = stack.scripted_ingress(pb, credit=window)
    peer.acknowledges = False
    stack.start_shim(peer.endpoint, server=server)
    call = peer.ask()
    got = 0
    peer.next_event("http_response_start", call)
    state = peer.calls[call]
    allowed = window
    while got < size:
        event = peer.next_event("http_response_body", call)
        got += len(event.http_response_body.body)
        assert state.cost <= allowed + 64
        if peer.events.empty():
            allowed = state.cost + window
            peer.send(calls=[pb.CallState(call=call, next=state.next, credit=allowed)])


def test_it_stops_the_client_when_the_server_does_not_read(wired, peer):
    release = wired.servers[0].gate()

    def lazy(request: http.Request, conn) -> bytes:
        assert release.wait(20)
        return http.reply(body=b"%d" % sum(map(len, conn.body_pieces(request))))

    wired.servers[0].script(serve_heads(lazy))
    size, piece = 64 << 20, b"x" * 16384
    call = peer.new_call()
    peer.send(peer.scope(call, b"POST", framing="LENGTH",
                         fields=[(b"Host", b"a"), (b"Content-Length", b"%d" % size)]))
    state = peer.calls[call]
    sent = cost = 0
    credit = peer.hellos[0].initial_credit

    def allowed() -> int:
        return max(credit, state.state.credit if state.state else 0)

    first_cost = 64 + 16 * 2 + len(b"HostaContent-Length%d" % size)
    cost = first_cost
    while sent < size:
        try:
            peer.wait(lambda: cost + 64 + len(piece) <= allowed() or release.is_set(), "credit", 1)
        except AssertionError:
            break
        peer.send(peer.request(call, piece, sent + len(piece) < size))
        sent, cost = sent + len(piece), cost + 64 + len(piece)
    assert sent < 32 << 20, "credit was given without end"
    release.set()
    while sent < size:
        peer.wait(lambda: cost + 64 + len(piece) <= allowed(), "credit")
        peer.send(peer.request(call, piece, sent + len(piece) < size))
        sent, cost = sent + len(piece), cost + 64 + len(piece)
    assert peer.read_answer(call)[1] == b"%d" % size


def test_a_cancel_closes_the_servers_connection_at_once(wired, peer, pb):
    ready = threading.Event()
    left: list[float] = []

    def hold(_request: http.Request, conn) -> None:
        ready.set()
        left.append(conn.wait_left(10))
        conn.close()

    wired.servers[0].script(serve(hold))
    call = peer.ask()
    assert ready.wait(5)
    start = time.monotonic()
    peer.send(calls=[pb.CallState(call=call, cancel=True)])
    assert wired.servers[0].connections[0].finished.wait(5)
    assert left[0] - start < NOTICED_S
    wired.servers[0].script(serve(lambda request, conn: http.reply(body=b"hello")))
    assert_works(peer)


@pytest.mark.parametrize("script, reason", [
    (lambda conn: conn.read_request(30), "SERVER_CLOSED"),
    (lambda conn: (conn.read_request(30), conn.send(b"nonsense\r\n\r\n")), "SERVER_MALFORMED"),
    (lambda conn: (conn.read_request(30),
                   conn.send(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20000 + b"\r\n\r\n")),
     "RESPONSE_HEAD_TOO_LARGE"),
])
def test_failures_of_the_server_are_told(wired, peer, pb, script, reason):
    wired.servers[0].script(script)
    failed = failure_of(peer, peer.ask(method=b"POST"))
    assert failed.reason == pb.CallFailed.Reason.Value(reason)
    assert failed.text


def test_a_port_that_nobody_listens_on(wired, peer, pb):
    wired.servers[0].stop_listening()
    failed = failure_of(peer, peer.ask(method=b"POST"))
    assert failed.reason == pb.CallFailed.SERVER_REFUSED
    assert failed.untouched


def test_more_than_the_concurrency_is_busy(stack, server, pb):
    release = server.gate()
    server.script(serve(lambda request, conn: release.wait(20) and http.reply(body=b"held")))
    peer = stack.scripted_ingress(pb)
    stack.start_shim(peer.endpoint, *settings.concurrency(1), server=server)
    first = peer.ask()
    server.next_request()
    failed = failure_of(peer, peer.ask())
    assert failed.reason == pb.CallFailed.BUSY
    assert failed.untouched
    release.set()
    assert peer.read_answer(first)[1] == b"held"


def test_a_call_that_takes_no_slot(stack, server, pb):
    """It is one of the shim's calls, and leaves the concurrency to others."""
    release = server.gate()
    server.script(serve(lambda request, conn: release.wait(20) and http.reply(body=b"held")))
    peer = stack.scripted_ingress(pb)
    shim = stack.start_shim(peer.endpoint, *settings.concurrency(1), server=server)
    slotless = [pb.CallContext(slotless=True), pb.CallContext(slotless=True)]
    calls = [peer.ask(context=context) for context in (slotless[0], None, slotless[1])]
    for _ in calls:
        server.next_request()
    assert failure_of(peer, peer.ask()).reason == pb.CallFailed.BUSY
    shim.signal(signal.SIGTERM)
    shim.wait_log(r"draining.* calls=3")
    release.set()
    whole = set()
    while len(whole) < 3:
        event = peer.next_event()
        if event.WhichOneof("kind") == "http_response_body" and not event.http_response_body.more_body:
            whole.add(event.call)
    assert whole == set(calls)
    peer.tell_done(*calls)


def test_a_call_that_is_refused_gets_no_credit_for_more(stack, server, pb):
    """The ingress has to hold the whole of it, for another container."""
    release = server.gate()
    server.script(serve(lambda request, conn: release.wait(20) and http.reply(body=b"held")))
    peer = stack.scripted_ingress(pb)
    stack.start_shim(peer.endpoint, *settings.concurrency(1), server=server)
    first = peer.ask()
    server.next_request()
    call = peer.new_call()
    peer.send(peer.scope(call, b"POST", fields=[(b"Content-Length", b"100000")], framing="LENGTH"),
              *(peer.request(call, b"x" * 4000, more_body=True) for _ in range(7)))
    assert failure_of(peer, call).reason == pb.CallFailed.BUSY
    peer.round_trip()
    state = peer.calls[call].state
    assert state is None or state.credit <= 32768 + 1024, state
    release.set()
    assert peer.read_answer(first)[1] == b"held"


def limit_descriptors(pid: int, count: int) -> None:
    """So many and no more, from now on; the hard limit stays."""
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={count}:"], check=True)


def lowest_free_descriptor(pid: int) -> int:
    """With this limit it has not one more, wherever there are gaps."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return next(fd for fd in itertools.count() if fd not in taken)


def test_out_of_descriptors_is_busy_until_they_come_back(wired, peer, pb):
    """Neither the server's fault nor a reason to be asked all the time."""
    limit_descriptors(wired.shim.pid, lowest_free_descriptor(wired.shim.pid))
    failed = failure_of(peer, peer.ask(method=b"POST"))
    assert failed.reason == pb.CallFailed.BUSY and failed.untouched
    assert failure_of(peer, peer.ask()).reason == pb.CallFailed.BUSY
    start, heard = time.monotonic(), len(peer.statuses)
    for _ in range(3):  # as an ingress does: a call for each word of free slots
        peer.wait(lambda: len(peer.statuses) > heard, "free slots")
        heard = len(peer.statuses)
        assert peer.statuses[-1].free_slots > 0
        assert failure_of(peer, peer.ask()).reason == pb.CallFailed.BUSY
    assert time.monotonic() - start > 0.5
    limit_descriptors(wired.shim.pid, 1024)
    peer.wait(lambda: len(peer.statuses) > heard, "free slots")
    assert_works(peer)


# ---- rules that an ingress may break: each ends that call, and nothing else

def with_fields(*fields: tuple[bytes, bytes]):
    return lambda peer, pb, call: [peer.scope(call, fields=list(fields)), peer.request(call)]


BROKEN = {
    "http.request first": lambda peer, pb, call: [peer.request(call)],
    "the scope twice": lambda peer, pb, call: [
        peer.scope(call, framing="CHUNKED"), peer.scope(call)],
    "a gap": lambda peer, pb, call: [
        peer.scope(call, framing="CHUNKED"), peer.request(call, b"x", sequence=7)],
    "a response": lambda peer, pb, call: [peer.scope(call, framing="CHUNKED"), peer.event(
        call, http_response_start=pb.HttpResponseStart(status=200))],
    "websocket.receive": lambda peer, pb, call: [peer.scope(call, framing="CHUNKED"), peer.event(
        call, websocket_receive=pb.WebsocketMessage(data=b"x"))],
    "no kind": lambda peer, pb, call: [peer.scope(call, framing="CHUNKED"), peer.event(call)],
    "CR LF in a value": with_fields((b"Host", b"a"), (b"X-A", b"b\r\nX-B: c")),
    "NUL in a value": with_fields((b"Host", b"a"), (b"X-A", b"b\0")),
    "colon in a name": with_fields((b"Host", b"a"), (b"X:A", b"b")),
    "space in a method": lambda peer, pb, call: [
        peer.scope(call, b"GET /x"), peer.request(call)],
    "no method": lambda peer, pb, call: [peer.scope(call, b""), peer.request(call)],
    "CR LF in the target": lambda peer, pb, call: [
        peer.scope(call, target=b"/ HTTP/1.1\r\nX: y\r\n\r\n"), peer.request(call)],
    "space in the target": lambda peer, pb, call: [
        peer.scope(call, target=b"/a b"), peer.request(call)],
    "no target": lambda peer, pb, call: [peer.scope(call, target=b""), peer.request(call)],
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_ends_that_call_only(wired, peer, pb, rule):
    release = wired.servers[0].gate()

    def hold(request: http.Request, conn) -> bytes:
        if request.target == b"/other":
            assert release.wait(20)
        return http.reply(body=b"hello")

    wired.servers[0].script(serve(hold))
    other = peer.ask(b"/other")
    assert wired.servers[0].next_request().target == b"/other"
    call = peer.new_call()
    peer.send(*BROKEN[rule](peer, pb, call))
    failed = failure_of(peer, call)
    assert failed.reason == pb.CallFailed.PROTOCOL_VIOLATION, failed
    assert failed.text
    assert wired.servers[0].requests.empty(), "the server got a whole request"
    release.set()
    assert peer.read_answer(other)[1] == b"hello"
    assert_works(peer)


def test_more_body_than_content_length_never_reaches_the_server(wired, peer, pb):
    call = peer.new_call()
    peer.send(peer.scope(call, b"POST", fields=[(b"Host", b"a"), (b"Content-Length", b"3")],
                         framing="LENGTH"), peer.request(call, b"abcGET /smuggled HTTP/1.1\r\n\r\n"))
    failed = failure_of(peer, call)
    assert failed.reason == pb.CallFailed.PROTOCOL_VIOLATION
    assert b"smuggled" not in wired.servers[0].seen


def test_less_body_than_content_length_is_a_violation(wired, peer, pb):
    call = peer.new_call()
    peer.send(peer.scope(call, b"POST", fields=[(b"Host", b"a"), (b"Content-Length", b"3")],
                         framing="LENGTH"), peer.request(call, b"a"))
    assert failure_of(peer, call).reason == pb.CallFailed.PROTOCOL_VIOLATION


def test_more_than_the_credit_is_a_violation(wired, peer, pb):
    release = wired.servers[0].gate()
    wired.servers[0].script(serve_heads(lambda request, conn: release.wait(10) and None))
    call = peer.new_call()
    window = peer.wait_hello().initial_credit
    peer.send(peer.scope(call, b"POST", framing="CHUNKED"))
    for _ in range(window // (50 * 4000) + 40):
        peer.send(*(peer.request(call, b"x" * 4000, True) for _ in range(50)))
    assert failure_of(peer, call).reason == pb.CallFailed.PROTOCOL_VIOLATION
    release.set()


@pytest.mark.parametrize("kind", ["lifespan", "function"])
def test_a_scope_that_it_does_not_know(peer, pb, kind):
    call = peer.new_call()
    scope = {"lifespan": pb.LifespanScope(), "function": pb.FunctionScope(name="f")}[kind]
    peer.send(peer.event(call, **{kind: scope}))
    assert failure_of(peer, call).reason in (pb.CallFailed.NOT_SUPPORTED,
                                             pb.CallFailed.PROTOCOL_VIOLATION)
    assert_works(peer)


def test_events_of_a_call_that_is_over_are_ignored(peer):
    call = peer.ask()
    peer.read_answer(call)
    peer.tell_done(call)
    peer.send(peer.request(call, b"late"))
    peer.send(peer.request(call, b"later"), done=[call])
    assert_works(peer)


def test_states_of_calls_that_were_never_made_are_ignored(peer, pb):
    for number in (0, 999, 1 << 63, (1 << 64) - 1):
        peer.send(calls=[pb.CallState(call=number, next=9, credit=1 << 60, cancel=True)],
                  done=[number])
    assert_works(peer)


def test_unknown_fields_are_ignored(peer, pb):
    call = peer.new_call()
    batch = pb.Batch()
    batch.events.add().ParseFromString(peer.scope(call).SerializeToString() + UNKNOWN_FIELD)
    batch.events.add().CopyFrom(peer.request(call))
    peer.send_raw([batch.SerializeToString() + UNKNOWN_FIELD])
    assert peer.read_answer(call)[1] == b"hello"


@pytest.mark.parametrize("frames", [
    [b"\xff" * 40], [b"", b"x"], [bytes(1 << 20)], [b"\x0a\x05abc"],
], ids=["noise", "a payload too many", "zeros", "half a message"])
def test_garbage_is_answered_with_goodbye(wired, peer, pb, frames):
    """And the ingress is dialled again: it may have been one bad moment."""
    peer.wait_hello()
    peer.send_raw(frames)
    peer.wait(lambda: peer.goodbyes, "GOODBYE")
    assert peer.goodbyes[0].reason == pb.Goodbye.MALFORMED
    peer.wait_hello(2)
    assert_works(peer)


# ---- links

def test_no_welcome_means_another_try(stack, server, pb):
    peer = stack.scripted_ingress(pb, welcome=False)
    stack.start_shim(peer.endpoint, server=server, wait=False)
    first = peer.wait_hello(1)
    peer.welcomes_peers = True
    second = peer.wait_hello(2, 15)
    assert first.container == second.container
    assert_works(peer)


def test_it_waits_for_an_ingress_that_is_not_there_yet(stack, server, pb):
    first = stack.scripted_ingress(pb)
    endpoint = first.endpoint
    first.close()
    shim = stack.start_shim(endpoint, server=server, wait=False)
    wait_until(lambda: shim.log, "its first words")
    peer = stack.scripted_ingress(pb, endpoint=endpoint)
    shim.wait_registered(15)
    assert_works(peer)


def test_a_new_ingress_at_the_same_place_is_found(wired, peer, pb):
    release = wired.servers[0].gate()
    wired.servers[0].script(serve(lambda request, conn: release.wait(20) and http.reply(body=b"old")))
    peer.ask()
    wired.servers[0].next_request()
    at = len(wired.shim.log)
    peer.close()
    new = wired.scripted_ingress(pb, endpoint=peer.endpoint)
    wired.shim.wait_registered(15, at)
    assert new.wait_hello().container == peer.hellos[0].container
    release.set()
    wired.servers[0].script(serve(lambda request, conn: http.reply(body=b"hello")))
    wired.servers[0].drop_connections()
    assert_works(new)


def test_two_ingresses_at_once(stack, server, pb):
    peers = [stack.scripted_ingress(pb) for _ in range(2)]
    stack.start_shim([peer.endpoint for peer in peers], server=server)
    for peer in peers:
        peer.wait_hello()
        assert_works(peer)


def test_sigterm_drains(wired, peer, pb):
    release = wired.servers[0].gate()
    wired.servers[0].script(serve(lambda request, conn: release.wait(20) and http.reply(body=b"held")))
    call = peer.ask()
    wired.servers[0].next_request()
    wired.shim.signal(signal.SIGTERM)
    peer.wait(lambda: any(s.state == pb.ContainerStatus.DRAINING for s in peer.statuses), "DRAINING")
    failed = failure_of(peer, peer.ask())
    assert (failed.reason, failed.untouched) == (pb.CallFailed.DRAINING, True)
    release.set()
    assert peer.read_answer(call)[1] == b"held"
    peer.tell_done(call)
    wired.shim.expect_exit(0)
    peer.wait(lambda: peer.goodbyes, "GOODBYE")
    assert peer.goodbyes[0].reason == pb.Goodbye.STOPPING
