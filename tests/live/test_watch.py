"""lfdoctor watch: what it says of a run comes from the run's files, while they grow and afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from doctor import analyze
from doctor.core.series import Series
from doctor.errors import DoctorError
from doctor.live.watch.screen import render
from doctor.live.watch.view import Watched, step_seconds
from doctor.reporters.base import Screen
from doctor.reporters.terminal.canvas import to_text

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"


def journal(folder: Path, steps: range, per_step: float = 2.0, planned: int = 100, first: float = 0.0, **metrics: float) -> None:
    """As the callback writes it: a process that began at `steps.start - 1` and takes `per_step` seconds a step."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lfdoctor.jsonl").open("a") as file:
        file.write(json.dumps({"type": "Session", "version": 1, "pid": 1, "rank": 0, "time": 0.0}) + "\n")
        file.write(json.dumps({"type": "Fact", "name": "steps.planned", "value": planned}) + "\n")
        for step in steps:
            seconds = first + (step - steps.start + 1) * per_step
            event = {"type": "Step", "step": step, "total": planned, "seconds": seconds, "metrics": {"loss": 2 - step / 100, **metrics}}
            file.write(json.dumps(event) + "\n")


def test_the_time_left_is_right_after_a_resume(tmp_path):
    """50 steps of 9 s, then a resumed process at 2 s a step, 20 s of loading first: what is left is 2 s a step, not a mean of all."""
    journal(tmp_path, range(1, 51), per_step=9.0)
    journal(tmp_path, range(51, 71), per_step=2.0, first=20.0)
    state = Watched(tmp_path).state()
    assert (state.step, state.planned, state.step_seconds) == (70, 100, 2.0)
    assert state.left == pytest.approx(60.0, abs=5)
    assert state.status == "running"


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1, 2.0), (2, 4.0), (3, 6.0)], 2.0),
        ([(1, 9.0)], None),
        ([], None),
        ([(5, 50.0), (6, 1.0)], None),
        ([(5, 50.0), (6, 1.0), (8, 7.0)], 3.0),
    ],
)
def test_step_seconds(points, expected):
    """Only records of the present process count; one alone says nothing."""
    series = Series()
    for step, seconds in points:
        series.append(step, seconds)
    assert step_seconds(series) == expected


def test_it_grows_with_the_files(tmp_path):
    """A later look sees later steps, and a run that has been quiet for long is no longer called running."""
    journal(tmp_path, range(1, 11))
    watched = Watched(tmp_path)
    assert watched.state().step == 10
    journal(tmp_path, range(11, 21))
    watched._next = 0.0
    assert watched.state().step == 20
    old = time.time() - 3600
    os.utime(tmp_path / "lfdoctor.jsonl", (old, old))
    state = watched.state()
    assert state.status == "unknown"
    assert state.quiet > 3000


def test_the_newest_attempt_of_a_healed_run(tmp_path):
    """A folder of lfdoctor run --heal: attempt 10 comes after attempt 9."""
    for number, last in ((1, 5), (9, 7), (10, 9)):
        journal(tmp_path / f"attempt-{number}", range(1, last + 1))
    state = Watched(tmp_path).state()
    assert (state.attempt, state.step) == ("attempt-10", 9)


@pytest.mark.parametrize("name", ["lr_too_high-full", "gpu_oom_activations-backward", "healthy-sft", "process_killed_unconfirmed-sigkill"])
def test_it_finds_what_analyze_finds(name):
    """The findings of the view are those of the report (without notes and consequences)."""
    state = Watched(FIXTURES / name).state()
    report = analyze(FIXTURES / name)
    assert [one.rule for one in state.findings] == [
        one.rule for one in report.findings if one.severity != "note" and one.role != "consequence"
    ]
    assert state.status == report.run.status


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_how_it_looks(tmp_path, snapshot, lang):
    """Progress, curves with a spike and a NaN, memory against its limit, findings."""
    journal(tmp_path / "run", range(1, 41), grad_norm=1.0, learning_rate=1e-4, epoch=0.5)
    lines = (tmp_path / "run" / "lfdoctor.jsonl").read_text().splitlines()
    event = json.loads(lines[21])
    event["metrics"]["grad_norm"] = 90.0
    lines[21] = json.dumps(event)
    event = json.loads(lines[26])
    event["metrics"]["loss"] = "nan"
    lines[26] = json.dumps(event)
    sample = {"type": "Sample", "seconds": 1.0, "metrics": {"gpu.0.used_gib": 20.0, "gpu.0.total_gib": 24.0}}
    (tmp_path / "run" / "lfdoctor.jsonl").write_text("\n".join([*lines, json.dumps(sample)]) + "\n")
    state = msgspec.structs.replace(Watched(tmp_path / "run", lang).state(), path="saves/run", quiet=3.0, left=120.0)
    text = to_text([render(state, 80, lang)], Screen(width=80))
    assert text.split("\n", 1)[1] == snapshot


def lfdoctor(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    run = "import sys; sys.argv[0] = 'lfdoctor'; from doctor.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", run, "watch", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=timeout)


def test_once_is_for_scripts(tmp_path):
    """One page and an exit code: 1 where an error was found, 0 where not, 3 where there is nothing."""
    assert lfdoctor("--once", str(FIXTURES / "healthy-sft")).returncode == 0
    failed = lfdoctor("--once", str(FIXTURES / "gpu_oom_activations-backward"))
    assert (failed.returncode, "memory/gpu-oom-activations" in failed.stdout) == (1, True)
    assert lfdoctor("--once", str(tmp_path / "none")).returncode == 3


def test_a_finished_run_ends_the_view():
    """Without a terminal too: the last state is printed and the command ends."""
    done = lfdoctor("--interval", "0.2", str(FIXTURES / "healthy-sft"))
    assert done.returncode == 0
    assert "100.0%" in done.stdout


def test_nothing_to_read(tmp_path):
    """An empty folder is an error of its own until the run writes something."""
    with pytest.raises(DoctorError):
        Watched(tmp_path).state()
