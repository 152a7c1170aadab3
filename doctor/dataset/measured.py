"""Which rows of the training sets the loader keeps, and how long each is: one pass over the data, without the checks of inspect.py."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.dataset.convert import Sample, convert
from doctor.dataset.lengths import Measurer, measurer_of
from doctor.dataset.order import Unknown
from doctor.dataset.records import Row
from doctor.dataset.rows import read_rows
from doctor.dataset.sources import Source
from doctor.dataset.templates import template_of
from doctor.dataset.tools import LengthUnknown, NotEncodable
from doctor.readers.file import Progress


class Measured(msgspec.Struct):
    """One entry a row of all training sets, as the loader joins them.

    `used`: 1 where LLaMA-Factory keeps the row. `kept`: tokens after truncation (of a pair the longer sequence), 0 where that is not known.
    `unknown`: why some or all lengths are not known, a key of words/data.yaml, group unknown; "" if all are.
    """

    used: bytearray
    kept: array[int]
    unknown: str = ""


def training_rows(
    config: Mapping[str, Any], sources: Sequence[Source], progress: Progress | None = None
) -> Iterator[tuple[int, Row, Source]]:
    """The rows that the loader takes of all sets, with their number in the joined set. Raises Unknown for one that cannot be read."""
    limit = config.get("max_samples")
    most = limit if isinstance(limit, int) and not isinstance(limit, bool) else None
    number = 0
    for source in sources:
        taken = 0
        for row in read_rows(source.files, source.kind, progress):
            if row.value is None:
                raise Unknown("would_stop", f"{row.file}:{row.line}")
            if most is None or taken < most:
                yield number, row, source
                number, taken = number + 1, taken + 1


def sample_of(row: Row, source: Source, config: Mapping[str, Any]) -> Sample:
    """The sample that LLaMA-Factory makes of a row at the configuration's stage."""
    return convert(row.value or {}, source.attributes, str(config.get("stage") or "sft"))


def used_rows(
    config: Mapping[str, Any],
    sources: Sequence[Source],
    see: Callable[[Sample, Row, Source], None] | None = None,
    progress: Progress | None = None,
) -> bytearray:
    """For each row 1 where the loader keeps it; `see` is told every row.

    Raises Unknown for a row at which LLaMA-Factory stops: a run that trained had other data.
    """
    used = bytearray()
    for _, row, source in training_rows(config, sources, progress):
        sample = sample_of(row, source, config)
        if sample.fate == "crash":
            raise Unknown("would_stop", f"{row.file}:{row.line}")
        used.append(not sample.fate)
        if see is not None:
            see(sample, row, source)
    return used


def measure(config: Mapping[str, Any], folder: Path, sources: Sequence[Source], progress: Progress | None = None) -> Measured:
    """All rows. Raises Unknown, MissingPackage."""
    template = template_of(config)
    if template is None:
        return Measured(used_rows(config, sources), array("I"), "no_template")
    measurer, _, reason = measurer_of(config, folder, template)
    if measurer is None:
        return Measured(used_rows(config, sources), array("I"), reason)
    return _Measuring(config, sources, measurer).run(progress)


class _Measuring:
    def __init__(self, config: Mapping[str, Any], sources: Sequence[Source], measurer: Measurer) -> None:
        self._config, self._sources, self._measurer = config, sources, measurer
        self._kept = array("I")
        self._unknown = ""
        self._source: Source | None = None

    def run(self, progress: Progress | None) -> Measured:
        used = used_rows(self._config, self._sources, self._see, progress)
        self._take(self._measurer.flush())
        self._measurer.close()
        return Measured(used, self._kept, self._unknown)

    def _see(self, sample: Sample, row: Row, source: Source) -> None:
        if source is not self._source:
            self._source = source
            self._measurer.begin(source)
        self._kept.append(0)
        if sample.fate:
            return
        try:
            self._take(self._measurer.see(sample, row, len(self._kept) - 1))
        except (LengthUnknown, NotEncodable) as reason:
            self._unknown = self._unknown or str(reason)

    def _take(self, measured: Iterator[tuple[Any, Row, Any]]) -> None:
        for found, _, number in measured:
            self._kept[number] = found.kept
