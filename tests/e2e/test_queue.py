"""Calls that wait: in order, bounded, for a bounded time, gone when their client is."""

from __future__ import annotations

import queue
import threading

from harness import http, settings
from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.server import RawServer, serve


class Turnstile:
    """Holds each request until let through, first come, first let, and notes in which order
    they came."""

    def __init__(self, server: RawServer) -> None:
        self.server = server
        self.order: list[bytes] = []
        self.arrived: queue.Queue[bytes] = queue.Queue()
        self.passes = 0
        self.held: list[object] = []
        self.changed = threading.Condition()
        server.script(serve(self._hold))

    def _hold(self, request: http.Request, conn) -> bytes | None:
        ticket = object()
        with self.changed:
            self.order.append(request.target)
            self.held.append(ticket)
        self.arrived.put(request.target)
        with self.changed:
            while not conn.is_closed_now():
                if self.held.index(ticket) < self.passes:
                    self.passes -= 1
                    self.held.remove(ticket)
                    return http.reply(body=request.target)
                self.changed.wait(0.02)
            self.held.remove(ticket)
        conn.close()
        return None

    def next(self) -> bytes:
        return self.arrived.get(timeout=10)

    def let(self, count: int = 1) -> None:
        with self.changed:
            self.passes += count
            self.changed.notify_all()


def ask_in_turn(stack, count: int, start: int = 0) -> list:
    """Clients whose requests arrive in this order at the ingress: what the ingress itself
    refuses is answered only after it has read what was sent before."""
    clients = []
    for i in range(start, start + count):
        client = stack.client()
        client.send(http.request(target=f"/{i}"))
        assert stack.ask(fields=[(b"Expect", b"an answer")]).status == 417
        clients.append(client)
    return clients


def test_calls_beyond_the_concurrency_wait_in_order(stack, server):
    gate = Turnstile(server)
    stack.pair(server, shim_flags=settings.concurrency(1))
    client = stack.client()
    client.send(http.request(target="/0"))
    assert gate.next() == b"/0"
    rest = ask_in_turn(stack, 10, 1)
    gate.let(11)
    assert client.read_response().body == b"/0"
    for i, waiting in enumerate(rest, 1):
        assert waiting.read_response().body == b"/%d" % i
    assert gate.order == [b"/%d" % i for i in range(11)]


def test_never_more_than_the_concurrency_at_once(stack, server):
    gate = Turnstile(server)
    stack.pair(server, shim_flags=settings.concurrency(3))
    clients = ask_in_turn(stack, 9)
    for done in range(0, 9, 3):
        assert {gate.next() for _ in range(3)} == {b"/%d" % i for i in range(done, done + 3)}
        assert gate.arrived.empty()
        gate.let(3)
        for client in clients[done:done + 3]:
            assert_answer(client.read_response())


def test_a_waiting_call_whose_client_leaves_is_taken_out(stack, server):
    gate = Turnstile(server)
    stack.pair(server, settings.waiting_calls(3), settings.concurrency(1))
    first, = ask_in_turn(stack, 1)
    assert gate.next() == b"/0"
    waiting = ask_in_turn(stack, 3, 1)
    # The queue is full: that the next is refused tells that all three have arrived.
    assert_error(stack.ask(target="/full"), 503, "queue_full")
    waiting[1].close()

    def room() -> bool:
        """One place is free again as soon as the leaving was noticed."""
        probe = stack.client()
        probe.send(http.request(target="/probe"))
        probe.sock.settimeout(0.25)
        try:
            probe.read_some(0.25)
        except AssertionError:
            return True
        return False

    wait_until(room, "the place of the call that left is free", 5)
    gate.let(4)
    assert first.read_response().body == b"/0"
    assert waiting[0].read_response().body == b"/1"
    assert waiting[2].read_response().body == b"/3"
    assert gate.order[:3] == [b"/0", b"/1", b"/3"]
    assert b"/2" not in gate.order


def test_a_running_call_whose_client_leaves_makes_room(stack, server):
    gate = Turnstile(server)
    stack.pair(server, shim_flags=settings.concurrency(1))
    first, = ask_in_turn(stack, 1)
    assert gate.next() == b"/0"
    second, = ask_in_turn(stack, 1, 1)
    first.close()
    assert gate.next() == b"/1"
    gate.let()
    assert second.read_response().body == b"/1"


def test_a_full_queue(stack, server):
    gate = Turnstile(server)
    stack.pair(server, settings.waiting_calls(2), settings.concurrency(1))
    clients = ask_in_turn(stack, 1)
    gate.next()
    clients += ask_in_turn(stack, 2, 1)
    assert_error(stack.ask(), 503, "queue_full")
    gate.let(3)
    for client in clients:
        assert_answer(client.read_response())
    gate.let()
    assert_answer(stack.ask())


def test_waiting_for_room_takes_only_so_long(stack, server):
    gate = Turnstile(server)
    stack.pair(server, settings.queue_timeout(400), settings.concurrency(1))
    clients = ask_in_turn(stack, 1)
    gate.next()
    assert_error(stack.ask(), 504, "queue_timeout")
    gate.let()
    assert_answer(clients[0].read_response())


def test_a_known_function_without_a_container_is_waited_for(stack, server):
    """The container goes, a call comes, another container comes: the call is answered."""
    stack.pair(server)
    assert_answer(stack.ask())
    stack.shim.stop()
    clients = ask_in_turn(stack, 5)
    stack.start_shim(stack.ingress, server=server)
    for client in clients:
        assert_answer(client.read_response())


def test_waiting_for_a_container_takes_only_so_long(stack, server):
    stack.pair(server, settings.queue_timeout(400))
    stack.shim.stop()
    assert_error(stack.ask(), 503, "no_container")


def test_a_body_is_read_no_further_than_its_first_credit_while_it_waits(stack, server):
    """Over a unix socket, whose buffer is small: the rest stays with the client."""
    path = stack.folder / "http"
    stack.ingress = stack.start_ingress(listen=f"unix:{path}")
    stack.start_shim(stack.ingress, server=server).stop()
    client = stack.client()
    client.send(http.request("POST", fields=[(b"Content-Length", b"8000000")]))
    taken = client.send_until_blocked(b"x" * 65536, 8_000_000, still_s=0.3)
    assert 32 << 10 <= taken < 1 << 20
    stack.start_shim(stack.ingress, server=server)
    client.send(b"x" * (8_000_000 - taken))
    assert_answer(client.read_response())
    assert server.next_request().body == b"x" * 8_000_000


def test_two_containers_share_the_calls(stack):
    stack.ingress = stack.start_ingress()
    gates = []
    for _ in range(2):
        server = stack.server()
        gates.append(Turnstile(server))
        stack.start_shim(stack.ingress, *settings.concurrency(1), server=server)
    clients = ask_in_turn(stack, 2)
    assert {gate.next() for gate in gates} == {b"/0", b"/1"}
    for gate in gates:
        gate.let()
    for client in clients:
        assert_answer(client.read_response())
