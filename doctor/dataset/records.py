"""One row of a data set, and how large it may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

MAX_ROW_BYTES = 32 << 20
"""A longer line or element is not decoded. A row of this size has some eight million tokens: no training reads it whole."""


_CHUNK = 1 << 18
Seen = Callable[[int], None]
"""Is told now and then how many bytes of a file were read."""
TOLD_ROWS = 1000
"""Rows between two tellings."""


def untold(position: int) -> None:
    """Nobody wants to know."""


class Row(msgspec.Struct, gc=False):
    """One row. `line` counts from 1 (`index`, the row's number, stands for it where a file has no lines: parquet, arrow).

    `value` is None for a row that cannot be read; `problem` then names why (words/data.yaml, group kind) and `detail` says it.
    """

    file: Path
    line: int
    index: int
    value: dict[str, Any] | None = None
    problem: str = ""
    detail: str = ""


def bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines; of one that is too long only the first MAX_ROW_BYTES + 1 bytes."""
    limit = MAX_ROW_BYTES + 1
    while line := stream.readline(limit):
        if len(line) == limit and not line.endswith(b"\n"):
            while (rest := stream.readline(_CHUNK)) and not rest.endswith(b"\n"):
                pass
        yield line
