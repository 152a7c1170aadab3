"""Text that may leave the machine: secrets masked, control characters gone, anything made JSON-able."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

from doctor.privacy import secret_kinds as kinds

MASK = "***"
"""Written in place of every masked value."""

_CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""ANSI sequences, C0 and C1 controls, and bidirectional marks, which can make a text look like another."""


@lru_cache(maxsize=1024)
def clean(text: str) -> str:
    """`text` without control characters (newlines stay, tabs become spaces), valid as UTF-8, its secrets masked."""
    text = _CONTROL.sub("", unescaped(text).replace("\r\n", "\n").replace("\t", "    "))
    return mask(text.encode("utf-8", "replace").decode("utf-8"))


_EAST_ASIAN = re.compile(r"\\u((?:11|3[0-9a-f]|[4-9][0-9a-f]|a[c-f]|[bc][0-9a-f]|d[0-7]|ff)[0-9a-f]{2})", re.IGNORECASE)
"""JSON escapes of Hangul, kana, Chinese characters and full-width signs."""


def unescaped(text: str) -> str:
    """`text` with the JSON escapes of Chinese, Japanese and Korean letters written out: labels are recognised by their words."""
    return _EAST_ASIAN.sub(lambda found: chr(int(found[1], 16)), text) if "\\u" in text else text


_ESCAPED = re.compile(r"(\\[nrt])")
"""Line ends and tabs inside JSON text."""


def mask(text: str) -> str:
    """`text` with tokens, keys, passwords and mail addresses replaced by `***`; the names before them stay."""
    if len(text) < 6:
        return text
    text = kinds.PRIVATE_KEY.sub(rf"\1{MASK}", text) if "-----BEGIN" in text else text
    if "\\" in text and len(pieces := _ESCAPED.split(text)) > 1:
        return "".join(piece if _ESCAPED.fullmatch(piece) else mask(piece) for piece in pieces)
    text = kinds.TOKENS.sub(lambda found: f"{next(filter(None, found.groups()), '')}{MASK}", text)
    for pattern in (*kinds.ARGUMENTS, kinds.BEARER, kinds.USERINFO, kinds.WEBHOOK, kinds.COOKIE, kinds.SIGNED_URL):
        text = pattern.sub(rf"\1{MASK}", text)
    text = kinds.MAIL.sub(MASK, text) if "@" in text else text
    text = kinds.CAMEL_NAMED.sub(_mask_named, kinds.NAMED.sub(_mask_named, text))
    text = kinds.LABELLED.sub(rf"\1{MASK}", kinds.PASSWORD.sub(rf"\1{MASK}", text))
    text = kinds.PREFIXED_HEX.sub(rf"\1{MASK}", kinds.WANDB_HEX.sub(rf"\1{MASK}", text))
    return kinds.RANDOM.sub(_mask_random, _mask_bare_hex(text))


def _mask_bare_hex(text: str) -> str:
    if not kinds.BARE_HEX.search(text):
        return text
    lines = text.split("\n")
    return "\n".join(line if kinds.DIGEST_LINE.search(line) else kinds.BARE_HEX.sub(MASK, line) for line in lines)


def _mask_random(found: re.Match[str]) -> str:
    return MASK if is_random(found[0]) else found[0]


def _mask_named(found: re.Match[str]) -> str:
    """A value after a secret's name. After `token` or a blank it must look like a key (a digit, no dotted words): logs hold many tokens."""
    name, between, value = found["name"].lower(), found["between"], found["value"]
    if MASK in value or re.fullmatch(r"[\d.,]+|true|false|none|null|\$.*", value, re.IGNORECASE):
        return found[0]
    loose = name.endswith("token") or not re.search(r"[:=]", between)
    if loose and (kinds.MODEL_TOKEN.search(name) or not (re.search(r"\d", value) and re.search(r"[A-Za-z]", value))):
        return found[0]
    if loose and len(value) < (8 if len(name) > 5 and name.endswith("token") else 16):
        return found[0]
    return f"{found['name']}{between}{MASK}"


def is_random(text: str) -> bool:
    """Whether a long unbroken piece of mixed case and digits is a key and no name.

    Words, paths, model names and mangled symbols seldom change between capitals, small letters and digits; in random base64 two of
    three neighbours differ in kind. Hexadecimal text is not judged: a digest looks like a key, and logs are full of digests.
    """
    if text.startswith("_Z") or not _mixed(text):
        return False
    piece = max(re.split(r"[-_/+=]", text), key=len)
    whole = piece if len(piece) >= 20 else text if re.search(r"[+/=]", text) is None and text.count("-") + text.count("_") <= 2 else piece
    if len(whole) < 20 or not _mixed(whole):
        return False
    letters = ["d" if letter.isdigit() else "u" if letter.isupper() else "l" for letter in whole]
    changes = sum(left != right for left, right in pairwise(letters))
    return changes >= 0.4 * len(whole) and len(set(whole)) >= 0.4 * min(len(whole), 40)


def _mixed(text: str) -> bool:
    return bool(re.search(r"[a-z]", text) and re.search(r"[A-Z]", text) and len(re.findall(r"\d", text)) >= 2)


def plain(value: Any, name: str = "") -> Any:
    """`value` as JSON can hold it: texts cleaned, keys as text, other types as their text; a value under a secret's name is masked."""
    if isinstance(value, bool | float) or value is None:
        return value
    if isinstance(value, int):
        return _plain_int(value)
    if isinstance(value, str):
        return MASK if value and kinds.OPTION_NAME.search(name) else clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): plain(held, str(key)) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [plain(held, name) for held in value]
    return clean(str(value))


def _plain_int(value: int) -> int | str:
    """Integers beyond 64 bits as text, and beyond 1,000 bits as their size: Python refuses to print 4,300 digits."""
    if -(2**63) <= value < 2**63:
        return value
    return str(value) if value.bit_length() <= 1000 else f"an integer of {value.bit_length()} bits"
