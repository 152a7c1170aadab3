"""Lines of IPython's tracebacks (Jupyter, Colab, Kaggle), whose format differs from Python's: frames, and their current lines."""

from __future__ import annotations

import re

from doctor.core.events import Frame

ARROW = "--> "
"""Precedes the current line of a frame; in an excerpt without header it is what identifies the format."""
_NAME = r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*"
HEADER_NAME = re.compile(rf"\s*{_NAME}\s{{2,}}$")
"""Text before `Traceback (most recent call last)`: the exception's name, and blanks up to the right margin."""
_FRAMES = tuple(
    re.compile(pattern)
    for pattern in (
        # IPython 8: File /a/b.py:2113, in Trainer.evaluate(self, ...); a pasted one can have the path as a link
        r"File \[?(?P<file>[^\s,\]][^,\]]{0,500}?):(?P<line>\d{1,9})(?:\]\([^)]{0,2000}\))?(?:, in (?P<function>.{1,300}))?$",
        # IPython 8: Cell In[21], line 2 · Input In [5], in <cell line: 1>()
        r"(?P<file>(?:Cell|Input) In ?\[\d+\]), (?:line (?P<line>\d{1,9})(?:, in (?P<function>.{1,300}))?|in <cell line: \d+>.*)$",
        # IPython 7: /a/b.py in evaluate(self, ...) · <ipython-input-3-aa> in <module>
        r"(?P<file>[/~<][^\s,]{1,500}|[A-Za-z]:\\[^,]{1,500}?) in (?P<function><module>\S*|<cell line: \d+>\S*|[A-Za-z_]\w*\(.{0,300})$",
    )
)
_RUNNING = re.compile(r"-{1,6}> \[?(?P<line>\d{1,9})(?:\]\([^)]{0,2000}\))?\s?(?P<code>.*)$")
_AROUND = re.compile(r"\s{0,8}(?:\[?\d{1,9}\b|\(\.\.\.\))|-{20,}$")


def frame(text: str) -> Frame | None:
    """The frame that this line begins: function without class and arguments, line 0 if not printed."""
    found = next((match for pattern in _FRAMES if (match := pattern.match(text))), None)
    if found is None:
        return None
    parts = found.groupdict()
    function = (parts.get("function") or "<module>").partition("(")[0].rpartition(".")[2]
    return Frame(parts["file"], int(parts.get("line") or 0), function.strip() or "<module>")


def running(text: str) -> tuple[int, str] | None:
    """Number and code of the line that an arrow marks."""
    found = _RUNNING.match(text)
    return (int(found["line"]), found["code"].strip()[:500]) if found else None


def is_context_line(text: str) -> bool:
    """Whether this is one of the numbered lines around the marked one."""
    return not text.strip() or _AROUND.match(text) is not None
