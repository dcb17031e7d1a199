"""Clients that people have: Node's ws, socket.io, Jupyter's, and a browser; with TLS, too."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Iterator

import pytest
from websockets.asyncio.client import connect

from harness.deadline import wait_until
from harness.node import SCRIPTS, find_browser, need_node, node_environment, run_node
from harness.program import descendants
from harness.stack import Shim, Stack, free_port

PAGE = """<!doctype html><meta charset="utf-8"><title></title>
<script>
const found = [];
const url = new URL("/socket", location.href);
url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
const socket = new WebSocket(url, ["v1", "v2"]);
socket.binaryType = "arraybuffer";
socket.onopen = () => {
  found.push(["open", socket.protocol, socket.extensions]);
  socket.send("caf\u00e9 " + "x".repeat(100000));
};
socket.onmessage = ({ data }) => {
  if (typeof data === "string") {
    found.push(["text", data.length, data.slice(0, 5)]);
    socket.send(new Uint8Array(70000).fill(7));
    return;
  }
  found.push(["binary", data.byteLength, new Uint8Array(data).every(byte => byte === 7)]);
  socket.close(4001, "enough");
};
socket.onclose = event => {
  found.push(["close", event.code, event.reason, event.wasClean]);
  document.title = JSON.stringify(found);
};
</script>
"""

# Uvicorn believes X-Forwarded-Proto of 127.0.0.1.
SERVER = """
page = open("page.html", "rb").read()
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": page})
    elif scope["type"] == "websocket":
        await send({"type": "websocket.accept", "subprotocol": "v2",
                    "headers": [(b"x-scheme", scope["scheme"].encode())]})
        await receive()
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event.get("text"),
                        "bytes": event.get("bytes")})
"""

# A proxy that ends TLS, as it is written everywhere.
PROXY = """
daemon off; master_process off; error_log stderr; pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location / {{
      proxy_pass http://127.0.0.1:{ingress};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}
"""


@pytest.fixture(scope="module")
def echoing(tmp_path_factory) -> Iterator[Stack]:
    """A page, and an echo at /socket."""
    folder = tmp_path_factory.mktemp("clients")
    (folder / "app.py").write_text(SERVER)
    (folder / "page.html").write_text(PAGE)
    stack, port = Stack(folder), free_port()
    try:
        stack.ingress = stack.start_ingress("--trusted-proxies", "127.0.0.1")
        stack.start_shim(stack.ingress, "--port", str(port), command=[
            "sh", "-c", 'cd "$0" && exec "$@"', str(folder),
            sys.executable, "-m", "uvicorn", "app:app", "--port", str(port)])
        yield stack
    finally:
        stack.close()


@pytest.fixture(scope="module")
def by_tls(echoing) -> tuple[str, Path]:
    """The same by way of a proxy: its address and its certificate."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if not nginx or not shutil.which("openssl"):
        pytest.skip("there is no nginx, or no openssl")
    folder, port = echoing.folder, free_port()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
                   check=True, capture_output=True)
    (folder / "nginx.conf").write_text(PROXY.format(folder=folder, port=port,
                                                    ingress=echoing.ingress.port))
    proxy = echoing.run("nginx", [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")])
    wait_until(lambda: is_open(port) or proxy.process.poll() is not None, "the proxy accepts")
    return f"localhost:{port}", folder / "cert.pem"


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_nodes_ws(echoing):
    need_node()
    found = run_node("ws_client.js", f"ws://127.0.0.1:{echoing.ingress.port}/socket")
    end = {"protocol": "v2", "code": 4001, "reason": "mine"}
    assert found["plain"] == {**end, "extensions": ""}
    assert found["squeezed"] == {**end, "extensions": "permessage-deflate"}


def assert_page_works(url: str) -> None:
    found = run_node("browser.js", find_browser(), "socket", url)
    assert found[0][:2] == ["open", "v2"] and found[0][2].startswith("permessage-deflate")
    assert found[1:] == [["text", 100005, "caf\u00e9 "], ["binary", 70000, True],
                         ["close", 4001, "enough", True]]


def test_a_page_in_a_browser(echoing):
    assert_page_works(f"http://127.0.0.1:{echoing.ingress.port}/")


def test_a_page_in_a_browser_by_tls(by_tls):
    assert_page_works(f"https://{by_tls[0]}/")


def scheme_at(url: str, **more: object) -> str:
    async def talk():
        async with asyncio.timeout(20), connect(url, subprotocols=["v2"], **more) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
            return ws.response.headers["X-Scheme"]

    return asyncio.run(talk())


def test_the_server_knows_of_tls(echoing, by_tls):
    address, certificate = by_tls
    trust = ssl.create_default_context(cafile=certificate)
    assert scheme_at(f"wss://{address}/socket", ssl=trust) == "wss"
    assert scheme_at(f"ws://127.0.0.1:{echoing.ingress.port}/socket") == "ws"


@pytest.fixture
def rooms(stack, tmp_path) -> Stack:
    """socket.io's sessions are in one process's memory: with two containers it needs affinity."""
    need_node()
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"functions": {"io": {"affinity": {"cookie": "container"}}}}))
    stack.ingress = stack.start_ingress("--config", str(config))
    for _ in range(2):
        port = free_port()
        stack.start_shim(stack.ingress, "--port", str(port), function="io", env=node_environment(),
                         command=["node", str(SCRIPTS / "socketio_server.js"), str(port)])
    return stack


def test_socket_io_by_polling_then_upgraded(rooms):
    guests = run_node("socketio_client.js", f"http://127.0.0.1:{rooms.ingress.port}", "12")["guests"]
    assert len(guests) == 12
    assert all((guest["first"], guest["last"]) == ("polling", "websocket") for guest in guests)
    assert len({guest["pid"] for guest in guests}) == 2


def test_socket_io_comes_back_to_another_container(rooms):
    guest = rooms.run("guest", ["node", str(SCRIPTS / "socketio_survivor.js"),
                                f"http://127.0.0.1:{rooms.ingress.port}"])
    first = int(guest.wait_log(r'"pid":(\d+)')[1])
    shims = [program for program in rooms.programs if isinstance(program, Shim)]
    (shim,) = (shim for shim in shims if first in descendants(shim.pid))
    before = len(guest.log)
    os.kill(first, signal.SIGKILL)
    second = int(guest.wait_log(r'"pid":(\d+)', 20, before)[1])
    guest.expect_exit(0)
    shim.expect_exit(137)
    assert second != first


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_jupyters_kernels(stack, tmp_path):
    port = free_port()
    stack.ingress = stack.start_ingress()
    stack.start_shim(
        stack.ingress, "--port", str(port),
        env={name: str(tmp_path) for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR",
                                              "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")},
        command=[sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root",
                 "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
                 f"--ServerApp.root_dir={tmp_path}", "--IdentityProvider.token=open"])
    answer = stack.ask(b"POST", b"/api/kernels?token=open", [], b"{}", host=b"localhost")
    assert answer.status == 201, answer.body
    kernel = json.loads(answer.body)["id"]

    def request(kind: str, **content: object) -> str:
        return json.dumps({
            "header": {"msg_id": uuid.uuid4().hex, "msg_type": kind, "session": "tests",
                       "username": "tests", "version": "5.3", "date": "2000-01-01T00:00:00Z"},
            "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"})

    async def talk() -> str:
        url = f"ws://127.0.0.1:{stack.ingress.port}/api/kernels/{kernel}/channels?token=open"
        said = ""
        async with asyncio.timeout(60), connect(url, max_size=None) as ws:
            await ws.send(request("execute_request", code="print('x' * 300000)", silent=False))
            while len(said) < 300001:
                message = json.loads(await ws.recv())
                assert message["msg_type"] != "error", message["content"]
                if message["msg_type"] == "stream":
                    said += message["content"]["text"]
        return said

    assert asyncio.run(talk()) == "x" * 300000 + "\n"
    assert stack.ask(b"DELETE", f"/api/kernels/{kernel}?token=open".encode(),
                     host=b"localhost").status == 204
