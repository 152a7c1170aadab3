"""Text on a terminal: symbols, wrapping, indents; with or without colour and characters beyond ASCII."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from doctor.reporters.base import Screen
from doctor.support.wrapping import Flowing
from doctor.words.catalogue import Words

_SYMBOLS = {"error": "✗", "warning": "⚠", "note": "-", "fine": "✓", "unknown": "?", "then": "➜", "bar": "│", "dot": " · ", "item": "•"}
_ASCII = {
    "error": "[x]",
    "warning": "[!]",
    "note": "-",
    "fine": "[ok]",
    "unknown": "[?]",
    "then": "->",
    "bar": "|",
    "dot": " - ",
    "item": "*",
}
_ADVICE = {"apply": "✔", "later": "▹", "done": "✓", "not_applicable": "-", "conflict": "⇄", "rejected": "✗", "manual": "✎"}
_ADVICE_ASCII = {"apply": "*", "later": "+", "done": "=", "not_applicable": "-", "conflict": "!", "rejected": "x", "manual": ">"}
COLOURS = {"error": "bright_red", "warning": "yellow", "note": "blue", "fine": "green", "unknown": "magenta"}
"""Colour of a severity or of a verdict."""
ADVICE_COLOURS = {
    "apply": "bold green",
    "later": "green",
    "done": "green",
    "manual": "cyan",
    "conflict": "yellow",
    "rejected": "bright_red",
    "not_applicable": "dim",
}
_TO_ASCII = str.maketrans(
    {"“": '"', "”": '"', "‘": "'", "’": "'", "→": "->", "×": "x", "–": "-", "—": "-", "…": "...", "·": "-", "•": "*", "≥": ">=", "≤": "<="}
)


class Command(Text):
    """One line to be copied: printed whole, however narrow the screen is."""


def to_text(blocks: Sequence[RenderableType], screen: Screen) -> str:
    """Blocks one under the other; ANSI codes only if the screen takes colour; no blanks at line ends; commands are never wrapped."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=screen.width,
        force_terminal=screen.color,
        color_system="standard" if screen.color else None,
        legacy_windows=False,
        highlight=False,
        emoji=False,
        markup=False,
    )
    for block in blocks:
        console.print(block, soft_wrap=isinstance(block, Command))
    return re.sub(r"[ \t]+$", "", out.getvalue(), flags=re.MULTILINE).strip("\n") + "\n"


class Canvas:
    """Pieces of text as one screen shows them, in one language."""

    def __init__(self, screen: Screen, words: Words) -> None:
        self.screen = screen
        self.words = words
        self.symbols = _SYMBOLS if screen.unicode else _ASCII
        self.advice_symbols = _ADVICE if screen.unicode else _ADVICE_ASCII

    def text(self, content: str, style: str = "") -> Text:
        """Text whose `code` stands out; characters beyond ASCII are replaced if the screen cannot show them."""
        content = content if self.screen.unicode else content.translate(_TO_ASCII)
        pieces = content.split("`")
        if len(pieces) % 2 == 0 or not self.screen.color:  # an odd backtick is no code
            return Flowing(content, style)
        return Flowing.assemble(*((piece, "cyan" if place % 2 else "") for place, piece in enumerate(pieces)), style=style)

    def command(self, line: str, by: int = 2) -> Text:
        """A command on one line, indented."""
        return Command.assemble(" " * by, (" ".join(line.split("\n")), "bold"))

    def indented(self, content: RenderableType, by: int = 2) -> Padding:
        """A block, moved to the right."""
        return Padding(content, (0, 0, 0, by))

    def heading(self, name: str, tail: str = "") -> Text:
        """A heading after an empty line, with a dim remark behind it."""
        return Text.assemble(
            "\n", (self.words(name), "bold underline" if self.screen.color else "bold"), (f"  {tail}" if tail else "", "dim")
        )

    def dotted(self, pieces: Sequence[str], style: str = "dim") -> Text:
        """Short pieces on one line."""
        return self.text(self.symbols["dot"].join(piece for piece in pieces if piece), style)

    def marked(self, mark: Text, content: Text) -> Table:
        """A symbol, and text that keeps clear of it on every line."""
        grid = Table.grid()
        grid.add_column(width=mark.cell_len)
        grid.add_column(overflow="fold")
        grid.add_row(mark, content)
        return grid
