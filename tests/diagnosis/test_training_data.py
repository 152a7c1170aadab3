"""A failed step is told with the samples that it read: only where the data found here is the data of the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doctor.dataset import order
from doctor.diagnosis.pipeline import analyze
from doctor.report.model import FindingView, Report
from doctor.reporters import advice
from doctor.words import catalogue
from tests.dataset import sets
from tests.dataset.sets import good, put
from tests.dataset.test_lengths import words  # noqa: F401 (a fixture)
from tests.diagnosis.test_batch_samples import GOOD, OOM, record

CONFIG = """model_name_or_path: m
stage: sft
do_train: true
dataset: one
dataset_dir: data
template: qwen
output_dir: out
logging_steps: 1
per_device_train_batch_size: 2
disable_shuffling: true
num_train_epochs: 1.0
"""


@pytest.fixture(autouse=True)
def _proven(monkeypatch):
    """The releases whose order is proven."""
    monkeypatch.setattr(order, "releases", lambda: dict(order.VERSIONS))


def run(folder: Path, *, world: int = 1, examples: int = 80, planned: int = 40, text: str = OOM, **more: str) -> Report:
    """A run of 80 samples in pairs that failed in step 25: without shuffling it read the rows 49 and 50."""
    rows = [good(number, output="long " * 200) if number == 49 else good(number) for number in range(80)]
    put(folder, "one.jsonl", sets.lines(*rows))
    (folder / "out").mkdir()
    (folder / "out" / "trainer_log.jsonl").write_text("".join(record(step, loss) for step, loss in GOOD.items()))
    rank = f"Process rank: 0, world size: {world}, device: cuda:0, distributed training: {world > 1}\n"
    start = f"***** Running training *****\n  Num examples = {examples}\n  Total optimization steps = {planned}\n"
    (folder / "out" / "console.log").write_text(rank + start + text)
    (folder / "out" / "train.yaml").write_text(CONFIG + "".join(f"{name}: {value}\n" for name, value in more.items()))
    return analyze(folder / "out")


def root(report: Report) -> FindingView:
    return next(finding for finding in report.findings if finding.role == "root")


def shown(report: Report) -> list[str]:
    return advice.sample_lines(root(report), catalogue.load(report.lang))[1]


def test_the_samples_of_the_failed_step_are_named_the_longest_first(tmp_path):
    """Rows 49 and 50; without a tokenizer the longer text counts."""
    report = run(tmp_path)
    assert report.cause == "gpu_oom_long_sequence"
    assert shown(report) == ["data/one.jsonl:50", "data/one.jsonl:49"]


def test_steps_beyond_the_planned_ones_name_nothing(tmp_path):
    """Two processes make 20 steps of this data; the records go to step 24."""
    assert shown(run(tmp_path, world=2, planned=20)) == []


def test_two_processes_read_other_rows(tmp_path):
    """An epoch has 20 steps of two times two rows; the steps 25 and 26 are the fifth and sixth of the second."""
    report = run(tmp_path, world=2, num_train_epochs="2.0")
    assert [row.split(", ")[0] for row in shown(report)] == [f"data/one.jsonl:{line}" for line in (17, 18, 19, 20, 21, 22, 23, 24)]


def test_other_data_names_nothing(tmp_path):
    """The run counted 81 samples, the file has 80."""
    assert shown(run(tmp_path, examples=81)) == []


def test_an_order_that_is_not_known_names_nothing(tmp_path):
    """With packing, batches hold several samples each."""
    assert shown(run(tmp_path, packing="true")) == []


def test_other_releases_name_nothing(tmp_path, monkeypatch):
    """The order was compared for these releases only."""
    monkeypatch.setattr(order, "releases", lambda: {**order.VERSIONS, "transformers": "4.40.0"})
    assert shown(run(tmp_path)) == []


def test_what_may_not_be_read_is_not_opened(tmp_path):
    """An agent's roots may not hold the data."""
    run(tmp_path)
    asked: list[Path] = []
    report = analyze(tmp_path / "out", may_read=lambda path: bool(asked.append(path)))
    assert {path.name for path in asked} == {"dataset_info.json"}
    assert shown(report) == []
    report = analyze(tmp_path / "out", may_read=lambda path: path.name != "one.jsonl")
    assert shown(report) == []


def test_an_error_that_no_sample_can_cause_names_nothing(tmp_path):
    """A full disk."""
    text = OOM.replace(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 18.20 GiB.", "OSError: [Errno 28] No space left on device #"
    )
    report = run(tmp_path, text=text)
    assert report.cause == "disk_full"
    assert root(report).samples is None


@pytest.mark.parametrize(
    ("kind", "wanted"), [("markdown", "- data/one.jsonl:50"), ("html", "<li>data/one.jsonl:50</li>"), ("terminal", "data/one.jsonl:50")]
)
def test_every_output_for_people_lists_them(tmp_path, kind, wanted):
    """With the heading in the report's language."""
    from doctor.cli.main import main

    run(tmp_path)
    out = tmp_path / f"report.{kind}"
    assert main(["analyze", str(tmp_path / "out"), "-f", kind, "-o", str(out), "--lang", "zh"]) == 1
    page = out.read_text(encoding="utf-8")
    assert wanted in page
    assert "第 25 步读取的样本（从长到短）" in page


@pytest.mark.parametrize(("cutoff", "lines"), [(4, ["data/one.jsonl:1", "data/one.jsonl:2"]), (64, [])])
def test_a_loss_of_zero_names_samples_whose_answer_is_cut_away(tmp_path, words, cutoff, lines):  # noqa: F811
    """With a cutoff of four tokens nothing of these answers is left; where labels are left, the samples are not to blame."""
    rows = [good(number, instruction="w " * 40, output="w w w") for number in range(80)]
    put(tmp_path, "one.jsonl", sets.lines(*rows))
    (tmp_path / "out").mkdir()
    zeros = "".join(record(step, 0.0).replace('"lr"', '"grad_norm": 0.0, "lr"') for step in range(1, 25))
    (tmp_path / "out" / "trainer_log.jsonl").write_text(zeros)
    rank = "Process rank: 0, world size: 1, device: cuda:0, distributed training: False\n"
    (tmp_path / "out" / "console.log").write_text(
        f"{rank}***** Running training *****\n  Num examples = 80\n  Total optimization steps = 40\n"
    )
    given = CONFIG.replace("model_name_or_path: m", f"model_name_or_path: {words}").replace("template: qwen", "template: empty")
    (tmp_path / "out" / "train.yaml").write_text(f"{given}cutoff_len: {cutoff}\n")
    report = analyze(tmp_path / "out")
    assert report.cause == "all_labels_masked"
    assert [line.split(", ")[0] for line in shown(report)] == lines
    assert all("no token is trained" in line for line in shown(report))


def test_json_holds_them(tmp_path):
    """As data: file, line, step."""
    found = root(run(tmp_path)).samples
    assert found is not None
    plain = json.loads(json.dumps([(row.file, row.line, row.step, row.rank) for row in found.rows]))
    assert (found.steps, found.total, plain) == ((25, 25), 2, [["data/one.jsonl", 50, 25, 0], ["data/one.jsonl", 49, 25, 0]])
