"""WebSocket frames, raw, for both ends: written from RFC 6455, not from the programs."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import struct
import zlib
from typing import Callable, Iterator

from . import http
from .client import Client
from .http import Fields, Request, Response
from .peer import Closed, Peer
from .server import OnConnection, ServerConnection

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MASK = b"\x37\xfa\x21\x3d"


def accept_of(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


@dataclasses.dataclass
class Frame:
    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = False

    @property
    def code(self) -> int | None:
        """Of a close; None: it has none."""
        return struct.unpack(">H", self.payload[:2])[0] if self.payload else None

    @property
    def reason(self) -> bytes:
        return self.payload[2:]


def xor(data: bytes, mask: bytes) -> bytes:
    repeated = (mask * (len(data) // 4 + 1))[:len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(data), "big")


def head(opcode: int, length: int, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK) -> bytes:
    first = (FIN if fin else 0) | rsv | opcode
    bit = 0x80 if mask else 0
    if length < 126:
        out = bytes([first, bit | length])
    elif length < 65536:
        out = struct.pack(">BBH", first, bit | 126, length)
    else:
        out = struct.pack(">BBQ", first, bit | 127, length)
    return out + (mask or b"")


def frame(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0,
          mask: bytes | None = MASK) -> bytes:
    return head(opcode, len(payload), fin, rsv, mask) + (xor(payload, mask) if mask else payload)


def close_frame(code: int | None = None, reason: bytes = b"", mask: bytes | None = MASK) -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason, mask=mask)


def read_frame(peer: Peer, seconds: float | None = None) -> Frame:
    first, second = peer.read_exactly(2, seconds)
    length = second & 0x7f
    if length == 126:
        (length,) = struct.unpack(">H", peer.read_exactly(2, seconds))
        assert length > 125
    elif length == 127:
        (length,) = struct.unpack(">Q", peer.read_exactly(8, seconds))
        assert length > 65535
    mask = peer.read_exactly(4, seconds) if second & 0x80 else b""
    payload = peer.read_exactly(length, seconds)
    return Frame(first & 0x0f, xor(payload, mask) if mask else payload, bool(first & FIN),
                 first & 0x70, bool(mask))


def read_message(peer: Peer, seconds: float | None = None) -> tuple[int, bytes]:
    """The next message, with its opcode; control frames between are answered nowhere."""
    opcode, parts = None, []
    while True:
        got = read_frame(peer, seconds)
        if got.opcode >= CLOSE:
            assert got.opcode != CLOSE, got
            continue
        assert (got.opcode == CONTINUATION) == (opcode is not None), got
        opcode = got.opcode if opcode is None else opcode
        parts.append(inflate(got.payload) if got.rsv == RSV1 else got.payload)
        if got.fin:
            return opcode, b"".join(parts)


def deflate(data: bytes) -> bytes:
    """One message of permessage-deflate, by itself."""
    squeezer = zlib.compressobj(wbits=-15)
    return (squeezer.compress(data) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflate(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(data + b"\0\0\xff\xff")


def handshake(target: bytes = b"/", fields: Fields | None = None, key: bytes | None = KEY,
              version: bytes | None = b"13", host: bytes = b"localhost") -> bytes:
    """A client's request."""
    out: Fields = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
    if key is not None:
        out.append((b"Sec-WebSocket-Key", key))
    if version is not None:
        out.append((b"Sec-WebSocket-Version", version))
    return http.request(b"GET", target, [*out, *(fields or [])], None, host=host)


def upgrade(client: Client, target: bytes = b"/", fields: Fields | None = None) -> Response:
    """Opens a WebSocket; what follows on the connection are frames."""
    client.send(handshake(target, fields))
    answer = client.read_head()
    assert answer.status == 101, answer.raw_head
    assert answer.get("Sec-WebSocket-Accept") == accept_of(KEY)
    assert answer.get("Upgrade").lower() == b"websocket"
    assert answer.get("Connection").lower() == b"upgrade"
    return answer


def switch(request: Request, fields: Fields | None = None) -> bytes:
    """A server's 101."""
    key = request.get("Sec-WebSocket-Key")
    lines = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"),
             (b"Sec-WebSocket-Accept", accept_of(key)), *(fields or [])]
    return b"HTTP/1.1 101 Switching Protocols\r\n" + b"".join(
        name + b": " + value + b"\r\n" for name, value in lines) + b"\r\n"


OnWebsocket = Callable[[ServerConnection], None]


def serve_websocket(on_websocket: OnWebsocket, fields: Fields | None = None) -> OnConnection:
    """Accepts, then does what the test says."""

    def run(conn: ServerConnection) -> None:
        try:
            request = conn.read_head(120)
        except Closed:
            return
        conn.server.requests.put(request)
        conn.send(switch(request, fields))
        on_websocket(conn)

    return run


def frames_of(conn: Peer) -> Iterator[Frame]:
    """What comes, until the end of the connection."""
    while True:
        try:
            yield read_frame(conn, 120)
        except Closed:
            return


def echo(conn: ServerConnection) -> None:
    """Frames back as they came, unmasked; a close is answered, and ends it."""
    for got in frames_of(conn):
        assert got.masked
        if got.opcode == PING:
            conn.send(frame(PONG, got.payload, mask=None))
            continue
        if got.opcode != PONG:
            conn.send(frame(got.opcode, got.payload, got.fin, mask=None))
        if got.opcode == CLOSE:
            conn.close()
            return
