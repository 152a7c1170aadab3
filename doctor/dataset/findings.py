"""What is found in a data set: kinds with their severity, and a collector that counts them and keeps the first places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from doctor.dataset.records import Row

ERRORS = (
    "broken_json", "not_an_object", "not_utf8", "nested", "unreadable_file", "csv_fields", "mixed_types", "column_missing", "no_rows",
    "not_text", "history_shape", "messages_shape", "unknown_role", "tool_calls_shape", "tools_json", "function_json",
    "media_count", "media_missing", "media_unsupported", "token_missing", "all_dropped", "source_fatal",
)  # fmt: skip
"""LLaMA-Factory stops, most of them after minutes of loading."""
WARNINGS = (
    "role_order", "turn_count", "no_messages", "no_answer", "answer_not_text", "no_pair", "no_kto_tag", "wrong_stage",  # left out
    "empty_answer", "same_pair", "kto_one_sided", "contradiction", "overlap", "control_chars", "special_tokens", "secret",
    "answer_lost",
)  # fmt: skip
"""Samples that are left out, or that teach something wrong."""
NOTES = (
    "duplicate", "near_duplicate", "several_answers", "empty_prompt", "html", "mojibake", "unfilled", "cut", "compressed",
    "row_too_long", "not_here",
)  # fmt: skip
"""Good to know: often meant."""
SEVERITY = {**dict.fromkeys(ERRORS, "error"), **dict.fromkeys(WARNINGS, "warning"), **dict.fromkeys(NOTES, "note")}
_ORDER = {kind: number for number, kind in enumerate(SEVERITY)}
MAX_PLACES = 10
"""Places kept of each kind in each data set."""


class Place(msgspec.Struct, frozen=True):
    """Where a row is: the line counts from 1; without lines (parquet, arrow) it is 0 and `row` counts from 1."""

    file: str
    line: int
    row: int
    detail: str = ""


class Finding(msgspec.Struct):
    """One kind of finding in one data set. `total`: rows of the set that were looked at."""

    kind: str
    severity: str
    dataset: str
    role: str
    count: int = 0
    total: int = 0
    places: list[Place] = []

    @property
    def share(self) -> float:
        """The part of the rows that have it, 0..1."""
        return self.count / self.total if self.total else 0.0


Listener = Callable[[str, str, Row], None]
"""Is called with kind, data set and row of each single finding."""


class Collector:
    """Findings by data set and kind."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._found: dict[tuple[str, str, str], Finding] = {}
        self._listener = listener

    def add(self, kind: str, dataset: str, role: str, row: Row | None = None, detail: str = "") -> None:
        """Count one; `row` is None for what concerns the whole data set."""
        finding = self._found.setdefault((dataset, role, kind), Finding(kind, SEVERITY[kind], dataset, role, places=[]))
        finding.count += 1
        if row is not None and self._listener:
            self._listener(kind, dataset, row)
        if len(finding.places) < MAX_PLACES:
            finding.places.append(place_of(row, detail) if row is not None else Place("", 0, 0, detail))

    def add_at(self, kind: str, dataset: str, role: str, place: Place) -> None:
        """Count one whose row is no longer at hand."""
        finding = self._found.setdefault((dataset, role, kind), Finding(kind, SEVERITY[kind], dataset, role, places=[]))
        finding.count += 1
        if len(finding.places) < MAX_PLACES:
            finding.places.append(place)

    def has(self, kind: str, dataset: str) -> bool:
        """Whether this kind was found in the data set."""
        return any(key[0] == dataset and key[2] == kind for key in self._found)

    def drop(self, dataset: str, role: str, kinds: tuple[str, ...]) -> None:
        """Forget these kinds: something else explains them."""
        for kind in kinds:
            self._found.pop((dataset, role, kind), None)

    def replace(self, dataset: str, role: str, kind: str, detail: str) -> None:
        """Forget what rows of this data set gave, since one thing about the whole set explains it."""
        self.drop(dataset, role, tuple(SEVERITY))
        self.add(kind, dataset, role, None, detail)

    def findings(self, totals: dict[tuple[str, str], int]) -> list[Finding]:
        """All findings, the worst first; `totals`: rows looked at by data set and role."""
        for (dataset, role, _), finding in self._found.items():
            finding.total = totals.get((dataset, role), 0)
        return sorted(self._found.values(), key=lambda finding: _ORDER[finding.kind])


def place_of(row: Row, detail: str = "") -> Place:
    """The place of a row."""
    return Place(str(row.file), row.line, row.index + 1, detail)


def written(place: Place, folder: Path | None = None) -> str:
    """`file:line`, or `file row N`; relative to `folder` where the file is inside."""
    name = place.file
    if folder is not None and name:
        path = Path(name)
        name = str(path.relative_to(folder)) if path.is_relative_to(folder) else name
    if not name:
        return place.detail
    return spot(place, name)


def spot(place: Place, name: str) -> str:
    """`name:line`; with the row where a JSON array may hold several in a line, and without lines the row alone."""
    if not place.line:
        return f"{name} row {place.row}" if place.row else name
    counted = place.row and place.row != place.line and place.file.endswith(".json")
    return f"{name}:{place.line} (row {place.row})" if counted else f"{name}:{place.line}"
