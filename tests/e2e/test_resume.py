"""A link that breaks and comes back loses no call and repeats no byte; beyond that, the
right error comes in time.  The line between the programs is tests/relay."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import http
from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.ledger import CallServer, Ledger
from harness.program import descendants
from harness.server import serve, serve_heads

# What a dead shim's calls have: "within 1.5 s", and some for a debug build.
LOST_S = 1.5 if os.environ.get("PORTHOLE_STRICT_TIMING") == "1" else 2.5
SILENT_S = 10.0
BLOCK = random.Random(7).randbytes(1 << 20)


@pytest.fixture
def line(stack, server):
    """Ingress, relay, shim and the scripted server; stack.relay is what breaks."""
    stack.ingress = stack.start_ingress()
    stack.relay = stack.start_relay(stack.ingress.shims.removeprefix("tcp://"))
    stack.shim = stack.start_shim(stack.relay.endpoint, server=server)
    return stack


def resumed(line, before: int) -> None:
    line.shim.wait_log(r'msg="?link resumed"?', after=before)
    line.ingress.wait_log(r'msg="?link resumed"?')


def closed_for(seconds: float):
    """Closed, and nobody answers for a while."""
    def act(relay) -> None:
        relay.refuse(seconds)
        relay.cut()
        time.sleep(seconds)  # the fault's length, not a wait for something
    return act


def dropped_for(seconds: float):
    def act(relay) -> None:
        relay.drop(seconds)
        time.sleep(seconds)
    return act


def frozen_for(seconds: float):
    def act(relay) -> None:
        relay.freeze(seconds)
        time.sleep(seconds)
    return act


FAULTS = {
    "cut": lambda relay: relay.cut(),
    "reset": lambda relay: relay.reset(),
    "half-closed": lambda relay: relay.half_close("up"),
    "half-closed back": lambda relay: relay.half_close("down"),
    "closed for 0.6 s": closed_for(0.6),
    "silent for good": lambda relay: (relay.drop(), relay.accept()),
    "silent for 5 s": dropped_for(5),
}


# ---- each kind of call, each kind of fault

@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_that_waits_for_its_answer(line, server, fault):
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply(body=b"held")))
    client = line.client()
    client.send(http.request("POST", body=b"once"))
    server.next_request()
    before = len(line.shim.log)
    FAULTS[fault](line.relay)
    resumed(line, before)
    gate.set()
    assert assert_answer(client.read_response()).body == b"held"
    assert server.requests.empty(), "the request was sent again"
    # And the link is as good as new.
    assert assert_answer(line.ask("POST", body=b"next")).body == b"held"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_download(line, server, fault):
    halfway = threading.Event()

    def answer(request: http.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 * len(BLOCK)))
        for at in range(8):
            if at == 4:
                halfway.set()
            conn.send(BLOCK, 30)

    server.script(serve(answer))
    client = line.client()
    client.send(http.request())
    assert halfway.wait(10)
    before = len(line.shim.log)
    reader: list[bytes] = []
    thread = threading.Thread(target=lambda: reader.append(client.read_response(seconds=30).body))
    FAULTS[fault](line.relay)
    thread.start()
    resumed(line, before)
    thread.join(30)
    assert reader and reader[0] == 8 * BLOCK
    assert server.requests.qsize() == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_an_upload(line, server, fault):
    server.script(serve(lambda request, conn: http.reply(body=b"%d" % hash(request.body))))
    client = line.client()
    client.send(http.request("POST", fields=[(b"Content-Length", b"%d" % (8 * len(BLOCK)))]))
    for _ in range(3):
        client.send(BLOCK)
    server.wait_connection()
    before = len(line.shim.log)
    FAULTS[fault](line.relay)
    for _ in range(5):
        client.send(BLOCK, 30)
    resumed(line, before)
    assert assert_answer(client.read_response(seconds=30)).body == b"%d" % hash(8 * BLOCK)
    assert server.requests.qsize() == 1


def test_a_request_that_was_lost_on_its_way(line, server):
    """Its scope never arrived: it is sent when the link is back, also if it is a POST."""
    line.relay.drop()
    client = line.client()
    client.send(http.request("POST", body=b"once"))
    time.sleep(0.2)  # it is on its way, and gone
    line.relay.accept()
    assert assert_answer(client.read_response()).body == b"hello"
    assert server.requests.qsize() == 1
    assert "link resumed" in line.ingress.log


def test_an_answer_that_was_lost_on_its_way(line, server):
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply(body=b"held")))
    client = line.client()
    client.send(http.request("POST", body=b"once"))
    server.next_request()
    line.relay.drop()
    gate.set()
    wait_until(lambda: server.connections[0].finished or True, "")
    line.relay.accept()
    assert assert_answer(client.read_response()).body == b"held"
    assert server.requests.empty()


def test_a_client_that_leaves_while_the_link_is_down(line, server):
    """Cancel is said by not naming the call at the resume."""
    server.script(serve_heads(lambda request, conn: conn.wait_left(30) and None))
    client = line.client()
    client.send(http.request())
    conn = server.wait_connection()
    line.relay.refuse()
    line.relay.cut()
    line.ingress.wait_log("link closed")
    client.close()
    line.relay.accept()
    assert conn.finished.wait(5), "the server's connection was not closed"


def test_a_server_that_stops_reading_while_the_link_is_down(line, server):
    """Stop is said again: it answers and closes, and the client's upload does not hang."""
    gate = server.gate()

    def refuse_upload(request: http.Request, conn) -> bytes:
        gate.wait(30)
        return b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"

    server.script(serve_heads(refuse_upload))
    client = line.client()
    client.send(http.request("POST", fields=[(b"Content-Length", b"100000000")]) + b"x" * 100000)
    server.next_request()
    before = len(line.shim.log)
    line.relay.refuse()
    line.relay.cut()
    line.shim.wait_log("link closed")
    gate.set()
    line.relay.accept()
    resumed(line, before)
    answer = client.read_response()
    assert (answer.status, answer.body) == (413, b"no")


def test_silence_that_ends_by_itself_is_not_even_noticed(line, server):
    """Frozen for less than 3 s: TCP carries on over the connection that there is."""
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply(body=b"held")))
    client = line.client()
    client.send(http.request("POST", body=b"once"))
    server.next_request()
    frozen_for(2)(line.relay)
    gate.set()
    assert assert_answer(client.read_response()).body == b"held"
    assert "link closed" not in line.shim.log and "resumed" not in line.shim.log


# ---- beyond

def test_a_link_that_does_not_come_back_is_a_lost_container(line, server):
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply(body=b"late")))
    post = line.client()
    post.send(http.request("POST", body=b"once"))
    server.next_request()
    start = time.monotonic()
    line.relay.refuse()
    line.relay.cut()
    answer = assert_error(post.read_response(), 502, "container_lost")
    assert b"closed and did not come back" in answer.body
    assert 0.9 < time.monotonic() - start < LOST_S
    # The shim cancels what it carried, and comes back afresh.
    line.shim.wait_log("link lost")
    server.connections[0].expect_closed()
    gate.set()
    before = len(line.shim.log)
    line.relay.accept()
    line.shim.wait_registered(after=before)
    assert line.ask().body == b"late"


@pytest.mark.slow
def test_a_link_that_is_silent_for_too_long(line, server):
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply(body=b"late")))
    post = line.client()
    post.send(http.request("POST", body=b"once"))
    server.next_request()
    start = time.monotonic()
    line.relay.drop()
    answer = assert_error(post.read_response(seconds=15), 502, "container_lost")
    assert b"silent" in answer.body
    assert SILENT_S - 1.5 < time.monotonic() - start < SILENT_S + 1.5
    gate.set()
    before = len(line.shim.log)
    line.relay.accept()
    line.shim.wait_registered(after=before, seconds=15)
    assert line.ask().body == b"late"


@pytest.mark.slow
def test_a_shim_that_thaws_too_late_registers_afresh(pair, server):
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply(body=b"late")))
    post = pair.client()
    post.send(http.request("POST", body=b"once"))
    server.next_request()
    before = len(pair.shim.log)
    pair.shim.signal(signal.SIGSTOP)
    try:
        assert_error(post.read_response(seconds=15), 502, "container_lost")
    finally:
        pair.shim.signal(signal.SIGCONT)
    gate.set()
    pair.shim.wait_registered(after=before)
    assert pair.ask().body == b"late"
    assert server.requests.qsize() == 1


@pytest.mark.parametrize("who", ["ingress", "shim"])
def test_a_program_that_is_stopped_for_a_while(pair, server, who):
    gate = server.gate()
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply(body=b"held")))
    client = pair.client()
    client.send(http.request("POST", body=b"once"))
    server.next_request()
    program = getattr(pair, who)
    program.signal(signal.SIGSTOP)
    time.sleep(5)  # the fault's length: beyond "suspect", below "lost"
    program.signal(signal.SIGCONT)
    gate.set()
    assert assert_answer(client.read_response()).body == b"held"
    assert server.requests.empty()


def test_another_ingress_on_the_same_port_ends_the_calls_at_once(stack, server):
    """A new epoch: what the shim carried is void, before any time is up."""
    stack.ingress = stack.start_ingress()
    server.script(serve_heads(lambda request, conn: conn.wait_left(30) and None))
    stack.relay = stack.start_relay(stack.ingress.shims.removeprefix("tcp://"))
    stack.shim = stack.start_shim(stack.relay.endpoint, server=server)
    client = stack.client()
    client.send(http.request("POST", body=b"once"))
    server.next_request()
    other = stack.start_ingress()
    stack.relay.target(other.shims.removeprefix("tcp://"))
    before = len(stack.shim.log)
    start = time.monotonic()
    stack.relay.cut()
    stack.shim.wait_registered(after=before)
    assert server.connections[0].finished.wait(5)
    assert server.connections[0].left_at - start < 0.9
    assert "does not know the link" in stack.shim.log[before:]
    # The old one, which lives, says what happened.
    assert_error(client.read_response(), 502, "container_lost")


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_narrow_line_is_no_silent_one(line, server, way):
    """What is said at once takes 6 s.  A message counts when it is whole, so there are several."""
    gate, count = server.gate(), 10
    asked, answered = (30_000, 2) if way == "down" else (2, 30_000)
    server.script(serve(lambda request, conn: gate.wait(30) and http.reply(body=b"a" * answered)))
    clients = [line.client() for _ in range(count)]
    for client in clients:
        client.send(http.request("POST", "/", [(b"Content-Length", b"%d" % asked)]))
    wait_until(lambda: len(server.connections) == count, "the heads are there")
    line.relay.rate(*("400k", 0) if way == "up" else (0, "400k"))
    sender = line.shim if way == "up" else line.ingress
    if way == "up":
        for client in clients:
            client.send(b"a" * asked)
        for _ in clients:
            server.next_request()
    sender.signal(signal.SIGSTOP)
    gate.set()
    if way == "down":
        for client in clients:
            client.send(b"a" * asked)
    time.sleep(0.5)  # all is there when it goes on
    sender.signal(signal.SIGCONT)
    start = time.monotonic()
    for client in clients:
        assert assert_answer(client.read_response(seconds=30)).body == b"a" * answered
    assert time.monotonic() - start > 4
    assert "link resumed" not in line.shim.log


# ---- all of it at once

CUTS = [("freeze", 0.2), ("drop", 3.2), ("cut", 0), ("freeze", 8), ("refuse", 0.5), ("drop", 0.2),
        ("reset", 0), ("freeze", 2), ("half", 0), ("drop", 8), ("refuse", 0.2), ("freeze", 4),
        ("cut", 0), ("drop", 5), ("reset", 0), ("freeze", 1), ("refuse", 0.7), ("drop", 1),
        ("half", 0), ("freeze", 0.5)]


def break_line(relay, kind: str, seconds: float) -> None:
    if kind in ("cut", "reset"):
        relay.command(kind)
    elif kind == "half":
        relay.half_close("up")
    elif kind == "refuse":
        closed_for(seconds)(relay)
    elif kind == "drop":
        dropped_for(seconds)(relay)
    else:
        frozen_for(seconds)(relay)


def told_of_links(line) -> str:
    """What both programs said of the link, where a call was lost."""
    return "\n".join(told for program in (line.ingress, line.shim)
                     for told in program.log.splitlines() if "link" in told)


def through_cuts(line, server, workers: int, cuts) -> None:
    calls = CallServer(server)
    ledger = Ledger(line.client, workers, patience_s=40).start()
    wait_until(lambda: ledger.in_flight >= workers * 0.9, "calls in flight")
    for kind, seconds in cuts:
        break_line(line.relay, kind, seconds)
        before = sum(ledger.ended.values())
        # What was in flight goes on, before the next fault.
        wait_until(lambda: sum(ledger.ended.values()) > before + workers // 4,
                   f"calls that end after {kind} {seconds}", 30)
    ledger.stop()
    print(ledger)
    assert set(ledger.ended) == {"answered"}, f"{ledger}\n{told_of_links(line)}"
    twice = [call for call, count in calls.served.items() if count != 1]
    assert not twice, f"served more than once: {twice[:10]}"
    assert len(calls.served) == ledger.began


def test_mixed_calls_through_cuts(line, server):
    through_cuts(line, server, 40, CUTS[:3] + CUTS[4:7])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_200_mixed_calls_through_20_cuts(line, server):
    through_cuts(line, server, 200, CUTS)


# ---- each process dies or stops under load; the book must balance

CALL_SERVER = [sys.executable, str(Path(__file__).parent / "servers" / "call_server.py")]


def stop_for_2_s(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2)  # the fault's length
    os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("who", ["ingress", "shim", "server"])
def test_the_ledger_of_a_process_that_is(stack, who, how):
    """requests in = answered + failed with a reason: none unaccounted, none answered twice.
    Two containers, so that there is somewhere to go."""
    stack.ingress = stack.start_ingress()
    shims = [stack.start_shim(stack.ingress, "--grace", "6", command=CALL_SERVER)
             for _ in range(2)]
    ledger = Ledger(stack.client, 40, patience_s=30).start()
    wait_until(lambda: sum(ledger.ended.values()) > 40, "calls")
    victim = stack.ingress if who == "ingress" else shims[0]
    pid = descendants(shims[0].pid)[0] if who == "server" else victim.pid
    if how == "stopped":
        stop_for_2_s(pid)
    elif who == "server":
        os.kill(pid, signal.SIGKILL)
        victim.expect_exit(128 + signal.SIGKILL)
    else:
        victim.kill()
    if (who, how) != ("ingress", "killed"):
        before = sum(ledger.ended.values())
        wait_until(lambda: sum(ledger.ended.values()) > before + 40, "calls that end")
    ledger.stop()
    print(ledger)
    if how == "stopped":
        assert set(ledger.ended) == {"answered"}, str(ledger)
    elif who == "ingress":
        assert not ledger.codes, str(ledger)  # nobody is left to say anything
        assert ledger.ended["broken"] > 0
    else:
        assert set(ledger.codes) == {"container_lost"}, str(ledger)
        assert ledger.ended["failed"] + ledger.ended["broken"] <= 40, str(ledger)
