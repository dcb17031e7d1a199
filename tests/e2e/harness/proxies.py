"""Proxies that others wrote, in front of an ingress: few connections to it, used again and again."""

from __future__ import annotations

import shutil
import signal
import socket

from .deadline import wait_until
from .peer import Address
from .program import Program
from .stack import Stack, free_port

NGINX = """
daemon off; master_process off; error_log stderr warn; pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_max_body_size 0;
  upstream ingress {{ server 127.0.0.1:{upstream}; keepalive 2; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://ingress; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off; proxy_buffering off; proxy_next_upstream off;
    }}
  }}
}}
"""

HAPROXY = """
global
  maxconn 256
defaults
  mode http
  retries 0
  timeout connect 10s
  timeout client 30s
  timeout server 30s
frontend front
  bind 127.0.0.1:{port}
  default_backend ingress
backend ingress
  http-reuse always
  server ingress 127.0.0.1:{upstream}
"""

PROXIES = {
    "nginx": (NGINX, lambda path, conf, folder: [path, "-p", folder, "-c", conf]),
    "haproxy": (HAPROXY, lambda path, conf, _folder: [path, "-db", "-f", conf]),
}


class Proxy(Program):
    """Ends by SIGTERM, of which some die."""

    def stop(self) -> None:
        self.signal(signal.SIGTERM)
        code = self.wait_exit()
        assert code in (0, -signal.SIGTERM), f"{self.name} ended with {code}:\n{self.log}"


def find(name: str) -> str | None:
    return shutil.which(name, path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin")


def accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 1).close()
        return True
    except OSError:
        return False


def start_proxy(stack: Stack, name: str) -> Address:
    """Where it listens.  It ends with the stack, clean."""
    text, command = PROXIES[name]
    path, port = find(name), free_port()
    assert path, f"{name} is not installed"
    folder = stack.folder / f"{name}-{port}"
    folder.mkdir()
    conf = folder / "conf"
    conf.write_text(text.format(folder=folder, port=port, upstream=stack.ingress.port))
    program = Proxy(name, command(path, str(conf), str(folder)), stack.log_path(name))
    stack.add(program)
    wait_until(lambda: program.process.poll() is not None or accepts(("127.0.0.1", port)),
               f"{name} listens")
    assert program.process.poll() is None, program.log
    return "127.0.0.1", port
