"""A server that starts in 50 ms: slow_start_server.py PORT

It accepts 50 ms after its process began, and answers every request with the time at which it
came, in seconds of CLOCK_MONOTONIC.  Made of little, since Python's own start counts."""

import os
import socket
import sys
import time

STARTS_IN_S = 0.050

with open("/proc/self/stat") as file:
    ticks = int(file.read().rpartition(")")[2].split()[19])
# The kernel counts from the boot in hundredths; what it has cut off is given back.
began = ticks / os.sysconf("SC_CLK_TCK") + time.clock_gettime(time.CLOCK_MONOTONIC) \
    - time.clock_gettime(time.CLOCK_BOOTTIME)
time.sleep(max(0.0, began + STARTS_IN_S - time.clock_gettime(time.CLOCK_MONOTONIC)))
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    data = conn.recv(65536)
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    if data:
        body = f"{now:.6f}"
        conn.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
                     f"Connection: close\r\n\r\n{body}".encode())
    conn.close()
