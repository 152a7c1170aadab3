"""Reports and runs in a notebook: small HTML that cannot run anything, and a table with the promised columns."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

import doctor
from doctor.core.events import Step, Where
from doctor.core.run import Run
from tests.reporters.test_reporters import told

FIXTURES = Path(__file__).parents[2] / "fixtures"


class Tags(HTMLParser):
    """Names of tags and attributes, in the order in which they open; and whether all are closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("br",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", ["lr_too_high-full", "healthy-sft", "config-cutoff-zero"])
def test_a_report_shows_verdict_proof_and_patch(name: str) -> None:
    """As tables, with every tag closed, no script and no style sheet."""
    report = doctor.analyze(FIXTURES / name)
    html = report._repr_html_()
    tags = Tags(html)
    assert tags.open == []
    assert tags.names <= {"div", "b", "br", "table", "tbody", "tr", "td", "th", "pre", "span", "svg", "rect", "polyline"}
    assert ("polyline" in tags.names) == (name != "config-cutoff-zero")
    assert report.findings[0].title.split("`")[0] in html
    assert report.patch is None or report.patch.changes[0].key in html


def test_the_card_shades_the_incident() -> None:
    """Steps 20 to 80 of 4 to 160 on 600 units: from 16/156 to 76/156 of the width; both losses are named."""
    html = doctor.analyze(FIXTURES / "lr_too_high-full-eval")._repr_html_()
    assert '<rect x="61.5" y="0" width="230.8"' in html
    assert "&#9644; eval_loss" in html


@pytest.mark.parametrize(("lang", "said"), [("en", "does not fit"), ("ko", "들어가지 않습니다"), ("zh", "放不下")])
def test_an_estimate_shows_itself(lang: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it fits, in the user's language, and a bar for each part, the largest first and whole."""
    monkeypatch.setenv("LFDOCTOR_LANG", lang)
    peak = doctor.estimate(FIXTURES / "gpu_oom_lm_head_logits-qwen2.5-7b" / "train.yaml", facts={"gpu.total_gib": 23.6})
    html = peak._repr_html_()
    tags = Tags(html)
    assert tags.open == []
    assert tags.names <= {"div", "b", "table", "tr", "td"}
    assert said in html
    assert "46.1 GiB" in html
    assert html.count("width:100%") == 1
    assert html.index("width:100%") < html.index("width:0%" if "width:0%" in html else "</table>")
    assert "<script" not in msgspec.structs.replace(peak, model="<script>")._repr_html_()


def test_hostile_text_stays_text() -> None:
    """Tags of a log are escaped."""
    tags = Tags(told("<script>x</script><img src=x onerror=y>")._repr_html_())
    assert "script" not in tags.names
    assert "img" not in tags.names
    assert tags.attributes <= {"style", "lang", "viewbox", "preserveaspectratio", "points", "fill", "stroke", "stroke-width",
        "vector-effect", "x", "y", "width", "height", "opacity"}  # fmt: skip


def test_a_run_is_a_table_with_the_promised_columns() -> None:
    """Index `step`, float columns by their names, wall time and time per step; a repeated step counts once, by its last attempt."""
    run = Run()
    for attempt, loss in enumerate((2.0, 1.0)):
        for step in range(1, 6):
            metrics = {"loss": loss, "throughput": 100.0, "vram_allocated_gib": 3.5, "<b>odd": 1.0}
            run.apply(Step(where=Where("x"), attempt=attempt, step=step, metrics=metrics, seconds=3.0 * step))
    table = run.frame()
    assert table.index.name == "step"
    assert list(table.index) == [1, 2, 3, 4, 5]
    assert {"loss", "throughput", "vram_allocated_gib", "seconds", "step_seconds"} <= set(table.columns)
    assert set(table.dtypes.astype(str)) == {"float64"}
    assert table["loss"].tolist() == [1.0] * 5
    assert table["step_seconds"].dropna().tolist() == [3.0] * 4
    assert "&lt;b&gt;odd" in run._repr_html_()
