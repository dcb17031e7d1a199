"""Calls that only wait: they cost others nothing, and little memory.

bench/parked measures the same with more of them; here the bounds are wide enough for a machine
that does other things meanwhile, and narrow enough that one look at every parked call for
each request does not pass."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

import pytest

from harness import http, settings
from harness.deadline import wait_until
from harness.park import Crowd, ParkServer, need_descriptors
from harness.program import resident_bytes, run_time_us
from harness.stack import SANITIZED, Stack

PARKED = 4000
KIB = 1024
CALL_BYTES_MAX = 10 * KIB
# A sanitizer's allocations have red zones, and what is freed stays for a while.
MEASURES_MEMORY = not SANITIZED
BATCHES, REQUESTS = 10, 200
CPU_FACTOR_MAX = 1.35
WARM_REQUESTS = 300
# CPU of the ingress for each second in which nothing happens.
IDLE_S, IDLE_US_MAX = 0.5, 2500
REST_S = 2.0
# Of those whose connection has served a larger answer, or whose answer has begun.
USED = 1000
LARGE_BYTES = 30 * KIB
KEPT_BYTES_MAX = 4 * KIB
BEGUN_BYTES_MAX = 14 * KIB
FIELDS = [(b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101"),
          (b"Accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
          (b"Accept-Encoding", b"gzip, deflate, br"), (b"Cookie", b"session=" + b"0" * 120)]


def start(stack: Stack, folder: Path) -> tuple[Stack, ParkServer]:
    """A pair that takes so many calls, and waits for containers of another function as long."""
    need_descriptors(2 * PARKED + 1000)
    room = {"max_concurrency": 65535,
            "queue": {"max_calls": 2 * PARKED, "max_wait": "10m"}}
    config = folder / "ingress.json"
    config.write_text(json.dumps({"functions": {
        "default": {"hosts": ["*"], **room}, "slow": {"hosts": ["slow.test"], **room}}}))
    server = ParkServer()
    stack.servers.append(server)
    stack.pair(server, ["--config", str(config), "--access-log", "off"],
               settings.concurrency(65535))
    return stack, server


@pytest.fixture
def parking(stack: Stack, tmp_path: Path) -> tuple[Stack, ParkServer]:
    return start(stack, tmp_path)


def ask_many(stack: Stack, count: int) -> None:
    with stack.client() as client:
        for _ in range(count):
            assert client.ask(target=b"/small").body == b"hello"


def cpu_us(stack: Stack) -> float:
    """Of a request over one connection, of both programs: the least of some batches, which is
    the one that others disturbed least."""
    pids = stack.ingress.pid, stack.shim.pid
    costs = []
    for _ in range(BATCHES):
        before = sum(map(run_time_us, pids))
        ask_many(stack, REQUESTS)
        costs.append((sum(map(run_time_us, pids)) - before) / REQUESTS)
    return min(costs)


def idle_cpu_us(stack: Stack) -> float:
    """Of the ingress, in a second: the least of some."""
    costs = []
    for _ in range(4):
        before = run_time_us(stack.ingress.pid)
        time.sleep(IDLE_S)  # the passing of time is what is measured
        costs.append((run_time_us(stack.ingress.pid) - before) / IDLE_S)
    return min(costs)


def assert_rests(stack: Stack, alone_us: float) -> None:
    """A look at each of them ten times a second would take twice what is allowed."""
    wait_until(lambda: idle_cpu_us(stack) <= alone_us + IDLE_US_MAX,
               "what waits is looked at no more", REST_S)


def sizes(stack: Stack) -> tuple[int, int]:
    return resident_bytes(stack.ingress.pid), resident_bytes(stack.shim.pid)


def request(i: int, host: bytes = b"example.test") -> bytes:
    return http.request(target=b"/park/%d" % i, host=host, fields=FIELDS)


def waiting(stack: Stack, function: str) -> int:
    host, port = stack.ingress.admin
    with urllib.request.urlopen(f"http://{host}:{port}/v1/functions", timeout=10) as answer:
        functions = json.load(answer)["functions"]
    return next(f["waiting"] for f in functions if f["function"] == function)


def assert_cost_little(stack: Stack, alone_us: float, before: tuple[int, int],
                       after: tuple[int, int]) -> None:
    beside_us = cpu_us(stack)
    each = [(b - a) / PARKED for a, b in zip(before, after)]
    print(f"{alone_us:.1f} µs a request, {beside_us:.1f} beside {PARKED} parked; "
          f"ingress {each[0] / KIB:.1f} KiB, shim {each[1] / KIB:.1f} KiB a parked call")
    assert beside_us <= CPU_FACTOR_MAX * alone_us, (alone_us, beside_us)
    if MEASURES_MEMORY:
        assert max(each) <= CALL_BYTES_MAX, each


@pytest.mark.slow
def test_calls_parked_at_the_server_cost_others_nothing(parking) -> None:
    stack, server = parking
    ask_many(stack, WARM_REQUESTS)
    alone_us, before, idle_us = cpu_us(stack), sizes(stack), idle_cpu_us(stack)
    with Crowd(stack.ingress.address, [request(i) for i in range(PARKED)]) as crowd:
        server.wait_held(PARKED)
        assert_cost_little(stack, alone_us, before, sizes(stack))
        assert_rests(stack, idle_us)
        assert crowd.spoken_to() == 0
        server.answer_all()
        assert crowd.read_answers() == [b"/park/%d" % i for i in range(PARKED)]


@pytest.mark.slow
def test_calls_that_wait_for_a_container_cost_others_nothing(parking) -> None:
    stack, server = parking
    ask_many(stack, WARM_REQUESTS)
    alone_us, before = cpu_us(stack), sizes(stack)
    with Crowd(stack.ingress.address,
               [request(i, b"slow.test") for i in range(PARKED)]) as crowd:
        wait_until(lambda: waiting(stack, "slow") == PARKED, "all wait", 30)
        assert_cost_little(stack, alone_us, before, sizes(stack))
        assert crowd.spoken_to() == 0
        stack.start_shim(stack.ingress, *settings.concurrency(65535), server=server,
                         function="slow")
        server.wait_held(PARKED)
        server.answer_all()
        assert crowd.read_answers() == [b"/park/%d" % i for i in range(PARKED)]


@pytest.mark.slow
@pytest.mark.skipif(not MEASURES_MEMORY, reason="a sanitizer has memory of its own")
def test_a_parked_call_does_not_keep_what_its_connection_needed_before(parking) -> None:
    """An answer that comes in large chunks needs a large buffer, the next request none."""
    stack, server = parking
    ask_many(stack, WARM_REQUESTS)
    parked = [request(i) for i in range(USED)]
    with Crowd(stack.ingress.address, parked) as crowd:
        server.wait_held(USED)
        unused, _ = sizes(stack)
        server.answer_all()
        crowd.read_answers()
    begin = http.request(target=b"/begin/%d" % LARGE_BYTES)
    with Crowd(stack.ingress.address, [begin] * USED) as crowd:
        crowd.read_until(b"x\r\n")
        server.end_begun()
        crowd.read_until(b"0\r\n\r\n")
        crowd.send(parked)
        server.wait_held(USED)
        wait_until(lambda: sizes(stack)[0] - unused <= KEPT_BYTES_MAX * USED,
                   "the buffers are given back", 5)
        assert crowd.spoken_to() == 0
        server.answer_all()
        assert crowd.read_answers() == [b"/park/%d" % i for i in range(USED)]


@pytest.mark.slow
@pytest.mark.skipif(not MEASURES_MEMORY, reason="a sanitizer has memory of its own")
def test_an_answer_that_has_begun_and_waits_for_more_takes_little(parking) -> None:
    """Events, for instance."""
    stack, server = parking
    ask_many(stack, WARM_REQUESTS)
    before, _ = sizes(stack)
    with Crowd(stack.ingress.address, [http.request(target=b"/begin/20")] * USED) as crowd:
        crowd.read_until(b"x\r\n")
        each = (sizes(stack)[0] - before) / USED
        assert each <= BEGUN_BYTES_MAX, each
        server.end_begun()
        crowd.read_until(b"0\r\n\r\n")
