"""examples/dockerfile: one command builds it and runs it."""

from __future__ import annotations

import os
import re
import signal

from harness.check import assert_answer
from harness.client import Client
from harness.places import ROOT
from harness.program import Program, descendants
from harness.stack import Stack
from kit.sandbox import Sandbox

EXAMPLE = ROOT / "examples" / "dockerfile"
RUN_S = 50.0
THREE_LINES = re.compile(
    r"COPY --from=porthole /porthole-shim /porthole-shim\n"
    r'ENTRYPOINT \["/porthole-shim", "--"\]\n'
    r'CMD \["python3", "main.py", "--listen", "127.0.0.1", "--port", "8188"\]\n')


def test_one_command(sandbox: Sandbox, stack: Stack, debian_12: str) -> None:
    environment = {**sandbox.environment(), "PORT": "0", "BASE": debian_12}
    program = stack.add(Program("example", [*sandbox.prefix(), EXAMPLE / "run"],
                                stack.log_path("example"), environment))
    port = int(program.wait_log(r"answers at  http://localhost:(\d+)/", RUN_S)[1])
    with Client(("127.0.0.1", port)) as client:
        answer = assert_answer(client.ask("GET", "/some/path"))
    assert re.fullmatch(rb"Hello from /some/path, process \d+\n", answer.body), answer.body
    # nsenter waits for the script and passes no signal on.
    os.kill(descendants(program.pid)[0], signal.SIGINT)
    program.expect_exit(130, RUN_S)
    assert sandbox.podman("ps", "--all", "--quiet") == ""
    assert sandbox.run("ss", "--no-header", "--listening", "--tcp", f"sport = :{port}") == ""


def test_the_manual_shows_the_same_three_lines() -> None:
    text = (EXAMPLE / "Dockerfile").read_text()
    lines = THREE_LINES.search(text)
    assert lines, text
    assert lines[0] in (EXAMPLE / "README.md").read_text().replace("    ", "")
