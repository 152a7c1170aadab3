"""Share of LLaMA-Factory's own messages for which a rule fires on a line rendered from them.

    python benchmarks/coverage.py MESSAGES.csv [--all]

MESSAGES.csv has the columns kind, message_pattern, where. A pattern is the f-string in LLaMA-Factory's source, with {expression} as
placeholder; text after ` <<` are the arguments of str.format. Errors count, and warnings that require action. Messages that only inform
or that training users never see are excluded, with a reason. Exit code 1 below `GOAL`.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from doctor.core.events import Crash, LogLine, Where
from doctor.core.run import Run
from doctor.detectors.base import Detector
from doctor.detectors.registry import DETECTORS
from doctor.rulebook import loader
from doctor.rulebook.model import Rule

GOAL = 0.95
"""Share of messages that need a rule."""

INFORMS = {
    r"Failed to destroy process group": "the run is over; its end is what counts",
    r"You are using fsdp2, `use_reentrant_gc`": "says what was chosen, rightly",
    r"Cannot properly tag the model": "no effect on training",
    r"Consider setting --run_name": "a matter of taste",
    r"You are using transformers with 4\.x version, the Qwen3Omni": "LLaMA-Factory has patched it already",
    r"WARNING: FP8 was requested": "an info line",
    r"desc_init: token": "details of a line that has a rule",
    r"Previous trainer log in this folder": "only the old log goes",
    r"No metric \{key\} to plot": "only a picture is missing",
    r"New tokens have been added, make sure": "said of nearly every template; the tokens are in the vocabulary already",
    r"We recommend enable `upcast_layernorm`": "said of every quantised run",
    r"4/8-bit mode may cause lower scores": "said of every quantised evaluation",
    r"Youtu|VL models should use eager": "LLaMA-Factory changes the option itself",
}
"""Pattern of a warning that requires no action -> why."""

DEVELOPERS = {
    r"Dataset converter \{name\} already exists": "only code that registers a converter meets it",
}
"""Pattern of an error that training users never see -> why."""

HOLES = {
    "message['role']": "moderator",
    "type(": "<class 'list'>",
    "cutoff_len": "4095",
    "IMAGE_PLACEHOLDER": "<image>",
    "VIDEO_PLACEHOLDER": "<video>",
    "AUDIO_PLACEHOLDER": "<audio>",
    "DATA_CONFIG": "dataset_info.json",
    "config_path": "data/dataset_info.json",
    "err": "Expecting ',' delimiter: line 9 column 3 (char 201)",
    "unknown_args": "['--learning_rte', '1e-4']",
    "path": "/srv/data/set",
    "local_path": "data/set.json",
    "FILEEXT2TYPE": "arrow,csv,json",
    "num_": "28",
    "len(": "3",
    "devices": "4",
    "workers": "8",
    "size": "16",
    "length": "5230",
    "trainable_layers": "3",
    "module_name": "mlp",
    "stage": "orpo",
    "optim": "adamw_torch_fused",
    "flash_attn": "true",
    "template": "qwen25",
    "mix_strategy": "shuffle",
    "resume_from_checkpoint": "saves/qwen/checkpoint-500",
    "model_type": "internlm2",
    "messages": "[{'from': 'bot', 'value': 'hi'}]",
    "content": "{'a': 1",
}
"""Part of a placeholder's expression -> a plausible value; other placeholders become a word."""


class Looker:
    """All text rules, to check which of them fire on a line."""

    def __init__(self) -> None:
        self.rules: list[tuple[Rule, Detector]] = []
        for rule in loader.load().rules:
            if rule.detector == "log_pattern":
                self.rules.append((rule, DETECTORS[rule.detector](**rule.params)))

    def firing(self, kind: str, text: str) -> list[str]:
        """Ids of the rules that fire on the message as an exception or as a line of LLaMA-Factory's logger."""
        where = Where("console.log", 1)
        if kind in ("warning", "info", "error"):
            line = f"[{kind.upper()}|2025-01-01 12:00:00] llamafactory.train.tuner:149 >> {text}"
            events: list[LogLine | Crash] = [LogLine(where=where, text=line)]
        else:
            events = [Crash(where=where, exception=kind, message=text), LogLine(where=where, text=f"{kind}: {text}")]
        found = {rule.id for event in events for rule, detector in self.rules if _fires(detector, event)}
        return sorted(found)


def _fires(detector: Detector, event: LogLine | Crash) -> bool:
    known = not detector.literals or any(literal in event.text for literal in detector.literals)
    return known and any(True for _ in detector.feed(event, Run()))


def render(kind: str, pattern: str) -> tuple[str, str]:
    """(exception or level, text) of a message as a user sees it."""
    if kind == "check_version":
        return _version_error(pattern)
    text, _, arguments = pattern.partition("  <<")
    holes = iter(re.split(r",\s(?![^(]*\))", arguments.removesuffix(">>")))
    text = re.sub(r"\{([^{}]*)\}", lambda hole: _fill(hole[1] or next(holes, "")), text)
    return {"assert": "AssertionError"}.get(kind, kind), text.replace("<x>", "bogus").replace("<pkg>", "galore_torch")


def _version_error(pattern: str) -> tuple[str, str]:
    """Message of transformers' require_version: mandatory packages are missing, others have the wrong version."""
    requirement = pattern.split()[0]
    package = re.split(r"[<>=!]", requirement)[0]
    if "mandatory" in pattern:
        return (
            "importlib.metadata.PackageNotFoundError",
            f"The '{requirement}' distribution was not found and is required by this application.",
        )
    text = f"{requirement} is required for a normal functioning of this module, but found {package}==0.0.1."
    return "ImportError", f"{text}\nTo fix: run `pip install {requirement}` or set `DISABLE_VERSION_CHECK=1` to skip this check."


def _fill(expression: str) -> str:
    return next((value for part, value in HOLES.items() if part in expression), "something")


def excluded(row: dict[str, str]) -> str | None:
    """Why a message is excluded; None if it counts."""
    pattern = row["message_pattern"]
    known = {**DEVELOPERS, **(INFORMS if row["kind"] in ("warning", "info") else {})}
    return next((reason for expression, reason in known.items() if re.search(expression, pattern)), None)


def main() -> int:
    """Print the share and the messages without a rule; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("messages", type=Path)
    parser.add_argument("--all", action="store_true", help="list the covered messages too")
    options = parser.parse_args()
    looker = Looker()
    counted = covered = 0
    with options.messages.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            reason = excluded(row)
            kind, text = render(row["kind"], row["message_pattern"])
            rules = looker.firing(kind, text)
            place = f"{row['where']}: {row['message_pattern'][:110]}"
            if reason:
                print(f"left out ({reason}): {place}")
                continue
            counted += 1
            covered += bool(rules)
            if not rules:
                print(f"NO RULE {row['kind']} {place}")
            elif options.all:
                print(f"{', '.join(rules)}: {place}")
    print(f"{covered} of {counted} messages have a rule: {100 * covered / max(counted, 1):.1f} %")
    return 0 if covered >= GOAL * counted else 1


if __name__ == "__main__":
    sys.exit(main())
