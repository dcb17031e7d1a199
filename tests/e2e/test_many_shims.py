"""A thousand shims at one ingress: how fast they come, what they cost, how they come back."""

from __future__ import annotations

import concurrent.futures
import threading
from collections import Counter

from harness.check import assert_answer
from harness.deadline import wait_until
from harness.program import resident_bytes
from harness.stack import SANITIZED, Ingress, Stack, free_port, timed

SHIMS = 1000
REGISTERED_MS = 5000
# What the ingress keeps of a link on which nothing happens.  Sanitizers keep more.
LINK_BYTES_MAX = (128 if SANITIZED else 64) * 1024
CLIENTS = 32
# The longest pause before a shim dials again (proto/limits.h), its jitter, and a handshake.
STORM_S = 5 + 5


def ask_many(ingress: Ingress, count: int) -> Counter[bytes]:
    """Who answered, of so many calls, CLIENTS at a time.  Each must be answered."""
    local = threading.local()

    def ask(_: int) -> bytes:
        if not hasattr(local, "client"):
            local.client = ingress.client()
        answer = assert_answer(local.client.ask(seconds=30))
        return answer.body.split(b"\n")[0]

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        return Counter(pool.map(ask, range(count)))


def test_a_thousand_shims_register_within_5_s_and_serve(stack: Stack) -> None:
    ingress = stack.start_ingress()
    before = resident_bytes(ingress.pid)
    load = stack.start_load(ingress, SHIMS, "--concurrency", "1")
    ms = load.wait_registered(30)
    per_link = (resident_bytes(ingress.pid) - before) / SHIMS
    print(f"\n{SHIMS} shims registered in {ms} ms; {per_link / 1024:.1f} KiB of the ingress each")
    assert ms <= REGISTERED_MS
    assert per_link <= LINK_BYTES_MAX

    answered = ask_many(ingress, 2000)
    assert sum(answered.values()) == 2000
    status = load.status()
    assert status["answered"] == status["calls"] == 2000
    assert status["links_lost"] == status["calls_lost"] == status["cancelled"] == 0
    assert status["dials"] == SHIMS  # nobody had to try twice


def test_calls_go_to_the_shims_of_their_function(stack: Stack) -> None:
    ingress = stack.start_ingress()
    load = stack.start_load(ingress, 60, "--function", "f", "--functions", "20")
    load.wait_registered()
    for number in range(20):
        answer = ingress.ask(host=f"f{number}.example.test".encode())
        assert int(answer.body.split(b"\n")[0].split()[1]) % 20 == number


def test_a_storm_after_a_restart_settles_and_loses_no_call_of_the_new_ingress(
        stack: Stack) -> None:
    """Killed, away for so long that the shims' pauses have grown, and started again on the same
    port.  With one call at a time for each shim, and half a second an answer, calls are handed
    out and wait in the queue while most shims have not come back yet."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    ingress = stack.start_ingress(shims=endpoint)
    load = stack.start_load(ingress, SHIMS, "--concurrency", "1", "--answer-ms", "500")
    load.wait_registered(30)
    mark = len(load.log)
    ingress.kill()
    wait_until(lambda: load.status()["dials"] >= 4 * SHIMS, "everybody has tried again", 20)
    assert load.status()["links_lost"] == SHIMS

    ingress = stack.start_ingress(shims=endpoint)
    ingress.wait_log("container registered")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answers = pool.submit(ask_many, ingress, 500)
        seconds, _ = timed(lambda: load.wait_registered(STORM_S, mark))
        assert sum(answers.result().values()) == 500
    status = load.status()
    print(f"\nall {SHIMS} back {seconds:.2f} s after the first, with {status['dials']} dials")
    assert status["answered"] == status["calls"] == 500
    assert status["links_lost"] == SHIMS and status["calls_lost"] == 0
