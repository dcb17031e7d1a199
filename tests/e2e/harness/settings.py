"""The flags that the tests turn, by what they mean; units are in the names."""

from __future__ import annotations


def flag(name: str, value: object) -> list[str]:
    return ["--" + name, str(value)]


# ---- ingress: sizes

def head_bytes(value: int) -> list[str]:
    return flag("request-head-bytes-max", value)


def fields(value: int) -> list[str]:
    return flag("request-fields-max", value)


def target_bytes(value: int) -> list[str]:
    return flag("request-target-bytes-max", value)


def body_bytes(value: int) -> list[str]:
    return flag("request-body-bytes-max", value)


def waiting_calls(value: int) -> list[str]:
    return flag("queue-calls-max", value)


# ---- ingress: deadlines

def head_timeout(value_ms: int) -> list[str]:
    return flag("head-timeout-ms", value_ms)


def body_timeout(value_ms: int) -> list[str]:
    return flag("body-idle-timeout-ms", value_ms)


def client_stall(value_ms: int) -> list[str]:
    return flag("client-stall-timeout-ms", value_ms)


def keep_alive(value_ms: int) -> list[str]:
    return flag("keep-alive-timeout-ms", value_ms)


def first_byte(value_ms: int) -> list[str]:
    return flag("first-byte-timeout-ms", value_ms)


def idle(value_ms: int) -> list[str]:
    return flag("idle-timeout-ms", value_ms)


def total(value_ms: int) -> list[str]:
    return flag("total-timeout-ms", value_ms)


def queue_timeout(value_ms: int) -> list[str]:
    return flag("queue-wait-ms", value_ms)


# ---- shim

def concurrency(value: int) -> list[str]:
    return flag("concurrency", value)


def grace(seconds: int) -> list[str]:
    return flag("grace", seconds)


def restart(policy: str) -> list[str]:
    return flag("restart", policy)


def idle_exit(value: str) -> list[str]:
    return flag("idle-exit", value)
