"""Attribution: which difference between runs separates the failed from the good ones, and whether chance would do it too.

1. Every option becomes a few yes/no questions (`learning_rate > 0.0002`, `packing = true`).
2. Fisher's exact test says how unlikely the split of failures by each question is by chance.
3. Many questions are asked, so the p of a key is adjusted by permuting the failures (Westfall and Young 1993, step-down minP).
4. From MIN_RUNS_FOR_MODEL runs on a sparse logistic model (L1, scikit-learn) tells keys that act by themselves from those that only
   occur together with another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from doctor.support.optional import need

np: Any = need("numpy", "fleet")

ALPHA = 0.05
"""Adjusted p below which a key explains the failures: one false alarm in twenty sweeps without a harmful key."""
PERMUTATIONS = 999
"""Smallest possible adjusted p: 1 / 1000."""
MIN_RUNS_FOR_MODEL = 50
"""Below, the folds of the sparse model's cross-validation hold too few failures."""
MAX_RUNS = 2000
"""Of more runs every n-th is taken: 2,000 show any effect of a few percent."""
MAX_THRESHOLDS, MAX_VALUES = 12, 12
"""Cuts of a numeric key, and values of a key (the most frequent), that become questions."""
TIE = 1e-7
"""Relative difference below which two probabilities count as equal, as in R's fisher.test."""

Verdict = Literal["found", "cannot_tell", "all_failed", "none_failed", "no_difference"]
ABSENT = "(not set)"


class Trial(msgspec.Struct, frozen=True):
    """One run: whether it failed, and its options, environment and data sizes."""

    name: str
    failed: bool
    values: Mapping[str, Any]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A key, the question about it that separates best, and the answers.

    Of `with_` runs with answer yes `failed_with` failed, of the `without` others `failed_without`; `effect` is the difference of these
    rates. `p` is Fisher's exact test (two-sided), `adjusted` the p after all questions, `weight` the key's share of the sparse model
    (None without a model). `same` are keys that split the runs in exactly the same way: no test can tell them apart.
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
        return self.adjusted <= ALPHA


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: the candidates, the likeliest first, and whether one of them explains the failures."""

    verdict: Verdict
    good: int
    failed: int
    suspects: list[Candidate] = []
    varied: list[str] = []


class _Questions(msgspec.Struct):
    """All questions; `answers` is an array of 0 and 1, shape (questions, runs)."""

    keys: list[str]
    texts: list[str]
    answers: Any


def explain(trials: Sequence[Trial]) -> Attribution:
    """Which key explains the failures. Two runs, or only failed or only good ones, explain nothing: differences are listed, not judged."""
    if len(trials) > MAX_RUNS:
        trials = [trials[i * len(trials) // MAX_RUNS] for i in range(MAX_RUNS)]
    failed = np.array([trial.failed for trial in trials], dtype=np.int64)
    bad, good = int(failed.sum()), int(len(trials) - failed.sum())
    questions = _ask(trials)
    varied = sorted(dict.fromkeys(questions.keys))
    if not bad or not good:
        return Attribution(verdict="none_failed" if not bad else "all_failed", good=good, failed=bad, varied=varied)
    if not varied:
        return Attribution(verdict="no_difference", good=good, failed=bad)
    suspects = _rank(questions, failed)
    found = bool(suspects and suspects[0].guilty)
    return Attribution(verdict="found" if found else "cannot_tell", good=good, failed=bad, suspects=suspects, varied=varied)


def _ask(trials: Sequence[Trial]) -> _Questions:
    keys = sorted({key for trial in trials for key in trial.values})
    questions = _Questions([], [], None)
    rows: list[Any] = []
    for key in keys:
        column = [_plain(trial.values.get(key, ABSENT)) for trial in trials]
        for text, row in _split(column):
            if 0 < row.sum() < len(row):
                questions.keys.append(key)
                questions.texts.append(text)
                rows.append(row)
    questions.answers = np.array(rows, dtype=np.int64).reshape(len(rows), len(trials))
    return questions


def _split(column: Sequence[Any]) -> list[tuple[str, Any]]:
    """The yes/no questions about one key."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)
    distinct = sorted(set(column)) if numeric else sorted(set(column), key=str)
    if len(distinct) < 2:
        return []
    out: list[tuple[str, Any]] = []
    if numeric:
        values = np.array(column, dtype=np.float64)
        cuts = distinct[:-1]
        if len(cuts) > MAX_THRESHOLDS:
            cuts = sorted({distinct[round(i * (len(distinct) - 2) / (MAX_THRESHOLDS - 1))] for i in range(MAX_THRESHOLDS)})
        out += [(f"> {_say(cut)}", values > cut) for cut in cuts]
        if not 3 <= len(distinct) <= MAX_VALUES // 2:
            return out
    counted = sorted(distinct, key=lambda value: -column.count(value))[:MAX_VALUES]
    inner = [value for value in counted if not numeric or distinct[0] != value != distinct[-1]]  # the cuts ask about both ends
    chosen = counted[-1:] if len(distinct) == 2 else inner
    return [*out, *((f"= {_say(choice)}", np.array([value == choice for value in column])) for choice in chosen)]


def _rank(questions: _Questions, failed: Any) -> list[Candidate]:
    runs, bad = len(failed), int(failed.sum())
    sizes = questions.answers.sum(axis=1)
    tables = {int(size): fisher_p(runs, bad, int(size)) for size in set(sizes.tolist())}
    hits = questions.answers @ failed
    p = np.array([tables[int(size)][int(hit)] for size, hit in zip(sizes, hits, strict=True)])
    best = {
        key: min((i for i, other in enumerate(questions.keys) if other == key), key=lambda i: p[i]) for key in dict.fromkeys(questions.keys)
    }
    adjusted = _adjusted(questions, failed, p, best, tables)
    weights = _weights(questions, failed) if runs >= MIN_RUNS_FOR_MODEL and min(adjusted.values()) <= ALPHA else {}
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
    return sorted(suspects, key=_order)


MIN_WEIGHT = 0.02
"""A key with a smaller share of the sparse model only occurs together with another one."""


def _order(candidate: Candidate) -> tuple[bool, bool, float, str]:
    return (not candidate.guilty, candidate.weight is not None and candidate.weight < MIN_WEIGHT, candidate.p, candidate.key)


def _counts(hit: int, size: int, bad: int, runs: int) -> dict[str, Any]:
    """How the question splits the runs, reversed if necessary so that yes goes with failing."""
    if hit * runs < bad * size:
        hit, size = bad - hit, runs - size
    rates = hit / size, (bad - hit) / (runs - size)
    return {"failed_with": hit, "with_": size, "failed_without": bad - hit, "without": runs - size, "effect": round(rates[0] - rates[1], 4)}


def fisher_p(runs: int, bad: int, size: int) -> Any:
    """Fisher's exact test, two-sided, for every possible count of failures among `size` of `runs` runs of which `bad` failed.

    Index k of the array is the p of k failures: the probability (hypergeometric, scipy) of all counts that are no likelier than k.
    """
    counts = np.arange(min(bad, size) + 1)
    chance = need("scipy.stats", "fleet").hypergeom.pmf(counts, runs, bad, size)
    no_likelier = chance[None, :] <= chance[:, None] * (1 + TIE)
    return np.minimum(1.0, np.where(no_likelier, chance[None, :], 0.0).sum(axis=1))


def _adjusted(questions: _Questions, failed: Any, p: Any, best: Mapping[str, int], tables: Mapping[int, Any]) -> dict[str, float]:
    """Step-down minP: how often permuted failures give any key of this rank or below a p as small as this one's."""
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
    """Each key's share of a sparse logistic model: the sparsest within one standard error of the best in cross-validation."""
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
    top = max(tried, key=lambda result: result[0])
    chosen = next(made for mean, _, made in tried if mean >= top[0] - top[1])
    weight = np.abs(chosen.fit(x, failed).coef_[0])
    total = float(weight.sum()) or 1.0
    keys = np.array(questions.keys)
    return {key: float(weight[keys == key].sum()) / total for key in dict.fromkeys(questions.keys)}


def _new_sklearn() -> bool:
    """From 1.8 on `l1_ratio` selects the penalty; `penalty` warns."""
    major, minor = need("sklearn", "fleet").__version__.split(".")[:2]
    return (int(major), int(minor)) >= (1, 8)


def _alike(a: Any, b: Any) -> bool:
    return bool((a == b).all() or (a != b).all())


def _reversed(question: str) -> str:
    """The question with the opposite answers."""
    sign, value = question.split(" ", 1)
    return f"{ {'>': '≤', '=': '≠'}[sign] } {value}"


def _say(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """A value that can be compared and counted; booleans and lists become their YAML text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
