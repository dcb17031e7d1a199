"""Servers of every kind: old ones, those that close, those that are wrong."""

from __future__ import annotations

import os
import signal

import pytest

from harness import http
from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.peer import Closed
from harness.server import serve, serve_heads


def once(raw: bytes):
    """A server that answers one request with these bytes and closes."""

    def run(conn) -> None:
        request = conn.read_request(60)
        conn.server.requests.put(request)
        conn.send(raw)

    return run


def held_open(raw: bytes):
    """As once, but the connection stays open."""
    return serve(lambda request, conn: raw)


# ---- odd, but right

def test_http_1_0_with_a_length(shared):
    shared.servers[0].script(once(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
    assert assert_answer(shared.ask()).body == b"abc"


def test_http_1_0_without_keep_alive_is_not_used_again(shared):
    """The server says nothing and leaves the connection open: it is over all the same."""
    shared.servers[0].script(held_open(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc"))
    client = shared.client()
    assert client.ask().body == b"abc"
    assert client.ask().body == b"abc"
    assert len(shared.servers[0].connections) == 2


def test_http_1_0_with_keep_alive_is_used_again(shared):
    shared.servers[0].script(held_open(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"))
    client = shared.client()
    assert client.ask().body == b"abc"
    assert client.ask().body == b"abc"
    assert len(shared.servers[0].connections) == 1


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("body", [b"", b"abc", b"x" * 300_000])
def test_a_body_that_ends_with_the_connection(shared, version, body):
    shared.servers[0].script(once(b"HTTP/" + version + b" 200 OK\r\nX-A: b\r\n\r\n" + body))
    client = shared.client()
    for _ in range(2):
        answer = assert_answer(client.ask())
        assert answer.body == body
        assert answer.chunked or answer.content_length == len(body)


def test_connection_close_is_obeyed(shared):
    shared.servers[0].script(held_open(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"))
    client = shared.client()
    assert client.ask().body == b"abc"
    assert client.ask().body == b"abc"
    assert len(shared.servers[0].connections) == 2
    conn = shared.servers[0].connections[0]
    conn.finished.wait(5)
    assert conn.ended


@pytest.mark.parametrize("line, reason", [
    (b"HTTP/1.1 200 ", b""), (b"HTTP/1.1 200", b""), (b"HTTP/1.1 200 Quite Fine", None),
    (b"HTTP/1.1 299 \xe9t\xe9", None),
])
def test_any_reason_phrase_will_do(shared, line, reason):
    shared.servers[0].script(held_open(line + b"\r\nContent-Length: 3\r\n\r\nabc"))
    answer = shared.ask()
    assert answer.status == int(line[9:12])
    assert answer.body == b"abc"


def test_a_body_after_head_is_dropped(shared):
    def wrong(request: http.Request, _conn) -> bytes:
        return http.reply(body=b"never to be seen" if request.method == b"HEAD" else b"right")

    shared.servers[0].script(serve(wrong))
    client = shared.client()
    answer = client.ask("HEAD")
    assert assert_answer(answer).get("Content-Length") == b"16"
    assert client.ask().body == b"right"
    assert client.ask().body == b"right"


@pytest.mark.parametrize("status", [204, 304])
def test_a_body_that_must_not_be_is_dropped(shared, status):
    shared.servers[0].script(serve(lambda request, conn: (
        b"HTTP/1.1 %d X\r\nContent-Length: 4\r\n\r\nevil" % status if request.target == b"/x"
        else http.reply(body=b"right"))))
    client = shared.client()
    assert client.ask(target="/x").status == status
    assert client.ask().body == b"right"


def test_bytes_after_the_answer_are_dropped(shared):
    shared.servers[0].script(held_open(http.reply(body=b"abc") + b"HTTP/1.1 200 OK\r\n"))
    client = shared.client()
    assert client.ask().body == b"abc"
    assert client.ask().body == b"abc"
    assert len(shared.servers[0].connections) == 2


def test_an_answer_that_comes_byte_by_byte(shared):
    raw = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
           + http.chunked(b"abc", b"defg", trailers=[(b"X-T", b"t")]))

    def slow(_request: http.Request, conn) -> None:
        for at in range(len(raw)):
            conn.send(raw[at:at + 1])

    shared.servers[0].script(serve(slow))
    answer = assert_answer(shared.ask(fields=[(b"TE", b"trailers"), (b"Connection", b"TE")]))
    assert (answer.body, answer.trailers) == (b"abcdefg", [(b"X-T", b"t")])


def test_interim_answers_before_the_final_one(shared):
    shared.servers[0].script(held_open(
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"
        + http.reply(body=b"abc")))
    answer = assert_answer(shared.ask())
    assert answer.body == b"abc"
    hints = [head for head in answer.interim if head.status == 103]
    assert [head.all("Link") for head in hints] == [[b"</a>", b"</b>"]]


def test_interim_answers_do_not_go_to_http_1_0(shared):
    shared.servers[0].script(held_open(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + http.reply(body=b"abc")))
    client = shared.client()
    client.send(http.request(version=b"HTTP/1.0"))
    assert client.read_head().status == 200


def test_an_answer_before_the_request_is_whole(shared):
    """The server answers at once and reads the body later."""

    def early(conn) -> None:
        request = conn.read_head(60)
        conn.send(http.reply(413, body=b"no", reason=b"No", fields=[(b"Connection", b"close")]))
        conn.seen_length = sum(len(piece) for piece in conn.body_pieces(request, 5))

    shared.servers[0].script(early)
    client = shared.client()
    client.send(http.request("POST", fields=[(b"Content-Length", b"100000")]) + b"x" * 1000)
    answer = client.read_response()
    assert (answer.status, answer.body) == (413, b"no")
    try:
        client.send(b"x" * 99_000)
    except Closed:
        pass


def test_an_answer_before_the_request_is_whole_ends_without_a_reset(pair, server):
    """A reset for what the client still sends would take the answer away from it."""
    server.script(serve_heads(lambda request, conn: http.reply(413, body=b"enough")))
    client = pair.client()
    client.send(http.request("POST", fields=[(b"Content-Length", b"1000000")]))
    wait_until(lambda: b"enough" in client.sock_peek(), "the answer")
    client.sock.settimeout(5)
    for _ in range(5):
        client.sock.sendall(b"x" * 1000)
        assert_answer(pair.ask(), 413)  # the ingress has had a turn with it
    raw = b""
    while data := client.sock.recv(65536):  # an exception is a reset
        raw += data
    assert raw.startswith(b"HTTP/1.1 413 ") and raw.endswith(b"enough")


# ---- wrong

@pytest.mark.parametrize("method, body", [("GET", None), ("POST", b"abc")])
def test_nothing_listens(pair, server, method, body):
    server.stop_listening()
    assert_error(pair.ask(method, body=body), 502, "server_refused")


def test_a_container_whose_port_refuses_is_out_until_it_accepts(stack, tmp_path):
    """Other containers take its calls; without any they wait."""
    path = str(tmp_path / "socket")
    server = stack.server(serve(lambda request, conn: http.reply(body=b"old")), path=path)
    stack.pair(server)
    server.stop_listening()
    server.drop_connections()
    assert_error(stack.ask(), 502, "server_refused")
    stack.ingress.wait_log("container starting")
    waiting = stack.client()
    waiting.send(http.request("POST", body=b"x"))
    server.path = path + ".old"
    os.rename(path, server.path)
    again = stack.server(serve(lambda request, conn: http.reply(body=b"new")), path=path)
    assert assert_answer(waiting.read_response()).body == b"new"
    assert assert_answer(stack.ask()).body == b"new"
    # One of two is out: the other has everything.
    again.stop_listening()
    again.drop_connections()
    other = stack.server(serve(lambda request, conn: http.reply(body=b"other")))
    stack.start_shim(stack.ingress, server=other)
    statuses = [stack.ask("POST", body=b"x").status for _ in range(10)]
    assert statuses.count(502) <= 1 and statuses.count(200) >= 9, statuses


@pytest.mark.parametrize("raw", [
    b"", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\nX-A: b\r\n", b"H",
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
], ids=["nothing", "status line", "half a head", "one byte", "only an interim answer"])
def test_closed_before_the_head_was_whole(shared, raw):
    shared.servers[0].script(once(raw))
    client = shared.client()
    client.send(http.request("POST", body=b"abc"))
    assert_error(client.read_response(), 502, "server_closed")


@pytest.mark.parametrize("raw", [
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 042 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
], ids=lambda raw: repr(raw[:48])[2:-1])
def test_what_is_not_http_is_malformed(shared, raw):
    shared.servers[0].script(held_open(raw))
    client = shared.client()
    client.send(http.request("POST", body=b"abc"))
    try:
        answer = client.read_response()
    except Closed:
        # The head was already on its way when the body turned out to be wrong.
        assert b"chunked\r\n\r\nzz" in raw
        return
    assert_error(answer, 502, "server_malformed")
    shared.servers[0].script(serve(lambda request, conn: http.reply(body=b"next")))
    assert client.ask("POST", body=b"abc").body == b"next"


@pytest.mark.parametrize("fields", [
    b"X-A: " + b"a" * (17 << 10) + b"\r\n",
    b"".join(b"X-%d: %s\r\n" % (i, b"v" * 200) for i in range(100)),
    b"X-A: " + b"a" * (300 << 10) + b"\r\n",
], ids=["one long field", "many fields", "much too long"])
def test_a_response_head_that_is_too_large(shared, fields):
    shared.servers[0].script(held_open(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 0\r\n\r\n"))
    assert_error(shared.ask(), 502, "response_head_too_large")


def test_a_configured_limit_of_response_heads(stack, server):
    """It reaches the shim, which reads heads."""
    sizes = iter([20, 100, 120])
    server.script(serve(lambda request, conn: http.reply(
        fields=[(b"X-A", b"v" * (next(sizes) << 10))], body=b"large")))
    stack.pair(server, ["--response-head-bytes-max", str(110 << 10)])
    for size in (20, 100):
        answer = assert_answer(stack.ask())
        assert (len(answer.get("X-A")), answer.body) == (size << 10, b"large")
    assert_error(stack.ask(), 502, "response_head_too_large")


def test_a_response_head_just_below_the_limit(shared):
    fields = [(b"X-A", b"a" * 7000), (b"X-B", b"b" * 8000)]
    shared.servers[0].script(serve(lambda request, conn: http.reply(fields=fields)))
    assert assert_answer(shared.ask()).starting_with(b"x-a", b"x-b") == fields


@pytest.mark.parametrize("raw", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
], ids=["length", "between chunks", "in a chunk", "before the trailers", "bad chunk"])
def test_a_truncated_body_is_never_a_short_answer(shared, raw):
    shared.servers[0].script(once(raw))
    client = shared.client()
    client.send(http.request())
    with pytest.raises(Closed):
        answer = client.read_response()
        # Where nothing of the answer had gone out yet, an error says it better.
        assert_error(answer, 502, "server_closed" if answer.get("Porthole-Error") == b"server_closed"
                     else "server_malformed")
        raise Closed("said in words")
    assert b"0\r\n\r\n" not in client.buffer


@pytest.mark.parametrize("end", ["the server", "the ingress"])
def test_a_truncated_body_is_a_reset_where_nothing_else_would_tell(stack, server, end):
    """For HTTP/1.0 the end of the connection is that of a body without a length."""
    gate = server.gate()

    def part(_request: http.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + http.chunk(b"part"))
        assert gate.wait(20)
        conn.close()

    server.script(serve_heads(part))
    stack.pair(server, ["--drain-timeout-ms", "200"])
    client = stack.client()
    client.send(http.request(version=b"HTTP/1.0"))
    assert client.read_until(b"part")
    if end == "the server":
        gate.set()
    else:
        stack.ingress.signal(signal.SIGTERM)
    client.sock.settimeout(5)
    with pytest.raises(ConnectionResetError):
        client.sock.recv(1)


def test_a_body_that_ends_well_is_no_reset_for_http_1_0(shared):
    shared.servers[0].script(serve(lambda request, conn: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + http.chunked(b"whole"))))
    client = shared.client()
    client.send(http.request(version=b"HTTP/1.0"))
    assert client.read_until(b"whole")
    client.sock.settimeout(5)
    assert client.sock.recv(1) == b""
