"""A name server of the tests' own, and namespaces whose programs ask it and nobody else."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from pathlib import Path
from typing import Sequence

from .netns import Namespace

A, AAAA, IN = 1, 28, 1
NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME = 0, 2, 3
TTL_S = 0
BYTES_MAX = 512


def _name(data: bytes, at: int) -> tuple[str, int]:
    labels = []
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode())
        at += 1 + data[at]
    return ".".join(labels), at + 1


class Dns:
    """Answers over UDP on 127.0.0.1:53 of a namespace, from a table that a test may change.

    A name's value is a list of addresses; None: it does not answer at all."""

    def __init__(self, namespace: Namespace) -> None:
        self.names: dict[str, list[str] | None] = {}
        self.asked: list[tuple[str, int]] = []
        self.changed = threading.Condition()
        with namespace.inside():
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sock.bind(("127.0.0.1", 53))
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def set(self, name: str, *addresses: str) -> None:
        self.names[name] = list(addresses)

    def silence(self, name: str) -> None:
        self.names[name] = None

    def questions(self, name: str, kind: int = A) -> int:
        """How often it was asked."""
        with self.changed:
            return self.asked.count((name, kind))

    def wait_questions(self, name: str, count: int, seconds: float = 10.0) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.asked.count((name, A)) >= count, seconds), \
                f"{name} was asked for {self.asked.count((name, A))} times, not {count}"

    def _run(self) -> None:
        while not self._ending:
            data, peer = self.sock.recvfrom(BYTES_MAX)
            if len(data) > 12:
                answer = self._answer(data)
                if answer:
                    self.sock.sendto(answer, peer)

    def _answer(self, data: bytes) -> bytes | None:
        number, flags = struct.unpack("!HH", data[:4])
        name, at = _name(data, 12)
        kind, _ = struct.unpack("!HH", data[at:at + 4])
        addresses = self.names.get(name.lower(), [])
        code = NO_ERROR if name.lower() in self.names else NO_SUCH_NAME
        with self.changed:
            self.asked.append((name.lower(), kind))
            self.changed.notify_all()
        if addresses is None:
            return None
        parsed = [ipaddress.ip_address(address) for address in addresses]
        found = [p.packed for p in parsed if (p.version == 6) == (kind == AAAA)
                 and kind in (A, AAAA)]
        out = struct.pack("!HHHHHH", number, 0x8180 | (flags & 0x0100) | code, 1, len(found), 0, 0)
        out += data[12:at + 4]
        for packed in found:
            out += struct.pack("!HHHIH", 0xc00c, kind, IN, TTL_S, len(packed)) + packed
        return out

    def close(self) -> None:
        self._ending = True
        # a datagram that is too short for a question wakes it
        self.sock.sendto(b"", self.sock.getsockname())
        self._thread.join(5)
        self.sock.close()


def resolving_prefix(namespace: Namespace, folder: Path, hosts: str = "") -> Sequence[str]:
    """In front of a command: in the namespace, it finds names in `hosts`, a file's text, and
    then at the namespace's own server on 127.0.0.1.  Mounts are the command's alone."""
    folder.mkdir(exist_ok=True)
    (folder / "hosts").write_text(hosts)
    (folder / "resolv.conf").write_text(
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    script = ('mount --bind "$0/hosts" /etc/hosts && '
              'mount --bind "$0/resolv.conf" /etc/resolv.conf && exec "$@"')
    return (*namespace.prefix, "sh", "-c", script, str(folder))
