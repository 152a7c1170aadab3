"""What a command installs or removes, as changes that a program can read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

_PIP = re.compile(r"\bpip3? (?P<verb>install|uninstall) (?P<words>[^;&|]+)")
_PACKAGE = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)(?:\[[\w,.-]*\])?(?P<release>(?:[<>=!~]=?.*)?)")
_NEWEST = ("-U", "--upgrade")
_WITH_VALUE = ("-e", "-r", "-c", "-i", "-f", "--editable", "--requirement", "--index-url", "--extra-index-url", "--find-links")
"""Options of pip whose next word is no package."""


def package_changes(command: str | None, facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str | None, str | None]]:
    """(op, package, installed release, asked releases) for each package that `pip` is told to install or remove; op is set or unset.

    Asked releases are a specifier (`>=4.38`), `newest` with pip's --upgrade, `any` without a word on it, None where a package is removed.
    Folders and files are left out. `facts` tell what is installed (`versions.transformers`).
    """
    for found in _PIP.finditer(command or ""):
        try:
            words = shlex.split(found["words"])
        except ValueError:
            continue
        usual = "newest" if any(word in _NEWEST for word in words) else "any"
        for before, word in zip(["", *words], words, strict=False):
            package = _PACKAGE.fullmatch(word) if before not in _WITH_VALUE else None
            if package is None or "/" in word:
                continue
            installed = facts.get(f"versions.{package['name']}")
            asked = (package["release"] or usual) if found["verb"] == "install" else None
            yield "unset" if asked is None else "set", package["name"], str(installed) if installed else None, asked
