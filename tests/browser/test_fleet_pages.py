"""The pages of a scan and of a comparison in a real browser: they sort, filter, link, stay in their file, and can be used by everybody."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from doctor.cli.main import main
from tests.browser.test_page import faults
from tests.expected import fixtures

SOME = ("healthy-sft", "lr_too_high-full", "gpu_oom_activations-forward", "dataset_not_registered-name")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for fixture in (one for one in fixtures() if one.name in SOME):
        shutil.copytree(fixture, tmp_path / "runs" / fixture.name)
    return tmp_path / "runs"


def opened(browser: Any, page: Path, theme: str) -> tuple[Any, list[str]]:
    """A tab with the page, and everything that it complained about or asked the network for."""
    said: list[str] = []
    tab = browser.new_context(color_scheme=theme).new_page()
    tab.on("console", lambda one: said.append(one.text) if one.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda asked: said.append(asked.url) if asked.url != page.as_uri() else None)
    tab.goto(page.as_uri())
    return tab, said


@pytest.mark.parametrize("lang", ["en", "ko", "zh"])
def test_the_page_of_a_scan_sorts_filters_and_links_its_reports(lang: str, runs: Path, browser: Any) -> None:
    """Sorting by a heading, a click on a cause and a word in the filter choose rows; each row's report is there; no serious fault."""
    table = runs.parent / "runs.parquet"
    main(["scan", str(runs), "-o", str(table), "--reports", "markdown", "--lang", lang, "-j", "1", "--fail-on", "never"])
    tab, said = opened(browser, runs.parent / "runs.html", "dark" if lang == "ko" else "light")
    names = "[...document.querySelectorAll('#runs tbody tr')].map(row => row.cells[0].textContent)"
    assert sorted(tab.evaluate(names)) == sorted(SOME)
    tab.click("th[data-key='0'] button")
    assert tab.evaluate(names) == sorted(SOME)
    tab.click("th[data-key='0'] button")
    assert tab.evaluate(names) == sorted(SOME, reverse=True)
    tab.click("[data-find=dataset_not_registered]")
    assert tab.evaluate(names) == ["dataset_not_registered-name"]
    tab.fill("#find", "")
    tab.click("[data-state=sound]")
    assert tab.evaluate(names) == ["healthy-sft"]
    tab.click("[data-state='']")
    for link in tab.evaluate("[...document.querySelectorAll('#runs a')].map(one => decodeURIComponent(new URL(one.href).pathname))"):
        assert Path(link).is_file()
    assert tab.evaluate("document.querySelectorAll('#runs a').length") == len(SOME)
    assert faults(tab) == []
    assert said == []
    tab.context.close()


def test_the_page_of_a_comparison_opens_cleanly(runs: Path, browser: Any) -> None:
    """On a phone too nothing but tables scrolls sideways; light and dark are free of serious faults."""
    page = runs.parent / "compare.html"
    assert main(["compare", *(str(runs / name) for name in SOME[:2]), "--format", "html", "-o", str(page)]) == 0
    for theme in ("light", "dark"):
        tab, said = opened(browser, page, theme)
        assert faults(tab) == []
        tab.set_viewport_size({"width": 360, "height": 740})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        assert said == []
        tab.context.close()
