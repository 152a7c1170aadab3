"""torchrun's error files (`attempt_0/RANK/error.json`), which `@record` writes where a worker raises: its traceback, whole and of one rank.

Format: torch/distributed/elastic/multiprocessing/errors/error_handler.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.core.events import Crash, Event, Fact
from doctor.core.phases import phase_of
from doctor.readers.base import Context, Lane, ReaderBase
from doctor.readers.console.tracebacks import Tracebacks
from doctor.readers.file import File
from doctor.readers.values import number


class ErrorFile(ReaderBase):
    """One exception (or a chain of them); the rank is the name of the folder, as torchrun lays them out."""

    kind = "torchrun_error"
    lane: Lane = "text"

    def claims(self, path: Path, head: bytes) -> bool:
        return path.suffix == ".json" and b'"message"' in head and (b'"py_callstack"' in head or b'"extraInfo"' in head)

    def read(self, file: File, context: Context) -> Iterator[Event]:
        try:
            told = json.loads(file.text(4 << 20) or "")
            message = told["message"]
            message = message if isinstance(message, dict) else {"message": message}
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            file.source.problem(f"not a torchrun error file: {error}")
            return
        yield Fact(where=file.where(), name="text", value=True)
        extra: Any = message.get("extraInfo")
        extra = extra if isinstance(extra, dict) else {}
        text = str(extra.get("py_callstack") or message.get("message") or "")
        parser = Tracebacks()
        raised = [one for line in text.splitlines() for one in parser.feed(line, 1)[1]] + parser.close()
        folder = file.path.parent.name
        for one in raised:
            file.source.records += 1
            yield Crash(
                where=file.where(1),
                rank=int(folder) if folder.isdecimal() and len(folder) < 7 else None,
                time=number(extra.get("timestamp")),
                exception=one.exception,
                message=one.message,
                frames=one.frames,
                phase=phase_of([frame.function for frame in one.frames]),
                chain=one.chain,
            )
