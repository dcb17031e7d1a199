"""Servers as the shim's command, of every kind that people have: their port is found, a call
that is running survives SIGTERM, and all of their processes end."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import http, settings
from harness.check import assert_answer, assert_error
from harness.deadline import wait_until
from harness.program import descendants
from harness.stack import free_port

SAMPLE = [sys.executable, str(Path(__file__).parent / "servers" / "sample_server.py")]
PATH = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/bin"}

ASGI = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    if scope["path"] == "/slow":
        print("begins slow")
        await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""

WSGI = """
import time
def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        print("begins slow")
        time.sleep(1)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""

FLASK = """
import sys, time
from flask import Flask
app = Flask(__name__)
@app.route("/", methods=["GET", "POST"])
@app.route("/<path:path>", methods=["GET", "POST"])
def any(path=""):
    if path == "slow":
        print("begins slow")
        time.sleep(1)
    return "ok"
app.run(host="127.0.0.1", port=int(sys.argv[1]))
"""

NODE = """
const server = require("http").createServer((request, response) => {
  request.resume();
  if (request.url === "/slow") console.log("begins slow");
  setTimeout(() => response.end("ok"), request.url === "/slow" ? 1000 : 0);
});
server.listen(Number(process.argv[2]), "127.0.0.1");
"""

NGINX = """
worker_processes 2;
daemon {daemon};
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 "ok"; }}
    location /slow {{ limit_rate 1; root {folder}; }}
  }}
}}
"""


def python(*argv: object) -> list[str]:
    return [sys.executable, *map(str, argv)]


def nginx(folder: Path, port: int, daemon: str = "off") -> list[str]:
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, daemon=daemon))
    return ["nginx", "-c", str(folder / "nginx.conf")]


SERVERS = {
    "uvicorn": lambda folder, port: python(
        "-m", "uvicorn", "asgi:app", "--port", port, "--log-level", "warning"),
    "uvicorn, workers": lambda folder, port: python(
        "-m", "uvicorn", "asgi:app", "--port", port, "--workers", 2, "--log-level", "warning"),
    "gunicorn": lambda folder, port: python("-m", "gunicorn", "-w", 2, "-b", f"127.0.0.1:{port}", "wsgi:app"),
    "flask": lambda folder, port: python("flask_app.py", port),
    "node": lambda folder, port: ["node", "app.js", str(port)],
    "nginx": nginx,
    "a script that forks": lambda folder, port: [
        "sh", "-c", f"{' '.join(SAMPLE)} {port} & wait $!; exit $?"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    for name, text in (("asgi.py", ASGI), ("wsgi.py", WSGI), ("flask_app.py", FLASK), ("app.js", NODE)):
        (tmp_path / name).write_text(text)
    return tmp_path


def start(stack, command: list[str], *flags: str, folder: Path | None = None, wait: bool = True):
    """The command in its folder; its port is found unless the flags say it."""
    stack.ingress = stack.start_ingress()
    inside = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder)] if folder else []
    stack.shim = stack.start_shim(stack.ingress, *settings.grace(20), *flags, env=PATH, wait=False,
                                  command=[*inside, *command])
    if wait:
        stack.shim.wait_log("msg=ready", 30)
        stack.shim.wait_registered()
    return stack


def ok(answer: http.Response) -> http.Response:
    assert answer.status == 200, (answer.raw_head, answer.body)
    return answer


@pytest.mark.parametrize("name", SERVERS)
def test_its_port_is_found_and_it_is_ended_after_its_last_call(stack, folder, name):
    port = free_port()
    start(stack, SERVERS[name](folder, port), folder=folder)
    assert f"port={port}" in stack.shim.log
    ok(stack.ask(target="/"))
    everybody = descendants(stack.shim.pid)
    if name not in ("nginx", "a script that forks"):
        client = stack.client()
        client.send(http.request("POST", "/slow", body=b"x"))
        stack.shim.wait_log("begins slow")
        stack.shim.signal(signal.SIGTERM)
        assert "calls=1" in stack.shim.wait_log("draining.*")[0]
        assert ok(client.read_response()).body == b"ok"
    else:
        stack.shim.signal(signal.SIGTERM)
    stack.shim.expect_exit(0, 15)
    assert not [pid for pid in everybody if Path(f"/proc/{pid}").exists()]


def test_a_server_that_closes_idle_connections_early(stack, folder):
    """gunicorn's threads close after 2 s.  Requests that come just then are not lost."""
    port = free_port()
    start(stack, python("-m", "gunicorn", "-k", "gthread", "--threads", 4, "-w", 1, "--keep-alive", 2,
                        "-b", f"127.0.0.1:{port}", "wsgi:app"), "--port", str(port), folder=folder)
    for method in ("GET", "POST") * 2:
        ok(stack.ask(method, "/", body=b"x" if method == "POST" else None))
        threading.Event().wait(1.995)  # when it closes: what is tested
    ok(stack.ask("POST", "/", body=b"x"))


def test_a_worker_of_nginx_that_dies_is_replaced(stack, folder):
    port = free_port()
    start(stack, nginx(folder, port), folder=folder)
    before = descendants(stack.shim.pid)
    assert len(before) == 3
    os.kill(before[1], signal.SIGKILL)
    wait_until(lambda: len(set(descendants(stack.shim.pid)) - {before[1]}) == 3, "another one")
    for _ in range(10):
        ok(stack.ask(target="/"))


def test_a_server_that_goes_into_the_background(stack, folder):
    """nginx as Debian has it: the shim says what is wrong, and leaves nothing behind."""
    port = free_port()
    start(stack, nginx(folder, port, daemon="on"), "--port", str(port), folder=folder, wait=False)
    stack.shim.expect_exit(0)
    assert "processes that the command left were killed" in stack.shim.log
    assert not (folder / "pid").exists() or not Path(f"/proc/{(folder / 'pid').read_text().strip()}").exists()


def test_only_on_ipv6(stack):
    port = free_port()
    start(stack, [*SAMPLE, f"[::1]:{port}"], "--port", str(port))
    assert f"server=[::1]:{port}" in stack.shim.log
    assert_answer(stack.ask())
    stack.shim.stop()
    start(stack, [*SAMPLE, f"[::1]:{port}"])  # found
    assert_answer(stack.ask())


def test_only_on_a_unix_socket(stack, tmp_path):
    path = tmp_path / "socket"
    start(stack, [*SAMPLE, f"unix:{path}"], "--port", f"unix:{path}")
    assert_answer(stack.ask())


@pytest.mark.parametrize("seconds", [5.5, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("found, words", [(True, "waiting for the command to listen"),
                                          (False, "waiting for the server to accept")])
def test_a_server_that_takes_its_time(stack, seconds, found, words):
    """A call is held for it meanwhile, and the log goes on."""
    port = free_port()
    start(stack, ["sh", "-c", f"sleep {seconds}; exec {' '.join(SAMPLE)} {port}"],
          *([] if found else ["--port", str(port)]), wait=False)
    stack.ingress.wait_log("container starting")
    client = stack.client()
    client.send(http.request("POST", "/", body=b"x"))
    assert_answer(client.read_response(seconds=seconds + 10))
    waited = [int(n) for n in re.findall(f'{words}" seconds=(\\d+)', stack.shim.log)]
    assert waited == list(range(5, int(seconds) + 1, 5))[:len(waited)] and waited


def test_a_server_that_never_listens(stack):
    start(stack, ["sleep", "1000"], "--startup-timeout", "1", wait=False)
    stack.shim.expect_exit(1)
    assert re.search("did not accept in time.*seconds=1", stack.shim.log)


def test_a_server_that_ignores_sigterm(stack):
    port = free_port()
    start(stack, [*SAMPLE, str(port), "--ignore-term"], *settings.grace(1))
    pid = int(assert_answer(stack.ask()).body)
    begin = time.monotonic()
    stack.shim.signal(signal.SIGTERM)
    stack.shim.expect_exit(0)
    assert 0.9 < time.monotonic() - begin < 5
    assert not Path(f"/proc/{pid}").exists()


def test_the_last_five_seconds_of_the_grace_are_the_commands(stack):
    """A call that does not end is cut off before."""
    port = free_port()
    start(stack, [*SAMPLE, str(port)], *settings.grace(6))
    client = stack.client()
    client.send(http.request("POST", "/hang", body=b"x"))
    stack.shim.wait_log("sample server hangs")
    begin = time.monotonic()
    stack.shim.signal(signal.SIGTERM)
    assert_error(client.read_response(), 502, "container_lost")
    stack.shim.expect_exit(0)
    assert 0.9 < time.monotonic() - begin < 4
    assert "calls are cut off" in stack.shim.log


def test_the_command_has_what_the_drain_leaves_of_the_grace(stack):
    """No call is in flight: more than the last 5 s, which are always the command's."""
    start(stack, ["sh", "-c", "trap 'sleep 5.5; echo finished; exit 0' TERM; echo up; "
                  "while :; do sleep 0.02; done"], *settings.grace(30), wait=False)
    stack.shim.wait_log("up")
    stack.ingress.wait_log("container starting")
    stack.shim.signal(signal.SIGTERM)
    stack.shim.expect_exit(0, 20)
    assert "finished" in stack.shim.log


def test_port_is_in_the_environment_when_it_is_given(stack):
    port = free_port()
    start(stack, ["sh", "-c", f'exec {" ".join(SAMPLE)} "$PORT"'], "--port", str(port))
    assert_answer(stack.ask())


def test_the_last_answer_of_a_server_that_ends(stack, folder):
    """What a server said before it ended still arrives."""
    (folder / "last.py").write_text("""
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    if b"\\r\\n\\r\\n" in connection.recv(65536):
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nlast")
        os._exit(7)
""")
    port = free_port()
    start(stack, python("last.py", port), "--port", str(port), folder=folder)
    assert ok(stack.ask()).body == b"last"
    stack.shim.expect_exit(7)
