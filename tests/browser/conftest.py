"""A browser for the tests of the HTML report: the system's Chromium, driven by playwright. Without one they are skipped, and say so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
DRAWN = "[...document.querySelectorAll('.page:not([hidden]) .canvas')].every(one => one.dataset.drawn)"
"""Whether every plot of the page that is shown is there."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str | None:
    """Where the system's Chromium is: $LFDOCTOR_CHROMIUM, else the first that is found."""
    return os.environ.get("LFDOCTOR_CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser a test process, with a profile of its own that is thrown away."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium here: the HTML report is not opened (Debian: apt-get install chromium; or set LFDOCTOR_CHROMIUM)")
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    with sync.sync_playwright() as play:
        shown = play.chromium.launch(executable_path=path, args=FLAGS)
        yield shown
        shown.close()
