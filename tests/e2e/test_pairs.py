"""Proxies of others in front of us, servers of others behind us: pipelines of every kind of request,
and every answer belongs to its request."""

from __future__ import annotations

import hashlib
import random
import sys
import threading
from dataclasses import dataclass
from typing import Iterator

import pytest

from harness import http, proxies
from harness.client import Client
from harness.peer import Address, Closed
from harness.server import serve
from harness.smuggling import bodies, sample
from harness.stack import Stack, free_port

SEED = 11
WORKERS, PIPELINES, LENGTH = 3, 6, 10

# Both read the path as /ID/KIND/BYTES and say which id, method and body they have seen.
NODE = r"""
const http = require('http'), crypto = require('crypto');
const pattern = (id, bytes) => Buffer.alloc(bytes, `<${id}>`);
http.createServer((request, response) => {
  const [, id, kind, bytes] = request.url.split('/');
  const hash = crypto.createHash('sha256');
  const answer = (seen) => {
    response.setHeader('X-Id', id);
    response.setHeader('X-Seen', `${request.method} ${seen}`);
    response.statusCode = {'none': 204, 'unchanged': 304}[kind] || 200;
    if (response.statusCode !== 200) { response.end(); return; }
    const body = pattern(id, +bytes);
    if (kind !== 'chunked') { response.setHeader('Content-Length', body.length); response.end(body); return; }
    for (let at = 0; at < body.length; at += 1000) response.write(body.subarray(at, at + 1000));
    response.end();
  };
  if (kind === 'early') { answer('early'); request.resume(); return; }
  request.on('data', (data) => hash.update(data));
  request.on('end', () => answer(hash.digest('hex')));
}).listen(+process.argv[2], '127.0.0.1');
"""

WSGI = """
import hashlib
def app(environ, start_response):
    _, id, kind, size = environ["PATH_INFO"].split("/")
    seen = "early"
    if kind != "early":
        seen = hashlib.sha256(environ["wsgi.input"].read()).hexdigest()
    text = f"<{id}>"
    body = (text * (int(size) // len(text) + 1))[:int(size)].encode()
    fields = [("X-Id", id), ("X-Seen", environ["REQUEST_METHOD"] + " " + seen)]
    status = {"none": "204 No Content", "unchanged": "304 Not Modified"}.get(kind, "200 OK")
    if kind in ("length", "early"):
        fields.append(("Content-Length", str(len(body))))
    start_response(status, fields)
    if status != "200 OK" or environ["REQUEST_METHOD"] == "HEAD":
        return []
    if kind == "chunked":
        return (body[at:at + 1000] for at in range(0, len(body), 1000))
    return [body]
"""

SERVERS = {
    "node": ("app.js", NODE, lambda port: ["node", "app.js", str(port)]),
    "gunicorn": ("app.py", WSGI, lambda port: [
        sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "8", "--keep-alive", "30",
        "-b", f"127.0.0.1:{port}", "app:app"]),
}
FRONTS = ["nothing", *proxies.PROXIES]


@dataclass
class Asked:
    """One request of a pipeline, and what must come back."""

    id: str
    method: bytes
    kind: str
    down: int
    body: bytes
    raw: bytes
    answered: threading.Event

    def check(self, answer: http.Response) -> None:
        what = (self, answer.raw_head, answer.body[:100])
        assert answer.status == {"none": 204, "unchanged": 304}.get(self.kind, 200), what
        assert answer.get("X-Id") == self.id.encode(), what
        seen = "early" if self.kind == "early" else hashlib.sha256(self.body).hexdigest()
        assert answer.get("X-Seen") == self.method + b" " + seen.encode(), what
        if answer.bodiless(self.method):
            assert answer.body == b"", what
        else:
            text = f"<{self.id}>".encode()
            expected = (text * (self.down // len(text) + 1))[:self.down]
            assert hashlib.sha256(answer.body).digest() == hashlib.sha256(expected).digest(), what

    def __repr__(self) -> str:
        return f"<{self.method.decode()} {self.id} {self.kind} {len(self.body)} up {self.down} down>"


def make(rng: random.Random, id: str) -> Asked:
    method = rng.choice([b"GET", b"GET", b"HEAD", b"POST", b"POST", b"PUT", b"DELETE"])
    kind = rng.choice(["length", "length", "chunked", "chunked", "none", "unchanged", "early"])
    if kind == "unchanged":
        method = rng.choice([b"GET", b"HEAD"])  # nothing else is 304
    down = rng.choice([0, 1, 17, 1000, rng.randrange(20_000)])
    up = rng.choice([0, 1, 100, rng.randrange(20_000)]) if method in (b"POST", b"PUT") else 0
    body = rng.randbytes(up)
    target = f"/{id}/{kind}/{down}"
    if not up:
        raw = http.request(method, target, body=b"" if method in (b"POST", b"PUT") else None)
    elif rng.random() < 0.5:
        raw = http.request(method, target, body=body)
    else:
        parts = [body[at:at + 3000] for at in range(0, up, 3000)]
        raw = http.request(method, target, [(b"Transfer-Encoding", b"chunked")]) + http.chunked(*parts)
    return Asked(id, method, kind, down, body, raw, threading.Event())


def pieces(rng: random.Random, data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = rng.choice([1, 10, 500, 5000, len(data)])
        yield data[at:at + size]
        at += size


def send_all(client: Client, rng: random.Random, pipeline: list[Asked]) -> None:
    """One behind the other; the end of a body that nobody waits for comes after its answer."""
    held = b""
    try:
        for asked in pipeline:
            early = asked.kind == "early" and len(asked.body) > 100
            split = len(asked.raw) - 50 if early else len(asked.raw)
            for piece in pieces(rng, held + asked.raw[:split]):
                client.sock.sendall(piece)
            held = asked.raw[split:]
            assert not early or asked.answered.wait(20)
        client.sock.sendall(held)
    except OSError:
        pass  # closed: the answers tell


def read_answers(client: Client, rest: list[Asked]) -> bool:
    """Takes what is answered off the list, in order; False: the connection has ended."""
    last = None
    while rest:
        try:
            answer = client.read_response(rest[0].method, 20)
        except Closed:
            # nginx does so, without a word, where an answer has overtaken its request.
            assert last and last.kind == "early" and not client.buffer, (last, rest[0])
            return False
        last = rest[0]
        last.check(answer)
        rest.pop(0).answered.set()
        if answer.has_token("Connection", b"close"):
            return False
    return True


def ask_pipeline(address: Address, rng: random.Random, pipeline: list[Asked]) -> None:
    """All at once.  Where an answer closes the connection, the rest is asked on another one."""
    rest = list(pipeline)
    while rest:
        with Client(address) as client:
            sender = threading.Thread(target=send_all, daemon=True,
                                      args=(client, random.Random(rng.random()), list(rest)))
            sender.start()
            if read_answers(client, rest):
                sender.join(10)
                assert not sender.is_alive() and client.sock_peek() == b""


@pytest.fixture(scope="module", params=SERVERS)
def behind(request, tmp_path_factory):
    """An ingress and a shim with that server as its command; no call of it fails."""
    name, text, command = SERVERS[request.param]
    if request.param == "node" and not proxies.find("node"):
        pytest.skip("node is not installed")
    folder, port = tmp_path_factory.mktemp("app"), free_port()
    (folder / name).write_text(text)
    stack = Stack(tmp_path_factory.mktemp("logs"))
    try:
        stack.ingress = stack.start_ingress()
        stack.shim = stack.start_shim(
            stack.ingress, "--port", str(port), wait=False,
            command=["sh", "-c", 'cd "$0" && exec "$@"', str(folder), *command(port)])
        stack.shim.wait_registered(30)
        stack.shim.wait_log(r'msg="?ready"?', 30)
        yield stack
    finally:
        stack.close()


def address_of(stack: Stack, front: str) -> Address:
    if front == "nothing":
        return stack.ingress.address
    if not proxies.find(front):
        pytest.skip(f"{front} is not installed")
    return proxies.start_proxy(stack, front)


@pytest.mark.parametrize("front", FRONTS)
def test_each_answer_belongs_to_its_request(behind, front):
    address = address_of(behind, front)
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        rng = random.Random(SEED * 100 + worker)
        try:
            for number in range(PIPELINES):
                ask_pipeline(address, rng, [make(rng, f"{front}-{worker}-{number}-{i}")
                                            for i in range(LENGTH)])
        except BaseException as error:  # noqa: BLE001: raised by the test
            failures.append(error)

    workers = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(WORKERS)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join(50)
        assert not thread.is_alive(), "a pipeline hangs"
    if failures:
        raise failures[0]


def answers_of(client: Client) -> list[bytes]:
    """What each answer says that it is to, until the proxy closes; an error is to b""."""
    told = []
    while not client.ended:
        try:
            answer = client.read_response()
        except Closed:
            break
        assert answer.status == 200 or 400 <= answer.status < 502, answer.raw_head
        told.append(answer.get("X-Target") or b"")
    return told


@pytest.mark.parametrize("front", proxies.PROXIES)
def test_we_see_the_requests_that_a_proxy_sees(stack, server, front):
    """The forms of tests/e2e/test_smuggling.py, some of which a proxy forgives or forwards as they are.
    The connections to us are shared: a request that only we see would get the next one's answer."""
    stack.pair(server)
    address = address_of(stack, front)
    taken: list[bytes] = []

    def keep(request: http.Request, _conn) -> bytes:
        taken.append(request.target)
        return http.reply(fields=[(b"X-Target", request.target)], body=b"taken")

    server.script(serve(keep))
    told: list[bytes] = []
    for number, form in enumerate(sample()):
        name = b"%d" % number
        for target, body in bodies(name).items():
            with Client(address) as client:
                client.send(b"POST " + target + b" HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n" % len(body)
                            + form + b"\r\n\r\n" + body
                            + http.request(target=b"/end/" + name, fields=[(b"Connection", b"close")]))
                answers = answers_of(client)
            # The hidden one is there where the proxy itself has read chunks.
            expected = iter([target, b"/hidden/" + name, b"/end/" + name])
            assert answers and all(one in expected for one in filter(None, answers)), (form, answers)
            told += filter(None, answers)
    assert any(target.startswith(b"/late/") for target in told), "the proxy let nothing through"
    assert sorted(taken) == sorted(told)
