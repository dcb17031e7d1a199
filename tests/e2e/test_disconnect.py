"""A client that leaves is noticed at once, whatever its request is doing."""

from __future__ import annotations

import os
import threading
import time
from typing import Callable

import pytest

from harness import http
from harness.client import Client
from harness.server import serve_heads

# The promise is 50 ms; a debug build with sanitizers on a shared machine gets some more.
NOTICED_S = 0.05 if os.environ.get("PORTHOLE_STRICT_TIMING") == "1" else 0.25
LEAVE = {"close": lambda client: client.close(), "reset": lambda client: client.reset(),
         "fin": lambda client: client.finish_writing()}
BLOCK = b"x" * (1 << 20)


class Scene:
    """Plays a part of a request, then measures how soon the server hears of the leaving."""

    def __init__(self, stack, act) -> None:
        self.server = stack.servers[0]
        self.ready = threading.Event()
        self.left_at: float | None = None

        def run(request: http.Request, conn) -> None:
            act(request, conn, self.ready)
            self.left_at = conn.wait_left(10)
            conn.close()

        self.server.script(serve_heads(run))
        self.client = stack.client()

    def leave(self, how: str | Callable[[Client], object]) -> float:
        assert self.ready.wait(10)
        start = time.monotonic()
        (LEAVE[how] if isinstance(how, str) else how)(self.client)
        conn = self.server.wait_connection()
        assert conn.finished.wait(10), "the server's connection was not closed"
        assert self.left_at is not None
        return self.left_at - start


@pytest.mark.parametrize("how", LEAVE)
def test_while_waiting_for_an_answer(shared, how):
    scene = Scene(shared, lambda request, conn, ready: ready.set())
    scene.client.send(http.request())
    assert scene.leave(how) < NOTICED_S


@pytest.mark.parametrize("how", LEAVE)
def test_while_waiting_after_an_upload(shared, how):
    def act(request, conn, ready) -> None:
        b"".join(conn.body_pieces(request))
        ready.set()

    scene = Scene(shared, act)
    scene.client.send(http.request("POST", body=b"x" * 100_000))
    assert scene.leave(how) < NOTICED_S


@pytest.mark.parametrize("how", LEAVE)
@pytest.mark.parametrize("framing", [(b"Content-Length", b"1000000"), (b"Transfer-Encoding", b"chunked")],
                         ids=["length", "chunked"])
def test_in_the_middle_of_an_upload(shared, how, framing):
    def act(request, conn, ready) -> None:
        conn.read_until(b"some")
        ready.set()

    scene = Scene(shared, act)
    scene.client.send(http.request("POST", fields=[framing])
                      + (http.chunk(b"some") if framing[1] == b"chunked" else b"some"))
    assert scene.leave(how) < NOTICED_S


def test_in_the_middle_of_an_upload_that_the_server_does_not_read(shared):
    """http.disconnect overtakes the body that is queued: the server, once it reads again, has
    what was in the socket, then the end.  A FIN would stand behind the bytes that nobody
    takes from the client's own socket, so the client resets."""
    go = shared.servers[0].gate()

    def act(_request, _conn, ready) -> None:
        ready.set()
        assert go.wait(20)

    scene = Scene(shared, act)
    scene.client.send(http.request("POST", fields=[(b"Content-Length", b"%d" % (256 << 20))]))
    sent = scene.client.send_until_blocked(BLOCK, 256 << 20, 0.5)
    assert sent < 128 << 20, "nothing held the client back"
    assert scene.leave(lambda client: (client.reset(), go.set())) < NOTICED_S * 4
    assert shared.servers[0].connections[0].received_bytes < sent


@pytest.mark.parametrize("how", LEAVE)
def test_between_two_events_of_a_download(shared, how):
    def act(_request, conn, ready) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + http.chunk(b"event"))
        ready.set()

    scene = Scene(shared, act)
    scene.client.send(http.request())
    scene.client.read_until(b"event")
    assert scene.leave(how) < NOTICED_S


@pytest.mark.parametrize("how", ["close", "reset"])
def test_in_the_middle_of_a_download_that_the_client_does_not_read(shared, how):
    def act(_request, conn, ready) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (256 << 20))
        conn.send_until_blocked(BLOCK, 256 << 20, 0.5)
        ready.set()

    scene = Scene(shared, act)
    scene.client.send(http.request())
    scene.client.read_final_head()
    assert scene.leave(how) < NOTICED_S


def test_the_next_request_is_served_after_many_have_left(shared):
    def act(_request, conn, ready) -> None:
        ready.set()

    for _ in range(20):
        scene = Scene(shared, act)
        scene.client.send(http.request())
        scene.leave("reset")
        shared.servers[0].forget_connections()
    shared.servers[0].script(serve_heads(lambda request, conn: http.reply(body=b"well")))
    assert shared.ask().body == b"well"
