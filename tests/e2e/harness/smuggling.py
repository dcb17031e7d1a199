"""Forms of Transfer-Encoding that two readers may see differently, and what hides behind them."""

from __future__ import annotations

import random

SEED = 20
# Bytes that one reader or another takes for whitespace, or drops.
ODD = [*range(0x01, 0x21), *range(0x7f, 0x100)]
PLACES = [
    b"@Transfer-Encoding: chunked",
    b"Transfer@-Encoding: chunked",
    b"Transfer-Encoding@: chunked",
    b"Transfer-Encoding:@chunked",
    b"Transfer-Encoding: ch@nked",
    b"Transfer-Encoding: chunked@",
    b"Transfer-Encoding: chunked@X: X",
    b"X: X@Transfer-Encoding: chunked",
    b"X: X\r@Transfer-Encoding: chunked",
    b"X: X@\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r@X: X",
    b"Transfer-Encoding: chunked@\nX: X",
]
NAMED = [
    b"Transfer-Encoding: chunked", b"transfer-encoding: CHUNKED", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: 'chunked'", b"Transfer-Encoding: chunk", b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: cow chunked bar", b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding:\n chunked",
    b"Transfer_Encoding: chunked", b"Transfer Encoding: chunked", b"Transfer-Encoding : chunked",
    b" Transfer-Encoding: chunked", b"Content-Encoding: chunked", b"Connection: Transfer-Encoding",
    b"Connection: Content-Length", b"X: X\r\n Transfer-Encoding: chunked",
]


def sample() -> list[bytes]:
    rng = random.Random(SEED)
    forms = [place.replace(b"@", bytes([byte])) for place in PLACES
             for byte in [0x09, 0x0a, 0x0b, 0x0d, 0x20, *rng.sample(ODD, 15)]]
    return NAMED + forms


def bodies(name: bytes) -> dict[bytes, bytes]:
    """To a reader of chunks the first ends early, the second late."""
    hidden = b"GET /hidden/" + name + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    return {b"/early/" + name: b"0\r\n\r\n" + hidden, b"/late/" + name: b"5"}
