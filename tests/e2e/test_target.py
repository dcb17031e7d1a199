"""Targets: byte for byte, whatever they look like."""

from __future__ import annotations

import pytest

from harness.check import assert_answer

ORIGIN = [
    "/", "/a", "/a/b", "/a?b", "/a?", "/?", "/??", "/a?b?c", "/a?b=c&d=e&b=f", "/a%2Fb", "/a%2fb",
    "/%20", "/a%20b?c%20d", "/a+b?c+d", "//", "//a", "/a//b", "///a///", "/a/", "/./a", "/../a",
    "/a/../b", "/a/./b", "/a;b", "/a;b=c/d;e?f;g", "/%ff%fe", "/%C3%A9", "/%00", "/%", "/%zz", "/%2",
    "/a:b@c", "/a,b", "/~a!$&'()*", "/[a]", "/a|b", "/a^b`c{d}", "/a\\b", "/a\"b", "/<a>",
    "/http://other.test/a", "/a?http://other.test/", "/?a&a&a&a", "/" + "a" * 4000,
    "/?" + "a=b&" * 1000, "/?" + "a&" * 2000,
]


@pytest.mark.parametrize("target", ORIGIN, ids=lambda target: target[:24])
def test_origin_form_is_passed_byte_for_byte(shared, target):
    assert_answer(shared.ask(target=target))
    assert shared.servers[0].next_request().target == target.encode()


@pytest.mark.parametrize("target, origin, host", [
    ("http://a.test/b?c", "/b?c", "a.test"),
    ("http://a.test:81/b", "/b", "a.test:81"),
    ("http://a.test/", "/", "a.test"),
    ("http://a.test", "/", "a.test"),
    ("http://a.test?q", "/?q", "a.test"),
    ("HTTP://A.test/%2F?", "/%2F?", "A.test"),
    ("http://[::1]:81/b", "/b", "[::1]:81"),
])
def test_absolute_form_becomes_origin_form_and_host(shared, target, origin, host):
    assert_answer(shared.ask(target=target, host=b"other.test"))
    request = shared.servers[0].next_request()
    assert request.target == origin.encode()
    assert request.get("Host") == host.encode()


def test_asterisk_form_of_options(shared):
    assert_answer(shared.ask("OPTIONS", "*"))
    assert shared.servers[0].next_request().target == b"*"


def test_host_is_passed_as_it_came(shared):
    assert_answer(shared.ask(host=b"Example.TEST:8080"))
    assert shared.servers[0].next_request().get("Host") == b"Example.TEST:8080"
