"""What the programs of this folder have in common: rounds with wrk, figures, headings."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from programs import Failed, Group, Programs

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
REFERENCE = "two nginx hops"

# wrk calls done() at the end; requests are made once, so the script costs nothing.
WRK = """\
wrk.method = "%(method)s"
if %(upload)d > 0 then
    wrk.body = string.rep("x", %(upload)d)
    wrk.headers["Content-Type"] = "application/octet-stream"
end
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        "\\nRESULT {\\"requests\\":%%d,\\"bytes\\":%%.0f,\\"us\\":%%d,"
        .. "\\"p50\\":%%d,\\"p99\\":%%d,\\"errors\\":%%d}\\n",
        summary.requests, summary.bytes, summary.duration,
        latency:percentile(50), latency:percentile(99),
        e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass
class Scenario:
    """One kind of request, at one number of connections."""

    kind: str  # what is named on the command line
    title: str
    connections: int
    target: str
    download: int = 0  # bytes of the answer's body
    upload: int = 0  # bytes of the request's body
    message: int = 0  # bytes of a WebSocket's message, which is sent back

    @property
    def bytes(self) -> int:
        return max(self.download, self.upload)

    @property
    def big(self) -> bool:
        """Bytes count, not requests."""
        return self.bytes >= 64 * 1024

    @property
    def large(self) -> bool:
        """nginx with larger buffers is worth a look."""
        return max(self.bytes, self.message) >= 64 * 1024


@dataclass
class Sample:
    """One round of one candidate."""

    rate: float  # requests a second
    p50_us: float
    p99_us: float
    cpu_us: float  # of the candidate, per request
    errors: int


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Wrk:
    """One wrk, with one thread, until it is told to stop."""

    def __init__(self, programs: Programs, group: Group, scenario: Scenario) -> None:
        self.what = f"{group.name}, {scenario.title}"
        script = programs.temp / f"wrk-{scenario.kind}-{scenario.upload}.lua"
        script.write_text(WRK % {"method": "POST" if scenario.upload else "GET",
                                 "upload": scenario.upload})
        # It counts whole seconds only; told to stop it reports what it has until then.
        self.process = subprocess.Popen(
            ["wrk", "-t1", f"-c{scenario.connections}", "-d1h", "--timeout", "10s",
             "-s", str(script), f"http://127.0.0.1:{group.port}{scenario.target}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )

    def stop(self) -> dict[str, int]:
        """requests, bytes, us, p50, p99, errors."""
        try:
            self.process.send_signal(signal.SIGINT)
            text, _ = self.process.communicate(timeout=20)
        finally:
            self.kill()
        lines = [x for x in text.splitlines() if x.startswith("RESULT ")]
        if not lines:
            raise Failed(f"wrk: {text}")
        return json.loads(lines[-1][len("RESULT "):])

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def run_client(programs: Programs, name: str, group: Group, connections: int, what: object,
               seconds: float) -> dict[str, float]:
    """echo_client.c or request_client.c: requests, us, p50, p99, errors, and more."""
    done = subprocess.run(
        [programs.compiled(name), str(group.port), str(connections), str(what), str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds + 60)
    lines = [x for x in done.stdout.splitlines() if x.startswith("RESULT ")]
    if done.returncode or not lines:
        raise Failed(f"{group.name}: {done.stdout}")
    return json.loads(lines[-1][len("RESULT "):])


def run_echo(programs: Programs, scenario: Scenario, group: Group,
             seconds: float) -> dict[str, float]:
    return run_client(programs, "echo_client", group, scenario.connections, scenario.message,
                      seconds)


def run_wrk(programs: Programs, scenario: Scenario, group: Group,
            seconds: float) -> dict[str, float]:
    wrk = Wrk(programs, group, scenario)
    try:
        time.sleep(seconds)
        return wrk.stop()
    finally:
        wrk.kill()


def run_round(programs: Programs, scenario: Scenario, group: Group, seconds: float) -> Sample:
    before = group.cpu_us()
    run = run_echo if scenario.message else run_wrk
    r = run(programs, scenario, group, seconds)
    cpu = group.cpu_us() - before
    if not r["requests"]:
        raise Failed(f"{group.name}: no answer in {seconds} s ({scenario.title})")
    return Sample(r["requests"] * 1e6 / r["us"], r["p50"], r["p99"],
                  cpu / r["requests"], r["errors"])


class Machine:
    """Whether anybody else was using the CPUs meanwhile."""

    def __init__(self, groups: list[Group]) -> None:
        self.groups = groups
        self.start = self._read()

    def _read(self) -> tuple[float, float, float, float]:
        ticks = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        hz = os.sysconf("SC_CLK_TCK")
        user, nice, system, idle, iowait, irq, softirq, steal = (t / hz for t in ticks)
        ours = sum(g.cpu_us() for g in self.groups) / 1e6
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            ours += usage.ru_utime + usage.ru_stime
        busy = user + nice + system + irq + softirq
        return busy, busy + idle + iowait + steal, steal, ours

    def shares(self) -> tuple[float, float]:
        busy, total, steal, ours = (b - a for a, b in zip(self.start, self._read()))
        return max(0.0, busy - ours) / total, steal / total


# Tables ---------------------------------------------------------------------------


def number(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def spread(values: list[float]) -> str:
    return (f"{number(statistics.median(values))} "
            f"({number(min(values))}–{number(max(values))})")


def ratio(a: list[float], b: list[float]) -> str:
    """Median of the ratios of one round each: neighbours in time are compared."""
    return spread([x / y for x, y in zip(a, b)])


def first_line(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.splitlines()[0] if done.stdout else "?"


def heading(build: Path, command: str, rounds: int, seconds: float | None = None,
            peers: bool = True) -> str:
    """What was run, where, when; with peers, also what Porthole is compared with."""
    model = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    system = [x for x in Path("/etc/os-release").read_text().splitlines()
              if x.startswith("PRETTY_NAME=")]
    commit = first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    rows = [
        ("command", f"`{command}`: {rounds} rounds{f' of {seconds:g} s each' if seconds else ''}"
                    + (", interleaved" if peers else "")),
        ("when", time.strftime("%Y-%m-%d")),
        ("machine", f"{os.cpu_count()} CPUs, "
                    f"{model[0].split(':')[1].strip() if model else platform.machine()}"),
        ("system", f"Linux {platform.release()}, "
                   f"{system[0].split('=')[1].strip(chr(34)) if system else '?'}"),
        ("Porthole", f"{first_line(str(build / 'ingress/porthole-ingress'), '--version')}, "
                     f"commit {commit}"),
    ]
    if peers:
        rows.append(("nginx, wrk", f"{first_line('nginx', '-v').split('/')[-1]}, "
                                   f"{first_line('wrk', '-v').split('[')[0].strip()}"))
    return "\n".join(["| | |", "|---|---|"] + [f"| {a} | {b} |" for a, b in rows]) + "\n"


# Starting -------------------------------------------------------------------------


def add_common(p: argparse.ArgumentParser, seconds_help: str) -> None:
    p.add_argument("--rounds", type=int)
    p.add_argument("--seconds", type=float, help=seconds_help)
    p.add_argument("--build", type=Path, default=ROOT / "build" / "release",
                   help="folder with ingress/porthole-ingress and shim/porthole-shim")


def check_build(p: argparse.ArgumentParser, args: argparse.Namespace, *more: str) -> None:
    for program in ("ingress/porthole-ingress", "shim/porthole-shim", *more):
        if not (args.build / program).exists():
            p.error(f"{args.build / program} is missing: cmake --preset release && "
                    "cmake --build --preset release, or --build DIR")


def command_line(name: str) -> str:
    """As it was given, without the folder of the build."""
    given = [x for i, x in enumerate(sys.argv[1:], 1)
             if not x.startswith("--build") and sys.argv[i - 1] != "--build"]
    return " ".join([name, *given])


def stop(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def set_up() -> None:
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGTERM, stop)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def end(wrong: list[str]) -> int:
    """Says what was wrong; the exit status."""
    for line in wrong:
        say(f"wrong: {line}")
    return 1 if wrong else 0
