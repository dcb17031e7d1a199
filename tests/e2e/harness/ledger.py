"""Mixed calls in flight, and a book of what came of each.

Every call has an id, and both bodies are made from it, so that a byte that is lost, doubled
or of another call shows.  A call ends in one of these ways, and the book has each once:

    answered   200, and both sides saw the bytes that they should
    failed     an error of Porthole's own: its code
    broken     the connection ended before the answer's end
    wrong      anything else: what, in words
"""

from __future__ import annotations

import collections
import hashlib
import random
import threading
import time
from typing import Callable

from . import http
from .deadline import Deadline
from .client import Client
from .peer import Closed, Late
from .server import RawServer, ServerConnection, serve_heads

BLOCK = random.Random(1).randbytes(1 << 20)
PIECE_BYTES = 64 * 1024
SERVER_PATIENCE_S = 60.0


def pattern(call: int, way: int, size: int) -> bytes:
    start = (call * 2 + way) * 7919 % len(BLOCK)
    whole = BLOCK[start:] + BLOCK[:start]
    return (whole * (size // len(BLOCK) + 1))[:size]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# kind: (weight, method, up bytes, down bytes, seconds that the server takes)
KINDS = {
    "small": (6, "GET", 0, 200, 0.0),
    "waits": (4, "POST", 100, 200, 2.0),
    "drips": (3, "GET", 0, 2 << 20, 2.0),
    "uploads": (3, "POST", 1 << 20, 64, 1.0),
    "both": (2, "POST", 3 << 20, 3 << 20, 0.0),
}


class CallServer:
    """Answers the calls of a Ledger, and counts how often each came."""

    def __init__(self, server: RawServer) -> None:
        self.served: collections.Counter[int] = collections.Counter()
        self._lock = threading.Lock()
        server.script(serve_heads(self._serve))

    def _serve(self, request: http.Request, conn: ServerConnection) -> bytes | None:
        call, kind = int(request.get("X-Call") or b"-1"), (request.get("X-Kind") or b"").decode()
        _, method, up, down, seconds = KINDS[kind]
        with self._lock:
            self.served[call] += 1
        try:
            seen = hashlib.sha256()
            for piece in conn.body_pieces(request, SERVER_PATIENCE_S):
                seen.update(piece)
            if method == "POST" and seen.hexdigest() != digest(pattern(call, 0, up)):
                return http.reply(500, body=b"the request's body is not what was sent")
            return self._answer(conn, call, kind, pattern(call, 1, down), seconds)
        except (Closed, ConnectionError):
            conn.close()  # whoever asked is gone
            return None

    def _answer(self, conn: ServerConnection, call: int, kind: str, body: bytes,
                seconds: float) -> bytes | None:
        if kind != "drips":
            time.sleep(seconds)  # what this server takes
            conn.send(http.reply(fields=[(b"X-Call", b"%d" % call)], body=body), SERVER_PATIENCE_S)
            return None
        conn.send(b"HTTP/1.1 200 OK\r\nX-Call: %d\r\nContent-Length: %d\r\n\r\n"
                  % (call, len(body)))
        pieces = range(0, len(body), PIECE_BYTES)
        for at in pieces:
            conn.send(body[at:at + PIECE_BYTES], SERVER_PATIENCE_S)
            time.sleep(seconds / len(pieces))
        return None


class Ledger:
    """`workers` threads make one call after the other until stop().

    Their server is a CallServer, in this process or in one of its own."""

    def __init__(self, client: Callable[[], Client], workers: int,
                 patience_s: float, seed: int = 1) -> None:
        self.client = client
        self.patience_s = patience_s
        self.lock = threading.Lock()
        self.began = 0
        self.ended: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.codes: collections.Counter[str] = collections.Counter()
        self.slowest_s = 0.0
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]

    def start(self) -> "Ledger":
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """No new calls; those in flight end, in time, or the test fails."""
        self._stopping.set()
        deadline = Deadline(self.patience_s + 10)
        for thread in self._threads:
            thread.join(deadline.left)
            assert not thread.is_alive(), "a call hangs"
        total = sum(self.ended.values())
        assert total == self.began, f"{self.began} began, {total} ended: {self.ended}"
        assert not self.wrong, self.wrong[:5]

    @property
    def in_flight(self) -> int:
        with self.lock:
            return self.began - sum(self.ended.values())

    def __str__(self) -> str:
        return (f"{self.began} calls: {dict(self.ended)} {dict(self.codes)}, "
                f"the slowest {self.slowest_s:.1f} s")

    # ---- the clients

    def _pick(self) -> tuple[int, str]:
        names = list(KINDS)
        weights = [kind[0] for kind in KINDS.values()]
        with self.lock:
            self.began += 1
            return self.began, self._random.choices(names, weights)[0]

    def _work(self) -> None:
        client: Client | None = None
        while not self._stopping.is_set():
            call, kind = self._pick()
            start = time.monotonic()
            try:
                client = client or self.client()
                end = self._ask(client, call, kind)
            except (ConnectionError, Closed):
                end = "broken"
            except Late:
                end = f"call {call}, {kind}: nothing came for {self.patience_s:g} s"
            except Exception as error:  # noqa: BLE001: it belongs into the book
                end = f"call {call}, {kind}: {error!r}"
            if end != "answered" and client:
                client.close()
                client = None
            with self.lock:
                self.slowest_s = max(self.slowest_s, time.monotonic() - start)
                known = end in ("answered", "failed", "broken")
                self.ended[end if known else "wrong"] += 1
                if not known:
                    self.wrong.append(end)
            if end == "broken":
                self._stopping.wait(0.05)  # whoever died is not dialled in a tight loop
        if client:
            client.close()

    def _ask(self, client: Client, call: int, kind: str) -> str:
        _, method, up, down, seconds = KINDS[kind]
        fields = [(b"X-Call", b"%d" % call), (b"X-Kind", kind.encode())]
        if method == "GET":
            client.send(http.request(method, "/", fields), self.patience_s)
        else:
            body = pattern(call, 0, up)
            fields.append((b"Content-Length", b"%d" % up))
            client.send(http.request(method, "/", fields), self.patience_s)
            slow = seconds if kind == "uploads" else 0.0
            for at in range(0, up, PIECE_BYTES):
                client.send(body[at:at + PIECE_BYTES], self.patience_s)
                if slow:
                    self._stopping.wait(slow / (up / PIECE_BYTES))
        head = client.read_final_head(self.patience_s)
        answers = head.get("X-Call")
        if answers is not None and answers != b"%d" % call:
            return f"call {call}, {kind}: the answer to {answers!r}"
        seen = hashlib.sha256()
        client.feed_body(head, seen.update, self.patience_s)
        code = head.get("Porthole-Error")
        if code:
            with self.lock:
                self.codes[code.decode()] += 1
            return "failed"
        if head.status != 200:
            return f"call {call}, {kind}: {head.status}"
        if seen.hexdigest() != digest(pattern(call, 1, down)):
            return f"call {call}, {kind}: another body than was sent"
        if client.buffer:
            return f"call {call}, {kind}: bytes behind the answer"
        return "answered"
