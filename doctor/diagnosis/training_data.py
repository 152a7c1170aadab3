"""The data sets of a run where they lie on this machine: how long the samples are, and which of them a failed step read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.core.events import Fact, Where
from doctor.core.run import Run
from doctor.dataset import order
from doctor.dataset.longest import SMALL_BYTES, Longest, bytes_of, longest
from doctor.dataset.order import Unknown
from doctor.dataset.sources import Source, files_of, find_sources, info_file
from doctor.dataset.step_rows import Asked, StepReport, StepRow, rows_of_steps
from doctor.diagnosis.data_lengths import MayRead, length_facts, nothing
from doctor.diagnosis.failed_step import MOST_STEPS
from doctor.errors import DoctorError
from doctor.rulebook.findings import Finding, RankedFinding, SampleRow, Samples

NAMED_BYTES = 256 << 20
"""Larger data sets are not gone through for the samples of a step: five seconds."""
MOST_ROWS = 50
"""Samples that a finding holds."""
_PARENTS = 3
"""Folders above the configuration's that may be the one the training was started in: LLaMA-Factory's own lie two below it."""
_OF_THE_BATCH = ("out_of_memory", "nonfinite", "loss_spike", "data")
"""Symptoms that one sample can bring about; so can an exception that no rule lists."""
_MISSING_LABELS = "all_labels_masked"
_PREFETCHED = 2
"""Batches that a worker of the data loader prepares ahead (torch DataLoader, prefetch_factor)."""


class TrainingData:
    """The data of one run. `paths`: what the run was read from; `config_file`: its YAML, where there is one."""

    def __init__(self, run: Run, paths: Sequence[str | Path], config_file: str | None, may_read: MayRead) -> None:
        self._run, self._may_read = run, may_read
        self._config: Mapping[str, Any] = run.config
        self._places = [*([config_file] if config_file else []), *paths]
        self._installed = {package: run.facts.get(f"versions.{package}") or known for package, known in order.releases().items()}
        self._folder = self._find()

    def longest(self) -> Longest:
        """The longest sequence that the run read; unknown where its data sets are not here, or were others."""
        if self._folder is None:
            return Longest(unknown="not_readable")
        found = longest(self._config, self._folder, world=self._world, most_bytes=SMALL_BYTES, installed=self._installed)
        told = self._run.facts.get("examples.num")
        return found if told is None or found.samples == told else Longest(unknown="not_readable")

    def lengths(self, ranked: Sequence[RankedFinding], where: Where) -> Iterator[Fact]:
        """The longest sequence as facts, where memory is to be predicted."""
        if any(one.role == "root" and one.finding.rule.symptom == "out_of_memory" for one in ranked):
            yield from length_facts(self.longest(), where)

    def of(self, ranked: RankedFinding, failed: tuple[int, int] | None) -> RankedFinding:
        """The finding with the samples that it is about; as it is, where that cannot be known."""
        finding = ranked.finding
        steps = self._within(_steps_of(finding, failed, self._config))
        if ranked.role != "root" or steps is None or self._folder is None:
            return ranked
        try:
            report = rows_of_steps(self._config, self._folder, Asked(*steps, self._world), installed=self._installed)
        except (Unknown, DoctorError, ValueError):
            return ranked
        if not self._same(report):
            return ranked
        if finding.rule.cause == _MISSING_LABELS and all(row.trained != 0 for row in report.rows):
            return ranked  # not truncation: the samples have labels
        return msgspec.structs.replace(ranked, finding=msgspec.structs.replace(finding, samples=_samples(report, finding, self._folder)))

    def _within(self, steps: tuple[int, int] | None) -> tuple[int, int] | None:
        """The steps that the run planned."""
        planned = self._run.facts.get("steps.planned")
        return steps if steps is None or not isinstance(planned, int) else (steps[0], max(steps[0], min(steps[1], planned)))

    @property
    def _world(self) -> int:
        world = self._run.facts.get("world_size")
        return world if isinstance(world, int) and world > 0 else 1

    def _same(self, report: StepReport) -> bool:
        """Whether the run's own count of samples and steps is that of the data found here; one of them has to be known."""
        told = {"examples.num": report.samples, "steps.planned": report.total_steps}
        known = {name: self._run.facts[name] for name in told if name in self._run.facts}
        return bool(known) and all(told[name] == value for name, value in known.items())

    def _find(self) -> Path | None:
        """The folder in which the training was started: there `dataset_dir` names every data set."""
        if self._may_read is nothing or not self._config.get("dataset"):
            return None
        for folder in _folders(self._places):
            if not self._may_read(info_file(self._config, folder)):
                continue
            sources = [source for source in find_sources(self._config, folder) if source.role == "train"]
            if sources and not any(source.problem for source in sources):
                return folder if self._allowed(sources) else None
        return None

    def _allowed(self, sources: list[Source]) -> bool:
        return bytes_of(sources) <= NAMED_BYTES and all(self._may_read(file) for file in files_of(sources))


def _folders(places: Sequence[str | Path]) -> Iterator[Path]:
    """The working directory, then the folders of these files and those above them."""
    found = [Path()]
    for place in places:
        path = Path(place)
        found += [path] if path.is_dir() else []
        found += list(path.absolute().parents)[: _PARENTS + 1]
    yield from dict.fromkeys(found)


def _steps_of(finding: Finding, failed: tuple[int, int] | None, config: Mapping[str, Any]) -> tuple[int, int] | None:
    """The steps whose samples may be to blame."""
    blamed = finding.rule.fallback or finding.rule.symptom in _OF_THE_BATCH or finding.rule.cause == _MISSING_LABELS
    if not blamed:
        return None
    first, _, last = str(finding.first.facts.get("bad_steps") or "").partition("-")
    if first.isdigit():
        return int(first), int(last or first)
    if finding.rule.cause == _MISSING_LABELS and finding.steps:
        return finding.steps[0], finding.steps[0]
    if failed is None or finding.first.facts.get("phase") not in ("train", None):
        return None
    workers = config.get("dataloader_num_workers")
    if "worker" not in finding.rule.id or not isinstance(workers, int):
        return failed
    last_step = failed[1] + workers * _PREFETCHED  # a killed worker may have been preparing any of the batches ahead
    return (failed[0], last_step) if last_step < failed[0] + MOST_STEPS else None


def _samples(report: StepReport, finding: Finding, folder: Path) -> Samples:
    """Those without a label first, then the longest; of a process that failed before those of others."""

    def rank(row: StepRow) -> tuple[Any, ...]:
        return row.rank not in finding.ranks if finding.ranks else False, row.trained != 0, -(row.tokens or 0), -row.characters

    rows = sorted(report.rows, key=rank)[:MOST_ROWS]
    return Samples(report.steps, report.world, len(report.rows), tuple(_sample_row(row, folder) for row in rows))


def _sample_row(row: StepRow, folder: Path) -> SampleRow:
    place = row.place
    return SampleRow(_shown(place.file, folder), place.line, place.row, row.step, row.rank, row.tokens, row.trained)


def _shown(file: str, folder: Path) -> str:
    path = Path(file)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else file
