"""A learned second opinion on a failure that no rule explains: a linear model over the tokens of `tokens`.

Multinomial logistic regression, trained by benchmarks/train_classifier.py, shipped as int8 weights and evaluated in plain Python
(importing numpy alone would take longer than all of this). `probability` is calibrated: of the opinions that say 0.8, eight in ten are
right (benchmarks/fallback.py measures it).
"""

from __future__ import annotations

import math
import re
import zlib
from array import array
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec

from doctor.diagnosis.unlisted.features import ExceptionFeatures
from doctor.diagnosis.unlisted.tokens import tokens
from doctor.support.decoding import unpack

MODEL = Path(__file__).with_name("classifier.bin")
KIND_WEIGHTS = {"word": 1.0, "pair": 0.7, "part": 0.5, "class": 0.5, "at": 0.5, "in": 0.3, "said": 0.5, "memory": 0.7, "config": 0.2}
"""Length of each kind of token in a vector; benchmarks/fallback.py --without KIND says what each is worth."""
LIKELY = 0.92
"""From this probability on the first opinion is told as likely: of 289 labelled cases 122 reach it, 3.3 % of these are wrong
(benchmarks/fallback.py --calibrate)."""
NAMED = 0.8
"""From this probability on the first opinion is named as possible."""
SHOWN = 3
"""Candidates that are offered at most."""
REASONS = 4
"""Tokens that are named for each."""
LEAST_FIRST, LEAST = 0.45, 0.03
"""Without a first candidate of the one probability none is offered, and none of less than the other."""
FAMILIAR = 0.5
"""A text of which less than this share was seen in training is not judged: 2 % of labelled cases, most failures of other programs
(benchmarks/fallback.py)."""
_DULL = frozenset(
    re.findall(
        r"\w+",
        "a an and any are as at be been by but call can data do does error exception file for from got had has have if in into is it its "
        "last line may most must no not of on only or other out recent running should so some such than that the their then there these "
        "they this to up use used using was we were when which while will with would you your args kwargs self main run",
    )
)
"""Words that are no reason by themselves."""
_SHOWN_KINDS = ("word", "pair", "class", "at", "in", "said", "memory")
"""Kinds whose tokens a reader recognises in the log."""


class Opinion(msgspec.Struct, frozen=True):
    """A cause that the failure may have. `reasons` are the tokens that speak most for it, without their kind, strongest first."""

    cause: str
    probability: float
    reasons: tuple[str, ...] = ()


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """The model as it is in its file: `vocabulary` one token a line, sorted; `rarity` and `weights` are int8.

    `weights` has a row of one value per cause for every token; a value times its cause's scale is the weight. `rarity` times
    `rarity_scale` is the inverse document frequency. `calibration` (constant, by score) makes the first probability
    true, see `calibrated`. `examples` counts the training examples by source.
    """

    causes: list[str]
    vocabulary: str
    rarity: bytes
    rarity_scale: float
    weights: bytes
    scales: list[float]
    biases: list[float]
    calibration: tuple[float, float]
    examples: dict[str, int]


class Classifier:
    """The model in memory."""

    def __init__(self, stored: Stored) -> None:
        self.causes, self.stored = stored.causes, stored
        self.rows = {token: row for row, token in enumerate(stored.vocabulary.split("\n"))}
        self._rarity = [value * stored.rarity_scale for value in stored.rarity]
        self._weights = array("b", stored.weights)
        self._unseen = max(self._rarity, default=1.0)

    def vector(self, counts: Mapping[str, float]) -> dict[int, float]:
        """Row of the model -> value; each kind of token has its own length, to which tokens never seen in training count too."""
        return weighted(counts, self.rows, self._rarity, self._unseen)

    def scores(self, counts: Mapping[str, float]) -> list[float]:
        """The softmax of the model for each of `causes`: their order is right, their size is not."""
        number = len(self.causes)
        sums = [0.0] * number
        for row, value in self.vector(counts).items():
            for cause, weight in enumerate(self._weights[row * number : (row + 1) * number]):
                if weight:
                    sums[cause] += weight * value
        logits = [total * scale + bias for total, scale, bias in zip(sums, self.stored.scales, self.stored.biases, strict=True)]
        top = max(logits)
        shares = [math.exp(logit - top) for logit in logits]
        total = sum(shares)
        return [share / total for share in shares]

    def familiarity(self, counts: Mapping[str, float]) -> float:
        """The share (0..1) of a text's words and classes, by their rarity, that stand in the training examples."""
        known = total = 0.0
        for token, count in counts.items():
            if token.startswith(("word ", "class ")):
                row = self.rows.get(token, -1)
                value = min(count, 1.0) * (self._rarity[row] if row >= 0 else self._unseen)
                total += value
                known += value if row >= 0 else 0.0
        return known / total if total else 0.0

    def probabilities(self, counts: Mapping[str, float]) -> list[float]:
        """Calibrated probabilities, one for each of `causes`: the first is made true, the others share what it leaves."""
        scores = self.scores(counts)
        first = max(scores)
        true = calibrated(first, self.stored.calibration)
        rest = (1 - true) / (1 - first) if first < 1 else 0.0
        best = scores.index(first)
        return [true if cause == best else min(true, score * rest) for cause, score in enumerate(scores)]

    def opinions(self, counts: Mapping[str, float]) -> list[Opinion]:
        """The most probable causes, at most `SHOWN`; none where too little of the log was seen in training."""
        if self.familiarity(counts) < FAMILIAR:
            return []
        vector, chances = self.vector(counts), self.probabilities(counts)
        if max(chances) < LEAST_FIRST:
            return []
        best = sorted(range(len(chances)), key=lambda cause: -chances[cause])[:SHOWN]
        return [Opinion(self.causes[cause], chances[cause], self._reasons(vector, cause)) for cause in best if chances[cause] >= LEAST]

    def _reasons(self, vector: Mapping[int, float], cause: int) -> tuple[str, ...]:
        """The tokens that say more for this cause than for the usual one, by what they add."""
        number, names = len(self.causes), self.stored.vocabulary.split("\n")
        scale = self.stored.scales[cause]
        added = sorted(((self._weights[row * number + cause] * scale * value, names[row]) for row, value in vector.items()), reverse=True)
        out: list[str] = []
        for gain, token in added:
            kind, _, text = token.partition(" ")
            if gain <= 0 or len(out) == REASONS:
                break
            if kind in _SHOWN_KINDS and not _DULL.issuperset(text.split()) and not any(text in other or other in text for other in out):
                out.append(text)
        return tuple(out)


def calibrated(score: float, weights: tuple[float, float]) -> float:
    """The probability that a first cause with this score is right: a logistic function of the score's logit."""
    inside = min(max(score, 1e-6), 1 - 1e-6)
    constant, by_score = weights
    return 1 / (1 + math.exp(-(constant + by_score * math.log(inside / (1 - inside)))))


def weighted(counts: Mapping[str, float], rows: Mapping[str, int], rarity: Sequence[float], unseen: float) -> dict[int, float]:
    """The vector of a text: (1 + log count) times rarity, each kind brought to its length in `KIND_WEIGHTS`. Also used in training."""
    kinds: dict[str, list[tuple[int, float]]] = {}
    for token, count in counts.items():
        row = rows.get(token, -1)
        value = (1 + math.log(count) if count >= 1 else count) * (rarity[row] if row >= 0 else unseen)
        kinds.setdefault(token.partition(" ")[0], []).append((row, value))
    out: dict[int, float] = {}
    for kind, entries in kinds.items():
        length = math.sqrt(sum(value * value for _, value in entries))
        out.update((row, KIND_WEIGHTS[kind] * value / length) for row, value in entries if row >= 0)
    return out


@cache
def shipped() -> Classifier:
    """The model of this release, read on first use."""
    return Classifier(unpack(zlib.decompress(MODEL.read_bytes()), Stored))


def opinions(features: ExceptionFeatures | None, lines: Sequence[str] = ()) -> list[Opinion]:
    """The causes that a failure may have, most probable first; `lines` are the telling lines of its log (`tokens.telling_lines`)."""
    return shipped().opinions(tokens(features, lines))
