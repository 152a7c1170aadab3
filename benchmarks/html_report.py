"""The HTML report of a million steps: its size, and how long a browser takes until every plot is drawn, beside an empty page's time.

    .venv/bin/python benchmarks/html_report.py [STEPS] [TABS]

Needs Chromium and playwright; says so and ends where they are not. Prints medians over TABS fresh tabs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from doctor.curves import of_run
from doctor.reporters import REPORTERS
from doctor.reporters.json import settled
from doctor.run import Run, Series
from tests.browser.conftest import FLAGS, chromium
from tests.reporters import samples

METRICS = ("loss", "grad_norm", "learning_rate", "throughput")
DRAWN = "[...document.querySelectorAll('.page:not([hidden]) .canvas')].every(one => one.dataset.drawn)"


def page(steps: int) -> str:
    """A report with four metrics of `steps` steps each."""
    run = Run()
    for name in METRICS:
        series = run.series[name] = Series()
        for step in range(steps):
            series.append(step, 1.0 + (step * 7919 % 1000) / 1000)
    run.first_step, run.last_step = 0, steps - 1
    return REPORTERS["html"](settled(msgspec.structs.replace(samples.diverged(), curves=of_run(run))))


def milliseconds(browser: Any, path: Path) -> float:
    """From the start of loading until all plots are drawn and a frame has been shown."""
    tab = browser.new_page()
    tab.goto(path.as_uri())
    while not tab.evaluate(DRAWN):
        tab.wait_for_timeout(5)
    told: float = tab.evaluate("new Promise(done => requestAnimationFrame(() => done(performance.now())))")
    tab.close()
    return told


def main() -> None:
    """Prints sizes and medians."""
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
        empty, full = Path(folder) / "empty.html", Path(folder) / "report.html"
        empty.write_text("<!doctype html><title>x</title><p>x", encoding="utf-8")
        full.write_text(page(steps), encoding="utf-8")
        browser = play.chromium.launch(executable_path=binary, args=FLAGS)
        pairs = [(milliseconds(browser, empty), milliseconds(browser, full)) for _ in range(tabs)]
        browser.close()
        print(f"{steps} steps of {len(METRICS)} metrics: {full.stat().st_size / 1e6:.2f} MB (at most 8)")
        nothing, drawn = (sorted(some) for some in zip(*pairs, strict=True))
        print(f"all plots drawn after {statistics.median(drawn):.0f} ms (at most 2000), fastest {drawn[0]:.0f}")
        print(f"an empty page on this machine: {statistics.median(nothing):.0f} ms")


if __name__ == "__main__":
    main()
