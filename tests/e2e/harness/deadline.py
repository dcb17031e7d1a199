"""Waiting for things with a deadline: no test sleeps for a guessed time."""

from __future__ import annotations

import os
import time
from typing import Callable, TypeVar

T = TypeVar("T")

# How long a thing that must happen may take.  Generous: it is only ever waited for in full
# by a test that fails.
PATIENCE_S = float(os.environ.get("PORTHOLE_PATIENCE_S", "10"))

POLL_S = 0.005


class Deadline:
    """A point in time that waits are measured against."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = PATIENCE_S if seconds is None else seconds
        self.at = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at


def wait_until(condition: Callable[[], T], what: str, seconds: float | None = None) -> T:
    """Return the first true value of condition; fail with `what` when time is up."""
    deadline = Deadline(seconds)
    while True:
        value = condition()
        if value:
            return value
        if deadline.passed:
            raise AssertionError(f"not within {deadline.seconds:g} s: {what}")
        time.sleep(POLL_S)
