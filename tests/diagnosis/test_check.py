"""A config before it is run, through the Python door and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import doctor
from doctor.cli.main import main
from doctor.reporters.registry import REPORTERS

GUIDE_QUICK = Path(__file__).parents[2] / "fixtures" / "config-guide-quick" / "train.yaml"
GOOD = {
    "model_name_or_path": "Qwen/Qwen2.5-7B-Instruct",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "dataset": "x",
    "dataset_dir": "ONLINE",
    "template": "qwen",
    "output_dir": "saves/x",
    "bf16": True,
    "learning_rate": 1e-4,
}


def above_notes(report: doctor.Report) -> list[str]:
    return [finding.rule for finding in report.findings if finding.severity != "note"]


def test_a_sound_config_is_clean(tmp_path):
    """Nothing above a note, no patch, and the report says that nothing ran."""
    report = doctor.check(GOOD, folder=tmp_path)
    assert above_notes(report) == []
    assert report.patch is None
    assert (report.kind, report.run.status) == ("check", "unknown")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"finetuning_type": "qlora"}, "config/finetuning-type-unknown"),
        ({"stage": "orpo"}, "config/stage-unknown"),
        ({"flash_attn": True}, "config/attention-unknown"),
        ({"learning_rate": "5e-5"}, "config/number-in-quotes"),
        ({"do_eval": True}, "config/evaluation-without-data"),
        ({"finetuning_type": "full", "quantization_bit": 4}, "config/quantised-full-or-freeze"),
        ({"quant_type": "nf4"}, "config/unknown-option"),
        ({"quantization_bit": 4, "quantization_method": "bitsandbytes"}, "config/quantisation-method-silent"),
    ],
)
def test_what_llamafactory_refuses_or_dies_of_is_told_before(tmp_path, change, rule):
    """Each classic slip is the root finding, and nothing else is made of it."""
    assert above_notes(doctor.check({**GOOD, **change}, folder=tmp_path))[:1] == [rule]


def test_a_finding_stands_at_its_line_of_the_config():
    """The evidence and SARIF's location name the line on which the option stands."""
    report = doctor.check(GUIDE_QUICK)
    line = GUIDE_QUICK.read_text(encoding="utf-8").splitlines().index("finetuning_type: qlora") + 1
    assert (report.findings[0].evidence[0].source, report.findings[0].evidence[0].line) == (str(GUIDE_QUICK), line)
    sarif = json.loads(REPORTERS["sarif"](report))["runs"][0]
    place = sarif["results"][0]["locations"][0]["physicalLocation"]
    assert place["region"]["startLine"] == line
    assert sarif["tool"]["driver"]["rules"][sarif["results"][0]["ruleIndex"]]["id"] == report.findings[0].rule


def test_fix_corrects_the_file_in_place_and_then_it_is_clean(tmp_path, capsys):
    """--fix changes the wrong option and nothing else; a second check finds no error; comments stay."""
    path = tmp_path / "train.yaml"
    path.write_bytes(GUIDE_QUICK.read_bytes())
    assert main(["check", str(path), "--folder", str(tmp_path), "--fix"]) == 0
    assert "1 fixed, 1 left (before: train.yaml.orig)" in capsys.readouterr().err
    assert (tmp_path / "train.yaml.orig").read_bytes() == GUIDE_QUICK.read_bytes()
    old, new = GUIDE_QUICK.read_text(encoding="utf-8"), path.read_text(encoding="utf-8")
    assert new.replace("finetuning_type: lora", "finetuning_type: qlora") == old
    assert main(["check", str(path), "--folder", str(tmp_path)]) == 0


def test_an_unreadable_config_is_one_plain_line(tmp_path, capsys):
    """Missing file and a list instead of a mapping: exit code 2, one line on stderr, nothing on stdout."""
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n", encoding="utf-8")
    for name in ("missing.yaml", "list.yaml"):
        assert main(["check", str(tmp_path / name)]) == 2
        out = capsys.readouterr()
        assert out.out == ""
        assert name in out.err
        assert out.err.count("\n") == 1
