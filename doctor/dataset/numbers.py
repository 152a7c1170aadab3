"""What lengths in tokens mean for a run: cut, padding, packing, steps (LLaMA-Factory 0.9.5, transformers 5)."""

from __future__ import annotations

import bisect
import heapq
import math
import random
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from doctor.dataset.findings import Place
from doctor.dataset.sequences import Options

_LONGEST = 10
_MULTIPLE = 8
"""The collator pads to a multiple of 8 (train/*/workflow.py, pad_to_multiple_of); a proposed cutoff_len is one too."""
_MEGA_BATCHES = 50
"""Batches that transformers sorts together with group_by_length (trainer_pt_utils.py, get_length_grouped_indices)."""
_BINS = 40
"""Bars of the histogram at most."""
_SIMULATED = 100_000
"""Samples drawn at most to find the padding."""


class Numbers(msgspec.Struct, frozen=True):
    """Figures over the training samples with a known length. Lengths in tokens with the template, before truncation unless said.

    `padding`: share of padded tokens in a batch, 0..1; `padding_grouped` the same with group_by_length. `packed_rows`: rows after
    packing; `packing_gain`: how many times fewer rows. None where it is not known or does not apply. `bins`: samples by length, each bin
    `bin_tokens` wide, the first from 1 token on.
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
    bins: list[int] = []
    bin_tokens: int = 1


class Tally:
    """Figures of the training samples, added one by one."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._whole, self._kept = array("Q"), array("Q")
        self._longest: list[tuple[int, int, Place]] = []
        self.unknown: dict[str, int] = {}
        self._cut = self._cut_tokens = self._lost = self._trained = 0

    def add(self, whole: int, kept: int, *, cut: int, lost: bool, trained: int, place: Place) -> None:
        """One sample: tokens before and after truncation (of a pair the longer one), tokens that are cut, tokens that are trained."""
        self._whole.append(whole)
        self._kept.append(kept)
        self._cut, self._cut_tokens, self._lost = self._cut + bool(cut), self._cut_tokens + cut, self._lost + lost
        self._trained += trained
        heapq.heappush(self._longest, (whole, -len(self._whole), place))
        if len(self._longest) > _LONGEST:
            heapq.heappop(self._longest)

    def numbers(self, config: Mapping[str, Any], gpus: int, evaluated: float) -> Numbers | None:
        """The figures; None if no length is known. `evaluated`: the share of val_size."""
        if not self._whole:
            return None
        ordered = sorted(self._whole)
        count = len(ordered)
        batch = _whole_number(config.get("per_device_train_batch_size"), 8)
        packs = self._options.packing and self._options.stage == "sft"
        rows = packed_rows(self._kept, self._options.cutoff_len, _whole_number(config.get("preprocessing_batch_size"), 1000))
        sft = self._options.stage == "sft"
        return Numbers(
            samples=count, unknown=self.unknown, p50=_quantile(ordered, 0.5), p90=_quantile(ordered, 0.9), p99=_quantile(ordered, 0.99),
            longest=ordered[-1], mean=sum(ordered) / count, cutoff_len=self._options.cutoff_len, cut=self._cut, cut_tokens=self._cut_tokens,
            lost=self._lost, tokens_per_epoch=sum(self._kept), trained_per_epoch=self._trained,
            suggested_cutoff_len=_rounded(ordered[-1]), padding=None if packs else padding(self._kept, batch, grouped=False),
            padding_grouped=None if packs else padding(self._kept, batch, grouped=True), packed_rows=rows if sft else None,
            packing_gain=count / rows if sft and rows else None,
            steps_per_epoch=self._steps(config, rows if packs else count, batch, gpus, evaluated),
            gpus=gpus, bins=_bins(ordered), bin_tokens=_bin_tokens(ordered[-1]),
            longest_places=[(tokens, place) for tokens, _, place in sorted(self._longest, reverse=True)],
        )  # fmt: skip

    def _steps(self, config: Mapping[str, Any], rows: int, batch: int, gpus: int, evaluated: float) -> int | None:
        mixed = str(config.get("mix_strategy") or "concat") != "concat"
        if self.unknown or self._options.stage in ("pt", "ppo") or mixed or config.get("streaming"):
            return None
        batches = math.ceil((rows - math.ceil(rows * evaluated)) / (batch * gpus))
        return max(1, math.ceil(batches / _whole_number(config.get("gradient_accumulation_steps"), 1)))


def _whole_number(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


def _quantile(ordered: list[int], share: float) -> int:
    """The smallest length that at least this share of the samples does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _bin_tokens(longest: int) -> int:
    """The width of a bin: a round number of tokens."""
    least = max(1, math.ceil(longest / _BINS))
    unit: int = 10 ** (len(str(least)) - 1)
    return math.ceil(least / unit) * unit


def _bins(ordered: list[int]) -> list[int]:
    width = _bin_tokens(ordered[-1])
    bins = [0] * math.ceil(max(1, ordered[-1]) / width)
    for length in ordered:
        bins[max(0, length - 1) // width] += 1
    return bins


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
