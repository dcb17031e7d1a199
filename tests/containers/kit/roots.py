"""Debian roots as tar files, made by mmdebstrap and kept in build/containers.

A root is made in memory where there is enough of it, in a mount namespace of its own: what
is mounted in the half-made root is not seen by whoever removes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.places import ROOT

CACHE = ROOT / "build" / "containers"
BOOTSTRAP_S = 600.0
MEMORY_FOLDER = "/dev/shm"
ROOT_BYTES = 2 << 30  # that a root may take while it is made
# What makes the tar smaller: nobody reads manuals in there.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def mirror() -> str:
    """Where this machine gets Debian from, as its apt has it."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(COMPONENT) $(RELEASE) $(SITE)",
         "Created-By: Packages"], check=True, capture_output=True, text=True).stdout
    for line in targets.splitlines():
        origin, component, release, site = line.split(maxsplit=3)
        if origin == "Debian" and component == "main" and "-" not in release:
            return site
    raise AssertionError(f"apt knows no Debian mirror:\n{targets}")


def debian_root(release: str, packages: list[str]) -> Path:
    """A tar of that Debian release with these packages beside apt and the essential ones."""
    argv = ["mmdebstrap", "--quiet", "--variant=apt", "--include=" + ",".join(packages),
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
            # Images are built without a network: apt in there is to have no sources.
            "--customize-hook=rm -f \"$1/etc/apt/sources.list\"",
            release]
    recipe = hashlib.sha256("\0".join(argv).encode()).hexdigest()[:16]
    path = CACHE / f"{release}-{recipe}.tar"
    if path.exists():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    for old in CACHE.glob(f"{release}-*"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="root-", dir=roomy_folder()) as folder:
        half = Path(folder, "root.tar")
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", *argv, half, mirror()],
            env={**os.environ, "TMPDIR": folder}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=BOOTSTRAP_S)
        assert done.returncode == 0, f"mmdebstrap: {done.returncode}\n{done.stdout}{done.stderr}"
        partial = path.with_suffix(f".{os.getpid()}")
        shutil.copy(half, partial)
        partial.rename(path)
    return path


def roomy_folder() -> str | None:
    """Where a root is made; None is the usual temporary folder."""
    try:
        return MEMORY_FOLDER if shutil.disk_usage(MEMORY_FOLDER).free > ROOT_BYTES else None
    except OSError:
        return None
