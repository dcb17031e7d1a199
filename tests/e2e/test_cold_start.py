"""From a request's arrival at a gateway without containers to its arrival at the server."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import pytest

from harness.check import assert_answer
from harness.deadline import wait_until
from harness.program import descendants
from harness.stack import SANITIZED, SHIM_BIN

SERVER = str(Path(__file__).parent / "servers" / "slow_start_server.py")
STARTS = 20
MEDIAN_MS = 80
WORST_MS = 150


@pytest.mark.skipif(SANITIZED, reason="a sanitizer makes programs start slowly; what ships runs it")
def test_cold_starts(stack, record_property):
    config = stack.folder / "config.json"
    config.write_text(json.dumps({"functions": {"cold": {
        "scaledown_window": "1ms",
        "launcher": {"process": [str(SHIM_BIN), "--", sys.executable, "-IS", SERVER, "{port}"]},
    }}}))
    stack.ingress = stack.start_ingress("--config", str(config))
    took_ms = []
    for _ in range(STARTS):
        wait_until(lambda: descendants(stack.ingress.pid) == [], "nothing runs")
        with stack.client() as client:
            began = time.clock_gettime(time.CLOCK_MONOTONIC)
            answer = assert_answer(client.ask("GET", "/"))
        took_ms.append((float(answer.body) - began) * 1000)
    median, worst = statistics.median(took_ms), max(took_ms)
    print(f"cold start: median {median:.1f} ms, worst of {STARTS} {worst:.1f} ms")
    assert median <= MEDIAN_MS and worst <= WORST_MS, sorted(took_ms)
