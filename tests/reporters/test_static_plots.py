"""The HTML report's plots without plotly."""

from __future__ import annotations

import msgspec
import pytest

from doctor.report.curves import Curve
from doctor.report.line_plot import Plot
from doctor.report.model import Report
from doctor.reporters.html import document
from doctor.reporters.html.charts import Chart
from doctor.reporters.html.static_plots import plot
from doctor.support import optional
from tests.reporters.samples import diverged

LOSS = Chart("chart_loss", ["loss", "eval_loss"])


def with_curves(*curves: Curve) -> Report:
    return msgspec.structs.replace(diverged(), curves=list(curves))


def test_curves_share_their_axes_and_break_where_a_value_is_not_finite() -> None:
    """Worked by hand for 600 by 180 units: steps 0 to 4, losses 1 to 3; the higher a value, the smaller its y."""
    report = with_curves(
        Curve("loss", 0, "steps", [0, 1, 2, 3], [3.0, 2.0, None, 1.0]),
        Curve("eval_loss", 0, "steps", [4], [2.5]),
        Curve("grad_norm", 0, "steps", [0, 100], [0.0, 50.0]),
    )
    assert plot(report, LOSS) == Plot(
        [("#3b76c4", "0.0,0.0 150.0,90.0"), ("#3b76c4", "450.0,180.0"), ("#d1701d", "600.0,45.0")],
        "1",
        "3",
        0,
        4,
        names=[("#3b76c4", "loss"), ("#d1701d", "eval_loss")],
    )


@pytest.mark.parametrize(
    ("steps", "band"),
    [([100, 300], ("60.0", "120.0")), ([420, 420], ("249.0", "6.0")), ([900, 2000], ("540.0", "60.0")), ([1001, 1001], None)],
)
def test_the_incident_is_shaded_where_it_was(steps: list[int], band: tuple[str, str] | None) -> None:
    """Steps 0 to 1000 on 600 units: 0.6 a step; a single step is 6 units wide around its place, what lies behind the axis is not drawn."""
    report = with_curves(Curve("loss", 0, "steps", [0, 1000], [3.0, 2.0]))
    finding = msgspec.structs.replace(report.findings[0], role="root", steps=steps)
    drawn = plot(msgspec.structs.replace(report, findings=[finding]), LOSS)
    assert drawn is not None
    assert drawn.bands == ([band] if band else [])


def test_a_constant_curve_stands_in_the_middle() -> None:
    """No division by the empty span of its axis."""
    assert plot(with_curves(Curve("loss", 0, "steps", [0, 2], [7.0, 7.0])), LOSS) == Plot(
        [("#3b76c4", "0.0,90.0 600.0,90.0")], "7", "7", 0, 2
    )


def test_nothing_finite_is_no_plot() -> None:
    """The chart's title and its sentence stay, without axes."""
    assert plot(with_curves(Curve("loss", 0, "steps", [0, 1], [None, None])), LOSS) is None


def test_a_page_without_plotly_has_pictures_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """No canvas waits for a script, and the script is told that there is nothing to draw."""
    monkeypatch.setattr(document, "package_folder", lambda *_names: None)
    document._plotly.cache_clear()
    try:
        page = document.render(with_curves(Curve("loss", 0, "steps", [0, 1, 2], [3.0, 2.0, 1.0])))
    finally:
        document._plotly.cache_clear()
    assert page.count("<polyline") >= 1
    assert optional.pip_install("html").replace("'", "&#39;") in page
    assert 'class="canvas"' not in page
    assert '"plots": false' in page
