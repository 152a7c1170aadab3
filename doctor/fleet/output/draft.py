"""Drafts a rule from a cluster of unknown failures: the common text becomes the pattern, the lines become examples."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import reduce
from itertools import pairwise
from pathlib import Path

import msgspec

from doctor.detectors.registry import DETECTORS
from doctor.diagnosis.rule_examples import check_rule
from doctor.errors import DoctorError
from doctor.fleet.output.clusters import Cluster
from doctor.rulebook.parsing import parse_rule

FAMILY = "environment"
"""Family of a draft until somebody moves it: most failures that no rule knows come from the environment."""
MAX_LINE = 240
"""Characters of a line that are used."""
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_VALUE = re.compile(r"[^'\"\s]*[\\/][^'\"\s]*|0x[0-9a-fA-F]+|\b[0-9a-fA-F]{12,}\b|\d[\d.,:]*")
_EXCEPTION = re.compile(r"^(?:[\w]+\.)*(?P<name>[A-Z]\w*(?:Error|Exception|Failure|Exit))\b")


class Draft(msgspec.Struct, frozen=True):
    """The text of a rule file and its id (`family/name`)."""

    id: str
    text: str


def draft(cluster: Cluster, others: Sequence[Cluster]) -> Draft:
    """The rule's file. `others` are clusters whose lines it must not match. Raises DoctorError if the lines have nothing in common."""
    lines = list(dict.fromkeys(_one_line(line) for line in cluster.lines if _one_line(line)))
    parts = _common(lines)
    literal = max((_strip_punctuation(part) for part in parts), key=len, default="")
    if len(literal) < 4:
        raise DoctorError(f"cluster {cluster.id}: its lines have too little in common for a pattern: split it by hand")
    pattern = ".{0,200}?".join(re.escape(part).replace("\\ ", " ") for part in parts)
    strangers = [line for other in others if other.id != cluster.id for line in map(_one_line, other.lines[:1]) if line]
    unlike = [line for line in dict.fromkeys(strangers) if not re.search(pattern, line)][:3]
    name = _name(cluster.line)
    return Draft(f"{FAMILY}/{name}", _text(cluster, name, (literal, pattern), lines, [*unlike, *_HARMLESS][: max(2, len(unlike))]))


_HARMLESS = ("***** Running training *****", "{'loss': 1.234, 'grad_norm': 0.5, 'learning_rate': 5e-05, 'epoch': 0.1}")
"""Lines of every healthy run: no rule may match them."""


def _one_line(text: str) -> str:
    return text.strip().splitlines()[0][:MAX_LINE].strip() if text.strip() else ""


def _common(lines: Sequence[str]) -> list[str]:
    """Texts that every line contains, in this order; never values (paths, numbers, ids)."""
    masked = [_VALUE.sub("\0", line) for line in lines]
    tokens = reduce(_shared, ([*_TOKEN.findall(line)] for line in masked))
    runs = "".join(tokens).split("\0")
    kept = [run for part in runs for run in part.split("\1") if len(_strip_punctuation(run)) >= 3]
    return [run.strip() for run in kept][:8]


def _shared(a: list[str], b: list[str]) -> list[str]:
    """The longest common tokens of two lines; `\\1` marks where something differs."""
    blocks = [block for block in SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks() if block.size]
    out: list[str] = []
    for before, block in pairwise([None, *blocks]):
        if before is not None or (block is not None and (block.a or block.b)):
            out.append("\1")
        if block is not None:
            out += a[block.a : block.a + block.size]
    return out


def _strip_punctuation(text: str) -> str:
    return text.strip().strip("'\"()[]{}:,.;- ")


def _quote(text: str) -> str:
    """A JSON text is a YAML text."""
    return json.dumps(text, ensure_ascii=False)


def problems(made: Draft) -> list[str]:
    """What is wrong with a draft by its own examples; empty if they pass."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{made.id}.yaml")
        path.parent.mkdir(parents=True)
        path.write_text(made.text, encoding="utf-8")
        return check_rule(parse_rule(path, {}), DETECTORS)


def _name(line: str) -> str:
    """A file name made of the words of the line."""
    words = re.findall(r"[a-z]{3,}", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _VALUE.sub(" ", _one_line(line))).lower())
    return "-".join(words[:5]) or "unknown-failure"


def _text(cluster: Cluster, name: str, how: tuple[str, str], lines: Sequence[str], unlike: Sequence[str]) -> str:
    literal, pattern = how
    found = _EXCEPTION.match(_one_line(cluster.line))
    title = found["name"] if found else _one_line(cluster.line)[:60]
    match = "\n".join(f"    - {{line: {_quote(line)}}}" for line in (lines if len(lines) > 1 else [*lines, f"[rank1]: {lines[0]}"]))
    no_match = "\n".join(f"    - {{line: {_quote(line)}}}" for line in unlike)
    return f"""\
# A draft made of {cluster.count} runs that failed alike (cluster {cluster.id}). Say what it means and what helps, move it to the folder of
# its family, take out `status: trial`, and run: lfdoctor rules test FOLDER
id: {FAMILY}/{name}
cause: {name.replace("-", "_")}
symptom: crash
severity: error
status: trial
confidence: 0.6
when:
  log_pattern:
    contains: [{_quote(literal)}]
    any_of:
      - {_quote(pattern)}
title: {{en: {_quote(f"Not understood yet: {title}")}, ko: {_quote(f"아직 알려지지 않은 실패: {title}")}}}
body:
  - en: "The run ended with this error. What it means is not written yet."
    ko: "이 오류로 실행이 끝났습니다. 의미는 아직 작성되지 않았습니다."
remedies: []
examples:
  match:
{match}
  no_match:
{no_match}
"""
