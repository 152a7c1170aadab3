"""The public issues whose error looks most like a run's own, and what fixed them: `rules/known_issues.yaml`, nearest first.

TF-IDF over normalised signatures and the cosine between them, in plain Python: with a few hundred lines of ten words reading, weighing
and asking cost some 50 ms, while importing scikit-learn alone costs a second and would be the program's largest dependency. The
weights are those of scikit-learn's `TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))` and the ranking that of its
`NearestNeighbors(metric="cosine")`: tests/fleet proves both, benchmarks/known_issues.py measures how often the nearest is right.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache, wraps
from itertools import pairwise
from pathlib import Path
from typing import ParamSpec

import msgspec

from doctor.diagnosis import pipeline
from doctor.errors import DoctorError
from doctor.report import translations
from doctor.report.model import FindingView, Report, SimilarView
from doctor.support.cache import cache_path, load_yaml, write_cache
from doctor.support.decoding import convert, unpack
from doctor.support.package_files import rules_folder
from doctor.support.texts import Text

SHOWN = 3
"""So many issues are told of a finding, at most two of them with the same fix."""
SAME_CAUSE = 0.3
"""Cosine from which an issue of the cause that was found is told: 7 of 10 public cases get one (benchmarks/known_issues.py)."""
UNKNOWN_CAUSE = 0.45
"""Cosine from which an issue is told where no cause was found. On 93 public cases, each without its own issue and as if its cause were
not known, the nearest has the right cause in 72 %; from 0.45 on, where 63 of them are told one, in 92 % (benchmarks/known_issues.py)."""

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
"""Longer words are mangled symbols, keys and the like."""
_STOP = frozenset(
    _WORD.findall(
        "an and any are as at be been before but by can could did do does for from get got had has have if in into is it its may most not "
        "of on only or other should so some such than that the their them then there these they this to up use used using was we were when "
        "which while will with would you your error file line traceback recent call last gib mib"
    )
)


class KnownFailure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Issues (`owner/repo#number`, each with the signature of its error) of one cause that one fix cured."""

    cause: str
    fix: Text
    issues: dict[str, str]


class Known(msgspec.Struct, frozen=True):
    """One issue as the index holds it."""

    issue: str
    cause: str
    fix: Text
    signature: str


class TfidfWeights(msgspec.Struct):
    """What an index has worked out, to be kept."""

    idf: dict[str, float]
    vectors: list[dict[str, float]]


def normalise(text: str) -> list[str]:
    """The words of an error that do not change from run to run: no paths, numbers, ranks, hosts, hex, and no words that say nothing."""
    words = _WORD.findall(_NOISE.sub(" ", text.lower()))
    return [word for word in words if word not in _STOP and len(word) <= _LONGEST_WORD]


def ngrams(text: str) -> list[str]:
    """Words and pairs of neighbouring words of a normalised text: what is weighed."""
    words = normalise(text)
    return words + [f"{first} {second}" for first, second in pairwise(words)]


class Index:
    """TF-IDF vectors of known failures, and the cosine of a text with each."""

    def __init__(self, known: Sequence[Known], made: TfidfWeights | None = None) -> None:
        self.known = known
        if made is not None:
            self.idf, self.vectors = made.idf, made.vectors
            return
        counts = [Counter(ngrams(one.signature)) for one in known]
        seen = Counter(gram for count in counts for gram in count)
        self.idf = {gram: math.log((1 + len(known)) / (1 + number)) + 1 for gram, number in seen.items()}
        self.vectors = [self._vector(count) for count in counts]

    def _vector(self, count: Counter[str]) -> dict[str, float]:
        weights = {gram: (1 + math.log(number)) * self.idf[gram] for gram, number in count.items() if gram in self.idf}
        length = math.sqrt(sum(weight * weight for weight in weights.values()))
        return {gram: weight / length for gram, weight in weights.items()} if length else {}

    def nearest(self, text: str, cause: str | None = None) -> list[tuple[float, Known]]:
        """All known failures (of one cause, if given) by falling cosine with `text`; those that share no word are left out."""
        asked = self._vector(Counter(ngrams(text)))
        scored = [
            (sum(weight * asked.get(gram, 0.0) for gram, weight in vector.items()), one)
            for vector, one in zip(self.vectors, self.known, strict=True)
            if cause is None or one.cause == cause
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
    """The index of what is shipped, built when first asked (30 to 50 ms) and kept in the user's cache."""
    known = read(rules_folder() / "known_issues.yaml")
    kept = cache_path("known-weights", msgspec.msgpack.encode(known), Path(__file__))
    try:
        made = unpack(kept.read_bytes(), TfidfWeights) if kept else None
    except (OSError, msgspec.DecodeError):
        made = None
    index = Index(known, made)
    if kept is not None and made is None:
        write_cache(kept, msgspec.msgpack.encode(TfidfWeights(index.idf, index.vectors)))
    return index


def attach(report: Report, index: Callable[[], Index] = shipped) -> Report:
    """The report with the known failures that look like its root causes; a run that did not fail is not looked up."""
    if report.healthy or report.kind != "analyze" or not any(worth_asking(one, report) for one in report.findings):
        return report
    views = [_attached(translations.translated(report, lang), index()) for lang in (report.lang, *report.translations)]
    return translations.with_translations(views[0], views[1:])


def _attached(report: Report, index: Index) -> Report:
    """One language's report with its known failures."""
    findings = [
        msgspec.structs.replace(one, similar=_similar(one, index, report.lang)) if worth_asking(one, report) else one
        for one in report.findings
    ]
    return msgspec.structs.replace(report, findings=findings)


def worth_asking(finding: FindingView, report: Report) -> bool:
    """An error that is a root cause or, where no cause was found, a failure that no rule knows; with words to ask about."""
    unknown = finding.cause == "unknown" and report.cause in (None, "unknown")
    return bool(finding.evidence) and (unknown or (finding.role == "root" and finding.severity == "error" and finding.cause != "unknown"))


def _similar(finding: FindingView, index: Index, lang: str) -> list[SimilarView]:
    """What is told of one finding: of its own cause where it has one, of any cause (but more alike) where it has none."""
    text = "\n".join(piece.text for piece in finding.evidence)
    unknown = finding.cause == "unknown"
    near = index.nearest(text, None if unknown else finding.cause)
    alike = [pair for pair in near if pair[0] >= (UNKNOWN_CAUSE if unknown else SAME_CAUSE)]
    return [SimilarView(one.issue, round(score, 2), one.fix.in_language(lang)) for score, one in _varied(alike)]


def _varied(pairs: Iterable[tuple[float, Known]]) -> list[tuple[float, Known]]:
    """The first few, not all with the same fix."""
    fixes: Counter[str] = Counter()
    out: list[tuple[float, Known]] = []
    for score, one in pairs:
        fixes[one.fix.en] += 1
        if fixes[one.fix.en] <= 2 and len(out) < SHOWN:
            out.append((score, one))
    return out


_P = ParamSpec("_P")


def _with_known_failures(diagnosing: Callable[_P, Report]) -> Callable[_P, Report]:
    @wraps(diagnosing)
    def diagnose_and_look_up(*args: _P.args, **kwargs: _P.kwargs) -> Report:
        return attach(diagnosing(*args, **kwargs))

    return diagnose_and_look_up


analyze = _with_known_failures(pipeline.analyze)
"""`doctor.analyze`: the post-mortem of one run, with the known failures that look like it."""
