"""Release numbers of packages, with the standard library alone: the callback reads them inside the training."""

from __future__ import annotations

import re

Version = tuple[int, ...]
"""Release numbers: 4.57.1 is (4, 57, 1)."""


def parse(text: str) -> Version:
    """`0.9.5.dev0` and `v0.9.5` -> (0, 9, 5); parsing stops at the first part that is no number. () without any number."""
    found = re.match(r"v?(\d{1,9}(?:\.\d{1,9})*)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
