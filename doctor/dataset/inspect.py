"""Goes through every data set of a configuration once: structure, texts, repeats, media and lengths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from doctor.dataset.ask import ask, tally
from doctor.dataset.attributes import needed_columns
from doctor.dataset.column_types import ColumnTypes
from doctor.dataset.convert import Sample, convert
from doctor.dataset.findings import Collector, Finding, Listener, Place, place_of
from doctor.dataset.lengths import Lengths, measurer_of
from doctor.dataset.media import media_problems
from doctor.dataset.numbers import Numbers
from doctor.dataset.records import Row
from doctor.dataset.repeats import MAX_NEAR, Repeats
from doctor.dataset.rows import read_rows
from doctor.dataset.sequences import options_of
from doctor.dataset.sources import Source, find_sources, media_folder
from doctor.dataset.templates import special_tokens, template_of
from doctor.dataset.text_checks import sound, special_pattern, text_problems
from doctor.privacy.secrets import clean
from doctor.readers.file import Progress
from doctor.support.optional import MissingPackage


class Look(msgspec.Struct, frozen=True):
    """How closely to look: `rows` of each data set at most (0: all), near duplicates, lengths; `gpus` for steps per epoch.

    `ask`: the LLaMA-Factory of this environment computes the lengths.
    """

    rows: int = 0
    near: bool = True
    lengths: bool = True
    gpus: int = 1
    ask: bool = False


class DatasetSeen(msgspec.Struct):
    """One data set: rows read, samples that LLaMA-Factory uses, samples that it leaves out."""

    name: str
    role: str
    files: list[str]
    rows: int = 0
    used: int = 0
    dropped: int = 0
    complete: bool = True
    problem: str = ""
    detail: str = ""


class DataReport(msgspec.Struct):
    """Everything that was found. `unknown` says why there are no `numbers`: a key of words/data.yaml, group unknown.

    `rebuilt`: the tokenizer's class, where transformers 5 may split texts otherwise than tokenizer.json, by which they were counted.
    """

    config: str
    datasets: list[DatasetSeen]
    findings: list[Finding]
    numbers: Numbers | None
    unknown: str
    template: str
    near_compared: int
    near_known: bool
    near_asked: bool
    near_limited: bool
    unknown_detail: str = ""
    rebuilt: str = ""
    format: int = 1


def inspect(
    config: Mapping[str, Any],
    folder: Path,
    look: Look,
    *,
    name: str = "",
    listener: Listener | None = None,
    progress: Progress | None = None,
) -> DataReport:
    """Look at all data sets of `config`; `folder` is the working directory of the training. Never raises for what the data holds.

    `listener` is told each single finding, `progress` how far the reading is.
    """
    return _Inspection(config, folder, look, listener, progress).run(name)


class _Inspection:
    def __init__(self, config: Mapping[str, Any], folder: Path, look: Look, listener: Listener | None, progress: Progress | None) -> None:
        self._config, self._folder, self.look, self.progress = config, folder, look, progress
        self.stage = str(config.get("stage") or "sft")
        self.collector = Collector(listener)
        self._repeats = Repeats(self.collector, near=look.near)
        self._media = media_folder(config, folder)
        self._template = template_of(config)
        self._accepted = frozenset(self._template.media) if self._template else None
        self._lengths, self._unknown, self._special = self._prepare_lengths()
        limit = config.get("max_samples")
        self.places: list[Place] = []
        self._unknown_detail = ""
        self._resampled = False
        self.max_samples = limit if isinstance(limit, int) and not isinstance(limit, bool) else None

    def _prepare_lengths(self) -> tuple[Lengths | None, str, re.Pattern[str] | None]:
        marks = special_tokens(self._template) if self._template else set()
        if self._template is None:
            return None, "no_template", None
        if not self.look.lengths or self.look.ask:
            return None, "not_asked", special_pattern(marks)
        measurer, tokenizer, reason = measurer_of(self._config, self._folder, self._template)
        if measurer is None or tokenizer is None:
            return None, reason, special_pattern(marks)
        return Lengths(measurer, tokenizer, options_of(self._config), self.collector), "", special_pattern(marks)

    def run(self, name: str) -> DataReport:
        """All data sets, those for training first."""
        seen = [self._dataset(source) for source in find_sources(self._config, self._folder)]
        totals = {(one.name, one.role): one.rows for one in seen}
        numbers = self._asked(seen) if self.look.ask else self._counted(seen)
        if numbers and (self._resampled or not all(one.complete and not one.problem for one in seen if one.role == "train")):
            numbers = msgspec.structs.replace(numbers, steps_per_epoch=None)  # of a part of the samples none can be told
        if numbers and self._lengths and self._lengths.missing_tokens:
            first = next(one for one in seen if one.used)
            self.collector.add("token_missing", first.name, first.role, None, ", ".join(self._lengths.missing_tokens))
        unknown = "" if numbers else self._unknown or "no_samples"
        return DataReport(
            name, seen, self.collector.findings(totals), numbers, unknown, str(self._config.get("template") or ""),
            self._repeats.compared, self._repeats.near_known, self.look.near, self._repeats.compared >= MAX_NEAR,
            self._unknown_detail, self._lengths.rebuilt if numbers and self._lengths else "",
        )  # fmt: skip

    def _counted(self, seen: list[DatasetSeen]) -> Numbers | None:
        return self._lengths.numbers(self._config, self.look.gpus, self._evaluated(seen)) if self._lengths else None

    def _asked(self, seen: list[DatasetSeen]) -> Numbers | None:
        """The figures from LLaMA-Factory itself."""
        answer = ask(self._config, self._folder)
        self._unknown, self._unknown_detail = ("asked", clean(answer.error)) if answer.error else ("asked_otherwise", "")
        if answer.error:
            return None
        name = next((one.name for one in seen if one.role == "train"), "")
        tail = int(bool(self._template and self._template.efficient_eos and self.stage == "sft"))
        found = tally(answer, options_of(self._config), self.places, self.collector, name, tail=tail)
        return found.numbers(self._config, self.look.gpus, self._evaluated(seen)) if found else None

    def _evaluated(self, seen: list[DatasetSeen]) -> float:
        """The share of the training samples that val_size takes."""
        size = self._config.get("val_size")
        rows = sum(one.used for one in seen if one.role == "train")
        if not isinstance(size, int | float) or isinstance(size, bool) or size <= 0 or not rows:
            return 0.0
        return min(1.0, size / rows) if size > 1 else float(size)

    def _dataset(self, source: Source) -> DatasetSeen:
        seen = DatasetSeen(source.name, source.role, [str(file) for file in source.files], problem=source.problem, detail=source.detail)
        if source.problem:
            self.collector.add("source_fatal" if source.fatal else "not_here", source.name, source.role, None, source.detail)
            return seen
        self._resampled |= source.role == "train" and source.attributes.num_samples is not None
        if self._lengths:
            self._lengths.begin(source)
        try:
            _DatasetWalk(self, source, seen).walk()
        except MissingPackage as error:
            seen.problem, seen.detail, seen.complete = "no_reader", str(error), False
            self.collector.add("not_here", source.name, source.role, None, str(error))
        return seen

    def sample(self, sample: Sample, row: Row, source: Source) -> None:
        """Check one sample that LLaMA-Factory uses."""
        name, role = source.name, source.role
        found = _content_problems(sample, self.stage)
        if not (plain := sound(sample, self._special)):
            found += text_problems(sample, self._special)
        if not plain or sample.images or sample.videos or sample.audios:
            found += media_problems(sample, self._media, self._accepted)
        for kind, detail in found:
            self.collector.add(kind, name, role, row, detail)
        self._repeats.see(sample, row, name, role)
        if self.look.ask and role == "train":
            self.places.append(place_of(row))
        if self._lengths:
            self._lengths.see(sample, row, name, role)


def _content_problems(sample: Sample, stage: str) -> list[tuple[str, str]]:
    """Empty prompts and answers, and pairs of two equal answers."""
    found = []
    contents = [str(turn.content or "").strip() for turn in sample.response]
    rated = stage == "kto"
    if stage in ("rm", "dpo") and contents[0] == contents[1]:
        found.append(("same_pair", ""))
    elif (not any(contents) if rated else not all(contents)) and stage not in ("pt", "ppo"):
        found.append(("empty_answer", ""))
    if sample.prompt and not str(sample.prompt[-1].content or "").strip():
        found.append(("empty_answer" if stage == "pt" else "empty_prompt", ""))
    return found


class _DatasetWalk:
    """One pass over one data set."""

    def __init__(self, inspection: _Inspection, source: Source, seen: DatasetSeen) -> None:
        self._inspection, self._source, self._seen = inspection, source, seen
        self._types = ColumnTypes()
        self._ratings: set[bool] = set()

    def walk(self) -> None:
        """All rows, then what only the whole set shows."""
        for row in read_rows(self._source.files, self._source.kind, self._inspection.progress):
            if self._inspection.look.rows and self._seen.rows >= self._inspection.look.rows:
                self._seen.complete = False
                break
            self._seen.rows += 1
            self._row(row)
        self._finish()

    def _add(self, kind: str, row: Row | None, detail: str = "") -> None:
        self._inspection.collector.add(kind, self._source.name, self._source.role, row, detail)

    def _row(self, row: Row) -> None:
        if row.value is None:
            self._add(row.problem, row, row.detail)
            return
        self._types.see(row, row.value)
        limit = self._inspection.max_samples
        if limit is not None and self._seen.used + self._seen.dropped >= limit:
            return  # the loader takes the first max_samples rows; the file is parsed to its end all the same
        sample = convert(row.value, self._source.attributes, self._inspection.stage)
        tag = self._source.attributes.kto_tag
        if tag and isinstance(rating := row.value.get(tag), bool):
            self._ratings.add(rating)
        if sample.fate:
            self._seen.dropped += 1
            self._add(sample.reason, row, sample.detail)
        else:
            self._seen.used += 1
            self._inspection.sample(sample, row, self._source)

    def _finish(self) -> None:
        if self._seen.rows == 0:
            self._add("no_rows", None)
            return
        self._mixed_types()
        readable = self._types.columns()
        missing = [column for column in needed_columns(self._source.attributes) if column not in readable] if readable else []
        if missing:
            self._inspection.collector.replace(self._source.name, self._source.role, "column_missing", ", ".join(missing))
        elif readable and not self._seen.used:
            self._add("all_dropped", None)
        if self._inspection.stage == "kto" and len(self._ratings) == 1:
            self._add("kto_one_sided", None, str(next(iter(self._ratings))).lower())

    def _mixed_types(self) -> None:
        """Arrow wants one type in a column: rows of the rarer types are named."""
        for row, detail in self._types.mixed():
            self._add("mixed_types", row, detail)
        if self._inspection.collector.has("mixed_types", self._source.name):
            self._inspection.collector.drop(self._source.name, self._source.role, ("answer_not_text",))
