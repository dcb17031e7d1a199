"""A raw HTTP client: it sends what a test says and reads answers strictly."""

from __future__ import annotations

from typing import Callable, Iterator

from . import http
from .http import Fields, Response
from .peer import Address, Peer, dial


class Client(Peer):
    """One connection to an ingress."""

    def __init__(self, address: Address) -> None:
        super().__init__(dial(address))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_head(self, seconds: float | None = None) -> Response:
        """The next head, interim ones too."""
        return http.parse_response_head(self.read_until(b"\r\n\r\n", seconds))

    def read_final_head(self, seconds: float | None = None) -> Response:
        interim = []
        while (head := self.read_head(seconds)).status < 200:
            interim.append(head)
        head.interim = interim
        return head

    def body_pieces(self, head: Response, method: bytes = b"GET",
                    seconds: float | None = None) -> Iterator[bytes]:
        """The body as its framing has it, in the pieces in which it came."""
        assert not (head.chunked and head.content_length is not None), head.raw_head
        if head.bodiless(method):
            return iter(())
        if head.chunked:
            return self.pieces_chunked(head.trailers, seconds)
        if head.content_length is not None:
            return self.pieces_by_length(head.content_length, seconds)
        return self.pieces_to_end(seconds)

    def read_response(self, method: bytes = b"GET", seconds: float | None = None) -> Response:
        assert isinstance(method, bytes), method
        head = self.read_final_head(seconds)
        head.body = b"".join(self.body_pieces(head, method, seconds))
        return head

    def ask(self, method: bytes | str = b"GET", target: bytes | str = b"/",
            fields: Fields | None = None, body: bytes | None = None,
            seconds: float | None = None, **more: bytes | None) -> Response:
        """One whole exchange."""
        self.send(http.request(method, target, fields, body, **more), seconds)
        method = method.encode() if isinstance(method, str) else method
        return self.read_response(method, seconds)

    def feed_body(self, head: Response, take: Callable[[bytes], object],
                  seconds: float | None = None) -> int:
        """Hand a body to `take` piece by piece; returns its length."""
        total = 0
        for piece in self.body_pieces(head, seconds=seconds):
            take(piece)
            total += len(piece)
        return total
