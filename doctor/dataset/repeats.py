"""Samples that are there twice: exact and near duplicates, train samples in the evaluation set, contradictory answers."""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from doctor.dataset.convert import Sample
from doctor.dataset.findings import Collector, Place, place_of, spot
from doctor.dataset.records import Row
from doctor.support.optional import optional

_SHINGLE = 5
"""Words in a shingle, as in the deduplication of FineWeb (Penedo et al. 2024) and RefinedWeb."""
SIMILAR = 0.8
"""Jaccard similarity of near duplicates (RefinedWeb, Penedo et al. 2023, appendix G: 0.8)."""
_PERMUTATIONS = 128
_MIN_SHINGLES = 8
"""Shorter texts share most shingles by chance."""
MAX_NEAR = 20_000
"""Samples compared for near duplicates: datasketch needs 0.5 ms for each."""
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")


class _First(msgspec.Struct, gc=False):
    """Where a prompt stood first, and the digest of its answer."""

    answer: int
    place: Place
    several: bool = False


class Repeats:
    """All samples so far, by digest."""

    def __init__(self, collector: Collector, *, near: bool) -> None:
        self._add = collector.add
        self._samples: dict[int, Place] = {}
        self._prompts: dict[int, _First] = {}
        self._eval_samples: dict[int, Place] = {}
        self._near = _NearDuplicates(collector) if near else None

    @property
    def near_known(self) -> bool:
        """Whether near duplicates were looked for."""
        return self._near is not None and self._near.usable

    @property
    def compared(self) -> int:
        """Samples that were compared for near duplicates."""
        return self._near.count if self._near else 0

    def see(self, sample: Sample, row: Row, dataset: str, role: str) -> None:
        """Compare a sample with those before it. Samples of the training sets come first."""
        about = [sample.system, sample.tools, sample.images, sample.videos, sample.audios]
        prompt = _digest(about + [part for turn in sample.prompt for part in (turn.role, turn.content)])
        answer = _digest([part for turn in sample.response for part in (turn.role, turn.content)])
        whole = hash((prompt, answer))
        if role == "eval":
            self._evaluation(whole, row, dataset)
            return
        if (first := self._samples.get(whole)) is not None:
            self._add("duplicate", dataset, role, row, _other(first))
            return
        place = self._samples[whole] = place_of(row)
        self._answers(sample, prompt, answer, row, place, dataset, role)
        if self._near:
            self._near.see(sample, row, dataset, role)

    def _evaluation(self, whole: int, row: Row, dataset: str) -> None:
        if (first := self._samples.get(whole)) is not None:
            self._add("overlap", dataset, "eval", row, _other(first))
        elif (first := self._eval_samples.get(whole)) is not None:
            self._add("duplicate", dataset, "eval", row, _other(first))
        self._eval_samples.setdefault(whole, place_of(row))

    def _answers(self, sample: Sample, prompt: int, answer: int, row: Row, place: Place, dataset: str, role: str) -> None:
        """The same prompt with another answer; the opposite rating of the same answer contradicts it."""
        if not sample.response:
            return
        pair = len(sample.response) > 1
        unordered = _digest([prompt, *sorted(str(turn.content) for turn in sample.response)]) if pair else prompt
        first = self._prompts.get(unordered)
        if first is None:
            self._prompts[unordered] = _First(answer, place)
        elif first.answer != answer:
            self._add("contradiction" if pair else "several_answers", dataset, role, row, _other(first.place))


def _other(place: Place) -> str:
    """The row that was there first."""
    return spot(place, Path(place.file).name)


def _digest(values: list[Any]) -> int:
    """64 bits, of this process only: among 1e6 samples two different ones agree with probability 3e-8."""
    try:
        return hash(tuple(values))
    except TypeError:  # a list or an object: media, contents that are no text
        data = repr(values).encode("utf-8", "replace")
        return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def shingles(text: str) -> set[bytes]:
    """Five neighbouring words each, without case; a Chinese, Japanese or Korean character counts as a word."""
    words = _WORD.findall(text.lower())
    return {" ".join(words[start : start + _SHINGLE]).encode() for start in range(max(0, len(words) - _SHINGLE + 1))}


class _NearDuplicates:
    """MinHash with locality-sensitive hashing (datasketch); silent without the library."""

    def __init__(self, collector: Collector) -> None:
        self._library = optional("datasketch", "data")
        self._add = collector.add
        self._places: dict[int, tuple[Place, Any]] = {}
        self.count = 0
        if self._library:
            self._index = self._library.MinHashLSH(threshold=SIMILAR, num_perm=_PERMUTATIONS)

    @property
    def usable(self) -> bool:
        return self._library is not None

    def see(self, sample: Sample, row: Row, dataset: str, role: str) -> None:
        if self._library is None or self.count >= MAX_NEAR:
            return
        self.count += 1
        text = "\n".join(str(turn.content) for turn in sample.turns())
        pieces = shingles(text)
        if len(pieces) < _MIN_SHINGLES:
            return
        print_ = self._library.MinHash(num_perm=_PERMUTATIONS)
        print_.update_batch(list(pieces))
        for key in self._index.query(print_):
            place, other = self._places[key]
            if print_.jaccard(other) >= SIMILAR:
                self._add("near_duplicate", dataset, role, row, _other(place))
                return
        self._places[self.count] = (place_of(row), print_)
        self._index.insert(self.count, print_)
