"""Clients that people have: Node's ws, socket.io, Jupyter's, and a browser."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from typing import Iterator

import pytest
from websockets.asyncio.client import connect

from harness.node import SCRIPTS, find_browser, need_node, node_environment, run_node
from harness.stack import Stack, free_port

PAGE = """<!doctype html><meta charset="utf-8"><title></title>
<script>
const found = [];
const socket = new WebSocket("ws://" + location.host + "/socket", ["v1", "v2"]);
socket.binaryType = "arraybuffer";
socket.onopen = () => {
  found.push(["open", socket.protocol, socket.extensions]);
  socket.send("caf\\u00e9 " + "x".repeat(100000));
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

SERVER = """
import sys
from aiohttp import web, WSMsgType
async def page(request):
    return web.Response(text=open("page.html").read(), content_type="text/html")
async def echo(request):
    ws = web.WebSocketResponse(protocols=("v2",), max_msg_size=0)
    await ws.prepare(request)
    async for message in ws:
        if message.type == WSMsgType.TEXT:
            await ws.send_str(message.data)
        else:
            await ws.send_bytes(message.data)
    return ws
app = web.Application()
app.add_routes([web.get("/", page), web.get("/socket", echo)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


@pytest.fixture(scope="module")
def echoing(tmp_path_factory) -> Iterator[Stack]:
    """A page and an echo at /socket."""
    folder = tmp_path_factory.mktemp("clients")
    (folder / "server.py").write_text(SERVER)
    (folder / "page.html").write_text(PAGE)
    stack, port = Stack(folder), free_port()
    try:
        stack.ingress = stack.start_ingress()
        stack.start_shim(stack.ingress, "--port", str(port), command=[
            "sh", "-c", 'cd "$0" && exec "$@"', str(folder), sys.executable, "server.py", str(port)])
        yield stack
    finally:
        stack.close()


def test_nodes_ws(echoing):
    need_node()
    found = run_node("ws_client.js", f"ws://127.0.0.1:{echoing.ingress.port}/socket")
    end = {"protocol": "v2", "code": 4001, "reason": "mine"}
    assert found["plain"] == {**end, "extensions": ""}
    assert found["squeezed"] == {**end, "extensions": "permessage-deflate"}


def test_a_page_in_a_browser(echoing):
    found = run_node("browser.js", find_browser(), "socket",
                     f"http://127.0.0.1:{echoing.ingress.port}/")
    assert found[0][:2] == ["open", "v2"] and found[0][2].startswith("permessage-deflate")
    assert found[1:] == [["text", 100005, "caf\u00e9 "], ["binary", 70000, True],
                         ["close", 4001, "enough", True]]


def test_socket_io_by_polling_then_upgraded(stack, tmp_path):
    """Its sessions are in one process's memory: with two containers it needs affinity."""
    need_node()
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"functions": {"io": {"affinity": {"cookie": "container"}}}}))
    stack.ingress = stack.start_ingress("--config", str(config))
    for _ in range(2):
        port = free_port()
        stack.start_shim(stack.ingress, "--port", str(port), function="io", env=node_environment(),
                         command=["node", str(SCRIPTS / "socketio_server.js"), str(port)])
    guests = run_node("socketio_client.js", f"http://127.0.0.1:{stack.ingress.port}", "12")["guests"]
    assert len(guests) == 12
    assert all((guest["first"], guest["last"]) == ("polling", "websocket") for guest in guests)
    assert len({guest["pid"] for guest in guests}) == 2


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
