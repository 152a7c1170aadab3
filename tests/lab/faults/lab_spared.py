"""Where a fault does not strike, because what it stands for is not so: few enough samples, or the option that cures it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any


def told() -> str:
    """The config's text, its overrides and the variables, one a line; empty without a config."""
    config = next((Path(word) for word in sys.orig_argv if word.endswith(".yaml")), None)
    if config is None or not config.is_file():
        return ""
    variables = (f"{name}={value}" for name, value in os.environ.items() if not name.startswith("LFDOCTOR"))
    return "\n".join([config.read_text(encoding="utf-8", errors="replace"), *sys.orig_argv, *variables])


def spared(fault: dict[str, Any], args: tuple[Any, ...]) -> bool:
    """Whether what the fault stands for is not so here: few enough samples, or the option that cures it."""
    cured = bool(fault.get("unless")) and bool(re.search(fault["unless"], told()))
    return cured or ("rows" in fault and bool(args) and hasattr(args[0], "shape") and args[0].shape[0] <= fault["rows"])
