"""Node, with the packages of tests/e2e/package.json, and a browser that it drives."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from .places import ROOT
from .program import clean_environment

# scripts/test installs them there.
MODULES = ROOT / "node_modules"
SCRIPTS = ROOT / "tests/e2e/servers"
BROWSERS = ("chromium-headless-shell", "chromium")


def need_node() -> None:
    if not shutil.which("node"):
        pytest.skip("there is no node")
    if not (MODULES / "ws").is_dir():
        pytest.skip("node_modules is not there: scripts/test makes it")


def find_browser() -> str:
    need_node()
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    pytest.skip("there is no Chromium")


def node_environment() -> dict[str, str]:
    """For scripts that lie elsewhere."""
    return {"NODE_PATH": str(MODULES)}


def run_node(script: str, *args: str, seconds: float = 60.0) -> dict:
    """Runs one of SCRIPTS to its end.  Its last line is what it found, in JSON."""
    done = subprocess.run(["node", str(SCRIPTS / script), *args], timeout=seconds, text=True,
                          env=clean_environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stdout}"
    return json.loads(done.stdout.splitlines()[-1])
