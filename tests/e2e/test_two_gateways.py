"""Two gateways behind one nginx, restarted in turn under load."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from pathlib import Path

import pytest

from harness.client import Client
from harness.deadline import wait_until
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
    }}
    server {{
        listen unix:{folder}/nginx.http;
        location / {{ proxy_pass http://gateways; }}
    }}
}}
"""


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
                    statuses.append(client.ask("GET", "/", seconds=30).status)
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            broken.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for name in ("one", "two", "one"):
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
