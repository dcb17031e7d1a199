"""Many clients at once that take their time: every one is ended by its deadline, and
others are served meanwhile.  bench/hostile measures how well; single ones are in test_limits."""

from __future__ import annotations

import re
import select
import shutil
import statistics
import subprocess
import threading
import time
from typing import Iterator

import pytest

from harness import http, settings
from harness.deadline import wait_until
from harness.holding import STILL_POLLS, sockets_of, wait_still
from harness.park import ParkServer, need_descriptors
from harness.program import open_descriptors
from harness.slow import Ending, SlowClients
from harness.stack import Stack

CLIENTS = 1000
# Each takes some 700 KB of copying before it stalls.
READERS = 400
HEAD_MS, BODY_MS, STALL_MS, IDLE_MS = 1500, 1200, 1500, 1000
# A deadline may be seen a little late, never early; the machine has other things to do, and
# the clients are one Python thread.
EARLY_S, LATE_S = 0.15, 3.0
# A sweep ten times a second would have a median of 50.
SOON_MS, MEDIAN_LATE_MS = 500, 30
# Its scripted server is the same Python process as a thousand clients.
ANSWER_S = 8.0
FEW = 4
LARGE_BYTES = 4 << 20
# Of an answer, for one that reads nothing: what the socket may hold, and a write beyond it.
QUEUED_BYTES_MAX = 256 * 1024
# Connections of the shim to the server that may be as wide as the kernel likes (shim/backend.h),
# and what the server's kernel holds for one beyond them.
WIDE = 64
NARROW_BYTES_MAX = 3 << 19
# Lanes of libmicrohttpd, once opened.
KEPT_DESCRIPTORS = 16
FIN_WAIT_1, FIN_WAIT_2, CLOSING, LAST_ACK = "04", "05", "0B", "09"


class Others:
    """A client that asks all the time, as everybody else does."""

    def __init__(self, stack: Stack) -> None:
        self.times: list[float] = []
        self.wrong: list[BaseException] = []
        self._stack = stack
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._stack.client() as client:
                while not self._stop.wait(0.01):
                    start = time.monotonic()
                    assert client.ask(target=b"/small").body == b"hello"
                    self.times.append(time.monotonic() - start)
        except BaseException as error:  # noqa: BLE001 - raised by close
            self.wrong.append(error)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(15)
        if self.wrong:
            raise self.wrong[0]
        assert self.times and max(self.times) < ANSWER_S, max(self.times, default=None)


@pytest.fixture
def besieged(stack: Stack) -> Iterator[Stack]:
    """Short deadlines; at its end everybody else was served, and nothing is left behind."""
    need_descriptors(4 * CLIENTS)
    server = ParkServer()
    stack.servers.append(server)
    stack.pair(server, settings.head_timeout(HEAD_MS) + settings.body_timeout(BODY_MS)
               + settings.client_stall(STALL_MS) + settings.keep_alive(IDLE_MS)
               + ["--access-log", "off"], settings.concurrency(2 * CLIENTS))
    before = open_descriptors(stack.ingress.pid)
    others = Others(stack)
    yield stack
    others.close()
    wait_until(lambda: open_descriptors(stack.ingress.pid) <= before + KEPT_DESCRIPTORS
               and not server.held and not server.bodies, "the programs gave all back", 10)


def assert_in_time(endings: list[Ending], deadline_ms: int) -> None:
    times = [e.seconds for e in endings]
    assert min(times) >= deadline_ms / 1000 - EARLY_S, (min(times), max(times))
    assert max(times) <= deadline_ms / 1000 + LATE_S, (min(times), max(times))


def assert_answered_408(endings: list[Ending]) -> None:
    for ending in endings:
        assert not ending.reset, ending
        head, _, body = ending.said.partition(b"\r\n\r\n")
        answer = http.parse_response_head(head + b"\r\n\r\n")
        assert answer.status == 408 and answer.get("Porthole-Error") == b"request_timeout"
        assert len(body) == answer.content_length, ending.said


@pytest.mark.slow
def test_a_thousand_heads_that_do_not_end(besieged: Stack) -> None:
    """Slowloris: a byte now and then does not stretch the deadline."""
    with SlowClients(besieged.ingress.address, CLIENTS, b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ",
                     interval_s=0.3, drip=b"v") as clients:
        endings = clients.wait_ended(CLIENTS, HEAD_MS / 1000 + LATE_S)
    assert_in_time(endings, HEAD_MS)
    assert_answered_408(endings)


def median_lateness_ms(stack: Stack, count: int, apart_s: float) -> float:
    """Of 408s of heads that begin one after another."""
    poll, begun, late, clients = select.epoll(), {}, [], []
    for _ in range(count):
        client = stack.client()
        clients.append(client)
        client.send(b"G")
        begun[client.sock.fileno()] = time.monotonic()
        poll.register(client.sock.fileno(), select.EPOLLIN | select.EPOLLONESHOT)
        threading.Event().wait(apart_s)  # their pace: nothing is waited for
    while len(late) < count:
        ready = poll.poll(10)
        assert ready, "no more come"
        late += [1000 * (time.monotonic() - begun[fd]) - SOON_MS for fd, _ in ready]
    poll.close()
    for client in clients:
        client.close()
    return statistics.median(late)


def test_those_whose_time_comes_one_after_another_are_ended_one_after_another(stack: Stack) -> None:
    """If all who are late were ended ten times a second, others would wait for each bunch."""
    stack.ingress = stack.start_ingress(*settings.head_timeout(SOON_MS))
    seen = []
    while not seen or min(seen) > MEDIAN_LATE_MS:
        assert len(seen) < 5, seen  # the machine may be busy, but not always
        seen.append(median_lateness_ms(stack, 60, 0.007))


@pytest.mark.slow
def test_a_thousand_connections_that_never_say_anything(besieged: Stack) -> None:
    with SlowClients(besieged.ingress.address, CLIENTS, b"") as clients:
        endings = clients.wait_ended(CLIENTS, HEAD_MS / 1000 + LATE_S)
    assert_in_time(endings, HEAD_MS)
    assert not any(ending.said for ending in endings)


@pytest.mark.slow
def test_a_thousand_bodies_that_stop_coming(besieged: Stack) -> None:
    """The deadline runs from the last byte; the server hears that the rest does not come."""
    drip_s = BODY_MS / 1000 * 1.5
    head = http.request("POST", b"/body", [(b"Content-Length", b"100000")])
    with SlowClients(besieged.ingress.address, CLIENTS, head + b"x", interval_s=0.3, drip=b"x",
                     drip_s=drip_s) as clients:
        server = besieged.servers[0]
        wait_until(lambda: len(server.bodies) == CLIENTS, "all have reached the server", 10)
        endings = clients.wait_ended(CLIENTS, drip_s + BODY_MS / 1000 + LATE_S)
    assert min(e.seconds for e in endings) >= BODY_MS / 1000 - EARLY_S
    assert_answered_408(endings)


@pytest.mark.slow
def test_hundreds_of_readers_that_take_nothing(besieged: Stack) -> None:
    """What the kernel holds for one goes with it: an end that waits behind bytes that nobody
    takes would be there for minutes."""
    request = http.request(target=b"/length/%d" % LARGE_BYTES)
    with SlowClients(besieged.ingress.address, READERS, request, reads=False) as clients:
        endings = clients.wait_ended(READERS, STALL_MS / 1000 + LATE_S + 5)
        left = [state for state, queued in sockets_of(besieged.ingress.port)
                if queued and state in (FIN_WAIT_1, FIN_WAIT_2, CLOSING, LAST_ACK)]
    assert not left, f"{len(left)} ends wait in the kernel"
    assert all(ending.reset for ending in endings)
    assert min(e.seconds for e in endings) >= STALL_MS / 1000 - EARLY_S
    assert besieged.ingress.log.count("client_stalled") == READERS


def test_what_the_kernel_holds_for_a_reader_that_takes_nothing_is_bounded(stack: Stack) -> None:
    """No budget of ours would count it."""
    server = ParkServer()
    stack.servers.append(server)
    stack.pair(server, settings.client_stall(STALL_MS))
    request = http.request(target=b"/length/%d" % (2 * LARGE_BYTES))
    with SlowClients(stack.ingress.address, FEW, request, reads=False) as clients:
        worst = 0

        def all_ended() -> bool:
            nonlocal worst
            worst = max([worst, *(queued for _, queued in sockets_of(stack.ingress.port))])
            return len(clients.endings) == FEW

        wait_until(all_ended, "all are ended", 10)
    assert 0 < worst <= QUEUED_BYTES_MAX, worst


def test_what_the_servers_kernel_holds_for_a_crowd_that_takes_nothing_is_bounded(
        stack: Stack) -> None:
    """What it holds for all counts against the memory that TCP has on a machine."""
    server = ParkServer()
    stack.servers.append(server)
    stack.pair(server, settings.client_stall(60_000), ["--concurrency", "1000"])
    request = http.request(target=b"/length/%d" % (2 * LARGE_BYTES))
    with SlowClients(stack.ingress.address, WIDE + FEW, request, reads=False):
        wait_until(lambda: len(sockets_of(server.port)) > WIDE + FEW, "all are at the server", 10)
        held, same = [], 0
        while same < STILL_POLLS:
            wait_still([stack.ingress, stack.shim], [])
            last, held = held, sorted(queued for _, queued in sockets_of(server.port) if queued)
            same = same + 1 if held == last else 0
    assert len(held) == WIDE + FEW
    assert held[FEW - 1] <= NARROW_BYTES_MAX, held
    assert held[-1] > NARROW_BYTES_MAX, "the kernel bounds it by itself: nothing was shown"


# ---- by a tool that others know

ATTACKS = {
    "heads": ["-H", "-i", "1", "-x", "8"],
    "bodies": ["-B", "-i", "5", "-s", "100000"],
    "reads": ["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32"],
}
ATTACK_S = 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ATTACKS)
def test_slowhttptest_ends_with_no_connection_left(besieged: Stack, kind: str) -> None:
    program = shutil.which("slowhttptest")
    assert program, "scripts/test installs slowhttptest"
    target = f"/length/{LARGE_BYTES}" if kind == "reads" else "/small"
    count = READERS if kind == "reads" else CLIENTS
    done = subprocess.run(
        [program, *ATTACKS[kind], "-c", str(count), "-r", str(count), "-l", str(ATTACK_S),
         "-p", str(int(ANSWER_S)), "-u", f"http://127.0.0.1:{besieged.ingress.port}{target}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=40)
    said = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", done.stdout + done.stderr)
    assert "service available:   YES" in said and "service available:   NO" not in said, said
    if kind == "reads":
        # It reads what it has before it looks at the end: we say what became of them.
        wait_until(lambda: besieged.ingress.log.count("client_stalled") >= count,
                   "all are ended", 10)
    else:
        assert "No open connections left" in said, said
