"""JSON as `datasets` takes it: one object a line, or one array of objects; never the whole file in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from doctor.dataset import records
from doctor.dataset.records import TOLD_ROWS, Row, Seen, bounded_lines, untold
from doctor.support.decoding import json_decoder

_CHUNK = 1 << 18
_BOM = b"\xef\xbb\xbf"
_NO_SPACE = re.compile(r"[^ \t\r\n]")


def read(file: Path, seen: Seen = untold) -> Iterator[Row]:
    """The rows of a .json or .jsonl file. What it is, its first character says, as it does for `datasets`."""
    with file.open("rb") as stream:
        head = stream.read(4096).removeprefix(_BOM).lstrip()
        stream.seek(0)
        yield from (_array if head.startswith(b"[") and not _is_line_of_list(head) else _lines)(file, stream, seen)


def _is_line_of_list(head: bytes) -> bool:
    """`[1, 2]` on a line of its own is a broken line, not the begin of the file's array."""
    first = head.partition(b"\n")[0].strip()
    return first.endswith(b"]") and b"{" not in first and first != b"[]"


def _lines(file: Path, stream: BinaryIO, seen: Seen) -> Iterator[Row]:
    decode = json_decoder(Any).decode
    index = 0
    for number, data in enumerate(bounded_lines(stream), start=1):
        line = data.removeprefix(_BOM) if number == 1 else data
        if not line or line.isspace():
            continue
        yield _too_long(file, number, index) if len(line) > records.MAX_ROW_BYTES else _line(file, number, index, line, decode)
        index += 1
        if not index % TOLD_ROWS:
            seen(stream.tell())


def _too_long(file: Path, line: int, index: int) -> Row:
    return Row(file, line, index, None, "row_too_long", f"> {records.MAX_ROW_BYTES >> 20} MiB")


def _line(file: Path, number: int, index: int, line: bytes, decode: Any) -> Row:
    try:
        value = decode(line)
    except RecursionError:
        return Row(file, number, index, None, "nested", "")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _slowly(file, number, index, line)
    return _checked(file, number, index, value)


def _slowly(file: Path, number: int, index: int, line: bytes) -> Row:
    """A line that the fast decoder refused: NaN is fine, the rest gets Python's message."""
    try:
        return _checked(file, number, index, json.loads(line.decode("utf-8")))
    except RecursionError:
        return Row(file, number, index, None, "nested", "")
    except UnicodeDecodeError as error:
        return Row(file, number, index, None, "not_utf8", f"0x{error.object[error.start]:02x}")
    except ValueError as error:
        return Row(file, number, index, None, "broken_json", _message(error))


def _message(error: ValueError) -> str:
    return f"{getattr(error, 'msg', error)}, column {getattr(error, 'colno', 0)}"


def _checked(file: Path, line: int, index: int, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(file, line, index, value)
    return Row(file, line, index, None, "not_an_object", type(value).__name__)


def _array(file: Path, stream: BinaryIO, seen: Seen) -> Iterator[Row]:
    """Elements of the array that the file is. At the first one that cannot be decoded the reading ends: what follows has no known place."""
    window = _Window(stream, seen)
    try:
        window.skip("[")
        yield from _elements(file, window)
    except UnicodeDecodeError as error:
        yield Row(file, window.line, 0, None, "not_utf8", f"0x{error.object[error.start]:02x}")


def _elements(file: Path, window: _Window) -> Iterator[Row]:
    index = 0
    while (following := window.peek()) not in ("]", ""):
        line = window.line
        try:
            value = window.element()
        except RecursionError:
            yield Row(file, line, index, None, "nested", "")
            return
        except _TooLong:
            yield _too_long(file, line, index)
            return
        except json.JSONDecodeError as error:
            yield Row(file, window.line_of(error.pos), index, None, "broken_json", error.msg)
            return
        yield _checked(file, line, index, value)
        index += 1
        if (following := window.peek()) == ",":
            window.skip(",")
        elif following != "]":
            break
    if following != "]":
        yield Row(file, window.line, index, None, "broken_json", "expected `,` or `]`" if following else "the file ends inside its array")
        return
    window.skip("]")
    if window.peek():  # pandas: "Trailing data"
        yield Row(file, window.line, index, None, "broken_json", "text after the end of the array")


class _TooLong(ValueError):
    """An element of more than MAX_ROW_BYTES."""


class _Window:
    """A moving part of a text file, decoded as it is needed. `line` is that of the current position, from 1."""

    def __init__(self, stream: BinaryIO, seen: Seen) -> None:
        self._stream, self._seen = stream, seen
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text = ""
        self._at = 0
        self._scan = json.JSONDecoder().raw_decode
        self._ended = False
        self.line = 1

    def peek(self) -> str:
        """The next character that is no space, now at the current position; "" at the end."""
        while True:
            found = _NO_SPACE.search(self._text, self._at)
            self._advance(found.start() if found else len(self._text))
            if self._at < len(self._text) or not self._more(_CHUNK):
                return self._text[self._at : self._at + 1]

    def skip(self, mark: str) -> None:
        """Step over `mark`, which is next."""
        if self.peek() == mark:
            self._advance(self._at + len(mark))

    def element(self) -> Any:
        """The value at the current position. Raises JSONDecodeError, RecursionError or _TooLong."""
        size = _CHUNK
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error) or not self._more(size):
                    raise
                size *= 2  # so that a long element is scanned only a few times
            else:
                self._advance(end)
                return value
            if len(self._text) - self._at > records.MAX_ROW_BYTES:
                raise _TooLong

    def line_of(self, position: int) -> int:
        """The line of a position in the current text."""
        return self.line + self._text.count("\n", self._at, position)

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether more text could repair it: the error lies at the end of what is there (12: the longest literal or escape)."""
        return error.msg.startswith("Unterminated string") or error.pos > len(self._text) - 12

    def _advance(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self._at = to

    def _more(self, size: int) -> bool:
        """Read on; False at the end of the file."""
        data = b"" if self._ended else self._stream.read(size)
        self._text = self._text[self._at :] + self._decode(data, final=not data)
        self._at = 0
        self._ended = not data
        self._seen(self._stream.tell())
        return bool(data)
