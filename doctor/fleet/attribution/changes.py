"""Guilty change: which difference between runs separates the failed from the good ones, how well, and whether chance would do it too.

Every option becomes a few yes/no questions (`learning_rate > 0.0002`, `packing = true`). Each is asked of all runs: Fisher's exact test
says how unlikely its split of failures is by chance. Because many questions are asked, the p of a key is adjusted by permuting the
failures (Westfall and Young 1993, step-down minP): so it stays honest whatever the number of runs, keys and values. From `MANY` runs on a
sparse logistic model (L1, scikit-learn) sorts out which of several guilty keys stand on their own and which only go along with another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from doctor.support.optional import need

np: Any = need("numpy", "fleet")

CHANCE = 0.05
"""A key is called guilty where all keys together would look that guilty in less than one of twenty sweeps without a guilty one."""
PERMUTATIONS = 999
MANY = 50
"""From so many runs on, a sparse model weighs the keys against each other."""
MOST = 2000
"""Of more runs, so many are taken, evenly: enough for any effect worth a word."""
THRESHOLDS, VALUES = 12, 12
"""A numeric key is cut at so many places at most; of a key's values so many, the most frequent ones, are asked about."""

Verdict = Literal["found", "cannot_tell", "all_failed", "none_failed", "no_difference"]
ABSENT = "(not set)"


class Trial(msgspec.Struct, frozen=True):
    """One run: whether it failed, and its options, surroundings and sizes of data."""

    name: str
    failed: bool
    values: Mapping[str, Any]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A key, the question about it that separates best, and what the runs answered.

    `failed_with` of `with_` runs to which the question applies failed, and `failed_without` of the `without` others. `effect` is the
    difference of these rates, `p` Fisher's exact (two-sided), `adjusted` after all questions asked, `weight` the share of the sparse
    model that is this key's (None where there is none). `same` are keys that split the runs exactly alike: no test can tell them apart.
    """

    key: str
    question: str
    failed_with: int
    with_: int
    failed_without: int
    without: int
    effect: float
    p: float
    adjusted: float
    weight: float | None = None
    same: list[str] = []

    @property
    def guilty(self) -> bool:
        """Whether chance is a bad explanation."""
        return self.adjusted <= CHANCE


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: the suspects, the likeliest first, and whether any of them can be called guilty."""

    verdict: Verdict
    good: int
    failed: int
    suspects: list[Candidate] = []
    varied: list[str] = []


class _Questions(msgspec.Struct):
    """All questions: `answers[i]` holds a 0 or 1 for every run."""

    keys: list[str]
    texts: list[str]
    answers: Any


def explain(trials: Sequence[Trial]) -> Explanation:
    """Which key explains the failures. Two runs, or runs of one kind only, explain nothing: the differences are told, not judged."""
    if len(trials) > MOST:
        trials = [trials[i * len(trials) // MOST] for i in range(MOST)]
    failed = np.array([one.failed for one in trials], dtype=np.int64)
    bad, good = int(failed.sum()), int(len(trials) - failed.sum())
    questions = _ask(trials)
    varied = sorted(dict.fromkeys(questions.keys))
    if not bad or not good:
        return Explanation(verdict="none_failed" if not bad else "all_failed", good=good, failed=bad, varied=varied)
    if not varied:
        return Explanation(verdict="no_difference", good=good, failed=bad)
    suspects = _rank(questions, failed)
    found = bool(suspects and suspects[0].guilty)
    return Explanation(verdict="found" if found else "cannot_tell", good=good, failed=bad, suspects=suspects, varied=varied)


def _ask(trials: Sequence[Trial]) -> _Questions:
    keys = sorted({key for one in trials for key in one.values})
    questions = _Questions([], [], None)
    rows: list[Any] = []
    for key in keys:
        column = [_plain(one.values.get(key, ABSENT)) for one in trials]
        for text, row in _split(column):
            if 0 < row.sum() < len(row):
                questions.keys.append(key)
                questions.texts.append(text)
                rows.append(row)
    questions.answers = np.array(rows, dtype=np.int64).reshape(len(rows), len(trials))
    return questions


def _split(column: Sequence[Any]) -> list[tuple[str, Any]]:
    """The yes/no questions about one key."""
    numeric = all(isinstance(one, int | float) and not isinstance(one, bool) for one in column)
    distinct = sorted(set(column)) if numeric else sorted(set(column), key=str)
    if len(distinct) < 2:
        return []
    out: list[tuple[str, Any]] = []
    if numeric:
        values = np.array(column, dtype=np.float64)
        cuts = distinct[:-1]
        if len(cuts) > THRESHOLDS:
            cuts = sorted({distinct[round(i * (len(distinct) - 2) / (THRESHOLDS - 1))] for i in range(THRESHOLDS)})
        out += [(f"> {_say(cut)}", values > cut) for cut in cuts]
        if not 3 <= len(distinct) <= VALUES // 2:
            return out
    counted = sorted(distinct, key=lambda one: -column.count(one))[:VALUES]
    chosen = counted[-1:] if len(distinct) == 2 else [one for one in counted if not numeric or distinct[0] != one != distinct[-1]]
    return [*out, *((f"= {_say(one)}", np.array([value == one for value in column])) for one in chosen)]


def _rank(questions: _Questions, failed: Any) -> list[Candidate]:
    runs, bad = len(failed), int(failed.sum())
    sizes = questions.answers.sum(axis=1)
    tables = {int(size): _fisher(runs, bad, int(size)) for size in set(sizes.tolist())}
    hits = questions.answers @ failed
    p = np.array([tables[int(size)][int(hit)] for size, hit in zip(sizes, hits, strict=True)])
    best = {
        key: min((i for i, one in enumerate(questions.keys) if one == key), key=lambda i: p[i]) for key in dict.fromkeys(questions.keys)
    }
    adjusted = _adjusted(questions, failed, p, best, tables)
    weights = _weights(questions, failed) if runs >= MANY and min(adjusted.values()) <= CHANCE else {}
    suspects = [
        Candidate(
            key=key,
            question=questions.texts[i] if hits[i] * runs >= bad * sizes[i] else _reversed(questions.texts[i]),
            **_counts(int(hits[i]), int(sizes[i]), bad, runs),
            p=float(p[i]),
            adjusted=adjusted[key],
            weight=round(weights[key], 3) if weights else None,
            same=[other for other, j in best.items() if other != key and _alike(questions.answers[i], questions.answers[j])],
        )
        for key, i in best.items()
    ]
    return sorted(suspects, key=lambda one: (not one.guilty, one.weight is not None and one.weight < _OWN, one.p, one.key))


_OWN = 0.02
"""A key with a smaller share of the sparse model only goes along with another one."""


def _counts(hit: int, size: int, bad: int, runs: int) -> dict[str, Any]:
    """How the question splits the runs, asked so that it goes with failing."""
    if hit * runs < bad * size:
        hit, size = bad - hit, runs - size
    rates = hit / size, (bad - hit) / (runs - size)
    return {"failed_with": hit, "with_": size, "failed_without": bad - hit, "without": runs - size, "effect": round(rates[0] - rates[1], 4)}


def _fisher(runs: int, bad: int, size: int) -> Any:
    """Two-sided p of every possible number of failures among `size` runs: the hypergeometric chance of all that are no likelier."""
    counts = np.arange(min(bad, size) + 1)
    log = np.array([_choose(bad, k) + _choose(runs - bad, size - k) for k in counts.tolist()]) - _choose(runs, size)
    chance = np.exp(log)
    order = np.argsort(chance, kind="stable")
    p = np.empty_like(chance)
    p[order] = np.minimum(1.0, np.cumsum(chance[order]))
    for k in counts:  # equal chances count together, whatever their rounding
        p[k] = min(1.0, float(chance[chance <= chance[k] * (1 + 1e-7)].sum()))
    return p


def _choose(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _adjusted(questions: _Questions, failed: Any, p: Any, best: Mapping[str, int], tables: Mapping[int, Any]) -> dict[str, float]:
    """Step-down minP: how often permuted failures make any key not yet named look as guilty as this one."""
    chance = np.random.default_rng(20240229)
    permuted = np.array([chance.permutation(failed) for _ in range(PERMUTATIONS)]).T
    hits = questions.answers @ permuted
    sizes = questions.answers.sum(axis=1)
    under_chance = np.array([tables[int(size)][row] for size, row in zip(sizes, hits, strict=True)])
    keys = np.array(questions.keys)
    per_key = {key: under_chance[keys == key].min(axis=0) for key in best}
    order = sorted(best, key=lambda key: p[best[key]])
    out: dict[str, float] = {}
    least = 0.0
    for place, key in enumerate(order):
        lowest = np.min([per_key[other] for other in order[place:]], axis=0)
        least = max(least, float((1 + (lowest <= p[best[key]] * (1 + 1e-9)).sum()) / (PERMUTATIONS + 1)))
        out[key] = least
    return out


def _weights(questions: _Questions, failed: Any) -> dict[str, float]:
    """Each key's share of a sparse logistic model; how sparse is chosen by cross-validation, one standard error on the sparse side."""
    model = need("sklearn.linear_model", "fleet").LogisticRegression
    score = need("sklearn.model_selection", "fleet").cross_val_score
    folds = need("sklearn.model_selection", "fleet").StratifiedKFold(
        n_splits=max(2, min(5, int(failed.sum()), int((1 - failed).sum()))), shuffle=True, random_state=0
    )
    x = questions.answers.T.astype(np.float64)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    tried = []
    for strength in (0.01, 0.02, 0.05, 0.1, 0.3, 1.0):
        made = (
            model(C=strength, l1_ratio=1.0, solver="liblinear", random_state=0)
            if _new_sklearn()
            else model(C=strength, penalty="l1", solver="liblinear", random_state=0)
        )
        scores = score(made, x, failed, cv=folds, scoring="neg_log_loss")
        tried.append((float(scores.mean()), float(scores.std() / math.sqrt(len(scores))), made))
    top = max(tried, key=lambda one: one[0])
    chosen = next(made for mean, _, made in tried if mean >= top[0] - top[1])
    weight = np.abs(chosen.fit(x, failed).coef_[0])
    total = float(weight.sum()) or 1.0
    keys = np.array(questions.keys)
    return {key: float(weight[keys == key].sum()) / total for key in dict.fromkeys(questions.keys)}


def _new_sklearn() -> bool:
    """From 1.8 on the kind of penalty is said by `l1_ratio`; `penalty` warns."""
    major, minor = need("sklearn", "fleet").__version__.split(".")[:2]
    return (int(major), int(minor)) >= (1, 8)


def _alike(a: Any, b: Any) -> bool:
    return bool((a == b).all() or (a != b).all())


def _reversed(question: str) -> str:
    """The question whose yes is the other's no."""
    sign, value = question.split(" ", 1)
    return f"{ {'>': '≤', '=': '≠'}[sign] } {value}"


def _say(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """A value that can be compared and counted; true, false and lists become their texts as YAML writes them."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
