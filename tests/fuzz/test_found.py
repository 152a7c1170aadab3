"""What the fuzzer found, kept: damaged folders by their seed, and the inputs themselves, as seeds change with the recordings."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

import doctor
from doctor.cli.main import main
from doctor.core.series import Series
from doctor.report.curves import of_run
from doctor.reporters.json import settled
from doctor.reporters.registry import REPORTERS
from tests.fuzz import folders, oracle
from tests.reporters import samples

SEEDS = (91500263, 91500497, 91500512, 1001002, 1001060, 1001952, 1003257, 1005943, 1006022, 1006413, 1009675, 2001034)
SECONDS = 10.0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_folder_that_once_failed_keeps_every_promise(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No exception, no wrong exit code, and ten seconds of processor time at most."""
    monkeypatch.chdir(tmp_path)
    target = folders.make(tmp_path / "run", seed)
    begin = time.process_time()
    assert oracle.judge(target, seed) == []
    assert time.process_time() - begin < SECONDS


@pytest.mark.parametrize("name", ["trainer_state.json", "trainer_log.jsonl", "lfdoctor.jsonl"])
def test_a_bomb_of_empty_records_is_left_in_time(name: str, tmp_path: Path) -> None:
    """40 million of them in 500 kB; the steps beside it are still read."""
    (tmp_path / name).write_bytes(gzip.compress(b"{}\n" * 40_000_000, 1))
    (tmp_path / "console.log").write_text("".join(f"{{'loss': 1.0, 'learning_rate': 1e-05, 'epoch': {at}.0}}\n" for at in range(1, 5)))
    begin = time.process_time()
    report = doctor.analyze(tmp_path)
    assert time.process_time() - begin < SECONDS
    assert {Path(source.path).name: source.records > 0 for source in report.run.sources} == {name: False, "console.log": True}


@pytest.mark.parametrize("damage", [{"values": [[], 1.0]}, {"values": []}, {"steps": [1]}, {"marks": []}, {"metric": None}])
def test_a_saved_report_with_a_damaged_series_is_refused(
    damage: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and exit code 2, not a traceback from the drawing."""
    data = json.loads(REPORTERS["json"](settled(samples.diverged())))
    data["findings"][0]["series"] |= damage
    saved = tmp_path / "report.json"
    saved.write_text(json.dumps(data))
    assert main(["show", str(saved)]) == 2
    assert "not an lfdoctor report" in capsys.readouterr().err


HUGE = "9" * 400
"""No float holds it."""


@pytest.mark.parametrize(
    "config",
    [
        f"max_steps: {HUGE}\nwarmup_steps: 4\n",
        f"cutoff_len: {HUGE}\nper_device_train_batch_size: {HUGE}\n",
        '{"max_steps": 5, "lora_target": "\\ud800\\udfff\\ud800"}',
    ],
)
def test_a_configuration_with_values_that_no_figure_holds_is_analyzed(config: str, tmp_path: Path) -> None:
    """Nothing of ours breaks, and the report can be written and read again in every format."""
    (tmp_path / ("train.json" if config.startswith("{") else "train.yaml")).write_text(
        config if config.startswith("{") else f"model_name_or_path: m\nstage: sft\nfinetuning_type: lora\ndataset: d\n{config}"
    )
    (tmp_path / "console.log").write_text(
        f"Num Epochs = {HUGE}\nNum update steps per epoch = {HUGE}\n"
        "{'loss': 1.0, 'learning_rate': 1e-05, 'epoch': 1e308}\n"
        "{'loss': 1.0, 'learning_rate': 1e-05, 'epoch': 2.0}\n"
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. "
        "GPU 0 has a total capacity of 23.64 GiB of which 1.10 GiB is free.\n"
    )
    report = doctor.analyze(tmp_path)
    assert report.verdict == "failed"
    assert report.problems == []
    for name in REPORTERS:
        REPORTERS[name](settled(report))


def test_a_second_beyond_all_clocks_is_no_point_of_a_curve() -> None:
    """JSON could not hold it; the other curves are kept."""
    run = samples.run_of(*samples.steps_of([1.0, 0.9]))
    run.samples["disk.free_gib"] = Series()
    run.samples["disk.free_gib"].append(10**300, 66.0)
    assert [curve.metric for curve in of_run(run)] == ["loss"]


def test_a_line_of_a_script_longer_than_a_command_is_none(tmp_path: Path) -> None:
    """50 MB of zero bytes behind the first words; dividing them into words took minutes."""
    (tmp_path / "run.sh").write_bytes(b"#!/bin/bash\nllamafactory-cli train t" + bytes(50 << 20))
    (tmp_path / "console.log").write_text("{'loss': 1.0, 'learning_rate': 1e-05, 'epoch': 1.0}\n")
    begin = time.process_time()
    doctor.analyze(tmp_path)
    assert time.process_time() - begin < SECONDS


@pytest.mark.parametrize("kind", ["terminal", "markdown", "html", "sarif"])
def test_a_saved_report_in_a_language_that_we_lack_is_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, whatever it is to be shown as."""
    data = json.loads(REPORTERS["json"](settled(samples.oom())))
    saved = tmp_path / "report.json"
    saved.write_text(json.dumps(data | {"lang": "xx"}))
    assert main(["show", str(saved), "--format", kind]) == 2
    assert "no language 'xx'" in capsys.readouterr().err


def test_a_saved_report_with_a_chapter_that_no_guide_has_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A saved report may come from anywhere."""
    data = json.loads(REPORTERS["json"](settled(samples.oom())))
    guided = next(remedy for finding in data["findings"] for remedy in finding["remedies"] if remedy["guide"])
    guided["guide"]["section"] = "<b>no chapter</b>"
    saved = tmp_path / "report.json"
    saved.write_text(json.dumps(data))
    assert main(["show", str(saved)]) == 2
    assert "not an lfdoctor report" in capsys.readouterr().err


def test_the_settings_that_a_program_prints_state_no_failure(tmp_path: Path) -> None:
    """A value named `error` and an option of the model stand in them."""
    (tmp_path / "debug.log").write_text(
        "INFO start\nconfig: {'data': {'max_length': 16384, 'truncation': 'error'}, 'model': {'trust_remote_code': False, 'path': 'm'}}\n"
        + "step:1 - train/loss:1.2\n" * 9
    )
    assert [one.rule for one in doctor.analyze(tmp_path).findings if one.severity != "note"] == []


def test_every_state_of_a_fixed_file_is_kept(tmp_path: Path) -> None:
    """Another program's NAME.orig is left alone, and a file that was edited again is kept beside the first one."""
    config, foreign = tmp_path / "train.yaml", tmp_path / "train.yaml.orig"
    first = "stage: sft\nmodel_name_or_path: m\ndataset: d\ntemplate: qwen\noutput_dir: o\nmax_seq_length: 512\n"
    second = first.replace("512", "256")
    foreign.write_text("of a merge\n")
    for text in (first, second):
        config.write_text(text)
        main(["check", str(config), "--fix"])
        assert "cutoff_len" in config.read_text()
    kept = [(tmp_path / name).read_text() for name in ("train.yaml.orig", "train.yaml.orig.2", "train.yaml.orig.3")]
    assert kept == ["of a merge\n", first, second]


def test_figures_of_thousands_of_digits_in_a_message_are_none(tmp_path: Path) -> None:
    """Sizes and GPU numbers; searching for sizes in them took minutes."""
    (tmp_path / "console.log").write_text(
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU {'9' * 5000} has {'8' * 200_000} "
        f"free; {'7' * 200_000} total capacity; 10.00 GiB is allocated by PyTorch.\n"
        f"failed (exitcode: -{'9' * 5000}) local_rank: 0\nexit code: -{'9' * 5000}\nProcess {'6' * 5000} has 2.00 GiB memory in use\n"
    )
    begin = time.process_time()
    report = doctor.analyze(tmp_path)
    assert time.process_time() - begin < SECONDS
    assert report.problems == []
    assert report.verdict == "failed"
