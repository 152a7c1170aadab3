"""The rows (file:line) of the batch of one optimizer step, with their lengths: what a run was training on when it failed."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from doctor.dataset.convert import Sample, convert
from doctor.dataset.findings import Place, place_of
from doctor.dataset.order import VERSIONS, Unknown, batches_of, check, schedule_of, steps_per_epoch, total_steps, train_rows
from doctor.dataset.records import Row
from doctor.dataset.rows import read_rows
from doctor.dataset.sequences import build, options_of, plan
from doctor.dataset.sources import Source, find_sources
from doctor.dataset.templates import template_of
from doctor.dataset.tokenizer import local_tokenizer
from doctor.dataset.tools import LengthUnknown, NotEncodable
from doctor.support.optional import installed_version

MAX_STEPS = 100
"""Steps of one question."""
_DROPPED, _USED = 0, 1


class Asked(msgspec.Struct, frozen=True):
    """Optimizer steps `first` to `last` on `world` processes."""

    first: int
    last: int
    world: int = 1


class StepRow(msgspec.Struct):
    """One row of a step: the process that read it, its batch of the accumulation (from 1), and its length before truncation.

    `tokens`: of a pair the longer sequence; None where it is not known.
    """

    step: int
    epoch: int
    rank: int
    batch: int
    dataset: str
    place: Place
    tokens: int | None = None


class StepReport(msgspec.Struct):
    """The rows of the steps, the longest first. `samples`, `steps_per_epoch` and `total_steps` can be compared with the run's log."""

    config: str
    steps: tuple[int, int]
    world: int
    rows: list[StepRow]
    samples: int
    steps_per_epoch: int
    total_steps: int
    lengths_unknown: str = ""
    format: int = 1


def rows_of_steps(
    config: Mapping[str, Any], folder: Path, asked: Asked, name: str = "", installed: Mapping[str, str | None] | None = None
) -> StepReport:
    """The rows of the steps. `installed`: releases of the training's packages, by default those of this environment.

    Raises Unknown where the order cannot be known, MissingPackage without torch.
    """
    sources = [source for source in find_sources(config, folder) if source.role == "train"]
    check(config, sources, releases() if installed is None else installed)
    schedule = schedule_of(config, asked.world)
    fates = _fates(config, sources)
    kept = array("Q", (row for row in train_rows(len(fates), schedule) if fates[row] == _USED))
    batches = [one for step in range(asked.first, asked.last + 1) for one in batches_of(step, len(kept), schedule)]
    wanted = {kept[sample] for batch in batches for sample in batch.samples}
    found = {number: (row, source) for number, row, source in _rows(config, sources) if number in wanted}
    lengths, unknown = _lengths(config, folder, {number: _sample(row, source, config) for number, (row, source) in found.items()})
    rows = [
        StepRow(batch.step, batch.epoch, batch.rank, batch.number, source.name, place_of(row), lengths.get(kept[sample]))
        for batch in batches
        for sample in batch.samples
        for row, source in [found[kept[sample]]]
    ]
    rows.sort(key=lambda row: (row.step, -(row.tokens or 0)))
    each, total = steps_per_epoch(len(kept), schedule), total_steps(len(kept), schedule)
    return StepReport(name, (asked.first, asked.last), asked.world, rows, len(kept), each, total, unknown)


def releases() -> dict[str, str | None]:
    """The releases of this environment; None for what is not installed."""
    return {package: installed_version(package) for package in VERSIONS}


def _rows(config: Mapping[str, Any], sources: list[Source]) -> Iterator[tuple[int, Row, Source]]:
    """The rows that the loader takes of all sets, with their number in the joined set. Raises Unknown for one that cannot be read."""
    limit = config.get("max_samples")
    most = limit if isinstance(limit, int) and not isinstance(limit, bool) else None
    number = 0
    for source in sources:
        taken = 0
        for row in read_rows(source.files, source.kind):
            if row.value is None:
                raise Unknown("would_stop", f"{row.file}:{row.line}")
            if most is None or taken < most:
                yield number, row, source
                number, taken = number + 1, taken + 1


def _sample(row: Row, source: Source, config: Mapping[str, Any]) -> Sample:
    return convert(row.value or {}, source.attributes, str(config.get("stage") or "sft"))


def _fates(config: Mapping[str, Any], sources: list[Source]) -> bytearray:
    """For each row whether the loader keeps it. Raises Unknown for a row at which LLaMA-Factory stops: this run had other data."""
    fates = bytearray()
    for _, row, source in _rows(config, sources):
        sample = _sample(row, source, config)
        if sample.fate == "crash":
            raise Unknown("would_stop", f"{row.file}:{row.line}")
        fates.append(_DROPPED if sample.fate else _USED)
    return fates


def _lengths(config: Mapping[str, Any], folder: Path, samples: Mapping[int, Sample]) -> tuple[dict[int, int], str]:
    """Tokens of each sample whose length is known; why none is known (words/data.yaml, group unknown)."""
    template = template_of(config)
    if template is None:
        return {}, "no_template"
    tokenizer, reason = local_tokenizer(config, folder)
    if tokenizer is None:
        return {}, reason
    tokenizer.prepare(template, config)
    options, end = options_of(config), tokenizer.end_of_text(str(config.get("template")))
    out = {}
    for number, sample in samples.items():
        try:
            turns = plan(sample, template, options, end)
        except (LengthUnknown, NotEncodable):
            continue
        tokenizer.encode_all(turns)
        out[number] = max(sequence.whole for sequence in build(turns, tokenizer, template, options))
    return out, ""
