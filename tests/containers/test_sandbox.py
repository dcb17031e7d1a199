"""What the other tests stand on: it leaves nothing, whatever becomes of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness.deadline import wait_until
from harness.places import ROOT
from kit.sandbox import CGROUPS, Sandbox, sweep

HERE = Path(__file__).parent
A_RUN = """
import signal, sys
sys.path[:0] = sys.argv[1:]
from kit.sandbox import Sandbox
sandbox = Sandbox()
sandbox.podman("network", "create", "left")
print(sandbox.name, sandbox.init.pid, flush=True)
signal.pause()
"""


def traces(name: str) -> list[str]:
    places = [Path("/run/netns"), Path("/tmp"), CGROUPS, *CGROUPS.iterdir()]
    return [str(place / name) for place in places if (place / name).exists()]


def test_a_killed_run_is_swept_up_by_the_next(sandbox: Sandbox) -> None:
    run = subprocess.Popen([sys.executable, "-c", A_RUN, HERE, HERE.parent / "e2e"],
                           stdout=subprocess.PIPE, text=True)
    assert run.stdout
    name, init = run.stdout.readline().split()
    assert traces(name)
    run.kill()
    run.wait()
    run.stdout.close()
    wait_until(lambda: not Path("/proc", init).exists(), "its namespaces end with it")
    sweep()
    assert traces(name) == []
    assert traces(sandbox.name), "a run that lives is left alone"


def test_without_podman_it_says_so_and_skips() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", HERE / "test_runs_anywhere.py", "-k", "two_files", "-p",
         "no:cacheprovider", "--color=no"],
        cwd=ROOT, env={**os.environ, "PATH": "/nowhere"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "podman cannot be had: there is no podman" in done.stdout, done.stdout
    assert "1 skipped" in done.stdout, done.stdout
