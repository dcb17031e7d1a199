"""Several gateways: at one container, whose cap is hard; behind one nginx, restarted in turn."""

from __future__ import annotations

import collections
import json
import shutil
import signal
import threading
from pathlib import Path

import pytest

from harness import http, settings
from harness.client import Client
from harness.deadline import wait_until
from harness.server import serve
from harness.stack import Ingress

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off; keepalive_requests 10000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream gateways {{
        server unix:{folder}/one.http max_fails=0;
        server unix:{folder}/two.http max_fails=0;
        keepalive 16;
    }}
    server {{
        listen unix:{folder}/nginx.http;
        location / {{
            proxy_pass http://gateways; proxy_http_version 1.1; proxy_set_header Connection "";
        }}
    }}
}}
"""


class Meter:
    """Holds each request until as many are there as may be, or for a moment; knows the most
    that were there at once, and how often each came."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.now = 0
        self.most = 0
        self.came: collections.Counter[bytes] = collections.Counter()
        self.changed = threading.Condition()

    def serve(self, request: http.Request, _conn: object) -> bytes:
        with self.changed:
            self.now += 1
            self.most = max(self.most, self.now)
            self.came[request.target] += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.now >= self.cap, 0.01)
            self.now -= 1
        return http.reply(body=request.target)


@pytest.mark.parametrize("cap, callers, calls", [(1, 3, 15), (4, 6, 25)])
def test_the_cap_holds_for_all_of_them_together(stack, server, cap, callers, calls):
    """The shim counts; what it refuses is put back: no call fails, none is served twice, and
    none of the gateways is left out."""
    meter = Meter(cap)
    server.script(serve(meter.serve))
    gateways = [stack.start_ingress() for _ in range(3)]
    shim = stack.start_shim([gateway.shims for gateway in gateways], *settings.concurrency(cap),
                            server=server)
    wait_until(lambda: shim.log.count("msg=registered") == 3, "all three know it")
    wrong: list[object] = []
    ends: dict[int, list[int]] = {number: [] for number in range(3)}

    def load(number: int, caller: int) -> None:
        with Client(gateways[number].address) as client:
            for call in range(calls):
                target = b"/%d/%d/%d" % (number, caller, call)
                answer = client.ask("POST", target, body=b"x", seconds=50)
                if (answer.status, answer.body) != (200, target):
                    wrong.append((answer.status, answer.body, target))
                ends[number].append(sum(meter.came.values()))

    threads = [threading.Thread(target=load, args=(number, caller))
               for number in range(3) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert wrong == []
    assert meter.most == cap
    assert len(meter.came) == 3 * callers * calls and set(meter.came.values()) == {1}
    # When half of all had been served, nobody had less than a fifth of its own.
    half = 3 * callers * calls // 2
    for done in ends.values():
        assert sum(at <= half for at in done) > callers * calls / 5, ends


def listens(path: Path) -> bool:
    try:
        Client(str(path)).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not here")
def test_restarted_in_turn_under_load(stack, server):
    folder = stack.folder
    config = folder / "config.json"
    config.write_text(json.dumps({"functions": {"default": {"hosts": ["*"]}}}))

    def start(name: str) -> Ingress:
        return stack.start_ingress("--config", str(config), "--shutdown-delay-ms", "100",
                                   listen=f"unix:{folder}/{name}.http",
                                   shims=f"ipc://{folder}/{name}.shims")

    gateways = {name: start(name) for name in ("one", "two")}
    stack.start_shim([f"ipc://{folder}/{name}.shims" for name in gateways], server=server)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    stack.run("nginx", ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
    wait_until(lambda: listens(folder / "nginx.http"), "nginx listens")
    stop = threading.Event()
    statuses: list[int] = []
    broken: list[BaseException] = []

    def load() -> None:
        try:
            with Client(str(folder / "nginx.http")) as client:
                while not stop.is_set():
                    statuses.append(client.ask("POST", "/", body=b"x", seconds=30).status)
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            broken.append(error)

    threads = [threading.Thread(target=load) for _ in range(12)]
    for thread in threads:
        thread.start()
    for name in ("one", "two") * 3:
        before = len(statuses)
        wait_until(lambda: len(statuses) > before + 50 or broken, "calls are answered")
        gateways[name].signal(signal.SIGTERM)
        gateways[name].expect_exit(0)
        gateways[name] = start(name)
        gateways[name].wait_log("container registered")
    before = len(statuses)
    wait_until(lambda: len(statuses) > before + 50 or broken, "calls are answered")
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not broken, broken
    assert set(statuses) == {200}
