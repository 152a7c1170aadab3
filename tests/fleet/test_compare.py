"""A few runs beside each other."""

from __future__ import annotations

import json

import pytest

from doctor.cli.main import main
from doctor.errors import DoctorError
from doctor.fleet.attribution.compare import compare
from doctor.fleet.attribution.curves import LossCurve, blocks, picture
from doctor.fleet.scan.coordinator import scan
from doctor.fleet.scan.options import Options


def test_two_runs_are_told_apart_but_nothing_is_called_guilty(runs):
    """The learning rate is among the differences, first where the diagnosis names it; a pair proves nothing."""
    found = compare([str(runs / "healthy-sft"), str(runs / "lr_too_high-lora")])
    assert (found.explanation.verdict, found.explanation.good, found.explanation.failed) == ("cannot_tell", 1, 1)
    assert found.differences[0].key == "learning_rate"
    assert found.differences[0].named
    assert "output_dir" not in {one.key for one in found.differences}
    assert all(one.values[0] != one.values[1] for one in found.differences)


def test_the_table_of_a_scan_says_the_same_as_its_runs(runs, tmp_path):
    scan(Options(roots=[str(runs)], output=tmp_path / "runs.parquet"))
    by_table = compare([str(tmp_path / "runs.parquet")])
    by_run = compare([str(path) for path in sorted(runs.iterdir())])
    assert [(one.path, one.failed, one.config, one.curve) for one in by_table.runs] == [
        (one.path, one.failed, one.config, (one.curve[0], one.curve[1])) for one in by_run.runs
    ]
    assert by_table.explanation == by_run.explanation


def test_one_run_is_no_comparison(runs, tmp_path):
    with pytest.raises(DoctorError, match="needs two"):
        compare([str(runs / "healthy-sft")])
    with pytest.raises(DoctorError, match="no such"):
        compare([str(runs / "healthy-sft"), str(tmp_path / "nowhere")])


def test_the_command_in_every_format(runs, tmp_path, capsys):
    """Terminal in two languages, JSON with every difference, a page with one curve a run and nothing loaded from elsewhere."""
    pair = [str(runs / "healthy-sft"), str(runs / "lr_too_high-lora")]
    assert main(["compare", *pair]) == 0
    assert "learning_rate" in capsys.readouterr().out
    assert main(["compare", *pair, "--lang", "ko"]) == 0
    assert "판단할 수 없습니다" in capsys.readouterr().out
    assert main(["compare", *pair, "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 2
    page = tmp_path / "compare.html"
    assert main(["compare", *pair, "--format", "html", "-o", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<polyline") == 2
    assert "<script" not in text
    assert main(["compare", *pair, "--format", "pdf"]) == 2


def test_curves_share_one_scale():
    """The highest and the lowest point of all runs span the picture and the blocks; a short run ends where it ended."""
    curves = [LossCurve("a", [0, 50, 100], [4.0, 2.0, 1.0]), LossCurve("b", [0, 50], [8.0, 8.0], failed=True), LossCurve("c", [], [])]
    drawn = picture(curves)
    heights = {line.name: [float(point.split(",")[1]) for point in line.points.split()] for line in drawn.lines}
    assert min(heights["b"]) < min(heights["a"])
    assert max(heights["a"]) == max(y for row in heights.values() for y in row)
    lines = dict(blocks(curves, width=10))
    assert lines["a"][0] > lines["a"][-1] == "▁"
    assert lines["b"].rstrip() == "█████"
    assert lines["c"].strip() == ""
    assert picture([LossCurve("x", [], [])]) is None
