"""Korean particles: a text gives both forms, `이(가)`, and the word before decides which one is printed."""

from __future__ import annotations

import re

_PAIRS = {
    "이(가)": ("이", "가"),
    "을(를)": ("을", "를"),
    "은(는)": ("은", "는"),
    "과(와)": ("과", "와"),
    "와(과)": ("과", "와"),
    "(으)로": ("으로", "로"),
    "으로(로)": ("으로", "로"),
    "(이)라": ("이라", "라"),
}
"""Pair -> the form after a final consonant, the form after a vowel."""
_PARTICLE = re.compile(r"(?P<last>[^\s`'\"”’)\]])(?P<close>[`'\"”’)\]]*)(?P<pair>" + "|".join(map(re.escape, _PAIRS)) + ")")
_NO_FINAL, _FINAL, _RIEUL = "", "final", "rieul"
_READ_AS = {
    **dict.fromkeys("036", _FINAL), **dict.fromkeys("178", _RIEUL), **dict.fromkeys("2459%", _NO_FINAL),
    **dict.fromkeys("MN", _FINAL), **dict.fromkeys("LR", _RIEUL), **dict.fromkeys("ABCDEFGHIJKOPQSTUVWXYZ", _NO_FINAL),
}  # fmt: skip
"""How the Korean name of a digit or a capital letter ends (영, 일, 이, ...; 엠, 엔, 엘, 알)."""


def resolve_josa(text: str) -> str:
    """Print each particle pair in the one form that the word before it takes; after a Latin word both forms stay.

    The final consonant of a Hangul syllable is its code point modulo 28 (Unicode standard, chapter 3.12). ㄹ takes `로`, as a vowel does.
    """
    return _PARTICLE.sub(_chosen, text) if "(" in text else text


def _chosen(found: re.Match[str]) -> str:
    ending = _ending(found["last"])
    if ending is None:
        return found[0]
    closed, open_ = _PAIRS[found["pair"]]
    takes_open = ending == _NO_FINAL or (ending == _RIEUL and open_ == "로")
    return f"{found['last']}{found['close']}{open_ if takes_open else closed}"


def _ending(letter: str) -> str | None:
    """How the sound of `letter` ends; None if its reading is not known."""
    if "가" <= letter <= "힣":
        final = (ord(letter) - ord("가")) % 28
        return _NO_FINAL if final == 0 else _RIEUL if final == 8 else _FINAL
    return _READ_AS.get(letter)
