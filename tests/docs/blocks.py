"""The code blocks of the documentation: what language they are in, and why one is not run.

A block that needs what a test has not (network, a card, a cluster, a training) stands under a comment that readers do not see:

    <!-- not run: network: installs packages -->

The word before the second colon is one of `REASONS`; what follows says what of the block needs it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
"""Those in English; test_translations.py holds the others to the same blocks."""
REASONS = {"network", "GPU", "cluster", "LLaMA-Factory", "lab"}
LANGUAGES = {"sh", "python", "yaml", "json", "text", "mermaid"}
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]*) -->\n)?(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A fenced block: its page, number and language, its text without the list's indentation, and why it is not run."""

    page: Path
    number: int
    language: str
    text: str
    why: str | None

    @property
    def name(self) -> str:
        """Which one it is, for the name of a test."""
        return f"{self.page.relative_to(ROOT)}-{self.number}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = _FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(page, number, one["language"], _flush(one["text"], one["indent"]), one["why"]) for number, one in enumerate(found)]


def _flush(text: str, indent: str) -> str:
    return re.sub(f"^{indent}", "", text, flags=re.MULTILINE)


def without_blocks(page: Path) -> str:
    """The running text of a page."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


ALL = [block for page in PAGES for block in blocks(page)]
