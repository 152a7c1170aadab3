"""Groups failures that no rule knows by their text: TF-IDF of the normalised evidence, density clustering (scikit-learn)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from doctor.diagnosis.known_issues import ngrams
from doctor.support.optional import need

MIN_COSINE = 0.5
"""Similarity from which two failures are neighbours: at this value the nearest public issue has the same cause in nine of ten cases
(benchmarks/known_issues.py)."""
MAX_FAILURES = 3000
"""Different failures that are clustered, the most frequent first; equal ones share a fingerprint already."""
MAX_LINES, MAX_RUNS = 12, 50
"""Different lines and runs of a cluster that are listed."""


class Failure(msgspec.Struct, frozen=True):
    """The runs of one fingerprint: their line, their number, and the first of them (`runs`)."""

    fingerprint: str
    line: str
    count: int
    runs: list[str]


class Cluster(msgspec.Struct, frozen=True):
    """Failures with nearly the same text: a typical line, variants of it, and the runs."""

    id: str
    line: str
    count: int
    lines: list[str]
    fingerprints: list[str]
    runs: list[str]


def cluster(failures: Sequence[Failure]) -> list[Cluster]:
    """The clusters, largest first; a failure without neighbours is a cluster by itself."""
    failures = sorted(failures, key=lambda failure: (-failure.count, failure.fingerprint))[:MAX_FAILURES]
    if not failures:
        return []
    vectors, labels = _labels([failure.line for failure in failures])
    groups: dict[Any, list[int]] = {}
    for place, label in enumerate(labels):
        groups.setdefault(label if label >= 0 else ("alone", place), []).append(place)
    made = [_cluster([failures[i] for i in group], vectors[group]) for group in groups.values()]
    return sorted(made, key=lambda cluster: (-cluster.count, cluster.id))


def _labels(lines: Sequence[str]) -> tuple[Any, Sequence[int]]:
    """Unit vectors and DBSCAN labels by cosine; two similar lines are enough for a cluster."""
    text = need("sklearn.feature_extraction.text", "fleet")
    words = [ngrams(line) or ["(nothing)"] for line in lines]
    vectors = text.TfidfVectorizer(analyzer=lambda words: words, sublinear_tf=True).fit_transform(words)
    if len(lines) == 1:
        return vectors, [0]
    model = need("sklearn.cluster", "fleet").DBSCAN(eps=1 - MIN_COSINE, min_samples=2, metric="cosine", algorithm="brute")
    return vectors, [int(label) for label in model.fit(vectors).labels_]


def _cluster(group: Sequence[Failure], vectors: Any) -> Cluster:
    """One cluster; its typical line is the most similar to all others, weighted by their counts."""
    np = need("numpy", "fleet")
    centre = np.asarray(vectors.T @ np.array([failure.count for failure in group], dtype=float)).ravel()
    likeness = np.asarray(vectors @ centre).ravel()
    typical = group[int(likeness.argmax())]
    digest = hashlib.blake2b(typical.fingerprint.encode(), digest_size=4).hexdigest()
    ordered = sorted(group, key=lambda failure: (failure is not typical, -failure.count, failure.fingerprint))
    return Cluster(
        id=f"c{digest}",
        line=typical.line,
        count=sum(failure.count for failure in group),
        lines=list(dict.fromkeys(failure.line for failure in ordered))[:MAX_LINES],
        fingerprints=[failure.fingerprint for failure in ordered],
        runs=sorted(run for failure in ordered for run in failure.runs)[:MAX_RUNS],
    )


def find(clusters: Sequence[Cluster], name: str) -> Cluster | None:
    """The cluster with this id or this fingerprint; None if there is none."""
    return next((cluster for cluster in clusters if name == cluster.id or name in cluster.fingerprints), None)
