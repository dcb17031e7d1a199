"""Early and duplex: an answer that begins, or ends, while its request still comes."""

from __future__ import annotations

import threading
import time

import pytest

from harness import http
from harness.check import assert_answer
from harness.deadline import wait_until
from harness.peer import Closed
from harness.server import serve_heads
from harness.wire import cost_of

MIB = 1 << 20
GIB = 1 << 30
BLOCK = bytes(range(256)) * 4096
# Windows, sockets' buffers, and what is on the way: the rest of an upload never crosses.
ON_THE_WAY_MAX = 64 * MIB
FRAMINGS = ["length", "chunked"]


def framing_field(framing: str, length: int) -> tuple[bytes, bytes]:
    return ((b"Content-Length", b"%d" % length) if framing == "length"
            else (b"Transfer-Encoding", b"chunked"))


def block_of(framing: str) -> bytes:
    return BLOCK if framing == "length" else http.chunk(BLOCK)


class Upload:
    """Sends a body on and on, whatever is answered, in a thread of its own."""

    def __init__(self, client, framing: str, length: int) -> None:
        self.client = client
        self.block = block_of(framing)
        self.last = b"" if framing == "length" else b"0\r\n\r\n"
        self.length = length
        self.sent = 0
        self.broken = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            for _ in range(self.length // len(BLOCK)):
                self.client.sock.sendall(self.block)
                self.sent += len(BLOCK)
            self.client.sock.sendall(self.last)
        except OSError:
            self.broken = True

    def join(self) -> None:
        self.thread.join(30)
        assert not self.thread.is_alive(), "the upload hangs"


def answers_and_closes(status: int):
    def on_head(request: http.Request, conn) -> None:
        if request.method == b"GET":
            conn.send(http.reply(body=b"got"))
            return
        conn.send(http.reply(status, body=b"no", reason=b"No", fields=[(b"Connection", b"close")]))
        conn.close()

    return on_head


def answers_and_reads_nothing(status: int):
    def on_head(_request: http.Request, conn) -> None:
        conn.send(http.reply(status, body=b"no", reason=b"No"))
        assert conn.server.released.wait(30)

    return on_head


def answers_and_reads_on(status: int):
    def on_head(request: http.Request, conn) -> None:
        conn.send(http.reply(status, body=b"no", reason=b"No"))
        for piece in conn.body_pieces(request, 30):
            conn.server.taken += len(piece)

    return on_head


# ---- refused in the middle of an upload

@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("status, server_does", [
    (401, answers_and_closes), (413, answers_and_closes), (413, answers_and_reads_nothing),
    (413, answers_and_reads_on)])
def test_a_refusal_in_the_middle_of_a_gib_is_seen(shared, framing, status, server_does):
    """The client goes on sending while it reads the answer."""
    server = shared.servers[0]
    server.released, server.taken = server.gate(), 0
    server.script(serve_heads(server_does(status)))
    client = shared.client()
    start = time.monotonic()
    client.send(http.request("POST", fields=[framing_field(framing, GIB)]))
    upload = Upload(client, framing, GIB)
    answer = assert_answer(client.read_response(), status)
    assert time.monotonic() - start < 5
    assert answer.body == b"no" and answer.has_token("Connection", b"close")
    client.expect_closed(10)
    upload.join()
    # However much it still sends, little of it crosses to the server.
    server.released.set()
    assert server.connections[0].finished.wait(10)
    assert server.taken < ON_THE_WAY_MAX
    assert assert_answer(shared.ask("PUT"), status).body == b"no"


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("garbage", [False, True], ids=["body", "garbage"])
@pytest.mark.parametrize("before", [0, 1], ids=["first request", "second request"])
def test_a_client_that_reads_only_when_it_has_sent_sees_the_refusal(shared, framing, garbage,
                                                                    before):
    """Whatever it sends: nobody wants it any more."""
    shared.servers[0].script(serve_heads(answers_and_closes(413)))
    client = shared.client()
    for _ in range(before):
        assert client.ask().body == b"got"
    client.send(http.request("POST", fields=[framing_field(framing, 32 * MIB)]))
    wait_until(lambda: b"\r\n\r\nno" in client.sock_peek(), "the refusal")
    client.sock.settimeout(30)
    block = b"\xff" * MIB if garbage else block_of(framing)
    for _ in range(32):
        client.sock.sendall(block)
    answer = assert_answer(client.read_response(), 413)
    assert answer.body == b"no"
    assert client.read_to_end() == b""


LARGE, PIECE = 24 * MIB, 8192


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_large_refusal_does_not_wait_for_the_upload(stack, pb, framing):
    """More than all buffers hold, to a client that does not read before it has sent: the
    upload is thrown away, whether the server says stop or has said everything."""
    stack.ingress = stack.start_ingress()
    shim = stack.scripted_shim(pb)
    client = stack.client()
    client.send(http.request("POST", fields=[framing_field(framing, 32 * MIB)]))
    scope = shim.next_call()
    shim.send(shim.start(scope.call, 413),
              calls=[pb.CallState(call=scope.call, next=1, credit=1 << 20, stop=True)])

    def credit() -> int:
        state = shim.calls[scope.call].state
        return state.credit if state and state.credit else 32 << 10

    def answer() -> None:
        spent = 64
        for _ in range(LARGE // PIECE):
            piece = shim.body(scope.call, b"x" * PIECE, more_body=True)
            spent += cost_of(piece, pb)
            shim.wait(lambda: spent <= credit(), "credit", 30)
            shim.send(piece)
        shim.send(shim.body(scope.call, b"end"))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    upload = Upload(client, framing, 32 * MIB)
    upload.join()
    assert not upload.broken
    head = assert_answer(client.read_final_head(), 413)
    assert sum(map(len, client.body_pieces(head))) == LARGE + 3
    thread.join(10)


# ---- both bodies at the same time

@pytest.mark.parametrize("answer_framing", FRAMINGS)
@pytest.mark.parametrize("framing", FRAMINGS)
def test_both_bodies_interleave_for_long(shared, framing, answer_framing):
    """A thousand times each side waits for the other's piece."""
    rounds, piece = 1000, b"%05d"
    length = 5 * rounds

    def echo(request: http.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\n" + b"%s: %s\r\n\r\n" % framing_field(answer_framing, length))
        for data in conn.body_pieces(request):
            conn.send(http.chunk(data) if answer_framing == "chunked" else data)
        if answer_framing == "chunked":
            conn.send(b"0\r\n\r\n")

    shared.servers[0].script(serve_heads(echo))
    client = shared.client()
    client.send(http.request("POST", fields=[framing_field(framing, length)]))
    head = assert_answer(client.read_final_head())
    pieces, got = client.body_pieces(head), b""
    for number in range(rounds):
        client.send(http.chunk(piece % number) if framing == "chunked" else piece % number)
        while len(got) < 5 * (number + 1):
            got += next(pieces)
    if framing == "chunked":
        client.send(b"0\r\n\r\n")
    assert got + b"".join(pieces) == b"".join(piece % number for number in range(rounds))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_echo_of_more_than_all_buffers_hold(shared, framing):
    """Neither side waits for the end of the other's body."""
    size = 256 * MIB

    def echo(request: http.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in conn.body_pieces(request, 30):
            conn.send(http.chunk(piece), 30)
        conn.send(b"0\r\n\r\n")

    shared.servers[0].script(serve_heads(echo))
    client = shared.client()
    client.send(http.request("POST", fields=[framing_field(framing, size)]))
    upload = Upload(client, framing, size)
    head, total = assert_answer(client.read_final_head()), 0
    for piece in client.body_pieces(head, seconds=30):
        assert piece[0] == total % 256 and piece[-1] == (total + len(piece) - 1) % 256
        total += len(piece)
    upload.join()
    assert total == size and not upload.broken


# ---- on the wire

@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_early_answer_says_stop(stack, server, pb, framing):
    """The shim tells the ingress to send no more, with the answer."""
    server.script(serve_heads(answers_and_closes(413)))
    peer = stack.scripted_ingress(pb)
    stack.start_shim(peer.endpoint, server=server)
    call = peer.new_call()
    peer.send(peer.scope(call, method=b"POST", fields=[(b"Host", b"a"), framing_field(framing, GIB)],
                         framing=framing.upper()),
              peer.request(call, b"x" * 1000, more_body=True))
    start, body = peer.read_answer(call)
    assert (start.status, body) == (413, b"no")
    peer.wait(lambda: call in peer.stopped, "stop")


def test_an_answer_to_a_whole_request_says_no_stop(stack, server, pb):
    peer = stack.scripted_ingress(pb)
    stack.start_shim(peer.endpoint, server=server)
    call = peer.ask()
    peer.read_answer(call)
    peer.round_trip()
    assert call not in peer.stopped


def test_after_stop_nothing_of_the_request_is_sent(stack, pb):
    """Not its last event either; the answer goes on, and the client may send to the end."""
    stack.ingress = stack.start_ingress()
    shim = stack.scripted_shim(pb)
    client = stack.client()
    client.send(http.request("POST", fields=[(b"Content-Length", b"%d" % (8 * MIB))]))
    scope = shim.next_call()
    shim.send(shim.start(scope.call, 413),
              calls=[pb.CallState(call=scope.call, next=1, credit=1 << 30, stop=True)])
    head = assert_answer(client.read_final_head(), 413)
    client.send(b"x" * (8 * MIB))
    shim.round_trip()
    shim.send(shim.body(scope.call, b"no"))
    assert b"".join(client.body_pieces(head)) == b"no"
    shim.wait(lambda: scope.call in shim.done, "done")
    assert shim.events.empty()


def test_a_malformed_rest_of_a_refused_upload_harms_nobody(stack, pb):
    stack.ingress = stack.start_ingress()
    shim = stack.scripted_shim(pb)
    client = stack.client()
    client.send(http.request("POST", fields=[(b"Transfer-Encoding", b"chunked")]))
    scope = shim.next_call()
    shim.send(shim.start(scope.call, 413),
              calls=[pb.CallState(call=scope.call, next=1, credit=1 << 20, stop=True)])
    head = assert_answer(client.read_final_head(), 413)
    client.send(b"not a chunk\r\n" * 1000)
    shim.round_trip()
    shim.send(shim.body(scope.call, b"no"))
    assert b"".join(client.body_pieces(head)) == b"no"
    with pytest.raises(Closed):
        client.ask()
