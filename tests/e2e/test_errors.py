"""Every error of the contract: status, code, headers, and a body by Accept."""

from __future__ import annotations

import json
import signal
import threading

import pytest

from harness import http, settings
from harness.check import assert_answer, assert_error
from harness.server import serve, serve_heads
from harness.stack import Stack


def never(conn) -> None:
    """Reads everything and answers nothing."""
    request = conn.read_head(60)
    conn.server.requests.put(request)
    conn.wait_left(30)


def test_no_container_when_nothing_ever_registered(stack):
    stack.ingress = stack.start_ingress()
    assert_error(stack.ask(), 503, "no_container")


def test_no_such_function(stack, server):
    stack.ingress = stack.start_ingress()
    for name in ("alpha", "beta"):
        stack.start_shim(stack.ingress, server=server, function=name)
    assert_error(stack.ask(host=b"gamma.localhost:8080"), 404, "no_such_function")
    assert_error(stack.ask(host=b"localhost"), 404, "no_such_function")


def test_the_first_label_of_the_host_names_the_function(stack):
    stack.ingress = stack.start_ingress()
    for name in ("alpha", "beta"):
        server = stack.server(serve(lambda request, conn, name=name: http.reply(body=name.encode())))
        stack.start_shim(stack.ingress, server=server, function=name)
    for host in (b"alpha.localhost:8080", b"ALPHA.test", b"alpha", b"alpha.a.b.c"):
        assert assert_answer(stack.ask(host=host)).body == b"alpha"
    assert stack.ask(host=b"beta.localhost").body == b"beta"


def test_one_function_gets_every_host(stack, server):
    stack.ingress = stack.start_ingress()
    stack.start_shim(stack.ingress, server=server, function="alpha")
    for host in (b"beta.localhost", b"localhost", b"127.0.0.1:8080", b"[::1]:80"):
        assert_answer(stack.ask(host=host))


def test_bad_expectation(shared):
    assert_error(shared.ask("POST", fields=[(b"Expect", b"200-ok")], body=b"a"), 417, "bad_expectation")
    assert shared.servers[0].seen == b""


def test_first_byte_timeout(stack, server):
    stack.pair(server.script(never), settings.first_byte(300))
    assert_error(stack.ask(), 504, "first_byte_timeout")
    assert server.connections[0].finished.wait(5)


def test_total_timeout(stack, server):
    stack.pair(server.script(never), settings.total(300))
    assert_error(stack.ask(), 504, "total_timeout")


def test_total_timeout_in_the_middle_of_an_answer(stack, server):
    def drip(request: http.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + http.chunk(b"some"))
        conn.wait_left(20)
        conn.close()

    stack.pair(server.script(serve(drip)), settings.total(500))
    client = stack.client()
    client.send(http.request())
    client.read_until(b"some")
    assert b"0\r\n\r\n" not in client.expect_closed()


def send_slowly(client, pieces: int = 6, pause_s: float = 0.3) -> None:
    """A byte now and then: longer in all than the deadlines of these tests."""
    client.send(http.request("POST", fields=[(b"Content-Length", b"%d" % pieces)]))
    for _ in range(pieces):
        threading.Event().wait(pause_s)  # what is tested is the passing of time
        client.send(b"x")


def test_first_byte_timeout_begins_when_the_request_ends(stack, server):
    """A slow upload is not the server's fault."""
    def think(request: http.Request, _conn) -> bytes:
        threading.Event().wait(0.4)
        return http.reply(body=request.body)

    stack.pair(server.script(serve(think)), settings.first_byte(1200))
    client = stack.client()
    send_slowly(client)
    assert assert_answer(client.read_response()).body == b"xxxxxx"


def test_a_slow_upload_is_not_idle(stack, server):
    stack.pair(server.script(serve(lambda request, conn: http.reply(body=request.body))),
               settings.idle(1200))
    client = stack.client()
    send_slowly(client)
    assert assert_answer(client.read_response()).body == b"xxxxxx"


def test_a_client_that_reads_slowly_is_not_an_idle_server(stack, server):
    size = 64 << 20
    data = http.reply(body=b"x" * size)  # it takes its time on a busy machine
    stack.pair(server.script(serve(lambda request, conn: data)),
               settings.idle(400))
    client = stack.client()
    client.send(http.request())
    head = client.read_final_head()
    threading.Event().wait(1.2)  # what is tested is the passing of time
    assert client.feed_body(head, lambda piece: None, 30) == size


def test_idle_timeout_before_an_answer(stack, server):
    stack.pair(server.script(never), settings.idle(300))
    assert_error(stack.ask(), 504, "first_byte_timeout")


def test_idle_timeout_in_the_middle_of_an_answer(stack, server):
    def drip(request: http.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + http.chunk(b"some"))
        conn.wait_left(20)
        conn.close()

    stack.pair(server.script(serve(drip)), settings.idle(500))
    client = stack.client()
    client.send(http.request())
    client.read_until(b"some")
    assert b"0\r\n\r\n" not in client.expect_closed()


def test_draining(stack, server):
    """While the last call is answered, a new one on an old connection is told so: it would wait."""
    release = server.gate()
    server.script(serve(lambda request, conn: release.wait(20) and http.reply(body=b"done")))
    pair = stack.pair(server, shim_flags=settings.concurrency(1))
    busy, other = pair.client(), pair.client()
    busy.send(http.request())
    server.next_request()
    other.send(http.request()[:10])
    pair.ingress.signal(signal.SIGTERM)
    pair.ingress.wait_log(r"drain")
    other.send(http.request()[10:])
    assert_error(other.read_response(), 503, "draining")
    release.set()
    assert busy.read_response().body == b"done"
    pair.ingress.expect_exit(0)


# ---- the body

ACCEPTS = [
    (None, b"text/plain"), (b"*/*", b"text/plain"), (b"text/plain", b"text/plain"),
    (b"application/json", b"application/json"), (b"text/html", b"text/html"),
    (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", b"text/html"),
    (b"application/json, text/plain, */*", b"application/json"),
    (b"text/html;q=0.5, application/json", b"application/json"),
    (b"text/html, application/json;q=0.5", b"text/html"),
    (b"image/png", b"text/plain"), (b"text/plain, text/html;q=0", b"text/plain"),
    (b";;;,q=,", b"text/plain"),
]


@pytest.fixture(scope="module")
def closing(tmp_path_factory):
    """The server closes every connection: every request is answered with server_closed."""
    stack = Stack(tmp_path_factory.mktemp("closing"))
    server = stack.server(lambda conn: None)
    stack.pair(server)
    yield stack
    stack.close()


@pytest.mark.parametrize("accept, kind", ACCEPTS, ids=lambda value: repr(value)[:40])
def test_the_body_has_the_form_that_accept_prefers(closing, accept, kind):
    answer = closing.ask(fields=[(b"Accept", accept)] if accept else [])
    assert_error(answer, 502, "server_closed")
    assert (answer.get("Content-Type") or b"").split(b";")[0].strip() == kind
    assert b"server_closed" in answer.body
    if kind == b"application/json":
        assert "server_closed" in json.dumps(json.loads(answer.body))
    if kind == b"text/html":
        assert b"<" in answer.body


def test_an_error_for_head_has_no_body(closing):
    client = closing.client()
    for _ in range(2):
        assert client.ask("HEAD").status == 502
    assert not client.buffer


def test_an_error_leaves_the_connection_open(closing):
    client = closing.client()
    for _ in range(3):
        assert_error(client.ask(), 502, "server_closed")


def test_an_error_carries_the_clients_request_id(closing):
    answer = closing.ask(fields=[(b"X-Request-Id", b"mine-1")])
    assert_error(answer, 502, "server_closed")
    assert answer.get("X-Request-Id") == b"mine-1"


def test_nothing_of_the_request_is_written_into_html(closing):
    answer = closing.ask(target="/<script>alert(1)</script>", fields=[(b"Accept", b"text/html")],
                         host=b"<b>".replace(b"<", b"l").replace(b">", b"g"))
    assert b"<script>alert" not in answer.body


def test_an_error_while_the_client_still_uploads(closing):
    client = closing.client()
    client.send(http.request("POST", fields=[(b"Content-Length", b"100000000")]) + b"x" * 1000)
    assert_error(client.read_response(), 502, "server_closed")


def test_an_error_after_a_whole_upload(pair, server):
    def refuse(request: http.Request, conn) -> None:
        b"".join(conn.body_pieces(request))
        conn.close()

    server.script(serve_heads(refuse))
    assert_error(pair.ask("POST", body=b"x" * 100_000), 502, "server_closed")
