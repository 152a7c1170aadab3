"""Versions of the installed packages: the only parser, and the versions that a run reports."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Version = tuple[int, ...]
"""Release numbers: 4.57.1 is (4, 57, 1)."""

NEWEST: dict[str, Version] = {"llamafactory": (0, 9, 5), "transformers": (5, 6, 0)}
"""The versions that rules/options.yaml was last generated from; assumed for a run that reports none."""


def parse(text: str) -> Version:
    """`0.9.5.dev0` and `v0.9.5` -> (0, 9, 5); parsing stops at the first part that is no number. () without any number."""
    found = re.match(r"v?(\d{1,9}(?:\.\d{1,9})*)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def reported(facts: Mapping[str, Any], package: str) -> Version:
    """The version in the fact `versions.<package>`; () if the run does not report it."""
    return parse(str(facts.get(f"versions.{package}") or ""))


def versions_of(facts: Mapping[str, Any]) -> dict[str, Version]:
    """LLaMA-Factory's and transformers' versions: reported, else NEWEST.

    An older LLaMA-Factory without a reported transformers gets the newest transformers it allows (its setup.py).
    """
    known = {name: reported(facts, name) for name in NEWEST}
    if known["llamafactory"] and not known["transformers"] and known["llamafactory"] < NEWEST["llamafactory"]:
        known["transformers"] = (4, 40) if known["llamafactory"] < (0, 9) else (4, 57)
    return {name: version or NEWEST[name] for name, version in known.items()}
