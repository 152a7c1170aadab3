"""The HTML report in a real browser: it draws, answers, stays inside its file, and can be used by everybody."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import doctor
from doctor.core.series import Series
from doctor.report.model import Report
from doctor.reporters.json import settled
from doctor.reporters.registry import REPORTERS
from doctor.support.languages import LANGUAGES
from tests.browser.conftest import DRAWN
from tests.expected import fixtures
from tests.reporters import samples
from tests.reporters.test_reporters import told

PAGES = fixtures()
OPENED = PAGES if "LFDOCTOR_BROWSER_ALL" in os.environ else PAGES[::6]
"""Every sixth fixture: all of them, which `make browser` opens, take minutes."""
BATCHES = 8 if "LFDOCTOR_BROWSER_ALL" in os.environ else 2
SERIOUS = ("serious", "critical")
WIDTHS = (1280, 768, 360)
PRINTED_PAGES = 4


def until(tab: Any, expression: str) -> None:
    """Waits until an expression holds; asked from outside, for the page's own policy lets nothing be evaluated inside it."""
    for _ in range(1200):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"never came true: {expression}")


class Opened:
    """A report in a tab: what the console said, what was asked of the network."""

    def __init__(self, tab: Any, target: Path) -> None:
        self.tab = tab
        self.errors: list[str] = []
        self.requests: list[str] = []
        tab.on("console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on("request", lambda asked: self.requests.append(asked.url))
        tab.goto(target.as_uri())
        until(tab, DRAWN)

    def outside(self) -> list[str]:
        """Requests that leave the file; blobs and data are of the page's own making."""
        return [url for url in self.requests[1:] if not url.startswith(("blob:", "data:"))]


@contextmanager
def opened(browser: Any, html: str, folder: Path, **options: Any) -> Iterator[Opened]:
    target = folder / "report.html"
    target.write_text(html, encoding="utf-8")
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], offline=False, **options)
    try:
        yield Opened(context.new_page(), target)
    finally:
        context.close()


def html(report: Report) -> str:
    return REPORTERS["html"](settled(report))


def faults(tab: Any) -> list[str]:
    """What axe-core calls serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed").Axe()
    found = axe.run(tab).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in found if one["impact"] in SERIOUS]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_fixtures_page_opens_cleanly(batch: int, browser: Any, tmp_path: Path) -> None:
    """No error, no request, every plot has its curves, the patched YAML is copied as it is; no serious accessibility fault and nothing
    that is cut off at three widths; four pages of paper.
    """
    for fixture in OPENED[batch::BATCHES]:
        report = doctor.analyze(fixture)
        with opened(browser, html(report), tmp_path) as page:
            assert page.errors == [], fixture.name
            assert page.outside() == [], fixture.name
            plots = page.tab.evaluate(
                "[...document.querySelectorAll('.page:not([hidden]) .canvas')]"
                ".map(one => one.querySelectorAll('.scatterlayer .trace').length)"
            )
            assert all(plots), fixture.name
            assert bool(plots) == any(len(one.at) > 1 for one in report.curves), fixture.name
            if report.patch and report.patch.yaml:
                page.tab.click(".page:not([hidden]) .copy-yaml")
                until(page.tab, "document.getElementById('status').textContent !== ''")
                copied = page.tab.evaluate("navigator.clipboard.readText()")
                assert copied == report.to_dict()["patch"]["yaml"], fixture.name
            for width in WIDTHS:
                page.tab.set_viewport_size({"width": width, "height": 800})
                assert faults(page.tab) == [], (fixture.name, width)
                assert page.tab.evaluate("document.documentElement.scrollWidth") <= width, (fixture.name, width)
            paper = page.tab.pdf(format="A4")
            assert 1 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", paper)) <= PRINTED_PAGES, fixture.name


def range_of(tab: Any, chart: int) -> list[float]:
    got: list[float] = tab.evaluate(
        f"document.querySelectorAll('.page:not([hidden]) .canvas')[{chart}]._fullLayout.xaxis.range.map(Number)"
    )
    return got


def test_plots_answer(browser: Any, tmp_path: Path) -> None:
    """Hovering tells value and step, dragging zooms all plots together, reset undoes it, the axis can be logarithmic or time."""
    with opened(browser, html(doctor.analyze(PAGES[[one.name for one in PAGES].index("lr_too_high-full")])), tmp_path) as page:
        tab = page.tab
        plot = tab.locator(".page:not([hidden]) .canvas").first
        plot.scroll_into_view_if_needed()
        box = plot.locator(".nsewdrag").bounding_box()
        middle = box["y"] + box["height"] / 2
        tab.mouse.move(box["x"] + box["width"] * 0.3, middle)
        tab.mouse.move(box["x"] + box["width"] * 0.31, middle + 5)
        tab.wait_for_selector(".hoverlayer .hovertext")
        before = range_of(tab, 1)
        tab.mouse.move(box["x"] + box["width"] * 0.25, middle)
        tab.mouse.down()
        tab.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=4)
        tab.mouse.up()
        until(tab, f"document.querySelectorAll('.page:not([hidden]) .canvas')[1]._fullLayout.xaxis.range[0] > {before[0] + 5}")
        first, second = range_of(tab, 0), range_of(tab, 1)
        assert first == second
        assert second[1] - second[0] < (before[1] - before[0]) / 2
        tab.click(".page:not([hidden]) button.reset")
        until(tab, f"document.querySelectorAll('.page:not([hidden]) .canvas')[1]._fullLayout.xaxis.range[0] < {before[0] + 1}")
        tab.click(".page:not([hidden]) button.log")
        until(tab, "document.querySelector('.page:not([hidden]) .canvas')._fullLayout.yaxis.type === 'log'")
        tab.click(".page:not([hidden]) [data-over=time]")
        until(tab, "document.querySelector('.page:not([hidden]) .canvas')._fullLayout.xaxis.title.text === 'seconds'")
        assert page.errors == []


def test_language_and_theme_switch(browser: Any, tmp_path: Path) -> None:
    """Each language shows the report as written in it, with its plots; the theme changes the colours; both are free of serious faults."""
    fixture = PAGES[[one.name for one in PAGES].index("lr_too_high-full")]
    with opened(browser, html(doctor.analyze(fixture)), tmp_path, color_scheme="light") as page:
        tab = page.tab
        colours = {}
        for theme in ("auto", "light", "dark"):
            colours[theme] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert theme == "auto" or faults(tab) == [], theme
            tab.click(".page:not([hidden]) button.theme")
        assert colours["auto"] == colours["light"] != colours["dark"]
        for lang in LANGUAGES:
            tab.click(f".page:not([hidden]) [data-lang={lang}]")
            until(tab, DRAWN)
            report = doctor.analyze(fixture, lang=lang)
            assert tab.locator("h1:visible").all_inner_texts() == [report.findings[0].title.replace("`", "")]
            assert tab.evaluate("document.documentElement.lang") == lang
            assert lang == "en" or faults(tab) == [], lang
        assert page.errors == []


def at(tab: Any, place: str) -> float:
    """How far the top of a section is from the top of the window, in pixels."""
    found: float = tab.evaluate(f"document.querySelector('.page:not([hidden]) [data-place={place}]').getBoundingClientRect().top")
    return found


def test_language_theme_and_place_stay(browser: Any, tmp_path: Path) -> None:
    """Another language shows the same place; the address holds language, theme and place, so that a reload, and a copy of the address in
    another browser, show the same; opened without them, the page remembers language and theme.
    """
    report = doctor.analyze(PAGES[[one.name for one in PAGES].index("gpu_oom_activations-forward")])
    with opened(browser, html(report), tmp_path) as page:
        tab = page.tab
        tab.evaluate("document.querySelector('.page:not([hidden]) [data-place=helps1]').scrollIntoView({behavior: 'instant'})")
        before = at(tab, "helps1")
        tab.evaluate("document.querySelector('.page:not([hidden]) [data-lang=ko]').click()")
        assert abs(at(tab, "helps1") - before) <= 2
        for _ in range(2):  # not tab.click(), which scrolls to what it clicks
            tab.evaluate("document.querySelector('.page:not([hidden]) button.theme').click()")
        until(tab, "location.hash === '#helps1-ko&dark'")
        address = tab.url
        tab.reload()
        until(tab, DRAWN)
        assert tab.evaluate("[document.documentElement.lang, document.documentElement.dataset.theme]") == ["ko", "dark"]
        assert abs(at(tab, "helps1") - 60) <= 6
        tab.goto("about:blank")
        tab.goto(address.partition("#")[0])
        assert tab.evaluate("[document.documentElement.lang, document.documentElement.dataset.theme]") == ["ko", "dark"]
        other = browser.new_context()
        fresh = other.new_page()
        fresh.goto(address)
        assert fresh.evaluate("[document.documentElement.lang, document.documentElement.dataset.theme]") == ["ko", "dark"]
        assert abs(at(fresh, "helps1") - 60) <= 6
        other.close()
        assert page.errors == []


def test_the_first_screen_shows_the_curve_with_its_incident(browser: Any, tmp_path: Path) -> None:
    """On 1280 by 800 pixels the curve is in view, with one entry a metric in its legend and the steps of the finding shaded; "Do next"
    begins on that screen and is not in the colour of errors.
    """
    report = doctor.analyze(PAGES[[one.name for one in PAGES].index("lr_too_high-full-eval")])
    with opened(browser, html(report), tmp_path, viewport={"width": 1280, "height": 800}) as page:
        box = page.tab.locator(".page:not([hidden]) .first .canvas").bounding_box()
        assert box["y"] + box["height"] < 800
        shaded = page.tab.evaluate("document.querySelector('.first .canvas')._fullLayout.shapes.map(one => [one.x0, one.x1])")
        assert shaded == [[20, 80]]
        legend = page.tab.evaluate("[...document.querySelectorAll('.page:not([hidden]) .first .legendtext')].map(one => one.textContent)")
        assert sorted(legend) == ["eval_loss", "loss"]
        assert page.tab.locator(".page:not([hidden]) .next").bounding_box()["y"] < 800
        colour = "getComputedStyle(document.querySelector('.page:not([hidden]) .next')).backgroundColor"
        assert page.tab.evaluate(colour) == page.tab.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_buttons_copy_an_issue_and_a_chat_text(browser: Any, tmp_path: Path) -> None:
    """In the language that is shown."""
    report = doctor.analyze(PAGES[[one.name for one in PAGES].index("gpu_oom_activations-forward")])
    with opened(browser, html(report), tmp_path) as page:
        page.tab.click(".page:not([hidden]) [data-lang=ko]")
        title = page.tab.locator("h1:visible").inner_text()
        for kind, start in (("issue", f"### {title}"), ("chat", f"{title}\n")):
            page.tab.click(f".page:not([hidden]) [data-excerpt={kind}]")
            until(page.tab, "document.getElementById('status').textContent !== ''")
            assert page.tab.evaluate("navigator.clipboard.readText()").startswith(start)


def test_the_page_is_usable_from_the_keyboard(browser: Any, tmp_path: Path) -> None:
    """Tab reaches the switches, the copy button and the folded excerpts; Enter works them."""
    report = doctor.analyze(PAGES[[one.name for one in PAGES].index("gpu_oom_activations-forward")])
    with opened(browser, html(report), tmp_path) as page:
        reached = []
        for _ in range(40):
            page.tab.keyboard.press("Tab")
            reached.append(page.tab.evaluate("document.activeElement.className || document.activeElement.tagName"))
        assert {"theme", "copy", "copy-yaml", "download", "SUMMARY"} <= set(reached)
        page.tab.locator(".page:not([hidden]) button.copy").first.focus()
        page.tab.keyboard.press("Enter")
        until(page.tab, "document.getElementById('status').textContent !== ''")
        assert page.tab.evaluate("navigator.clipboard.readText()").startswith("lfdoctor fix ")


def test_the_download_is_the_patched_yaml(browser: Any, tmp_path: Path) -> None:
    """Under the name that the next command expects."""
    report = doctor.analyze(PAGES[[one.name for one in PAGES].index("gpu_oom_activations-forward")])
    with opened(browser, html(report), tmp_path) as page:
        with page.tab.expect_download() as waiting:
            page.tab.click(".page:not([hidden]) .download")
        assert waiting.value.suggested_filename == "train-patched.yaml"
        assert Path(waiting.value.path()).read_text(encoding="utf-8") == report.patch.yaml


HOSTILE = [
    "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>",
    "</script><script>window.hacked=1</script>",
    "</style></pre></details><svg onload=window.hacked=1>",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "\x1b[2J\x1b]0;title\x07 \u202eevil\u2066",
    '" onmouseover="window.hacked=1" x="',
    "javascript:window.hacked=1 <a href='javascript:window.hacked=1'>x</a>",
]


@pytest.mark.parametrize("what", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_inert(what: str, browser: Any, tmp_path: Path) -> None:
    """As evidence, file name, fact, command, diff, problem and metric: nothing runs, nothing is fetched, no control mark is left."""
    report = told(what)
    curve = samples.diverged().curves[0]
    names = [msgspec.structs.replace(curve, metric=name) for name in (what[:200], "loss")]
    report = msgspec.structs.replace(report, curves=names)
    with opened(browser, html(report), tmp_path) as page:
        page.tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert page.tab.evaluate("window.hacked") is None
        assert page.errors == []
        assert page.outside() == []
        text = page.tab.evaluate("document.documentElement.outerHTML")
        assert not any(mark in text for mark in "\x1b\u202e\u2066\x07")
        assert page.tab.evaluate("document.querySelectorAll('svg[onload], img, [onmouseover], a[href^=javascript]').length") == 0
        assert page.tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")


def test_a_hostile_log_is_inert(browser: Any, tmp_path: Path) -> None:
    """Read from a file: a line of a megabyte, escapes, right-to-left marks and tags around a real failure, whose cause is found."""
    run = tmp_path / "run"
    run.mkdir()
    lines = [
        "<script>window.hacked=1</script>\x1b[31m red \u202e kcab",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.25 GiB. <img src=x onerror=window.hacked=1> " + "A" * 1_000_000,
        "</pre><svg onload=window.hacked=1>" + "B" * 1_000_000,
    ]
    (run / "console.log").write_text("\n".join(["***** Running training *****", *lines]) + "\n", encoding="utf-8")
    report = doctor.analyze(run)
    assert report.findings[0].symptom == "out_of_memory"
    page_text = html(report)
    assert len(page_text) < 500_000
    with opened(browser, page_text, tmp_path) as page:
        page.tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert page.tab.evaluate("window.hacked") is None
        assert page.errors == []
        assert not any(mark in page_text for mark in "\x1b\u202e")
        assert page.tab.evaluate("document.querySelectorAll('svg[onload], img').length") == 0


def a_million() -> Report:
    """A run of a million steps: four metrics, a spike, a hole."""
    from doctor.core.run import Run

    run = Run()
    for name in ("loss", "grad_norm"):
        series = run.series[name] = Series()
        for step in range(1_000_000):
            series.append(step, 9.9 if step == 654_321 else float("nan") if step == 777_777 else 1.0 + (step * 7919 % 1000) / 1000)
    run.first_step, run.last_step = 0, 999_999
    from doctor.report.curves import of_run

    return msgspec.structs.replace(samples.diverged(), curves=of_run(run))


def test_a_million_steps_stay_small_and_quick(browser: Any, tmp_path: Path) -> None:
    """At most 8 MB; the spike and the hole are drawn. The page itself says how long it took: see benchmarks/html_report.py."""
    page_text = html(a_million())
    assert len(page_text.encode()) <= 8_000_000
    with opened(browser, page_text, tmp_path) as page:
        drawn = page.tab.evaluate("document.querySelector('.canvas').data.map(one => [...one.x].map((x, place) => [x, one.y[place]]))")
        points = {tuple(point) for trace in drawn for point in trace}
        assert (654_321, 9.9) in points
        assert any(x == 777_777 for x, _ in points)
        assert page.errors == []


def test_a_phone_shows_it_without_sideways_scrolling(browser: Any, tmp_path: Path) -> None:
    """At 360 pixels nothing but tables and code scrolls sideways; Korean too."""
    report = doctor.analyze(PAGES[[one.name for one in PAGES].index("gpu_oom_activations-forward")], lang="ko")
    with opened(browser, html(report), tmp_path, viewport={"width": 360, "height": 740}) as page:
        assert page.tab.evaluate("document.documentElement.scrollWidth") <= 360
        assert faults(page.tab) == []


def test_without_script_everything_but_the_plots_is_there(browser: Any, tmp_path: Path) -> None:
    """Verdict, evidence, steps, diff; and in words what the plots would show."""
    report = doctor.analyze(PAGES[[one.name for one in PAGES].index("lr_too_high-full")])
    target = tmp_path / "report.html"
    target.write_text(html(report), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(target.as_uri())
    text = tab.locator("body").inner_text()
    context.close()
    assert report.findings[0].title in text
    assert "lowest" in text
    assert "learning_rate: 1.0e-05" in text


def test_data_of_the_page_is_the_report(tmp_path: Path) -> None:
    """Needs no browser: the embedded JSON is strict and holds the curves as saved."""
    report = settled(doctor.analyze(PAGES[[one.name for one in PAGES].index("lr_too_high-full")]))
    inside = html(report).partition('id="data">')[2].partition("</script>")[0]
    told_ = json.loads(inside.replace("\\u003c", "<"))
    assert [one["values"] for one in told_["curves"]] == [one.values for one in report.curves]
