"""ETTR: which part of a job's time trained what counts in the end. Times are written by hand; a clock of round numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doctor import analyze
from doctor.live.supervisor.effective_time import ALL, Start, effective_time
from doctor.report.time_spent import TimeView
from doctor.reporters.base import Screen, time_line
from doctor.reporters.registry import REPORTERS
from doctor.words.catalogue import load

FIXTURES = Path(__file__).parents[2] / "fixtures"


def start(folder: Path, began: float, ended: float, loop: float, steps: range, each: float = 10.0, saves: tuple[int, ...] = ()) -> Start:
    """A process whose training loop begins at `loop` and takes `each` seconds a step."""
    folder.mkdir()
    events: list[dict] = [{"type": "Step", "step": steps.start - 1, "history": True, "metrics": {"loss": 1.0}}]
    for number, step in enumerate(steps, 1):
        events.append({"type": "Step", "time": loop + each * number, "step": step, "seconds": each * number, "metrics": {}})
        if step in saves:
            events.append({"type": "Fact", "name": "saved_at_step", "value": step})
    lines = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events)
    (folder / "lfdoctor.jsonl").write_text(lines + '{"type":"Step","time":17')
    return Start.read(folder, began, ended)


def test_a_finished_run(tmp_path):
    """60 s of loading, 20 steps of 10 s, 40 s of final saving: 200 of 300 s."""
    one = start(tmp_path / "1", 1000, 1300, 1060, range(1, 21))
    assert effective_time([one], [], ALL) == TimeView(
        wall_seconds=300, useful_seconds=200, ettr=0.667, starting_seconds=60, lost_seconds=0, other_seconds=40
    )


def test_a_failed_run_keeps_its_last_checkpoint(tmp_path):
    """13 steps done, the last checkpoint after step 10: 30 s of training are lost."""
    one = start(tmp_path / "1", 1000, 1200, 1060, range(1, 14), saves=(5, 10))
    found = effective_time([one], [], one.saved)
    assert (one.saved, found.useful_seconds, found.lost_seconds, found.ettr) == (10, 100, 30, 0.5)


def test_a_failed_run_without_a_checkpoint_keeps_nothing(tmp_path):
    """All of its 130 s of training are lost."""
    one = start(tmp_path / "1", 1000, 1200, 1060, range(1, 14))
    found = effective_time([one], [], one.saved)
    assert (found.useful_seconds, found.lost_seconds, found.ettr) == (0, 130, 0.0)


def test_a_healed_run(tmp_path):
    """13 steps, resumed from 10 to the end at 20, with 30 s between the two: 100 + 100 useful, 30 trained again, 120 starting."""
    first = start(tmp_path / "1", 1000, 1200, 1060, range(1, 14))
    second = start(tmp_path / "2", 1230, 1400, 1290, range(11, 21))
    assert effective_time([first, second], [10], ALL) == TimeView(
        wall_seconds=400, useful_seconds=200, ettr=0.5, starting_seconds=120, lost_seconds=30, other_seconds=50
    )


def test_a_start_from_scratch_loses_what_was_before(tmp_path):
    """The third attempt begins at 0: neither of the first two counts, although the second had continued the first."""
    starts = [
        start(tmp_path / "1", 0, 100, 0, range(1, 11)),
        start(tmp_path / "2", 100, 200, 100, range(6, 16)),
        start(tmp_path / "3", 200, 400, 200, range(1, 21)),
    ]
    found = effective_time(starts, [5, 0], ALL)
    assert (found.useful_seconds, found.lost_seconds, found.ettr) == (200, 200, 0.5)


def test_a_worthless_training_counts_nothing(tmp_path):
    """It reached its end and had diverged."""
    one = start(tmp_path / "1", 0, 200, 0, range(1, 21))
    assert effective_time([one], [], 0).ettr == 0.0


def test_an_attempt_that_never_trained_is_starting_time(tmp_path):
    """It failed after 80 s of loading; the next one trained."""
    (tmp_path / "1").mkdir()
    first = Start.read(tmp_path / "1", 0, 80)
    second = start(tmp_path / "2", 80, 300, 100, range(1, 21))
    found = effective_time([first, second], [0], ALL)
    assert (found.starting_seconds, found.useful_seconds, found.ettr) == (100, 200, 0.667)


def test_without_a_step_nothing_is_said(tmp_path):
    """No journal, as under `python -I`: no ratio."""
    assert effective_time([Start.read(tmp_path, 0, 100)], [], ALL) is None


def test_steps_of_another_run_do_not_count(tmp_path):
    """A journal that is older than the process."""
    assert start(tmp_path / "1", 5000, 5300, 1060, range(1, 21)).trained == ()


@pytest.mark.parametrize(
    ("lang", "words"),
    [
        ("en", "ETTR 50 %: 3 min 20 s of 6 min 40 s trained what counts; the rest: 2 min 0 s starting, 30 s on steps lost with a failure"),
        ("ko", "유효 학습 시간 비율(ETTR) 50%: 6분 40초 중 3분 20초"),
        ("zh", "有效训练时间占比（ETTR）50%："),
    ],
)
def test_the_line_in_a_report(lang, words):
    """In every output for people; a duration of less than a second is left out."""
    import msgspec

    spent = TimeView(wall_seconds=400, useful_seconds=200, ettr=0.5, starting_seconds=120, lost_seconds=30, other_seconds=0.4)
    report = msgspec.structs.replace(analyze(FIXTURES / "healthy-sft", lang=lang), time=spent)
    line = time_line(report, load(lang))
    assert line.startswith(words)
    for kind in ("terminal", "markdown", "html"):
        text = REPORTERS[kind](report, Screen(width=400)) if kind == "terminal" else REPORTERS[kind](report)
        assert "ETTR" in text
