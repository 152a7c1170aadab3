"""Folders with several runs: which of them a report is about, and which it names."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from doctor.diagnosis.pipeline import OTHER_RUNS, analyze
from doctor.readers.discovery import choose_run, runs_below
from doctor.report.model import Report
from doctor.reporters import registry
from doctor.reporters.base import PLAIN
from tests.readers.helpers import Seen, scalar_event


def steps(losses: list[float], every: int = 10) -> list[dict[str, float]]:
    """The log history of a run with these losses."""
    return [{"step": every * (i + 1), "loss": loss, "learning_rate": 1e-4, "epoch": 0.1 * (i + 1)} for i, loss in enumerate(losses)]


def state(folder: Path, losses: list[float], planned: int | None = None, **more: object) -> Path:
    """trainer_state.json of a run that logged every ten steps and reached its last one."""
    folder.mkdir(parents=True, exist_ok=True)
    last = 10 * len(losses)
    text = json.dumps({"max_steps": planned or last, "global_step": last, "log_history": steps(losses), **more})
    (folder / "trainer_state.json").write_text(text, encoding="utf-8")
    return folder


def age(folder: Path, days: float) -> None:
    """Set the time of change of all files below a folder to some days ago."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (1_700_000_000 - 86400 * days,) * 2)


FALLING = [2.0 - 0.1 * i for i in range(12)]
OTHER = [1.0 - 0.05 * i for i in range(12)]


def others(report: Report) -> set[str]:
    return {Path(other.path).name for other in report.other_runs}


def test_an_adapter_inside_a_run_is_another_run(tmp_path: Path) -> None:
    """A DPO run with the SFT adapter that it began from below it: the DPO run is told, with its own steps only."""
    run = state(tmp_path / "dpo", FALLING)
    state(run / "sft_adapter", OTHER + OTHER)
    report = analyze(run)
    assert report.run.path == str(run)
    assert report.run.steps.last == 120
    assert others(report) == {"sft_adapter"}


@pytest.mark.parametrize("beside", ["logs/probe_log.csv", "eval/output-eval.txt", "logs/eval.log"])
def test_checkpoints_without_the_rest_are_the_run_of_their_folder(beside: str, tmp_path: Path) -> None:
    """People publish checkpoints and leave out the trainer's own files; what another program wrote beside them is newer and no run."""
    age(state(tmp_path / "checkpoint-60", FALLING[:6], planned=120), 3)
    age(state(tmp_path / "checkpoint-120", FALLING), 2)
    (tmp_path / beside).parent.mkdir()
    (tmp_path / beside).write_text("accuracy 0.8\n", encoding="utf-8")
    report = analyze(tmp_path)
    assert (report.run.path, report.run.status, report.run.steps.last) == (str(tmp_path), "completed", 120)


def test_of_runs_side_by_side_the_newest_is_told(tmp_path: Path) -> None:
    for days, name in ((3, "results"), (1, "m2"), (2, "m3")):
        age(state(tmp_path / name, FALLING), days)
    report = analyze(tmp_path)
    assert report.run.path == str(tmp_path / "m2")
    assert others(report) == {"results", "m3"}
    assert report.to_dict()["other_runs"][0].keys() == {"path", "status"}


def test_every_format_for_people_names_the_other_runs(tmp_path: Path) -> None:
    """With the command that shows all of them."""
    for days, name in ((1, "first"), (2, "second")):
        age(state(tmp_path / name, FALLING), days)
    report = analyze(tmp_path)
    for kind in ("terminal", "markdown", "html"):
        page = registry.REPORTERS[kind](report, PLAIN)
        assert "Other runs here" in page
        assert "lfdoctor scan" in page
        assert "second" in page


def test_a_report_lists_at_most_twenty_other_runs(tmp_path: Path) -> None:
    for number in range(25):
        state(tmp_path / f"run{number}", FALLING)
    assert len(analyze(tmp_path).other_runs) == OTHER_RUNS


def test_a_single_run_has_no_other_runs(tmp_path: Path) -> None:
    """Checkpoints, a tracker's folder, a console log and a YAML next to it are parts of it."""
    state(tmp_path / "saves" / "m" / "lora" / "sft", FALLING)
    state(tmp_path / "saves" / "m" / "lora" / "sft" / "checkpoint-60", FALLING[:6], planned=120)
    (tmp_path / "train.log").write_text("***** Running training *****\n", encoding="utf-8")
    (tmp_path / "train.yaml").write_text("stage: sft\nmodel_name_or_path: m\noutput_dir: saves/m/lora/sft\n", encoding="utf-8")
    report = analyze(tmp_path)
    assert (report.other_runs, report.run.steps.last, report.run.stage) == ([], 120, "sft")


@pytest.mark.parametrize("name", ["run-20240911_025751-7o22q8z7", "offline-run-20240911_025751-7o22q8z7"])
def test_a_folder_of_wandb_is_one_run(tmp_path: Path, name: str) -> None:
    """`run-X` with the binary file and `run-X/files` with the settings are the same run; each `run-X` is its own."""
    for path in (f"{name}/run-7o22q8z7.wandb", f"{name}/files/config.yaml", f"{name}/files/wandb-metadata.json", f"{name}/logs/debug.log"):
        target = tmp_path / "wandb" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("wandb_version: 1\n", encoding="utf-8")
    assert [run.path for run in runs_below(str(tmp_path))] == [str(tmp_path / "wandb" / name)]
    assert [run.path for run in runs_below(str(tmp_path / "wandb"))] == [str(tmp_path / "wandb" / name)]


def test_runs_of_wandb_do_not_join_their_neighbours(tmp_path: Path) -> None:
    """Two W&B runs next to two output folders: four runs."""
    for number in (1, 2):
        state(tmp_path / f"out{number}", FALLING)
        target = tmp_path / "wandb" / f"run-2024091{number}_025751-a{number}"
        target.mkdir(parents=True)
        (target / f"run-a{number}.wandb").write_text(":W&B", encoding="utf-8")
    (tmp_path / "train.log").write_text("***** Running training *****\n", encoding="utf-8")
    names = {Path(run.path).name for run in runs_below(str(tmp_path))}
    assert names >= {"out1", "out2", "run-20240911_025751-a1", "run-20240912_025751-a2"}


def test_a_folder_with_results_only_is_no_other_run(tmp_path: Path) -> None:
    """The results of a later prediction belong to the run around them."""
    run = state(tmp_path / "run", FALLING)
    (run / "predict").mkdir()
    (run / "predict" / "predict_results.json").write_text("{}", encoding="utf-8")
    assert choose_run(str(run)).others == []


def test_a_checkpoint_of_another_run_is_not_read(tmp_path: Path) -> None:
    """checkpoint-40 of an earlier run in the same folder: other losses at the same steps."""
    run = state(tmp_path / "run", FALLING)
    state(run / "checkpoint-60", FALLING[:6], planned=120)
    state(run / "checkpoint-40", OTHER[:4], planned=40)
    report = analyze(run)
    assert others(report) == {"checkpoint-40"}
    assert report.run.steps.planned == 120
    assert all(losses.values[0] == FALLING[0] for losses in report.curves if losses.metric == "loss")


def test_a_checkpoint_beyond_the_end_is_another_runs(tmp_path: Path) -> None:
    """The run ended at step 120; checkpoint-200 was left by a longer one."""
    run = state(tmp_path / "run", FALLING)
    state(run / "checkpoint-200", FALLING + OTHER[:8], planned=200)
    assert others(analyze(run)) == {"checkpoint-200"}


def test_without_a_history_of_the_run_the_newest_checkpoint_is_told(tmp_path: Path) -> None:
    """A crashed run left two checkpoints; one is of an earlier run."""
    state(tmp_path / "run" / "checkpoint-120", FALLING, planned=200)
    state(tmp_path / "run" / "checkpoint-60", OTHER[:6], planned=60)
    age(tmp_path / "run" / "checkpoint-60", 2)
    age(tmp_path / "run" / "checkpoint-120", 1)
    report = analyze(tmp_path / "run")
    assert (others(report), report.run.steps.planned) == ({"checkpoint-60"}, 200)


def test_the_checkpoints_of_a_run_are_its_own(tmp_path: Path) -> None:
    """Also where trainer_log.jsonl, with rounded losses, is the only history."""
    run = tmp_path / "run"
    state(run / "checkpoint-60", [loss + 0.00004 for loss in FALLING[:6]], planned=120)
    lines = [
        {"current_steps": entry["step"], "total_steps": 120, "loss": entry["loss"], "lr": 1e-4, "epoch": entry["epoch"]}
        for entry in steps(FALLING)
    ]
    (run / "trainer_log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    report = analyze(run)
    assert (report.other_runs, report.run.steps.last) == ([], 120)


def test_the_yaml_of_the_command_is_patched_not_our_report(tmp_path: Path) -> None:
    """`lfdoctor run -o D -- llamafactory-cli train train.yaml` leaves command.sh, console.log and report.json in D."""
    (tmp_path / "train.yaml").write_text("stage: sft\nmodel_name_or_path: m\nlora_rank: 8\noutput_dir: out\n", encoding="utf-8")
    folder = tmp_path / "D"
    folder.mkdir()
    (folder / "command.sh").write_text("#!/bin/sh\nllamafactory-cli train train.yaml\n", encoding="utf-8")
    text = "***** Running training *****\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    (folder / "console.log").write_text(text, encoding="utf-8")
    first = analyze(folder)
    (folder / "report.json").write_text(json.dumps(first.to_dict(), indent=2), encoding="utf-8")
    report = analyze(folder)
    assert report.patch is not None
    assert report.patch.source == str(tmp_path / "train.yaml")
    assert "lora_rank: 8" in (report.patch.yaml or "")
    assert not any(Path(source.path).name == "report.json" for source in report.run.sources)


def test_the_event_file_of_an_earlier_try_lends_no_times(tmp_path: Path) -> None:
    """A first try of the day before logged the same four losses and stopped: the pause between the files is none of the run's."""
    run = tmp_path / "run"
    day, start = 86400, 1_700_000_000
    lines = [{"current_steps": entry["step"], "total_steps": 120, "loss": entry["loss"], "lr": 1e-4} for entry in steps(FALLING)]
    run.mkdir()
    (run / "trainer_log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    for folder, losses, began in (("Jul12", FALLING[:4], start - day), ("Jul13", FALLING, start)):
        data = b"".join(scalar_event(entry["step"], "train/loss", entry["loss"], time=began + 2 * entry["step"]) for entry in steps(losses))
        (run / "runs" / folder).mkdir(parents=True)
        (run / "runs" / folder / f"events.out.tfevents.{began}.host.1.0").write_bytes(data)
    read = Seen(run)
    times = [step.time for step in read.steps]
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [20.0] * 11
    assert not [finding for finding in analyze(run).findings if finding.symptom == "stall"]


def test_a_log_of_no_job_beside_one_jobs_log_is_that_jobs(tmp_path: Path) -> None:
    """`console.log` names no job; with the logs of two jobs beside it, these are two runs."""
    for name in ("console.log", "exp7.log"):
        (tmp_path / name).write_text("{'loss': 1.0, 'epoch': 0.1}\n")
    assert [run.path for run in runs_below(str(tmp_path))] == [str(tmp_path)]
    (tmp_path / "exp8.log").write_text("{'loss': 1.0, 'epoch': 0.1}\n")
    assert sorted(Path(run.path).name for run in runs_below(str(tmp_path))) == ["exp7", "exp8"]
