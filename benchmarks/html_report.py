"""Size and loading times of the HTML report of a million steps.

    .venv/bin/python benchmarks/html_report.py [STEPS] [TABS]

Prints medians over TABS fresh tabs of a 1280x800 window: time to the verdict, to the first plot (the tab scrolls to it at once) and to
all plots, the longest unresponsive time, and the delay of a click on "log". For comparison an empty page, a processor four times slower
(a phone), and every metric that a report keeps. Needs Chromium and playwright; otherwise exits with a message.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from doctor.core.run import Run
from doctor.core.series import Series
from doctor.report.curves import METRICS, of_run
from doctor.reporters.json import settled
from doctor.reporters.registry import REPORTERS
from tests.browser.conftest import DRAWN, FLAGS, chromium
from tests.reporters import samples

USUAL = ("loss", "grad_norm", "learning_rate", "throughput")
"""Metrics of an ordinary report."""

OTHERS = tuple(f"group{number % 6}/metric{number}" for number in range(METRICS - len(USUAL)))
"""Names of further metrics."""

CANVAS = "[...document.querySelectorAll('.page:not([hidden]) .canvas')]"
"""JavaScript: the plots of the page shown."""

WATCH = """window.times = {busy: 0};
new PerformanceObserver(seen => seen.getEntries().forEach(entry => { times.busy = Math.max(times.busy, entry.duration); }))
  .observe({type: 'longtask'});
new MutationObserver(() => { if (!times.first && document.querySelector('[data-drawn]')) times.first = performance.now(); })
  .observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ['data-drawn']});
addEventListener('DOMContentLoaded', () => document.querySelector('.page:not([hidden]) .plots')?.scrollIntoView({behavior: 'instant'}));"""
"""JavaScript run before the page: records the longest task and the first plot, in ms."""

CLICK = """new Promise(done => { const begin = performance.now(), plot = document.querySelector('.page:not([hidden]) .canvas');
  document.querySelector('.page:not([hidden]) button.log').click();
  const shown = () => requestAnimationFrame(() => done(performance.now() - begin));
  const look = () => plot._fullLayout.yaxis.type === 'log' ? shown() : setTimeout(look); look(); })"""
"""JavaScript: milliseconds from a click on "log" to the changed plot."""

PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
"""JavaScript: milliseconds to the first contentful paint."""


def page(steps: int, metrics: tuple[str, ...]) -> str:
    """A report with metrics of `steps` steps each."""
    run = Run()
    for name in metrics:
        series = run.series[name] = Series()
        for step in range(steps):
            series.append(step, 1.0 + (step * 7919 % 1000) / 1000)
    run.first_step, run.last_step = 0, steps - 1
    return REPORTERS["html"](settled(msgspec.structs.replace(samples.diverged(), curves=of_run(run))))


def watched(browser: Any, path: Path, slower: int) -> dict[str, float]:
    """Events of a fresh tab, in milliseconds from the start of loading."""
    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    tab.context.new_cdp_session(tab).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    tab.add_init_script(WATCH)
    tab.goto(path.as_uri())
    while not tab.evaluate(DRAWN):
        tab.wait_for_timeout(5)
    drawn = tab.evaluate("new Promise(done => requestAnimationFrame(() => done(performance.now())))")
    times = {"all": drawn, "verdict": tab.evaluate(PAINTED)}
    if tab.evaluate(f"{CANVAS}.length"):
        times |= {"first": tab.evaluate("times.first"), "click": tab.evaluate(CLICK), "busy": tab.evaluate("times.busy")}
    tab.close()
    return times


def line(tabs: list[dict[str, float]]) -> str:
    """The medians as text."""
    middle = {name: statistics.median(tab[name] for tab in tabs) for name in tabs[0]}
    return (
        f"verdict {middle['verdict']:.0f} ms, first plot {middle['first']:.0f} ms, all plots {middle['all']:.0f} ms; "
        f"longest without an answer {middle['busy']:.0f} ms; a click is seen after {middle['click']:.0f} ms"
    )


def main() -> None:
    """Print sizes and medians."""
    steps, tabs = (int(sys.argv[place]) if len(sys.argv) > place else usual for place, usual in ((1, 1_000_000), (2, 5)))
    binary = chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        binary = None
    if binary is None:
        print("no Chromium or no playwright here: nothing measured")
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        empty = Path(folder) / "empty.html"
        empty.write_text("<!doctype html><title>x</title><p>x", encoding="utf-8")
        browser = play.chromium.launch(executable_path=binary, args=FLAGS)
        for metrics in (USUAL, USUAL + OTHERS):
            full = Path(folder) / "report.html"
            full.write_text(page(steps, metrics), encoding="utf-8")
            print(f"{steps} steps of {len(metrics)} metrics: {full.stat().st_size / 1e6:.2f} MB (at most 8)")
            pairs = [(watched(browser, empty, 1), watched(browser, full, 1)) for _ in range(tabs)]
            print(f"  {line([drawn for _, drawn in pairs])} (at most 2000)")
            print(f"  an empty page on this machine: {statistics.median(nothing['all'] for nothing, _ in pairs):.0f} ms")
            print(f"  processor four times slower: {line([watched(browser, full, 4) for _ in range(tabs)])}")
        browser.close()


if __name__ == "__main__":
    main()
