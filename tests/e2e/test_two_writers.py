"""An answer is written by libmicrohttpd if it streams, and past it if it is whole at once.
A client sees no difference: the same head, byte for byte, and the connection goes on."""

from __future__ import annotations

import random

import pytest

from harness import http
from harness.check import assert_answer
from harness.deadline import wait_until
from harness.holding import sockets_of
from harness.server import serve

BODY = b"0123456789" * 100
FIELDS = [(b"X-Order", b"1"), (b"Set-Cookie", b"a=1"), (b"x-order", b"2"), (b"Set-Cookie", b"b=2"),
          (b"X-Empty", b""), (b"X-Bytes", b"\xe9\x80"), (b"Server", b"scripted/1")]


def head_without(head: bytes, *names: bytes) -> list[bytes]:
    return [line for line in head.split(b"\r\n")
            if not line.lower().startswith(tuple(name.lower() + b":" for name in names))]


@pytest.fixture
def answering(shared):
    """The server answers at once, or its body in two writes with a pause, as asked."""
    server = shared.servers[0]
    gates: list = []

    def answer(request: http.Request, conn) -> None:
        status = int(request.get("X-Status") or b"200")
        fields = list(FIELDS)
        if request.get("X-With-Date"):
            fields.insert(1, (b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT"))
        body = b"" if request.method == b"HEAD" or status in (204, 304) else BODY
        if status != 204:
            fields.append((b"Content-Length", b"%d" % len(BODY)))
        head = (b"HTTP/1.1 %d Fine\r\n" % status
                + b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n")
        if request.get("X-Streams") and body:
            conn.send(head + body[:10])
            assert gates[-1].wait(10)
            conn.send(body[10:])
        else:
            conn.send(head + body)

    server.script(serve(answer))
    return shared, server, gates


def ask(answering, client, streams: bool, method: str, version: bytes, extra) -> http.Response:
    _, server, gates = answering
    fields = [*extra]
    if streams:
        gates.append(server.gate())
        fields.append((b"X-Streams", b"1"))
    client.send(http.request(method, "/", fields, version=version))
    head = client.read_final_head()
    if streams:
        gates[-1].set()
    head.body = b"".join(client.body_pieces(head, method.encode()))
    return assert_answer(head, head.status)


CASES = {
    "get": ("GET", b"HTTP/1.1", []),
    "date": ("GET", b"HTTP/1.1", [(b"X-With-Date", b"1")]),
    "keep-alive 1.0": ("GET", b"HTTP/1.0", [(b"Connection", b"keep-alive")]),
    "close 1.0": ("GET", b"HTTP/1.0", []),
    "close": ("GET", b"HTTP/1.1", [(b"Connection", b"close")]),
    "404": ("GET", b"HTTP/1.1", [(b"X-Status", b"404")]),
    "599": ("GET", b"HTTP/1.1", [(b"X-Status", b"599")]),
}


@pytest.mark.parametrize("case", CASES)
def test_both_writers_write_the_same_head(answering, case):
    method, version, extra = CASES[case]
    stack = answering[0]
    whole = ask(answering, stack.client(), False, method, version, extra)
    streamed = ask(answering, stack.client(), True, method, version, extra)
    assert whole.body == streamed.body == BODY
    names = (b"X-Request-Id",) if extra and extra[0][0] == b"X-With-Date" else (b"X-Request-Id", b"Date")
    assert head_without(whole.raw_head, *names) == head_without(streamed.raw_head, *names)


def test_one_connection_changes_between_them_at_random(answering):
    """Whatever was asked before: methods, versions, streams, a body or none, and a pipeline."""
    stack = answering[0]
    for seed in range(12):
        choose = random.Random(seed)
        client = stack.client()
        for step in range(25):
            method = choose.choice(["GET", "GET", "HEAD", "POST"])
            version, extra = choose.choice([(b"HTTP/1.1", []), (b"HTTP/1.1", []), (
                b"HTTP/1.0", [(b"Connection", b"keep-alive")])])
            status = choose.choice([200, 200, 404, 204, 304])
            extra = [*extra, (b"X-Status", b"%d" % status), (b"X-Request-Id", b"s%d-%d" % (seed, step))]
            streams = choose.random() < 0.4
            answer = ask(answering, client, streams, method, version, extra)
            assert (answer.status, answer.get("X-Request-Id")) == (status, b"s%d-%d" % (seed, step))
            assert answer.body == (b"" if method == "HEAD" or status in (204, 304) else BODY)


def test_a_pipeline_over_a_connection_that_is_direct(answering):
    stack = answering[0]
    client = stack.client()
    for round_number in range(5):
        client.send(b"".join(http.request("GET", "/", [(b"X-Request-Id", b"%d-%d" % (round_number, n))])
                             for n in range(40)))
        for n in range(40):
            assert client.read_response().get("X-Request-Id") == b"%d-%d" % (round_number, n)


def test_a_client_that_reads_nothing_of_a_direct_answer_for_a_while(stack, server):
    """The socket takes a part: the rest follows when it takes more, and the next is answered."""
    big = b"x" * 250_000
    server.script(serve(lambda request, conn: http.reply(body=big)))
    stack.pair(server)
    client = stack.client()
    count = 60
    client.send(b"".join(http.request(target=b"/%d" % n) for n in range(count)))
    port = stack.ingress.port
    wait_until(lambda: any(queued for _, queued in sockets_of(port)), "the kernel holds a part")
    for _ in range(count):
        assert client.read_response().body == big
    assert client.ask().body == big


def test_a_client_that_never_reads_a_direct_answer_is_ended(stack, server):
    big = b"x" * 250_000
    server.script(serve(lambda request, conn: http.reply(body=big)))
    stack.pair(server, ["--client-stall-timeout-ms", "1s"])
    client = stack.client()
    client.send(b"".join(http.request(target=b"/%d" % n) for n in range(100)))
    stack.ingress.wait_log("client_stalled")


def test_a_late_head_on_a_direct_connection_is_refused_and_closed(stack, server):
    stack.pair(server, ["--head-timeout-ms", "300ms"])
    client = stack.client()
    assert client.ask().body == b"hello"
    client.send(b"GET / HTTP/1.1\r\nHost: x")
    assert client.read_response().status == 408
    assert client.expect_closed(10) == b""


def test_an_idle_direct_connection_is_closed_in_time(stack, server):
    stack.pair(server, ["--keep-alive-timeout-ms", "300ms"])
    client = stack.client()
    assert client.ask().body == b"hello"
    assert client.expect_closed(5) == b""
