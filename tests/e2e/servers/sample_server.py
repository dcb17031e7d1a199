"""A small HTTP server for shims to start: sample_server.py PORT [--after FILE]

Answers with its process id; /hang never answers.  With --after it listens only once the
file exists.  Ends on SIGTERM."""

from __future__ import annotations

import http.server
import os
import signal
import sys
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802 - named by the base class
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/hang":
            threading.Event().wait()
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if "--after" in sys.argv:
        print("sample server waits", flush=True)
        path = sys.argv[sys.argv.index("--after") + 1]
        while not os.path.exists(path):
            time.sleep(0.01)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print("sample server listens", flush=True)
    server.serve_forever()


main()
