"""Namespaces of this run's own, in which podman and everything that it starts lives.

A network namespace with loopback only, a mount namespace in which podman's folders of
state are private, and a process namespace whose end ends every container, whatever became
of the tests.  Nothing of it meets another podman of the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator, Sequence

from harness.deadline import wait_until
from harness.netns import Namespace
from harness.program import Program, clean_environment

NAME_PREFIX = "porthole-test-"
# Descriptors of podman and of what it runs; not everybody may raise a limit.
FILES_MAX = 4096
PROCESSES_MAX = 4096
COMMAND_S = 120.0
STOP_S = 30  # more than the shim's grace
CGROUPS = Path("/sys/fs/cgroup")
PODMAN_CGROUP = "libpod_parent"

# The first process of the namespaces.  It ignores SIGCHLD, so the kernel reaps what others
# left behind, and it ends when the tests close its input, also by dying.
INIT = """set -e
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
echo ready
trap '' CHLD
exec cat
"""

CONTAINERS_CONF = """[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
cgroups = "enabled"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
tmp_dir = "{folder}/libpod"
image_copy_tmp_dir = "{folder}/tmp"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""

STORAGE_CONF = """[storage]
driver = "{driver}"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
"""


class Missing(Exception):
    """The machine has no podman that works, and why."""


def command(*words: object, **more: object) -> str:
    """A command that must work; what it wrote to stdout."""
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=COMMAND_S,
                          **more)  # type: ignore[call-overload]
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def is_running(pid: str) -> bool:
    return Path("/proc", pid).exists()


def sweep() -> None:
    """Remove what runs that were killed left: names of network namespaces, folders, cgroups."""
    names = {path.name for folder in ("/run/netns", tempfile.gettempdir())
             for path in Path(folder).glob(NAME_PREFIX + "*")}
    names |= {path.name for path in CGROUPS.glob(f"*/{NAME_PREFIX}*")}
    names |= {path.name for path in CGROUPS.glob(NAME_PREFIX + "*")}
    for name in names:
        if not is_running(name[len(NAME_PREFIX):]):
            remove_traces(name)


def remove_traces(name: str) -> None:
    if Path("/run/netns", name).exists():
        command("ip", "netns", "delete", name)
    folder = Path(tempfile.gettempdir(), name)
    if folder.exists():
        shutil.rmtree(folder)
    for top in [*CGROUPS.glob(f"*/{name}"), *CGROUPS.glob(name)]:
        for path, _, _ in os.walk(top, topdown=False):
            # The kernel takes a moment to be done with a cgroup whose last process ended.
            wait_until(lambda: remove_cgroup(path), f"cgroup {path} is empty")
    # Where podman puts containers unless told otherwise: kept if another podman has some.
    for top in [*CGROUPS.glob(f"*/{PODMAN_CGROUP}"), *CGROUPS.glob(PODMAN_CGROUP)]:
        for path, _, _ in os.walk(top, topdown=False):
            remove_cgroup(path)


def remove_cgroup(path: str | Path) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


class Sandbox:
    """Made at the start of a run, closed at its end."""

    def __init__(self) -> None:
        self.name = NAME_PREFIX + str(os.getpid())
        self.folder = Path(tempfile.gettempdir(), self.name)
        self._inside = ExitStack()
        for program in ("podman", "runc", "conmon", "ip", "nsenter", "unshare", "mmdebstrap"):
            if not shutil.which(program):
                raise Missing(f"there is no {program}")
        if os.geteuid():
            raise Missing("only root can make the network namespace")
        sweep()
        self.folder.mkdir(mode=0o711)
        for name in ("tmp", "networks"):
            (self.folder / name).mkdir()
        try:
            self._start()
        except (AssertionError, OSError, RuntimeError) as error:
            self.close()
            raise Missing(str(error)) from None

    def _start(self) -> None:
        self.network = Namespace(self.name)
        self.init = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.name}", "unshare", "--mount", "--propagation",
             "private", "--pid", "--fork", "--kill-child", "sh", "-c", INIT],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment())
        assert self.init.stdout and self.init.stdout.readline() == b"ready\n", "no namespaces"
        self._configure("overlay" if self._has_overlay() else "vfs")
        self.podman("info")

    def _has_overlay(self) -> bool:
        return "\toverlay\n" in Path("/proc/filesystems").read_text()

    def _configure(self, driver: str) -> None:
        (self.folder / "containers.conf").write_text(CONTAINERS_CONF.format(
            folder=self.folder, files=FILES_MAX, processes=PROCESSES_MAX))
        (self.folder / "storage.conf").write_text(STORAGE_CONF.format(
            folder=self.folder, driver=driver))

    # ---- running things in it

    def environment(self) -> dict[str, str]:
        return clean_environment({
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "TMPDIR": str(self.folder / "tmp"),
        })

    def prefix(self) -> list[str]:
        """The words before a command that is to run in the namespaces."""
        parent = f"/proc/{self.init.pid}/ns"
        return ["nsenter", f"--net=/run/netns/{self.name}", f"--mount={parent}/mnt",
                f"--pid={parent}/pid_for_children", "prlimit", f"--nofile={FILES_MAX}:{FILES_MAX}"]

    def run(self, *words: object) -> str:
        return command(*self.prefix(), *words, env=self.environment())

    def podman(self, *words: object) -> str:
        return self.run("podman", *words)

    def enter_network(self) -> None:
        """This thread, and what it starts from now on, is in the network namespace."""
        self._inside.enter_context(self.network.inside())

    @contextmanager
    def at_home(self) -> Iterator[None]:
        """In the machine's own network again, for what comes from Debian's mirror."""
        self._inside.close()
        try:
            yield
        finally:
            self.enter_network()

    # ---- the end

    def close(self) -> None:
        self._inside.close()
        if hasattr(self, "init"):
            assert self.init.stdin
            self.init.stdin.close()
            self.init.wait(COMMAND_S)
        remove_traces(self.name)


class Container(Program):
    """One container, attached: its output is the log, its exit status the program's."""

    def __init__(self, sandbox: Sandbox, name: str, log_path: Path, image: str,
                 words: Sequence[object] = (), options: Sequence[object] = ()) -> None:
        self.sandbox = sandbox
        argv = [*sandbox.prefix(), "podman", "run", "--name", name, "--sig-proxy=false",
                "--pull=never", f"--cgroup-parent=/{sandbox.name}", *options, image, *words]
        self.container = name
        super().__init__(name, [str(word) for word in argv], log_path, sandbox.environment())

    def podman(self, verb: str, *words: object) -> str:
        return self.sandbox.podman(verb, *words, self.container)

    def execute(self, *words: object) -> str:
        return self.sandbox.podman("exec", self.container, *words)

    def succeeds(self, *words: object) -> bool:
        """Like execute, for what may not work yet."""
        try:
            self.execute(*words)
        except AssertionError:
            return False
        return True

    def address(self) -> str:
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.podman("inspect", "--format", form)

    def wait_registered(self, after: int = 0) -> "Container":
        self.wait_log(r'"msg":"registered"', after=after)
        return self

    def signal_children(self, signal: str) -> None:
        """A signal to what the container's first process started."""
        first = self.podman("inspect", "--format", "{{.State.Pid}}")
        children = self.sandbox.run("cat", f"/proc/{first}/task/{first}/children").split()
        assert children, f"{self.container} has started nothing"
        self.sandbox.run("kill", f"-{signal}", *children)

    def stop(self) -> None:
        """podman stop: SIGTERM, and a clean end within the shim's grace."""
        try:
            if not self._ended:
                self.podman("stop", "--time", STOP_S)
                self.expect_exit(0)
        finally:
            self.end_anyhow()

    def kill(self) -> None:
        self.podman("kill", "--signal", "KILL")
        self.expect_exit(137)

    def remove(self) -> None:
        self.podman("rm", "--force", "--time", 0, "--volumes", "--ignore")

    def end_anyhow(self) -> None:
        self.remove()
        super().end_anyhow()
