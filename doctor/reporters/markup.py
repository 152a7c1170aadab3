"""Text of logs and reports as Markdown that shows it literally."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SPECIAL = re.compile(r"([\\*_{}\[\]<>|~#$])")


def escaped(text: str) -> str:
    """`text` as Markdown shows it literally: no markup, no mention, no link to an issue; `code` stays code."""
    pieces = " ".join(text.split()).split("`")
    if len(pieces) % 2 == 0:
        pieces = ["'".join(pieces)]
    return "".join(code(piece) if place % 2 else _literal(piece) for place, piece in enumerate(pieces))


def _literal(text: str) -> str:
    text = _SPECIAL.sub(r"\\\1", text.replace("&", "&amp;"))
    return re.sub(r"@(?=\w)", "@<!-- -->", re.sub(r"\\#(?=\d)", "#<!-- -->", text))


def code(text: str) -> str:
    """`text` as a code span, whatever backticks it holds; inside tables a bar is escaped."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    ticks, pad = "`" * (longest + 1), " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}".replace("|", "\\|").replace("\n", " ") if text.strip() else ""


def fenced(text: str, kind: str = "text") -> str:
    """`text` as a code block whose fence is longer than any run of backticks inside."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{kind}\n{text.rstrip()}\n{fence}"


def folded(title: str, blocks: Iterable[str]) -> str:
    """A folded part; nothing if it is empty."""
    inside = "\n\n".join(filter(None, blocks))
    return f"<details><summary>{title}</summary>\n\n{inside}\n\n</details>" if inside else ""
