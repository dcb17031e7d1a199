"""What a client may send and what it may not, frame by frame (RFC 6455)."""

from __future__ import annotations

import struct
import zlib

import pytest

from harness.websocket import (BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, RSV1, RSV2, RSV3, TEXT,
                               close_frame, deflate, echo, frame, frames_of, head, read_frame,
                               read_message, serve_websocket, upgrade, xor)

DEFLATE = [(b"Sec-WebSocket-Extensions", b"permessage-deflate")]


@pytest.fixture
def echoing(shared):
    shared.servers[0].script(serve_websocket(echo))
    return shared


@pytest.fixture
def client(echoing):
    client = echoing.client()
    upgrade(client)
    return client


@pytest.fixture
def squeezed(echoing):
    client = echoing.client()
    answer = upgrade(client, fields=DEFLATE)
    assert answer.get("Sec-WebSocket-Extensions") == (
        b"permessage-deflate; server_no_context_takeover; client_no_context_takeover")
    return client


def assert_works(client) -> None:
    client.send(frame(TEXT, b"still here"))
    assert read_message(client) == (TEXT, b"still here")


# ---- messages

@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 65537, 1 << 20])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_lengths(client, opcode, length):
    data = b"x" * length
    client.send(frame(opcode, data))
    assert read_message(client) == (opcode, data)
    assert_works(client)


def test_a_large_binary_arrives_byte_for_byte(client):
    data = bytes(range(256)) * (40 << 10)
    client.send(head(BINARY, len(data)))
    masked = xor(data, MASK)
    received = bytearray()

    def read_back():
        while len(received) < len(data):
            received.extend(read_frame(client, 60).payload)

    import threading
    reader = threading.Thread(target=read_back)
    reader.start()
    client.sock.sendall(masked)
    reader.join(60)
    assert bytes(received) == data


def test_fragments_are_one_message(client):
    client.send(frame(TEXT, b"Hel", fin=False) + frame(PING, b"p") + frame(CONTINUATION, b"", fin=False)
                + frame(CONTINUATION, b"lo"))
    parts, seen_pong = b"", False
    while True:
        got = read_frame(client)
        if got.opcode == PONG:
            assert got.payload == b"p"
            seen_pong = True
            continue
        parts += got.payload
        if got.fin:
            break
    assert parts == b"Hello" and seen_pong


def test_a_fragment_travels_before_the_next(client):
    client.send(frame(TEXT, b"first", fin=False))
    got = read_frame(client)
    assert (got.opcode, got.payload, got.fin) == (TEXT, b"first", False)
    client.send(frame(CONTINUATION, b"second"))
    assert read_frame(client).payload == b"second"


def test_65536_fragments_of_one_byte(client):
    client.send(frame(TEXT, b"a", fin=False))
    client.send(frame(CONTINUATION, b"a", fin=False) * 65534)
    client.send(frame(CONTINUATION, b"a"))
    assert read_message(client, 60) == (TEXT, b"a" * 65536)


def test_a_character_cut_by_fragments(client):
    client.send(frame(TEXT, b"\xe6", fin=False) + frame(CONTINUATION, b"\x97", fin=False)
                + frame(CONTINUATION, b"\xa5"))
    assert read_message(client) == (TEXT, "\u65e5".encode())


# ---- control

def test_pings_are_answered(client):
    for payload in (b"", b"x", b"y" * 125):
        client.send(frame(PING, payload))
        got = read_frame(client)
        assert (got.opcode, got.payload) == (PONG, payload)


def test_pings_that_come_at_once_are_all_answered(client):
    client.send(b"".join(frame(PING, b"%d" % i) for i in range(10)))
    assert [read_frame(client).payload for _ in range(10)] == [b"%d" % i for i in range(10)]


def test_a_ping_does_not_reach_the_server(shared):
    seen = []

    def record(conn):
        for got in frames_of(conn):
            seen.append(got.opcode)
            if got.opcode == CLOSE:
                conn.send(frame(CLOSE, got.payload, mask=None))
                return

    shared.servers[0].script(serve_websocket(record))
    client = shared.client()
    upgrade(client)
    client.send(frame(PING, b"1") + frame(PONG, b"2"))
    assert read_frame(client).opcode == PONG
    client.send(close_frame(1000))
    assert read_frame(client).opcode == CLOSE
    client.expect_closed()
    assert shared.servers[0].wait_connection().finished.wait(10)
    assert seen == [CLOSE]


def test_a_servers_ping_is_answered_by_the_shim(shared):
    pongs = []

    def ask(conn):
        conn.send(frame(PING, b"are you there", mask=None))
        for got in frames_of(conn):
            pongs.append((got.opcode, got.payload))
            conn.send(close_frame(1000, mask=None))
            return

    shared.servers[0].script(serve_websocket(ask))
    client = shared.client()
    upgrade(client)
    assert read_frame(client).code == 1000
    assert pongs == [(PONG, b"are you there")]


def test_a_flood_of_pings_that_nobody_reads(client):
    """Bounded: of those that come meanwhile the newest are answered, and messages go on."""
    pings = frame(PING, b"x" * 125) * 500
    sent = client.send_until_blocked(pings, 8 << 20)
    # It may have stopped within one of them.
    client.send(pings[sent % len(pings):] + frame(TEXT, b"done"), 60)
    assert read_message(client, 60) == (TEXT, b"done")


# ---- refused

BAD = [
    ("RSV1", frame(TEXT, b"a", rsv=RSV1), 1002),
    ("RSV2", frame(TEXT, b"a", rsv=RSV2), 1002),
    ("RSV3", frame(TEXT, b"a", rsv=RSV3), 1002),
    ("opcode 3", frame(3, b"a"), 1002),
    ("opcode 11", frame(11), 1002),
    ("no mask", frame(TEXT, b"a", mask=None), 1002),
    ("ping in fragments", frame(PING, b"a", fin=False), 1002),
    ("ping of 126", head(PING, 126), 1002),
    ("continuation of nothing", frame(CONTINUATION, b"a"), 1002),
    ("message in a message", frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
    ("long form of 125", b"\x82\xfe\x00\x7d" + MASK, 1002),
    ("long form of 65535", b"\x82\xff" + struct.pack(">Q", 65535) + MASK, 1002),
    ("2^63", b"\x82\xff" + struct.pack(">Q", 1 << 63) + MASK, 1002),
    ("close of one byte", frame(CLOSE, b"a"), 1002),
    ("close 1005", close_frame(1005), 1002),
    ("close 1006", close_frame(1006), 1002),
    ("close 999", close_frame(999), 1002),
    ("close 5000", close_frame(5000), 1002),
    ("close with a bad reason", close_frame(1000, b"\xff"), 1007),
    ("bad text", frame(TEXT, b"a\xff"), 1007),
    ("cut text", frame(TEXT, b"a\xc3"), 1007),
    ("surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
    ("bad text in a fragment", frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"\xff", fin=False), 1007),
    ("bad text before its frame's end", head(TEXT, 1000) + xor(b"\xff", MASK), 1007),
    ("too large", head(BINARY, (64 << 20) + 1), 1009),
]


def closing_frame(client):
    """The close; what came before it is passed over."""
    while (got := read_frame(client)).opcode != CLOSE:
        pass
    return got


@pytest.mark.parametrize("step", [None, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("raw, code", [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_refused(shared, raw, code, step):
    told = []

    def record(conn):
        for got in frames_of(conn):
            if got.opcode == CLOSE:
                told.append(got.code)
                conn.send(frame(CLOSE, got.payload, mask=None))
                return

    shared.servers[0].script(serve_websocket(record))
    client = shared.client()
    upgrade(client)
    for at in range(0, len(raw), step or len(raw)):
        client.send(raw[at:at + (step or len(raw))])
    assert closing_frame(client).code == code
    client.expect_closed()
    shared.servers[0].wait_connection().finished.wait(10)
    # The server hears why.
    assert told == [code]


@pytest.mark.parametrize("limit, sizes, code", [
    (1000, [1000], None), (1000, [1001], 1009), (1000, [500, 500], None), (1000, [500, 501], 1009),
    (0, [65 << 20], None)])
def test_the_limit_of_a_message(stack, server, limit, sizes, code):
    def swallow(conn):
        total = 0
        for got in frames_of(conn):
            total += len(got.payload) if got.opcode < CLOSE else 0
            if got.opcode < CLOSE and got.fin:
                conn.send(frame(TEXT, b"%d" % total, mask=None))
            if got.opcode == CLOSE:
                conn.send(frame(CLOSE, got.payload, mask=None))
                return

    server.script(serve_websocket(swallow))
    stack.pair(server, ["--websocket-message-bytes-max", str(limit)])
    client = stack.client()
    upgrade(client)
    for i, size in enumerate(sizes):
        client.send(frame(CONTINUATION if i else BINARY, b"x" * size, fin=i == len(sizes) - 1), 60)
    if code:
        assert closing_frame(client).code == code
    else:
        assert read_message(client, 60) == (TEXT, b"%d" % sum(sizes))


# ---- compression

@pytest.mark.parametrize("data", [b"", b"a", b"hello " * 1000, b"x" * 300_000],
                         ids=["empty", "one", "text", "large"])
def test_compressed_both_ways(squeezed, data):
    squeezed.send(frame(TEXT, deflate(data), rsv=RSV1))
    opcode, got = TEXT, b""
    squeezer = zlib.decompressobj(wbits=-15)
    compressed = False
    while True:
        part = read_frame(squeezed)
        compressed = compressed or part.rsv == RSV1
        got += squeezer.decompress(part.payload) if compressed else part.payload
        if part.fin:
            break
    assert (opcode, got) == (TEXT, data)
    assert compressed == (len(data) >= 256)


def test_compressed_in_fragments(squeezed):
    data = deflate(b"hello world " * 50)
    squeezed.send(frame(TEXT, data[:7], fin=False, rsv=RSV1) + frame(PING) + frame(CONTINUATION, data[7:]))
    assert read_message(squeezed) == (TEXT, b"hello world " * 50)


def test_plain_where_compression_was_agreed_on(squeezed):
    assert_works(squeezed)


def test_a_bomb_stops_at_the_limit(squeezed):
    squeezed.send(frame(BINARY, deflate(bytes(65 << 20)), rsv=RSV1), 60)
    while (got := read_frame(squeezed, 60)).opcode != CLOSE:
        pass
    assert got.code == 1009


@pytest.mark.parametrize("data", [b"\x06", b"\xff" * 20, deflate(b"hello" * 100)[:-3]],
                         ids=["type", "noise", "cut"])
def test_what_cannot_be_inflated(squeezed, data):
    squeezed.send(frame(TEXT, data, rsv=RSV1))
    assert closing_frame(squeezed).code == 1007


def test_bad_text_inside(squeezed):
    squeezed.send(frame(TEXT, deflate(b"a" * 300 + b"\xff"), rsv=RSV1))
    assert closing_frame(squeezed).code == 1007


@pytest.mark.parametrize("offer, answer", [
    (b"permessage-deflate; server_max_window_bits=10",
     b"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10"),
    (b"permessage-deflate; server_max_window_bits=8",
     b"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=8"),
    (b"permessage-deflate; client_max_window_bits=9",
     b"permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=9"),
    (b"x-other, permessage-deflate; bad, permessage-deflate; client_no_context_takeover",
     b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
    (b"permessage-deflate; server_max_window_bits=16", None),
    (b"x-webkit-deflate-frame", None),
])
def test_what_is_agreed_on(echoing, offer, answer):
    client = echoing.client()
    assert upgrade(client, fields=[(b"Sec-WebSocket-Extensions", offer)]).get(
        "Sec-WebSocket-Extensions") == answer
    assert_works(client)


def test_compression_can_be_off(stack, server):
    server.script(serve_websocket(echo))
    stack.pair(server, ["--websocket-compression=false"])
    client = stack.client()
    assert upgrade(client, fields=DEFLATE).get("Sec-WebSocket-Extensions") is None
    assert_works(client)


def test_contexts_that_live_on(stack, server):
    """The second message refers to the first, both ways; beyond the bound they do not."""
    server.script(serve_websocket(echo))
    stack.pair(server, ["--websocket-context-takeover", "--websocket-compression-memory-bytes-max",
                        "320KiB"])
    client, other = stack.client(), stack.client()
    assert upgrade(client, fields=DEFLATE).get("Sec-WebSocket-Extensions") == b"permessage-deflate"
    squeezer, expander = zlib.compressobj(wbits=-15), zlib.decompressobj(wbits=-15)
    text = bytes(range(256)) * 2
    sizes = []
    for _ in range(3):
        data = (squeezer.compress(text) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        client.send(frame(BINARY, data, rsv=RSV1))
        got = read_frame(client)
        assert got.fin and got.rsv == RSV1
        assert expander.decompress(got.payload + b"\0\0\xff\xff") == text
        sizes.append(len(got.payload))
    assert sizes[1] < sizes[0] / 4
    assert b"server_no_context_takeover" in upgrade(other, fields=DEFLATE).get("Sec-WebSocket-Extensions")


def test_no_room_for_compression(stack, server):
    """A client that begins a compressed message beyond the bound is asked to come again; what goes to
    clients goes plain."""
    server.script(serve_websocket(echo))
    stack.pair(server, ["--websocket-compression-memory-bytes-max", "48KiB"])
    one, other = stack.client(), stack.client()
    upgrade(one, fields=DEFLATE)
    upgrade(other, fields=DEFLATE)
    text = b"hello " * 100
    data = deflate(text)
    one.send(frame(TEXT, data[:9], fin=False, rsv=RSV1) + frame(PING))
    while read_frame(one).opcode != PONG:
        pass
    other.send(frame(TEXT, data, rsv=RSV1))
    assert closing_frame(other).code == 1013
    one.send(frame(CONTINUATION, data[9:]))
    while not read_frame(one).fin:
        pass
    # There is room for another.
    one.send(frame(TEXT, data, rsv=RSV1))
    parts = [read_frame(one)]
    while not parts[-1].fin:
        parts.append(read_frame(one))
    assert b"".join(part.payload for part in parts) == text
    assert {part.rsv for part in parts} == {0}


# ---- frames of the server

@pytest.mark.parametrize("raw", [
    frame(TEXT, b"a"), frame(3, b"a", mask=None), frame(TEXT, b"\xff", mask=None),
    frame(TEXT, b"a", rsv=RSV1, mask=None), close_frame(1005, mask=None),
], ids=["masked", "opcode", "text", "RSV1", "close"])
def test_a_server_that_breaks_the_protocol(shared, raw):
    told = []

    def break_it(conn):
        conn.send(raw)
        for got in frames_of(conn):
            told.append(got.code)

    shared.servers[0].script(serve_websocket(break_it))
    client = shared.client()
    upgrade(client)
    got = closing_frame(client)
    assert (got.code, got.reason) == (1011, b"server_malformed")
    shared.servers[0].wait_connection().finished.wait(10)
    assert told == [1007 if b"\xff" in raw else 1002]
