"""torchrun's error files (`attempt_0/RANK/error.json`), which `@record` writes where a worker raises: the whole traceback of one rank.

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
    """One exception (or a chain). The rank is the name of the folder, as torchrun writes it."""

    kind = "torchrun_error"
    lane: Lane = "text"

    def claims(self, path: Path, head: bytes) -> bool:
        return path.suffix == ".json" and b'"message"' in head and (b'"py_callstack"' in head or b'"extraInfo"' in head)

    def read(self, file: File, context: Context) -> Iterator[Event]:
        try:
            content = json.loads(file.text(4 << 20) or "")
            message = content["message"]
            message = message if isinstance(message, dict) else {"message": message}
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            file.source.problem(f"not a torchrun error file: {error}")
            return
        yield Fact(where=file.where(), name="text", value=True)
        extra: Any = message.get("extraInfo")
        extra = extra if isinstance(extra, dict) else {}
        text = str(extra.get("py_callstack") or message.get("message") or "")
        parser = Tracebacks()
        raised = [exception for line in text.splitlines() for exception in parser.feed(line, 1)[1]] + parser.close()
        folder = file.path.parent.name
        for exception in raised:
            file.source.records += 1
            yield Crash(
                where=file.where(1),
                rank=int(folder) if folder.isdecimal() and len(folder) < 7 else None,
                time=number(extra.get("timestamp")),
                exception=exception.exception,
                message=exception.message,
                frames=exception.frames,
                phase=phase_of([frame.function for frame in exception.frames]),
                chain=exception.chain,
            )
