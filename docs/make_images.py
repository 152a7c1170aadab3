"""Takes the pictures of the HTML report in docs/images: light, dark, phone, Korean, Chinese, the plots, a scan and a comparison.

    .venv/bin/python docs/make_images.py [OUT]

Needs Chromium, playwright, the extra `fleet`, and fonts with Korean and Chinese (Debian: chromium fonts-noto-cjk).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from tests.browser.conftest import DRAWN, FLAGS, chromium  # noqa: E402 (found through the line above)

WIDE, PHONE = {"width": 1200, "height": 860}, {"width": 390, "height": 844}
PAGE = ".page:not([hidden])"
OOM, CURVES = "gpu_oom_lm_head_logits-qwen2.5-7b", "lr_too_high-full-eval"
PICTURES: tuple[tuple[str, str, str, str, dict[str, int], str], ...] = (
    ("report-light", CURVES, "en", "light", WIDE, ""),
    ("report-dark", CURVES, "en", "dark", WIDE, ""),
    ("report-oom", OOM, "en", "light", WIDE, ""),
    ("report-patch", OOM, "en", "light", WIDE, ".patch"),
    ("report-phone", OOM, "en", "light", PHONE, ""),
    ("report-phone-patch", OOM, "en", "light", PHONE, ".patch"),
    ("report-phone-dark", CURVES, "zh", "dark", PHONE, ""),
    ("report-ko", CURVES, "ko", "light", WIDE, ""),
    ("report-zh", OOM, "zh", "light", WIDE, ""),
    ("report-curves", CURVES, "en", "light", WIDE, ".plots"),
    ("report-curves-dark", CURVES, "en", "dark", WIDE, ".plots"),
)
"""Name, fixture, language, theme, window, and what to scroll to."""


def lfdoctor(*words: str, here: Path = ROOT) -> None:
    """The command, as a user types it; findings are no failure here."""
    subprocess.run([sys.executable, "-m", "doctor", *words], cwd=here, check=False, stdout=subprocess.DEVNULL)


def shot(browser: Any, html: Path, picture: Path, theme: str, window: dict[str, int], target: str) -> None:
    """A picture of what a window shows of a page, from `target` on."""
    tab = browser.new_page(viewport=window, color_scheme=theme, device_scale_factor=1.25)
    tab.goto(html.as_uri())
    while not tab.evaluate(DRAWN):
        tab.wait_for_timeout(50)
    if target:
        tab.evaluate(f"document.querySelector('{PAGE} {target}, section:has({target})').scrollIntoView({{behavior: 'instant'}})")
        tab.wait_for_timeout(300)
    tab.screenshot(path=str(picture))
    tab.close()


def fleet(folder: Path) -> tuple[Path, Path]:
    """The page of a scan of a sweep, and of a comparison of two of its runs."""
    from fleet_scan import generate

    generate(folder / "runs", 110)
    for file in (folder / "runs").rglob("*"):  # as if they had run in the course of two weeks
        day = int(file.relative_to(folder / "runs").parts[:2][-1].rpartition("-")[2] or 0) if file.is_file() else 0
        os.utime(file, (1.76e9 + day * 11_000, 1.76e9 + day * 11_000))
    lfdoctor("scan", "runs", "-o", "runs.parquet", "--reports", "html", "--fail-on", "never", here=folder)
    pair = [f"fixtures/{name}" for name in ("lr_too_high-full", "healthy-full")]
    lfdoctor("compare", *pair, "--format", "html", "-o", str(folder / "compare.html"))
    return folder / "runs.html", folder / "compare.html"


def main() -> None:
    """Takes all pictures."""
    from playwright.sync_api import sync_playwright

    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as play:
        work = Path(temporary)
        browser = play.chromium.launch(executable_path=chromium(), args=FLAGS)
        for name, fixture, lang, theme, window, target in PICTURES:
            html = work / f"{fixture}-{lang}.html"
            if not html.exists():
                lfdoctor("analyze", f"fixtures/{fixture}", "--format", "html", "-o", str(html), "--lang", lang)
            shot(browser, html, out / f"{name}.png", theme, window, target)
        scanned, compared = fleet(work)
        for name, html, theme, target in (
            ("scan-light", scanned, "light", ""),
            ("scan-runs-dark", scanned, "dark", "#timeline"),
            ("compare-light", compared, "light", ""),
        ):
            shot(browser, html, out / f"{name}.png", theme, WIDE, target)
        browser.close()


if __name__ == "__main__":
    main()
