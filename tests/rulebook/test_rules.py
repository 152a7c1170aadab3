"""Every rule file, whoever wrote it: examples, words, options, cures; and the silence of all of them on healthy logs."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from doctor.config import options
from doctor.config.patch import Unknown, apply, changes_of
from doctor.core.events import ConfigSeen, Crash, LogLine, Where
from doctor.core.facts import FACTS
from doctor.core.run import Run
from doctor.detectors.log_pattern import LogPattern
from doctor.detectors.registry import DETECTORS
from doctor.diagnosis.engine import Engine
from doctor.diagnosis.rule_examples import check_rule, findings, forms
from doctor.readers import reading
from doctor.rulebook import loader
from doctor.rulebook.conditions import holds, paths
from doctor.rulebook.model import Remedy, Rule
from doctor.rulebook.parsing import rule_files
from doctor.support.languages import LANGUAGES
from doctor.support.package_files import rules_folder
from doctor.support.texts import Text

BOOK = loader.load(detectors=DETECTORS)
PLACEHOLDER = re.compile(r"(?<!\{)\{([a-z_][\w.]*)(?::[^{}]*)?\}(?!\})")
HERE = Where("train.yaml", 1)
MAIN_BRANCH = {"use_megatron_bridge", "use_hyper_parallel"}
"""Options of LLaMA-Factory's main branch that no release has yet."""
RUN_FACTS = {f"forecast_{name}" for name in ("verdict", "allocated_gib", "low_gib", "high_gib", "capacity_gib", "peak_phase")} | {"length"}
"""Facts that are the run's, not the match's, under which texts may speak of the memory estimate."""
CLIMBS = 60
"""No remedy needs more steps than this from any sensible value to where it ends (a million halved 20 times is 1)."""


def of(rules: tuple[Rule, ...] = BOOK.rules) -> list[Any]:
    return [pytest.param(rule, id=rule.id) for rule in rules]


every_rule = pytest.mark.parametrize("rule", of())


def texts(rule: Rule) -> list[Text]:
    out = [rule.title, *rule.body]
    for remedy in rule.remedies:
        out += [remedy.text, *([remedy.cost] if remedy.cost else []), *remedy.reasons.values()]
    return out


def names(text: str) -> set[str]:
    return set(PLACEHOLDER.findall(text))


@every_rule
def test_a_rule_keeps_its_own_examples(rule: Rule) -> None:
    """Every `match` is recognised with its facts, every `no_match` is not, every `fix` changes what it says."""
    assert check_rule(rule, DETECTORS, BOOK) == []


def about_facts(condition: Any) -> Any:
    """What a condition asks of the message alone; what it asks of the config may be so."""
    if isinstance(condition, list):
        return [about_facts(part) for part in condition]
    kept = {key: wanted for key, wanted in condition.items() if key.startswith("fact.")}
    either = [about_facts(part) for part in condition.get("any", [])]
    return {**kept, "any": either} if either and all(either) else kept


@every_rule
def test_every_message_of_a_failure_leaves_a_way_out(rule: Rule) -> None:
    """A rule that has remedies has one for each of its messages, whatever the config is: else the report says that nothing helps."""
    if rule.severity != "error" or rule.detector != "log_pattern" or not rule.remedies:
        return
    for example in rule.examples.match:
        for found in [one for form in forms(example) for one in findings(rule, form, DETECTORS)]:
            scope = {"config": {}, "written": {}, "run": {}, "fact": found.first.facts}
            assert any(holds(about_facts(remedy.only_if), scope) for remedy in rule.remedies), example


SLIPS = re.compile(r"(?<!\.)\.\.(?![./])|。。|(?<=\S)  +(?=\S)|, ,| ,|\((?:이|을|은|와)\)(?:가|를|는|과)")
"""Doubled marks and spaces, and Korean particles in an order that nothing resolves (`이(가)` is, `(이)가` is not)."""


def filled(text: str, facts: Mapping[str, Any]) -> str:
    """The text with the facts as they are, in no format."""
    return PLACEHOLDER.sub(lambda name: str(facts[name[1]]), text)


@every_rule
def test_a_text_reads_well_with_the_facts_of_each_example(rule: Rule) -> None:
    """What a pattern catches ends where its word ends: no second full stop, no gap."""
    for example in rule.examples.match:
        for found in [one for form in forms(example) for one in findings(rule, form, DETECTORS)]:
            for body in (one for one in rule.body if names(one.en) <= found.first.facts.keys()):
                for lang in LANGUAGES:
                    assert not SLIPS.search(filled(body.get(lang), found.first.facts)), (lang, example)


@every_rule
def test_a_rule_shows_what_it_means_and_what_not(rule: Rule) -> None:
    """At least two lines that it recognises and two that it must leave alone."""
    assert len(rule.examples.match) >= 2
    assert len(rule.examples.no_match) >= 2


@every_rule
def test_names_are_the_folders_and_causes_snake_case(rule: Rule) -> None:
    """The id says where the file is; the cause is one word of lower case."""
    assert (rules_folder() / f"{rule.id}.yaml").is_file()
    assert re.fullmatch(r"[a-z][a-z0-9_]+", rule.cause)


@every_rule
def test_placeholders_are_facts_of_the_detector(rule: Rule) -> None:
    """A text asks only for what its detector, the run or the config can give."""
    detector = DETECTORS[rule.detector](**rule.params)
    given = {name for example in rule.examples.match for name in example.given}
    for text in texts(rule):
        unknown = {name for name in names(text.en) if "." not in name} - {*detector.facts, *given, *RUN_FACTS}
        assert not unknown, f"{unknown} in {text.en!r}"


@every_rule
def test_what_a_pattern_catches_has_no_name_of_a_run_fact(rule: Rule) -> None:
    """A condition on `fact.attention` would also hold where the console told the run's attention, though this match caught nothing."""
    if rule.detector == "log_pattern":
        caught = {name for name in DETECTORS[rule.detector](**rule.params).facts if name not in ("phase", "exception")}
        assert not caught & FACTS.keys()


@every_rule
def test_some_words_fit_every_match(rule: Rule) -> None:
    """Whatever an example tells, there is a body whose facts are all known: no report has a hole."""
    for example in rule.examples.match:
        for finding in (one for form in forms(example) for one in findings(rule, form, DETECTORS)):
            known = {*finding.first.facts, *example.given}
            assert any({name for name in names(body.en) if "." not in name} <= known for body in rule.body), example


@every_rule
def test_options_exist(rule: Rule) -> None:
    """Conditions and patches name options that LLaMA-Factory has or had, or values derived from them; what is unset may be anything."""
    known = {*options.table(), *options.effective({}), *MAIN_BRANCH}
    asked = [rule.where, *(c for one in rule.remedies for c in (one.only_if, one.done_if, one.harmful_if) if c is not None)]
    named = {path.partition(".")[2] for condition in asked for path in paths(condition) if path.startswith(("config.", "written."))}
    for remedy in rule.remedies:
        for op in (one for one in remedy.patch if one.target == "config"):
            named |= {name for name in (*(op.set or {}), *(op.scale or {})) if "{" not in name}
    assert not named - known


@every_rule
def test_rules_named_elsewhere_exist(rule: Rule) -> None:
    """`refines` names rules, and `explained_by` patterns that match at least one."""
    ids = [other.id for other in BOOK.rules]
    assert set(rule.refines) <= set(ids)

    for pattern in rule.explained_by:
        assert any(fnmatch.fnmatchcase(name, pattern) for name in ids), pattern


def starts(rule: Rule, remedy: Remedy) -> list[dict[str, Any]]:
    """Configs from which a remedy may be asked for: empty, the examples', and large values of what it scales."""
    scaled = {key: 4096 for op in remedy.patch for key in (op.scale or {}) if "{" not in key}
    given = [example.config for example in (*rule.examples.match, *rule.examples.fix) if example.config]
    return [{}, *given, *([scaled] if scaled else [])]


@every_rule
def test_a_remedy_comes_to_an_end(rule: Rule) -> None:
    """Applied again and again a remedy stops changing the config, and where it was applied at all its `done_if` then holds."""
    for remedy in rule.remedies:
        if not any(op.target == "config" for op in remedy.patch) or remedy.effect == "manual":
            continue
        for start in starts(rule, remedy):
            config, taken = dict(start), False
            for _ in range(CLIMBS):
                run = Run()
                run.apply(ConfigSeen(where=HERE, values=config))
                scope = options.scope_of(run, {})
                if not holds(remedy.only_if, scope) or (remedy.done_if is not None and holds(remedy.done_if, scope)):
                    break
                try:
                    after = apply(config, changes_of(remedy, config, scope))
                except Unknown:
                    break
                if after == config:
                    break
                config, taken = after, True
            else:
                pytest.fail(f"{remedy.id} never ends from {start}")
            if taken and remedy.done_if is not None and holds(remedy.only_if, scope):
                assert holds(remedy.done_if, scope), f"{remedy.id} from {start} ends at {config}"


@pytest.mark.parametrize("rule", of(tuple(rule for rule in BOOK.rules if rule.detector == "log_pattern")))
def test_no_pattern_is_shut_out_by_the_gate(rule: Rule) -> None:
    """What a regular expression of `any_of` recognises among the examples holds one of the literals in `contains`."""
    detector = DETECTORS[rule.detector](**rule.params)
    assert isinstance(detector, LogPattern)
    shown = [event.text for one in rule.examples.match for form in forms(one) for event in form if isinstance(event, LogLine | Crash)]
    for pattern in detector.compiled().any_of:
        hits = [text for text in shown if pattern.search(text)]
        shut_out = [text for text in hits if not any(literal in text for literal in detector.literals)]
        assert shut_out == [], pattern.pattern


def test_every_file_is_a_rule() -> None:
    """No file in a family's folder is left out of the book."""
    assert {f"{path.parent.name}/{path.stem}" for path in rule_files(rules_folder())} == {rule.id for rule in BOOK.rules}


HARMLESS = (Path(__file__).parents[1] / "cases" / "harmless.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", HARMLESS.splitlines())
def test_harmless_lines_are_no_findings(line: str) -> None:
    """Scary lines of working runs never become a finding above a note."""
    engine = Engine(BOOK.rules)
    engine.feed(LogLine(where=Where("console.log", 1), text=line))
    assert [finding.rule.id for finding in engine.findings() if finding.rule.severity != "note"] == []


def test_harmless_lines_of_a_console_are_no_findings(tmp_path: Path) -> None:
    """The same through the console reader, all in one file."""
    path = tmp_path / "console.log"
    path.write_text(HARMLESS, encoding="utf-8")
    engine = Engine(BOOK.rules)
    for event in reading.read([path], literals=engine.literals).events():
        engine.feed(event)
    assert [finding.rule.id for finding in engine.findings() if finding.rule.severity != "note"] == []


def test_examples_notice_nine_mutants_in_ten() -> None:
    """A rule that lost one pattern or one condition, or had it turned round, no longer keeps its own examples."""
    script = Path(__file__).parents[2] / "benchmarks" / "mutation.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
