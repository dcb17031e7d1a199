"""Real servers, each started by the shim as its command."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest

from harness import http
from harness.check import assert_answer
from harness.stack import Stack, free_port

FILE_BYTES = 1 << 20
CONTENT = bytes(range(256)) * (FILE_BYTES // 256)
INDEX = b"hello from a real server\n"

AIOHTTP = """
from aiohttp import web
import sys
files = {"/": open("index.html", "rb").read(), "/file.bin": open("file.bin", "rb").read()}
async def get(request):
    if request.path not in files:
        raise web.HTTPNotFound
    return web.Response(body=files[request.path])
async def post(request):
    return web.Response(body=await request.read())
app = web.Application(client_max_size=1 << 30)
app.add_routes([web.get("/{any:.*}", get), web.post("/{any:.*}", post)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
"""

ASGI = """
files = {"/": open("index.html", "rb").read(), "/file.bin": open("file.bin", "rb").read()}
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    status = 200
    if scope["method"] != "POST":
        body = files.get(scope["path"], b"")
        status = 200 if body else 404
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
"""

FLASK = """
from flask import Flask, request, send_file, abort
app = Flask(__name__)
@app.get("/")
def index():
    return open("index.html").read()
@app.get("/file.bin")
def file():
    return send_file("file.bin")
@app.post("/")
def echo():
    return request.get_data()
"""

NODE = """
const http = require('http'), fs = require('fs');
const files = {'/': fs.readFileSync('index.html'), '/file.bin': fs.readFileSync('file.bin')};
http.createServer((request, response) => {
  if (request.method === 'POST') { request.pipe(response); return; }
  const body = files[request.url];
  response.statusCode = body ? 200 : 404;
  response.setHeader('Content-Length', body ? body.length : 0);
  response.end(request.method === 'HEAD' ? undefined : body);
}).listen(+process.argv[2], '127.0.0.1');
"""

PHP = """<?php
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
if ($_SERVER['REQUEST_METHOD'] === 'POST') { echo file_get_contents('php://input'); return; }
if ($path === '/') { header('Content-Length: ' . filesize('index.html')); readfile('index.html'); return; }
if ($path === '/file.bin') { header('Content-Type: application/octet-stream'); readfile('file.bin'); return; }
http_response_code(404);
"""

NGINX = """
daemon off; master_process off; error_log stderr; pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; root {folder}; index index.html; }}
}}
"""

LIGHTTPD = """
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {port}
index-file.names = ( "index.html" )
"""


@dataclass
class Kind:
    """A server: what must be installed, its files, its command line."""

    needs: str
    command: Callable[[Path, int], list[str]]
    files: dict[str, str]
    posts: bool = True
    heads: bool = True


def python(*argv: str) -> list[str]:
    return [sys.executable, *argv]


KINDS = {
    "nginx": Kind("nginx", lambda folder, port: ["nginx", "-p", str(folder), "-c",
                                                 str(folder / "nginx.conf")],
                  {"nginx.conf": NGINX}, posts=False),
    "lighttpd": Kind("lighttpd", lambda folder, port: ["lighttpd", "-D", "-f",
                                                       str(folder / "lighttpd.conf")],
                     {"lighttpd.conf": LIGHTTPD}, posts=False),
    "busybox": Kind("busybox", lambda folder, port: ["busybox", "httpd", "-f", "-p",
                                                     f"127.0.0.1:{port}", "-h", str(folder)],
                    {}, posts=False),
    "python http.server": Kind("python", lambda folder, port: python(
        "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)),
        {}, posts=False),
    "aiohttp": Kind("aiohttp", lambda folder, port: python("app.py", str(port)), {"app.py": AIOHTTP}),
    "uvicorn": Kind("uvicorn", lambda folder, port: python(
        "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
        {"app.py": ASGI}),
    "gunicorn": Kind("gunicorn", lambda folder, port: python(
        "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", "app:app"), {"app.py": FLASK}),
    "node": Kind("node", lambda folder, port: ["node", "app.js", str(port)], {"app.js": NODE}),
    "php": Kind("php", lambda folder, port: ["php", "-S", f"127.0.0.1:{port}", "router.php"],
                {"router.php": PHP}),
}


def is_installed(name: str) -> bool:
    return (name == "python" or shutil.which(name, path="/usr/sbin:/usr/bin:/bin:/usr/local/bin")
            is not None or importlib.util.find_spec(name) is not None)


@pytest.fixture(scope="module", params=KINDS)
def real(request, tmp_path_factory):
    """An ingress, and a shim whose command is the server."""
    kind = KINDS[request.param]
    if not is_installed(kind.needs):
        pytest.skip(f"{kind.needs} is not installed")
    folder = tmp_path_factory.mktemp("real")
    folder.chmod(0o755)
    port = free_port()
    (folder / "index.html").write_bytes(INDEX)
    (folder / "file.bin").write_bytes(CONTENT)
    for name, text in kind.files.items():
        is_template = name.endswith(".conf")
        (folder / name).write_text(text.format(folder=folder, port=port) if is_template else text)
    stack = Stack(tmp_path_factory.mktemp("logs"))
    stack.kind = kind
    try:
        stack.ingress = stack.start_ingress()
        # The command runs in the server's folder.
        command = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder), *kind.command(folder, port)]
        stack.shim = stack.start_shim(stack.ingress, "--port", str(port), command=command, wait=False,
                                      env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/bin"})
        stack.shim.wait_registered(30)
        yield stack
    finally:
        stack.close()


def test_get(real):
    client = real.client()
    for _ in range(5):
        assert assert_answer(client.ask()).body == INDEX


def test_head(real):
    client = real.client()
    answer = client.ask("HEAD")
    assert answer.status == 200
    assert not answer.body
    assert client.ask().body == INDEX


def test_not_found(real):
    client = real.client()
    assert_answer(client.ask(target="/nothing/here"), 404)
    assert client.ask().body == INDEX


def test_download(real):
    answer = assert_answer(real.ask(target="/file.bin"))
    assert len(answer.body) == FILE_BYTES
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(CONTENT).digest()


ECHOING = [name for name, kind in KINDS.items() if kind.posts]
# php -S does not take chunked requests.
ECHOING_CHUNKED = [name for name in ECHOING if KINDS[name].needs != "php"]


@pytest.mark.parametrize("real", ECHOING, indirect=True, scope="module")
@pytest.mark.parametrize("size", [0, 1, 5000, 1 << 20])
def test_echo(real, size):
    data = CONTENT[:size]
    assert assert_answer(real.ask("POST", body=data)).body == data


@pytest.mark.parametrize("real", ECHOING_CHUNKED, indirect=True, scope="module")
def test_echo_chunked(real):
    client = real.client()
    client.send(http.request("POST", fields=[(b"Transfer-Encoding", b"chunked")])
                + http.chunked(CONTENT[:100], CONTENT[100:70_000]))
    assert assert_answer(client.read_response()).body == CONTENT[:70_000]


def test_many_at_once(real):
    clients = [real.client() for _ in range(20)]
    for client in clients:
        client.send(http.request(target="/file.bin"))
    for client in clients:
        assert hashlib.sha256(client.read_response(seconds=20).body).digest() == hashlib.sha256(
            CONTENT).digest()
