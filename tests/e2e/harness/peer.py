"""Sockets that read until something comes, with a deadline on everything."""

from __future__ import annotations

import select
import socket
import struct
from typing import Iterator, Union

from .deadline import Deadline, PATIENCE_S
from .http import CHUNK_LINE, Fields, NotHttp, parse_fields

Address = Union[tuple[str, int], str]
READ_BYTES = 1 << 18


class Closed(AssertionError):
    """The peer closed or reset the connection before the thing waited for came."""


class Late(AssertionError):
    """The thing waited for did not come in time."""


def dial(address: Address, seconds: float = PATIENCE_S) -> socket.socket:
    """A connection to (host, port), of either family, or to a unix path."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(seconds)
        sock.connect(address)
        return sock
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family)
    sock.settimeout(seconds)
    sock.connect(address)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Peer:
    """A connected socket with a buffer of what came and was not asked for yet."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE_S)
        self.buffer = bytearray()
        self.received_bytes = 0
        self.ended = False

    def fill(self, deadline: Deadline) -> None:
        """Read some more; Closed at the end, Late when time is up."""
        self.sock.settimeout(max(deadline.left, 0.001))
        try:
            data = self.sock.recv(READ_BYTES)
        except (TimeoutError, BlockingIOError):
            raise Late(f"nothing within {deadline.seconds:g} s; so far {bytes(self.buffer[-300:])!r}") from None
        except OSError as error:
            self.ended = True
            raise Closed(f"{error}; so far {bytes(self.buffer[-300:])!r}") from None
        if not data:
            self.ended = True
            raise Closed(f"closed; so far {bytes(self.buffer[-300:])!r}")
        self.on_bytes(data)
        self.received_bytes += len(data)
        self.buffer += data

    def on_bytes(self, data: bytes) -> None:
        """For those who keep a record."""

    def read_until(self, mark: bytes, seconds: float | None = None) -> bytes:
        """Everything up to and with the mark."""
        deadline = Deadline(seconds)
        start = 0
        while (at := self.buffer.find(mark, start)) < 0:
            start = max(0, len(self.buffer) - len(mark) + 1)
            self.fill(deadline)
        return self._take(at + len(mark))

    def read_exactly(self, count: int, seconds: float | None = None) -> bytes:
        deadline = Deadline(seconds)
        while len(self.buffer) < count:
            self.fill(deadline)
        return self._take(count)

    def read_some(self, seconds: float | None = None) -> bytes:
        """What is there, at least one byte."""
        if not self.buffer:
            self.fill(Deadline(seconds))
        return self._take(len(self.buffer))

    def read_to_end(self, seconds: float | None = None) -> bytes:
        """Everything until the peer closes; a reset is not an end."""
        deadline = Deadline(seconds)
        while True:
            self.sock.settimeout(max(deadline.left, 0.001))
            try:
                data = self.sock.recv(READ_BYTES)
            except TimeoutError:
                raise Late("the peer did not close") from None
            if not data:
                self.ended = True
                return self._take(len(self.buffer))
            self.on_bytes(data)
            self.received_bytes += len(data)
            self.buffer += data

    def _take(self, count: int) -> bytes:
        out = bytes(self.buffer[:count])
        del self.buffer[:count]
        return out

    # ---- bodies, in the pieces in which they come

    def pieces_by_length(self, count: int, seconds: float | None = None) -> Iterator[bytes]:
        while count:
            if not self.buffer:
                self.fill(Deadline(seconds))
            piece = self._take(min(count, len(self.buffer)))
            count -= len(piece)
            yield piece

    def pieces_chunked(self, trailers: Fields, seconds: float | None = None) -> Iterator[bytes]:
        """Chunk by chunk; the trailers are added to the list given."""
        while True:
            line = self.read_until(b"\r\n", seconds)[:-2]
            match = CHUNK_LINE.fullmatch(line)
            if not match:
                raise NotHttp(f"not a chunk size: {line!r}")
            size = int(match[1], 16)
            if not size:
                break
            yield from self.pieces_by_length(size, seconds)
            if (end := self.read_exactly(2, seconds)) != b"\r\n":
                raise NotHttp(f"a chunk ends with {end!r}")
        lines = []
        while line := self.read_until(b"\r\n", seconds)[:-2]:
            lines.append(line)
        trailers += parse_fields(lines)

    def pieces_to_end(self, seconds: float | None = None) -> Iterator[bytes]:
        while True:
            if self.buffer:
                yield self._take(len(self.buffer))
            try:
                self.fill(Deadline(seconds))
            except Closed:
                return

    # ---- writing and leaving

    def send(self, data: bytes, seconds: float | None = None) -> None:
        self.sock.settimeout(PATIENCE_S if seconds is None else seconds)
        try:
            self.sock.sendall(data)
        except TimeoutError:
            raise Late("the peer takes no more bytes") from None
        except OSError as error:
            raise Closed(str(error)) from None

    def send_until_blocked(self, data: bytes, limit: int, still_s: float = 1.0) -> int:
        """Send the same bytes over and over until none is taken for still_s, or to the limit.

        Returns how many were taken."""
        self.sock.setblocking(False)
        sent = 0
        view = memoryview(data)
        while sent < limit:
            try:
                sent += self.sock.send(view[sent % len(data):])
            except BlockingIOError:
                poller = select.poll()
                poller.register(self.sock, select.POLLOUT)
                if not poller.poll(still_s * 1000):
                    break
            except OSError as error:
                raise Closed(str(error)) from None
        self.sock.settimeout(PATIENCE_S)
        return sent

    def expect_closed(self, seconds: float | None = None) -> bytes:
        """Wait until the peer closes or resets; returns what it still sent."""
        deadline = Deadline(seconds)
        while not self.ended:
            try:
                self.fill(deadline)
            except Closed:
                break
        return self._take(len(self.buffer))

    def is_closed_now(self) -> bool:
        """Has an end already arrived?  Reads nothing away."""
        self.sock.setblocking(False)
        try:
            return self.sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def sock_peek(self) -> bytes:
        """What has arrived and was not read yet; reads nothing away."""
        self.sock.setblocking(False)
        try:
            return bytes(self.buffer) + self.sock.recv(READ_BYTES, socket.MSG_PEEK)
        except OSError:
            return bytes(self.buffer)

    def finish_writing(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
