"""The usual report fits one screen and tells what, why and what to do first; the figures of the run stand on it; `-v` is everything."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import msgspec
import pytest
from rich.cells import chop_cells

import doctor
from doctor.report.model import EvidenceView, Report, VitalsView
from doctor.reporters.advice import next_commands
from doctor.reporters.base import Screen, vitals
from doctor.reporters.json import settled
from doctor.reporters.registry import REPORTERS
from doctor.support.languages import LANGUAGES
from doctor.words.catalogue import load
from tests.reporters import samples

FIXTURES = Path(__file__).parents[2] / "fixtures"
LONGEST = (
    "gpu_oom_weights_replicated_per_rank-one-rank-load", "gpu_oom_reference_model-dpo-full", "gpu_oom_model_exceeds_single_gpu-load-full",
    "gpu_oom_activations-both-ranks", "overfitting-tiny-set", "lr_too_high-full-eval", "data-error-rank1", "slow-rank-watched",
    "gpu_oom_activations-one-rank-backward",
)  # fmt: skip
"""Those whose reports had the most lines when all fixtures were measured."""
LINES = 45


@cache
def report_of(name: str) -> Report:
    return settled(doctor.analyze(FIXTURES / name))


def test_enough_reports_are_measured() -> None:
    """The names are those of fixtures, every tenth fixture and the longest ones."""
    assert len(measured()) >= 18


def measured() -> list[str]:
    names = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())
    return sorted({*LONGEST, *names[::10]})


def wrapped(text: str) -> list[str]:
    """The lines of a terminal of 80 columns."""
    return [part for line in text.rstrip("\n").split("\n") for part in chop_cells(line, 80) or [""]]


@pytest.mark.parametrize("name", measured())
def test_a_report_is_one_screen_and_its_first_lines_suffice(name: str) -> None:
    """At most 45 lines of 80 columns, wrapped as a terminal does; the first 24 hold the title, the reason, every value and command."""
    report = report_of(name)
    lines = wrapped(REPORTERS["terminal"](report))
    assert len(lines) <= LINES
    head = "".join("".join(lines[:24]).split())
    roots = [finding for finding in report.findings if finding.role == "root" and finding.severity != "note"]
    for said in (*(text for root in roots[:1] for text in (root.title, root.text)), *next_commands(report)):
        assert "".join(said.replace("`", "").split()) in head.replace("`", "")
    if report.patch and report.patch.diff:
        assert "→" in head or any(change.old is None or change.op == "unset" for change in report.patch.changes)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_figures_of_a_run_stand_in_its_report(lang: str) -> None:
    """Loss from and to with its course, time per step, tokens, memory, duration, last checkpoint; each in all languages."""
    found = VitalsView(
        loss_first=2.64, loss_last=1.2, loss_points=[2.64, 2.0, 1.2], seconds_per_step=0.3512, tokens_per_second=1234.4, peak_gib=21.26,
        duration_seconds=4325, checkpoint="checkpoint-280",
    )  # fmt: skip
    report = samples.empty(lang, completed=True)
    report = msgspec.structs.replace(report, run=msgspec.structs.replace(report.run, vitals=found))
    for text in (REPORTERS["terminal"](report), REPORTERS["terminal"](report, Screen(detail=1)), REPORTERS["markdown"](report)):
        told = " ".join(text.split())
        hours = {"en": "1 h 12 min", "ko": "1시간 12분", "zh": "1 小时 12 分"}[lang]
        for figure in ("loss 2.64 █▅▁ 1.2", "0.351", "1,234", "21.3 GiB", hours, "checkpoint-280"):
            assert figure in told
    assert "*" not in vitals(report, load(lang))[0]
    assert "loss 2.64 #=_ 1.2" in REPORTERS["terminal"](report, Screen(unicode=False))


def test_figures_that_were_not_read_are_left_out() -> None:
    """No zero, no question mark, no empty place; a loss that ended not finite is told so."""
    found = VitalsView(loss_first=2.5, loss_last=None, loss_points=[2.5, None])
    report = samples.empty()
    report = msgspec.structs.replace(report, run=msgspec.structs.replace(report.run, vitals=found))
    assert vitals(report, load("en")) == ["loss 2.5 ▁x not finite"]
    none = msgspec.structs.replace(report, run=msgspec.structs.replace(report.run, vitals=None))
    assert vitals(none, load("en")) == []


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("healthy-sft-eval", ["loss 2.712", "1.555", "s/step"]),
        ("interrupted-ctrl-c", ["last checkpoint: checkpoint-6"]),
        ("slow-rank-watched", ["19 s/step", "20 tokens/s", "12 min 41 s"]),
    ],
)
def test_the_figures_are_those_of_the_files(name: str, pieces: list[str]) -> None:
    """Healthy, interrupted and slow runs: values that stand in trainer_log.jsonl, in the results, in the names of folders."""
    told = " ".join(REPORTERS["terminal"](report_of(name)).split())
    assert [piece for piece in pieces if piece not in told] == []


def test_a_long_quote_is_cut_around_its_decisive_words() -> None:
    """Of a traceback its end, of a line its beginning, and where the mark stands elsewhere, that."""
    report = samples.oom()
    lines = [f"line {number}" for number in range(30)]
    long = EvidenceView("console.log", 7, None, "\n".join(lines))
    for piece, shown, hidden in (
        (long, "line 29", "line 3"),
        (msgspec.structs.replace(long, mark="line 4"), "line 4", "line 29"),
        (msgspec.structs.replace(long, text="word " * 200), "[...]", "line 1"),
    ):
        root = msgspec.structs.replace(report.findings[0], evidence=[piece])
        text = REPORTERS["terminal"](msgspec.structs.replace(report, findings=[root]))
        assert re.search(rf"│ .*{re.escape(shown)}$", text, re.MULTILINE)
        assert not re.search(rf"│ {re.escape(hidden)}$", text, re.MULTILINE)


def test_verbose_holds_all_that_the_short_report_leaves_out() -> None:
    """Every remedy, every quote and every file."""
    report = samples.oom()
    text = "".join(REPORTERS["terminal"](report, Screen(detail=1, width=120)).split())
    for remedy in report.findings[0].remedies:
        assert remedy.guide is None or "".join(remedy.text.split()) in text
    assert all("".join(source.path.split()) in text for source in report.run.sources)
    assert "-v`" in REPORTERS["terminal"](report)
