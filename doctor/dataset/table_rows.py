"""Rows of csv, txt, parquet and arrow files, typed as `datasets` types them (pandas for csv, Arrow for the others)."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.dataset import records
from doctor.dataset.records import TOLD_ROWS, Row, Seen, bounded_lines, untold
from doctor.support.optional import need

NO_VALUE = frozenset(
    ("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN",
     "None", "n/a", "nan", "null")
)  # fmt: skip
"""What pandas reads as a missing value (pandas.read_csv, na_values): an answer `None` or `NA` is lost."""
_BATCH = 256
_MAX_GROUP_BYTES = 8 << 30
"""A parquet row group larger than this is a bomb or a mistake: it is one piece in memory when it is read."""


def read_csv(file: Path, seen: Seen = untold) -> Iterator[Row]:
    """Rows of a csv file with a header. A column whose every value is a number becomes a column of numbers, as in pandas."""
    line, index = 1, -1
    try:
        numeric = _numeric_columns(file)
        for line, index, value in _csv_rows(file, seen):
            if None in value:
                yield Row(file, line, index, None, "csv_fields", "")
                continue
            yield Row(file, line, index, {name: _typed(text, name in numeric) for name, text in value.items()})
    except _TooLong:  # a quote may be open in it: what follows has no known place
        yield Row(file, line + 1, index + 1, None, "row_too_long", f"> {records.MAX_ROW_BYTES >> 20} MiB")
    except csv.Error as error:
        yield Row(file, line + 1, index + 1, None, "unreadable_file", str(error)[:200])


class _TooLong(ValueError):
    """A line of more than MAX_ROW_BYTES characters."""


def _typed(text: str | None, numeric: bool) -> Any:
    if text is None or text in NO_VALUE:
        return None
    return float(text) if numeric else text


def _csv_rows(file: Path, seen: Seen = untold) -> Iterator[tuple[int, int, dict[Any, Any]]]:
    """(line on which the row begins, index, values by column; under None what no column takes)."""
    csv.field_size_limit(records.MAX_ROW_BYTES)
    with file.open("rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(_short_lines(stream))
        index, line = 0, reader.line_num + 1
        _ = reader.fieldnames
        line = reader.line_num + 1
        for value in reader:
            yield line, index, value
            index, line = index + 1, reader.line_num + 1
            if not index % TOLD_ROWS:
                seen(raw.tell())


def _short_lines(stream: Any) -> Iterator[str]:
    while line := stream.readline(records.MAX_ROW_BYTES + 1):
        if len(line) > records.MAX_ROW_BYTES:
            raise _TooLong
        yield line


def _numeric_columns(file: Path) -> set[str]:
    """Columns in which every value that is there is a number."""
    numbers: dict[str, bool] = {}
    with contextlib.suppress(_TooLong, csv.Error):  # told by the second reading
        for _, _, value in _csv_rows(file):
            for name, text in value.items():
                if name is not None and text is not None and text not in NO_VALUE and numbers.get(name, True):
                    numbers[name] = _is_number(text)
    return {name for name, numeric in numbers.items() if numeric}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def read_text(file: Path, seen: Seen = untold) -> Iterator[Row]:
    """Each line of a text file is a row with the one column `text`."""
    with file.open("rb") as stream:
        index = 0
        for number, line in enumerate(bounded_lines(stream), start=1):
            if not number % TOLD_ROWS:
                seen(stream.tell())
            for row in _text_rows(file, number, index, line):
                yield row
                index += 1


def _text_rows(file: Path, number: int, index: int, line: bytes) -> Iterator[Row]:
    if len(line) > records.MAX_ROW_BYTES:
        yield Row(file, number, index, None, "row_too_long", f"> {records.MAX_ROW_BYTES >> 20} MiB")
        return
    try:
        pieces = line.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        yield Row(file, number, index, None, "not_utf8", f"0x{error.object[error.start]:02x}")
        return
    for further, piece in enumerate(pieces):
        yield Row(file, number, index + further, {"text": piece})


def read_parquet(file: Path, seen: Seen = untold) -> Iterator[Row]:  # noqa: ARG001 (a row has no place in the file)
    """Rows of a parquet file, a batch at a time. Raises MissingPackage without pyarrow."""
    parquet = need("pyarrow.parquet", "data", "reading parquet")
    try:
        table = parquet.ParquetFile(file)
        meta = table.metadata
        if any(meta.row_group(number).total_byte_size > _MAX_GROUP_BYTES for number in range(meta.num_row_groups)):
            yield Row(file, 0, 0, None, "unreadable_file", f"a row group > {_MAX_GROUP_BYTES >> 30} GiB")
            return
        yield from _batches(file, table.iter_batches(batch_size=_BATCH))
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
        yield Row(file, 0, 0, None, "unreadable_file", str(error)[:200])


def read_arrow(file: Path, seen: Seen = untold) -> Iterator[Row]:  # noqa: ARG001
    """Rows of an arrow file: the stream format, which `datasets` writes, or the file format."""
    arrow = need("pyarrow", "data", "reading arrow files")
    ipc = need("pyarrow.ipc", "data", "reading arrow files")
    try:
        with arrow.memory_map(str(file)) as source:
            try:
                batches: Iterator[Any] = iter(ipc.open_stream(source))
            except ValueError:
                opened = ipc.open_file(source)
                batches = (opened.get_batch(number) for number in range(opened.num_record_batches))
            yield from _batches(file, batches)
    except (ValueError, OSError) as error:
        yield Row(file, 0, 0, None, "unreadable_file", str(error)[:200])


def _batches(file: Path, batches: Iterator[Any]) -> Iterator[Row]:
    index = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH):
            for value in batch.slice(start, _BATCH).to_pylist():
                yield Row(file, 0, index, value)
                index += 1
