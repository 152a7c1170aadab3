"""Lengths that were measured before: kept by the content of a file, the tokenizer, the template and the options that shape a sequence."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Sequence
from pathlib import Path

import msgspec

from doctor.dataset.attributes import Attributes
from doctor.support.cache import cache_path, write_cache
from doctor.support.decoding import unpack

MIN_BYTES = 1 << 20
"""A smaller file is measured in less than a second."""
MAX_FILES = 64
"""Kept results; one of a million samples has 17 MB."""
_MAX_BYTES = 1 << 30
_CODE = tuple(
    Path(__file__).with_name(name)
    for name in (
        "convert.py", "counts.py", "json_rows.py", "lengths.py", "memo.py", "sequences.py", "table_rows.py", "templates.py", "tokenizer.py",
        "tools.py", "templates.yaml", "tool_prompts.yaml",
    )
)  # fmt: skip
"""What decides over a length: another version of it measures again."""
_FIVE = 5


class _Kept(msgspec.Struct):
    """Five numbers a row (whole, kept, cut, trained, lost), 32 bits each, plus one so that 0 stands for a row that was not measured."""

    measures: bytes


class Memo:
    """The measures of the file that is being read. `about`: everything besides the file that decides over a length."""

    def __init__(self, about: bytes) -> None:
        self._about = about
        self._attributes = b""
        self._file: Path | None = None
        self._path: Path | None = None
        self._known = array("I")
        self._new = 0

    def begin(self, attributes: Attributes) -> None:
        """The files that follow are of a data set with these attributes."""
        self.write()
        self._attributes = msgspec.msgpack.encode(attributes)
        self._file = None

    def get(self, file: Path, index: int) -> Sequence[int] | None:
        """The five numbers of a row; None if it was not measured."""
        if file != self._file:
            self._open(file)
        found = self._known[index * _FIVE : (index + 1) * _FIVE]
        return [number - 1 for number in found] if len(found) == _FIVE and all(found) else None

    def put(self, file: Path, index: int, measure: Sequence[int]) -> None:
        """Remember a row; one of a file that was left behind is not kept."""
        if file != self._file or self._path is None:
            return
        missing = (index + 1) * _FIVE - len(self._known)
        if missing > 0:
            self._known.extend([0] * missing)
        self._known[index * _FIVE : (index + 1) * _FIVE] = array("I", [number + 1 for number in measure])
        self._new += 1

    def write(self) -> None:
        """Keep what is new."""
        if self._path is not None and self._new:
            data = msgspec.msgpack.encode(_Kept(self._known.tobytes()))
            write_cache(self._path, data, keep=MAX_FILES)
        self._new = 0

    def forget(self) -> None:
        """Keep nothing of this file."""
        self._path, self._new = None, 0

    def _open(self, file: Path) -> None:
        self.write()
        self._file, self._path, self._known = file, None, array("I")
        try:
            if file.stat().st_size < MIN_BYTES:
                return
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "blake2b").digest()
        except OSError:
            return
        self._path = cache_path("lengths", self._about + self._attributes + content, *_CODE)
        if self._path is not None:
            self._known = _read(self._path)


def _read(path: Path) -> array[int]:
    """The kept numbers; none if they are not whole, absurd, or another user's."""
    nothing = array("I")
    try:
        with path.open("rb") as stream:
            about = os.fstat(stream.fileno())
            if about.st_size > _MAX_BYTES or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
                return nothing
            kept = unpack(stream.read(), _Kept)
    except (OSError, msgspec.DecodeError):
        return nothing
    if not len(kept.measures) % (_FIVE * nothing.itemsize):
        nothing.frombytes(kept.measures)
    return nothing
