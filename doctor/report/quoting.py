"""What a report quotes: facts filled into a rule's texts, evidence cut around the words that decided."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from doctor.core.events import Where
from doctor.privacy.personal import private
from doctor.privacy.secrets import clean
from doctor.rulebook.findings import Finding

EVIDENCE_CHARS = 480
"""A quote is cut to this many characters around its deciding words: six lines of a terminal."""

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w.]*(?:/\w+)*)(?::([^{}]*))?\}")
_FACT_CHARS = 200
"""A fact that is longer is cut inside a sentence."""
ELLIPSIS = " [...] "
_SHORT_WORD = 12
"""A deciding word shorter than this (a number, a name) is marked together with its sentence."""
_MARK_CHARS = 200
"""A longer sentence is not marked as a whole."""


class Quote(msgspec.Struct, frozen=True):
    """A piece of evidence as a report shows it: masked, cut, and the part of it that decided."""

    where: Where
    text: str
    mark: str | None


def quotes(finding: Finding) -> list[Quote]:
    """A finding's evidence, each piece cut around the words that made the rule match."""
    out = []
    for piece in finding.evidence:
        deciding = deciding_words(finding.rule.params, finding.first.facts, piece.text)
        text = private(excerpt(piece.text, deciding, EVIDENCE_CHARS))
        out.append(Quote(piece.where, text, _mark(text, deciding)))
    return out


def _mark(text: str, deciding: Sequence[str]) -> str | None:
    """The part of a quote that decided: a phrase as it stands, a lone number or name with its sentence."""
    word = next((word for word in map(clean, deciding) if word and word in text), None)
    if word is None or len(word) >= _SHORT_WORD:
        return word
    place = text.find(word)
    start = text.rfind("\n", 0, place) + 1
    ends = [end for stop in (". ", "\n", " (") if (end := text.find(stop, place)) >= 0]
    sentence = text[start : min([*ends, len(text)])]
    return sentence if len(sentence) <= _MARK_CHARS else word


def placeholders(template: str) -> list[str]:
    """The names a text asks for."""
    return [name for name, _ in _PLACEHOLDER.findall(template)]


def fill(template: str, known: Callable[[str], Any]) -> str:
    """`template` with its facts; `known` returns None for an unknown one, which reads as `?`.

    Templates come from rules only. Facts are data: placeholders inside them are not filled.
    """
    return _PLACEHOLDER.sub(lambda found: _form(known(found[1]), found[2] or ""), template)


def _form(value: Any, spec: str) -> str:
    """A fact as the text wants it: numbers by `spec` (also a text that is a number), everything else as cleaned text."""
    if value is None:
        return "?"
    if spec:
        try:
            return format(float(value) if isinstance(value, str) and spec[-1:] in "efgEFG%" else value, spec)
        except (ValueError, TypeError):
            pass
    text = f"{value:.6g}" if isinstance(value, float) else ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = " ".join(clean(text[: 4 * _FACT_CHARS]).split())
    return text if len(text) <= _FACT_CHARS else f"{text[: _FACT_CHARS - 3]}..."


def excerpt(text: str, deciding: Iterable[str], limit: int) -> str:
    """At most about `limit` characters of `text`, cleaned, around the first of the `deciding` words that stands in it."""
    text = "\n".join(line.rstrip() for line in clean(text).strip("\n").split("\n") if line.strip())
    if len(text) <= limit:
        return text
    places = [place for word in deciding if word and (place := text.find(word)) >= 0]
    middle = min(places, default=0)
    start = max(0, min(middle - limit // 4, len(text) - limit))
    stop = min(len(text), start + limit)
    start, stop = _word_edge(text, start, -1), _word_edge(text, stop, 1)
    return f"{ELLIPSIS.lstrip() if start else ''}{text[start:stop].strip()}{ELLIPSIS.rstrip() if stop < len(text) else ''}"


def _word_edge(text: str, place: int, direction: int) -> int:
    """The nearest blank from `place` on in `direction`, not more than 24 characters away."""
    if place in (0, len(text)):
        return place
    for distance in range(24):
        at = place + direction * distance
        if not 0 < at < len(text):
            return max(0, min(at, len(text)))
        if text[at].isspace():
            return at
    return place


def deciding_words(params: Mapping[str, Any], facts: Mapping[str, Any], text: str) -> list[str]:
    """The words that made a rule match `text`: what its patterns found, then its literals, then the facts taken from it."""
    found = [match[0] for pattern in _texts(params.get("any_of")) if (match := re.search(pattern, text))]
    return [*found[:1], *_texts(params.get("contains")), *(str(fact) for fact in facts.values() if len(str(fact)) > 3)]


def _texts(value: Any) -> Sequence[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []
