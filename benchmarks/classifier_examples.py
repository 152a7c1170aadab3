"""Training examples of the classifier, and how a text becomes what it reads.

Sources, all of this repository: the examples of the rules, the signatures of rules/known_issues.yaml, the examples of the decision table
(rules/exceptions.yaml), and benchmarks/data/failure_messages.yaml.
"""

from __future__ import annotations

import math
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from doctor.core.run import Run
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.feeding import feed
from doctor.diagnosis.unlisted.candidates import what_is_seen
from doctor.diagnosis.unlisted.features import ExceptionFeatures
from doctor.diagnosis.unlisted.last_events import LastEvents
from doctor.diagnosis.unlisted.tokens import tokens
from doctor.readers import reading

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"
NOT_TOLD = frozenset(
    ("unknown", "process_exited_unexplained", "silent_auto_resume", "config_hint", "forecast_tight", "forecast_does_not_fit", "overfitting")
)
"""Causes that no text tells: echoes, hints of a config, and what only a curve shows."""
MOST_OF_A_RULE = 15
"""Examples of one rule that are used: lists of names would make their cause look common."""
NOTES_KEPT = frozenset(("slow_cpu_fallback", "slow_allocator_thrash", "slow_interconnect", "slow_tokenization", "optimizer_steps_skipped"))
"""Causes whose rules are notes, and yet what a user asks about."""
_FRAME = re.compile(r"@([\w.]+)\.(\w+) ?")


class Example(NamedTuple):
    """A text of a log and its cause. `source` is the kind of file it is from."""

    source: str
    cause: str
    text: str


def examples() -> list[Example]:
    """All training examples, in a fixed order."""
    out = [*_rules(), *_known_issues(), *_table(), *messages(DATA / "failure_messages.yaml")]
    return [example for example in out if example.cause not in NOT_TOLD and len(example.text) > 5]


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _rules() -> Iterator[Example]:
    for path in sorted(ROOT.glob("rules/*/*.yaml")):
        rule = _yaml(path)
        if rule.get("severity") == "note" and rule["cause"] not in NOTES_KEPT:
            continue
        found = [example.get("line") or example.get("text") or "" for example in (rule.get("examples") or {}).get("match", [])]
        step = max(1, math.ceil(len(found) / MOST_OF_A_RULE))
        yield from (Example("rules", rule["cause"], text) for text in found[::step])


def _known_issues() -> Iterator[Example]:
    for group in _yaml(ROOT / "rules/known_issues.yaml"):
        yield from (Example("known issues", group["cause"], signature) for signature in group["issues"].values())


def _table() -> Iterator[Example]:
    for row in _yaml(ROOT / "rules/exceptions.yaml"):
        yield from (Example("decision table", row["cause"], form["example"]) for form in row["when"])


def messages(path: Path) -> Iterator[Example]:
    """The lines of a file of messages, `cause: |` and a line each; `@package.function` stands for a frame."""
    for cause, lines in _yaml(path).items():
        yield from (Example("messages", cause, with_frames(line)) for line in lines.strip().splitlines())


def with_frames(line: str) -> str:
    """The traceback that a line with `@package.function` stands for."""
    frames = [
        f'  File "/usr/lib/python3.11/site-packages/{package.replace(".", "/")}.py", line 1, in {function}\n    ...\n'
        for package, function in _FRAME.findall(line)
    ]
    return "".join(["Traceback (most recent call last):\n", *frames, _FRAME.sub("", line)]) if frames else line


def write_run(folder: Path, text: str, config: str | None = None) -> tuple[Run, LastEvents, str]:
    """A failed run with this console and this config (YAML, or a command line), read without any rule; the last is its console."""
    console = folder / "console.log"
    console.write_text(text + "\n", encoding="utf-8")
    if config:
        (folder / ("train.yaml" if is_yaml(config) else "command.sh")).write_text(config + "\n", encoding="utf-8")
    engine, seen = Engine(()), LastEvents()
    feed(engine, reading.read([folder]).batches(), seen)
    return engine.run, seen, str(console)


def seen_in(text: str, config: str | None = None) -> tuple[ExceptionFeatures | None, list[str]]:
    """What a failed run with this console and this config shows to the classifier."""
    with tempfile.TemporaryDirectory() as folder:
        run, seen, console = write_run(Path(folder), text, config)
        return what_is_seen(run, seen, [console])


def counts_of(text: str, config: str | None = None) -> dict[str, float]:
    """The tokens of a text, weighted."""
    return tokens(*seen_in(text, config))


def is_yaml(config: str) -> bool:
    """Whether most lines are `key: value`; else it is a command."""
    lines = config.splitlines()
    return sum(bool(re.match(r"\s*[\w.]+\s*:\s", line)) for line in lines) >= max(2, len(lines) // 2)
