"""Asking LLaMA-Factory something in a process of its own: it keeps global state, and may exit. For scripts of the lab's own Python."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer(ask: Callable[[], str | None]) -> str | None:
    """The error that `ask` tells, None for none; asked again where another process took the port in between."""
    for _ in range(5):
        error = _in_a_fork(ask)
        if error is None or not ("EADDRINUSE" in error or "address already in use" in error.lower()):
            break
    return error


def _in_a_fork(ask: Callable[[], str | None]) -> str | None:
    """Its output is thrown away."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        silent = os.open(os.devnull, os.O_RDWR)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os.write(write, json.dumps(ask()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told) if told else "the parser died"
