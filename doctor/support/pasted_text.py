"""Text that went through a chat, a tracker or an editor, as it was before: quotes, dashes, entities, escapes, prefixes."""

from __future__ import annotations

import html
import re

_SAME = {
    **dict.fromkeys("‘’‚‛′＇´", "'"),
    **dict.fromkeys("“”„‟″＂«»", '"'),
    **dict.fromkeys("‐‑‒–—−", "-"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u202f\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad"),
    "…": "...",
}
"""Characters that editors and chats put in the place of ASCII ones; None: they show nothing. Chinese punctuation is text and stays."""
_TABLE = str.maketrans(_SAME)
_ENTITY = re.compile(r"&(?:lt|gt|amp|quot|nbsp|apos|#39|#x27|#34);")
_ESCAPED = re.compile(r"\\([_*`\[\]<>#~|])")
"""Backslashes that Markdown writers put before marks; of a Windows path none is followed by one of these but `_`, see `restored`."""
_PREFIX = re.compile(
    r"""(?:>\s?)+                                                # a quotation in mail or Markdown
    |\[\d{1,2}:\d\d(?::\d\d)?(?:\s?[AP]M)?\]\s+(?:<?[\w .@-]{1,40}>?:\s+)?  # [10:24 AM] name:
    |\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,}Z\s                     # GitHub Actions, docker logs -t
    """,
    re.X,
)
_QUOTES = str.maketrans({"`": "'", '"': "'"})
_BLANKS = re.compile(r"\s+")
_WINDOWS = re.compile(r"[A-Za-z]:\\")


_BOLD = re.compile(r"\*\*(?=(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Warning|Interrupt|Exit)\b)([^*]+)\*\*")
"""An exception that Markdown shows in bold."""


def restored(line: str) -> str:
    """One line with the characters that it was printed with: ASCII quotes and dashes, no entities, escapes or prefixes of chats."""
    if not line.isascii():
        line = line.translate(_TABLE)
    if "&" in line:
        line = _ENTITY.sub(lambda found: html.unescape(found[0]).replace("\u00a0", " "), line)
    if "\\" in line and not _WINDOWS.search(line):
        line = _ESCAPED.sub(r"\1", line)
    if "**" in line:
        line = _BOLD.sub(r"\1", line)
    if line[:1] in (">", "[") or line[:2] == "20":
        found = _PREFIX.match(line)
        line = line[found.end() :] if found else line
    return line


def comparable(text: str) -> str:
    """`text` in a form in which a pasted copy equals the original: one kind of quotes, single blanks, no marks of Markdown.

    Both sides of a comparison go through it; it is not for showing.
    """
    lines = (restored(line) for line in text.splitlines())
    return _BLANKS.sub(" ", " ".join(lines).translate(_QUOTES)).strip()
