"""The rows (file:line) of the batch of one optimizer step, with their lengths: what a run was training on when it failed."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from doctor.dataset import order
from doctor.dataset.convert import Sample
from doctor.dataset.findings import Place, place_of
from doctor.dataset.measured import sample_of, training_rows, used_rows
from doctor.dataset.sequences import build, options_of, plan
from doctor.dataset.sources import find_sources
from doctor.dataset.templates import template_of
from doctor.dataset.tokenizer import local_tokenizer
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
    order.check(config, sources, order.releases() if installed is None else installed)
    schedule = order.schedule_of(config, asked.world)
    used = used_rows(config, sources)
    kept = array("Q", (row for row in order.train_rows(len(used), schedule) if used[row]))
    batches = [one for step in range(asked.first, asked.last + 1) for one in order.batches_of(step, len(kept), schedule)]
    wanted = {kept[sample] for batch in batches for sample in batch.samples}
    found = {number: (row, source) for number, row, source in training_rows(config, sources) if number in wanted}
    lengths, unknown = _lengths(config, folder, {number: sample_of(row, source, config) for number, (row, source) in found.items()})
    rows = [
        StepRow(batch.step, batch.epoch, batch.rank, batch.number, source.name, place_of(row), lengths.get(kept[sample]))
        for batch in batches
        for sample in batch.samples
        for row, source in [found[kept[sample]]]
    ]
    rows.sort(key=lambda row: (row.step, -(row.tokens or 0)))
    each, total = order.steps_per_epoch(len(kept), schedule), order.total_steps(len(kept), schedule)
    return StepReport(name, (asked.first, asked.last), asked.world, rows, len(kept), each, total, unknown)


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
