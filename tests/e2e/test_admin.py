"""The operator's port, and the limit of connections."""

from __future__ import annotations

import signal

import pytest

from harness import http
from harness.client import Client
from harness.server import serve
from harness.check import assert_answer


@pytest.mark.parametrize("path, status, body", [
    ("/healthz", 200, b"ok\n"),
    ("/readyz", 200, b"ready\n"),
    ("/nothing", 404, b'{"error":"no such page"}\n'),
])
def test_it_answers(shared, path, status, body):
    with Client(shared.ingress.admin) as client:
        for _ in range(2):  # the connection is kept
            answer = client.ask("GET", path)
            assert (answer.status, answer.body) == (status, body)


def test_it_only_reads(shared):
    with Client(shared.ingress.admin) as client:
        assert client.ask("POST", "/healthz", body=b"x").status == 405


def test_a_draining_ingress_is_alive_but_not_ready(pair, server):
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply(body=b"held")))
    client = pair.client()
    client.send(http.request())
    server.next_request()
    pair.ingress.signal(signal.SIGTERM)
    pair.ingress.wait_log("draining")
    with Client(pair.ingress.admin) as admin:
        assert admin.ask("GET", "/readyz").status == 503
        assert admin.ask("GET", "/healthz").status == 200
    gate.set()
    assert assert_answer(client.read_response()).body == b"held"
    pair.ingress.expect_exit(0)


def test_connections_beyond_the_limit_wait_until_one_ends(stack, server):
    stack.ingress = stack.start_ingress("--connections-max", "2")
    stack.start_shim(stack.ingress, server=server)
    first, second, third = (stack.client() for _ in range(3))
    assert_answer(first.ask())
    assert_answer(second.ask())
    third.send(http.request())
    for _ in range(10):  # the loop has gone round, and still nothing for the third
        assert_answer(second.ask())
    assert third.sock_peek() == b""
    first.close()
    assert_answer(third.read_response())
