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
from harness.server import serve, serve_heads

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


# ---- curl: answers that come early, interim ones, trailers

GIB = 1 << 30


@pytest.fixture
def gib(tmp_path):
    """A file of holes."""
    path = tmp_path / "gib"
    with path.open("wb") as file:
        file.truncate(GIB)
    return path


@pytest.mark.parametrize("status", [401, 413])
@pytest.mark.parametrize("how", ["length", "chunked", "expect"])
def test_curl_sees_a_refusal_of_its_upload(pair, server, gib, how, status):
    """In the middle of a GiB, or before its first byte."""

    def refuse(request: wire.Request, conn) -> None:
        pieces = conn.body_pieces(request)
        if how != "expect":
            next(pieces)  # it is under way
        conn.send(wire.reply(status, body=b"no", reason=b"No", fields=[(b"Connection", b"close")]))
        conn.close()

    server.script(serve_heads(refuse))
    words = {"length": ["-T", str(gib), "-H", "Expect:"], "chunked": ["-T", "-", "-H", "Expect:"],
             "expect": ["-T", str(gib)]}[how]
    with gib.open("rb") as stdin:
        got = subprocess.run(["curl", "-sS", "--max-time", "30", *words, "-w", " %{http_code} %{size_upload}",
                              f"http://127.0.0.1:{pair.ingress.port}/"], stdin=stdin,
                             capture_output=True, check=False)
    assert got.returncode == 0, got.stderr
    body, code, uploaded = got.stdout.split(b" ")
    assert (body, int(code)) == (b"no", status)
    assert int(uploaded) < (1 if how == "expect" else 64 << 20)


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_curl_reads_while_it_sends(pair, server, tmp_path, how):
    """More comes back, as it goes up, than all buffers on the way hold."""

    def echo_pieces(request: wire.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in conn.body_pieces(request):
            conn.send(wire.chunk(piece))
        conn.send(b"0\r\n\r\n")

    server.script(serve_heads(echo_pieces))
    up, down = tmp_path / "up", tmp_path / "down"
    up.write_bytes(BODY * 64)
    with up.open("rb") as stdin:
        subprocess.run(["curl", "-sS", "--fail", "--max-time", "30", "-H", "Expect:", "-o", str(down),
                        "-T", str(up) if how == "length" else "-",
                        f"http://127.0.0.1:{pair.ingress.port}/"], stdin=stdin, check=True)
    assert down.read_bytes() == BODY * 64


@pytest.mark.parametrize("version, interim", [("--http1.1", 2), ("--http1.0", 0)])
def test_curl_shows_interim_answers(pair, server, version, interim):
    server.script(serve(lambda request, conn: (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        + wire.reply(body=b"page"))))
    heads = curl(pair.ingress.port, "-i", version).split(b"\r\n\r\n")
    statuses = [int(head.split(b" ")[1]) for head in heads[:-1]]
    assert (statuses, heads[-1]) == ([103, 102, 200][-1 - interim:], b"page")


@pytest.mark.parametrize("asks", [True, False])
def test_curl_gets_trailers_if_it_asks(pair, server, tmp_path, asks):
    server.script(serve(lambda request, conn: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        + wire.chunked(b"body", trailers=[(b"X-Sum", (request.get("TE") or b"none"))]))))
    heads = tmp_path / "heads"
    words = ["-H", "TE: trailers"] if asks else []
    assert curl(pair.ingress.port, "-D", str(heads), *words) == b"body"
    assert heads.read_bytes().endswith(b"\r\n\r\nX-Sum: trailers\r\n" if asks else b"\r\n\r\n"), \
        heads.read_bytes()


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
