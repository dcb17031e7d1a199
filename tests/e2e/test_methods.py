"""Methods: any token but CONNECT, with or without a body."""

from __future__ import annotations

import pytest

from harness import http
from harness.check import assert_answer, assert_error
from harness.server import serve

TOKENS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH",
          "QUERY", "get", "Post", "X", "!#$%&'*+-.^_`|~09az", "A" * 40]


@pytest.mark.parametrize("method", TOKENS)
def test_any_token_reaches_the_server(shared, method):
    assert_answer(shared.ask(method))
    request = shared.servers[0].next_request()
    assert request.method == method.encode()
    assert request.body == b""
    assert not request.chunked


@pytest.mark.parametrize("method", TOKENS)
def test_any_token_may_have_a_body(shared, method):
    assert_answer(shared.ask(method, body=b"a body"))
    request = shared.servers[0].next_request()
    assert (request.method, request.body) == (method.encode(), b"a body")
    assert request.get("Content-Length") == b"6"


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PATCH"])
def test_any_token_may_have_a_chunked_body(shared, method):
    client = shared.client()
    client.send(http.request(method, fields=[(b"Transfer-Encoding", b"chunked")])
                + http.chunked(b"a ", b"body"))
    assert_answer(client.read_response())
    request = shared.servers[0].next_request()
    assert (request.method, request.body) == (method.encode(), b"a body")


def test_head_has_the_headers_of_get_and_no_body(shared):
    shared.servers[0].script(serve(
        lambda request, conn: b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: b\r\n\r\n"))
    client = shared.client()
    for _ in range(2):
        answer = client.ask("HEAD")
        assert_answer(answer)
        assert answer.get("Content-Length") == b"1234"
        assert answer.get("X-A") == b"b"
    assert not client.buffer


def test_connect_is_not_implemented(shared):
    client = shared.client()
    client.send(b"CONNECT example.test:443 HTTP/1.1\r\nHost: example.test:443\r\n\r\n")
    assert_error(client.read_response(), 501, "not_implemented")
    assert shared.servers[0].requests.empty()


def test_a_body_of_zero_bytes_is_kept_as_such(shared):
    assert_answer(shared.ask("POST", body=b""))
    request = shared.servers[0].next_request()
    assert request.get("Content-Length") == b"0"
    assert request.body == b""
