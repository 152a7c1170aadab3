"""Steps of a training whose trainer calls no callbacks (Megatron Bridge, loops of one's own), read from what it prints."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from doctor.live.trainer.journal import encode
from doctor.readers.console.line_head import timestamp
from doctor.readers.console.records import printed
from doctor.readers.file import decode
from doctor.support.files import file_size

WAIT_SECONDS = 20.0
"""After the first printed step; a callback's step would be in the journal long before."""
FEWEST = 3
"""Printed steps without one in the journal."""
IGNORED = b"ignoring provided callbacks"
"""LLaMA-Factory's own word (train/megatron_bridge/workflow.py): nothing needs to be waited for."""
_MAX_READ = 1 << 20
"""Bytes at one look; the rest is read at the next one."""


class ConsoleTail:
    """Follows `path`, the copy of the training's output. `begins` is called once, when the printed steps are used."""

    def __init__(self, path: Path, begins: Callable[[], None]) -> None:
        self._path, self._begins = path, begins
        self._offset, self._rest = file_size(path), b""
        self._held: list[bytes] = []
        self._first: float | None = None
        self._used = self._sure = self._needless = False

    def not_needed(self) -> None:
        """The journal has a step: callbacks are called."""
        self._needless = True
        self._held.clear()

    def lines(self) -> list[bytes]:
        """The steps printed since the last call, as lines of a journal; none while the callback may still be called."""
        if self._needless or not self._path.exists():
            return []
        for line in self._new_lines():
            self._read(line)
        waited = self._first is not None and time.monotonic() - self._first >= WAIT_SECONDS
        if not self._used and not (self._held and (self._sure or (waited and len(self._held) >= FEWEST))):
            return []
        if not self._used:
            self._used = True
            self._begins()
        held, self._held = self._held, []
        return held

    def _new_lines(self) -> list[bytes]:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read(_MAX_READ)
        self._offset += len(data)
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_MAX_READ:]
        return lines

    def _read(self, line: bytes) -> None:
        self._sure = self._sure or IGNORED in line
        if b"oss" not in line:
            return
        text = decode(line)
        record = printed(text)
        if record is None or record.step is None or not record.metrics:
            return
        self._first = self._first or time.monotonic()
        self._held.append(encode({"type": "Step", "step": record.step, "metrics": record.metrics, "time": timestamp(text) or time.time()}))
