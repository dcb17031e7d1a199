"""A small HTTP server for shims to start: sample_server.py PORT|[ADDRESS]:PORT|unix:PATH [--after FILE]

Answers with its process id; /hang never answers, /eat takes memory until it is killed,
/exit/N ends with that status, /say/TEXT writes a line to standard error, /wait/FILE answers
when the file exists, /host answers with Host, /ready/FILE with 503 before the file exists.  With --after it listens only once the file exists.  Ends on SIGTERM, unless --ignore-term."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import sys
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one write: a server that is killed has answered or has not

    def do_GET(self) -> None:  # noqa: N802 - named by the base class
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/hang":
            print("sample server hangs", flush=True)
            threading.Event().wait()
        if self.path == "/eat":
            eaten = []
            while True:
                eaten.append(b"x" * (1 << 20))
        if self.path.startswith("/exit/"):
            os._exit(int(self.path.removeprefix("/exit/")))
        if self.path.startswith("/say/"):
            print(self.path.removeprefix("/say/"), file=sys.stderr, flush=True)
        while self.path.startswith("/wait/") and not os.path.exists(self.path.removeprefix("/wait")):
            time.sleep(0.005)
        body = str(os.getpid()).encode()
        if self.path == "/host":
            body = self.headers.get("Host").encode()
        unready = (self.path.startswith("/ready/")
                   and not os.path.exists(self.path.removeprefix("/ready")))
        self.send_response(503 if unready else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def listen(where: str) -> http.server.ThreadingHTTPServer:
    class Server(http.server.ThreadingHTTPServer):
        address_family = (socket.AF_UNIX if where.startswith("unix:") else
                          socket.AF_INET6 if where.startswith("[") else socket.AF_INET)

        def server_bind(self) -> None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(self.server_address)

        def get_request(self):
            connection, _ = self.socket.accept()
            return connection, ("client", 0)

    host, _, port = where.rpartition(":")
    address = where.removeprefix("unix:") if host == "unix" else (host.strip("[]") or "127.0.0.1", int(port))
    return Server(address, Handler)


def main() -> None:
    if "--ignore-term" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if "--after" in sys.argv:
        print("sample server waits", flush=True)
        path = sys.argv[sys.argv.index("--after") + 1]
        while not os.path.exists(path):
            time.sleep(0.01)
    server = listen(sys.argv[1])
    print("sample server listens", flush=True)
    server.serve_forever()


main()
