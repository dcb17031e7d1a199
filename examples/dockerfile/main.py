#!/usr/bin/env python3
"""An application as people have it: it knows nothing of Porthole.

    python3 main.py --listen 127.0.0.1 --port 8188
"""

import argparse
import http.server
import os


class Application(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections alive
    wbufsize = -1  # header and body leave in one piece

    def do_GET(self):
        text = f"Hello from {self.path}, process {os.getpid()}\n"
        body = text.encode("latin-1", "replace")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


words = argparse.ArgumentParser()
words.add_argument("--listen", default="127.0.0.1")
words.add_argument("--port", type=int, default=8188)
words = words.parse_args()
http.server.ThreadingHTTPServer((words.listen, words.port), Application).serve_forever()
