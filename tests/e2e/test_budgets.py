"""Readers who stall hold what the budget has, and nobody else is slower for it."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from harness import http
from harness.check import assert_answer
from harness.client import Client
from harness.deadline import wait_until
from harness.peer import dial
from harness.program import resident_bytes
from harness.server import serve_heads
from harness.stack import SANITIZED

MIB = 1 << 20
STALLED = 100
BUDGET_MIB = 64
# What a program takes beside the budget: itself, and for every call a first window in each
# direction, a piece that is being written, and both of its connections.
BESIDE_MIB = 24 + STALLED * 0.25 + (120 if SANITIZED else 0)
STALL_S = 6
BLOCK = bytes(range(256)) * 4096
SMALL_RECEIVE_BYTES = 16 * 1024


class StalledClient(Client):
    """Its kernel takes little, and it reads nothing."""

    def __init__(self, address) -> None:
        sock = dial(address)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_RECEIVE_BYTES)
        super(Client, self).__init__(sock)


def answer(request: http.Request, conn) -> bytes | None:
    """A GiB, or as many MiB as the target says."""
    if request.target == b"/small":
        return http.reply(body=b"small")
    size = int(request.target[1:]) * MIB
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    for _ in range(size // len(BLOCK)):
        conn.send(BLOCK, 120)
    return None


def best_seconds(stack, mib: int) -> float:
    """Of three downloads: the machine has other things to do, too."""
    times = []
    for _ in range(3):
        with stack.ingress.client() as client:
            start = time.monotonic()
            client.send(http.request(target=b"/%d" % mib))
            head = client.read_final_head()
            assert client.feed_body(head, lambda piece: None, 30) == mib * MIB
            times.append(time.monotonic() - start)
    return min(times)


@pytest.mark.timeout(180)
def test_stalled_readers_hold_the_budget_and_nobody_else(stack, server):
    server.script(serve_heads(answer))
    stack.pair(server, ["--stream-memory-bytes-max", f"{BUDGET_MIB}MiB",
                        "--client-stall-timeout-ms", f"{STALL_S}s"])
    before_s = best_seconds(stack, 64)
    stalled = [StalledClient(stack.ingress.address) for _ in range(STALLED)]
    for client in stalled:
        client.send(http.request(target=b"/1024"))
    wait_until(lambda: server.requests.qsize() >= 3 + STALLED, "every download has begun", 30)
    peak = {"ingress": 0, "shim": 0}

    def watch() -> None:
        while not done.wait(0.05):
            for name in peak:
                peak[name] = max(peak[name], resident_bytes(getattr(stack, name).pid))

    done = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        # Other calls run at full speed meanwhile.
        beside_s = best_seconds(stack, 64)
        for _ in range(20):
            start = time.monotonic()
            assert assert_answer(stack.ask(target="/small")).body == b"small"
            assert time.monotonic() - start < 1
        # Each stalled one is ended by its deadline.
        wait_until(lambda: stack.ingress.log.count("client_stalled") == STALLED,
                   "all of them are ended", STALL_S + 20)
    finally:
        done.set()
        watcher.join()
        for client in stalled:
            client.close()
    print(f"\n{STALLED} stalled readers of 1 GiB: at most {peak['ingress'] / MIB:.0f} MiB in the "
          f"ingress, {peak['shim'] / MIB:.0f} MiB in the shim, with a budget of {BUDGET_MIB} MiB; "
          f"64 MiB took {before_s:.2f} s without them, {beside_s:.2f} s beside them")
    assert peak["ingress"] <= (BUDGET_MIB + BESIDE_MIB) * MIB
    assert peak["shim"] <= (BUDGET_MIB + BESIDE_MIB) * MIB
    if os.environ.get("PORTHOLE_STRICT_TIMING") == "1":
        assert beside_s <= 1.5 * before_s + 0.1
    # And what they held is there again.
    assert best_seconds(stack, 64) <= 3 * before_s + 0.5
