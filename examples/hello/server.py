#!/usr/bin/env python3
"""hello: an HTTP server that knows nothing of Porthole.

Listens on 127.0.0.1, on the port in PORT or on any free one, and answers every GET with
the path and where it runs.  SIGTERM ends it."""

import http.server
import os
import signal
import socket
import sys


class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections alive
    wbufsize = -1  # header and body leave in one piece

    def do_GET(self):
        text = (f"Hello from {self.path}\n"
                f"container {socket.gethostname()}, process {os.getpid()}\n")
        body = text.encode("latin-1", "replace")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def end(*_):
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
server = Server(("127.0.0.1", int(os.environ.get("PORT") or 0)), Hello)
print(f"hello listens on http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
