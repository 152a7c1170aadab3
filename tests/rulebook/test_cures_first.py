"""What cures stands before what only looks."""

from __future__ import annotations

import re

import pytest

from doctor.planner.plan import in_report_order
from doctor.planner.types import Advice
from doctor.rulebook.loader import load
from doctor.rulebook.model import Remedy, Rule
from doctor.support.texts import Text

LOOKS = re.compile(
    r"(?:Check|Compare|Run once|Run again|Find out|Look (?:at|for|into)|See |Print|Search|List the|Read |Ask (?!for)|Measure|Watch)"
    r"(?![^.]*\band (?:set|install|delete|end|correct|write|repair|remove|convert|select|raise|lower|use|take|log in))"
)
"""Texts that begin with a verb of looking and do not go on with one of doing."""
UNPROVEN = ("stall", "killed", "slow", "plateau", "loss_spike", "divergence", "overfitting", "nonfinite")
"""Symptoms whose cause the log does not prove: there the look decides which cure is one."""
NAMES_THE_LIBRARY = "device/native-crash"
"""Here the look tells which library is to be reinstalled."""
SURE = 0.5
"""Below it the rule proves no cause either."""
ACTED_ON = [
    rule
    for rule in load().rules
    if rule.symptom not in UNPROVEN and rule.confidence >= SURE and rule.id != NAMES_THE_LIBRARY and len(rule.remedies) > 1
]


def ordered(rule: Rule) -> list[Remedy]:
    """The rule's own remedies in the order of the report, where a person has to do each."""
    rows = [Advice(one, "manual", rule.title) for one in rule.remedies if one.excluded is None]
    return [row.remedy for row in in_report_order(rows, [])]


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in ACTED_ON])
def test_a_cure_comes_first(rule: Rule) -> None:
    """A remedy that only looks is first only where all remedies look."""
    remedies = ordered(rule)
    looking = [LOOKS.match(one.text.en) is not None for one in remedies]
    assert not remedies or all(looking) or not looking[0], remedies[0].text.en


def test_what_counts_as_looking() -> None:
    """A verb of looking alone; not one that is followed by what to do."""
    assert LOOKS.match("Check that torch finds the GPU.")
    assert LOOKS.match("Run once with `CUDA_LAUNCH_BLOCKING=1` to see the real place.")
    assert not LOOKS.match("Look at one sample and write `columns` after it.")
    assert not LOOKS.match("Set `bf16: true`.")


def test_checks_keep_their_order_behind_cures() -> None:
    """Two checks and a cure between them: the cure, then the checks as they were named."""
    text = Text("x", "x", "x")
    rows = [Advice(Remedy(id=name, text=text, effect="manual", check=name != "cure"), "manual", text) for name in ("one", "cure", "two")]
    assert [row.remedy.id for row in in_report_order(rows, [])] == ["cure", "one", "two"]
