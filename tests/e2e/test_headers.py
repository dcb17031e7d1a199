"""Headers: order, duplicates, letter case and bytes; what is dropped, what is added."""

from __future__ import annotations

import re

import pytest

from harness import http
from harness.check import REQUEST_ID, assert_answer, assert_error
from harness.server import serve

ODD = [
    (b"X-One", b"1"), (b"x-two", b"2"), (b"X-ONE", b"3"), (b"X-Empty", b""), (b"x-TWO", b"2"),
    (b"X-High", bytes(range(0x80, 0x100))), (b"X-Tab", b"a\tb"), (b"X-Marks", b"\"a\", (b); c=d"),
    (b"X_Under.Score!#$%&'*+-^`|~", b"v"), (b"X-Long", b"l" * 3000),
]
CHUNKED = (b"Transfer-Encoding", b"chunked")


def received(shared, fields: http.Fields, **more: bytes) -> http.Request:
    assert_answer(shared.ask(fields=fields, **more))
    return shared.servers[0].next_request()


def answered(shared, fields: http.Fields, asked: http.Fields | None = None) -> http.Response:
    shared.servers[0].script(serve(lambda request, conn: http.reply(fields=fields, body=b"b")))
    return assert_answer(shared.ask(fields=asked))


# ---- kept

def test_request_headers_keep_order_duplicates_case_and_bytes(shared):
    assert received(shared, ODD).starting_with(b"x-o", b"x-t", b"x-e", b"x-h", b"x-m", b"x_", b"x-l") == ODD


def test_response_headers_keep_order_duplicates_case_and_bytes(shared):
    assert answered(shared, ODD).starting_with(
        b"x-o", b"x-t", b"x-e", b"x-h", b"x-m", b"x_", b"x-l") == ODD


def test_several_set_cookies_stay_several(shared):
    cookies = [(b"Set-Cookie", b"a=b; Expires=Thu, 01 Jan 1970 00:00:00 GMT"), (b"set-cookie", b"c=d"),
               (b"Set-Cookie", b"a=b")]
    assert answered(shared, cookies).starting_with(b"set-cookie") == cookies


def test_several_cookies_stay_several(shared):
    cookies = [(b"Cookie", b"a=b; c=d"), (b"cookie", b"e=f")]
    assert received(shared, cookies).starting_with(b"cookie") == cookies


def test_spaces_around_a_value_are_not_part_of_it(shared):
    client = shared.client()
    client.send(b"GET / HTTP/1.1\r\nHost:a\r\nX-A:b\r\nX-B:  \t c d \t \r\n\r\n")
    assert_answer(client.read_response())
    request = shared.servers[0].next_request()
    assert request.starting_with(b"x-a", b"x-b") == [(b"X-A", b"b"), (b"X-B", b"c d")]


def test_tracing_headers_pass_unchanged(shared):
    tracing = [(b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
               (b"tracestate", b"a=b,c=d"), (b"tracestate", b"e=f"), (b"baggage", b"k=v;p=q")]
    assert received(shared, tracing).starting_with(b"trace", b"baggage") == tracing


def test_the_servers_date_and_server_are_its_own(shared):
    own = [(b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"Server", b"scripted/1")]
    answer = answered(shared, own)
    assert answer.get("Date") == own[0][1]
    assert answer.get("Server") == own[1][1]


def test_a_hundred_fields_pass_both_ways(shared):
    many = [(b"X-%d" % i, b"%d" % i) for i in range(100)]
    answer = answered(shared, many, many)
    assert answer.starting_with(*(name.lower() for name, _ in many)) == many
    assert shared.servers[0].next_request().starting_with(
        *(name.lower() for name, _ in many)) == many


# ---- hop by hop

HOP_BY_HOP = [
    ([(b"Connection", b"x-a, X-B"), (b"X-A", b"1"), (b"x-b", b"2")], (b"connection", b"x-a", b"x-b")),
    ([(b"Connection", b"keep-alive"), (b"Connection", b"x-c"), (b"X-C", b"1"), (b"X-c", b"2")],
     (b"x-c",)),
    ([(b"Keep-Alive", b"timeout=5")], (b"keep-alive",)),
    ([(b"Proxy-Connection", b"keep-alive")], (b"proxy-connection",)),
    ([(b"Connection", b"Upgrade"), (b"Upgrade", b"h2c")], (b"upgrade",)),
]


@pytest.mark.parametrize("fields, dropped", HOP_BY_HOP)
def test_hop_by_hop_fields_of_a_request_are_dropped(shared, fields, dropped):
    request = received(shared, [*fields, (b"X-Kept", b"k")])
    assert [f for f in request.starting_with(*dropped) if f[0].lower() != b"connection"] == []
    assert not request.has_token("Connection", b"x-a")
    assert request.get("X-Kept") == b"k"


@pytest.mark.parametrize("fields, dropped", HOP_BY_HOP)
def test_hop_by_hop_fields_of_a_response_are_dropped(shared, fields, dropped):
    answer = answered(shared, [*fields, (b"X-Kept", b"k")])
    # Connection and Keep-Alive may be there again, said by the ingress itself.
    assert not [f for f in answer.starting_with(*dropped)
                if f[0].lower() not in (b"connection", b"keep-alive")]
    assert not answer.has_token("Connection", b"x-a")
    assert (b"Keep-Alive", b"timeout=5") not in answer.headers
    assert answer.get("X-Kept") == b"k"


def test_connection_cannot_take_the_framing_away(shared):
    assert_answer(shared.ask("POST", fields=[(b"Connection", b"content-length, host")], body=b"abc"))
    request = shared.servers[0].next_request()
    assert request.body == b"abc"
    assert request.get("Host") == b"example.test"


@pytest.mark.parametrize("te, passed", [
    (b"trailers", b"trailers"), (b"gzip", None), (b"trailers, deflate;q=0.5", b"trailers"),
    (b"Trailers", b"trailers"),
])
def test_of_te_only_trailers_goes_on(shared, te, passed):
    request = received(shared, [(b"TE", te), (b"Connection", b"TE")])
    assert (request.get("TE") or b"").lower() == (passed or b"")


# ---- trailers

def trailing_server(shared) -> None:
    shared.servers[0].script(serve(lambda request, conn: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        + http.chunked(b"body", trailers=[(b"X-Sum", b"1"), (b"x-other", b"2")]))))


def test_response_trailers_go_to_clients_that_take_them(shared):
    trailing_server(shared)
    answer = shared.ask(fields=[(b"TE", b"trailers"), (b"Connection", b"TE")])
    assert answer.body == b"body"
    assert answer.trailers == [(b"X-Sum", b"1"), (b"x-other", b"2")]


def test_response_trailers_do_not_go_to_others(shared):
    trailing_server(shared)
    answer = shared.ask()
    assert answer.body == b"body"
    assert answer.trailers == []


TAKES_TRAILERS = [(b"TE", b"trailers"), (b"Connection", b"TE")]


@pytest.mark.parametrize("size", [1, 5000, 3 << 20])
def test_trailers_behind_a_body_of_any_size(shared, size):
    """Whole at once, or as it comes; the connection goes on."""
    body = bytes(range(256)) * (size // 256 + 1)
    shared.servers[0].script(serve(lambda request, conn: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + http.chunked(body[:size // 2], body[size // 2:size], trailers=[(b"X-Sum", b"1"), (b"X-Empty", b"")]))))
    client = shared.client()
    for _ in range(2):
        answer = client.ask(fields=TAKES_TRAILERS)
        assert answer.body == body[:size]
        assert answer.trailers == [(b"X-Sum", b"1"), (b"X-Empty", b"")]


def test_trailers_that_come_later_than_the_body(shared):
    release = shared.servers[0].gate()

    def late(_request: http.Request, conn) -> None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + http.chunk(b"body"))
        assert release.wait(20)
        conn.send(b"0\r\nX-Sum: 1\r\n\r\n")

    shared.servers[0].script(serve(late))
    client = shared.client()
    client.send(http.request(fields=TAKES_TRAILERS))
    head = client.read_final_head()
    pieces = client.body_pieces(head)
    assert next(pieces) == b"body"
    release.set()
    assert list(pieces) == []
    assert head.trailers == [(b"X-Sum", b"1")]


def test_an_http_1_0_client_has_no_place_for_trailers(shared):
    trailing_server(shared)
    client = shared.client()
    client.send(http.request(version=b"HTTP/1.0", fields=TAKES_TRAILERS))
    answer = client.read_response()
    assert (answer.body, answer.chunked, answer.trailers) == (b"body", False, [])
    assert client.read_to_end() == b""


def test_the_answer_to_head_has_no_trailers(shared):
    shared.servers[0].script(serve(lambda request, conn: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        + (b"" if request.method == b"HEAD" else http.chunked(b"body", trailers=[(b"X-Sum", b"1")])))))
    client = shared.client()
    assert client.ask("HEAD", fields=TAKES_TRAILERS).trailers == []
    assert client.ask(fields=TAKES_TRAILERS).trailers == [(b"X-Sum", b"1")]


def test_trailers_of_both_at_once(shared):
    """Those of the request come back in those of the answer."""
    shared.servers[0].script(serve(lambda request, conn: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + http.chunked(request.body, trailers=request.trailers))))
    client = shared.client()
    trailers = [(b"X-Sum", b"1"), (b"x-sum", b"2"), (b"X-High", b"\xe9")]
    for _ in range(2):
        client.send(http.request("POST", fields=[CHUNKED, *TAKES_TRAILERS])
                    + http.chunked(b"body", trailers=trailers))
        answer = client.read_response()
        assert (answer.body, answer.trailers) == (b"body", trailers)


def test_request_trailers_over_the_limit_are_refused(shared):
    client = shared.client()
    client.send(http.request("POST", fields=[CHUNKED])
                + http.chunked(b"body", trailers=[(b"X-Sum", b"v" * 17000)]))
    assert_error(client.read_response(), 431, "header_too_large")


def test_request_trailers_reach_the_server(shared):
    client = shared.client()
    client.send(http.request("POST", fields=[CHUNKED, (b"Trailer", b"X-Sum")])
                + http.chunked(b"body", trailers=[(b"X-Sum", b"1"), (b"x-other", b"2")]))
    assert_answer(client.read_response())
    request = shared.servers[0].next_request()
    assert request.body == b"body"
    assert request.trailers == [(b"X-Sum", b"1"), (b"x-other", b"2")]


@pytest.mark.parametrize("name", [b"Content-Length", b"Transfer-Encoding", b"Host"])
def test_fields_that_route_or_frame_are_not_taken_from_trailers(shared, name):
    """The request is refused, or goes on without them."""
    client = shared.client()
    client.send(http.request("POST", fields=[CHUNKED])
                + http.chunked(b"body", trailers=[(name, b"3"), (b"X-Sum", b"1")]))
    if client.read_response().status != 200:
        assert shared.servers[0].requests.empty()
        return
    request = shared.servers[0].next_request()
    assert request.body == b"body"
    assert b"3" not in request.all(name)
    assert request.trailers == [(b"X-Sum", b"1")]


# ---- who the client is

FORGED = [(b"X-Forwarded-For", b"192.0.2.1"), (b"X-Forwarded-Proto", b"https"),
          (b"X-Forwarded-Host", b"forged.test"), (b"Forwarded", b"for=192.0.2.1"),
          (b"X-Real-IP", b"192.0.2.1")]


@pytest.mark.parametrize("fields", [[], FORGED, FORGED + FORGED], ids=["none", "forged", "twice"])
def test_forwarded_fields_of_strangers_are_replaced(shared, fields):
    request = received(shared, fields, host=b"me.test:81")
    assert request.get("X-Forwarded-For") == b"127.0.0.1"
    assert request.get("X-Forwarded-Proto") == b"http"
    assert request.get("X-Forwarded-Host") == b"me.test:81"
    assert request.get("Forwarded") is None
    assert request.get("X-Real-IP") is None


def test_forwarded_fields_of_trusted_proxies_are_kept(stack, server):
    stack.pair(server, ["--trusted-proxies", "192.0.2.0/24,127.0.0.0/8"])
    stack.ask(fields=FORGED)
    request = server.next_request()
    assert re.sub(rb"\s", b"", b",".join(request.all("X-Forwarded-For"))) == b"192.0.2.1,127.0.0.1"
    for name, value in FORGED[1:]:
        assert request.get(name) == value
    stack.ask()
    assert server.next_request().get("X-Forwarded-For") == b"127.0.0.1"


def test_a_proxy_outside_the_trusted_range_is_a_stranger(stack, server):
    stack.pair(server, ["--trusted-proxies", "192.0.2.0/24"])
    stack.ask(fields=FORGED)
    request = server.next_request()
    assert request.get("X-Forwarded-For") == b"127.0.0.1"
    assert request.get("X-Real-IP") is None


# ---- request ids

@pytest.mark.parametrize("value", [b"a", b"A.b_c-9", b"x" * 128])
def test_a_good_request_id_is_kept(shared, value):
    answer = shared.ask(fields=[(b"X-Request-Id", value)])
    assert answer.get("X-Request-Id") == value
    assert shared.servers[0].next_request().get("X-Request-Id") == value


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"a b", b"a/b", b"a\xe9", b"a,b"])
def test_a_bad_request_id_is_replaced(shared, value):
    answer = shared.ask(fields=[(b"X-Request-Id", value)])
    made = answer.get("X-Request-Id")
    assert made and made != value and REQUEST_ID.fullmatch(made)
    assert shared.servers[0].next_request().get("X-Request-Id") == made


def test_made_request_ids_differ(shared):
    ids = {shared.ask().get("X-Request-Id") for _ in range(20)}
    assert len(ids) == 20


def test_the_server_does_not_change_the_request_id(shared):
    answer = answered(shared, [(b"X-Request-Id", b"servers-own")], [(b"X-Request-Id", b"mine")])
    assert answer.get("X-Request-Id") == b"mine"


# ---- Porthole's own

def test_porthole_fields_of_a_client_are_dropped(shared):
    request = received(shared, [(b"Porthole-Function", b"x"), (b"pORTHOLE-Error", b"y"), (b"X-A", b"b")])
    assert request.starting_with(b"porthole-") == []
    assert request.get("X-A") == b"b"


def test_porthole_fields_of_a_server_are_dropped(shared):
    answer = answered(shared, [(b"Porthole-Error", b"busy"), (b"porthole-x", b"y"), (b"X-A", b"b")])
    assert answer.starting_with(b"porthole-") == []
    assert answer.get("X-A") == b"b"
