"""Flags, environment and file: what wins, and what is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness.check import assert_answer, assert_error
from harness.client import Client
from harness.program import clean_environment
from harness.stack import INGRESS_BIN, SHIM_BIN


def run(program: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *argv], env=clean_environment(env), capture_output=True,
                          text=True, timeout=20, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("program", [INGRESS_BIN, SHIM_BIN], ids=["ingress", "shim"])
def test_version_and_help(program):
    version = run(program, "--version")
    assert version.returncode == 0 and any(c.isdigit() for c in version.stdout)
    text = run(program, "--help")
    assert text.returncode == 0
    assert "--log-level" in text.stdout


@pytest.mark.parametrize("program", [INGRESS_BIN, SHIM_BIN], ids=["ingress", "shim"])
@pytest.mark.parametrize("argv, words", [
    (["--log-levle", "debug"], ["--log-levle", "--log-level"]),
    (["--no-such-thing"], ["--no-such-thing"]),
    (["--log-level", "loud"], ["log-level", "loud"]),
    (["--log-level"], ["log-level"]),
    (["stray"], ["stray"]),
])
def test_what_is_not_understood_is_refused_with_its_place(program, argv, words):
    got = run(program, *argv)
    assert got.returncode == 2
    for word in words:
        assert word in got.stderr
    assert got.stdout == ""


@pytest.mark.parametrize("argv", [
    ["--listen", "nowhere"], ["--listen", "127.0.0.1:99999"], ["--shims", "http://127.0.0.1:1"],
    ["--trusted-proxies", "10.0.0.0/33"], ["--head-timeout-ms", "soon"],
    ["--head-timeout-ms", "-1"], ["--shims", "tcp://0.0.0.0:0"],
])
def test_bad_values_of_the_ingress(argv):
    got = run(INGRESS_BIN, *argv)
    assert got.returncode == 2, got.stderr
    assert argv[0][2:] in got.stderr


@pytest.mark.parametrize("argv", [
    ["--concurrency", "0"], ["--concurrency", "many"], ["--port", "65536"],
    ["--ingress", "127.0.0.1"], ["--function", "a b"],
])
def test_bad_values_of_the_shim(argv):
    got = run(SHIM_BIN, *argv)
    assert got.returncode == 2, got.stderr
    assert argv[0][2:] in got.stderr


def test_nothing_to_do_is_a_usage_error():
    assert run(SHIM_BIN).returncode == 2


def test_an_address_that_is_taken(stack):
    stack.ingress = stack.start_ingress()
    other = stack.run("ingress", [str(INGRESS_BIN), "--listen", f"127.0.0.1:{stack.ingress.port}",
                                  "--shims", "tcp://127.0.0.1:0", "--admin", "127.0.0.1:0"])
    other.expect_exit(1)
    assert str(stack.ingress.port) in other.log


def printed(tmp_path: Path, content: dict | None, *argv: str, **env: str) -> dict:
    """The configuration that the ingress would run with."""
    if content is not None:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(content))
        argv = ("--config", str(path), *argv)
    got = run(INGRESS_BIN, "--print-config", *argv, **env)
    assert got.returncode == 0, got.stderr
    return json.loads(got.stdout)


def test_flags_win_over_environment_over_file_over_defaults(tmp_path):
    key, flag, variable = "zone", "--zone", {"PORTHOLE_ZONE": "environment"}
    content = {key: "file"}
    assert printed(tmp_path, None).get(key) in (None, "")
    assert printed(tmp_path, content)[key] == "file"
    assert printed(tmp_path, content, **variable)[key] == "environment"
    assert printed(tmp_path, content, flag, "flag", **variable)[key] == "flag"


def test_what_is_printed_can_be_loaded(tmp_path):
    first = printed(tmp_path, None, "--head-timeout-ms", "1234")
    assert first["head_timeout_ms"] == 1234
    assert printed(tmp_path, first) == first


def test_unknown_keys_are_refused_with_their_place(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{\n  "log_level": "info",\n  "log_levle": "info"\n}\n')
    got = run(INGRESS_BIN, "--check-config", "--config", str(path))
    assert got.returncode == 2
    assert "log_levle" in got.stderr and "log_level" in got.stderr and "3" in got.stderr


def test_a_good_file_is_checked(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"log_level": "info"}')
    assert run(INGRESS_BIN, "--check-config", "--config", str(path)).returncode == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"log_level": 5}', '{"log_level": "info"} x'])
def test_a_bad_file_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    got = run(INGRESS_BIN, "--check-config", "--config", str(path))
    assert got.returncode == 2
    assert "config.json" in got.stderr


def test_a_file_that_is_not_there():
    got = run(INGRESS_BIN, "--check-config", "--config", "/nowhere/config.json")
    assert got.returncode == 2
    assert "/nowhere/config.json" in got.stderr


def test_unknown_variables_are_not_refused(tmp_path):
    """A Kubernetes Service named porthole injects some."""
    printed(tmp_path, None, PORTHOLE_PORT="tcp://10.0.0.1:80", PORTHOLE_SERVICE_HOST="10.0.0.1",
            PORTHOLE_PORT_80_TCP="tcp://10.0.0.1:80")


@pytest.mark.parametrize("variable", ["PORTHOLE_TARGET_PORT", "AWS_LWA_PORT", "PORT"])
def test_the_servers_port_from_the_environment(stack, server, variable):
    stack.ingress = stack.start_ingress()
    stack.start_shim(stack.ingress, env={variable: str(server.port)})
    assert_answer(stack.ask())


def test_the_first_port_variable_wins(stack, server):
    stack.ingress = stack.start_ingress()
    stack.start_shim(stack.ingress, env={"PORTHOLE_TARGET_PORT": str(server.port),
                                         "AWS_LWA_PORT": "1", "PORT": "2"})
    assert_answer(stack.ask())


def test_the_shim_from_the_environment_alone(stack, server):
    stack.ingress = stack.start_ingress()
    shim = stack.run("shim", [str(SHIM_BIN)], {
        "PORTHOLE_INGRESS": stack.ingress.shims, "PORTHOLE_TARGET_PORT": str(server.port),
        "PORTHOLE_FUNCTION": "fun", "PORTHOLE_LOG_FORMAT": "text"})
    shim.wait_log("registered.*fun")
    assert_answer(stack.ask())


def test_the_log_as_json(stack, server):
    stack.ingress = stack.start_ingress()
    shim = stack.run("shim", [str(SHIM_BIN), "--log-format", "json", "--ingress", stack.ingress.shims,
                              "--port", str(server.port)])
    line = shim.wait_log(r'(?m)^\{.*"registered".*\}$')[0]
    assert json.loads(line)["msg"] == "registered"
    ingress = stack.run("ingress", [str(INGRESS_BIN), "--listen", "127.0.0.1:0", "--shims",
                                    "tcp://127.0.0.1:0", "--admin", "127.0.0.1:0"])
    ready = json.loads(ingress.wait_log(r'(?m)^\{.*"ready".*\}$')[0])
    assert ready["msg"] == "ready"
    assert int(ready["listen"].rpartition(":")[2])
    assert int(ready["shims"].rpartition(":")[2])
    assert int(ready["admin"].rpartition(":")[2])


def test_several_listeners(stack, server, tmp_path):
    path = str(tmp_path / "s")
    stack.ingress = stack.start_ingress(listen=f"127.0.0.1:0,unix:{path}")
    stack.start_shim(stack.ingress, server=server)
    with Client(path) as client:
        assert_answer(client.ask())


def test_shims_on_all_addresses_need_a_word(stack):
    refused = run(INGRESS_BIN, "--shims", "tcp://0.0.0.0:0")
    assert refused.returncode == 2
    assert "insecure-shims" in refused.stderr
    stack.ingress = stack.start_ingress("--insecure-shims", shims="tcp://0.0.0.0:0")
    assert_error(stack.ask(), 503, "no_container")


def test_the_shim_without_an_ingress_is_an_init(stack):
    shim = stack.run("shim", [str(SHIM_BIN), "--", "sh", "-c", "echo pid $$ $PORTHOLE_MARK; exit 4"],
                     {"PORTHOLE_MARK": "kept"})
    shim.expect_exit(4)
    assert "kept" in shim.log


def test_functions_are_checked_and_printed(tmp_path):
    function = {"hosts": ["a.example.com", "*.example.run"], "target_concurrency": 2.5,
                "queue": {"max_wait": "15m"}, "launcher": {"process": ["server", "{port}"]}}
    first = printed(tmp_path, {"queue_calls_max": 7, "functions": {"Hello": function}})
    assert list(first["functions"]) == ["hello"]
    hello = first["functions"]["hello"]
    assert hello["hosts"] == function["hosts"] and hello["target_concurrency"] == 2.5
    assert hello["queue"]["max_wait"] == "15m" and hello["queue"]["max_calls"] == 7
    assert hello["launcher"]["process"] == ["server", "{port}"]
    assert printed(tmp_path, first) == first


@pytest.mark.parametrize("text, place, words", [
    ('{"functions": {\n  "a": {"scaledown": "1s"}}}', ":2:9:", ["scaledown_window"]),
    ('{"functions": {\n  "a": {}, "a": {}}}', ":2:12:", ["twice"]),
    ('{"functions": {\n  "a": {\n   "queue": {"max_wait": 5}}}}', ":3:26:", ["unit"]),
])
def test_functions_that_are_wrong_are_refused_with_their_place(tmp_path, text, place, words):
    path = tmp_path / "config.json"
    path.write_text(text)
    got = run(INGRESS_BIN, "--check-config", "--config", str(path))
    assert got.returncode == 2
    assert place in got.stderr, got.stderr
    for word in words:
        assert word in got.stderr
