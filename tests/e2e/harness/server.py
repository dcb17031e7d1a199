"""A scripted HTTP server: a test says in Python what it does with each connection."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
import traceback
from typing import Callable, Iterator, Optional

from . import http
from .deadline import Deadline, PATIENCE_S, wait_until
from .http import Request
from .peer import Closed, Late, Peer

OnConnection = Callable[["ServerConnection"], None]
OnRequest = Callable[[Request, "ServerConnection"], Optional[bytes]]


class ServerConnection(Peer):
    """One connection that a server accepted.  Everything that came is kept in `seen`."""

    SEEN_BYTES_MAX = 1 << 20

    def __init__(self, server: "RawServer", sock: socket.socket, number: int) -> None:
        self.seen = bytearray()
        self.server = server
        self.number = number
        self.finished = threading.Event()
        self.left_at: float | None = None
        super().__init__(sock)

    def on_bytes(self, data: bytes) -> None:
        if not self.seen:
            self.server._spoke(self)
        if len(self.seen) < self.SEEN_BYTES_MAX:
            self.seen += data

    def read_head(self, seconds: float | None = None) -> Request:
        return http.parse_request_head(self.read_until(b"\r\n\r\n", seconds))

    def body_pieces(self, request: Request, seconds: float | None = None) -> Iterator[bytes]:
        length = request.get("Content-Length")
        assert not (request.chunked and length is not None), request.raw_head
        if request.chunked:
            return self.pieces_chunked(request.trailers, seconds)
        return self.pieces_by_length(int(length or 0), seconds)

    def read_request(self, seconds: float | None = None) -> Request:
        request = self.read_head(seconds)
        request.body = b"".join(self.body_pieces(request, seconds))
        return request

    def wait_left(self, seconds: float | None = None) -> float:
        """Block until the peer has closed; returns the moment of it (monotonic)."""
        self.expect_closed(seconds)
        self.left_at = time.monotonic()
        return self.left_at


# A connection waits this long for its next request: longer than any test.
IDLE_S = 120.0


def serve(on_request: OnRequest) -> OnConnection:
    """A keep-alive server: on_request returns the bytes of the answer, or writes by itself
    and returns None.  A connection that it closed is not read again."""

    def run(conn: ServerConnection) -> None:
        while conn.sock.fileno() >= 0:
            try:
                request = conn.read_head(IDLE_S)
            except Closed:
                return
            request.body = b"".join(conn.body_pieces(request))
            conn.server.requests.put(request)
            answer = on_request(request, conn)
            if answer is not None:
                conn.send(answer)

    return run


def serve_heads(on_head: OnRequest) -> OnConnection:
    """As serve, but on_head is called at the end of the head and reads the body itself."""

    def run(conn: ServerConnection) -> None:
        while conn.sock.fileno() >= 0:
            try:
                request = conn.read_head(IDLE_S)
            except Closed:
                return
            conn.server.requests.put(request)
            answer = on_head(request, conn)
            if answer is not None:
                conn.send(answer)

    return run


def hello(request: Request, _conn: ServerConnection) -> bytes:
    if request.method == b"HEAD":
        return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    return http.reply(body=b"hello")


class RawServer:
    """Listens on 127.0.0.1 (port 0) or on a unix path, a thread for each connection.

    `connections` are those that sent at least one byte: a probe of the port is none."""

    def __init__(self, on_connection: OnConnection | None = None, path: str | None = None,
                 backlog: int = 512) -> None:
        self.on_connection = on_connection or serve(hello)
        self.requests: queue.Queue[Request] = queue.Queue()
        self.connections: list[ServerConnection] = []
        self.errors: list[str] = []
        self._all: list[ServerConnection] = []
        self._gates: list[threading.Event] = []
        self._lock = threading.Lock()
        self._spoken = threading.Condition(self._lock)
        self.path = path
        if path is None:
            self.listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
            self.port: int = self.listener.getsockname()[1]
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen(backlog)
            self.port = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                conn = ServerConnection(self, sock, len(self._all))
                self._all.append(conn)
            threading.Thread(target=self._run, args=(conn,), daemon=True).start()

    def _run(self, conn: ServerConnection) -> None:
        try:
            self.on_connection(conn)
        except Closed:
            pass
        except Exception:  # noqa: BLE001 - shown at the end of the test
            if conn.seen:
                self.errors.append(traceback.format_exc())
        finally:
            conn.sock.close()
            conn.finished.set()

    def _spoke(self, conn: ServerConnection) -> None:
        with self._spoken:
            self.connections.append(conn)
            self._spoken.notify_all()

    def script(self, on_connection: OnConnection) -> "RawServer":
        """What the server does from now on with new connections."""
        self.on_connection = on_connection
        return self

    def gate(self) -> threading.Event:
        """Something for a script to wait on; opened at the end at the latest."""
        event = threading.Event()
        self._gates.append(event)
        return event

    def next_request(self, seconds: float | None = None) -> Request:
        try:
            return self.requests.get(timeout=PATIENCE_S if seconds is None else seconds)
        except queue.Empty:
            raise AssertionError("the server got no request") from None

    def wait_connection(self, index: int = 0, seconds: float | None = None) -> ServerConnection:
        """The index-th connection that has sent something."""
        deadline = Deadline(seconds)
        with self._spoken:
            while len(self.connections) <= index:
                assert not deadline.passed, f"connection {index} did not come"
                self._spoken.wait(deadline.left)
            return self.connections[index]

    @property
    def seen(self) -> bytes:
        """All bytes of all connections."""
        return b"".join(bytes(conn.seen) for conn in list(self._all))

    def stop_listening(self) -> None:
        """From now on a connection is refused; those that exist go on."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self._thread.join(2.0)

    def drop_connections(self) -> None:
        for conn in list(self._all):
            try:
                conn.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def forget_connections(self) -> None:
        """End all connections and what was seen of them.  Those that wait for a request end when
        the shim has closed its side: it would send the next one on them."""
        for conn in list(self._all):
            try:
                conn.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        deadline = Deadline(0.5)
        for conn in list(self._all):
            conn.finished.wait(deadline.left)
        self.drop_connections()
        for conn in list(self._all):
            wait_until(conn.finished.is_set, "a connection's script ends", 5)
        with self._lock:
            self._all.clear()
            self.connections.clear()

    def close(self) -> None:
        for gate in self._gates:
            gate.set()
        self.stop_listening()
        self.drop_connections()
        for conn in list(self._all):
            wait_until(conn.finished.is_set, "a connection's script ends", 5)
        if self.path:
            os.unlink(self.path)

    def check(self) -> None:
        assert not self.errors, "the scripted server failed:\n" + "\n".join(self.errors)


__all__ = ["Closed", "Late", "RawServer", "ServerConnection", "hello", "serve", "serve_heads"]
