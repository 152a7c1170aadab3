"""The documentation is current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("script", ["docs/make_rules.py", "docs/make_options.py"])
def test_generated_pages_are_current(script: str):
    """docs/rules/ and docs/options/ are what `make docs` would write: no page is missing, stale or left over."""
    done = subprocess.run([sys.executable, script, "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"run `make docs`:\n{done.stdout}{done.stderr}"


def test_the_readme_names_every_command():
    """Each command of the program stands in the README's table."""
    from doctor.cli.main import app

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
    assert [name for name in names if f"`lfdoctor {name}" not in readme] == []


def test_the_site_has_every_page_and_picture():
    """Every page of docs/ stands in the site's navigation, every page named there exists, and so does every picture and local link."""
    site = (ROOT / ".mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"[\w/-]+\.md", site.partition("nav:")[2].partition("exclude_docs:")[0])
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert {one for one in named if "/" not in one} == pages
    for page in pages:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([\w./-]+?\.(?:md|jpg|json))\)", text):
            target = ROOT / "docs" / link
            assert target.is_file(), f"{page}: {link}"
            assert target.stat().st_size > 0, f"{page}: {link}"


def test_the_api_page_names_what_exists():
    """Each object that the reference is made of can be imported."""
    import importlib

    for name in re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, last = name.rpartition(".")
            assert getattr(importlib.import_module(module), last).__doc__


def test_the_detector_of_the_documentation_works():
    """Copied as it stands, it finds what it says, also where steps come many at once."""
    from doctor.core.events import Step, Where
    from doctor.detectors.base import Detector
    from doctor.diagnosis.engine import Engine
    from tests.reporters.samples import rule

    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "LowThroughput" in block)
    made: dict[str, type[Detector]] = {}
    exec(code, made)
    engine = Engine([rule("x/slow", "Slow.", "느립니다.", when={"slow": {"below": 10.0}})], {"slow": made["LowThroughput"]})
    engine.feed_all(
        [Step(where=Where("log", step=step), step=step, metrics={"throughput": speed}) for step, speed in ((1, 50.0), (2, 2.0))]
    )
    assert engine.problems == []
    assert [(finding.first.facts, finding.steps) for finding in engine.findings()] == [({"value": 2.0}, (2, 2))]


def test_the_readme_shows_what_make_demo_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Line for line, and the figures of the sentence above it are those of the report; the README stays short."""
    from doctor.cli.main import main

    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    demo = (ROOT / "fixtures" / "DEMO").read_text(encoding="utf-8").strip()
    assert main(["analyze", f"fixtures/{demo}", "--fail-on", "never"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"```text\n(.*?)```", text, re.DOTALL)[1] == printed.rpartition("\n\n")[0] + "\n"  # without the number of rules
    before, after = re.search(r"predicted to\s+need (\d+) GiB.*?to (\d+) GiB", text, re.DOTALL).groups()
    told_before, told_after = re.search(r"([\d.]+) GiB → about ([\d.]+) GiB", printed).groups()
    assert (round(float(told_before)), round(float(told_after))) == (int(before), int(after))
    assert text.count("\n") <= 180


def test_the_readme_counts_the_rules() -> None:
    """What it says of their number is true, and not too modest."""
    from doctor.rulebook.loader import load

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    told = int(re.search(r"Over (\d+) rules", text)[1])
    assert told < len(load().rules) < told + 100
