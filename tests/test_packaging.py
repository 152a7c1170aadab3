"""What is shipped, and what starting it costs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "sklearn", "plotly", "pandas", "numpy", "tensorboard", "pynvml")


def test_the_wheel_is_pure_and_carries_every_rule_and_word(tmp_path):
    """A wheel built from this tree installs anywhere and holds all data files that the program reads."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("lfdoctor-*-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    rules = {f"doctor/rules/{path.relative_to(ROOT / 'rules').as_posix()}" for path in (ROOT / "rules").rglob("*.yaml")}
    words = {path.relative_to(ROOT).as_posix() for path in (ROOT / "doctor" / "words").glob("*.yaml")}
    assert rules
    assert words
    page = {f"doctor/reporters/html/{name}" for name in ("page.html", "page.js", "style.css")}
    assert rules | words | page | {"doctor/py.typed"} <= names
    assert not any(name.startswith(("tests/", "fixtures/")) for name in names)


def test_analyzing_a_plain_run_imports_nothing_heavy():
    """`lfdoctor analyze` of a fixture leaves torch, transformers, scikit-learn, plotly and the table libraries alone."""
    fixture = (ROOT / "fixtures" / "DEMO").read_text(encoding="utf-8").strip()
    code = (
        "import sys; from doctor.cli.main import main\n"
        f"try: main(['analyze', {str(ROOT / 'fixtures' / fixture)!r}, '--format', 'json'])\n"
        f"except SystemExit: pass\nprint(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("{")
    assert done.stderr.strip().splitlines()[-1] == "[]"
