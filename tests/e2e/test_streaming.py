"""Streaming: a write of the server is a write to the client."""

from __future__ import annotations

import queue

import pytest

from harness import http
from harness.check import assert_answer
from harness.server import serve, serve_heads

SSE_HEAD = (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")


def body_up_to(client, head: http.Response, mark: bytes, got: bytearray, pieces) -> None:
    while mark not in got:
        got += next(pieces)


@pytest.mark.parametrize("framing", ["chunked", "length", "to the end"])
def test_each_event_arrives_before_the_next_is_written(shared, framing):
    """The server writes an event only after the client has read the one before."""
    go: queue.Queue[bytes | None] = queue.Queue()
    events = [b"data: %d\n\n" % i for i in range(50)]
    total = sum(map(len, events))

    def stream(_request: http.Request, conn) -> None:
        conn.send(SSE_HEAD + {"chunked": b"Transfer-Encoding: chunked\r\n\r\n",
                              "length": b"Content-Length: %d\r\n\r\n" % total,
                              "to the end": b"\r\n"}[framing])
        while (event := go.get(timeout=20)) is not None:
            conn.send(http.chunk(event) if framing == "chunked" else event)
        if framing == "chunked":
            conn.send(b"0\r\n\r\n")
        elif framing == "to the end":
            conn.close()

    shared.servers[0].script(serve(stream))
    client = shared.client()
    client.send(http.request())
    head = assert_answer(client.read_final_head())
    pieces, got = client.body_pieces(head), bytearray()
    for event in events:
        go.put(event)
        body_up_to(client, head, event, got, pieces)
    go.put(None)
    assert bytes(got) + b"".join(pieces) == b"".join(events)


def test_the_head_arrives_before_any_body(shared):
    release = shared.servers[0].gate()

    def stream(_request: http.Request, conn) -> None:
        conn.send(SSE_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        assert release.wait(20)
        conn.send(http.chunked(b"late"))

    shared.servers[0].script(serve(stream))
    client = shared.client()
    client.send(http.request())
    head = client.read_final_head()
    release.set()
    assert b"".join(client.body_pieces(head)) == b"late"


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "length"])
def test_each_piece_of_an_upload_arrives_before_the_next_is_sent(shared, chunked):
    arrived: queue.Queue[bytes] = queue.Queue()

    def take(request: http.Request, conn) -> bytes:
        for piece in conn.body_pieces(request):
            arrived.put(piece)
        return http.reply(body=b"all")

    shared.servers[0].script(serve_heads(take))
    client = shared.client()
    parts = [b"part %02d" % i for i in range(50)]
    framing = ((b"Transfer-Encoding", b"chunked") if chunked
               else (b"Content-Length", b"%d" % sum(map(len, parts))))
    client.send(http.request("POST", fields=[framing]))
    for part in parts:
        client.send(http.chunk(part) if chunked else part)
        got = b""
        while got != part:
            got += arrived.get(timeout=10)
    if chunked:
        client.send(b"0\r\n\r\n")
    assert assert_answer(client.read_response()).body == b"all"


def test_the_request_head_arrives_before_any_body(shared):
    client = shared.client()
    shared.servers[0].script(serve_heads(
        lambda request, conn: http.reply(body=b"".join(conn.body_pieces(request)))))
    client.send(http.request("POST", fields=[(b"Content-Length", b"3")]))
    assert shared.servers[0].next_request().method == b"POST"
    client.send(b"abc")
    assert client.read_response().body == b"abc"


def test_a_conversation_over_one_exchange(shared):
    """Both bodies are open at the same time; each side speaks in turn."""

    def converse(request: http.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in conn.body_pieces(request):
            conn.send(http.chunk(b"you said " + piece + b"."))
        conn.send(b"0\r\n\r\n")

    shared.servers[0].script(serve_heads(converse))
    client = shared.client()
    client.send(http.request("POST", fields=[(b"Transfer-Encoding", b"chunked")]))
    head = assert_answer(client.read_final_head())
    pieces, got = client.body_pieces(head), bytearray()
    for word in (b"one", b"two", b"three"):
        client.send(http.chunk(word))
        body_up_to(client, head, b"you said " + word + b".", got, pieces)
    client.send(b"0\r\n\r\n")
    assert bytes(got) + b"".join(pieces) == b"you said one.you said two.you said three."


def test_early_hints_arrive_before_the_answer_is_written(shared):
    release = shared.servers[0].gate()

    def hint(_request: http.Request, conn) -> bytes:
        conn.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        assert release.wait(20)
        return http.reply(body=b"page")

    shared.servers[0].script(serve(hint))
    client = shared.client()
    client.send(http.request())
    early = client.read_head()
    assert (early.status, early.get("Link")) == (103, b"</style.css>; rel=preload")
    release.set()
    assert client.read_response().body == b"page"
