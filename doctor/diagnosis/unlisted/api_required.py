"""The release that a message itself asks for, as a requirement for pip: what a version check wants, what pip's resolver reports."""

from __future__ import annotations

import re

_NAME = r"(?P<package>[A-Za-z][\w.\-]*?(?:\[[\w,]+\])?)"
_BOUNDS = r"(?P<bounds>[<>=!~]=?\s*\d[\w.*]*(?:\s*,\s*[<>=!~]=?\s*\d[\w.*]*)*)"
_REQUIRED = (
    # transformers.utils.versions, which LLaMA-Factory uses too
    re.compile(rf"{_NAME}\s*{_BOUNDS}\s*,? is required for a normal functioning"),
    # pip's resolver: "llamafactory 0.9.3 requires transformers!=4.52.0,<=4.52.4; python_version >= '3.9', but you have transformers 4.57.1"
    re.compile(rf"\brequires {_NAME}\s*{_BOUNDS}(?:;[^\n]{{0,80}}?)?, but you have"),
    # llamafactory model/patcher.py and others: "model requires transformers>=4.47.1, please upgrade it"
    re.compile(r"\brequires (?P<package>transformers|peft|trl|accelerate|datasets|torch|bitsandbytes|vllm)\s*(?P<bounds>>=\s*\d[\d.]*\d)"),
)
_AT_LEAST = (
    # peft/import_utils.py
    re.compile(
        r"Found an incompatible version of (?P<package>[\w\-]+)\. Found version \S+, but only versions above (?P<version>\d[\d.]*\d)"
    ),
    # transformers 4.51 and later: torch.load
    re.compile(r"upgrade (?P<package>torch) to at least v(?P<version>\d[\d.]*\d)"),
)


def required_in(text: str) -> tuple[str, str] | None:
    """(package, requirement): `("transformers", "transformers>=4.49.0,<=4.55.0")`; None where the text asks for no release."""
    for pattern in _REQUIRED:
        if found := pattern.search(text):
            return found["package"], found["package"] + re.sub(r"\s+", "", found["bounds"])
    for pattern in _AT_LEAST:
        if found := pattern.search(text):
            return found["package"], f"{found['package']}>={found['version']}"
    return None
