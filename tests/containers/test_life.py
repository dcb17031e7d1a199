"""What becomes of calls when a container is starved, killed, frozen or stopped."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.check import assert_answer, assert_error
from harness.client import Client
from harness.http import request
from harness.stack import Ingress, Stack, flags
from kit.options import HOST_NETWORK, control, release, setting
from kit.sandbox import Container

MEMORY_LIMIT = "--memory=48m"
# How long a frozen container is borne: longer than a busy machine makes a healthy one wait.
SILENT_MS = 3000
LOAD_CLIENTS = 4
RESTARTS = 3


def hold(ingress: Ingress, container: Container) -> Client:
    """A request that the server has in hand.  Nobody sends a POST a second time."""
    client = ingress.client()
    client.send(request("POST", "/hold", body=b""))
    container.wait_log("begins /hold")
    return client


def test_out_of_memory(stack: Stack, run, scratch_image: str) -> None:
    """The kernel kills the server: the client, the log and the status tell."""
    ingress = stack.start_ingress()
    container = run(scratch_image, options=[HOST_NETWORK, MEMORY_LIMIT, *setting(ingress)])
    container.wait_registered()
    answer = assert_error(ingress.ask("POST", "/eat", body=b""), 502, "container_lost")
    assert b"killed by signal 9 (out of memory)" in answer.body, answer.body
    ingress.wait_log(r"killed by signal 9 \(out of memory\)")
    container.expect_exit(137)


def test_a_killed_server_was_not_out_of_memory(stack: Stack, run, scratch_image: str,
                                               tmp_path: Path) -> None:
    """Signal 9 from somebody else, in a container with a memory limit."""
    ingress = stack.start_ingress()
    container = run(scratch_image, options=[HOST_NETWORK, MEMORY_LIMIT, control(tmp_path),
                                            *setting(ingress)])
    container.wait_registered()
    client = hold(ingress, container)
    container.signal_children("KILL")
    answer = assert_error(client.read_response(), 502, "container_lost")
    assert b"killed by signal 9" in answer.body, answer.body
    assert b"memory" not in answer.body, answer.body
    container.expect_exit(137)


def test_a_killed_container(stack: Stack, run, scratch_image: str, tmp_path: Path) -> None:
    """kill -9 of all of it: what is in flight ends, the next call goes to another one."""
    ingress = stack.start_ingress()
    first = run(scratch_image, options=[HOST_NETWORK, control(tmp_path), *setting(ingress)])
    first.wait_registered()
    client = hold(ingress, first)
    second = run(scratch_image, "/server", "8189", options=[HOST_NETWORK, *setting(ingress)])
    second.wait_registered()
    first.kill()
    assert_error(client.read_response(), 502, "container_lost")
    for _ in range(10):
        assert assert_answer(ingress.ask()).body == b"hello\n"
    second.wait_log("begins /\n")


def test_a_paused_container(stack: Stack, run, scratch_image: str, tmp_path: Path) -> None:
    """A hung container: its calls end when it has been silent for too long; it comes back
    as a new one when it thaws."""
    ingress = stack.start_ingress(*flags(link_silent_timeout_ms=SILENT_MS))
    container = run(scratch_image, options=[HOST_NETWORK, control(tmp_path), *setting(ingress)])
    container.wait_registered()
    client = hold(ingress, container)
    container.podman("pause")
    assert_error(client.read_response(seconds=SILENT_MS / 1000 + 10), 502, "container_lost")
    waiting = ingress.client()
    waiting.send(request("GET", "/"))
    seen = len(container.log)
    container.podman("unpause")
    container.wait_registered(after=seen)
    assert assert_answer(waiting.read_response()).body == b"hello\n"


def test_stop_with_a_long_request_in_flight(stack: Stack, run, scratch_image: str,
                                            tmp_path: Path) -> None:
    ingress = stack.start_ingress()
    container = run(scratch_image, options=[HOST_NETWORK, control(tmp_path), *setting(ingress)])
    container.wait_registered()
    client = hold(ingress, container)
    stop = threading.Thread(target=container.podman, args=("stop", "--time", 30))
    stop.start()
    container.wait_log('"msg":"draining","why":"SIGTERM","calls":1')
    release(tmp_path)
    assert assert_answer(client.read_response()).body == b"released\n"
    container.expect_exit(0)
    stop.join()


def test_a_rolling_restart_under_load_fails_nothing(stack: Stack, run, scratch_image: str) -> None:
    """A new container comes, an old one is stopped, again and again."""
    ingress = stack.start_ingress()
    done = threading.Event()

    def start(turn: int) -> Container:
        return run(scratch_image, "/server", str(8200 + turn),
                   options=[HOST_NETWORK, *setting(ingress)]).wait_registered()

    def load(method: str) -> int:
        count = 0
        client = ingress.client()
        while not done.is_set():
            body = b"" if method == "POST" else None
            assert assert_answer(client.ask(method, "/", body=body)).body == b"hello\n"
            count += 1
        return count

    containers = [start(0), start(1)]
    with ThreadPoolExecutor(LOAD_CLIENTS) as pool:
        clients = [pool.submit(load, method) for method in ("GET", "POST") * (LOAD_CLIENTS // 2)]
        try:
            for turn in range(RESTARTS):
                containers.append(start(2 + turn))
                containers.pop(0).stop()
        finally:
            done.set()
        assert all(client.result() > RESTARTS for client in clients)
