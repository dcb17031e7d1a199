"""Thousands of calls at once, with one thread: a server that keeps requests, and the clients."""

from __future__ import annotations

import resource
import select
import socket
import threading
from typing import Sequence

import pytest

from . import http
from .deadline import wait_until
from .peer import Address

READ_BYTES = 1 << 16
BLOCK = b"x" * READ_BYTES
BACKLOG = 4096
# At the same time: fewer than any listener's backlog.
CONNECTING_MAX = 200


def need_descriptors(count: int) -> None:
    """For this process and the programs that it starts from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"{count} descriptors are needed, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


class ParkServer:
    """Answers at once, but for requests of /park/...: those wait until answer_all.  The answer
    to /begin/BYTES is one chunk of so many, and its end comes with end_begun; to /length/BYTES
    it has that length, as fast as it is taken.  A POST is never answered, its body thrown away.

    Stands in a Stack as a RawServer does."""

    def __init__(self) -> None:
        self.path = None
        self.held: dict[socket.socket, bytes] = {}  # and their targets
        self.begun: list[socket.socket] = []
        self.bodies: set[socket.socket] = set()
        self.errors: list[str] = []
        self._left: dict[socket.socket, int] = {}  # of answers with a length
        self._lock = threading.Lock()
        self._connections: dict[int, socket.socket] = {}
        self._epoll = select.epoll()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        self._epoll.register(self.listener, select.EPOLLIN)
        self._wake, self._waker = socket.socketpair()
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for fd, events in self._epoll.poll():
                if fd == self._wake.fileno():
                    return
                if fd == self.listener.fileno():
                    self._accept()
                elif events & select.EPOLLOUT:
                    self._pour(self._connections[fd])
                else:
                    self._read(self._connections[fd])

    def _accept(self) -> None:
        try:
            while True:
                sock, _ = self.listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections[sock.fileno()] = sock
                self._epoll.register(sock, select.EPOLLIN)
        except BlockingIOError:
            pass

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(READ_BYTES)
        except OSError:
            data = b""
        with self._lock:
            if not data:
                self._forget(sock)
            elif sock in self.bodies:
                pass
            elif data.startswith(b"POST ") and b"\r\n\r\n" in data:
                self.bodies.add(sock)
            else:
                self._take(sock, data)

    def _take(self, sock: socket.socket, data: bytes) -> None:
        if not data.endswith(b"\r\n\r\n") or data.count(b"\r\n\r\n") != 1:
            self.errors.append(f"not one head: {data[:500]!r}")
        elif (target := data.split(b" ", 2)[1]).startswith(b"/park/"):
            self.held[sock] = target
        elif target.startswith(b"/begin/"):
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                         + http.chunk(b"x" * int(target[7:])))
            self.begun.append(sock)
        elif target.startswith(b"/length/"):
            self._left[sock] = int(target[8:])
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
                         % self._left[sock])
            self._epoll.modify(sock, select.EPOLLOUT)
        else:
            sock.sendall(http.reply(body=b"hello"))

    def _forget(self, sock: socket.socket) -> None:
        self._epoll.unregister(sock)
        self.held.pop(sock, None)
        self.bodies.discard(sock)
        self._left.pop(sock, None)
        del self._connections[sock.fileno()]
        sock.close()

    def _pour(self, sock: socket.socket) -> None:
        try:
            self._left[sock] -= sock.send(BLOCK[:self._left[sock]], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self._forget(sock)
            return
        if self._left[sock] == 0:
            del self._left[sock]
            self._epoll.modify(sock, select.EPOLLIN)

    def wait_held(self, count: int, seconds: float = 30.0) -> None:
        wait_until(lambda: len(self.held) == count,
                   f"{count} calls are parked", seconds)

    def answer_all(self) -> None:
        """Every one that waits, with its target."""
        with self._lock:
            for sock, target in self.held.items():
                sock.sendall(http.reply(body=target))
            self.held.clear()

    def end_begun(self) -> None:
        with self._lock:
            for sock in self.begun:
                sock.sendall(b"0\r\n\r\n")
            self.begun.clear()

    def check(self) -> None:
        assert not self.errors, self.errors[:3]

    def close(self) -> None:
        self._waker.close()
        self._thread.join(5)
        for sock in [*self._connections.values(), self.listener, self._wake]:
            sock.close()
        self._epoll.close()


class Crowd:
    """Clients that have sent one request each and wait for its answer."""

    def __init__(self, address: Address, requests: Sequence[bytes]) -> None:
        self.sockets: list[socket.socket] = []
        for at in range(0, len(requests), CONNECTING_MAX):
            some = [(socket.create_connection(address, 10), request)
                    for request in requests[at:at + CONNECTING_MAX]]
            for sock, request in some:
                sock.sendall(request)
                self.sockets.append(sock)

    def read_until(self, mark: bytes, seconds: float = 30.0) -> None:
        """Of every client; nothing may come behind it."""
        for sock in self.sockets:
            sock.settimeout(seconds)
            data = b""
            while mark not in data:
                data += _some(sock)
            assert data.endswith(mark), data[-500:]

    def send(self, requests: Sequence[bytes]) -> None:
        """The next request of each."""
        for sock, request in zip(self.sockets, requests):
            sock.sendall(request)

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def spoken_to(self) -> int:
        """How many have been answered, or their connections ended."""
        poller = select.poll()
        for sock in self.sockets:
            poller.register(sock, select.POLLIN)
        return len(poller.poll(0))

    def read_answers(self, seconds: float = 30.0) -> list[bytes]:
        """The body of each answer; it has a Content-Length."""
        bodies = []
        for sock in self.sockets:
            sock.settimeout(seconds)
            data = b""
            while b"\r\n\r\n" not in data:
                data += _some(sock)
            head, _, body = data.partition(b"\r\n\r\n")
            answer = http.parse_response_head(head + b"\r\n\r\n")
            assert answer.status == 200, answer.raw_head
            while len(body) < (answer.content_length or 0):
                body += _some(sock)
            bodies.append(body)
        return bodies

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(READ_BYTES)
    assert data, "closed before its answer was whole"
    return data
