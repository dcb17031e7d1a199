"""Resuming a link, when the other side lies: a scripted shim resumes at the ingress, a scripted
ingress welcomes the shim.  Whoever says what cannot be ends that call and nothing else."""

from __future__ import annotations

import socket
import time
from typing import Any, Callable

import pytest

from harness import http
from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.server import serve_heads
from harness.stack import Stack, free_port
from harness.wire import ScriptedIngress, ScriptedShim

LARGEST = (1 << 64) - 1


# ---- a shim that resumes, at the ingress

class Resuming:
    """A shim with two calls: `call` is what the tests lie about, `other` must go on."""

    def __init__(self, stack: Stack, pb) -> None:
        self.stack = stack
        self.pb = pb
        self.shim = stack.scripted_shim(pb)
        self.client, self.call = self.ask()
        self.other_client, self.other = self.ask()
        self.shim.round_trip()  # it has acknowledged both events of both

    def ask(self):
        client = self.stack.client()
        client.send(http.request("POST", body=b"once"))
        scope, _ = self.shim.read_request()
        return client, scope.call

    def state(self, call: int, **more: Any):
        more = {"next": self.shim.calls[call].next, "credit": 1 << 20, **more}
        return self.pb.CallState(call=call, **more)

    def resume(self, *states: Any, **changes: Any) -> ScriptedShim:
        """HELLO on another connection.  The old one stays, and says nothing any more."""
        old = self.shim
        new = self.stack.scripted_shim(self.pb, hello=False, container=old.container)
        new.calls = old.calls
        welcome = old.welcomes[-1]
        changes = {"ingress_epoch": welcome.ingress_epoch, "resume_token": welcome.resume_token,
                   **changes}
        hello = new.hello_message(**changes)
        hello.calls.extend(states)
        new.send(hello=hello)
        new.wait(lambda: new.welcomes, "WELCOME")
        self.shim = new
        return new

    def answers(self, call: int, client) -> None:
        self.shim.answer(call, b"answer")
        assert assert_answer(client.read_response()).body == b"answer"
        assert client.is_closed_now() is False

    def other_goes_on(self) -> None:
        self.answers(self.other, self.other_client)


@pytest.fixture
def resuming(stack: Stack, pb) -> Resuming:
    stack.ingress = stack.start_ingress()
    return Resuming(stack, pb)


def test_a_resume(resuming):
    shim = resuming.resume(resuming.state(resuming.call), resuming.state(resuming.other))
    welcome = shim.welcomes[0]
    assert welcome.resumed
    assert sorted((s.call, s.next) for s in welcome.calls) == [
        (resuming.call, 0), (resuming.other, 0)]
    resuming.answers(resuming.call, resuming.client)
    resuming.other_goes_on()
    # and the link is as good as new
    client, call = resuming.ask()
    assert call > resuming.other
    resuming.answers(call, client)


# What it says of `call`, beside the truth of `other`; the call then fails.
LIES: dict[str, Callable[[Resuming], list[Any]]] = {
    "more than was sent": lambda r: [r.state(r.call, next=3)],
    "the largest number": lambda r: [r.state(r.call, next=LARGEST)],
    "less than it had acknowledged": lambda r: [r.state(r.call, next=1)],
    "nothing of what it had acknowledged": lambda r: [r.state(r.call, next=0)],
    "no such call": lambda r: [],
    "twice, and less the second time": lambda r: [r.state(r.call), r.state(r.call, next=1)],
    "twice, and less the first time": lambda r: [r.state(r.call, next=1), r.state(r.call)],
    "another call in its place": lambda r: [r.pb.CallState(call=77, next=2)],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_shim_that_lies_at_a_resume_loses_that_call_only(resuming, lie):
    states = LIES[lie](resuming)
    shim = resuming.resume(*states, resuming.state(resuming.other))
    assert_error(resuming.client.read_response(), 502, "protocol_violation")
    resuming.other_goes_on()
    assert shim.welcomes[0].resumed and not shim.goodbyes


HARMLESS: dict[str, Callable[[Resuming], list[Any]]] = {
    "a call that never was": lambda r: [r.state(r.call), r.pb.CallState(call=99, next=7)],
    "no call": lambda r: [r.pb.CallState(call=0, next=1), r.state(r.call)],
    "the largest call": lambda r: [r.pb.CallState(call=LARGEST, next=LARGEST), r.state(r.call)],
    "the same call twice": lambda r: [r.state(r.call), r.state(r.call)],
    "the largest credit": lambda r: [r.state(r.call, credit=LARGEST)],
    "less credit than it had given": lambda r: [r.state(r.call, credit=0)],
    "stop": lambda r: [r.state(r.call, stop=True), r.state(r.call, stop=True)],
    "cancel, which only an ingress says": lambda r: [r.state(r.call, cancel=True)],
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_a_shim_may_say_at_a_resume(resuming, what):
    states = HARMLESS[what](resuming)
    shim = resuming.resume(resuming.state(resuming.other), *states)
    welcome = shim.welcomes[0]
    assert welcome.resumed
    assert sorted(s.call for s in welcome.calls) == [resuming.call, resuming.other]
    resuming.answers(resuming.call, resuming.client)
    resuming.other_goes_on()


def test_a_call_that_has_ended_is_not_resumed(resuming):
    state = resuming.state(resuming.call)
    resuming.answers(resuming.call, resuming.client)
    shim = resuming.resume(state, resuming.state(resuming.other))
    assert [s.call for s in shim.welcomes[0].calls] == [resuming.other]
    # what it still says of it counts for nothing
    shim.send(shim.body(resuming.call, b"more", sequence=2))
    resuming.other_goes_on()
    assert resuming.client.sock_peek() == b""


def test_events_that_come_twice_are_dropped_by_their_number(resuming):
    """Numbers that go backwards: the shim begins its answer once more."""
    shim, call = resuming.shim, resuming.call
    fields = [(b"Content-Length", b"6")]
    shim.send(shim.start(call, fields=fields), shim.body(call, b"ans", more_body=True))
    resuming.client.read_until(b"ans")
    shim = resuming.resume(resuming.state(call), resuming.state(resuming.other))
    assert (call, 2) in [(s.call, s.next) for s in shim.welcomes[0].calls]
    shim.send(shim.start(call, 201, fields, sequence=0),
              shim.body(call, b"ANS", more_body=True, sequence=1),
              shim.body(call, b"wer", sequence=2))
    assert resuming.client.read_exactly(3) == b"wer"
    assert resuming.client.sock_peek() == b""
    resuming.other_goes_on()


def test_events_that_are_left_out_are_a_violation(resuming):
    shim = resuming.resume(resuming.state(resuming.call), resuming.state(resuming.other))
    shim.send(shim.start(resuming.call, sequence=1))
    assert_error(resuming.client.read_response(), 502, "protocol_violation")
    resuming.other_goes_on()


TOKENS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda token: b"",
    "its first byte": lambda token: token[:1],
    "its first half": lambda token: token[:16],
    "all but its last byte": lambda token: token[:-1],
    "one byte more": lambda token: token + b"\0",
    "twice": lambda token: token * 2,
    "a thousand bytes": lambda token: token + bytes(1000),
    "another first byte": lambda token: bytes([token[0] ^ 0x80]) + token[1:],
    "another last byte": lambda token: token[:-1] + bytes([token[-1] ^ 1]),
    "zeros": lambda token: bytes(len(token)),
}


@pytest.mark.parametrize("which", TOKENS)
def test_a_token_that_is_not_the_links_registers_afresh(resuming, which):
    """The older link is replaced, its calls are lost, and the new one has a token of its own."""
    token = resuming.shim.welcomes[0].resume_token
    shim = resuming.resume(resuming.state(resuming.call), resuming.state(resuming.other),
                           resume_token=TOKENS[which](token))
    welcome = shim.welcomes[0]
    assert not welcome.resumed and not welcome.calls
    assert len(welcome.resume_token) == 32 and welcome.resume_token != token
    assert_error(resuming.client.read_response(), 502, "container_lost")
    assert_error(resuming.other_client.read_response(), 502, "container_lost")
    # what the older connection says counts for nothing
    shim.calls = {}
    client, call = resuming.ask()
    assert call == 1  # numbers begin again
    resuming.answers(call, client)


@pytest.mark.parametrize("epoch", [b"", b"e" * 15, b"e" * 16, b"e" * 17])
def test_the_token_alone_decides(resuming, epoch):
    """A token is of one ingress's start; so is the epoch, which need not be looked at."""
    shim = resuming.resume(resuming.state(resuming.call), resuming.state(resuming.other),
                           ingress_epoch=epoch)
    assert shim.welcomes[0].resumed
    resuming.answers(resuming.call, resuming.client)
    resuming.other_goes_on()


@pytest.mark.parametrize("changes", [{"container": b"c" * 16}, {"function": "another"}])
def test_the_token_of_another_container_is_worth_nothing(resuming, changes):
    old = resuming.shim
    new = resuming.stack.scripted_shim(resuming.pb, hello=False, container=old.container)
    hello = new.hello_message(resume_token=old.welcomes[0].resume_token, **changes)
    hello.calls.append(resuming.state(resuming.call))
    new.send(hello=hello)
    new.wait(lambda: new.welcomes, "WELCOME")
    assert not new.welcomes[0].resumed and not new.welcomes[0].calls
    resuming.answers(resuming.call, resuming.client)  # over the connection that has it
    resuming.other_goes_on()


def test_a_second_hello_on_a_link_that_was_resumed(resuming):
    states = [resuming.state(resuming.call), resuming.state(resuming.other)]
    shim = resuming.resume(*states)
    hello = shim.hello_message(resume_token=shim.welcomes[0].resume_token)
    hello.calls.extend(states)
    shim.send(hello=hello)
    shim.wait(lambda: shim.goodbyes, "GOODBYE")
    assert shim.goodbyes[0].reason == resuming.pb.Goodbye.REFUSED
    for client in (resuming.client, resuming.other_client):
        assert_error(client.read_response(), 502, "container_lost")


def test_a_link_that_spoke_garbage_is_not_resumed(resuming):
    old = resuming.shim
    old.send_raw([b"\xff" * 20])
    old.wait(lambda: old.goodbyes, "GOODBYE")
    assert old.goodbyes[0].reason == resuming.pb.Goodbye.MALFORMED
    for client in (resuming.client, resuming.other_client):
        assert_error(client.read_response(), 502, "container_lost")
    shim = resuming.resume(resuming.state(resuming.call), resuming.state(resuming.other))
    assert not shim.welcomes[0].resumed and not shim.welcomes[0].calls
    shim.calls = {}
    resuming.answers(*reversed(resuming.ask()))


def test_the_old_connection_cannot_take_the_link_back(resuming):
    """It has the token too; but from the resume on nothing counts that comes over it."""
    old, states = resuming.shim, [resuming.state(resuming.call), resuming.state(resuming.other)]
    resuming.resume(*states)
    hello = old.hello_message(resume_token=old.welcomes[0].resume_token)
    hello.calls.extend(states)
    old.send(hello=hello)
    old.send(hello=old.hello_message())
    old.send(ping=resuming.pb.Ping(id=99))
    resuming.shim.round_trip()
    resuming.answers(resuming.call, resuming.client)
    resuming.other_goes_on()
    assert len(old.welcomes) == 1 and not old.goodbyes and old.ponged != 99


def test_resuming_over_and_over(resuming):
    for _ in range(20):
        shim = resuming.resume(resuming.state(resuming.call), resuming.state(resuming.other))
        assert shim.welcomes[0].resumed
    resuming.answers(resuming.call, resuming.client)
    resuming.other_goes_on()


# ---- a second address of the same ingress

def second_hello(resuming, *epochs: bytes) -> ScriptedShim:
    """HELLO of the same container without its token, as by another address."""
    new = resuming.stack.scripted_shim(resuming.pb, hello=False,
                                       container=resuming.shim.container)
    new.send(hello=linked(new, *epochs))
    return new


def linked(shim: ScriptedShim, *epochs: bytes):
    hello = shim.hello_message()
    hello.linked_epochs.extend(epochs)
    return hello


@pytest.mark.parametrize("others", [[], [b"", b"o" * 16, b"o" * 17]])
def test_a_shim_that_has_a_link_here_is_told_so(resuming, others):
    epoch = resuming.shim.welcomes[0].ingress_epoch
    new = second_hello(resuming, *others, epoch)
    new.wait(lambda: new.goodbyes, "GOODBYE")
    goodbye = new.goodbyes[0]
    assert (goodbye.reason, goodbye.ingress_epoch) == (resuming.pb.Goodbye.LINKED, epoch)
    assert not new.welcomes
    # what it says afterwards counts for nothing
    new.hello()
    resuming.answers(resuming.call, resuming.client)
    resuming.other_goes_on()
    assert not new.welcomes


@pytest.mark.parametrize("epochs", [[], [b""], [b"o" * 16], [b"o" * 17]])
def test_a_shim_that_does_not_say_so_replaces_its_link(resuming, epochs):
    new = second_hello(resuming, *epochs)
    new.wait(lambda: new.welcomes, "WELCOME")
    assert not new.welcomes[0].resumed
    assert_error(resuming.client.read_response(), 502, "container_lost")


def test_a_shim_that_says_so_wrongly_registers(stack, pb):
    """Its link is lost here, and it does not know yet."""
    stack.ingress = stack.start_ingress()
    first = stack.scripted_shim(pb)
    epoch = first.welcomes[0].ingress_epoch
    other = stack.scripted_shim(pb, hello=False)  # another container
    other.send(hello=linked(other, epoch))
    other.wait(lambda: other.welcomes, "WELCOME")
    assert not other.goodbyes


# ---- an ingress that welcomes, at the shim

class Welcoming:
    """A scripted ingress behind a line that can be cut, with two calls at the server: `call` is
    what the tests lie about, `other` must go on.  Both answers have begun: the shim has sent
    two events of each, and they are acknowledged."""

    def __init__(self, stack: Stack, server, pb, **welcome: Any) -> None:
        self.pb = pb
        self.server = server
        self.gate = server.gate()
        server.script(serve_heads(self.answer))
        self.peer: ScriptedIngress = stack.scripted_ingress(pb, welcome=False)
        stack.relay = self.relay = stack.start_relay(self.peer.endpoint.removeprefix("tcp://"))
        self.shim = stack.start_shim(self.relay.endpoint, server=server, wait=False)
        self.peer.wait_hello()
        self.peer.welcome(**welcome)
        self.shim.wait_log("msg=ready")
        self.call, self.other = (self.begin() for _ in range(2))
        self.peer.round_trip()

    def answer(self, request: http.Request, conn) -> bytes:
        b"".join(conn.body_pieces(request))
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nans")
        if not self.gate.wait(30):
            raise AssertionError("nobody opened the gate")
        return b"wer"

    def begin(self) -> int:
        call = self.peer.ask()
        self.server.next_request()
        self.peer.next_event("http_response_start", call)
        assert self.peer.next_event("http_response_body", call).http_response_body.body == b"ans"
        return call

    def cut(self) -> Any:
        """Returns the HELLO of the resume."""
        count = len(self.peer.hellos)
        self.relay.cut()
        return self.peer.wait_hello(count + 1)

    def state(self, call: int, **more: Any):
        more = {"next": self.peer.calls[call].next, "credit": 1 << 20, **more}
        return self.pb.CallState(call=call, **more)

    def welcome(self, *states: Any, resumed: bool = True, **changes: Any) -> None:
        welcome = self.pb.Welcome(
            version=1, ingress_epoch=self.peer.epoch, initial_credit=1 << 20,
            resume_token=b"t" * 32, resumed=resumed, calls=states)
        for name, value in changes.items():
            setattr(welcome, name, value)
        self.peer.send(welcome=welcome)

    def rest_of(self, call: int) -> None:
        self.gate.set()
        rest = self.peer.next_event("http_response_body", call).http_response_body
        assert (rest.body, rest.more_body) == (b"wer", False)

    def connection_of(self, call: int):
        return self.server.connections[call - 1]  # one after the other, from 1


@pytest.fixture
def welcoming(stack: Stack, server, pb) -> Welcoming:
    return Welcoming(stack, server, pb)


def test_what_a_shim_says_to_resume(welcoming):
    hello = welcoming.cut()
    assert hello.container == welcoming.peer.hellos[0].container
    assert hello.resume_token == b"t" * 32
    assert hello.ingress_epoch == welcoming.peer.epoch
    assert sorted((s.call, s.next) for s in hello.calls) == [
        (welcoming.call, 2), (welcoming.other, 2)]
    assert all(s.credit >= 32768 for s in hello.calls)
    welcoming.welcome(welcoming.state(welcoming.call), welcoming.state(welcoming.other))
    welcoming.shim.wait_log("link resumed")
    welcoming.gate.set()
    for _ in range(2):
        assert welcoming.peer.next_event("http_response_body").http_response_body.body == b"wer"
    assert welcoming.server.requests.empty()


INGRESS_LIES: dict[str, Callable[[Welcoming], list[Any]]] = {
    "more than was sent": lambda w: [w.state(w.call, next=3)],
    "the largest number": lambda w: [w.state(w.call, next=LARGEST)],
    "less than it had acknowledged": lambda w: [w.state(w.call, next=1)],
    "nothing of what it had acknowledged": lambda w: [w.state(w.call, next=0)],
    "twice, and less the second time": lambda w: [w.state(w.call), w.state(w.call, next=1)],
    "twice, and less the first time": lambda w: [w.state(w.call, next=1), w.state(w.call)],
}


@pytest.mark.parametrize("lie", INGRESS_LIES)
def test_an_ingress_that_lies_at_a_resume_loses_that_call_only(welcoming, lie):
    welcoming.cut()
    welcoming.welcome(*INGRESS_LIES[lie](welcoming), welcoming.state(welcoming.other))
    failed = welcoming.peer.next_event("call_failed", welcoming.call).call_failed
    assert failed.reason == welcoming.pb.CallFailed.PROTOCOL_VIOLATION
    assert "at a resume it has other events than were sent" in failed.text
    wait_until(welcoming.connection_of(welcoming.call).is_closed_now, "the server is told")
    welcoming.rest_of(welcoming.other)


INGRESS_HARMLESS: dict[str, Callable[[Welcoming], list[Any]]] = {
    "a call that never was": lambda w: [w.pb.CallState(call=99, next=7)],
    "no call": lambda w: [w.pb.CallState(call=0, next=1)],
    "the largest call": lambda w: [w.pb.CallState(call=LARGEST, next=LARGEST)],
    "the same call twice": lambda w: [w.state(w.other)],
    "the largest credit": lambda w: [w.state(w.other, credit=LARGEST)],
    "less credit than it had given": lambda w: [w.state(w.other, credit=0)],
    "stop, which only a shim says": lambda w: [w.state(w.other, stop=True)],
}


@pytest.mark.parametrize("what", INGRESS_HARMLESS)
def test_what_an_ingress_may_say_at_a_resume(welcoming, what):
    welcoming.cut()
    welcoming.welcome(welcoming.state(welcoming.other), *INGRESS_HARMLESS[what](welcoming))
    # `call` is not named: it has ended there
    wait_until(welcoming.connection_of(welcoming.call).is_closed_now, "the server is told")
    welcoming.rest_of(welcoming.other)
    # and new calls come, with numbers above all before
    assert welcoming.peer.read_answer(welcoming.peer.ask())[1] == b"answer"


def test_a_call_that_is_over_is_not_resumed(welcoming):
    states = [welcoming.state(welcoming.call), welcoming.state(welcoming.other)]
    welcoming.peer.tell_done(welcoming.call)
    wait_until(welcoming.connection_of(welcoming.call).is_closed_now, "it is forgotten")
    hello = welcoming.cut()
    assert [s.call for s in hello.calls] == [welcoming.other]
    welcoming.welcome(*states)
    welcoming.rest_of(welcoming.other)


def test_requests_that_come_twice_reach_the_server_once(welcoming):
    peer = welcoming.peer
    welcoming.cut()
    welcoming.welcome(welcoming.state(welcoming.call), welcoming.state(welcoming.other))
    peer.send(peer.scope(welcoming.other, target=b"/again", sequence=0),
              peer.request(welcoming.other, sequence=1))
    peer.round_trip()
    # a number below the newest is that of a call that is over, whatever it says
    peer.send(done=[welcoming.call])
    peer.send(peer.scope(welcoming.call, target=b"/again", sequence=0),
              peer.request(welcoming.call, sequence=1))
    peer.round_trip()
    assert welcoming.server.requests.empty()
    welcoming.rest_of(welcoming.other)


def test_what_comes_before_the_welcome_counts_for_nothing(welcoming):
    """Nothing has been agreed on: events, states and ends are all dropped."""
    peer = welcoming.peer
    welcoming.cut()
    peer.send(peer.scope(9, sequence=0), peer.request(9, sequence=0),
              calls=[welcoming.state(welcoming.other, next=LARGEST, cancel=True)],
              done=[welcoming.call])
    welcoming.welcome(welcoming.state(welcoming.call), welcoming.state(welcoming.other))
    welcoming.shim.wait_log("link resumed")
    welcoming.gate.set()
    for _ in range(2):
        assert peer.next_event("http_response_body").http_response_body.body == b"wer"
    assert welcoming.server.requests.empty()


def test_a_second_welcome_changes_nothing(welcoming):
    welcoming.cut()
    welcoming.welcome(welcoming.state(welcoming.call), welcoming.state(welcoming.other))
    welcoming.welcome(resumed=False, resume_token=b"u" * 32)
    welcoming.gate.set()
    for _ in range(2):
        assert welcoming.peer.next_event("http_response_body").http_response_body.body == b"wer"
    assert welcoming.cut().resume_token == b"t" * 32
    welcoming.welcome()


def test_a_hello_that_is_not_answered_is_said_again(welcoming):
    """The new connection fell silent as well: after 2 s there is another one, and since nobody was
    silent for 10 s nothing is lost."""
    welcoming.cut()
    start = time.monotonic()
    hello = welcoming.peer.wait_hello(3)
    assert 1.5 < time.monotonic() - start < 4
    assert sorted(s.call for s in hello.calls) == [welcoming.call, welcoming.other]
    welcoming.welcome(welcoming.state(welcoming.call), welcoming.state(welcoming.other))
    welcoming.shim.wait_log("link resumed")
    welcoming.gate.set()
    for _ in range(2):
        assert welcoming.peer.next_event("http_response_body").http_response_body.body == b"wer"
    assert welcoming.server.requests.empty() and "link lost" not in welcoming.shim.log


def test_a_connection_that_never_speaks_is_given_up(welcoming):
    """It is made, and nobody is behind it: there is time for the next one, and the one after."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(10)
        welcoming.relay.target(silent.getsockname()[1])
        welcoming.relay.drop()
        welcoming.relay.accept()
        with silent.accept()[0]:
            start = time.monotonic()
            with silent.accept()[0]:
                assert 1.5 < time.monotonic() - start < 4
                welcoming.relay.target(welcoming.peer.endpoint.removeprefix("tcp://"))
                hello = welcoming.peer.wait_hello(2)
    assert sorted(s.call for s in hello.calls) == [welcoming.call, welcoming.other]
    welcoming.welcome(welcoming.state(welcoming.call), welcoming.state(welcoming.other))
    welcoming.gate.set()
    for _ in range(2):
        assert welcoming.peer.next_event("http_response_body").http_response_body.body == b"wer"
    assert "link lost" not in welcoming.shim.log


def test_a_dial_goes_on_when_the_old_connection_speaks_again(welcoming):
    """It may speak in one direction only."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(10)
        welcoming.relay.target(silent.getsockname()[1])
        welcoming.peer.pongs = False
        with silent.accept()[0] as dialled:
            start = time.monotonic()
            welcoming.peer.pongs = True
            welcoming.peer.send(ping=welcoming.pb.Ping(id=1))
            dialled.settimeout(10)
            while dialled.recv(100):
                pass
            assert time.monotonic() - start > 1.5
    # That was not the ingress: the old connection, which speaks, goes on.
    welcoming.gate.set()
    for _ in range(2):
        assert welcoming.peer.next_event("http_response_body").http_response_body.body == b"wer"
    assert "link resumed" not in welcoming.shim.log


def lost(welcoming: Welcoming) -> None:
    """Both calls are void, and what comes next is new."""
    for call in (welcoming.call, welcoming.other):
        wait_until(welcoming.connection_of(call).is_closed_now, "the server is told")
    welcoming.shim.wait_log("link lost")


def test_a_welcome_that_does_not_resume_voids_all_calls(welcoming):
    welcoming.cut()
    welcoming.welcome(resumed=False)
    lost(welcoming)
    welcoming.peer.calls.clear()
    welcoming.peer.last_call = 0  # numbers begin again
    welcoming.gate.set()
    assert welcoming.peer.read_answer(welcoming.peer.ask())[1] == b"answer"


@pytest.mark.parametrize("reason", ["STALE", "STOPPING", "MALFORMED"])
def test_a_goodbye_to_a_resume_voids_all_calls(welcoming, reason):
    welcoming.cut()
    welcoming.peer.send(goodbye=welcoming.pb.Goodbye(
        reason=welcoming.pb.Goodbye.Reason.Value(reason), text="not you"))
    lost(welcoming)
    assert not welcoming.peer.wait_hello(3, 15).calls


@pytest.mark.parametrize("epoch", [b"e" * 16, b"", b"e" * 15, b"e" * 17])
def test_a_resume_by_another_ingress_is_none(welcoming, epoch):
    """A call is named by the ingress's epoch too: calls of another one cannot be meant."""
    welcoming.cut()
    welcoming.welcome(welcoming.state(welcoming.call), welcoming.state(welcoming.other),
                      ingress_epoch=epoch)
    lost(welcoming)
    assert not welcoming.peer.wait_hello(3, 15).calls


def test_a_resume_of_what_was_not_registered_is_none(stack, server, pb):
    peer = stack.scripted_ingress(pb, welcome=False)
    stack.start_shim(peer.endpoint, server=server, wait=False)
    peer.wait_hello()
    peer.send(welcome=pb.Welcome(version=1, ingress_epoch=peer.epoch, initial_credit=1 << 20,
                                 resume_token=b"t" * 32, resumed=True,
                                 calls=[pb.CallState(call=1, next=1)]))
    peer.welcomes_peers = True
    hello = peer.wait_hello(2, 15)
    assert not hello.resume_token and not hello.calls
    assert peer.read_answer(peer.ask())[1] == b"hello"


@pytest.mark.parametrize("token", [b"", b"t" * 31, b"t" * 33, b"t" * 1000])
def test_a_token_of_another_length_cannot_be_said(stack, server, pb, token):
    """Neither a part of it nor what lies behind it: such a link is not resumed."""
    welcoming = Welcoming(stack, server, pb, resume_token=token)
    hello = welcoming.cut()
    assert hello.resume_token == bytes(32)
    welcoming.welcome(resumed=False)
    lost(welcoming)


@pytest.mark.parametrize("what, seconds", [("closed", 0.9), ("silent", 5.0)])
def test_a_shim_gives_up_when_its_welcome_says(stack, server, pb, what, seconds):
    """Not after the 1 s and 10 s of an ingress that says nothing of it."""
    welcoming = Welcoming(stack, server, pb, silent_timeout_ms=2000, closed_timeout_ms=200)
    start = time.monotonic()
    if what == "closed":
        welcoming.relay.refuse()
        welcoming.relay.cut()
    else:
        welcoming.peer.pongs = False
    welcoming.shim.wait_log("link lost.*" + ("could not be made again" if what == "closed"
                                             else "fell silent"))
    assert time.monotonic() - start < seconds
    lost(welcoming)


def two_ends(stack, server, pb):
    """Two scripted ingresses, and a shim that has a link with the first when it meets the other."""
    first = stack.scripted_ingress(pb)
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    shim = stack.start_shim([first.endpoint, endpoint], server=server)
    return first, stack.scripted_ingress(pb, welcome=False, endpoint=endpoint), shim


def goodbye_linked(peer: ScriptedIngress, pb, epoch: bytes) -> None:
    peer.send(goodbye=pb.Goodbye(reason=pb.Goodbye.LINKED, ingress_epoch=epoch))


def test_a_shim_says_with_whom_it_has_links_and_waits(stack, server, pb):
    first, second, shim = two_ends(stack, server, pb)
    assert list(second.wait_hello().linked_epochs) == [first.epoch]
    goodbye_linked(second, pb, first.epoch)
    shim.wait_log("another address leads to the same ingress")
    assert first.read_answer(first.ask())[1] == b"hello"
    # the first is lost: now it dials the second
    first.welcomes_peers, second.welcomes_peers = False, True
    first.send(goodbye=pb.Goodbye(reason=pb.Goodbye.STOPPING))
    assert not second.wait_hello(2, 15).linked_epochs
    assert second.read_answer(second.ask())[1] == b"hello"


def test_a_goodbye_linked_by_somebody_else_is_a_refusal(stack, server, pb):
    first, second, shim = two_ends(stack, server, pb)
    second.wait_hello()
    goodbye_linked(second, pb, b"e" * 16)
    shim.wait_log("the ingress refuses this shim")
    assert first.read_answer(first.ask())[1] == b"hello"
