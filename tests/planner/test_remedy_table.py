"""What remedies do to a config, written by hand in remedies/*.yaml from what LLaMA-Factory's options mean, not from what the rules say.

A remedy's id (with its rule where several rules have one of that name) -> rows of [config before, on top of BASE; facts; changes].
null in the changes: the key is removed. A text in their place: the remedy's status, since it must not be applied there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from doctor.planner.situation import Situation, advise, config_errors
from doctor.rulebook import loader
from doctor.rulebook.model import Remedy

BOOK = loader.load()
CHECKS = tuple(rule for rule in BOOK.rules if rule.detector == "config")
GUIDE = tuple(step.remedy for step in BOOK.guide.steps) if BOOK.guide else ()
AUTOMATIC: dict[str, list[tuple[str, Remedy]]] = {}
"""Remedy id -> (rule or "guide", remedy) of each that changes a config by itself."""
for _owner, _remedy in [*(("guide", step) for step in GUIDE), *((rule.id, remedy) for rule in BOOK.rules for remedy in rule.remedies)]:
    if _remedy.patch and _remedy.effect != "manual" and not _remedy.excluded:
        AUTOMATIC.setdefault(_remedy.id, []).append((_owner, _remedy))

BASE = {"stage": "sft", "do_train": True, "finetuning_type": "lora", "model_name_or_path": "m", "dataset": "d"}
TABLE: dict[str, list[tuple[dict[str, Any], dict[str, Any], dict[str, Any] | str]]] = {}
for _file in sorted(Path(__file__).with_name("remedies").glob("*.yaml")):
    TABLE |= yaml.safe_load(_file.read_text(encoding="utf-8"))


def behaviour(remedy: Remedy) -> bytes:
    """What the remedy changes and when; remedies of one name that differ in it need rows of their own."""
    return msgspec.json.encode([remedy.patch, remedy.keep, remedy.only_if, remedy.done_if, remedy.harmful_if])


def named(name: str) -> list[Remedy]:
    """The remedies that a row's name means: those of one rule, or all of that id."""
    owner, _, remedy_id = name.rpartition("#")
    return [remedy for rule, remedy in AUTOMATIC.get(remedy_id, []) if owner in ("", rule)]


@pytest.mark.parametrize(
    ("name", "config", "facts", "expected"),
    [(name, *row) for name, rows in TABLE.items() for row in rows],
    ids=[f"{name}-{number}" for name, rows in TABLE.items() for number in range(len(rows))],
)
def test_a_remedy_changes_exactly_what_the_table_says(
    name: str, config: dict[str, Any], facts: dict[str, Any], expected: dict[str, Any] | str
) -> None:
    """No key more, none less, each with its value, and LLaMA-Factory accepts the result."""
    situation = Situation({**BASE, **config}, facts, {})
    advice = advise(named(name)[0], situation, {}, CHECKS)
    if isinstance(expected, str):
        assert advice.status == expected, advice.reason.en
        return
    assert advice.status == "apply", advice.reason.en
    changed = {
        f"{'' if change.target == 'config' else change.target + ':'}{change.key}": None if change.op == "unset" else change.new
        for change in advice.changes
    }
    assert changed == expected
    assert {key: type(value) for key, value in changed.items()} == {key: type(value) for key, value in expected.items()}
    assert list(config_errors(CHECKS, situation.after(advice.changes).config, facts)) == []


def test_a_name_of_the_table_means_one_behaviour() -> None:
    """A row would otherwise test one of several remedies, whichever comes first."""
    assert {name: len({behaviour(remedy) for remedy in named(name)}) for name in TABLE} == dict.fromkeys(TABLE, 1)


def test_every_automatic_remedy_has_a_row_of_changes() -> None:
    """A new remedy needs one, written by hand."""
    changing = [name for name, rows in TABLE.items() if any(isinstance(row[2], dict) for row in rows)]
    covered = {(remedy.id, behaviour(remedy)) for name in changing for remedy in named(name)}
    missing = {
        f"{rule}#{remedy.id}" for pairs in AUTOMATIC.values() for rule, remedy in pairs if (remedy.id, behaviour(remedy)) not in covered
    }
    assert missing == set()
