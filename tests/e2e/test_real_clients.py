"""Clients that people use: curl, Python's own, aiohttp, Node."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import shutil
import subprocess

import aiohttp
import pytest

from harness import http as wire
from harness.server import serve

BODY = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(BODY).hexdigest()

NODE = """
const http = require('http'), crypto = require('crypto');
const agent = new http.Agent({keepAlive: true, maxSockets: 1});
const ask = (method, body) => new Promise((resolve, reject) => {
  const request = http.request({host: '127.0.0.1', port: process.argv[1], method, agent}, answer => {
    const hash = crypto.createHash('sha256');
    answer.on('data', piece => hash.update(piece));
    answer.on('end', () => resolve([answer.statusCode, hash.digest('hex')]));
  });
  request.on('error', reject);
  request.end(body);
});
(async () => {
  const body = Buffer.alloc(1 << 20, Buffer.from(Array.from({length: 256}, (_, i) => i)));
  console.log(JSON.stringify([await ask('POST', body), await ask('GET'), await ask('PUT', body)]));
  agent.destroy();
})();
"""


@pytest.fixture
def echo(pair, server):
    """Answers a body with itself, and a request without one with BODY."""
    server.script(serve(lambda request, conn: wire.reply(body=request.body or BODY)))
    return pair.ingress.port


def curl(port: int, *words: str, data: bytes = b"") -> bytes:
    got = subprocess.run(["curl", "-sS", "--fail", "--max-time", "20", *words,
                          f"http://127.0.0.1:{port}/"], input=data, capture_output=True, check=False)
    assert got.returncode == 0, got.stderr
    return got.stdout


@pytest.mark.parametrize("words", [
    (), ("--http1.0",), ("-H", "Connection: close"), ("--compressed",),
], ids=["1.1", "1.0", "close", "compressed"])
def test_curl_downloads(echo, words):
    assert curl(echo, *words) == BODY


@pytest.mark.parametrize("words", [
    ("--data-binary", "@-"),
    ("-H", "Expect: 100-continue", "--data-binary", "@-"),
    ("-T", "-"),
    ("-T", "-", "-H", "Expect:"),
], ids=["length", "expect", "chunked", "chunked without expect"])
def test_curl_uploads(echo, words):
    assert curl(echo, *words, data=BODY) == BODY


def test_python_keeps_its_connection(echo):
    client = http.client.HTTPConnection("127.0.0.1", echo, timeout=20)
    for method, body in (("GET", None), ("POST", BODY), ("PUT", b"x"), ("HEAD", None), ("GET", None)):
        client.request(method, "/", body)
        answer = client.getresponse()
        assert answer.status == 200
        assert answer.read() == (b"" if method == "HEAD" else body or BODY)
        assert not answer.will_close
    client.close()


def test_aiohttp_asks_fifty_at_once(echo):
    async def ask() -> list[str]:
        async with aiohttp.ClientSession() as session:
            async def one(number: int) -> str:
                body = BODY if number % 2 else None
                async with session.request("POST" if body else "GET", f"http://127.0.0.1:{echo}/",
                                           data=body) as answer:
                    return hashlib.sha256(await answer.read()).hexdigest()
            return await asyncio.gather(*(one(number) for number in range(50)))

    assert asyncio.run(ask()) == [DIGEST] * 50


def test_node_keeps_its_connection(echo):
    assert shutil.which("node"), "scripts/test installs Node"
    got = subprocess.run(["node", "-e", NODE, str(echo)], capture_output=True, text=True, timeout=30,
                         check=False)
    assert got.returncode == 0, got.stderr
    assert got.stdout.strip() == str([[200, DIGEST]] * 3).replace("'", '"').replace(" ", "")
