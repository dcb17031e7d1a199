"""The HTTP/1.1 request vectors that lie beside the checkout, where they do."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from harness import http
from harness.places import ROOT
from harness.server import serve

VECTORS = ROOT.parent / "shared" / "vectors"
CONFORMANCE = ROOT / "docs" / "conformance.md"

pytestmark = pytest.mark.skipif(
    not (VECTORS / "run.py").exists(),
    reason="no request vectors: ../shared/vectors is not beside this checkout")


# Cases that llhttp refuses as a parser and that a gateway answers, rightly: the runner looks
# at the first answer only.
ANSWERED = {
    "LL-connection-2",  # a whole 1.0 request; what follows it is not read
    "LL-connection-4",  # a whole POST, then a second request that is refused
    "LL-invalid-41",    # ANNOUNCE: any token is a method
}


def by_the_readme(request: http.Request, _conn) -> bytes:
    """200 OK on /, the body of a POST, the request's headers on /echo."""
    path = request.target.split(b"?")[0]
    if path == b"/echo":
        return http.reply(body=b"".join(k + b": " + v + b"\r\n" for k, v in request.headers))
    if request.method == b"POST":
        return http.reply(body=request.body)
    if request.method == b"HEAD":
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    return http.reply(body=b"OK")


def documented() -> set[str]:
    """Cases that docs/conformance.md lists as failing: `CASE-ID` in a table or list."""
    if not CONFORMANCE.exists():
        return set()
    return set(re.findall(r"`([A-Z][A-Za-z0-9._-]{3,})`", CONFORMANCE.read_text()))


def musts() -> set[str]:
    cases = json.loads((VECTORS / "http11probe-215.json").read_text())
    return {case["id"] for case in cases if case["scored"] and case["level"] == "Must"}


def failures(port: int, which: str) -> dict[str, str]:
    """Case → what it got."""
    got = subprocess.run([sys.executable, str(VECTORS / "run.py"), str(port), which, "-v"],
                         capture_output=True, text=True, timeout=300)
    assert re.search(r"^\d+ passed, \d+ failed$", got.stdout, re.M), got.stdout + got.stderr
    return {line.split()[1]: line for line in got.stdout.splitlines()
            if line.startswith(("Fail ", "Err "))}


@pytest.mark.timeout(300)
def test_http11probe(shared):
    shared.servers[0].script(serve(by_the_readme))
    failed = failures(shared.ingress.port, "h11")
    must = {case: text for case, text in failed.items() if case in musts()}
    assert not must, "Must cases fail:\n" + "\n".join(must.values())
    surprises = {case: text for case, text in failed.items() if case not in documented()}
    assert not surprises, "not in docs/conformance.md:\n" + "\n".join(surprises.values())


@pytest.mark.timeout(300)
def test_llhttp(shared):
    shared.servers[0].script(serve(by_the_readme))
    failed = failures(shared.ingress.port, "llhttp")
    surprises = {case: text for case, text in failed.items()
                 if case not in documented() | ANSWERED}
    assert not surprises, "not in docs/conformance.md:\n" + "\n".join(surprises.values())
