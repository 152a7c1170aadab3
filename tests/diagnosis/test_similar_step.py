"""The fix of a near public failure is a step: behind the rule's own cures, before what only looks or speaks of versions in general."""

from __future__ import annotations

import pytest

from doctor.core.events import Where
from doctor.diagnosis.similar_step import with_similar_step
from doctor.report.build import SimilarIssue
from doctor.rulebook.findings import Evidence, Finding, Match, RankedFinding
from doctor.rulebook.model import Remedy, Rule
from doctor.support.texts import Text

SAME = Text("x", "x", "x")
CURE = Remedy(id="cure", text=SAME)
LOOK = Remedy(id="look", text=SAME, check=True)
PINS = Remedy(id="versions-of-the-release", text=SAME)


def root(cause: str, *remedies: Remedy) -> RankedFinding:
    piece = Evidence(Where("console.log", 1), "x")
    rule = Rule(
        id="data/some", cause=cause, symptom="crash", severity="error", when={"log_pattern": {}}, title=SAME, body=[],
        remedies=list(remedies),
    )  # fmt: skip
    match = Match(evidence=(piece,))
    return RankedFinding(Finding(rule=rule, first=match, count=1, ranks=(), steps=None, evidence=(piece,), order=0), "root")


def order(ranked: RankedFinding, score: float) -> list[str]:
    issue = SimilarIssue("owner/repo#7", score, Text("Lower it.", "낮추세요.", "调低。"))
    return [one.id for one in with_similar_step([ranked], [[issue]])[0].finding.rule.remedies]


@pytest.mark.parametrize(
    ("remedies", "expected"),
    [
        ((), ["similar-failure"]),
        ((LOOK,), ["similar-failure", "look"]),
        ((CURE, LOOK), ["cure", "similar-failure", "look"]),
        ((PINS,), ["similar-failure", "versions-of-the-release"]),
    ],
)
def test_where_the_step_stands(remedies: tuple[Remedy, ...], expected: list[str]) -> None:
    """It leads only where the rule has no cure of its own."""
    assert order(root("disk_full", *remedies), 0.7) == expected


@pytest.mark.parametrize(
    ("cause", "score", "told"), [("disk_full", 0.59, False), ("disk_full", 0.6, True), ("hf_stack_api_break", 0.79, False)]
)
def test_only_a_near_failure_is_told(cause: str, score: float, told: bool) -> None:
    """Messages about versions look alike while another release helped each time: those must be nearer."""
    assert ("similar-failure" in order(root(cause, CURE), score)) is told


def test_the_step_names_its_source() -> None:
    """The reader can look up what helped there."""
    issue = SimilarIssue("owner/repo#7", 0.9, Text("Lower it.", "낮추세요.", "调低。"))
    step = with_similar_step([root("disk_full")], [[issue]])[0].finding.rule.remedies[0]
    assert step.text.en == "In a similar failure (owner/repo#7): Lower it."
    assert step.references == ["https://github.com/owner/repo/issues/7"]
