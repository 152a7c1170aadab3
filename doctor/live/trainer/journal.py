"""The journal: an append-only file of JSON lines that a killed process leaves whole up to its last write."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LIMIT = 32 << 20
"""A journal that grows beyond so many bytes is rotated once: with its one predecessor it never takes more than twice this."""
_HEADER = 1 << 20


class Journal:
    """Appends to `path` (made when first written to). Every `write` is one system call; a crash of the process loses nothing written.

    Lines told to `header` are repeated at the top of each rotated file, so that the newest one can be understood by itself.
    Raises OSError like any file.
    """

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path, self.limit = path, limit
        self._header: list[bytes] = []
        self._fd: int | None = None
        self._fresh: bool | None = None
        self._size = 0

    def header(self, lines: list[bytes]) -> None:
        """Remembers lines that every rotated file begins with (a mebibyte at most)."""
        if sum(map(len, self._header)) + sum(map(len, lines)) <= _HEADER:
            self._header += lines

    def write(self, lines: list[bytes]) -> None:
        """Appends whole lines (without their newlines)."""
        if not lines:
            return
        fd = self._open() if self._fd is None else self._fd
        data = memoryview(b"\n".join([*lines, b""]))
        self._size += len(data)
        while data:
            data = data[os.write(fd, data) :]
        if self._size > self.limit:
            self._rotate()

    def fresh(self) -> bool:
        """Whether nothing was there before us."""
        if self._fresh is None:
            self._fresh = not self.path.exists()
        return self._fresh

    def close(self) -> None:
        """Closes the file; a later write opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = _torn(self.path)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        self._size = os.fstat(self._fd).st_size
        if torn:
            os.write(self._fd, b"\n")
        return self._fd

    def _rotate(self) -> None:
        self.close()
        self.path.replace(self.path.with_suffix(f".1{self.path.suffix}"))
        fd = self._open()
        self._size = sum(map(len, self._header))
        os.write(fd, b"".join(line + b"\n" for line in self._header))


def _torn(path: Path) -> bool:
    """Whether an earlier process died in the middle of a line."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False


def name_for(rank: int) -> str:
    """`lfdoctor.jsonl`, or `lfdoctor-rank3.jsonl` for another rank than the first."""
    return f"lfdoctor-rank{rank}.jsonl" if rank else "lfdoctor.jsonl"


def encode(event: dict[str, Any]) -> bytes:
    """One event as strict JSON: numbers that JSON lacks are written as text ("nan", "inf", "-inf")."""
    try:
        return json.dumps(event, allow_nan=False, separators=(",", ":"), default=str).encode("utf-8", "replace")
    except ValueError:
        return json.dumps(_strict(event), allow_nan=False, separators=(",", ":"), default=str).encode("utf-8", "replace")


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else repr(value)
    if isinstance(value, dict):
        return {str(key): _strict(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(one) for one in value]
    return value
