"""Lengths in tokens of all samples, and what they mean for a run: cut, padding, packing, steps (LLaMA-Factory 0.9.5, transformers 5)."""

from __future__ import annotations

import bisect
import heapq
import math
import random
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from doctor.dataset.convert import Sample
from doctor.dataset.findings import Collector, Place, place_of
from doctor.dataset.rows import Row
from doctor.dataset.sequences import Options, Sequence, build, plan
from doctor.dataset.templates import Element, Template
from doctor.dataset.tokenizer import Tokenizer
from doctor.dataset.tools import LengthUnknown, NotEncodable

_CHUNK = 256
"""Samples encoded at a time: enough for all cores, little enough to hold."""
_LONGEST = 10
_MULTIPLE = 8
"""The collator pads to a multiple of 8 (train/*/workflow.py, pad_to_multiple_of); a proposed cutoff_len is one too."""
_MEGA_BATCHES = 50
"""Batches that transformers sorts together with group_by_length (trainer_pt_utils.py, get_length_grouped_indices)."""
_SIMULATED = 100_000
"""Samples drawn at most to find the padding."""


class Numbers(msgspec.Struct, frozen=True):
    """Figures over the training samples with a known length. Lengths in tokens with the template, before truncation unless said.

    `padding`: share of padded tokens in a batch, 0..1; `padding_grouped` the same with group_by_length. `packed_rows`: rows after
    packing; `packing_gain`: how many times fewer rows. None where it is not known or does not apply.
    """

    samples: int
    unknown: dict[str, int]
    p50: int
    p90: int
    p99: int
    longest: int
    mean: float
    cutoff_len: int
    cut: int
    cut_tokens: int
    lost: int
    tokens_per_epoch: int
    trained_per_epoch: int
    suggested_cutoff_len: int
    padding: float | None = None
    padding_grouped: float | None = None
    packed_rows: int | None = None
    packing_gain: float | None = None
    steps_per_epoch: int | None = None
    gpus: int = 1
    longest_places: list[tuple[int, Place]] = []


class Lengths:
    """Collects the length of every sample; `flush` encodes what waits."""

    def __init__(self, tokenizer: Tokenizer, template: Template, options: Options, collector: Collector, end: str = "") -> None:
        self._end = end
        self._tokenizer, self._template, self._options, self._collector = tokenizer, template, options, collector
        self._waiting: list[tuple[list[list[list[Element]]], Row, str, str]] = []
        self._whole, self._kept, self._train = array("Q"), array("Q"), array("b")
        self._longest: list[tuple[int, int, Place]] = []
        self._unknown: dict[str, int] = {}
        self._cut = self._cut_tokens = self._lost = self._trained = 0

    def see(self, sample: Sample, row: Row, dataset: str, role: str) -> None:
        """Take one sample that LLaMA-Factory uses."""
        try:
            self._waiting.append((plan(sample, self._template, self._options, self._end), row, dataset, role))
        except NotEncodable as kind:
            self._collector.add(str(kind), dataset, role, row)
        except LengthUnknown as reason:
            self._unknown[str(reason)] = self._unknown.get(str(reason), 0) + 1
        if len(self._waiting) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        """Encode all that waits."""
        self._tokenizer.encode_all(conversation for turns, *_ in self._waiting for conversation in turns)
        for turns, row, dataset, role in self._waiting:
            self._count(build(turns, self._tokenizer, self._template, self._options), row, dataset, role)
        self._waiting.clear()
        self._tokenizer.forget()

    @property
    def missing_tokens(self) -> list[str]:
        """Tokens of the template that the tokenizer lacks."""
        return sorted(self._tokenizer.missing)

    def _count(self, sequences: list[Sequence], row: Row, dataset: str, role: str) -> None:
        longest = max(sequence.whole for sequence in sequences)
        kept = max(len(sequence.ids) for sequence in sequences)
        cut = sum(max(0, sequence.whole - len(sequence.ids)) for sequence in sequences) if self._options.stage not in ("pt", "ppo") else 0
        if cut:
            self._collector.add("cut", dataset, role, row, f"{longest} tokens")
        lost = any(self._is_lost(sequence) for sequence in sequences)
        if lost:
            self._collector.add("answer_lost", dataset, role, row, f"{longest} tokens")
        if role != "train":
            return
        self._whole.append(longest)
        self._kept.append(kept)
        self._cut, self._cut_tokens, self._lost = self._cut + bool(cut), self._cut_tokens + cut, self._lost + lost
        self._trained += sum(sequence.trained for sequence in sequences)
        heapq.heappush(self._longest, (longest, -row.index, place_of(row)))
        if len(self._longest) > _LONGEST:
            heapq.heappop(self._longest)

    def _is_lost(self, sequence: Sequence) -> bool:
        """Whether no token of the answer is trained; the end token that some templates append does not count."""
        if self._options.stage in ("pt", "ppo") or self._options.train_on_prompt or not sequence.answer:
            return False
        tail = int(self._template.efficient_eos and self._options.stage == "sft")
        return sequence.trained <= tail

    def numbers(self, config: Mapping[str, Any], gpus: int, rows_dropped_by_split: float) -> Numbers | None:
        """The figures; None if no length is known. `rows_dropped_by_split`: the share of val_size."""
        self.flush()
        if not self._whole:
            return None
        ordered = sorted(self._whole)
        count = len(ordered)
        batch = _whole_number(config.get("per_device_train_batch_size"), 8)
        packs = self._options.packing and self._options.stage == "sft"
        rows = packed_rows(self._kept, self._options.cutoff_len, _whole_number(config.get("preprocessing_batch_size"), 1000))
        sft = self._options.stage == "sft"
        return Numbers(
            samples=count, unknown=self._unknown, p50=_quantile(ordered, 0.5), p90=_quantile(ordered, 0.9), p99=_quantile(ordered, 0.99),
            longest=ordered[-1], mean=sum(ordered) / count, cutoff_len=self._options.cutoff_len, cut=self._cut, cut_tokens=self._cut_tokens,
            lost=self._lost, tokens_per_epoch=sum(self._kept), trained_per_epoch=self._trained,
            suggested_cutoff_len=_rounded(ordered[-1]), padding=None if packs else padding(self._kept, batch, grouped=False),
            padding_grouped=None if packs else padding(self._kept, batch, grouped=True), packed_rows=rows if sft else None,
            packing_gain=count / rows if sft and rows else None,
            steps_per_epoch=self._steps(config, rows if packs else count, batch, gpus, rows_dropped_by_split),
            gpus=gpus, longest_places=[(tokens, place) for tokens, _, place in sorted(self._longest, reverse=True)],
        )  # fmt: skip

    def _steps(self, config: Mapping[str, Any], rows: int, batch: int, gpus: int, evaluated: float) -> int | None:
        if self._unknown or self._options.stage in ("pt", "ppo") or str(config.get("mix_strategy") or "concat") != "concat":
            return None
        batches = math.ceil((rows - math.ceil(rows * evaluated)) / (batch * gpus))
        return max(1, math.ceil(batches / _whole_number(config.get("gradient_accumulation_steps"), 1)))


def _whole_number(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


def _quantile(ordered: list[int], share: float) -> int:
    """The smallest length that at least this share of the samples does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _rounded(tokens: int) -> int:
    return math.ceil(tokens / _MULTIPLE) * _MULTIPLE


def packed_rows(lengths: array[int], cutoff: int, batch: int) -> int:
    """Rows after greedy packing of each `batch` samples, in their order (processor_utils.py, greedy_knapsack)."""
    rows = 0
    for start in range(0, len(lengths), batch):
        rows += len(greedy_knapsack([length for length in lengths[start : start + batch] if length <= cutoff], cutoff))
    return rows


def greedy_knapsack(lengths: list[int], capacity: int) -> list[list[int]]:
    """Always the longest that still fits into the row that is being filled."""
    lengths = sorted(lengths)
    rows = []
    while lengths:
        row: list[int] = []
        left = capacity
        while (at := bisect.bisect(lengths, left) - 1) >= 0:
            left -= lengths[at]
            row.append(lengths.pop(at))
        rows.append(row)
    return rows


def padding(lengths: array[int], batch: int, *, grouped: bool) -> float:
    """The share of padding in batches of random order (a drawn order: the true one differs by a few tenths of a percent)."""
    order = list(lengths)
    random.Random(0).shuffle(order)  # noqa: S311 (a sample, no secret)
    order = order[:_SIMULATED]
    if grouped:
        order = list(_sorted_in_pieces(order, min(len(order) // (batch * 4), _MEGA_BATCHES) * batch or len(order)))
    padded = 0
    for start in range(0, len(order), batch):
        piece = order[start : start + batch]
        padded += _rounded(max(piece)) * len(piece)
    return 1 - sum(order) / padded if padded else 0.0


def _sorted_in_pieces(lengths: list[int], size: int) -> Iterator[int]:
    for start in range(0, len(lengths), size):
        yield from sorted(lengths[start : start + size], reverse=True)
