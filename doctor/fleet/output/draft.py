"""Drafts a rule from a cluster of unknown failures, or from one report: the common text becomes the pattern, the lines become examples."""

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
from doctor.report.model import Report, SaysView
from doctor.rulebook.parsing import parse_rule
from doctor.support.decoding import from_json

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


def of_report(path: Path) -> Draft:
    """The draft of a rule for the failure that a JSON report could not explain. Raises DoctorError if it explains it, or is no report.

    What the message itself advises becomes the remedies.
    """
    try:
        report = from_json(path.read_bytes(), Report)
    except (OSError, msgspec.DecodeError) as error:
        raise DoctorError(f"{path}: no JSON report of lfdoctor (lfdoctor analyze RUN --format json -o FILE): {error}") from error
    finding = next((one for one in report.findings if one.role == "root"), None)
    if finding is None or not (finding.cause is None or finding.rule.endswith(CONCLUDED)):
        known = f": {finding.rule} explains it" if finding else ""
        raise DoctorError(f"{path}: no failure without a rule in this report{known}")
    quoted = [line.strip() for piece in finding.evidence for line in piece.text.splitlines()]
    named = [line for line in quoted if _EXCEPTION.match(line)]
    line = next(iter([*named, finding.title, *quoted[-1:]]), "")
    if not named and _EXCEPTION.match(finding.title) is None and quoted:
        line = quoted[-1]
    cluster = Cluster(id="", line=line, count=1, lines=[line], fingerprints=[], runs=[])
    return draft(cluster, [], [_remedy(place, says) for place, says in enumerate(finding.says, 1)])


CONCLUDED = ("/origin", "/learned")
"""Last parts of ids under which causes are told that no rule lists."""


def _remedy(place: int, says: SaysView) -> str:
    """A remedy of the rule in YAML: the sentence of the message, and its command."""
    command = f"\n    command: {_quote(says.command)}" if says.command else ""
    text = _quote(says.text.replace("{", "{{").replace("}", "}}"))
    return f"  - id: as-the-message-says-{place}\n    effect: manual{command}\n    text: {{en: {text}, ko: {text}, zh: {text}}}"


def draft(cluster: Cluster, others: Sequence[Cluster], remedies: Sequence[str] = ()) -> Draft:
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
    text = _text(cluster, name, (literal, pattern), lines, [*unlike, *_HARMLESS][: max(2, len(unlike))], remedies)
    return Draft(f"{FAMILY}/{name}", text)


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


def _text(cluster: Cluster, name: str, how: tuple[str, str], lines: Sequence[str], unlike: Sequence[str], remedies: Sequence[str]) -> str:
    literal, pattern = how
    made_of = f"{cluster.count} runs that failed alike (cluster {cluster.id})" if cluster.id else "a report"
    helps = "remedies:\n" + "\n".join(remedies) if remedies else "remedies: []"
    found = _EXCEPTION.match(_one_line(cluster.line))
    title = found["name"] if found else _one_line(cluster.line)[:60]
    match = "\n".join(f"    - {{line: {_quote(line)}}}" for line in (lines if len(lines) > 1 else [*lines, f"[rank1]: {lines[0]}"]))
    no_match = "\n".join(f"    - {{line: {_quote(line)}}}" for line in unlike)
    return f"""\
# A draft made of {made_of}. Say what it means and what helps, name where the message comes from (`witness`),
# move it to the folder of its family, take out `status: trial`, and run: lfdoctor rules test FOLDER
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
title:
  en: {_quote(f"Not understood yet: {title}")}
  ko: {_quote(f"아직 알려지지 않은 실패: {title}")}
  zh: {_quote(f"尚未弄清的失败：{title}")}
body:
  - en: "The run ended with this error. What it means is not written yet."
    ko: "이 오류로 실행이 끝났습니다. 의미는 아직 작성되지 않았습니다."
    zh: "运行因这个错误而结束，其含义尚未写明。"
{helps}
examples:
  match:
{match}
  no_match:
{no_match}
"""
