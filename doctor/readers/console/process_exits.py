"""Process ends as launchers, shells and schedulers report them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

import msgspec

from doctor.core.events import ProcessEnd, Where

_RANK = re.compile(r"\s*rank\s*:\s*(\d{1,9})(?: \(local_rank: (-?\d{1,9})\))?")
_CODE = re.compile(r"\s*exitcode\s*:\s*(-?\d{1,9})")
_ELASTIC = re.compile(r"failed \(exitcode: (-?\d{1,9})\)(?: local_rank: (\d{1,9}))?")
_DEEPSPEED = re.compile(r"exits with return code = (-?\d{1,9})")
_LOCAL = re.compile(r"--local_rank=(\d{1,9})")
_SRUN = re.compile(
    r"srun: error: \S+ task (\d{1,9}).*?: (Out Of Memory|Killed|Exited with exit code (\d{1,3})|Segmentation fault|Terminated|Aborted)"
)
_SHELL = re.compile(
    r"(?:^|line \d{1,9}: +\d{1,9} |\[\d\]\+? {1,4}(?:\d+ )?)"
    r"(Killed|Segmentation fault|Bus error|Aborted|Terminated|Hangup|Illegal instruction)\b"
)
_STATUS = re.compile(r"\b(?:exit(?:ed)?(?: with)? ?(?:code|status)|return code)[ :=]{1,3}(-?\d{1,3})\b", re.I)
SIGNALS = {
    "Killed": 9, "Out Of Memory": 9, "Segmentation fault": 11, "Bus error": 7, "Aborted": 6, "Terminated": 15, "Hangup": 1,
    "Illegal instruction": 4,
}  # fmt: skip
_MAX_SHELL_LINE = 120
"""Characters of a shell's own line; `Killed` in a longer line is prose."""
_MAX_SIGNAL = 64
_MAX_PENDING = 64
"""One-line reports that are kept until it is known whether a failure block follows."""

WORDS = (
    "exitcode", "exits with return code", "srun: error", "Killed", "Segmentation fault", "Bus error", "Aborted", "Terminated", "Hangup",
    "Illegal instruction", "exit code", "exit status", "exited with", "Exit code", "local_rank:", "Root Cause", "Failures:",
)  # fmt: skip


class Ends:
    """`feed` line after line. torchrun's failure block has several; its one-line report counts only if no block follows."""

    def __init__(self) -> None:
        self.in_block = False
        self._root = False
        self._rank: int | None = None
        self._local: int | None = None
        self._pending: deque[ProcessEnd] = deque(maxlen=_MAX_PENDING)

    @property
    def rank(self) -> int | None:
        """The rank whose entry of a failure block is being read."""
        return self._rank if self.in_block else None

    def feed(self, text: str, where: Where, rank: int | None, attempt: int) -> Iterator[ProcessEnd]:
        """The process ends that this line reports."""
        if self.in_block or "Failures:" in text or "Root Cause" in text:
            yield from self._block(text, where, attempt)
        if "failed (exitcode" in text and (found := _ELASTIC.search(text)):
            self._pending.append(_end(int(found[1]), where, None, attempt, "torchrun", int(found[2]) if found[2] else None))
        elif "return code =" in text and (found := _DEEPSPEED.search(text)):
            local = _LOCAL.search(text)
            yield _end(int(found[1]), where, rank, attempt, "deepspeed", int(local[1]) if local else None)
        elif "srun" in text and (found := _SRUN.search(text)):
            code = int(found[3]) if found[3] else -SIGNALS[found[2]]
            yield _end(code, where, int(found[1]), attempt, "slurm", None)
        elif len(text) <= _MAX_SHELL_LINE and (found := _SHELL.search(text)):
            yield _end(-SIGNALS[found[1]], where, rank, attempt, "shell", None)
        elif len(text) <= _MAX_SHELL_LINE and "xit" in text and (found := _STATUS.search(text)) and not self.in_block:
            code = int(found[1])
            yield _end(128 - code if 128 < code < 160 else code, where, rank, attempt, "shell", None, code)

    def _block(self, text: str, where: Where, attempt: int) -> Iterator[ProcessEnd]:
        if "Failures:" in text or "Root Cause" in text:
            self.in_block, self._root = True, "Root Cause" in text
            self._rank = self._local = None
            self._pending.clear()
        elif (found := _RANK.match(text)) is not None:
            self._rank, self._local = int(found[1]), int(found[2]) if found[2] else None
        elif (found := _CODE.match(text)) is not None:
            end = _end(int(found[1]), where, self._rank, attempt, "torchrun", self._local)
            yield msgspec.structs.replace(end, first=True) if self._root else end
        elif self._root and self._rank is not None and text.startswith(("======", "******")):
            self.in_block = False

    def close(self) -> Iterator[ProcessEnd]:
        """The one-line reports that no block followed."""
        yield from self._pending
        self._pending.clear()


def _end(
    code: int, where: Where, rank: int | None, attempt: int, reporter: str, local: int | None, printed: int | None = None
) -> ProcessEnd:
    """A process end. `printed` is the code as printed, where `code` is its signal's."""
    signal = -code if -_MAX_SIGNAL <= code < 0 else None
    shown = code if printed is None else printed
    return ProcessEnd(where=where, rank=rank, attempt=attempt, code=shown, signal=signal, reporter=reporter, local_rank=local)
