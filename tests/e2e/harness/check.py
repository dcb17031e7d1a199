"""What is asked of every error that Porthole makes itself."""

from __future__ import annotations

import re

from .http import Response

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def assert_error(answer: Response, status: int, code: str) -> Response:
    """Status, code, request id, caching and a body that says something."""
    seen = (answer.status, answer.get("Porthole-Error"))
    assert seen == (status, code.encode()), f"{seen} {answer.body!r}"
    request_id = answer.get("X-Request-Id")
    assert request_id and REQUEST_ID.fullmatch(request_id), answer.raw_head
    assert answer.get("Cache-Control") == b"no-store", answer.raw_head
    assert answer.get("Content-Type"), answer.raw_head
    if status == 503 or code == "queue_timeout":
        assert int(answer.get("Retry-After") or b"-1") >= 0, answer.raw_head
    return answer


def assert_answer(answer: Response, status: int = 200) -> Response:
    """An answer of the server's own."""
    assert answer.status == status, (answer.raw_head, answer.body[:500])
    assert answer.get("Porthole-Error") is None, answer.raw_head
    assert REQUEST_ID.fullmatch(answer.get("X-Request-Id") or b""), answer.raw_head
    return answer
