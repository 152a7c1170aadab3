"""Console logs: what a terminal, `nohup`, Slurm, torchrun or the web UI kept of a run's standard output and error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from doctor.core.events import ConfigSeen, Event, Fact, Step
from doctor.readers.base import Context, Lane, ReaderBase
from doctor.readers.console import facts
from doctor.readers.console.blocks import blocks, without_leading_nuls
from doctor.readers.console.line_reader import LineReader
from doctor.readers.console.step_inference import PLAN
from doctor.readers.file import File, decode, utf16
from doctor.readers.formats.compression import plain_name
from doctor.readers.origins import is_llamafactory, stage_of

_HEADER_WITHIN = 1 << 20
"""Bytes at the beginning of a log in which the training's header is searched for."""
_HEADER_LENGTH = 4000
"""Characters of the header with the planned steps and epochs."""

_NAMES = re.compile(r"(?i)(?:^|[._-])(?:log|out|err|stdout|stderr|console|output|nohup|std_log)(?:[._-]|$)")
_TRACKER_LOGS = re.compile(r"(?:^|/)(?:(?:wandb|swanlog|(?:offline-)?run-[^/]*)/(?:[^/]*/)*)debug[\w-]*\.log$")
"""What W&B and SwanLab log about themselves."""
_SWANLAB_POINT = b'{"index": '
_ROTATED = re.compile(r"(?:\.rev-\w+|\.\d+)$")
_NOT_LOGS = (".json", ".jsonl", ".yaml", ".yml", ".md", ".sh", ".bin")
_TEXTS = (".log", ".out", ".err", ".stdout", ".stderr", ".txt", "")
_SIGNS = (
    b"Traceback (most recent",
    b"[INFO|",
    b"[WARNING|",
    b"it/s]",
    b"s/it]",
    b"{'loss'",
    b"llamafactory",
    b"torchrun",
    b" - INFO - ",
    b"[rank",
    b"NVRM: Xid",
    b"oom-kill",
    b"Out of memory: Kill",
    b"NVIDIA-SMI",
    b"slurmstepd: error",
)
"""Bytes in the head of a text file by which it is a log whatever its name."""


class Console(ReaderBase):
    """Claims anything that looks like a log. `read` yields text events and the records of printed metrics in the file's order."""

    kind = "console"
    lane: Lane = "text"

    def claims(self, path: Path, head: bytes) -> bool:
        name = plain_name(path)
        if _TRACKER_LOGS.search(path.as_posix()) or head.startswith(_SWANLAB_POINT):
            return False
        if (b"\0" in head[:2048] and utf16(head) is None) or name.lower().startswith(("readme", "license")):
            return False
        suffix = Path(_ROTATED.sub("", name)).suffix.lower()
        named = _NAMES.search(name) is not None and suffix not in _NOT_LOGS
        return named or (suffix in _TEXTS and any(sign in head for sign in _SIGNS))

    def configs(self, file: File) -> Iterator[Event]:
        """The plan that the training's header prints; the records may be in another file of the run."""
        head = decode(file.peek(_HEADER_WITHIN))
        if is_llamafactory(head):
            yield Fact(where=file.where(), name="framework", value="llamafactory")
        if (stage := stage_of(head)) is not None:
            yield ConfigSeen(where=file.where(), values={"stage": stage}, origin="inferred")
        start = head.find("***** Running training *****")
        if start >= 0:
            for name, value in facts.parse_facts(head[start : start + _HEADER_LENGTH])[0]:
                if name in PLAN:
                    yield Fact(where=file.where(), name=name, value=value)

    def read(self, file: File, context: Context) -> Iterator[Event | list[Step]]:
        yield Fact(where=file.where(), name="text", value=True)
        reader = LineReader(file, context)
        for block, whole in blocks(without_leading_nuls(file.chunks())):
            yield from reader.lines(block, whole)
        yield from reader.close()
