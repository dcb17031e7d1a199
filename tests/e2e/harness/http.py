"""HTTP/1.1 as bytes, read strictly: a harness that forgives would hide faults."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Fields = list[tuple[bytes, bytes]]

STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^ ]+) (HTTP/1\.[01])")
FIELD_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)[ \t]*")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[^\r\n]*)?")


class NotHttp(AssertionError):
    """The peer sent something that is not HTTP/1.1."""


class _Fields:
    headers: Fields

    def all(self, name: str | bytes) -> list[bytes]:
        wanted = (name.encode() if isinstance(name, str) else name).lower()
        return [value for key, value in self.headers if key.lower() == wanted]

    def get(self, name: str | bytes) -> bytes | None:
        """The one value of a field; a second one is an error."""
        values = self.all(name)
        assert len(values) <= 1, f"{name!r} came {len(values)} times: {values}"
        return values[0] if values else None

    def has_token(self, name: str, token: bytes) -> bool:
        return any(part.strip().lower() == token
                   for value in self.all(name) for part in value.split(b","))

    def starting_with(self, *prefixes: bytes) -> Fields:
        """The fields whose names start so, in order and in their letter case."""
        return [(k, v) for k, v in self.headers if k.lower().startswith(prefixes)]


@dataclass
class Request(_Fields):
    """A request as a server saw it."""

    method: bytes
    target: bytes
    version: bytes
    headers: Fields
    raw_head: bytes = b""
    body: bytes = b""
    trailers: Fields = field(default_factory=list)

    @property
    def chunked(self) -> bool:
        return self.has_token("Transfer-Encoding", b"chunked")


@dataclass
class Response(_Fields):
    """A response as a client saw it."""

    version: bytes
    status: int
    reason: bytes
    headers: Fields
    raw_head: bytes = b""
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    interim: list["Response"] = field(default_factory=list)

    @property
    def chunked(self) -> bool:
        return self.has_token("Transfer-Encoding", b"chunked")

    @property
    def content_length(self) -> int | None:
        value = self.get("Content-Length")
        if value is None:
            return None
        if not re.fullmatch(rb"[0-9]{1,19}", value):
            raise NotHttp(f"not a length: {value!r}")
        return int(value)

    def bodiless(self, method: bytes) -> bool:
        return method == b"HEAD" or self.status in (204, 304) or self.status < 200


def parse_fields(lines: list[bytes]) -> Fields:
    fields: Fields = []
    for line in lines:
        match = FIELD_LINE.fullmatch(line)
        if not match:
            raise NotHttp(f"not a field line: {line!r}")
        fields.append((match[1], match[2]))
    return fields


def _split_head(head: bytes) -> list[bytes]:
    assert head.endswith(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")
    for line in lines:
        if b"\r" in line or b"\n" in line:
            raise NotHttp(f"a bare CR or LF: {line!r}")
    return lines


def parse_request_head(head: bytes) -> Request:
    first, *rest = _split_head(head)
    match = REQUEST_LINE.fullmatch(first)
    if not match:
        raise NotHttp(f"not a request line: {first!r}")
    return Request(match[1], match[2], match[3], parse_fields(rest), head)


def parse_response_head(head: bytes) -> Response:
    first, *rest = _split_head(head)
    match = STATUS_LINE.fullmatch(first)
    if not match:
        raise NotHttp(f"not a status line: {first!r}")
    return Response(b"HTTP/1." + match[1], int(match[2]), match[3], parse_fields(rest), head)


def _lines(fields: Fields) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in fields)


def request(method: bytes | str = b"GET", target: bytes | str = b"/", fields: Fields | None = None,
            body: bytes | None = None, host: bytes | None = b"example.test",
            version: bytes = b"HTTP/1.1") -> bytes:
    """The bytes of a request; with a body, a Content-Length."""
    method = method.encode() if isinstance(method, str) else method
    target = target.encode() if isinstance(target, str) else target
    out = method + b" " + target + b" " + version + b"\r\n"
    if host is not None:
        out += b"Host: " + host + b"\r\n"
    out += _lines(fields or [])
    if body is not None:
        out += b"Content-Length: %d\r\n" % len(body)
    return out + b"\r\n" + (body or b"")


def reply(status: int = 200, fields: Fields | None = None, body: bytes = b"",
          reason: bytes = b"OK", version: bytes = b"HTTP/1.1") -> bytes:
    """The bytes of a response with a Content-Length."""
    return (version + b" %d " % status + reason + b"\r\n" + _lines(fields or [])
            + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


def chunked(*parts: bytes, trailers: Fields | None = None) -> bytes:
    """A whole chunked body; empty parts would end it and are left out."""
    return (b"".join(chunk(part) for part in parts if part)
            + b"0\r\n" + _lines(trailers or []) + b"\r\n")
