"""The life of a WebSocket: closes, ends, credit, pings, drain."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from harness.check import assert_error
from harness.deadline import wait_until
from harness.stack import SANITIZED, free_port
from harness.websocket import (BINARY, CLOSE, PING, PONG, TEXT, close_frame, echo, frame, frames_of,
                               handshake, head, read_frame, read_message, serve_websocket, upgrade)


def record_closes(told):
    """A server that keeps the close it gets: (code, reason), or None for an end without one."""

    def run(conn):
        for got in frames_of(conn):
            if got.opcode == CLOSE:
                told.append((got.code, got.reason))
                conn.send(frame(CLOSE, got.payload, mask=None))
                return
        told.append(None)

    return serve_websocket(run)


def closing(code, reason=b"", after=b""):
    """A server that closes by itself, and keeps the client's answer."""

    def run(conn):
        conn.send(after + close_frame(code, reason, mask=None))
        conn.answers = [got.code for got in frames_of(conn)]

    return serve_websocket(run)


# ---- closes

@pytest.mark.parametrize("code, reason", [(1000, b""), (1001, b"going away"), (3000, b"x" * 123),
                                          (4999, "caf\u00e9".encode()), (None, b"")])
def test_the_clients_close(shared, code, reason):
    told: list = []
    shared.servers[0].script(record_closes(told))
    client = shared.client()
    upgrade(client)
    client.send(close_frame(code, reason))
    got = read_frame(client)
    assert (got.opcode, got.code) == (CLOSE, code)
    assert client.expect_closed() == b""
    wait_until(lambda: told, "the server hears of it")
    assert told == [(code, reason)]


@pytest.mark.parametrize("code, reason", [(1000, b""), (1001, b"bye"), (4000, b"x" * 123), (None, b"")])
def test_the_servers_close(shared, code, reason):
    shared.servers[0].script(closing(code, reason, frame(TEXT, b"last words", mask=None)))
    client = shared.client()
    upgrade(client)
    assert read_message(client) == (TEXT, b"last words")
    got = read_frame(client)
    assert (got.opcode, got.code, got.reason) == (CLOSE, code, reason)
    assert not client.is_closed_now()
    client.send(close_frame(code))
    assert client.expect_closed() == b""


def test_messages_before_a_close_arrive(shared):
    """Also when the client is gone by then."""
    got: list = []

    def slow(conn):
        for part in frames_of(conn):
            got.append(part)

    shared.servers[0].script(serve_websocket(slow))
    client = shared.client()
    upgrade(client)
    client.send(b"".join(frame(TEXT, b"%d" % i) for i in range(1000)) + close_frame(1000, b"done"))
    client.close()
    wait_until(lambda: got and got[-1].opcode == CLOSE, "the close", 20)
    assert [part.payload for part in got[:-1]] == [b"%d" % i for i in range(1000)]
    assert (got[-1].code, got[-1].reason) == (1000, b"done")


def test_a_client_that_leaves_without_a_close(shared):
    told: list = []
    shared.servers[0].script(record_closes(told))
    client = shared.client()
    upgrade(client)
    client.close()
    wait_until(lambda: told, "the server hears of it")
    assert told == [None]


def test_a_client_that_resets(shared):
    told: list = []
    shared.servers[0].script(record_closes(told))
    client = shared.client()
    upgrade(client)
    client.reset()
    wait_until(lambda: told, "the server hears of it")


def test_a_server_that_leaves_without_a_close(shared):
    """1006 on the other side as well, behind what it said."""

    def leave(conn):
        conn.send(frame(TEXT, b"last words", mask=None))
        conn.close()

    shared.servers[0].script(serve_websocket(leave))
    client = shared.client()
    upgrade(client)
    assert read_message(client) == (TEXT, b"last words")
    assert client.expect_closed() == b""


def test_a_client_that_does_not_answer_the_close(shared):
    shared.servers[0].script(closing(1000))
    client = shared.client()
    upgrade(client)
    assert read_frame(client).code == 1000
    began = time.monotonic()
    client.expect_closed(15)
    assert 4 < time.monotonic() - began < 9


def test_a_server_that_does_not_answer_the_close(shared):
    def ignore(conn):
        for _ in frames_of(conn):
            pass

    shared.servers[0].script(serve_websocket(ignore))
    client = shared.client()
    upgrade(client)
    client.send(close_frame(1000))
    assert read_frame(client).code == 1000
    client.expect_closed(2)
    assert shared.servers[0].wait_connection().finished.wait(15)


def test_both_close_at_once(shared):
    gate = shared.servers[0].gate()

    def close(conn):
        gate.wait(10)
        conn.send(close_frame(4001, mask=None))
        list(frames_of(conn))

    shared.servers[0].script(serve_websocket(close))
    client = shared.client()
    upgrade(client)
    client.send(close_frame(4000))
    gate.set()
    assert read_frame(client).code in (4000, 4001)
    client.expect_closed()
    assert shared.servers[0].wait_connection().finished.wait(10)


# ---- ends of others

def test_a_container_that_dies_closes_with_1011(pair, server):
    server.script(serve_websocket(echo))
    client = pair.client()
    upgrade(client)
    client.send(frame(TEXT, b"x"))
    read_message(client)
    pair.shim.kill()
    got = read_frame(client, 20)
    assert (got.opcode, got.code, got.reason) == (CLOSE, 1011, b"container_lost")


def test_a_drained_shim_closes_with_1012(stack, server):
    """One that has started no command: nobody else would."""
    told: list = []
    server.script(record_closes(told))
    stack.pair(server, shim_flags=["--grace", "1"])
    client = stack.client()
    upgrade(client)
    stack.shim.signal(signal.SIGTERM)
    got = read_frame(client)
    assert (got.opcode, got.code, got.reason) == (CLOSE, 1012, b"the container stops")
    client.send(close_frame(1012))
    client.expect_closed()
    wait_until(lambda: told, "the server hears of it")
    assert told == [(1012, b"the container stops")]
    stack.shim.expect_exit(0)


LEAVES = """
import asyncio, os, signal, sys
from websockets.asyncio.server import serve
async def handle(ws):
    async for message in ws:
        await ws.send(str(os.getpid()))
async def main():
    async with serve(handle, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
if sys.argv[2] == "closes":
    async def run():
        task = asyncio.ensure_future(main())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await asyncio.gather(task, return_exceptions=True)
    asyncio.run(run())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("how, number, code", [("closes", signal.SIGTERM, 1001),
                                               ("leaves", signal.SIGTERM, 1012),
                                               ("leaves", signal.SIGKILL, 1011)])
def test_a_command_that_ends(stack, how, number, code):
    """As it was asked to, with a close of its own or without one; or as it was not."""
    port = free_port()
    stack.ingress = stack.start_ingress()
    shim = stack.start_shim(stack.ingress, "--grace", "1", "--port", str(port),
                            command=[sys.executable, "-c", LEAVES, str(port), how])
    client = stack.client()
    upgrade(client)
    client.send(frame(TEXT, b"x"))
    pid = int(read_message(client)[1])
    if number == signal.SIGKILL:
        os.kill(pid, number)
    else:
        shim.signal(number)
    got = read_frame(client, 20)
    assert (got.opcode, got.code) == (CLOSE, code)
    shim.expect_exit(137 if number == signal.SIGKILL else 0)


def test_a_drained_ingress_closes_with_1012(stack, server):
    told: list = []
    server.script(record_closes(told))
    stack.pair(server, ["--drain-timeout-ms", "300"])
    client = stack.client()
    upgrade(client)
    stack.ingress.signal(signal.SIGTERM)
    got = read_frame(client)
    assert (got.opcode, got.code) == (CLOSE, 1012)
    client.send(close_frame(1012))
    client.expect_closed()
    wait_until(lambda: told, "the server hears of it")
    assert told == [(1012, b"the gateway stops")]
    stack.ingress.expect_exit(0)


def test_a_drained_ingress_goes_on_within_its_grace(stack, server):
    server.script(serve_websocket(echo))
    stack.pair(server, ["--drain-timeout-ms", "60000"])
    client = stack.client()
    upgrade(client)
    stack.ingress.signal(signal.SIGTERM)
    stack.ingress.wait_log("draining")
    client.send(frame(TEXT, b"still"))
    assert read_message(client) == (TEXT, b"still")
    client.send(close_frame(1000))
    assert read_frame(client).code == 1000
    stack.ingress.expect_exit(0)


def test_an_open_one_counts_as_a_connection(stack, server):
    server.script(serve_websocket(echo))
    stack.pair(server, ["--connections-max", "1"])
    first = stack.client()
    upgrade(first)
    second = stack.client()
    second.send(handshake())
    for _ in range(20):
        first.send(frame(TEXT, b"alone"))
        assert read_message(first) == (TEXT, b"alone")
    assert second.sock_peek() == b""
    first.send(close_frame(1000))
    assert read_frame(first).code == 1000
    assert second.read_head().status == 101


# ---- deadlines

def test_no_deadline_of_a_request_ends_it(stack, server):
    server.script(serve_websocket(echo))
    stack.pair(server, ["--total-timeout-ms", "300", "--idle-timeout-ms", "300",
                        "--first-byte-timeout-ms", "300", "--keep-alive-timeout-ms", "300"])
    client = stack.client()
    upgrade(client)
    began = time.monotonic()
    other = stack.client()
    other.send(handshake())  # another one keeps the time: an HTTP call that waits ends meanwhile
    assert other.read_head().status == 101
    while time.monotonic() - began < 1.5:
        other.send(frame(TEXT, b"tick"))
        assert read_message(other) == (TEXT, b"tick")
    client.send(frame(TEXT, b"still"))
    assert read_message(client) == (TEXT, b"still")


def test_a_handshake_has_the_deadlines_of_a_call(stack, server):
    server.script(lambda conn: list(conn.pieces_to_end(60)))
    stack.pair(server, ["--first-byte-timeout-ms", "300"])
    client = stack.client()
    client.send(handshake())
    assert_error(client.read_response(), 504, "first_byte_timeout")


def test_idle_clients_are_pinged_and_dead_ones_given_up(stack, server):
    told: list = []
    server.script(record_closes(told))
    stack.pair(server, ["--websocket-ping-interval-ms", "1000", "--websocket-pong-timeout-ms", "2000"])
    client = stack.client()
    upgrade(client)
    for _ in range(2):
        got = read_frame(client, 5)
        assert got.opcode == PING
        client.send(frame(PONG, got.payload))
    assert read_frame(client, 5).opcode == PING
    client.expect_closed(8)
    wait_until(lambda: told, "the server hears of it")
    assert told == [None]


def test_a_client_that_takes_nothing(stack, server):
    def flood(conn):
        while True:
            conn.send(frame(BINARY, bytes(60_000), mask=None), 60)

    server.script(serve_websocket(flood))
    stack.pair(server, ["--client-stall-timeout-ms", "1000"])
    client = stack.client()
    upgrade(client)
    stack.ingress.wait_log("client_stalled", 20)
    assert server.wait_connection().finished.wait(10)


# ---- credit

def test_a_server_that_does_not_read_stops_its_client_alone(pair, server):
    gate = server.gate()

    def stall(conn):
        if conn.number == first:
            gate.wait(60)
        echo(conn)

    first = len(server._all)
    server.script(serve_websocket(stall))
    client = pair.client()
    upgrade(client)
    taken = client.send_until_blocked(frame(BINARY, bytes(60_000)), 200 << 20)
    assert taken < 64 << 20
    other = pair.client()
    upgrade(other)
    other.send(frame(TEXT, b"hello"))
    assert read_message(other) == (TEXT, b"hello")
    gate.set()


def test_a_client_that_does_not_read_stops_its_server(pair, server):
    sent: list = []

    def flood(conn):
        sent.append(conn.send_until_blocked(frame(BINARY, bytes(60_000), mask=None), 200 << 20))
        list(frames_of(conn))

    server.script(serve_websocket(flood))
    client = pair.client()
    upgrade(client)
    wait_until(lambda: sent, "the server is stopped", 30)
    assert sent[0] < 64 << 20
    # Everything that was taken arrives.
    left = sent[0]
    size = len(frame(BINARY, bytes(60_000), mask=None))
    total = 0
    while total < left // size * 60_000:
        got = read_frame(client, 20)
        total += len(got.payload)


def rss_kib(program) -> int:
    for line in open(f"/proc/{program.pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError


@pytest.mark.parametrize("mib", [128, pytest.param(1024, marks=pytest.mark.slow)])
def test_a_large_message_crosses_in_bounded_memory(stack, server, mib):
    """Through, and back, as one message."""
    server.script(serve_websocket(echo))
    stack.pair(server, ["--websocket-message-bytes-max", "0"])
    client = stack.client()
    upgrade(client)
    before = rss_kib(stack.ingress), rss_kib(stack.shim)
    piece = bytes(1 << 20)
    total = mib << 20
    received = [0]

    def read_back():
        while received[0] < total:
            received[0] += len(read_frame(client, 60).payload)

    reader = threading.Thread(target=read_back)
    reader.start()
    client.send(head(BINARY, total, mask=b"\0\0\0\0"))
    grown = 0
    for _ in range(mib):
        client.sock.settimeout(60)
        client.sock.sendall(piece)
        grown = max(grown, rss_kib(stack.ingress) - before[0], rss_kib(stack.shim) - before[1])
    reader.join(120)
    assert received[0] == total
    assert grown < (160 << 10 if SANITIZED else 64 << 10)


# ---- the link

def test_no_message_is_lost_doubled_or_reordered_when_the_link_breaks(stack, server):
    server.script(serve_websocket(echo))
    stack.ingress = stack.start_ingress()
    relay = stack.start_relay(stack.ingress.shims.removeprefix("tcp://"))
    stack.shim = stack.start_shim(f"tcp://127.0.0.1:{relay.port}", server=server)
    client = stack.client()
    upgrade(client)
    count = 3000
    got: list[bytes] = []

    def read_back():
        while len(got) < count:
            got.append(read_message(client, 30)[1])

    reader = threading.Thread(target=read_back)
    reader.start()
    for i in range(count):
        if i in (500, 1200, 2100):
            relay.reset()
        client.send(frame(TEXT, b"%d" % i))
    reader.join(60)
    assert got == [b"%d" % i for i in range(count)]
    assert "link resumed" in stack.ingress.log
