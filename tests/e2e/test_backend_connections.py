"""Connections to the server: kept alive, used again, stale ones found."""

from __future__ import annotations

import time

import pytest

from harness import http
from harness.check import assert_answer, assert_error
from harness.peer import Closed
from harness.server import serve

# A method that is not idempotent takes no connection that was idle for longer.
POOL_IDLE_S = 0.5


def closing_on_reuse(on_close=lambda conn: conn.close()):
    """Answers the first request of a connection and closes at the second without a word;
    /fresh is answered always."""

    def run(conn) -> None:
        count = 0
        while True:
            try:
                request = conn.read_request(60)
            except Closed:
                return
            conn.server.requests.put(request)
            count += 1
            if count > 1:
                on_close(conn)
                return
            conn.send(http.reply(body=b"%d" % conn.number))

    return run


def seen_methods(server) -> list[bytes]:
    out = []
    while not server.requests.empty():
        out.append(server.requests.get().method)
    return out


def test_one_connection_serves_one_request_after_another(shared):
    for method in ("GET", "GET", "POST", "HEAD", "GET", "DELETE"):
        assert_answer(shared.ask(method))
    assert len(shared.servers[0].connections) == 1


def test_requests_at_the_same_time_get_connections_of_their_own(shared):
    server = shared.servers[0]
    release = server.gate()

    def hold(_request: http.Request, conn) -> bytes:
        assert release.wait(20)
        return http.reply(body=b"x")

    server.script(serve(hold))
    clients = [shared.client() for _ in range(5)]
    for client in clients:
        client.send(http.request())
    server.wait_connection(4)
    release.set()
    for client in clients:
        assert client.read_response().body == b"x"
    for _ in range(5):
        shared.ask()
    assert len(server.connections) == 5


@pytest.mark.parametrize("on_close", [lambda conn: conn.close(), lambda conn: conn.reset()],
                         ids=["fin", "rst"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_an_idempotent_request_is_sent_again_once(shared, method, on_close):
    server = shared.servers[0].script(closing_on_reuse(on_close))
    body = b"content" if method == "PUT" else None
    assert_answer(shared.ask("GET"))
    assert_answer(shared.ask(method, body=body))
    assert seen_methods(server) == [b"GET", method.encode(), method.encode()]
    assert len(server.connections) == 2


@pytest.mark.parametrize("method", ["POST", "PATCH", "ANY"])
def test_any_other_request_is_not_sent_again(shared, method):
    server = shared.servers[0].script(closing_on_reuse())
    assert_answer(shared.ask("GET"))
    assert_error(shared.ask(method, body=b"content"), 502, "server_closed")
    assert seen_methods(server) == [b"GET", method.encode()]


def test_a_body_larger_than_the_retry_buffer_is_not_sent_again(shared):
    server = shared.servers[0].script(closing_on_reuse())
    assert_answer(shared.ask("GET"))
    assert_error(shared.ask("PUT", body=b"x" * (1 << 20)), 502, "server_closed")
    assert seen_methods(server) == [b"GET", b"PUT"]


def test_nothing_is_sent_again_once_the_answer_has_begun(shared):
    server = shared.servers[0].script(
        closing_on_reuse(lambda conn: conn.send(b"HTTP/1.1 200 OK\r\n")))
    assert_answer(shared.ask("GET"))
    assert_error(shared.ask("GET"), 502, "server_closed")
    assert seen_methods(server) == [b"GET", b"GET"]


def test_a_server_that_always_closes_is_not_asked_for_ever(shared):
    server = shared.servers[0]

    def slam(conn) -> None:
        conn.server.requests.put(conn.read_request(60))

    server.script(slam)
    assert_error(shared.ask("GET"), 502, "server_closed")
    assert len(seen_methods(server)) <= 3


def test_a_connection_that_the_server_closed_is_not_taken(shared):
    """It answers, then closes without having said so; even a POST right after it arrives."""

    def run(conn) -> None:
        request = conn.read_request(60)
        conn.server.requests.put(request)
        conn.send(http.reply(body=b"x"))

    server = shared.servers[0].script(run)
    client = shared.client()
    for index in range(20):
        assert_answer(client.ask("POST", body=b"content"))
        assert server.wait_connection(index).finished.wait(5)
    assert seen_methods(server) == [b"POST"] * 20


def test_a_post_takes_no_connection_that_was_idle_for_long(shared):
    server = shared.servers[0]
    assert_answer(shared.ask("GET"))
    time.sleep(POOL_IDLE_S + 0.2)  # what is tested is the passing of time
    assert_answer(shared.ask("POST", body=b"content"))
    assert len(server.connections) == 2


def test_a_get_takes_a_connection_that_was_idle_for_long(shared):
    server = shared.servers[0]
    assert_answer(shared.ask("GET"))
    time.sleep(POOL_IDLE_S + 0.2)  # what is tested is the passing of time
    assert_answer(shared.ask("GET"))
    assert len(server.connections) == 1


def test_a_post_takes_a_connection_that_was_just_used(shared):
    server = shared.servers[0]
    assert_answer(shared.ask("GET"))
    assert_answer(shared.ask("POST", body=b"content"))
    assert len(server.connections) == 1


def test_a_server_that_was_started_again_is_found(pair, server):
    """The port is closed and opened again: nothing of the old connections is left."""
    assert_answer(pair.ask())
    server.drop_connections()
    for _ in range(5):
        assert_answer(pair.ask("POST", body=b"content"))


def test_a_server_on_a_unix_socket(stack, tmp_path):
    server = stack.server(path=str(tmp_path / "s"))
    stack.pair(server)
    for _ in range(3):
        assert_answer(stack.ask("POST", body=b"content"))
    assert len(server.connections) == 1
