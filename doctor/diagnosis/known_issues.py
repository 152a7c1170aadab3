"""Public issues whose error is similar to a finding's, and what fixed them: `rules/known_issues.yaml`, nearest first.

TF-IDF over normalised signatures and their cosine, in plain Python: a few hundred lines of ten words take 50 ms, importing
scikit-learn alone takes a second. The weights are those of scikit-learn's `TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))`,
the ranking that of its `NearestNeighbors(metric="cosine")` (tests/diagnosis/test_known_issues.py compares both);
benchmarks/known_issues.py measures how often the nearest is right.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from doctor.errors import DoctorError
from doctor.report.build import SimilarIssue
from doctor.report.quoting import quotes
from doctor.rulebook.findings import RankedFinding
from doctor.support.cache import cache_path, load_yaml, write_cache
from doctor.support.decoding import convert, unpack
from doctor.support.package_files import rules_folder
from doctor.support.texts import Text

SHOWN = 3
"""Issues shown per finding."""
SAME_FIX = 2
"""Of those at most this many with the same fix."""
SAME_CAUSE = 0.3
"""Minimum cosine for an issue of the cause that was found: 7 of 10 public cases get one (benchmarks/known_issues.py)."""
UNKNOWN_CAUSE = 0.45
"""Minimum cosine if the cause is unknown. On 93 public cases, each without its own issue and its cause, the nearest issue has the right
cause in 72 %; from 0.45 on (63 cases) in 92 % (benchmarks/known_issues.py)."""

SAME_FAILURE = 0.75
"""Cosine from which on the words are those of the issue: it is shown although its cause is none that the classifier thinks possible."""

_ONLY_IN = {
    "kto_*": ("kto",),
    "reward_model_problem": ("rm", "ppo"),
    "gpu_oom_reference_model": ("dpo", "kto", "ppo", "rm"),
    "export_*": ("export",),
    "gpu_oom_merge_export": ("export",),
    "gguf_*": ("export",),
}
"""Causes that only these stages can have (LLaMA-Factory's `stage`, or `export`)."""

_NOISE = re.compile(
    r"\(?\b(?:gpu|npu)\s*\d*\s*(?:;|has\b).{0,20}\btotal capac[^\n]*"  # the allocator's accounts, the same in every such message
    # a launcher's echo of a failure elsewhere
    r"|\b(?:calledprocesserror|childfailederror|exits with return code|torch\.distributed\.elastic|sending process)\b[^\n]*"
    r"|https?://\S+"  # addresses
    r"|(?:[a-z]:)?(?:[\\/][\w.@+~-]+){2,}[\\/]?"  # paths
    r"|\[?\b(?:local_)?rank\W{0,2}\d+\]?"  # ranks
    r"|\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b"  # hosts
    r"|\b0x[0-9a-f]+\b|\b[0-9a-f]{12,}\b"  # addresses in memory, digests
    r"|\b\d[\d.,:/+-]*(?:e[+-]?\d+)?\b"  # numbers, times, versions
)
_WORD = re.compile(r"[a-z][a-z0-9_]+")
_LONGEST_WORD = 32
"""Longer words are mangled symbols or keys."""
_STOP = frozenset(
    _WORD.findall(
        "an and any are as at be been before but by can could did do does for from get got had has have if in into is it its may most not "
        "of on only or other should so some such than that the their them then there these they this to up use used using was we were when "
        "which while will with would you your error file line traceback recent call last gib mib"
    )
)


class KnownFailure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Issues (`owner/repo#number` -> signature of the error) of one cause that one fix solved."""

    cause: str
    fix: Text
    issues: dict[str, str]


class Known(msgspec.Struct, frozen=True):
    """One issue of the index."""

    issue: str
    cause: str
    fix: Text
    signature: str


class TfidfWeights(msgspec.Struct):
    """An index as it is cached."""

    idf: dict[str, float]
    vectors: list[dict[str, float]]


def normalise(text: str) -> list[str]:
    """The words of an error that do not change from run to run: no paths, numbers, ranks, hosts, hex or stop words."""
    words = _WORD.findall(_NOISE.sub(" ", text.lower()))
    return [word for word in words if word not in _STOP and len(word) <= _LONGEST_WORD]


def ngrams(text: str) -> list[str]:
    """Words and pairs of neighbouring words of a normalised text."""
    words = normalise(text)
    return words + [f"{first} {second}" for first, second in pairwise(words)]


class Index:
    """TF-IDF vectors of known failures."""

    def __init__(self, known: Sequence[Known], weights: TfidfWeights | None = None) -> None:
        self.known = known
        if weights is not None:
            self.idf, self.vectors = weights.idf, weights.vectors
            return
        counts = [Counter(ngrams(issue.signature)) for issue in known]
        seen = Counter(gram for count in counts for gram in count)
        self.idf = {gram: math.log((1 + len(known)) / (1 + number)) + 1 for gram, number in seen.items()}
        self.vectors = [self._vector(count) for count in counts]

    def _vector(self, count: Counter[str]) -> dict[str, float]:
        weights = {gram: (1 + math.log(number)) * self.idf[gram] for gram, number in count.items() if gram in self.idf}
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {gram: weight / length for gram, weight in weights.items()} if length else {}

    def nearest(self, text: str, cause: str | None = None) -> list[tuple[float, Known]]:
        """Known failures (of one cause, if given) that share a word with `text`, by falling cosine."""
        asked = self._vector(Counter(ngrams(text)))
        scored = [
            (sum(weight * asked.get(gram, 0.0) for gram, weight in vector.items()), issue)
            for vector, issue in zip(self.vectors, self.known, strict=True)
            if cause is None or issue.cause == cause
        ]
        return sorted((pair for pair in scored if pair[0] > 0), key=lambda pair: -pair[0])


def read(path: Path) -> list[Known]:
    """The known failures of a file. Raises DoctorError if it cannot be read."""
    import yaml

    try:
        groups = convert(load_yaml(path), list[KnownFailure])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise DoctorError(f"{path}: {error}") from error
    return [Known(issue, group.cause, group.fix, text) for group in groups for issue, text in group.issues.items()]


@cache
def shipped() -> Index:
    """The index of rules/known_issues.yaml, built on first use (30 to 50 ms) and kept in the user's cache."""
    known = read(rules_folder() / "known_issues.yaml")
    kept = cache_path("known-weights", msgspec.msgpack.encode(known), Path(__file__))
    try:
        weights = unpack(kept.read_bytes(), TfidfWeights) if kept else None
    except (OSError, msgspec.DecodeError):
        weights = None
    index = Index(known, weights)
    if kept is not None and weights is None:
        write_cache(kept, msgspec.msgpack.encode(TfidfWeights(index.idf, index.vectors)))
    return index


def similar_issues(
    ranked: Sequence[RankedFinding], index: Callable[[], Index] = shipped, *, stage: str | None = None
) -> list[list[SimilarIssue]]:
    """For each finding the known issues that look like it; nothing for one that is no root cause of a failure.

    Issues whose cause the run's `stage` cannot have are not shown, nor, below SAME_FAILURE, those whose cause is none of an unknown
    failure's possible causes.
    """
    cause = next((ranked_finding.finding.rule.cause for ranked_finding in ranked if ranked_finding.role == "root"), None)
    return [_similar(ranked_finding, index(), stage) if is_looked_up(ranked_finding, cause) else [] for ranked_finding in ranked]


def stage_of(config: Mapping[str, Any]) -> str | None:
    """The stage that a config gives, or `export`; None where it gives none."""
    return "export" if config.get("export_dir") else str(config["stage"]) if config.get("stage") else None


def _contradicts(cause: str, score: float, ranked: RankedFinding, stage: str | None) -> bool:
    stages = next((stages for pattern, stages in _ONLY_IN.items() if fnmatchcase(cause, pattern)), None)
    possible = [candidate.cause for candidate in ranked.finding.candidates]
    unlikely = ranked.finding.rule.cause == "unknown" and bool(possible) and cause not in possible
    return (stage is not None and stages is not None and stage not in stages) or (unlikely and score < SAME_FAILURE)


def is_looked_up(ranked: RankedFinding, cause: str | None) -> bool:
    """A root cause of severity error, or a failure that no rule knows; with evidence to compare."""
    rule = ranked.finding.rule
    unknown = rule.cause == "unknown" and cause in (None, "unknown")
    return bool(ranked.finding.evidence) and (unknown or (ranked.role == "root" and rule.severity == "error" and rule.cause != "unknown"))


def _similar(ranked: RankedFinding, index: Index, stage: str | None) -> list[SimilarIssue]:
    """Issues of the finding's own cause; for an unknown cause issues of any, from a higher cosine on."""
    text = "\n".join(quote.text for quote in quotes(ranked.finding))
    unknown = ranked.finding.rule.cause == "unknown"
    near = index.nearest(text, None if unknown else ranked.finding.rule.cause)
    alike = [pair for pair in near if pair[0] >= (UNKNOWN_CAUSE if unknown else SAME_CAUSE)]
    fitting = [pair for pair in alike if not _contradicts(pair[1].cause, pair[0], ranked, stage)]
    return [SimilarIssue(known.issue, score, known.fix) for score, known in _varied(fitting)]


def _varied(pairs: Iterable[tuple[float, Known]]) -> list[tuple[float, Known]]:
    """The first `SHOWN`, at most `SAME_FIX` of them with the same fix."""
    fixes: Counter[str] = Counter()
    out: list[tuple[float, Known]] = []
    for score, known in pairs:
        fixes[known.fix.en] += 1
        if fixes[known.fix.en] <= SAME_FIX and len(out) < SHOWN:
            out.append((score, known))
    return out
