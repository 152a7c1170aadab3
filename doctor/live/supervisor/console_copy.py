"""console.log: a copy of the training's output, written on a thread of its own; the disk it is on never holds up the training."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path
from typing import IO

from doctor.live.trainer.recorder import log_stderr

MAX_HELD = 64 << 20
"""Bytes that wait in memory for a disk that is full or does not answer; output beyond that is left out, and the copy says how much."""
RETRY_SECONDS = 1.0
"""Between two attempts to write to a full disk."""
CLOSE_SECONDS = 30.0
"""For the last bytes on a slow disk, after the training has ended."""


class ConsoleCopy:
    """Appends to `path` while the `with` lasts. Output that a full disk refuses is kept and written once there is room again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._size = self._dropped = 0
        self._lock = threading.Lock()
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="lfdoctor-copy", daemon=True)

    def __enter__(self) -> ConsoleCopy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join(CLOSE_SECONDS)

    def write(self, data: bytes) -> None:
        """Never blocks, never raises."""
        with self._lock:
            if self._size + len(data) > MAX_HELD:
                self._dropped += len(data)
                return
            data = self._gap() + data
            self._size += len(data)
        if data:
            self._waiting.put(data)

    def _gap(self) -> bytes:
        dropped, self._dropped = self._dropped, 0
        return b"\n[lfdoctor: %d bytes of output are missing here]\n" % dropped if dropped else b""

    def _run(self) -> None:
        try:
            with self._path.open("ab", buffering=0) as file:
                self._drain(file)
        except OSError as error:
            with self._lock:
                self._size = MAX_HELD  # nothing more is taken
            log_stderr(f"no copy of the output: {self._path}: {error.strerror or error}")

    def _drain(self, file: IO[bytes]) -> None:
        pending = bytearray()
        next_try, ended = 0.0, False
        while not ended:
            try:
                data = self._waiting.get(timeout=RETRY_SECONDS if pending else None)
            except queue.Empty:
                data = b""
            ended = data is None
            pending += data or b""
            if ended or time.monotonic() >= next_try:
                self._write(file, pending)
                next_try = time.monotonic() + RETRY_SECONDS if pending else 0.0
        if pending:
            log_stderr(f"the copy of the output is not complete: the last {len(pending)} bytes are missing in {self._path}")

    def _write(self, file: IO[bytes], pending: bytearray) -> None:
        """Write what the disk takes and remove it from `pending`."""
        written = 0
        try:
            with memoryview(pending) as view:
                while written < len(view):
                    written += file.write(view[written:]) or 0
        except OSError as error:
            if not self._complained:
                self._complained = True
                log_stderr(f"{self._path} cannot be written now ({error.strerror or error}); the output is kept in memory")
        del pending[:written]
        with self._lock:
            self._size -= written
