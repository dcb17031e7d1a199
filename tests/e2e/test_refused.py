"""Refused: forms that two readers might understand differently never reach a server."""

from __future__ import annotations

import json

import pytest

from harness import http
from harness.check import assert_answer, assert_error
from harness.peer import Closed

HOST = b"Host: example.test\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: example.test\r\n\r\n"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"


def post(fields: bytes, body: bytes = b"abc", version: bytes = b"1.1") -> bytes:
    return b"POST /first HTTP/" + version + b"\r\n" + HOST + fields + b"\r\n" + body


def get(fields: bytes) -> bytes:
    return b"GET /first HTTP/1.1\r\n" + fields + b"\r\n"


FRAMING = {
    "length and chunked": post(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", CHUNKS),
    "chunked and length": post(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", CHUNKS),
    "length and identity": post(b"Content-Length: 3\r\nTransfer-Encoding: identity\r\n"),
    "two lengths": post(b"Content-Length: 3\r\nContent-Length: 4\r\n"),
    "two equal lengths": post(b"Content-Length: 3\r\nContent-Length: 3\r\n"),
    "a list of lengths": post(b"Content-Length: 3, 3\r\n"),
    "length +3": post(b"Content-Length: +3\r\n"),
    "length -1": post(b"Content-Length: -1\r\n"),
    "length 0x3": post(b"Content-Length: 0x3\r\n"),
    "length 3 3": post(b"Content-Length: 3 3\r\n"),
    "length 3.0": post(b"Content-Length: 3.0\r\n"),
    "length abc": post(b"Content-Length: abc\r\n"),
    "length empty": post(b"Content-Length:\r\n", b""),
    "length overflows": post(b"Content-Length: 18446744073709551617\r\n"),
    "length much too long": post(b"Content-Length: " + b"9" * 200 + b"\r\n"),
    "chunked on 1.0": post(b"Transfer-Encoding: chunked\r\n", CHUNKS, b"1.0"),
}

ENCODINGS = {
    "unknown": post(b"Transfer-Encoding: xchunked\r\n", CHUNKS),
    "identity": post(b"Transfer-Encoding: identity\r\n", b""),
    "gzip": post(b"Transfer-Encoding: gzip\r\n", b""),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked\r\n", CHUNKS),
    "chunked, gzip": post(b"Transfer-Encoding: chunked, gzip\r\n", CHUNKS),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked\r\n", CHUNKS),
    "two fields": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CHUNKS),
    "two fields, one unknown": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", CHUNKS),
    "quoted": post(b"Transfer-Encoding: \"chunked\"\r\n", CHUNKS),
    "with a parameter": post(b"Transfer-Encoding: chunked;a=b\r\n", CHUNKS),
    "with a control character": post(b"Transfer-Encoding: \x0bchunked\r\n", CHUNKS),
    "empty": post(b"Transfer-Encoding:\r\n", CHUNKS),
}

LINES = {
    "folded": get(HOST + b"X-A: b\r\n c\r\n"),
    "folded with a tab": get(HOST + b"X-A: b\r\n\tc\r\n"),
    "folded first line": get(b" X-A: b\r\n" + HOST),
    "folded transfer-encoding value": post(b"Transfer-Encoding:\r\n chunked\r\n", CHUNKS),
    "folded transfer-encoding name": post(b"Transfer-\r\n Encoding: chunked\r\n", CHUNKS),
    "folded into transfer-encoding": post(b"X-A: b\r\n Transfer-Encoding: chunked\r\n", CHUNKS),
    "folded into a length": post(b"X-A: b\r\n Content-Length: 3\r\n"),
    "bare LF": get(HOST + b"X-A: b\nX-B: c\r\n"),
    "bare LF after the request line": b"GET /first HTTP/1.1\n" + HOST + b"\r\n",
    "bare LF only": b"GET /first HTTP/1.1\nHost: example.test\n\n",
    "bare LF at the end": b"GET /first HTTP/1.1\r\n" + HOST + b"\n",
    "bare CR in a value": get(HOST + b"X-A: b\rX-B: c\r\n"),
    "bare CR in a name": get(HOST + b"X\rA: b\r\n"),
    "bare CR in the request line": b"GET /first\r HTTP/1.1\r\n" + HOST + b"\r\n",
    "CR CR LF": get(HOST + b"X-A: b\r\r\n"),
    "space before the colon": get(HOST + b"X-A : b\r\n"),
    "tab before the colon": get(HOST + b"X-A\t: b\r\n"),
    "transfer-encoding with a space": post(b"Transfer-Encoding : chunked\r\n", CHUNKS),
    "length with a space": post(b"Content-Length : 3\r\n"),
    "host with a space": get(b"Host : example.test\r\n"),
    "NUL in a value": get(HOST + b"X-A: b\0c\r\n"),
    "NUL in a name": get(HOST + b"X\0A: b\r\n"),
    "NUL in the target": b"GET /first\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in the method": b"G\0ET /first HTTP/1.1\r\n" + HOST + b"\r\n",
    "control in a value": get(HOST + b"X-A: b\x01c\r\n"),
    "DEL in a value": get(HOST + b"X-A: b\x7fc\r\n"),
    "no colon": get(HOST + b"X-A b\r\n"),
    "no name": get(HOST + b": b\r\n"),
    "space in a name": get(HOST + b"X A: b\r\n"),
    "parenthesis in a name": get(HOST + b"X(A): b\r\n"),
    "high byte in a name": get(HOST + b"X\xe9: b\r\n"),
}

HOSTS = {
    "none": b"GET /first HTTP/1.1\r\nX-A: b\r\n\r\n",
    "two": get(HOST + b"Host: other.test\r\n"),
    "two equal": get(HOST + HOST),
    "with a space": get(b"Host: a b\r\n"),
    "with a slash": get(b"Host: a/b\r\n"),
    "with user information": get(b"Host: user@a\r\n"),
    "with a bad port": get(b"Host: a:b\r\n"),
}

REQUEST_LINES = {
    "no version": b"GET /first\r\n" + HOST + b"\r\n",
    "HTTP/2.0": b"GET /first HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/3": b"GET /first HTTP/3\r\n" + HOST + b"\r\n",
    "lower case": b"GET /first http/1.1\r\n" + HOST + b"\r\n",
    "HTTP/1.1.1": b"GET /first HTTP/1.1.1\r\n" + HOST + b"\r\n",
    "HTTP/11": b"GET /first HTTP/11\r\n" + HOST + b"\r\n",
    "HTP": b"GET /first HTP/1.1\r\n" + HOST + b"\r\n",
    "two spaces": b"GET  /first HTTP/1.1\r\n" + HOST + b"\r\n",
    "two spaces before the version": b"GET /first  HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tab": b"GET\t/first HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space at the end": b"GET /first HTTP/1.1 \r\n" + HOST + b"\r\n",
    "a space in front": b" GET /first HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the target": b"GET /fir st HTTP/1.1\r\n" + HOST + b"\r\n",
    "no slash": b"GET first HTTP/1.1\r\n" + HOST + b"\r\n",
    "asterisk for GET": b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    "no token": b"G(ET /first HTTP/1.1\r\n" + HOST + b"\r\n",
    "high byte in the target": b"GET /\xe9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "nothing like it": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}

CHUNK_SIZES = {
    "no number": b"zz\r\nabc\r\n0\r\n\r\n", "negative": b"-3\r\nabc\r\n0\r\n\r\n",
    "plus": b"+3\r\nabc\r\n0\r\n\r\n", "0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "empty": b"\r\nabc\r\n0\r\n\r\n", "overflow": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "longer than said": b"3\r\nabcd\r\n0\r\n\r\n", "underscore": b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
}


def cases(table: dict[str, bytes]):
    return pytest.mark.parametrize("raw", table.values(), ids=table.keys())


def refused(shared, raw: bytes, *expected: tuple[int, str]) -> None:
    """One error, then the connection is closed; the server hears nothing of any of it."""
    client = shared.client()
    try:
        client.send(raw + SMUGGLED)
    except Closed:
        pass
    answer = client.read_response()
    code = (answer.get("Porthole-Error") or b"none").decode()
    assert (answer.status, code) in expected
    assert_error(answer, answer.status, code)
    assert client.expect_closed() == b"", "something was answered after the refusal"
    assert shared.servers[0].seen == b""


@cases(FRAMING)
def test_contradictory_framing(shared, raw):
    refused(shared, raw, (400, "bad_request"))


@cases(ENCODINGS)
def test_a_transfer_encoding_other_than_chunked(shared, raw):
    refused(shared, raw, (501, "not_implemented"), (400, "bad_request"))


def test_an_unknown_transfer_encoding_is_not_implemented(shared):
    refused(shared, ENCODINGS["unknown"], (501, "not_implemented"))
    refused(shared, ENCODINGS["gzip, chunked"], (501, "not_implemented"))


@cases(LINES)
def test_lines_that_are_no_fields(shared, raw):
    refused(shared, raw, (400, "bad_request"))


@cases(HOSTS)
def test_no_host_or_two(shared, raw):
    refused(shared, raw, (400, "bad_request"))


@cases(REQUEST_LINES)
def test_request_lines(shared, raw):
    refused(shared, raw, (400, "bad_request"))


@cases(CHUNK_SIZES)
def test_chunk_sizes(shared, raw):
    """The head is right, so the server may have been asked already: it never gets a whole
    body, and what follows is not taken for a request."""
    client = shared.client()
    try:
        client.send(http.request("POST", "/first", [(b"Transfer-Encoding", b"chunked")])
                    + raw + SMUGGLED)
    except Closed:
        pass
    rest = client.expect_closed()
    assert not rest or rest.startswith(b"HTTP/1.1 400 "), rest
    assert rest.count(b"HTTP/1.1 ") <= 1
    assert b"/smuggled" not in shared.servers[0].seen
    assert shared.servers[0].requests.empty()


REFUSED_WHOLE = {
    "an expectation": (b"POST / HTTP/1.1", b"Expect: an answer\r\nContent-Length: 1", 417),
    "a coding": (b"POST / HTTP/1.1", b"Transfer-Encoding: gzip", 501),
    "CONNECT": (b"CONNECT a.test:80 HTTP/1.1", b"X-A: b", 501),
    "framing": (b"POST / HTTP/1.1", b"Transfer-Encoding: chunked\r\nContent-Length: 1", 400),
}


@pytest.mark.parametrize("kind", REFUSED_WHOLE)
def test_a_head_that_was_read_is_refused_in_its_own_terms(shared, kind):
    """With the client's request id, in the form that it accepts."""
    line, fields, status = REFUSED_WHOLE[kind]
    client = shared.client()
    client.send(line + b"\r\nHost: a.test\r\nAccept: application/json\r\nX-Request-Id: mine-1\r\n"
                + fields + b"\r\n\r\n")
    answer = client.read_response()
    assert answer.status == status
    assert answer.get("X-Request-Id") == b"mine-1"
    assert answer.get("Content-Type") == b"application/json"
    assert json.loads(answer.body)["error"]
    assert client.expect_closed() == b""


@pytest.mark.parametrize("rest", [b"Host: a\r\nExpect: an answer\r\n\r\n", b"\r\n", b"Host : a\r\n\r\n"],
                         ids=["an expectation", "no host", "no field"])
def test_head_is_refused_without_a_body(shared, rest):
    client = shared.client()
    client.send(b"HEAD / HTTP/1.1\r\n" + rest)
    answer = client.read_response(b"HEAD")
    assert answer.status in (400, 417) and int(answer.get("Content-Length") or 0) > 0
    assert client.expect_closed() == b""


def test_connect_with_more_behind_it(shared):
    client = shared.client()
    client.send(b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n")
    assert_error(client.read_response(), 501, "not_implemented")
    assert shared.servers[0].seen == b""


def test_a_good_request_in_front_is_answered_first(shared):
    client = shared.client()
    client.send(http.request() + LINES["folded"] + SMUGGLED)
    assert_answer(client.read_response())
    assert_error(client.read_response(), 400, "bad_request")
    assert client.expect_closed() == b""
    assert b"/smuggled" not in shared.servers[0].seen


def test_a_bad_request_without_its_end_is_not_waited_for(shared):
    client = shared.client()
    client.send(b"\x16\x03\x01\r\n\r\n")
    assert_error(client.read_response(), 400, "bad_request")


def test_http_1_0_needs_no_host(shared):
    client = shared.client()
    client.send(b"GET /first HTTP/1.0\r\n\r\n")
    assert_answer(client.read_response())
