"""Folders with several runs: which of them a report is about, and which it names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from doctor.diagnosis.pipeline import analyze
from doctor.readers.discovery import choose_run, runs_below
from doctor.report.model import OTHER_RUNS, Report
from doctor.reporters import registry
from doctor.reporters.base import PLAIN


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
