"""The lints of rule files: every shipped rule passes them, and each of them sees the mistake that it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from doctor.detectors.registry import DETECTORS
from doctor.diagnosis.rule_lints import lint_file, lint_rule
from doctor.rulebook import loader, parsing
from doctor.rulebook.model import Rule
from doctor.support.package_files import rules_folder

BOOK = loader.load()
FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in BOOK.rules])
def test_a_rule_passes_the_lints(rule: Rule) -> None:
    """Nothing to say of the rule, nor of the form of its file."""
    assert [*lint_rule(rule, DETECTORS), *lint_file(rules_folder() / f"{rule.id}.yaml")] == []


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in BOOK.rules if any(w.startswith("lab:") for w in rule.witness)])
def test_a_recording_that_is_named_as_witness_shows_the_rule(rule: Rule) -> None:
    """The fixture exists, and its report names the rule."""
    for witness in rule.witness:
        if witness.startswith("lab: "):
            folder = FIXTURES / witness.removeprefix("lab: fixtures/")
            expected = yaml.safe_load((folder / "expected.yaml").read_text(encoding="utf-8"))
            assert rule.id in [finding["rule"] for finding in expected["findings"]], witness


def test_every_shared_remedy_is_used() -> None:
    """One that no rule takes is read by no user and checked by no lint of a rule."""
    raw = [parsing.read_mapping(path)[0].get("remedies") or [] for path in parsing.rule_files(rules_folder())]
    items = [item["use"] if isinstance(item, dict) else item for items in raw for item in items if isinstance(item, str) or "use" in item]
    used = {name for item in items for name in ([item] if isinstance(item, str) else item)}
    shared = {*parsing.read_mapping(rules_folder() / "remedies.yaml")[0]}
    shared |= {f"guide/{step.section}/{step.step}" for step in (BOOK.guide.steps if BOOK.guide else ())}
    assert shared - used == set()


SOUND: dict[str, Any] = {
    "id": "data/needle",
    "cause": "needle",
    "symptom": "data",
    "severity": "error",
    "witness": ["thread: hiyouga/LLaMA-Factory#1234"],
    "when": {"log_pattern": {"contains": ["a needle"], "any_of": ["a needle (?P<size>\\d+)"], "none_of": ["\\bhay\\b"]}},
    "title": {"en": "A needle", "ko": "바늘"},
    "body": [{"en": "Found {size}.", "ko": "{size} 발견."}],
    "examples": {"match": [{"line": "a needle 3"}], "no_match": [{"line": "hay"}]},
}


def linted(folder: Path, **changes: Any) -> list[str]:
    """What the lints say of the sound rule with some of its keys changed."""
    path = folder / "data" / "needle.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump({**SOUND, **changes}, allow_unicode=True, sort_keys=False, width=150), encoding="utf-8")
    return [*lint_rule(parsing.parse_rule(path, {}), DETECTORS), *lint_file(path)]


def when(**params: Any) -> dict[str, Any]:
    return {"log_pattern": {**SOUND["when"]["log_pattern"], **params}}


def test_a_sound_rule_passes(tmp_path: Path) -> None:
    """The rule that the next tests break has no mistake."""
    assert linted(tmp_path) == []


def remedy(**more: Any) -> dict[str, Any]:
    return {"id": "pick-it-up", "text": {"en": "Pick it up.", "ko": "주우세요."}, **more}


PLAIN = {"en": "Found.", "ko": "발견."}
TWO = ["a needle (?P<size>\\d+)", "a needle of (?:gold|tin) (?P<size>\\d+)"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"body": [PLAIN, *SOUND["body"]]}, "body[0]"),
        ({"body": [{"en": "In {place}.", "ko": "{place}"}]}, "fact 'place'"),
        ({"where": {"fact.slow_elsewhere": True}}, "fact 'slow_elsewhere'"),
        ({"when": when(contains=["a needle", "a needle 3"])}, "never needed beside 'a needle'"),
        ({"when": when(contains=["a needle", "oading"])}, "usual names (loading)"),
        ({"when": when(contains=["a needle", "a pin"])}, "holds the word 'a pin'"),
        ({"when": when(none_of=["port"])}, "inside the usual name import_utils"),
        ({"when": when(any_of=TWO)}, "alternative 1 (gold)"),
        ({"when": when(any_of=[*SOUND["when"]["log_pattern"]["any_of"], "a needle in a haystack"])}, "no example for all"),
        ({"when": when(any_of=["a needle (?P<size>\\d+)" + "x?" * 200])}, "(at most 400)"),
        ({"remedies": [remedy(text={"en": "Write {fact.number}.", "ko": "x"})]}, "fact 'number'"),
        ({"remedies": [remedy(text={"en": "Write it.", "ko": "{number}"})]}, "fact 'number'"),
        ({"remedies": [remedy(patch=[{"set": {"learning_rate": "{fact.number}"}}])]}, "fact 'number'"),
        ({"remedies": [remedy(patch=[{"scale": {"learning_rate": {"by": "{fact.share}"}}}])]}, "fact 'share'"),
        ({"remedies": [remedy(command="look {number}")]}, "fact 'number'"),
        ({"remedies": [remedy(text={"en": "Now {config.lora_rnak}.", "ko": "x"})]}, "`config` has no 'lora_rnak'"),
        ({"remedies": [remedy(patch=[{"set": {"output_dir": "{plan.folder}"}}])]}, "`plan` has no 'folder'"),
        ({"remedies": [remedy(cost={"en": "Slower by {number}.", "ko": "x"})]}, "fact 'number'"),
        ({"body": [{"en": "Found {size} of {run.epochs}.", "ko": "x"}]}, "`run` has no 'epochs'"),
        ({"where": {"config.stage": {"set": True}}}, "the default is 'sft'"),
        ({"where": {"any": [{"not": {"config.video_maxlen": None}}]}}, "the default is 128"),
        ({"where": {"config.report_to": {"set": True}}}, "ask `written.report_to`"),
        ({"where": {"config.report_to": {"set": False, "ne": "none"}}}, "ask `written.report_to`"),
        ({"remedies": [remedy(done_if={"config.dpo_beta": [None]})]}, "ask `written.dpo_beta`"),
        ({"remedies": [remedy(patch=[{"unset": ["split"], "only_if": {"config.split": {"set": True}}}])]}, "ask `written.split`"),
        ({"when": {"config": {"all": {"config.flash_attn": {"set": True}}}}}, "the default is 'auto'"),
        ({"when": {"config": {"any": [{"config.flash_attn": None}]}}}, "the default is 'auto'"),
        ({"witness": []}, "no witness"),
        ({"witness": ["seen by a friend"]}, "'seen by a friend'"),
        ({"title": {"en": "A " + "very_" * 40, "ko": "바늘"}}, "characters (at most 160)"),
    ],
)
def test_a_mistake_is_seen(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    """Each kind of mistake gives one sentence that names it."""
    assert any(problem in said for said in linted(tmp_path, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"body": [*SOUND["body"], PLAIN]},
        {"body": [{**PLAIN, "where": {"config.stage": "sft"}}, *SOUND["body"]]},
        {"where": {"fact.versions.torch": {"set": True}, "fact.size": "3"}},
        {"where": {"written.stage": {"set": True}, "config.stage": [None, "sft"], "config.report_to": {"set": True, "ne": "none"}}},
        {"where": {"config.quantization_bit": {"set": True}, "config.deepspeed": None}},
        {"remedies": [remedy(text={"en": "Set {size}.", "ko": "{fact.size}"}, command="look {versions.torch}")]},
        {"remedies": [remedy(patch=[{"set": {"output_dir": "{plan.output_dir}-{config.lora_rank}-{fact.size}"}}])]},
        {"witness": [], "status": "trial"},
        {"witness": [{"source": "peft 0.15.2 peft/tuners/lora/model.py:_check_target_module_exists"}]},
        {"when": when(any_of=["a needle (?P<size>\\d+|" + "|".join(f"name{number}" for number in range(9)) + ")"])},
    ],
)
def test_what_is_right_passes(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A plain body in the last place, a conditional one anywhere, registered facts, a trial, every form of witness, a list of names.

    In remedies: facts, options, and the new folder. Presence is asked of what the user wrote, of options without a default, or together
    with another value than the default.
    """
    assert linted(tmp_path, **changes) == []
