"""Child processes that run our own modules, never import from the working folder, and exchange messages over stdin and stdout."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from typing import IO

from doctor.support.package_files import PACKAGE

_SIZE = struct.Struct(">Q")
"""Length of a message in bytes, sent before it."""


def start(module: str, *, session: bool = False) -> subprocess.Popen[bytes]:
    """Start `python -m MODULE` with pipes. `session`: in its own process group, so its children can be killed with it. Raises OSError."""
    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(  # noqa: S603 (our own module)
        [sys.executable, "-P", "-m", module],  # -P: do not import modules from the working folder
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
        start_new_session=session,
    )  # fmt: skip


def streams() -> tuple[IO[bytes], IO[bytes]]:
    """In the child: (requests, answers). Discards what libraries print to stdout from now on."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return sys.stdin.buffer, answers


def send(pipe: IO[bytes], data: bytes) -> None:
    """Send a message: its length, then its bytes."""
    pipe.write(_SIZE.pack(len(data)) + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes | None:
    """Receive a message; None if the other side has closed the pipe."""
    head = pipe.read(_SIZE.size)
    if len(head) < _SIZE.size:
        return None
    (size,) = _SIZE.unpack(head)
    data = pipe.read(size)
    return data if len(data) == size else None
