"""The scan as two Parquet files: one row per run, one row per finding. docs/scale.md describes the columns."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from doctor.errors import DoctorError
from doctor.fleet.scan.records import RunRecord
from doctor.support.optional import need

ROWS = 500
"""Rows written at a time."""

RUNS: dict[str, tuple[str, str]] = {
    "path": ("string", "the run: its folder, or the stem of its consoles"),
    "job": ("string", "the name that all attempts of a job share"),
    "outcome": ("string", "analyzed, unreadable, too_slow, too_large, crashed"),
    "error": ("string", "why it could not be analyzed"),
    "status": ("string", "completed, failed, interrupted, running, unknown"),
    "failed": ("bool", "true: failed or an error found; false: completed without one; null: nothing says"),
    "healthy": ("bool", "no finding above a note and no sign of failure"),
    "cause": ("string", "root cause, as in `lfdoctor rules list`; null where none was found"),
    "rule": ("string", "the rule that found it"),
    "symptom": ("string", "what the user would call it"),
    "title": ("string", "the finding's title in the scan's language"),
    "confidence": ("double", "0 to 1"),
    "fingerprint": ("string", "the same for the same failure with other paths, numbers, ranks and hosts"),
    "evidence": ("string", "the line that proves it, up to 500 characters, secrets masked"),
    "framework": ("string", "llamafactory where that is known"),
    "version": ("string", "its version"),
    "stage": ("string", "pt, sft, rm, ppo, dpo, kto"),
    "finetuning_type": ("string", "lora, full, freeze, oft"),
    "model": ("string", "model_name_or_path"),
    "world_size": ("int64", "processes"),
    "first_step": ("int64", "first training step that was logged"),
    "last_step": ("int64", "last one"),
    "planned_steps": ("int64", "steps that were planned"),
    "loss": ("double", "last logged training loss"),
    "best_eval_loss": ("double", "lowest evaluation loss"),
    "started": ("timestamp", "`ended` less the seconds of training"),
    "ended": ("timestamp", "newest time of change of its files (UTC)"),
    "size": ("int64", "bytes of the files that may tell something"),
    "files": ("int64", "their number"),
    "config": ("string", "JSON object: the given options, secrets masked"),
    "environment": ("string", "JSON object: versions, cards, processes, number of examples"),
    "loss_steps": ("list<int64>", "steps of the thinned learning curve (at most 64)"),
    "loss_values": ("list<double>", "the loss at these steps"),
    "patch": ("list<string>", "the proposed change, `key=value`; `-key` is removed"),
    "problems": ("list<string>", "what could not be read"),
}
"""Column of the table of runs -> type and meaning."""

FINDINGS: dict[str, tuple[str, str]] = {
    "path": ("string", "the run"),
    "rule": ("string", "the rule"),
    "cause": ("string", "what it names as cause"),
    "symptom": ("string", "what the user would call it"),
    "severity": ("string", "error, warning, note"),
    "role": ("string", "root, consequence, contributing"),
    "confidence": ("double", "0 to 1"),
    "title": ("string", "its title in the scan's language"),
    "first_step": ("int64", "first step concerned"),
    "last_step": ("int64", "last step concerned"),
    "ranks": ("list<int64>", "ranks concerned"),
    "count": ("int64", "how often it was seen"),
    "source": ("string", "file of the first piece of evidence"),
    "line": ("int64", "its line"),
    "text": ("string", "the line, up to 500 characters, secrets masked"),
}
"""Column of the table of findings -> type and meaning."""


def write(records: Iterable[RunRecord], runs: Path, findings: Path) -> tuple[int, int]:
    """Write both tables in constant memory; returns their numbers of rows. Raises DoctorError if they cannot be written."""
    counts = [0, 0]
    try:
        with _Writer(runs, RUNS) as run_writer, _Writer(findings, FINDINGS) as finding_writer:
            records = iter(records)
            while batch := list(itertools.islice(records, ROWS)):
                counts[0] += run_writer.add(map(run_row, batch))
                counts[1] += finding_writer.add(row for record in batch for row in finding_rows(record))
    except OSError as error:
        raise DoctorError(f"cannot write {runs}: {error.strerror or error}") from error
    return counts[0], counts[1]


def run_row(record: RunRecord) -> dict[str, Any]:
    """The values of a run's row."""
    row = {name: getattr(record, name, None) for name in RUNS}
    steps, values = record.curve
    return row | {
        "config": json.dumps(record.config, ensure_ascii=False, sort_keys=True),
        "environment": json.dumps(record.environment, ensure_ascii=False, sort_keys=True),
        "started": _microseconds(record.started),
        "ended": _microseconds(record.ended),
        "loss_steps": steps,
        "loss_values": values,
    }


def finding_rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    """The values of the rows of a run's findings."""
    for finding in record.findings:
        yield {"path": record.path, **{name: getattr(finding, name) for name in FINDINGS if name != "path"}}


def read(runs: Path) -> list[dict[str, Any]]:
    """The rows of a table of runs. Raises DoctorError for any other file."""
    parquet = need("pyarrow.parquet", "fleet")
    try:
        rows: list[dict[str, Any]] = parquet.read_table(runs, columns=list(RUNS)).to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise DoctorError(f"{runs}: not a table of a scan: {error}") from error
    return rows


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e6)


class _Writer:
    """A Parquet file that appears complete when it is closed."""

    def __init__(self, path: Path, columns: dict[str, tuple[str, str]]) -> None:
        self.arrow, self.parquet = need("pyarrow", "fleet"), need("pyarrow.parquet", "fleet")
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.schema = self.arrow.schema(
            [self.arrow.field(name, self._type(kind), metadata={"description": text}) for name, (kind, text) in columns.items()],
            metadata={"lfdoctor": "1"},
        )

    def _type(self, kind: str) -> Any:
        arrow = self.arrow
        plain = {
            "string": arrow.string(), "bool": arrow.bool_(), "double": arrow.float64(), "int64": arrow.int64(),
            "timestamp": arrow.timestamp("us", "UTC"),
        }  # fmt: skip
        return arrow.list_(plain[kind[5:-1]]) if kind.startswith("list<") else plain[kind]

    def __enter__(self) -> _Writer:
        self.writer = self.parquet.ParquetWriter(self.part, self.schema, compression="zstd")
        return self

    def add(self, rows: Iterable[dict[str, Any]]) -> int:
        """Append rows; returns their number."""
        batch = list(rows)
        if batch:
            self.writer.write_table(self.arrow.Table.from_pylist(batch, schema=self.schema))
        return len(batch)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.writer.close()
        if kind is None:
            self.part.replace(self.path)
        else:
            self.part.unlink(missing_ok=True)
