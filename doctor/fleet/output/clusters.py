"""Failures that no rule knows, grouped by what they say: TF-IDF of their normalised evidence, density clustering (scikit-learn)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from doctor.diagnosis.known_issues import ngrams
from doctor.support.optional import need

ALIKE = 0.5
"""Cosine from which two failures are neighbours: the same likeness at which the nearest public issue is of the same cause in nine of ten
cases (benchmarks/known_issues.py)."""
MOST = 3000
"""So many different failures are clustered, the most frequent ones; equal ones are one by their fingerprint already."""
LINES, RUNS = 12, 50
"""Of a cluster so many different lines and runs are told."""


class Failure(msgspec.Struct, frozen=True):
    """Runs of one fingerprint, the line they show, and how many they are (`runs` names the first of them)."""

    fingerprint: str
    line: str
    count: int
    runs: list[str]


class Cluster(msgspec.Struct, frozen=True):
    """Failures that say nearly the same: a typical line, other forms of it, and the runs."""

    id: str
    line: str
    count: int
    lines: list[str]
    fingerprints: list[str]
    runs: list[str]


def cluster(failures: Sequence[Failure]) -> list[Cluster]:
    """The clusters by falling number of runs; a failure that is like no other is a cluster of its own."""
    failures = sorted(failures, key=lambda one: (-one.count, one.fingerprint))[:MOST]
    if not failures:
        return []
    vectors, labels = _labels([one.line for one in failures])
    groups: dict[Any, list[int]] = {}
    for place, label in enumerate(labels):
        groups.setdefault(label if label >= 0 else ("alone", place), []).append(place)
    made = [_cluster([failures[i] for i in group], vectors[group]) for group in groups.values()]
    return sorted(made, key=lambda one: (-one.count, one.id))


def _labels(lines: Sequence[str]) -> tuple[Any, Sequence[int]]:
    """Unit vectors, and DBSCAN's labels on the cosine: two different lines that are alike make a cluster."""
    text = need("sklearn.feature_extraction.text", "fleet")
    words = [ngrams(line) or ["(nothing)"] for line in lines]
    vectors = text.TfidfVectorizer(analyzer=lambda one: one, sublinear_tf=True).fit_transform(words)
    if len(lines) == 1:
        return vectors, [0]
    model = need("sklearn.cluster", "fleet").DBSCAN(eps=1 - ALIKE, min_samples=2, metric="cosine", algorithm="brute")
    return vectors, [int(label) for label in model.fit(vectors).labels_]


def _cluster(group: Sequence[Failure], vectors: Any) -> Cluster:
    """One cluster; its typical line is the one that is most like all others, weighted by how often each was seen."""
    np = need("numpy", "fleet")
    centre = np.asarray(vectors.T @ np.array([one.count for one in group], dtype=float)).ravel()
    likeness = np.asarray(vectors @ centre).ravel()
    typical = group[int(likeness.argmax())]
    digest = hashlib.blake2b(typical.fingerprint.encode(), digest_size=4).hexdigest()
    ordered = sorted(group, key=lambda one: (one is not typical, -one.count, one.fingerprint))
    return Cluster(
        id=f"c{digest}",
        line=typical.line,
        count=sum(one.count for one in group),
        lines=list(dict.fromkeys(one.line for one in ordered))[:LINES],
        fingerprints=[one.fingerprint for one in ordered],
        runs=sorted(run for one in ordered for run in one.runs)[:RUNS],
    )


def find(clusters: Sequence[Cluster], name: str) -> Cluster | None:
    """The cluster of this id, or that holds this fingerprint."""
    return next((one for one in clusters if name == one.id or name in one.fingerprints), None)
