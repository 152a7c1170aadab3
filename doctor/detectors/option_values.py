"""`options`: a key that LLaMA-Factory does not know, or a value that is none of an option's legal ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from doctor.config.option_names import known_somewhere, lacks, similar, successor
from doctor.config.options import Option, table
from doctor.config.values import as_number
from doctor.config.versions import Version, versions_of
from doctor.core.events import ConfigSeen, Crash, Event, LogLine
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

Facts = dict[str, Any]
WRITTEN = ("yaml", "command", "journal")
"""Origins that hold what the user wrote; what is recovered from a run holds only what LLaMA-Factory had taken."""
UNSURE = 0.45
"""Where a console but no version of LLaMA-Factory is known, its own message decides whether a key is unknown to it."""


class OptionValues(DetectorBase):
    """Parameters: `problem`, one of

    `unknown`: a key that the installed version lacks. Facts: key, given; suggested (its name today, with the same value); similar (the
    nearest spelling, where nothing is suggested); newer (a later release or another trainer of LLaMA-Factory has it); package;
    confirmed where the parser itself said so in the console (it lists all unknown keys, and then its list decides).
    `choice`: a value outside an option's legal ones; `of` (training or other) says whose check it is: transformers refuses at
    once, the rest dies later. Facts: key, given, suggested, legal.
    `number_as_text`: a number in quotes (or one that older loaders read as text). Facts: key, given, number.
    `none_as_text`: the text None where nothing is meant. Facts: key, given.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (ConfigSeen, LogLine, Crash)
    needs: tuple[str, ...] = ("config",)
    literals: tuple[str, ...] = ("not used by the HfArgumentParser",)
    facts: tuple[str, ...] = ("key", "given", "suggested", "similar", "newer", "legal", "number", "package", "confirmed")

    def __init__(self, problem: str, of: str | None = None) -> None:
        looks: dict[str, Callable[[str, Any, Run], Facts | None]] = {
            "unknown": self._unknown,
            "choice": self._choice,
            "number_as_text": self._number_as_text,
            "none_as_text": self._none_as_text,
        }
        if problem not in looks:
            raise ValueError(f"problem is one of {', '.join(looks)}")
        if (problem == "choice") is not (of in ("training", "other")):
            raise ValueError("`of` goes with problem: choice, and is training or other")
        self.problem, self.of, self._look = problem, of, looks[problem]
        self._written: set[str] = set()
        self._refused: set[str] = set()

    def feed(self, event: ConfigSeen | LogLine | Crash, run: Run) -> Iterator[Match]:
        if isinstance(event, ConfigSeen):
            if event.origin in WRITTEN:
                self._written |= event.values.keys()
        elif self.problem == "unknown" and len(self._refused) < 1000:
            listed = re.search(r"not used by the HfArgumentParser: \[([^\]]*)", event.text)
            self._refused |= set(re.findall(r"'-{0,2}([\w.-]+)'", listed[1])) if listed else set()
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        if is_other_command(run.config):
            return
        for key in sorted(self._written & run.config.keys()):
            facts = self._look(key, run.config[key], run)
            if facts is not None:
                evidence = (Evidence(run.config_where[key], f"{key}: {run.config[key]}"),)
                known = {name: value for name, value in facts.items() if value is not None}
                yield Match(evidence=evidence, facts={"key": key, "given": run.config[key], **known}, key=key, confidence=self._surety(run))

    def _surety(self, run: Run) -> float | None:
        told = "versions.llamafactory" in run.facts or self._refused or not {"LogLine", "Crash"} & run.seen
        return None if told or self.problem != "unknown" else UNSURE

    def _unknown(self, key: str, given: Any, run: Run) -> Facts | None:
        installed = versions_of(run.facts)
        option = table().get(key)
        if (key not in self._refused) if self._refused else not lacks(key, run.facts, run.config):
            return None
        suggested, near = successor(key, given), similar(key, installed)
        return {
            "suggested": None if suggested in run.config else suggested,
            "similar": None if suggested or near in run.config else near,
            "package": _package(option, installed),
            "confirmed": bool(self._refused) or None,
            "newer": (option is None and known_somewhere(key)) or None,
        }

    def _choice(self, key: str, given: Any, run: Run) -> Facts | None:
        option = table().get(key)
        if option is None or not option.choices or given is None or (option.group == "training") is not (self.of == "training"):
            return None
        if not isinstance(given, str | bool) or _legal(given, option) or key in ("quantization_method", "rope_scaling", "fsdp"):
            return None
        close = _close(given, [str(one) for one in option.choices])
        return {"suggested": close, "legal": ", ".join(map(str, option.choices))}

    def _number_as_text(self, key: str, given: Any, run: Run) -> Facts | None:
        option = table().get(key)
        words = option.type.split("|") if option else []
        if not isinstance(given, str) or "str" in words or not {"int", "float"} & set(words):
            return None
        number = as_number(given)
        if number is None or ("float" not in words and not isinstance(number, int)):
            return None
        return {"number": float(number) if "int" not in words else number}

    def _none_as_text(self, key: str, given: Any, run: Run) -> Facts | None:
        option = table().get(key)
        meant = given in ("None", "none", "NULL") and option is not None and "null" in option.type
        return {} if option and meant and given != option.default and given not in (option.choices or ()) else None


def is_other_command(config: dict[str, Any]) -> bool:
    """Whether this is a config of the v1 trainer (`model:`) or of the benchmark command (`task:`), which have other keys."""
    return "task" in config or ("model" in config and "model_name_or_path" not in config)


def _legal(given: str | bool, option: Option) -> bool:
    return any(type(given) is type(one) and given == one for one in option.choices or ()) or (
        option.type.startswith("bool") and isinstance(given, bool)
    )


def _close(given: Any, legal: list[str]) -> str | None:
    import difflib

    found = difflib.get_close_matches(str(given).lower(), legal, n=1, cutoff=0.6)
    return found[0] if found else None


def _package(option: Option | None, installed: dict[str, Version]) -> str | None:
    """`transformers 5.6.0` where that version has dropped (or does not have yet) a key that others know."""
    if option is None:
        return None
    name = {"llamafactory": "LLaMA-Factory"}.get(option.of, option.of)
    return f"{name} {'.'.join(map(str, installed[option.of]))}"
