"""Lengths in tokens of all samples, encoded with the template many at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctor.dataset.convert import Sample
from doctor.dataset.findings import Collector, place_of
from doctor.dataset.numbers import Numbers, Tally
from doctor.dataset.records import Row
from doctor.dataset.sequences import Options, Sequence, build, plan
from doctor.dataset.templates import Element, Template
from doctor.dataset.tokenizer import Tokenizer
from doctor.dataset.tools import LengthUnknown, NotEncodable

_CHUNK = 256
"""Samples encoded at a time: enough for all cores, little enough to hold."""


class Lengths:
    """Collects the length of every sample; `flush` encodes what waits."""

    def __init__(self, tokenizer: Tokenizer, template: Template, options: Options, collector: Collector, end: str = "") -> None:
        self._end = end
        self._tokenizer, self._template, self._options, self._collector = tokenizer, template, options, collector
        self._waiting: list[tuple[list[list[list[Element]]], Row, str, str]] = []
        self._tally = Tally(options)

    def see(self, sample: Sample, row: Row, dataset: str, role: str) -> None:
        """Take one sample that LLaMA-Factory uses."""
        try:
            self._waiting.append((plan(sample, self._template, self._options, self._end), row, dataset, role))
        except NotEncodable as kind:
            self._collector.add(str(kind), dataset, role, row)
        except LengthUnknown as reason:
            self._tally.unknown[str(reason)] = self._tally.unknown.get(str(reason), 0) + 1
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
    def rebuilt(self) -> str:
        """The tokenizer's class, if transformers 5 may split texts otherwise than tokenizer.json."""
        return self._tokenizer.rebuilt

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
        if role == "train":
            trained = sum(sequence.trained for sequence in sequences)
            self._tally.add(longest, kept, cut=cut, lost=lost, trained=trained, place=place_of(row))

    def _is_lost(self, sequence: Sequence) -> bool:
        """Whether no token of the answer is trained; the end token that some templates append does not count."""
        if self._options.stage in ("pt", "ppo") or self._options.train_on_prompt or not sequence.answer:
            return False
        tail = int(self._template.efficient_eos and self._options.stage == "sft")
        return sequence.trained <= tail

    def numbers(self, config: Mapping[str, Any], gpus: int, evaluated: float) -> Numbers | None:
        """The figures; None if no length is known. `evaluated`: the share of the training samples that val_size takes."""
        self.flush()
        return self._tally.numbers(config, gpus, evaluated)
