"""Attempts of one job: which they are, what was changed, whether it helped, and what is not proposed again."""

from __future__ import annotations

import shutil

import pyarrow.parquet as parquet
import pytest
import yaml

import doctor
from doctor.cli.main import main
from doctor.diagnosis.pipeline import run_analysis
from doctor.fleet.attribution.history import attempts, job_name, previous_attempts
from doctor.fleet.scan.coordinator import scan
from doctor.fleet.scan.options import Options
from doctor.fleet.scan.records import FindingRecord, RunRecord
from doctor.planner.plan import PreviousAttempt

from .conftest import copy

OOM = "gpu_oom_activations-forward"


@pytest.mark.parametrize(
    ("path", "config", "name"),
    [
        ("/x/saves/qwen-fix1", {}, "saves/qwen"),
        ("/x/saves/qwen_retry3", {}, "saves/qwen"),
        ("/x/saves/train_2024-01-31-10-20-30", {}, "saves/train"),
        ("/x/saves/sft-fix2", {"output_dir": "saves/sft-fix2"}, "saves/sft"),
        ("/x/runs/exp1", {"output_dir": "output"}, "runs/exp1"),
        ("/x/runs/exp1", {"output_dir": "output", "run_name": "mine"}, "runs/mine"),
    ],
)
def test_attempts_of_a_job_share_its_name(path, config, name):
    assert job_name(path, config) == name


def test_consoles_alone_are_named_by_their_output_folder():
    assert job_name("/logs/slurm-17", {"output_dir": "saves/exp7-fix1"}, folder=False) == "saves/exp7"


def record(path, ended, status, cause=None, **config):
    wrong = FindingRecord(
        rule="memory/x", cause=cause or "", symptom="out_of_memory", severity="error", role="root", confidence=0.9, title="",
        first_step=None, last_step=None, ranks=[], count=1, source=None, line=None, text="",
    )  # fmt: skip
    return RunRecord(path=path, status=status, cause=cause, ended=ended, config=config, findings=[wrong] if cause else [])


def test_the_story_of_a_job_is_told_in_the_order_in_which_its_attempts_ended():
    """What was changed (defaults count as values), and whether it helped."""
    runs = [
        record("d", 4, "completed", cutoff_len=1024, per_device_train_batch_size=1),
        record("a", 1, "failed", "oom", per_device_train_batch_size=8),
        record("b", 2, "failed", "oom", per_device_train_batch_size=4),
        record("c", 3, "failed", "nan", per_device_train_batch_size=4, cutoff_len=2048, output_dir="elsewhere"),
        record("e", 5, "failed", "nan", cutoff_len=1024, per_device_train_batch_size=1, learning_rate=1.0),
    ]
    story = attempts(runs)
    assert [(one.path, one.verdict) for one in story] == [
        ("a", "first"), ("b", "no_help"), ("c", "other_failure"), ("d", "helped"), ("e", "broke"),
    ]  # fmt: skip
    assert story[1].changed == {"per_device_train_batch_size": (8, 4)}
    assert "output_dir" not in story[2].changed
    assert "cutoff_len" not in story[2].changed  # 2048 is the default
    assert story[3].changed == {"cutoff_len": (2048, 1024), "per_device_train_batch_size": (4, 1)}


def test_only_attempts_that_failed_alike_are_held_against_a_patch():
    group = [record("a", 1, "failed", "oom"), record("b", 2, "failed", "nan"), record("c", 3, "completed"), record("d", 4, "failed", "oom")]
    assert [one.run for one in previous_attempts(group[3], group)] == ["a"]


def proposed(report):
    """The patch without what only gives the new attempt a place."""
    return {one.key: one.new for one in report.patch.changes if one.key != "output_dir"} if report.patch else {}


def test_the_planner_never_proposes_what_failed_already(tmp_path):
    """Every proposal is tried in turn and fails of the same cause: no later one repeats an earlier one, and each rejection says why."""
    run = copy(OOM, tmp_path / "run")
    config = yaml.safe_load((run / "train.yaml").read_text(encoding="utf-8"))
    failed, seen = [], []
    for number in range(6):
        report = run_analysis(run, previous_attempts=failed).report
        patch = proposed(report)
        if not patch:
            break
        assert patch not in seen
        seen.append(patch)
        outside = {f"{one.target}.{one.key}": one.new for one in report.patch.changes if one.target != "config"}
        options = {one.key: one.new for one in report.patch.changes if one.target == "config" and one.key != "output_dir"}
        failed.append(PreviousAttempt(f"attempt-{number}", {**config, **options}, outside))
    assert len(seen) >= 3
    report = run_analysis(run, previous_attempts=failed).report
    reasons = [remedy.reason for one in report.findings for remedy in one.remedies if remedy.status == "rejected"]
    assert any("attempt-0" in reason for reason in reasons)
    assert proposed(doctor.analyze(run)) == seen[0]


def test_a_stronger_form_of_what_failed_may_be_proposed(tmp_path):
    """Four bits failed at a batch of 8; four bits and something more is another attempt."""
    run = copy(OOM, tmp_path / "run")
    config = yaml.safe_load((run / "train.yaml").read_text(encoding="utf-8"))
    first = proposed(doctor.analyze(run))
    other = proposed(run_analysis(run, previous_attempts=[PreviousAttempt("x", {**config, **first})]).report)
    assert other
    assert other != first


def test_a_scan_plans_the_latest_attempt_in_the_light_of_the_others(tmp_path):
    """Two attempts of one job: the second did what the first was told, and failed; its row proposes something else, its report says why."""
    first, second = copy(OOM, tmp_path / "runs" / "job"), copy(OOM, tmp_path / "runs" / "job-fix1")
    advice = proposed(doctor.analyze(second))
    text = (first / "train.yaml").read_text(encoding="utf-8")
    (first / "train.yaml").write_text(text + "".join(f"{key}: {value}\n" for key, value in advice.items()), encoding="utf-8")
    for path in second.rglob("*"):
        path.touch()
    out = tmp_path / "runs.parquet"
    options = Options(roots=[str(tmp_path / "runs")], output=out, report="doctor.reporters.registry:REPORTERS:markdown")
    summary = scan(options)
    rows = {row["path"].rpartition("/")[2]: row for row in parquet.read_table(out).to_pylist()}
    again = {f"{key}={value}" for key, value in advice.items()}
    assert not again & set(rows["job-fix1"]["patch"])
    assert rows["job-fix1"]["patch"]
    assert [one.verdict for one in summary.jobs[0].attempts] == ["first", "no_help"]
    assert summary.jobs[0].next == rows["job-fix1"]["patch"]
    before = parquet.read_table(out)
    scan(options)
    assert parquet.read_table(out).equals(before)


def test_analyze_can_be_told_what_failed_before(tmp_path, capsys):
    """--history takes the table of a scan."""
    first, second = copy(OOM, tmp_path / "runs" / "job"), copy(OOM, tmp_path / "runs" / "job-fix1")
    advice = proposed(doctor.analyze(second))
    text = (first / "train.yaml").read_text(encoding="utf-8")
    (first / "train.yaml").write_text(text + "".join(f"{key}: {value}\n" for key, value in advice.items()), encoding="utf-8")
    main(["scan", str(tmp_path / "runs"), "-o", str(tmp_path / "runs.parquet"), "--fail-on", "never"])
    capsys.readouterr()
    main(["analyze", str(second), "--format", "json", "--history", str(tmp_path / "runs.parquet"), "--fail-on", "never"])
    report = doctor_report(capsys.readouterr().out)
    assert not {(one["key"], one["new"]) for one in report["patch"]["changes"]} & set(advice.items())


def doctor_report(text):
    import json

    return json.loads(text)


def test_a_variable_that_was_set_in_vain_is_not_proposed_again(tmp_path):
    """An attempt had what the first report proposed, as its command says, and failed alike; a variable of another value was not it."""
    run = copy("gpu_oom_fragmentation-fragmented", tmp_path / "runs" / "job-fix1")
    report = doctor.analyze(run)
    name, value = next((one.key, one.new) for one in report.patch.changes if one.target == "env")
    for said, again in ((value, False), ("max_split_size_mb:32", True)):
        first = copy("gpu_oom_fragmentation-fragmented", tmp_path / "runs" / "job")
        (first / "command.sh").write_text(f"{name}={said} llamafactory-cli train train.yaml\n", encoding="utf-8")
        (run / "command.sh").write_text("llamafactory-cli train train.yaml\n", encoding="utf-8")
        for path in run.rglob("*"):
            path.touch()
        summary = scan(Options(roots=[str(tmp_path / "runs")], output=tmp_path / "runs.parquet"))
        rows = {row["path"].rpartition("/")[2]: row for row in parquet.read_table(tmp_path / "runs.parquet").to_pylist()}
        assert (f"{name}={value}" in rows["job-fix1"]["patch"]) == again
        assert summary.jobs[0].attempts[1].changed == {f"env.{name}": (said, None)}
        shutil.rmtree(first)
