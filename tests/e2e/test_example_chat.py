"""examples/websocket-chat, as whoever tries it runs it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import urllib.request
from typing import Iterator

import pytest
from websockets.asyncio.client import ClientConnection, connect

from harness.deadline import wait_until
from harness.node import find_browser, run_node
from harness.places import ROOT
from harness.program import Program, descendants, is_alive
from harness.stack import SANITIZED

BUILDS_S = 300.0  # it builds what ships, unless that is built already

pytestmark = [pytest.mark.timeout(BUILDS_S + 60),
              pytest.mark.skipif(SANITIZED, reason="it runs what it builds: what ships")]


@pytest.fixture
def chat(stack) -> Iterator[Program]:
    program = stack.run("chat", [str(ROOT / "examples/websocket-chat/run")],
                        {"PORT": "0", "VENV": sys.prefix})
    ready = program.wait_log(r"msg=ready listen=\S+:(\d+)", BUILDS_S)
    program.base = f"localhost:{ready[1]}"
    yield program


async def say(ws: ClientConnection, name: str, text: str) -> None:
    await ws.send(json.dumps({"name": name, "text": text}))


async def hear(ws: ClientConnection) -> tuple[str, str]:
    said = json.loads(await ws.recv())
    return said["name"], said["text"]


def test_the_page(chat):
    with urllib.request.urlopen(f"http://{chat.base}/", timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/html")
        assert b"new WebSocket(url)" in answer.read()
    chat.wait_log(r'msg="container launched".* why=calls')
    below = descendants(chat.pid)
    assert len(below) >= 2  # the shim, the server
    chat.signal(signal.SIGINT)
    chat.expect_exit(0)
    wait_until(lambda: not any(is_alive(pid) for pid in below), "nothing of it is left")


def test_two_guests_and_one_who_comes_later(chat):
    async def talk():
        url = f"ws://{chat.base}/chat"
        async with asyncio.timeout(30), connect(url) as ann, connect(url) as ben:
            await say(ann, "Ann", "hello")
            assert await hear(ann) == await hear(ben) == ("Ann", "hello")
            await ben.send("no JSON")
            await ben.send(json.dumps({"name": "Ben"}))
            await say(ben, "  ", "no name")
            await say(ben, "Ben" * 100, "<b>caf\u00e9</b>" + "x" * 3000)
            name, text = await hear(ann)
            assert (name, len(text)) == (("Ben" * 100)[:40], 2000) and text.startswith("<b>caf\u00e9</b>")
            assert await hear(ben) == (name, text)
            await ann.send(b"\x89PNG")
            assert await ann.recv() == await ben.recv() == b"\x89PNG"
            async with connect(url) as eve:
                assert [await hear(eve), await hear(eve)] == [("Ann", "hello"), (name, text)]

    asyncio.run(talk())


def test_two_windows_of_a_browser(chat):
    found = run_node("browser.js", find_browser(), "chat", f"http://{chat.base}/")
    assert found == {"line": "Ann<i>hello</i>", "width": 1}


def test_its_end_is_told(chat):
    async def talk():
        async with asyncio.timeout(30), connect(f"ws://{chat.base}/chat") as ann:
            await say(ann, "Ann", "hello")
            await hear(ann)
            chat.signal(signal.SIGTERM)
            await ann.wait_closed()
            return ann.close_code

    assert asyncio.run(talk()) == 1012
    chat.expect_exit(0)
