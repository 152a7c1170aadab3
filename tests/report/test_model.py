"""Findings, plan and run become a report: status, words, masks."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from doctor.core.events import ConfigSeen, Crash, Fact, ProcessEnd, Where
from doctor.errors import DoctorError
from doctor.planner.plan import Plan
from doctor.report.build import SERIES_POINTS
from doctor.report.model import Report
from doctor.rulebook.model import Body, Rulebook
from tests.reporters import samples
from tests.reporters.samples import HERE, OOM, judged, rule, run_of, steps_of

LOG = Where("console.log", 7)
PLANNED = Fact(where=HERE, name="steps.planned", value=80)
DONE = Fact(where=HERE, name="run.completed", value=True)
SPIKE = rule("stability/spike", "A spike", "손실 급등", symptom="loss_spike")


def built(found: list[Any], *events: Any, lang: str = "en", **more: Any) -> Report:
    plan = Plan(tuple(() for _ in found))
    return samples.written(found, plan, run_of(*events), Rulebook((OOM,)), lang, path="run", **more)


@pytest.mark.parametrize(
    ("status", "found", "events"),
    [
        ("completed", [], [DONE]),
        ("completed", [], [PLANNED, *steps_of([1.0] * 8)]),
        ("completed", [SPIKE], [DONE]),
        ("failed", [OOM], [PLANNED, *steps_of([1.0] * 3)]),
        ("failed", [], [DONE, ProcessEnd(where=LOG, code=1)]),
        ("failed", [], [ProcessEnd(where=LOG, signal=9)]),
        ("failed", [], [PLANNED, *steps_of([1.0] * 3), Crash(where=LOG, exception="ValueError")]),
        ("interrupted", [], [ProcessEnd(where=LOG, signal=2)]),
        ("interrupted", [], [PLANNED, *steps_of([1.0] * 3), Crash(where=LOG, exception="KeyboardInterrupt")]),
        ("failed", [OOM], [Crash(where=LOG, exception="KeyboardInterrupt")]),
        # torchrun ends the other ranks after one was killed: nobody asked the run to stop
        ("failed", [], [ProcessEnd(where=LOG, signal=15, rank=0), ProcessEnd(where=LOG, signal=9, rank=1, first=True)]),
        ("interrupted", [], [ProcessEnd(where=LOG, signal=15, rank=0, first=True), ProcessEnd(where=LOG, signal=15, rank=1)]),
        ("interrupted", [], [PLANNED, *steps_of([1.0] * 3), ProcessEnd(where=LOG, code=143)]),
        ("failed", [OOM], [ProcessEnd(where=LOG, signal=15)]),
        ("running", [], [PLANNED, *steps_of([1.0] * 3), Fact(where=HERE, name="run.running", value=True)]),
        ("unknown", [], [PLANNED, *steps_of([1.0] * 3)]),
        ("unknown", [], []),
        ("unknown", [SPIKE], [PLANNED, *steps_of([1.0] * 3)]),
    ],
)
def test_the_status_says_no_more_than_is_known(status: str, found: list[Any], events: list[Any]) -> None:
    """Completed, failed and interrupted need a sign; a log that just stops is unknown; a bad loss alone does not end a run."""
    assert built([judged(one, "root", "text", LOG) for one in found], *events).run.status == status


def test_an_exception_ends_a_run_whatever_its_symptom() -> None:
    """DeepSpeed raises when the loss scale is at its minimum: a matter of stability, and the end."""
    assert built([judged(SPIKE, "root", "text", LOG, facts={"exception": "Exception"})]).run.status == "failed"


def test_a_failed_run_without_findings_is_not_healthy() -> None:
    """No finding is not the same as no problem."""
    assert not built([], ProcessEnd(where=LOG, code=1)).healthy
    assert built([], DONE).healthy


def test_a_note_leaves_a_run_healthy_and_a_warning_does_not() -> None:
    """`healthy` means no finding above a note."""
    note = rule("config/hint", "A hint", "힌트", severity="note")
    warning = rule("config/warning", "A warning", "경고", severity="warning")
    assert built([judged(note, "contributing", "x", LOG)], DONE).healthy
    assert not built([judged(warning, "root", "x", LOG)], DONE).healthy


def test_the_first_body_whose_facts_are_known_is_used() -> None:
    """A text never shows a hole where a plainer one fits."""
    bodies = [
        Body("GPU {gpu} of {owner}", "-"),
        Body("GPU {gpu}, {config.cutoff_len} tokens", "-"),
        Body("A GPU.", "-"),
    ]
    three = msgspec.structs.replace(OOM, body=bodies)
    seen = ConfigSeen(where=HERE, values={"cutoff_len": 4096})
    assert built([judged(three, "root", "x", LOG, facts={"gpu": "3"})], seen).findings[0].text == "GPU 3, 4096 tokens"
    assert built([judged(three, "root", "x", LOG)], seen).findings[0].text == "A GPU."


def test_phases_read_as_words_of_the_language() -> None:
    """`{phase}` is `training` and `학습`, not `train`."""
    assert "While training, GPU 1" in samples.oom("en").findings[0].text
    assert "학습 중 GPU 1" in samples.oom("ko").findings[0].text


def test_facts_of_the_run_fill_texts_too() -> None:
    """The match's facts come first, the run's after."""
    named = rule("memory/named", "{gpu.name} is full", "{gpu.name}의 메모리 부족")
    assert built([judged(named, "root", "x", LOG)], Fact(where=HERE, name="gpu.name", value="A100")).findings[0].title == "A100 is full"


def test_secrets_of_the_log_and_the_config_are_not_in_the_report_data() -> None:
    """Evidence, facts, sources, problems, diff: masked; the patched YAML stays usable in memory and is masked in `to_dict`."""
    key = "hf_abcdefghijklmnop1234"
    leaky = rule("environment/leak", "Refused {what}", "{what} 거부됨")
    made = built([judged(leaky, "root", f"401 for {key}", Where(f"{key}.log", 1), facts={"what": key})], problems=[f"could not use {key}"])
    assert key not in json.dumps(made.to_dict())
    made = samples.oom()
    assert made.patch is not None
    assert made.patch.yaml is not None
    assert key in made.patch.yaml
    assert key not in json.dumps(made.to_dict())


def test_remedies_name_the_guide_in_its_own_words() -> None:
    """In Korean the guide is quoted, in English translated; a correction comes along."""
    ko, en = (samples.oom(lang).findings[0].remedies[0] for lang in ("ko", "en"))
    assert ko.guide is not None
    assert ko.guide.title == "`quantization_bit: 4` 사용"
    assert en.guide is not None
    assert en.guide.title == "Load the base model in 4 bits (QLoRA)."
    assert en.correction == "`finetuning_type: qlora` does not exist."


def test_a_finding_carries_the_series_it_speaks_of() -> None:
    """Not finite values are null, the steps concerned are marked."""
    series = samples.diverged().findings[0].series
    assert series is not None
    assert series.metric == "loss"
    assert None in series.values
    assert series.marks == [420, 480]
    assert len(series.steps) == len(series.values) <= SERIES_POINTS


def test_an_unknown_language_is_a_plain_error() -> None:
    """Not a traceback, and it names the languages there are."""
    with pytest.raises(DoctorError, match="en, ko, zh"):
        built([], lang="xx")
