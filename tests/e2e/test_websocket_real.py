"""WebSockets between a library's client and real servers, each the shim's command."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Iterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from harness.client import Client
from harness.node import need_node, node_environment
from harness.stack import Stack, free_port
from harness.websocket import TEXT, close_frame, frame, read_message, upgrade

WEBSOCKETS = """
import asyncio, sys
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
async def handle(ws):
    if ws.request.path == "/close":
        await ws.close(4000, "as asked")
    try:
        async for message in ws:
            await ws.send(message)
    except ConnectionClosed:
        pass
    print(f"code of {ws.request.path} {ws.close_code}", flush=True)
def refuse(connection, request):
    if request.path == "/refuse":
        return connection.respond(403, "not here")
async def main():
    async with serve(handle, "127.0.0.1", int(sys.argv[1]), max_size=None, process_request=refuse,
                     select_subprotocol=lambda _, offered: "v2" if "v2" in offered else None) as server:
        await server.serve_forever()
asyncio.run(main())
"""

ASGI = """
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] == "/refuse":
        await send({"type": "websocket.close"})
        return
    chosen = "v2" if "v2" in scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": chosen})
    if scope["path"] == "/close":
        await send({"type": "websocket.close", "code": 4000, "reason": "as asked"})
        return
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")})
    print(f"code of {scope['path']} {event['code']}", flush=True)
"""

AIOHTTP = """
from aiohttp import web, WSMsgType
import sys
async def handle(request):
    if request.path == "/refuse":
        raise web.HTTPForbidden(text="not here")
    ws = web.WebSocketResponse(protocols=("v2",), max_msg_size=0)
    await ws.prepare(request)
    if request.path == "/close":
        await ws.close(code=4000, message=b"as asked")
        return ws
    async for message in ws:
        if message.type == WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    print(f"code of {request.path} {ws.close_code}", flush=True)
    return ws
app = web.Application()
app.add_routes([web.get("/{any:.*}", handle)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
"""


TORNADO = """
import asyncio, sys
from tornado.web import Application, HTTPError
from tornado.websocket import WebSocketHandler
class Handle(WebSocketHandler):
    def prepare(self):
        if self.request.path == "/refuse":
            raise HTTPError(403)
    def select_subprotocol(self, offered):
        return "v2" if "v2" in offered else None
    def open(self):
        if self.request.path == "/close":
            self.close(4000, "as asked")
    def on_message(self, message):
        return self.write_message(message, binary=isinstance(message, bytes))
    def on_close(self):
        print(f"code of {self.request.path} {self.close_code}", flush=True)
async def main():
    Application([("/.*", Handle)], websocket_max_message_size=1 << 30).listen(
        int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()
asyncio.run(main())
"""

NODE_WS = """
const { WebSocketServer } = require("ws");
const server = new WebSocketServer({
  host: "127.0.0.1", port: Number(process.argv[2]), maxPayload: 0, perMessageDeflate: false,
  handleProtocols: offered => offered.has("v2") && "v2",
  verifyClient: ({ req }, decide) => decide(req.url !== "/refuse", 403, "not here"),
});
server.on("connection", (socket, request) => {
  socket.on("error", console.error);
  socket.on("close", code => console.log(`code of ${request.url} ${code}`));
  if (request.url === "/close")
    socket.close(4000, "as asked");
  socket.on("message", (data, binary) => socket.send(data, { binary }));
});
"""


def uvicorn(library: str) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "app:app", "--ws", library, "--ws-max-size",
            str(1 << 30), "--port"]


KINDS = {
    "websockets": ({"server.py": WEBSOCKETS}, [sys.executable, "server.py"]),
    "uvicorn-websockets": ({"app.py": ASGI}, uvicorn("websockets-sansio")),
    "uvicorn-websockets-legacy": ({"app.py": ASGI}, uvicorn("websockets")),
    "uvicorn-wsproto": ({"app.py": ASGI}, uvicorn("wsproto")),
    "aiohttp": ({"server.py": AIOHTTP}, [sys.executable, "server.py"]),
    "tornado": ({"server.py": TORNADO}, [sys.executable, "server.py"]),
    "node-ws": ({"server.js": NODE_WS}, ["node", "server.js"]),
}


@pytest.fixture(scope="module", params=list(KINDS))
def real(request, tmp_path_factory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("real")
    files, argv = KINDS[request.param]
    if argv[0] == "node":
        need_node()
    for name, text in files.items():
        (folder / name).write_text(text)
    stack = Stack(folder)
    port = free_port()
    try:
        stack.ingress = stack.start_ingress("--websocket-message-bytes-max", "0")
        stack.shim = stack.start_shim(
            stack.ingress, "--port", str(port), env=node_environment(), command=[
                "sh", "-c", 'cd "$0" && exec "$@"', str(folder), *argv, str(port)])
        stack.kind, stack.port = request.param, port
        yield stack
    finally:
        stack.close()


def run(stack: Stack, talk, path: str = "/", **more: object):
    async def main():
        async with asyncio.timeout(60):
            url = f"ws://127.0.0.1:{stack.ingress.port}{path}"
            async with connect(url, max_size=None, **more) as ws:
                return await talk(ws)

    return asyncio.run(main())


MESSAGES = ["", b"", "hello", b"\x00\xff", "caf\u00e9 \u65e5\u672c " * 100, os.urandom(65535),
            os.urandom(65536), "x" * (4 << 20)]


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_come_back(real, compression):
    async def talk(ws: ClientConnection):
        for message in MESSAGES:
            await ws.send(message)
            assert await ws.recv() == message

    run(real, talk, compression=compression)


def test_many_in_flight(real):
    async def talk(ws: ClientConnection):
        async def send():
            for i in range(2000):
                await ws.send(f"{i}")

        sender = asyncio.create_task(send())
        for i in range(2000):
            assert await ws.recv() == f"{i}"
        await sender

    run(real, talk)


def test_many_connections(real):
    async def main():
        async with asyncio.timeout(60):
            url = f"ws://127.0.0.1:{real.ingress.port}/"

            async def one(number: int):
                async with connect(url) as ws:
                    for i in range(5):
                        await ws.send(f"{number} {i}")
                        assert await ws.recv() == f"{number} {i}"

            await asyncio.gather(*(one(number) for number in range(100)))

    asyncio.run(main())


def test_a_subprotocol(real):
    async def talk(ws: ClientConnection):
        return ws.subprotocol

    assert run(real, talk, subprotocols=["v1", "v2"]) == "v2"


def test_the_servers_close(real):
    async def talk(ws: ClientConnection):
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        return ws.close_code, ws.close_reason

    assert run(real, talk, "/close") == (4000, "as asked")


def test_the_clients_close(real):
    async def talk(ws: ClientConnection):
        await ws.send("hello")
        assert await ws.recv() == "hello"
        await ws.close(4001, "mine")
        return ws.close_code, ws.close_reason

    assert run(real, talk) == (4001, "mine")


LAST = {"4001": close_frame(4001, b"mine"), "1005": close_frame(), "1006": b""}
# Those that tell 1005 and 1006 apart.
EXACT = {"websockets", "uvicorn-websockets-legacy", "node-ws"}


@pytest.mark.parametrize("code", LAST)
def test_the_code_that_the_server_sees(real, code):
    """1005: the client's close has none; 1006: the client has left without one.  Each server
    sees what it would without Porthole."""

    def seen(client: Client, path: str) -> str:
        with client:
            upgrade(client, path.encode())
            client.send(frame(TEXT, b"hello"))
            assert read_message(client) == (TEXT, b"hello")
            client.send(LAST[code])
        return real.shim.wait_log(rf"code of {path} (\w+)")[1]

    alone = seen(Client(("127.0.0.1", real.port)), f"/alone-{code}")
    assert seen(real.ingress.client(), f"/behind-{code}") == alone
    assert alone == code or real.kind not in EXACT


def test_a_refusal(real):
    async def talk(ws: ClientConnection):
        raise AssertionError("it was accepted")

    with pytest.raises(InvalidStatus) as refused:
        run(real, talk, "/refuse")
    assert refused.value.response.status_code == 403


def test_pings_of_the_client(real):
    async def talk(ws: ClientConnection):
        for _ in range(3):
            await (await ws.ping())

    run(real, talk)
