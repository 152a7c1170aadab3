"""What the classifier reads: an exception's features and the telling lines of its log, as weighted tokens.

A token's kind is the part before its first space (`word`, `pair`, `part` of a word, `class`, `at`, `in`, `said`, `memory`, `config`);
the classifier brings each kind to the same length, so that a long log does not drown a class.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from doctor.detectors import oom_message
from doctor.diagnosis.unlisted.features import ExceptionFeatures
from doctor.support.pasted_text import restored

LINES_AT_END, TROUBLE_LINES = 8, 16
"""Lines of a log's end, and of those before that tell of trouble, that are read."""
_LONGEST_LINE, _MOST_WORDS = 600, 120
_TROUBLE = re.compile(
    r"error|exception|killed|time[d ]*out|assert|fail|warn|cannot|could not|abort|signal|not found|no such|unable|invalid|missing|refused"
    r"|denied|\bnan\b|overflow|skipp|out of memory|not support|incompatib|stuck|hang",
    re.IGNORECASE,
)
_ECHO = re.compile(
    r"ChildFailedError|CalledProcessError|returned non-zero exit|torch/distributed/|elastic|Root Cause|^\s*[-=~^]{5,}"
    r"|^\W*(?:\[?rank\s?\d+\]?\W+)?File \"|Traceback \(most recent|>> \*\*\*\*\* Running training"
)
"""Lines of a launcher that repeat a failure elsewhere, frames (features of their own), and heads that stand in every log."""
_NOISE = (
    (re.compile(r"\x1b\[[\d;]*m|https?://\S+"), " "),
    (re.compile(r"/dev/shm\b"), " dev_shm "),  # noqa: S108 (a name in logs)
    (re.compile(r"(?:[A-Za-z]:)?(?:[\\/][\w.@+~-]+)+[\\/]([\w.-]+)"), r" \1 "),  # of a path its last part
    (re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-f]{12,}\b"), " "),
    (re.compile(r"If reserved (?:but unallocated )?memory is.*|See documentation for Memory Management.*"), " "),  # in every such message
    (re.compile(r"\d+(?:[.,:]\d+)*"), " 0 "),
)
_WORD = re.compile(r"[a-z_][a-z0-9_]+|[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]|(?<= )0(?= )")
_NAME = re.compile(r"[A-Za-z_]\w*(?:[a-z][A-Z]|_[A-Za-z])\w*")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]+|[a-z]+")
_SIGNAL = re.compile(r"(?:exitcode\W{1,3}|return code = |Signal )(-?\d+)|signal: (\w[\w ]+)|exit code (\d+)", re.IGNORECASE)
_CODE = re.compile(r"\b(Errno|WinError|os error|Xid|error code|errno|ret)\W{1,4}(?:\(PCI\S+ )?(\d+)|\b(sm_\d\d|compute_\d\d|E[A-Z]\d{4})\b")
_METRIC = re.compile(
    r"'?\b(loss|grad_norm|learning_rate|eval_loss|train_loss|reward_std)\b'?\s*[:=]\s*'?(0\.0+\b(?!e)|0\b(?!\.)|nan|inf)", re.IGNORECASE
)
_DEVICE = re.compile(
    r"\bdevice: cpu|\bn_gpu: 0|tokens: 0\b|Num examples = 0\b|\b0 examples\b|size\(\[0\]\)|trainable params: 0\b", re.IGNORECASE
)
"""Figures that tell something; all others are taken out of the text."""
_SHARES = (
    ("wanted_share", (0.02, 0.1, 0.3, 1.0)),
    ("reserved_share", (0.1, 0.25)),
    ("others_share", (0.1, 0.4)),
    ("reserved_over_wanted", (1.0, 4.0)),
)


def telling_lines(text: str) -> list[str]:
    """The last lines of a log, and before them the last ones that tell of trouble; oldest first, without echoes of launchers."""
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip() and not _ECHO.search(line[:_LONGEST_LINE])]
    trouble = [line for line in lines[:-LINES_AT_END] if _TROUBLE.search(line[:_LONGEST_LINE])]
    return [*trouble[-TROUBLE_LINES:], *lines[-LINES_AT_END:]]


def tokens(seen: ExceptionFeatures | None, lines: Sequence[str] = ()) -> dict[str, float]:
    """Token -> weight. Words of the exception count one each, those of other lines half; without an exception lines count in full."""
    count: defaultdict[str, float] = defaultdict(float)
    if seen is not None:
        for token in _structure(seen):
            count[token] += 1.0
        for line in _message_lines(seen):
            _add_words(count, line, 1.0)
    known = set(_message_lines(seen)) if seen is not None else set()
    for line in dict.fromkeys(lines):
        if line.strip() not in known:
            _add_words(count, restored(line), 0.5 if seen is not None and seen.exception else 1.0)
    for token in _of_all_text("\n".join([*(_message_lines(seen) if seen is not None else ()), *lines])):
        count[token] = 1.0
    return dict(count)


def _message_lines(seen: ExceptionFeatures) -> list[str]:
    text = f"{seen.full_name}: {seen.message}" if seen.message else seen.full_name
    return [line.strip() for line in text.splitlines() if line.strip()]


def _structure(seen: ExceptionFeatures) -> Iterator[str]:
    """Class, place, what the message names, and the config, each as a token of its kind."""
    yield from (f"class {name}" for name in seen.classes)
    yield from (f"class {part}*" for part in _CAMEL.findall(seen.exception))
    for kind, value in (("errno", seen.errno), ("signal", seen.signal), ("phase", seen.phase), ("launcher", seen.launcher)):
        if value is not None:
            yield f"said {kind}={value}"
    for name in ("options", "variables", "packages"):
        yield from (f"said {value}" for value in getattr(seen, name))
    yield from (f"said runtime={name}" for name in seen.runtimes)
    if seen.place is not None:
        yield from (f"at {seen.place.package}", f"at {seen.place.function}", f"at {seen.place.package}.{seen.place.function}")
    for place in seen.path[-12:]:
        yield from (f"in {place.package}", f"in {place.function}")
        yield from (f"word {word}" for word in _WORD.findall(place.function.lower()))
        yield from (f"part {part}" for part in _parts(place.function))
    yield from (f"config {name}={value}" for name, value in seen.config.items())


def _add_words(count: defaultdict[str, float], line: str, weight: float) -> None:
    line = line[:_LONGEST_LINE]
    for pattern, new in _NOISE:
        line = pattern.sub(new, line)
    words = _WORD.findall(line.lower())[:_MOST_WORDS]
    for word in words:
        count[f"word {word}"] += weight
    for first, second in pairwise(words):
        count[f"pair {first} {second}"] += weight
    for name in set(_NAME.findall(line)):
        for part in _parts(name):
            count[f"part {part}"] += weight


def _parts(name: str) -> Iterator[str]:
    """The words of a name in camel or snake case: `VisionSdpaAttention_forward` has vision, sdpa, attention, forward."""
    parts = [part.lower() for part in _CAMEL.findall(name)]
    return (part for part in parts if len(parts) > 1 and len(part) > 2)


def _of_all_text(text: str) -> Iterator[str]:
    """Signals and exit codes of processes, and what the sizes of a full GPU's message say."""
    for found in _SIGNAL.finditer(text):
        yield f"said signal={next(group for group in found.groups() if group)}"
    for found in _CODE.finditer(text):
        yield f"said code={' '.join(group.lower() for group in found.groups() if group)}"
    for found in _METRIC.finditer(text):
        yield f"said {found[1].lower()}={'zero' if found[2][0] == '0' else found[2].lower()}"
    for found in _DEVICE.finditer(text):
        yield f"said {found[0].lower()}"
    head = oom_message.find_head(text)
    if head is not None:
        yield from _sizes(oom_message.message_facts(text, head))


def _sizes(facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"memory device={facts['device']}"
    for name, limits in _SHARES:
        if name in facts:
            yield f"memory {name}>{max((limit for limit in limits if facts[name] > limit), default=0)}"
    if facts.get("siblings"):
        yield "memory siblings"
    if facts.get("free_gib") is not None and facts.get("wanted_gib") is not None and facts["free_gib"] > facts["wanted_gib"]:
        yield "memory enough_free"
