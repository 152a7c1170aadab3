"""The journal: an append-only file of JSON lines; a killed process leaves it complete up to its last write."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LIMIT = 32 << 20
"""Bytes at which a journal is rotated; one predecessor is kept, so the two take at most twice this."""
_HEADER_BYTES = 1 << 20
"""Most that is repeated at the top of a rotated file; real headers have 10 to 40 KB."""


class JournalWriter:
    """Appends to `path` (created with the first write). A `write` is one system call; a crash of the process loses nothing written.

    Lines given to `header` are repeated at the top of each rotated file: the newest file can be read alone. Raises OSError.
    """

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path, self.limit = path, limit
        self._header: list[bytes] = []
        self._fd: int | None = None
        self._fresh: bool | None = None
        self._size = 0

    def header(self, lines: list[bytes]) -> None:
        """Add lines that every rotated file begins with; beyond 1 MiB they are dropped."""
        if sum(map(len, self._header)) + sum(map(len, lines)) <= _HEADER_BYTES:
            self._header += lines

    def write(self, lines: list[bytes]) -> None:
        """Append whole lines (given without newlines)."""
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
        """Whether the file did not exist before."""
        if self._fresh is None:
            self._fresh = not self.path.exists()
        return self._fresh

    def close(self) -> None:
        """Close the file; a later write opens it again."""
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
    """`lfdoctor.jsonl` for rank 0, `lfdoctor-rank3.jsonl` for rank 3."""
    return f"lfdoctor-rank{rank}.jsonl" if rank else "lfdoctor.jsonl"


def encode(event: dict[str, Any]) -> bytes:
    """An event as strict JSON; NaN and infinities become the texts "nan", "inf", "-inf"."""
    try:
        return json.dumps(event, allow_nan=False, separators=(",", ":"), default=str).encode("utf-8", "replace")
    except ValueError:
        return json.dumps(_strict(event), allow_nan=False, separators=(",", ":"), default=str).encode("utf-8", "replace")


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else repr(value)
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return value
