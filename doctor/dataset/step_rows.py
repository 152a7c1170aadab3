"""The rows (file:line) of the batch of one optimizer step, with their lengths: what a run was training on when it failed."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from doctor.dataset import order
from doctor.dataset.convert import Sample
from doctor.dataset.findings import Place, place_of
from doctor.dataset.lengths import Measure, measurer_of
from doctor.dataset.measured import sample_of, training_rows, used_rows
from doctor.dataset.records import Row
from doctor.dataset.sources import Source, find_sources
from doctor.dataset.templates import template_of
from doctor.dataset.text_checks import sample_texts
from doctor.dataset.tools import LengthUnknown, NotEncodable

MAX_STEPS = 100
"""Steps of one question."""


class Asked(msgspec.Struct, frozen=True):
    """Optimizer steps `first` to `last` on `world` processes."""

    first: int
    last: int
    world: int = 1


class StepRow(msgspec.Struct):
    """One row of a step: the process that read it, its batch of the accumulation (from 1), and its length before truncation.

    `tokens`: of a pair the longer sequence; `trained`: tokens that the loss is computed on; None where they are not known. `characters`: of
    all texts.
    """

    step: int
    epoch: int
    rank: int
    batch: int
    dataset: str
    place: Place
    tokens: int | None = None
    trained: int | None = None
    characters: int = 0


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

    Raises Unknown where the order cannot be known.
    """
    sources = [source for source in find_sources(config, folder) if source.role == "train"]
    order.check(config, folder, sources, order.releases() if installed is None else installed)
    schedule = order.schedule_of(config, asked.world)
    used = used_rows(config, sources)
    kept = array("Q", (row for row in order.train_rows(len(used), schedule) if used[row]))
    batches = [one for step in range(asked.first, asked.last + 1) for one in order.batches_of(step, len(kept), schedule)]
    wanted = {kept[sample] for batch in batches for sample in batch.samples}
    found = {number: (row, source) for number, row, source in training_rows(config, sources) if number in wanted}
    samples = {number: sample_of(row, source, config) for number, (row, source) in found.items()}
    lengths, unknown = _lengths(config, folder, samples, found)
    rows = [
        _step_row(batch, *found[kept[sample]], samples[kept[sample]], lengths.get(kept[sample]))
        for batch in batches
        for sample in batch.samples
    ]
    rows.sort(key=lambda row: (row.step, -(row.tokens or 0), -row.characters))
    each, total = order.steps_per_epoch(len(kept), schedule), order.total_steps(len(kept), schedule)
    return StepReport(name, (asked.first, asked.last), asked.world, rows, len(kept), each, total, unknown)


def _step_row(batch: order.Batch, row: Row, source: Source, sample: Sample, found: Measure | None) -> StepRow:
    tokens, trained = (found.whole, found.trained) if found else (None, None)
    characters = sum(map(len, sample_texts(sample)))
    return StepRow(batch.step, batch.epoch, batch.rank, batch.number, source.name, place_of(row), tokens, trained, characters)


def _lengths(
    config: Mapping[str, Any], folder: Path, samples: Mapping[int, Sample], found: Mapping[int, tuple[Row, Source]]
) -> tuple[dict[int, Measure], str]:
    """Each sample whose length is known; why none is known (words/data.yaml, group unknown)."""
    template = template_of(config)
    if template is None:
        return {}, "no_template"
    measurer, _, reason = measurer_of(config, folder, template, kept=False)
    if measurer is None:
        return {}, reason
    out: dict[int, Measure] = {}
    for number, sample in samples.items():
        with contextlib.suppress(LengthUnknown, NotEncodable):
            out |= {tag: measure for measure, _, tag in measurer.see(sample, found[number][0], number)}
    return out | {tag: measure for measure, _, tag in measurer.flush()}, ""
