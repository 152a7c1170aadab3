"""The documentation is current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_rule_has_its_current_page():
    """docs/rules/ is what `make docs` would write: no page is missing, stale or left over."""
    done = subprocess.run([sys.executable, "docs/make_rules.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"run `make docs`:\n{done.stdout}{done.stderr}"


def test_the_readme_names_every_command():
    """Each command of the program stands in the README's table."""
    from doctor.cli import app

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
    assert [name for name in names if f"`lfdoctor {name}" not in readme] == []
