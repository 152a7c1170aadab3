"""Which remedies may be offered at all: a property of every remedy in the book, and the places that enforce it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import doctor
from doctor.core.events import Where
from doctor.core.run import Run
from doctor.planner.admission import of_llamafactory, refusal, shards_by_fsdp
from doctor.planner.elsewhere import told_for
from doctor.planner.plan import Program, plan
from doctor.reporters.advice import todo
from doctor.rulebook.exceptions import rows
from doctor.rulebook.findings import Evidence, Finding, Match, RankedFinding
from doctor.rulebook.loader import load
from doctor.rulebook.model import Op, Remedy, Rule, Rulebook
from doctor.support.texts import Text

BOOK = load()
SAME = Text("x", "x", "x")
PINNED = ("transformers", "datasets", "accelerate", "peft", "trl", "deepspeed", "tokenizers")
"""Packages that LLaMA-Factory's releases hold within a range."""


def commands() -> list[tuple[str, str]]:
    """Every command that the book prints, with what prints it."""
    of_rules = [(f"{rule.id}#{one.id}", one.command) for rule in BOOK.rules for one in rule.remedies if one.command]
    return of_rules + [(row.id, row.command) for row in rows() if row.command]


def unbounded(command: str) -> list[str]:
    """Pinned packages that a command installs without an upper bound."""
    words = [word for part in re.findall(r"pip install ([^;&|]*)", command) for word in part.replace("'", "").replace('"', "").split()]
    return [word for word in words if re.split(r"[=<>!~\[]", word)[0] in PINNED and not re.search(r"==|<|~=", word)]


def test_no_command_leaves_the_versions_that_fit_together() -> None:
    """`pip install -U transformers` ends outside LLaMA-Factory's range, and its next start is refused."""
    assert [(place, found) for place, command in commands() if (found := unbounded(command))] == []


def test_the_check_of_commands_can_fail() -> None:
    """It sees a bare name, one with a lower bound alone, and none with an exact or upper bound."""
    assert unbounded("pip install -U transformers accelerate") == ["transformers", "accelerate"]
    assert unbounded("git pull && pip install 'deepspeed>=0.13'") == ["deepspeed>=0.13"]
    assert unbounded("pip install deepspeed==0.15.4 'peft<0.19' liger-kernel -e .") == []


def finding(confidence: float, evidence: str, *remedies: Remedy, when: str = "uncaught_exception") -> Finding:
    rule = Rule(
        id="config/some", cause="some", symptom="crash", severity="error", when={when: {}}, title=SAME, body=[],
        confidence=confidence, remedies=list(remedies),
    )  # fmt: skip
    piece = Evidence(Where("console.log", 1), evidence)
    return Finding(rule=rule, first=Match(evidence=(piece,)), count=1, ranks=(), steps=None, evidence=(piece,), order=0)


LONGER = Remedy(id="longer", text=SAME, named="(?i)timed? ?out", patch=[Op(set={"ddp_timeout": 9})])
RETRAIN = Remedy(id="retrain", text=SAME, effect="changes_training", patch=[Op(set={"cutoff_len": 9})])
PINS = Remedy(
    id="pins", text=Text("Install what your LLaMA-Factory pins.", "x", "x"), effect="manual", command="pip install -e . --upgrade"
)
OPTION = Remedy(id="option", text=Text("In LLaMA-Factory: `cutoff_len`.", "x", "x"), patch=[Op(set={"cutoff_len": 9})])


@pytest.mark.parametrize(
    ("remedy", "confidence", "evidence", "foreign", "admitted"),
    [
        (LONGER, 0.9, "the collective timed out", False, True),
        (LONGER, 0.9, "ranks called different operations", False, False),
        (RETRAIN, 0.5, "x", False, True),
        (RETRAIN, 0.49, "x", False, False),
        (PINS, 0.9, "x", False, True),
        (PINS, 0.9, "x", True, False),
        (OPTION, 0.9, "x", True, True),
    ],
)
def test_what_is_admitted(remedy: Remedy, confidence: float, evidence: str, foreign: bool, admitted: bool) -> None:
    """By what the log names, by how sure the cause is, by whose program ran."""
    assert (refusal(remedy, finding(confidence, evidence), foreign=foreign) is None) is admitted


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("confidence", [0.05, 0.49, 0.5, 0.95])
def test_the_planner_offers_only_what_is_admitted(confidence: float, foreign: bool) -> None:
    """For every remedy of the book: one that is refused is in no patch and neither applies nor is left to the user."""
    for rule in BOOK.rules:
        found = finding(confidence, "a line that names nothing", *rule.remedies)
        program: Program = "other" if foreign else "llamafactory"
        planned = plan([RankedFinding(found, "root")], Run(), Rulebook(BOOK.rules, BOOK.guide), program=program)
        remedies = told_for(program, [RankedFinding(found, "root")])[0].finding.rule.remedies
        refused = {one.id for one in remedies if refusal(one, found, foreign=foreign) is not None}
        offered = {row.remedy.id for row in planned.advice[0] if row.status != "not_applicable"}
        assert not refused & offered, rule.id
        because = planned.patch.patch.because.values() if planned.patch else ()
        assert not {name.partition("#")[2] for name in because} & refused, rule.id


ZERO2 = Remedy(id="zero2", text=Text("Use ZeRO-2 for this operation.", "x", "x"), effect="manual")
BOTH = Remedy(id="both", text=Text("Take ZeRO-2, or FSDP with `reshard_after_forward: false`.", "x", "x"), effect="manual")


@pytest.mark.parametrize(
    ("remedy", "evidence", "fsdp", "admitted"),
    [
        (ZERO2, "RuntimeError: x", False, True),
        (ZERO2, "RuntimeError: x", True, False),
        (ZERO2, "ValueError: FSDP got an integer parameter", False, False),
        (ZERO2, "ValueError: DeepSpeed ZeRO-3 or FSDP is incompatible with PTQ-quantized models.", False, True),
        (BOTH, "ValueError: FSDP got an integer parameter", True, True),
    ],
)
def test_a_step_for_deepspeed_is_not_for_fsdp(remedy: Remedy, evidence: str, fsdp: bool, admitted: bool) -> None:
    """What only DeepSpeed has is not told to a run that shards with FSDP, by its settings or by its own error."""
    assert (refusal(remedy, finding(0.9, evidence), foreign=False, fsdp=fsdp) is None) is admitted


@pytest.mark.parametrize(
    ("config", "facts", "fsdp"),
    [
        ({"fsdp": "full_shard auto_wrap"}, {}, True),
        ({"fsdp": "full_shard", "deepspeed": "ds_z3.json"}, {}, False),
        ({}, {"accelerate.distributed_type": "FSDP"}, True),
        ({}, {"accelerate.distributed_type": "FSDP", "deepspeed.stage": 3}, False),
        ({}, {"accelerate.distributed_type": "MULTI_GPU"}, False),
    ],
)
def test_which_runs_shard_by_fsdp(config: dict[str, object], facts: dict[str, object], fsdp: bool) -> None:
    """By `fsdp` in the options or by accelerate's configuration; with DeepSpeed beside it nothing is excluded."""
    assert shards_by_fsdp(config, facts) is fsdp


def test_a_measured_symptom_is_no_guess() -> None:
    """A NaN whose reason is unknown is a NaN all the same: the guide's steps against it stay."""
    assert refusal(RETRAIN, finding(0.3, "x", when="nonfinite"), foreign=False) is None


def test_some_remedies_of_the_book_are_refused() -> None:
    """The property above is about something: there are remedies of each kind."""
    remedies = [one for rule in BOOK.rules for one in rule.remedies]
    assert any(one.named for one in remedies)
    assert any(of_llamafactory(one) for one in remedies)
    assert any(one.effect == "changes_training" for one in remedies)


HEAD = "Traceback (most recent call last):\n"
RAISED = "ImportError: cannot import name 'Weigh9' from 'transformers.trainer' (/x/transformers/trainer.py)"


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        ('  File "/home/me/run.py", line 3, in <module>\n    import transformers', False),
        ('  File "/opt/venv/lib/python3.11/site-packages/swift/cli/sft.py", line 3, in main\n    import transformers', False),
        ('  File "/opt/LLaMA-Factory/src/llamafactory/train/tuner.py", line 3, in run_exp\n    import transformers', True),
        ('  File "/opt/venv/lib/python3.11/site-packages/transformers/trainer.py", line 3, in train\n    import x', True),
    ],
)
def test_whose_program_ran(frame: str, told: bool, tmp_path: Path) -> None:
    """A person's own script and another trainer are not told to update LLaMA-Factory, nor its commands; an excerpt proves nothing."""
    (tmp_path / "console.log").write_text(f"{HEAD}{frame}\n{RAISED}\n", encoding="utf-8")
    root = doctor.analyze(tmp_path).findings[0]
    offered = [one for one in root.remedies if one.status in ("manual", "apply")]
    assert offered
    assert any("Update LLaMA-Factory" in one.text for one in offered) is told
    assert any("pip install -e ." in (one.command or "") for one in offered) is told


def test_the_first_step_is_no_alternative(tmp_path: Path) -> None:
    """Where the first way does not apply, the second does not begin with `Or`; the remedy itself keeps its text."""
    (tmp_path / "console.log").write_text("  what():  CUDA error: initialization error\n", encoding="utf-8")
    report = doctor.analyze(tmp_path)
    shown = todo(report)[0]
    written = next(one for one in report.findings[0].remedies if one.id == shown.id)
    assert written.text.startswith("Or ")
    assert shown.text == written.text[3].upper() + written.text[4:]
