"""The longest sequence that a training will read: what the peak of its memory follows, in place of cutoff_len."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from doctor.dataset import order
from doctor.dataset.measured import Measured, measure
from doctor.dataset.order import Schedule, Unknown
from doctor.dataset.sequences import options_of
from doctor.dataset.sources import Source, files_of, find_sources
from doctor.errors import DoctorError
from doctor.readers.file import Progress

SMALL_BYTES = 8 << 20
"""Data sets whose lengths are computed without being asked for: some 10,000 samples, three seconds at the first time."""


class Longest(msgspec.Struct, frozen=True):
    """Tokens of the longest sequence after truncation, and how it is known.

    `source`: `longest_batch` (of the batches that this sampler and seed draw), `longest_sample` (of all training samples), "" where it is
    not known: `unknown` then says why, a key of words/data.yaml, group unknown. `samples`: of the training, without those of val_size where
    the order is known.
    """

    tokens: int = 0
    source: Literal["longest_batch", "longest_sample", ""] = ""
    unknown: str = ""
    samples: int = 0

    def facts(self) -> dict[str, Any]:
        """For doctor.memory.estimate."""
        return {"length": self.tokens, "length.source": self.source} if self.source else {}


def longest(
    config: Mapping[str, Any],
    folder: Path,
    *,
    world: int = 1,
    most_bytes: int | None = None,
    installed: Mapping[str, str | None] | None = None,
    progress: Progress | None = None,
) -> Longest:
    """The longest sequence of the training. `folder`: the working directory of the training; `world`: its processes.

    `most_bytes`: data sets that are larger together are not read. `installed`: releases of the training's packages, by default those of
    this environment. `progress` is told how far the reading is. Never raises for what the data holds.
    """
    sources = [source for source in find_sources(config, folder) if source.role == "train"]
    if options_of(config).packing:
        return Longest(unknown="packing")
    if not sources or any(source.problem or source.attributes.num_samples is not None for source in sources):
        return Longest(unknown="not_readable")
    if most_bytes is not None and bytes_of(sources) > most_bytes:
        return Longest(unknown="large")
    try:
        measured = measure(config, folder, sources, progress)
    except (Unknown, DoctorError):
        return Longest(unknown="not_readable")
    if measured.unknown or not any(measured.kept):
        return Longest(unknown=measured.unknown or "no_samples")
    return _of(measured, config, folder, sources, world, order.releases() if installed is None else installed)


def bytes_of(sources: Sequence[Source]) -> int:
    """The size of all files."""
    total = 0
    for file in files_of(list(sources)):
        try:
            total += file.stat().st_size
        except OSError:
            continue
    return total


def _of(
    measured: Measured,
    config: Mapping[str, Any],
    folder: Path,
    sources: Sequence[Source],
    world: int,
    installed: Mapping[str, str | None],
) -> Longest:
    try:
        order.check(config, folder, sources, installed)
        schedule = order.schedule_of(config, world)
        rows = [row for row in order.train_rows(len(measured.used), schedule) if measured.used[row]]
        return Longest(max(measured.kept[rows[sample]] for sample in read_samples(len(rows), schedule)), "longest_batch", samples=len(rows))
    except (Unknown, DoctorError, ValueError):
        return Longest(max(measured.kept), "longest_sample", samples=sum(measured.used))


def read_samples(samples: int, schedule: Schedule) -> Iterable[int]:
    """The indices of the samples that the training reads. Raises Unknown for a training without a batch."""
    each = order.steps_per_epoch(samples, schedule)
    last = order.total_steps(samples, schedule)
    if last >= each and not schedule.drop_last:
        return range(samples)  # a whole epoch reads them all
    steps = range(1, last + 1)
    return array("Q", (sample for step in steps for batch in order.batches_of(step, samples, schedule) for sample in batch.samples))
