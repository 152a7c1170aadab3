"""`options`: an option LLaMA-Factory does not know, or a value it does not accept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from doctor.config import knowledge
from doctor.config.corrections import correction
from doctor.config.option_names import known_somewhere, lacks, similar, standing, successor
from doctor.config.options import Option, choices_of, table
from doctor.config.values import as_number
from doctor.config.versions import Version, assumed, parse, possible, reported, shown, versions_of
from doctor.core.events import ConfigSeen, Crash, Event, LogLine
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match
from doctor.support.lazy_regex import lazy_compile

Facts = dict[str, Any]
WRITTEN_ORIGINS = ("yaml", "command", "journal")
"""Origins with the user's own keys; a config recovered from a run has only keys LLaMA-Factory accepted."""

UNKNOWN_VERSION_CONFIDENCE = 0.45
"""0..1, for `unknown` if there is a console but no LLaMA-Factory version and no message of its parser. A judgement: below the 0.5 that
a root cause needs (diagnosis/causes.py)."""

MAX_REFUSED_KEYS = 1000
"""Bound on keys and values remembered from the parser's messages."""
_REFUSED_VALUE = lazy_compile(r"(\S+) is not a valid \w+, please select one of")
"""transformers/utils/generic.py, ExplicitEnum._missing_."""


_CHECKED_ELSEWHERE = ("quantization_method", "rope_scaling", "fsdp", "template")
"""Options with choices whose other values rules of their own judge."""


class OptionValues(DetectorBase):
    """Parameter `problem`:

    - `unknown`: the installed version has no such key. Facts: key, given; suggested (its current name, same value); similar (nearest
      spelling, if nothing is suggested); newer (a later release or another trainer has it); older (older releases have it, and
      nothing says which one runs); package; confirmed (the parser said so in
      the console; its list then decides for every key).
    - `choice`: a value that no version of LLaMA-Factory which the run may have allows. `of`: training (transformers rejects it at once)
      or other (fails later). Facts: key, given, suggested (the same value in LLaMA-Factory's words, from tables), similar (the nearest
      spelling, if nothing is suggested), legal; confirmed (transformers refused this value in the console).
    - `template`: no version that the run may have has this template. Facts: key, given, similar.
    - `elsewhere`: an option or a template that the version lacks, or the newest one where nothing tells the version, and that another
      possible version or trainer has. Facts: key, given; since, until (the first and last version with it, None for no bound), switch
      (the environment variable that starts the trainer with it); template (true for a template); package (what lacks it).
    - `number_as_text`: a number in quotes, or in a form older YAML loaders read as text. Facts: key, given, number.
    - `none_as_text`: the text None instead of null. Facts: key, given.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (ConfigSeen, LogLine, Crash)
    needs: tuple[str, ...] = ("config",)
    literals: tuple[str, ...] = ("not used by the HfArgumentParser", "is not a valid ")
    facts: tuple[str, ...] = ("key", "given", "suggested", "similar", "newer", "older", "legal", "number", "package", "confirmed",
                              "since", "until", "switch", "template")  # fmt: skip

    def __init__(self, problem: str, of: str | None = None) -> None:
        looks: dict[str, Callable[[str, Any, Run], Facts | None]] = {
            "unknown": self._unknown,
            "choice": self._choice,
            "template": self._template,
            "elsewhere": self._elsewhere,
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
            if event.origin in WRITTEN_ORIGINS:
                self._written |= event.values.keys()
        elif self.problem == "choice" and len(self._refused) < MAX_REFUSED_KEYS:
            self._refused |= set(_REFUSED_VALUE.findall(event.text))
        elif self.problem == "unknown" and len(self._refused) < MAX_REFUSED_KEYS:
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
                yield Match(
                    evidence=evidence, facts={"key": key, "given": run.config[key], **known}, key=key, confidence=self._confidence(run)
                )

    def _confidence(self, run: Run) -> float | None:
        version_known = "versions.llamafactory" in run.facts or self._refused or not {"LogLine", "Crash"} & run.seen
        return None if version_known or self.problem != "unknown" else UNKNOWN_VERSION_CONFIDENCE

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
            "older": (option is not None and not self._refused and not reported(run.facts, option.of)) or None,
        }

    def _template(self, key: str, given: Any, run: Run) -> Facts | None:
        if key != "template" or not isinstance(given, str) or _templates_with(given, run):
            return None
        return {"similar": _close(given, sorted({name for version in possible(run.facts) for name in _templates(version)}))}

    def _elsewhere(self, key: str, given: Any, run: Run) -> Facts | None:
        installed = versions_of(run.facts)
        if key == "template" and isinstance(given, str):
            having = _templates_with(given, run)
            if not having or assumed(run.facts) in having or self._refused:
                return None
            package = shown("llamafactory", installed["llamafactory"])
            first, last = (knowledge.having(knowledge.history("templates", given))[place] for place in (0, -1))
            gone = parse(last) < installed["llamafactory"]
            return {"until": last, "template": True, "package": package} if gone else {
                "since": knowledge.shown(first), "template": True, "package": package,
            }  # fmt: skip
        found = standing(key, run.facts, run.config)
        if found.kind != "elsewhere" or self._refused:
            return None
        package = _package(table().get(key), installed) or shown("llamafactory", installed["llamafactory"])
        return {"since": found.since, "until": found.until, "switch": found.switch, "package": package}

    def _choice(self, key: str, given: Any, run: Run) -> Facts | None:
        option = table().get(key)
        if option is None or not option.choices or given is None or (option.group == "training") is not (self.of == "training"):
            return None
        legal = choices_of(key, versions_of(run.facts)) or []
        if not isinstance(given, str | bool) or _legal(given, legal, option) or key in _CHECKED_ELSEWHERE:
            return None
        if any(_legal(given, others, option) for others in _choices_elsewhere(key, option, run)):
            return None
        meant = correction(key, given)
        return {
            "suggested": meant.value if meant and not meant.also else None,
            "similar": None if meant else _close(given, [str(choice) for choice in legal]),
            "legal": ", ".join(map(str, legal)),
            "confirmed": str(given) in self._refused or None,
        }

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


def _templates(version: str) -> frozenset[str]:
    return knowledge.names_at("templates", version)


def _templates_with(name: str, run: Run) -> list[str]:
    """The versions that the run may have and that know this template, oldest first."""
    return [version for version in possible(run.facts) if name in _templates(version)]


def is_other_command(config: dict[str, Any]) -> bool:
    """Whether this config is for the v1 trainer (`model:`) or the benchmark command (`task:`), which have other keys."""
    return "task" in config or ("model" in config and "model_name_or_path" not in config)


def _choices_elsewhere(key: str, option: Option, run: Run) -> Iterator[list[Any]]:
    """The values that the option takes in each LLaMA-Factory that the run may have, where none is reported."""
    changes = knowledge.option_history(option.of, key) if option.of == "llamafactory" else ()
    for version in possible(run.facts):
        entry = knowledge.at(changes, version)
        if isinstance(entry, dict):
            yield entry.get("choices") or []


def _legal(given: str | bool, legal: list[Any], option: Option) -> bool:
    return any(type(given) is type(choice) and given == choice for choice in legal) or (
        option.type.startswith("bool") and isinstance(given, bool)
    )


def _close(given: Any, legal: list[str]) -> str | None:
    import difflib

    found = difflib.get_close_matches(str(given).lower(), legal, n=1, cutoff=0.6)
    return found[0] if found else None


def _package(option: Option | None, installed: dict[str, Version]) -> str | None:
    """`transformers 5.6.0` if that installed version lacks a key other versions have."""
    return shown(option.of, installed[option.of]) if option else None
