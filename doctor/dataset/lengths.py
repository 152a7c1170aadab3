"""Lengths in tokens of all samples, encoded with the template many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from doctor.dataset.convert import Sample
from doctor.dataset.counts import Count, count
from doctor.dataset.findings import Collector, place_of
from doctor.dataset.images import Images, images_of
from doctor.dataset.memo import Memo
from doctor.dataset.numbers import Numbers, Tally
from doctor.dataset.records import Row
from doctor.dataset.sequences import Options, options_of, plan
from doctor.dataset.sources import Source
from doctor.dataset.templates import Element, Template
from doctor.dataset.tokenizer import Tokenizer, local_tokenizer, tokenizer_folder
from doctor.dataset.tools import LengthUnknown, NotEncodable

_CHUNK = 256
"""Samples encoded at a time: enough for all cores, little enough to hold."""


class Measure(NamedTuple):
    """Tokens of one sample: of the longest sequence before and after truncation, tokens cut, tokens trained; `lost`: no answer is left."""

    whole: int
    kept: int
    cut: int
    trained: int
    lost: int


_Waiting = list[tuple[list[list[list[Element]]] | Measure, Row, Any, Memo | None]]
"""What is to be encoded, or was measured before; and where its measure is to be kept."""


class Measurer:
    """Encodes samples many at a time, in their order; what was measured before is taken from the memo.

    The tokenizer works in a thread of its own beside the reading: it does not hold the interpreter's lock.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template,
        options: Options,
        end: str = "",
        memo: Memo | None = None,
        images: Images | None = None,
    ) -> None:
        self._tokenizer, self._template, self._options, self._end, self._memo = tokenizer, template, options, end, memo
        self._images = images
        self._waiting: _Waiting = []
        self._encoder = ThreadPoolExecutor(max_workers=1)
        self._encoding: tuple[_Waiting, Future[dict[str, Any]]] | None = None

    def begin(self, source: Source) -> None:
        """The samples that follow are of this data set."""
        if self._memo:
            self._memo.begin(source.attributes)

    def see(self, sample: Sample, row: Row, tag: Any) -> Iterator[tuple[Measure, Row, Any]]:
        """Take one sample; yields what is measured by now. Raises LengthUnknown, NotEncodable."""
        memo = None if sample.images or sample.videos or sample.audios else self._memo  # other files than the row's decide there
        if sample.images and self._images:
            sample = self._images.expanded(sample)
        known = memo.get(row.file, row.index) if memo else None
        waits = Measure(*known) if known else plan(sample, self._template, self._options, self._end)
        self._waiting.append((waits, row, tag, memo))
        return self._next() if len(self._waiting) >= _CHUNK else iter(())

    def flush(self) -> Iterator[tuple[Measure, Row, Any]]:
        """All that waits."""
        yield from self._next()
        yield from self._next()

    def _next(self) -> Iterator[tuple[Measure, Row, Any]]:
        """What was given to the tokenizer before; what waits now is encoded beside the reading of the samples that follow."""
        before, waiting = self._encoding, self._waiting
        self._encoding, self._waiting = None, []
        if waiting:
            groups = [turns for waits, *_ in waiting if not isinstance(waits, Measure) for turns in waits]
            self._encoding = waiting, self._encoder.submit(self._tokenizer.encode_all, groups)
        return self._measured(*before) if before else iter(())

    def _measured(self, waiting: _Waiting, encoding: Future[dict[str, Any]]) -> Iterator[tuple[Measure, Row, Any]]:
        self._tokenizer.remember(encoding.result())
        for waits, row, tag, memo in waiting:
            if isinstance(waits, Measure):
                yield waits, row, tag
                continue
            found = self._measure(count(waits, self._tokenizer, self._template, self._options))
            if memo:
                memo.put(row.file, row.index, found)
            yield found, row, tag

    def close(self) -> None:
        """Keep what was measured for the next time."""
        if self._memo and self._tokenizer.missing:
            self._memo.forget()  # the next time they are to be noticed again
        elif self._memo:
            self._memo.write()

    def _measure(self, counted: list[Count]) -> Measure:
        cut = sum(max(0, one.whole - one.kept) for one in counted) if self._options.stage not in ("pt", "ppo") else 0
        lost = any(self._is_lost(one) for one in counted)
        whole, kept = max(one.whole for one in counted), max(one.kept for one in counted)
        return Measure(whole, kept, cut, sum(one.trained for one in counted), int(lost))

    def _is_lost(self, counted: Count) -> bool:
        """Whether no token of the answer is trained; the end token that some templates append does not count."""
        if self._options.stage in ("pt", "ppo") or self._options.train_on_prompt or not counted.answer:
            return False
        tail = int(self._template.efficient_eos and self._options.stage == "sft")
        return counted.trained <= tail


def measurer_of(
    config: Mapping[str, Any], folder: Path, template: Template, *, kept: bool = True
) -> tuple[Measurer | None, Tokenizer | None, str]:
    """A measurer with the model's own tokenizer; without one, why: a key of words/data.yaml, group unknown.

    `kept`: take lengths from the cache, and keep them there.
    """
    tokenizer, reason = local_tokenizer(config, folder)
    if tokenizer is None:
        return None, None, reason
    tokenizer.prepare(template, config)
    options, end = options_of(config), tokenizer.end_of_text(str(config.get("template")))
    place = tokenizer_folder(config, folder)
    images = images_of(config, folder, template, place) if place else None
    memo = Memo(msgspec.msgpack.encode([tokenizer.identity, template, options, end]))
    return Measurer(tokenizer, template, options, end, memo if kept else None, images), tokenizer, ""


class Lengths:
    """Collects the length of every sample, and what of it is worth a finding."""

    def __init__(self, measurer: Measurer, tokenizer: Tokenizer, options: Options, collector: Collector) -> None:
        self._measurer, self._tokenizer, self._collector = measurer, tokenizer, collector
        self._tally = Tally(options)
        self.begin = measurer.begin

    def see(self, sample: Sample, row: Row, dataset: str, role: str) -> None:
        """Take one sample that LLaMA-Factory uses."""
        try:
            self._count(self._measurer.see(sample, row, (dataset, role)))
        except NotEncodable as kind:
            self._collector.add(str(kind), dataset, role, row)
        except LengthUnknown as reason:
            self._tally.unknown[str(reason)] = self._tally.unknown.get(str(reason), 0) + 1

    @property
    def rebuilt(self) -> str:
        """The tokenizer's class, if transformers 5 may split texts otherwise than tokenizer.json."""
        return self._tokenizer.rebuilt

    @property
    def missing_tokens(self) -> list[str]:
        """Tokens of the template that the tokenizer lacks."""
        return sorted(self._tokenizer.missing)

    def _count(self, measured: Iterator[tuple[Measure, Row, Any]]) -> None:
        for found, row, (dataset, role) in measured:
            for kind, here in (("cut", found.cut), ("answer_lost", found.lost)):
                if here:
                    self._collector.add(kind, dataset, role, row, f"{found.whole} tokens")
            if role == "train":
                place = place_of(row)
                self._tally.add(found.whole, found.kept, cut=found.cut, lost=bool(found.lost), trained=found.trained, place=place)

    def numbers(self, config: Mapping[str, Any], gpus: int, evaluated: float) -> Numbers | None:
        """The figures; None if no length is known. `evaluated`: the share of the training samples that val_size takes."""
        self._count(self._measurer.flush())
        self._measurer.close()
        return self._tally.numbers(config, gpus, evaluated)
