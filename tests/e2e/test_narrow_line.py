"""A line of 100 Mbit/s between the programs, full of bulk, and small requests beside it."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import pytest

from harness.check import assert_answer
from harness.client import Client
from harness.deadline import wait_until
from harness.netns import BURST_BYTES, NAMES, Namespace, Namespaces
from harness.stack import Ingress, Stack, free_port

STRICT = os.environ.get("PORTHOLE_STRICT_TIMING") == "1"
RATE_BYTES = 100_000_000 / 8
DOWNLOADS = 8
BULK_BYTES = 1 << 30
MEASURE_S = 5.0
# Beyond the round trip of an idle line.
P99_MORE_S = 0.025
# ... and what is far from that and from a link without a window for its rate (170 ms), both.
P99_COARSE_S = 0.1
ATTEMPTS = 3

NGINX = """
daemon off; master_process off; error_log stderr; pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; root {folder}; index index.html; }}
}}
"""


def start_nginx_pair(stack: Stack, gateway: Namespace, container: Namespace) -> Ingress:
    """The ingress in one namespace, the shim and its nginx in the other."""
    folder = stack.folder
    (folder / "index.html").write_bytes(b"x" * 100)
    with (folder / "bulk.bin").open("wb") as f:
        f.truncate(BULK_BYTES)
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=free_port()))
    ingress = stack.start_ingress("--insecure-shims", shims=f"tcp://{gateway.address}:0",
                                  prefix=gateway.prefix)
    stack.start_shim(ingress, prefix=container.prefix,
                     command=["nginx", "-p", str(folder), "-c", str(config)])
    return ingress


@dataclass
class Times:
    seconds: list[float]

    @property
    def p50(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[len(self.seconds) * 99 // 100]

    def __str__(self) -> str:
        return (f"p50 {self.p50 * 1000:.1f} ms, p99 {self.p99 * 1000:.1f} ms, "
                f"{len(self.seconds)} requests")


def ask_for(client: Client, seconds: float) -> Times:
    """One request after the other."""
    times = []
    end = time.monotonic() + seconds
    while (start := time.monotonic()) < end:
        assert_answer(client.ask(seconds=30))
        times.append(time.monotonic() - start)
    return Times(times)


@pytest.fixture
def narrow(namespaces: Namespaces, stack: Stack) -> tuple[Ingress, Namespace, Namespace]:
    gateway, container = namespaces.line("100mbit")
    return start_nginx_pair(stack, gateway, container), gateway, container


@contextlib.contextmanager
def full_line(stack: Stack, narrow: tuple[Ingress, Namespace, Namespace]) -> Iterator[None]:
    """Eight downloads are under way, and the line is full of them."""
    ingress, gateway, container = narrow
    # curl: threads of this process would take turns with the one that measures.
    bulk = [stack.run(f"curl{n}", [*gateway.prefix, "curl", "-sS", "-o", "/dev/null",
                                   f"http://127.0.0.1:{ingress.port}/bulk.bin"])
            for n in range(DOWNLOADS)]
    begun = container.sent_bytes()
    wait_until(lambda: container.sent_bytes() - begun > RATE_BYTES / 2, "the line is full", 30)
    yield
    for program in bulk:
        assert program.process.poll() is None, program.log
        program.kill()


def measure(client: Client, container: Namespace) -> tuple[Times, float]:
    """Small requests for a while, and the bytes a second that the line carried meanwhile."""
    before, start = container.sent_bytes(), time.monotonic()
    times = ask_for(client, MEASURE_S)
    rate = (container.sent_bytes() - before) / (time.monotonic() - start)
    print(f"\nbeside {DOWNLOADS} downloads: {times}; {rate * 8 / 1e6:.0f} Mbit/s", end="")
    return times, rate


def test_small_requests_do_not_wait_behind_bulk_that_fills_the_line(
        stack: Stack, narrow: tuple[Ingress, Namespace, Namespace]) -> None:
    """p99 is of the line, unless something else has the CPUs for some milliseconds: then the
    next five seconds count.  Where others work too, the coarse bound does."""
    ingress, gateway, container = narrow
    with gateway.inside():
        client = ingress.client()
    idle = ask_for(client, 1.0)
    print(f"\nidle: {idle}", end="")
    with full_line(stack, narrow):
        for _ in range(ATTEMPTS):
            beside, rate = measure(client, container)
            assert 0.85 * RATE_BYTES <= rate <= 1.05 * RATE_BYTES
            if beside.p99 <= idle.p50 + P99_MORE_S:
                return
    assert not STRICT and beside.p99 <= idle.p50 + P99_COARSE_S, f"{beside}; idle: {idle}"


# ---- the harness itself


def test_a_line_is_as_narrow_as_it_says_and_goes_with_its_namespaces(
        namespaces: Namespaces) -> None:
    near, far = namespaces.line("100mbit")
    with far.inside():
        listener = socket.create_server((far.address, 0))
    with near.inside():
        sender = socket.create_connection(listener.getsockname(), 10)
        with pytest.raises(ConnectionRefusedError):  # another loopback
            socket.create_connection(("127.0.0.1", listener.getsockname()[1]), 10)
    receiver, _ = listener.accept()
    receiver.settimeout(10)
    data = bytes(5_000_000)
    with listener, sender, receiver:
        start = time.monotonic()
        thread = threading.Thread(target=sender.sendall, args=(data,))
        thread.start()
        left = len(data)
        while left:
            piece = receiver.recv(1 << 20)
            assert piece
            left -= len(piece)
        seconds = time.monotonic() - start
        thread.join()
    assert 0.9 <= (len(data) - BURST_BYTES) / RATE_BYTES / seconds <= 1.05

    paths = [NAMES / namespace.name for namespace in namespaces.made]
    assert len(paths) == 2 and all(path.exists() for path in paths)
    namespaces.close()
    assert not any(path.exists() for path in paths)
    assert not Path("/sys/class/net/line").exists()
