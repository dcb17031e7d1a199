"""scripts/demo, as whoever tries Porthole runs it: from nothing to one container and back."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess

import pytest

from harness.deadline import wait_until
from harness.places import ROOT
from harness.program import Program, descendants, is_alive
from harness.stack import SANITIZED

BUILDS_S = 300.0  # it builds what ships, unless that is built already


class Demo(Program):
    """In a session of its own, as in a terminal: Ctrl-C goes to all of its foreground."""

    def ctrl_c(self) -> None:
        os.killpg(self.pid, signal.SIGINT)

    def stop(self) -> None:
        if not self._ended:
            self.ctrl_c()
            self.wait_exit()


def folders() -> set[str]:
    return {path.name for path in (ROOT / "build").glob("demo.*")}


def run_printed(demo: Demo, pattern: str) -> str:
    """What the command prints that the demo tells its user to run."""
    command = demo.wait_log(rf"(?m)^ +(curl .*{pattern}.*)$")
    return subprocess.run([*shlex.split(command[1]), "-sS", "--max-time", "20"], check=True,
                          capture_output=True, text=True, timeout=30).stdout


@pytest.mark.timeout(BUILDS_S + 60)
@pytest.mark.skipif(SANITIZED, reason="it runs what it builds: what ships")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_demo(stack, number):
    before = folders()
    demo = stack.add(Demo("demo", ["setsid", str(ROOT / "scripts/demo")],
                          stack.log_path("demo"), {"PORT": "0", "IDLE": "700ms"}))
    demo.wait_log("Ctrl-C ends everything", BUILDS_S)
    assert "container launched" not in demo.log
    # The first request starts the container, a while without one stops it; its log says both.
    assert run_printed(demo, r"localhost:\d+/").startswith("Hello from /\ncontainer ")
    demo.wait_log(r'msg="container launched".* why=calls')
    assert '"containers_ready":1' in run_printed(demo, "/v1/functions/hello/scale")
    demo.wait_log(r'msg="container stopping".* why="it is not needed"')
    demo.wait_log(r'msg="container ended".* how="exited with status 0"')
    # And its end takes all of it along, also while a container runs.
    run_printed(demo, r"localhost:\d+/")
    below = descendants(demo.pid)
    assert len(below) >= 4  # the log's reader, the ingress, the shim, the server
    if number == signal.SIGINT:
        demo.ctrl_c()
        assert demo.wait_exit() == 130
        assert folders() <= before
    else:  # only what it has started ends then, not its folder
        demo.kill()
        for name in folders() - before:
            shutil.rmtree(ROOT / "build" / name)
    wait_until(lambda: not any(is_alive(pid) for pid in below), "nothing of it is left")
