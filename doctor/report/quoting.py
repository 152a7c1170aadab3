"""What reports put between their own words: facts filled into a rule's texts, evidence cut to its point."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from doctor.privacy.secrets import clean

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w.]*(?:/\w+)*)(?::([^{}]*))?\}")
_FACT_CHARS = 200
ELLIPSIS = " [...] "


def placeholders(template: str) -> list[str]:
    """The names a text asks for."""
    return [name for name, _ in _PLACEHOLDER.findall(template)]


def fill(template: str, known: Callable[[str], Any]) -> str:
    """`template` with facts put in; `known` gives None for what is not known, which reads as `?`.

    Templates come from rules only; facts are data: nothing inside them is looked at again.
    """
    return _PLACEHOLDER.sub(lambda found: _form(known(found[1]), found[2] or ""), template)


def _form(value: Any, spec: str) -> str:
    """A fact in the words' form: numbers by `spec` (a text that is a number counts as one), everything else as cleaned text."""
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
    """The words that made a rule match `text`: what its patterns found first, then its literals, then the facts taken from it."""
    found = [match[0] for pattern in _texts(params.get("any_of")) if (match := re.search(pattern, text))]
    return [*found[:1], *_texts(params.get("contains")), *(str(fact) for fact in facts.values() if len(str(fact)) > 3)]


def _texts(value: Any) -> Sequence[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []


_PARTICLE = re.compile(r"(?P<last>[^\s`'\"”’)])(?P<close>[`'\"”’)]*)(?P<pair>이\(가\)|을\(를\)|은\(는\)|과\(와\)|\(으\)로|으로\(로\))")
_PAIRS = {
    "이(가)": ("이", "가"),
    "을(를)": ("을", "를"),
    "은(는)": ("은", "는"),
    "과(와)": ("과", "와"),
    "(으)로": ("으로", "로"),
    "으로(로)": ("으로", "로"),
}
_NO_FINAL, _FINAL, _RIEUL = "", "final", "rieul"
_READ_AS = {
    **dict.fromkeys("036", _FINAL), **dict.fromkeys("178", _RIEUL), **dict.fromkeys("2459%", _NO_FINAL),
    **dict.fromkeys("MN", _FINAL), **dict.fromkeys("LR", _RIEUL), **dict.fromkeys("ABCDEFGHIJKOPQSTUVWXYZ", _NO_FINAL),
}  # fmt: skip


def resolve_josa(text: str) -> str:
    """Korean particles given as pairs, `이(가)`, in the one form that the word before takes; after a Latin word both stay.

    The ending of a Hangul syllable is its code point's place modulo 28 (Unicode standard, chapter 3.12); digits and capital letters
    are read by their Korean names.
    """

    def chosen(found: re.Match[str]) -> str:
        ending = _ending(found["last"])
        if ending is None:
            return found[0]
        closed, open_ = _PAIRS[found["pair"]]
        takes_open = ending == _NO_FINAL or (ending == _RIEUL and open_ == "로")
        return f"{found['last']}{found['close']}{open_ if takes_open else closed}"

    return _PARTICLE.sub(chosen, text)


def _ending(letter: str) -> str | None:
    """How the sound of `letter` ends; None where its reading is not known."""
    if "가" <= letter <= "힣":
        final = (ord(letter) - ord("가")) % 28
        return _NO_FINAL if final == 0 else _RIEUL if final == 8 else _FINAL
    return _READ_AS.get(letter)
