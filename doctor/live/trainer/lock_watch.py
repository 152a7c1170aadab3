"""From inside a training process: notices that its main thread waits for a lock file, and writes down which.

A stack names functions, not the file that they wait for, and polling leaves no trace outside. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from doctor.live.trainer.stacks import StackFile

PERIOD_SECONDS = 5.0
"""Between two looks, which cost some microseconds each. A lock that is waited for at two of them is written down."""
_DEPTH = 6
"""Innermost frames that are looked at: time.sleep stands in filelock's `acquire`, three levels deep in its newest releases."""


def start(file: Callable[[], StackFile | None]) -> None:
    """Watch this process's main thread for as long as it lives; `file` returns where each lock that it waits for is written down."""
    threading.Thread(target=_watch, args=(file,), name="lfdoctor-lock", daemon=True).start()


def _watch(file: Callable[[], StackFile | None]) -> None:
    thread = threading.main_thread().ident or 0
    before = told = None
    with contextlib.suppress(Exception):  # a disk that is full, an interpreter that ends: the training goes on
        while True:
            time.sleep(PERIOD_SECONDS)
            lock = waited_for(sys._current_frames().get(thread))
            stacks = file()
            if lock is not None and lock == before != told and stacks is not None:
                told = lock
                stacks.note_lock(*lock)
            before = lock


def waited_for(frame: FrameType | None) -> tuple[str, str] | None:
    """The kind of the lock and its absolute path, if the innermost frames wait for one.

    `exists`: whoever finds the file waits until it is gone (torch's FileBaton, SoftFileLock). `flock`: the system holds the lock for a
    process; the file alone means nothing (filelock, and with it datasets and huggingface_hub).
    """
    for _ in range(_DEPTH):
        if frame is None:
            return None
        file = frame.f_code.co_filename.replace("\\", "/")
        if file.endswith("/torch/utils/file_baton.py") and frame.f_code.co_name == "wait":
            return _named("exists", getattr(frame.f_locals.get("self"), "lock_file_path", None))
        if "/filelock/" in file and frame.f_code.co_name == "acquire":
            lock = frame.f_locals.get("self")
            return _named("exists" if type(lock).__name__ == "SoftFileLock" else "flock", getattr(lock, "lock_file", None))
        frame = frame.f_back
    return None


def _named(kind: str, path: object) -> tuple[str, str] | None:
    return (kind, os.path.abspath(os.fsdecode(path))) if isinstance(path, str | bytes | os.PathLike) else None  # noqa: PTH100
