"""The page's parts that need no browser: the side-by-side diff, the memory bars, the timeline, one page for every language."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import doctor
from doctor.report.curves import Curve
from doctor.report.line_plot import incidents
from doctor.report.model import Report
from doctor.reporters import base, excerpt
from doctor.reporters.html.charts import charts, first_plot
from doctor.reporters.html.page import Page, side_by_side
from doctor.reporters.json import settled
from doctor.reporters.registry import REPORTERS
from doctor.words.catalogue import LANGUAGES, load
from tests.expected import fixtures
from tests.reporters import samples
from tests.reporters.test_reporters import told

LINES = st.lists(st.sampled_from(["a: 1", "b: 2", "c: 3", "", "  - x", "-y", "+z"]), max_size=12)
OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.57 GiB of which 1.00 GiB is "
    "free. Including non-PyTorch memory, this process has 22.50 GiB memory in use. Of the allocated memory 21.90 GiB is allocated by "
    "PyTorch, and 0.40 GiB is reserved by PyTorch but unallocated."
)


@given(LINES, LINES)
def test_side_by_side_loses_no_line_and_invents_none(old: list[str], new: list[str]) -> None:
    """With all lines as context the left column is the old text and the right one the new, numbered as they are."""
    diff = difflib.unified_diff([f"{one}\n" for one in old], [f"{one}\n" for one in new], "old.yaml", "new.yaml", n=99)
    rows = side_by_side("".join(diff))
    if old == new:
        assert rows == []
        return
    left = [(row.old_line, row.old) for row in rows if row.old_line]
    right = [(row.new_line, row.new) for row in rows if row.new_line]
    assert left == list(enumerate(old, 1))
    assert right == list(enumerate(new, 1))
    assert all(row.old == row.new for row in rows if row.kind == "same")


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """An out-of-memory failure of a model and a card whose memory can be predicted."""
    run = tmp_path_factory.mktemp("run")
    keys = ("model_name_or_path: Qwen/Qwen2.5-7B-Instruct", "stage: sft", "do_train: true", "finetuning_type: lora", "dataset: mine")
    more = ("template: qwen", "cutoff_len: 4096", "output_dir: saves/x", "per_device_train_batch_size: 8", "bf16: true")
    (run / "train.yaml").write_text("\n".join([*keys, *more, ""]), encoding="utf-8")
    (run / "console.log").write_text(f"***** Running training *****\n{OOM}\n", encoding="utf-8")
    return settled(doctor.analyze(run))


def test_the_patch_is_shown_side_by_side(predicted: Report) -> None:
    """The value that the patch takes away stands beside the one that it sets."""
    assert predicted.patch is not None
    change = next(change for change in predicted.patch.changes if change.target == "config" and change.key == "per_device_train_batch_size")
    rows = Page(predicted, load("en")).diff(predicted.patch)
    (row,) = [row for row in rows if (row.new or "").startswith("per_device_train_batch_size:")]
    assert (row.old, row.new.split("#")[0].rstrip()) == ("per_device_train_batch_size: 8", f"per_device_train_batch_size: {change.new}")


def test_the_parts_of_the_memory_add_up_to_the_peak(predicted: Report) -> None:
    """Before and after the patch; the weights are there, and what the patch saves is not in them."""
    assert predicted.patch is not None
    memory = predicted.patch.predicted.memory_gib
    assert memory is not None
    assert memory.terms is not None
    assert memory.before == pytest.approx(sum(memory.terms["before"].values()), abs=0.1)
    assert memory.after == pytest.approx(sum(memory.terms["after"].values()), abs=0.1)
    assert memory.terms["before"]["weights"] == pytest.approx(14.2, abs=0.5)


def test_the_bars_are_drawn_to_the_scale_of_the_card(predicted: Report) -> None:
    """Widths are shares of one scale, in which the card's edge stands as well; every part has a name in every language."""
    assert predicted.patch is not None
    for lang in LANGUAGES:
        page = Page(predicted, load(lang))
        memory = page.memory(predicted.patch)
        assert memory is not None
        for _, total, parts in memory["bars"]:
            assert sum(share for *_, share in parts) == pytest.approx(100 * total / memory["capacity"] * memory["edge"] / 100)
        assert all(page.term(name) != name or lang == "en" for _, name, *_ in memory["rows"])
        assert 0 < memory["edge"] < 100


@pytest.mark.parametrize("fixture", fixtures()[::6], ids=lambda path: path.name)
def test_the_timeline_is_in_order_and_inside_its_track(fixture: Path) -> None:
    """Incidents go from left to right, inside the track; every finding above a note is on it and leads to its own part of the page."""
    report = settled(doctor.analyze(fixture))
    text = REPORTERS["html"](report)
    incidents = Page(report, load("en")).timeline()
    assert [one.at for one in incidents] == sorted(one.at for one in incidents)
    assert all(0 <= one.at <= 100 for one in incidents)
    targets = {one.target for one in incidents if one.target}
    assert targets == {f"f{place}" for place, one in enumerate(report.findings) if one.severity != "note"}
    for lang in LANGUAGES:
        assert f'id="page-{lang}" lang="{lang}"' in text
        assert all(f'id="{target}-{lang}"' in text for target in targets)


def test_a_report_without_plots_carries_no_library() -> None:
    """A failure before the first step is a page of some ten kilobytes; one with curves has plotly inside and stays under 2.5 MB."""
    without, with_plots = (
        REPORTERS["html"](settled(doctor.analyze(Path(__file__).parents[2] / "fixtures" / name)))
        for name in ("config-cutoff-zero", "lr_too_high-full")
    )
    assert len(without.encode()) < 200_000
    assert 'id="plotly"' not in without
    assert 1_000_000 < len(with_plots.encode()) < 2_500_000
    for text in (without, with_plots):
        assert "http-equiv" in text
        assert not any(f'{attribute}="http' in text for attribute in ("src", "action"))


def test_plotly_registers_lines_and_points_only() -> None:
    """The library in the page is plotly's own without its list of other traces; where a new plotly is bundled otherwise, this says so."""
    import base64
    import gzip
    import importlib.util

    page = REPORTERS["html"](settled(doctor.analyze(Path(__file__).parents[2] / "fixtures" / "lr_too_high-full")))
    packed = re.search(r'id="plotly">([^<]+)<', page)
    assert packed
    inside = gzip.decompress(base64.b64decode(packed[1])).decode()
    folder = importlib.util.find_spec("plotly").submodule_search_locations[0]
    whole = (Path(folder) / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    registration = re.compile(r"[\w$]+\.register\(\[(?:[\w$]+\(\),?){9,}\]\);")
    assert registration.sub("", whole) == inside != whole


def test_a_metric_of_one_value_gets_no_plot_and_is_told() -> None:
    """A straight line is no plot; the loss stays. How long evaluations took is in no plot either."""
    steps = [1, 2, 3]
    told_ = {
        "loss": [2.0, 2.0, 2.0],
        "learning_rate": [1e-4] * 3,
        "grad_norm": [1.0, 2.0, 1.0],
        "eval_runtime": [3.0, 3.1, 3.2],
        "kl": [0.5] * 3,
    }
    report = msgspec.structs.replace(samples.diverged(), curves=[Curve(name, 0, "steps", steps, values) for name, values in told_.items()])
    assert [chart.metrics for chart in charts(report)] == [["loss"], ["grad_norm"]]
    assert Page(report, load("en")).constants() == "`learning_rate` 0.0001, `kl` 0.5"


def test_the_first_plot_is_the_one_of_the_cause() -> None:
    """The metric in which the root was seen, else the loss; nothing where neither was logged."""
    report = samples.diverged()
    curves = [Curve(name, 0, "steps", [1, 2, 3], [1.0, 2.0, 1.0]) for name in ("grad_norm", "loss")]
    root = msgspec.structs.replace(report.findings[0], role="root", steps=[2, 3], series=None)
    seen = msgspec.structs.replace(report.findings[0].series, metric="grad_norm")
    for finding, metric in ((root, "loss"), (msgspec.structs.replace(root, series=seen), "grad_norm")):
        one = msgspec.structs.replace(report, findings=[finding], curves=curves)
        assert metric in charts(one)[first_plot(one, charts(one))].metrics
        assert incidents(one) == [(2, 3)]
    assert first_plot(msgspec.structs.replace(report, curves=curves[:1], findings=[]), charts(report)[1:2]) is None


def test_the_row_of_figures() -> None:
    """A run that logged: loss, steps, time; one that ran out of memory: what the patch does, of how much."""
    folder = Path(__file__).parents[2] / "fixtures"
    figures = dict(base.figures(settled(doctor.analyze(folder / "lr_too_high-full-eval")), load("en")))
    assert figures == {"Loss": "2.475 → 0.842", "Steps": "160 / 160", "Time per step": "0.0625 s", "Training time": "11 s"}
    figures = dict(base.figures(settled(doctor.analyze(folder / "gpu_oom_lm_head_logits-qwen2.5-7b")), load("ko")))
    assert figures == {"패치 적용 시 최대 메모리(예상)": "46.1 → 19.0 GiB", "GPU 메모리": "23.6 GiB"}


def test_what_the_buttons_copy() -> None:
    """The issue has verdict, deciding line, versions and diff; the chat text is short and without markup."""
    report = settled(doctor.analyze(Path(__file__).parents[2] / "fixtures" / "gpu_oom_lm_head_logits-qwen2.5-7b"))
    issue, chat = excerpt.issue(report, load("en")), excerpt.chat(report, load("en"))
    for part in ("### The logits do not fit on the GPU", "Tried to allocate 9.28 GiB", "```diff\n", "+per_device_train_batch_size: 2"):
        assert part in issue
    assert issue.count("```") % 2 == 0
    assert chat.startswith("The logits do not fit on the GPU\n")
    for part in (
        "Tried to allocate 9.28 GiB",
        "per_device_train_batch_size: 4 → 2",
        "$ pip install liger-kernel",
        "train train-patched.yaml",
    ):
        assert part in chat
    assert "`" not in chat
    assert chat.count("\n") <= 20


def test_a_hostile_log_is_inert_in_the_issue() -> None:
    """No mention, no HTML, no link comes out of what a log says."""
    issue = excerpt.issue(settled(told("@everyone ![x](http://x) <b>#12 ```")), load("en"))
    assert "````text\n@everyone" in issue
    outside = re.sub(r"````.*?````", "", issue, flags=re.DOTALL)
    assert "everyone" in outside
    assert re.search(r"@everyone|(?<!\\)<b|(?<!\\)\[x|#12", outside) is None
