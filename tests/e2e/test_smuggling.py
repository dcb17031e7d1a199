"""Two requests in one: forms of Transfer-Encoding beside a Content-Length, with a request in the
body that only a reader who takes the other framing would see.  Every form is judged byte by byte in
tests/unit/smuggling_test.c; here a part of them goes through both programs."""

from __future__ import annotations

import re

import pytest

from harness import http
from harness.server import serve
from harness.smuggling import bodies, sample

LOOKS_LIKE_IT = re.compile(rb"transfer[\x00-\x20\x7f-\xff_-]*encoding", re.I)


def ask(stack, target: bytes, fields: bytes, body: bytes) -> http.Response:
    """The answer to the first request; whatever comes behind it is read too."""
    with stack.client() as client:
        client.send(b"POST " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + fields
                    + b"\r\n" + body)
        answer = client.read_response()
        assert client.expect_closed() == b"", (fields, answer.raw_head)
        return answer


@pytest.mark.parametrize("order", ["before", "after"])
def test_no_form_hides_a_request(shared, order):
    """Refused, or one request with the body that its length says."""
    taken: dict[bytes, http.Request] = {}

    def keep(request: http.Request, _conn) -> bytes:
        assert request.target not in taken, request.target
        taken[request.target] = request
        return http.reply(body=b"taken")

    shared.servers[0].script(serve(keep))
    sent = {}
    for number, form in enumerate(sample()):
        for target, body in bodies(b"%d" % number).items():
            length = b"Content-Length: %d\r\n" % len(body)
            fields = length + form + b"\r\n" if order == "before" else form + b"\r\n" + length
            answer = ask(shared, target, fields, body)
            assert answer.status in (200, 400, 501), (form, answer.raw_head)
            if answer.status == 200:
                sent[target] = (form, body)
    assert taken.keys() == sent.keys()
    for target, (form, body) in sent.items():
        request = taken[target]
        assert request.body == body and not request.chunked, form
        assert request.get("Content-Length") == b"%d" % len(body)
        for line in request.raw_head.split(b"\r\n"):
            assert line.startswith(b"X:") or not LOOKS_LIKE_IT.search(line), (form, line)
    # Content-Encoding, Connection, and X with a byte that a value may have.
    assert {form[:2] for form, _ in sent.values()} == {b"Co", b"X:"}


def test_a_form_without_a_length_is_chunked_to_everybody_or_refused(shared):
    shared.servers[0].script(serve(lambda request, conn: http.reply(
        body=b"chunked " + request.body if request.chunked else b"no body")))
    for form in sample():
        answer = ask(shared, b"/", form + b"\r\n", b"4\r\nbody\r\n0\r\n\r\n")
        plain = re.fullmatch(rb"Transfer-Encoding:[ \t]*chunked[ \t]*(\r\nX: X)?|X: X\r\nTransfer-Encoding: chunked",
                             form, re.I)
        if plain:
            assert (answer.status, answer.body) == (200, b"chunked body"), form
        elif answer.status == 200:
            assert answer.body == b"no body" and not form.lower().startswith(b"transfer"), form
        else:
            assert answer.status in (400, 501), form
