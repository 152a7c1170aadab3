"""Processes of our own: they import nothing from the folder that they start in, and talk in messages over their standard streams."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from typing import IO

from doctor.support.package_files import PACKAGE

_SIZE = struct.Struct(">Q")


def start(module: str, *, session: bool = False) -> subprocess.Popen[bytes]:
    """`python -m MODULE` with pipes to and from it; `session`: it leads a group of processes, which can be ended as one. Raises OSError."""
    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(  # noqa: S603 (our own module)
        [sys.executable, "-P", "-m", module],  # -P: the folder may hold anybody's modules
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
        start_new_session=session,
    )  # fmt: skip


def streams() -> tuple[IO[bytes], IO[bytes]]:
    """In such a process: what it is asked, and where it answers. What libraries print goes nowhere from now on."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return sys.stdin.buffer, answers


def send(pipe: IO[bytes], data: bytes) -> None:
    """One message: its length, then its bytes."""
    pipe.write(_SIZE.pack(len(data)) + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes | None:
    """The next message; None where the other side is gone."""
    head = pipe.read(_SIZE.size)
    if len(head) < _SIZE.size:
        return None
    (size,) = _SIZE.unpack(head)
    data = pipe.read(size)
    return data if len(data) == size else None
