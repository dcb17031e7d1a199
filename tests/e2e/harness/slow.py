"""Clients that take their time, many of them in one thread, and how each of them ended."""

from __future__ import annotations

import select
import socket
import threading
import time
from dataclasses import dataclass

from .deadline import wait_until
from .peer import Address

READ_BYTES = 1 << 16
TURN_S = 0.05
# At the same time: fewer than any listener's backlog.
CONNECTING_MAX = 200
# The kernel of one that does not read takes no more than it must.
RECEIVE_BUFFER_BYTES = 4096


@dataclass
class Ending:
    """What came of one client."""

    said: bytes  # all that came
    seconds: float  # from its first byte to the end
    reset: bool


@dataclass
class _Client:
    sock: socket.socket
    since: float
    said: bytes = b""


class SlowClients:
    """They send `opening`, then a byte of `drip` every interval_s for drip_s; an end is heard
    of at once.  With reads=False nothing that comes is read: only a reset is heard of."""

    def __init__(self, address: Address, count: int, opening: bytes, interval_s: float = 0.0,
                 drip: bytes = b"", drip_s: float = 60.0, reads: bool = True) -> None:
        self.endings: list[Ending] = []
        self._drip, self._interval_s, self._drip_s = drip, interval_s, drip_s
        self._reads = reads
        self._epoll = select.epoll()
        self._clients: dict[int, _Client] = {}
        self._stop = threading.Event()
        for at in range(0, count, CONNECTING_MAX):
            self._open(address, min(CONNECTING_MAX, count - at), opening)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _open(self, address: Address, count: int, opening: bytes) -> None:
        fresh = []
        for _ in range(count):
            sock = socket.socket()
            if not self._reads:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            sock.settimeout(10)
            sock.connect(address)
            sock.setblocking(False)
            fresh.append(sock)
        for sock in fresh:
            if opening:
                sock.send(opening)
            self._clients[sock.fileno()] = _Client(sock, time.monotonic())
            # An error is told of without being asked for.
            self._epoll.register(sock, select.EPOLLIN if self._reads else 0)

    def __enter__(self) -> "SlowClients":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        for client in self._clients.values():
            client.sock.close()
        self._epoll.close()

    def _run(self) -> None:
        next_drip = time.monotonic() + self._interval_s
        until = time.monotonic() + self._drip_s
        while not self._stop.is_set() and self._clients:
            for fd, _ in self._epoll.poll(TURN_S):
                self._hear(self._clients[fd])
            now = time.monotonic()
            if self._drip and next_drip <= now < until:
                next_drip = now + self._interval_s
                for client in self._clients.values():
                    try:
                        client.sock.send(self._drip)
                    except OSError:
                        pass  # the end is heard of by reading

    def _hear(self, client: _Client) -> None:
        reset = False
        try:
            while data := client.sock.recv(READ_BYTES):
                client.said += data
        except BlockingIOError:
            return
        except OSError:
            reset = True
        self._epoll.unregister(client.sock)
        del self._clients[client.sock.fileno()]
        client.sock.close()
        self.endings.append(Ending(client.said, time.monotonic() - client.since, reset))

    def wait_ended(self, count: int, seconds: float) -> list[Ending]:
        wait_until(lambda: len(self.endings) == count,
                   f"all {count} are ended", seconds)
        return self.endings
