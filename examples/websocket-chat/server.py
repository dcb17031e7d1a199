#!/usr/bin/env python3
"""A chat in one room: a page, and a WebSocket to it.  It knows nothing of Porthole.

    python3 server.py --port 8000

What a browser sends and gets are JSON objects: {"name": …, "text": …}, and what was said
before it came.  A picture is a binary message, and goes to everybody as it is.
"""

import argparse
import asyncio
import collections
import json
import pathlib

from aiohttp import WSCloseCode, WSMsgType, web

PAGE = pathlib.Path(__file__).with_name("page.html")
MESSAGE_BYTES_MAX = 1 << 20
TEXT_LENGTH_MAX = 2000
NAME_LENGTH_MAX = 40
HISTORY_MAX = 100  # lines that whoever comes is shown
BEHIND_MAX = 100  # messages that somebody may be behind, who reads slowly


class Guest:
    """Somebody in the room, who is written to at their own pace."""

    def __init__(self, request, ws):
        self.request = request
        self.ws = ws
        self.waiting = asyncio.Queue(BEHIND_MAX + HISTORY_MAX)

    def tell(self, message):
        try:
            self.waiting.put_nowait(message)
        except asyncio.QueueFull:  # they read too slowly, or not at all
            if self.request.transport:
                self.request.transport.abort()

    async def write(self):
        while True:
            message = await self.waiting.get()
            if isinstance(message, str):
                await self.ws.send_str(message)
            else:
                await self.ws.send_bytes(message)


class Room:
    def __init__(self):
        self.guests = set()
        self.history = collections.deque(maxlen=HISTORY_MAX)

    def say(self, name, text):
        line = json.dumps({"name": name, "text": text})
        self.history.append(line)
        self.show(line)

    def show(self, message):
        for guest in self.guests:
            guest.tell(message)

    def hear(self, message):
        """What a guest sent.  Nonsense is passed over."""
        if message.type == WSMsgType.BINARY:
            self.show(message.data)
            return
        try:
            said = json.loads(message.data)
            name, text = str(said["name"]).strip(), str(said["text"]).strip()
        except (ValueError, KeyError, TypeError):
            return
        if name and text:
            self.say(name[:NAME_LENGTH_MAX], text[:TEXT_LENGTH_MAX])

    async def visit(self, request):
        ws = web.WebSocketResponse(max_msg_size=MESSAGE_BYTES_MAX)
        await ws.prepare(request)
        guest = Guest(request, ws)
        for line in self.history:
            guest.tell(line)
        self.guests.add(guest)
        writer = asyncio.create_task(guest.write())
        try:
            async for message in ws:
                self.hear(message)
        finally:
            self.guests.discard(guest)
            writer.cancel()
        return ws

    async def close(self, _):
        """The server ends: the page comes back by itself."""
        for guest in list(self.guests):
            await guest.ws.close(code=WSCloseCode.SERVICE_RESTART, message=b"back soon")


async def page(_):
    return web.FileResponse(PAGE)


words = argparse.ArgumentParser()
words.add_argument("--port", type=int, default=8000)
words = words.parse_args()
room = Room()
app = web.Application()
app.add_routes([web.get("/", page), web.get("/chat", room.visit)])
app.on_shutdown.append(room.close)
web.run_app(app, host="127.0.0.1", port=words.port, print=None)
