"""Writes a cleaned copy of the data sets: without the rows that break or spoil a training, with a list of what was left out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from doctor.dataset.findings import SEVERITY
from doctor.dataset.inspect import Look, inspect
from doctor.dataset.records import Row
from doctor.dataset.rows import read_rows
from doctor.dataset.sources import Source, find_sources
from doctor.errors import DoctorError
from doctor.words.catalogue import text

REMOVED = frozenset(
    kind
    for kind, severity in SEVERITY.items()
    if severity == "error" or kind in ("role_order", "turn_count", "no_messages", "no_answer", "answer_not_text", "no_pair", "no_kto_tag",
    "empty_answer", "same_pair", "overlap", "secret", "control_chars", "special_tokens", "answer_lost", "duplicate")
)  # fmt: skip
"""Kinds whose rows are left out. Of duplicates and overlaps the first row stays; what may be meant stays too."""


class Cleaned(msgspec.Struct):
    """What was written."""

    folder: str
    kept: int = 0
    dropped: int = 0


def clean_copy(config: Mapping[str, Any], folder: Path, out: Path, look: Look) -> Cleaned:
    """Write every local data set of the configuration to the new folder `out`. Raises DoctorError if it holds anything already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DoctorError(text("errors.copy_exists", path=out))
    bad: dict[tuple[str, str, int], str] = {}

    def listen(kind: str, dataset: str, row: Row) -> None:
        if kind in REMOVED:
            bad.setdefault((dataset, str(row.file), row.index), kind)

    inspect(config, folder, look, listener=listen)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _write(config, folder, out, bad)
    except OSError as error:
        raise DoctorError(text("errors.cannot_write", path=error.filename or out, reason=error.strerror or error)) from error


def _write(config: Mapping[str, Any], folder: Path, out: Path, bad: dict[tuple[str, str, int], str]) -> Cleaned:
    made = Cleaned(str(out))
    place = folder / str(config.get("dataset_dir") or "data")
    info = json.loads((place / "dataset_info.json").read_bytes())
    named: dict[str, Any] = {}
    with (out / "dropped.jsonl").open("w", encoding="utf-8") as dropped:
        for source in find_sources(config, folder):
            if source.files and source.name not in named:
                _copy(source, out, bad, made, dropped)
                named[source.name] = {**info[source.name], "file_name": f"{_file_name(source.name)}.jsonl"}
    listed = json.dumps(named, ensure_ascii=False, indent=2)
    (out / "dataset_info.json").write_text(listed + "\n", encoding="utf-8")
    return made


def _file_name(name: str) -> str:
    """A data set's name as a file name."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name).lstrip(".") or "data"


def _copy(source: Source, out: Path, bad: Mapping[tuple[str, str, int], str], made: Cleaned, dropped: IO[str]) -> None:
    """The kept rows as JSON lines; media keep their paths, relative to the same media_dir."""
    with (out / f"{_file_name(source.name)}.jsonl").open("w", encoding="utf-8") as stream:
        for row in read_rows(source.files, source.kind):
            reason = bad.get((source.name, str(row.file), row.index)) or (row.problem if row.value is None else "")
            if reason:
                about = {
                    "dataset": source.name,
                    "file": os.path.relpath(row.file, out),
                    "line": row.line,
                    "row": row.index + 1,
                    "reason": reason,
                }
                dropped.write(json.dumps(about, ensure_ascii=False) + "\n")
                made.dropped += 1
            else:
                stream.write(json.dumps(row.value, ensure_ascii=False, default=str) + "\n")
                made.kept += 1
