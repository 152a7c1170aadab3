"""Folders of pages that a script writes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path


def write_or_check(folder: Path, wanted: Mapping[Path, str]) -> int:
    """Write the pages and remove others from the folder, or with --check name those that are not current and return 1 for any."""
    there = set(folder.rglob("*.md"))
    stale = [path for path, text in wanted.items() if path not in there or path.read_text(encoding="utf-8") != text]
    gone = there - set(wanted)
    if "--check" in sys.argv:
        print("\n".join(str(path) for path in [*stale, *gone]))
        return int(bool(stale or gone))
    for path in gone:
        path.unlink()
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8", newline="\n")
    return 0
