"""Clients: 1.0 and 1.1, keep-alive, pipelining, IPv6, a unix socket."""

from __future__ import annotations

import re

import pytest

from harness import http
from harness.check import assert_answer
from harness.peer import Closed
from harness.server import serve


def echo_target(request: http.Request, _conn) -> bytes:
    return http.reply(body=request.target)


def test_many_requests_over_one_connection(shared):
    shared.servers[0].script(serve(echo_target))
    client = shared.client()
    for i in range(50):
        assert client.ask(target=f"/{i}").body == b"/%d" % i
    assert not client.is_closed_now()


def test_connection_close_of_the_client_is_obeyed(shared):
    client = shared.client()
    answer = client.ask(fields=[(b"Connection", b"close")])
    assert assert_answer(answer).has_token("Connection", b"close")
    assert client.expect_closed() == b""


def test_http_1_0_is_closed_after_the_answer(shared):
    client = shared.client()
    client.send(http.request(version=b"HTTP/1.0", host=None))
    assert assert_answer(client.read_response()).body == b"hello"
    assert client.expect_closed() == b""


def test_http_1_0_with_keep_alive_may_ask_again(shared):
    client = shared.client()
    for _ in range(3):
        client.send(http.request(version=b"HTTP/1.0", fields=[(b"Connection", b"keep-alive")]))
        answer = assert_answer(client.read_response())
        assert answer.body == b"hello"
        if not answer.has_token("Connection", b"keep-alive"):
            assert client.expect_closed() == b""
            break


def test_http_1_0_is_never_sent_chunks(shared):
    shared.servers[0].script(serve(lambda request, conn: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + http.chunked(b"abc", b"def"))))
    client = shared.client()
    client.send(http.request(version=b"HTTP/1.0", fields=[(b"Connection", b"keep-alive")]))
    answer = assert_answer(client.read_final_head())
    assert not answer.chunked
    assert b"".join(client.body_pieces(answer)) == b"abcdef"


def test_http_1_0_may_upload(shared):
    shared.servers[0].script(serve(lambda request, conn: http.reply(body=request.body)))
    client = shared.client()
    client.send(http.request("POST", body=b"abc", version=b"HTTP/1.0"))
    assert client.read_response().body == b"abc"


def test_pipelined_requests_are_answered_in_order(shared):
    shared.servers[0].script(serve(echo_target))
    client = shared.client()
    client.send(b"".join(http.request(target=f"/{i}") for i in range(100)))
    for i in range(100):
        assert assert_answer(client.read_response()).body == b"/%d" % i


def test_pipelined_uploads_are_answered_in_order(shared):
    shared.servers[0].script(serve(lambda request, conn: http.reply(body=request.body)))
    client = shared.client()
    chunked = http.request("POST", fields=[(b"Transfer-Encoding", b"chunked")])
    client.send(b"".join(
        chunked + http.chunked(b"body ", b"%d" % i) if i % 2
        else http.request("POST", body=b"body %d" % i) for i in range(40)))
    for i in range(40):
        assert client.read_response().body == b"body %d" % i


def test_a_request_in_single_bytes(shared):
    client = shared.client()
    for byte in http.request(target="/slowly", fields=[(b"X-A", b"b")]):
        client.send(bytes([byte]))
    assert_answer(client.read_response())
    assert shared.servers[0].next_request().target == b"/slowly"


def test_a_few_empty_lines_before_a_request(shared):
    """RFC 9112 section 2.2: a server should ignore at least one."""
    client = shared.client()
    client.send(b"\r\n" + http.request())
    assert_answer(client.read_response())
    client.send(b"\r\n" + http.request())
    assert_answer(client.read_response())


def test_ipv6(stack, server):
    stack.ingress = stack.start_ingress(listen="[::1]:0")
    stack.start_shim(stack.ingress, server=server)
    assert stack.ingress.address[0] == "::1"
    assert_answer(stack.ask())
    assert server.next_request().get("X-Forwarded-For") in (b"::1", b"[::1]")


def test_a_unix_socket(stack, server, tmp_path):
    path = str(tmp_path / "listen")
    stack.ingress = stack.start_ingress(listen=f"unix:{path}")
    stack.start_shim(stack.ingress, server=server)
    assert stack.ingress.address == path
    client = stack.client()
    for _ in range(3):
        assert_answer(client.ask())


def test_many_clients_at_once(shared):
    shared.servers[0].script(serve(echo_target))
    clients = [shared.client() for _ in range(200)]
    for i, client in enumerate(clients):
        client.send(http.request(target=f"/{i}"))
    for i, client in enumerate(clients):
        assert assert_answer(client.read_response()).body == b"/%d" % i


def test_more_clients_than_one_lane_holds(pair, server):
    """They wait at the same time, so in several lanes; some leave, the others go on."""
    gate = server.gate()

    def hold(request: http.Request, conn) -> bytes | None:
        if request.target == b"/again":
            return http.reply(body=b"again")
        assert gate.wait(30)
        return http.reply(body=request.target)

    server.script(serve(hold))
    clients = [pair.client() for _ in range(400)]
    for i, client in enumerate(clients):
        client.send(http.request(target=f"/{i}"))
    for _ in clients:
        server.next_request()
    for client in clients[::3]:
        client.reset()
    gate.set()
    for i, client in enumerate(clients):
        if i % 3:
            assert assert_answer(client.read_response()).body == b"/%d" % i
    for i, client in enumerate(clients):
        if i % 3:
            assert assert_answer(client.ask(target="/again")).body == b"again"


@pytest.mark.parametrize("fault", ["half a head", "half a body"])
def test_clients_that_leave_early_harm_nobody(shared, fault):
    for _ in range(50):
        client = shared.client()
        client.send(http.request()[:20] if fault == "half a head"
                    else http.request("POST", body=b"x" * 100)[:-50])
        client.close()
    assert_answer(shared.ask())


def test_two_answers_are_told_apart_by_their_request_ids(shared):
    client = shared.client()
    ids = {client.ask().get("X-Request-Id") for _ in range(10)}
    assert len(ids) == 10
    assert all(re.fullmatch(rb"[A-Za-z0-9._-]+", value) for value in ids)


def test_an_upgrade_to_something_else_is_an_ordinary_request(shared):
    answer = shared.ask(fields=[(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"),
                                (b"HTTP2-Settings", b"AAMAAABkAARAAAAAAAIAAAAA")])
    assert assert_answer(answer).body == b"hello"
    assert shared.servers[0].next_request().get("Upgrade") is None


def test_an_error_ends_nothing_but_its_request(shared):
    def sometimes(request: http.Request, conn) -> bytes | None:
        if request.target == b"/bad":
            conn.close()
            return None
        return http.reply(body=b"good")

    shared.servers[0].script(serve(sometimes))
    client = shared.client()
    try:
        for _ in range(5):
            assert client.ask("POST", "/bad", body=b"x").status == 502
            assert client.ask("GET", "/").body == b"good"
    except Closed:
        pytest.fail("a 502 closed the client's connection")
