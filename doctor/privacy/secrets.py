"""Text that may leave the machine: secrets masked, control characters gone, anything made JSON-able."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

from doctor.privacy import secret_kinds as kinds
from doctor.privacy.secret_arguments import ARGUMENTS

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


_LETTERS = re.compile(
    r"\\u((?:00[c-f]|0[1-6][0-9a-f]|(?:11|3[0-9a-f]|[4-9][0-9a-f]|a[c-f]|[bc][0-9a-f]|d[0-7]|ff)[0-9a-f])[0-9a-f])", re.IGNORECASE
)
"""JSON escapes of Latin letters with marks, Greek, Cyrillic, Hangul, kana, Chinese characters and full-width signs."""


def unescaped(text: str) -> str:
    """`text` with the JSON escapes of letters written out: labels are recognised by their words."""
    return _LETTERS.sub(lambda found: chr(int(found[1], 16)), text) if "\\u" in text else text


_ESCAPED = re.compile(r"(\\[nrt])")
"""Line ends and tabs inside JSON text."""


def mask(text: str) -> str:
    """`text` with tokens, keys, passwords and mail addresses replaced by `***`; the names before them stay."""
    if len(text) < 6:
        return text
    if "-----BEGIN" in text or "Private-Lines" in text:
        text = kinds.PRIVATE_KEY.sub(lambda found: f"{found[1] or found[2]}{MASK}", text)
    if "\\" in text and len(pieces := _ESCAPED.split(text)) > 1:
        return "".join(piece if _ESCAPED.fullmatch(piece) else mask(piece) for piece in pieces)
    possible = _possible(text)
    text = kinds.TOKENS.sub(lambda found: f"{next(filter(None, found.groups()), '')}{MASK}", text)
    for words, pattern in ARGUMENTS:
        text = pattern.sub(rf"\1{MASK}", text) if any(word in text for word in words) else text
    for pattern in filter(possible, (kinds.BEARER, kinds.USERINFO, kinds.COOKIE, kinds.SIGNED_URL)):
        text = pattern.sub(rf"\1{MASK}", text)
    if possible(kinds.WEBHOOK):
        text = kinds.WEBHOOK.sub(lambda found: f"{found[1] or found[2]}{MASK}", text)
    text = kinds.MAIL.sub(MASK, text) if "@" in text else text
    for pattern in filter(possible, (kinds.NAMED, kinds.CAMEL_NAMED)):
        text = pattern.sub(_mask_named, text)
    text = kinds.LOOSELY_NAMED.sub(_mask_keylike, text)
    text = kinds.FOREIGN_LABEL.sub(rf"\1{MASK}", text)
    text = kinds.PASSWORD.sub(rf"\1{MASK}", text) if possible(kinds.PASSWORD) else text
    text = text if text.isascii() else kinds.LABELLED.sub(rf"\1{MASK}", text)
    text = kinds.PREFIXED_HEX.sub(rf"\1{MASK}", kinds.WANDB_HEX.sub(rf"\1{MASK}", text))
    text = kinds.PREFIXED_RANDOM.sub(_mask_prefixed, text)
    return kinds.RANDOM.sub(_mask_random, _mask_bare_hex(text))


def _possible(text: str) -> Callable[[re.Pattern[str]], bool]:
    """Whether a pattern of `kinds.NEEDED` can match in `text`. Other letters than ASCII may be lower case of ones the words have."""
    lower = text.lower()
    plain = text.isascii()
    return lambda pattern: not plain or any(word in lower for word in kinds.NEEDED[pattern])


def _mask_bare_hex(text: str) -> str:
    if not kinds.BARE_HEX.search(text):
        return text
    lines = text.split("\n")
    return "\n".join(line if kinds.DIGEST_LINE.search(line) else kinds.BARE_HEX.sub(MASK, line) for line in lines)


def _mask_random(found: re.Match[str]) -> str:
    return MASK if is_random(found[0]) else found[0]


def _mask_prefixed(found: re.Match[str]) -> str:
    tail = found[2]
    wordless = _is_unpronounceable(tail) or not re.search(r"[A-Z][a-z]{2}", tail)  # `model_Qwen2VLForCausalLM` has words
    return f"{found[1]}{MASK}" if _mixed(tail, digits=1) and _is_disordered(tail) and wordless else found[0]


def _mask_named(found: re.Match[str]) -> str:
    """A value after a secret's name. After `token` or a blank it must look like a key (a digit, no dotted words): logs hold many tokens."""
    name, between, value = found["name"].lower(), found["between"], found["value"]
    if MASK in value or re.fullmatch(r"[\d.,]+|true|false|none|null|\$.*", value, re.IGNORECASE):
        return found[0]
    loose = name.endswith("token") or not re.search(r"[:=]", between)
    if loose and (kinds.MODEL_TOKEN.search(name) or not (re.search(r"\d", value) and re.search(r"[A-Za-z]", value))):
        return found[0]
    if loose and len(value) < (8 if len(name) > 5 and name.endswith("token") else 16) and not is_keylike(value):
        return found[0]
    return f"{found['name']}{between}{MASK}"


def _mask_keylike(found: re.Match[str]) -> str:
    """The value of something called a key. Without a sign between them, hexadecimal digits on a line about digests are one."""
    before = found.string[max(0, found.start() - 80) : found.end("name")]
    value = found["value"]
    if kinds.NO_SECRET_NAME.search(before[-20 - len(found["name"]) :]) or not is_keylike(value):
        return found[0]
    if not re.search(r"[:=]", found["between"]):
        digest = re.fullmatch(r"[0-9a-f-]+", value) and kinds.DIGEST_LINE.search(before)
        if digest or (len(value) >= 40 and _disorder(value) < 0.3 and not _is_one_piece(value)):  # names of parameters are long
            return found[0]
    return f"{found['name']}{found['between']}{MASK}"


_HEX = re.compile(r"[0-9a-fA-F]{32,}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?::\w{2,64})?")
_NO_WORD = re.compile(r"[BCDFGHJKLMNPQRSTVWXZ]{5}")


def is_keylike(text: str) -> bool:
    """Whether the value of something called a key may be one: hexadecimal digits, a UUID, or letters and digits without order.

    In letters by chance every second neighbour is of the other case, in names of classes every third.
    """
    text = text.rstrip("=")
    if _HEX.fullmatch(text) or _UUID.fullmatch(text):
        return True
    digits = len(re.findall(r"\d", text))
    if digits < 2 and text.isupper():
        return text.isalnum() and bool(_NO_WORD.search(text))
    if digits < 2:
        enough = 0.4 if len(text) < 16 else 0.25
        mixed = len(text) >= 12 and _mixed(text, digits=0)
        return mixed and ((_disorder(text) >= enough and _is_unpronounceable(text)) or (len(text) >= 20 and _disorder(text) >= 0.42))
    if len(text) < 16:
        return _is_short_key(text)
    return not text.isdecimal() and (_disorder(text) >= (0.3 if len(text) < 40 else 0.08) or _is_one_piece(text))


def _is_short_key(text: str) -> bool:
    """Of 12 to 15 letters and digits: capitals with digits in two places, or digits in so many that no word is left between them."""
    places = len(re.findall(r"\d+", text))
    if len(text) >= 12 and text.isupper() and text.isalnum():
        return places >= 2 or bool(_NO_WORD.search(text))
    return len(text) >= 12 and places >= 3 and _disorder(text) >= 0.4


def _is_unpronounceable(text: str) -> bool:
    """Words have a vowel in three letters, letters by chance one in five."""
    letters = [letter for letter in text.lower() if letter.isalpha()]
    return sum(letter in "aeiou" for letter in letters) <= 0.25 * len(letters)


def _is_one_piece(text: str) -> bool:
    """Whether 16 and more of many letters, with digits in two places at least, follow each other without a separator."""
    piece = max(re.split(r"[-_.:/+~%|]", text), key=len)
    places = len(re.findall(r"\d+", piece))
    many = len(piece) >= max(16, 0.6 * len(text)) and len({letter for letter in piece if letter.isalpha()}) >= 8
    return many and (places >= 2 or bool(_NO_WORD.search(piece.upper())))


def _disorder(text: str) -> float:
    """The share of neighbours that differ in kind (capital, small letter, digit) in a text without its separators."""
    kinds_of = ["d" if letter.isdigit() else "u" if letter.isupper() else "l" for letter in text if letter.isalnum()]
    return sum(left != right for left, right in pairwise(kinds_of)) / max(1, len(kinds_of))


def is_random(text: str) -> bool:
    """Whether a long unbroken piece of mixed case and digits is a key and no name.

    Words, paths, model names and mangled symbols seldom change between capitals, small letters and digits; in random base64 two of
    three neighbours differ in kind. Hexadecimal text is not judged: a digest looks like a key, and logs are full of digests.
    """
    if text.startswith("_Z"):
        return False
    text = _UUID.sub("", text)  # of a GPU, a run, a request: nothing to judge without a name or a prefix
    pieces = re.split(r"[-_/+=.]", text)
    piece = max(pieces, key=len)
    if len(pieces) - 1 <= max(2, len(text) // 8) and "/" not in text and "." not in text:
        pieces.append(text)
    return any(len(part) >= 20 and _mixed(part) and _is_disordered(part) for part in pieces) or _is_random_of_one_case(piece)


def _is_disordered(text: str) -> bool:
    plain = re.sub(r"[-_/+=.]", "", text)
    return _disorder(plain) >= 0.4 and len(set(plain)) >= 0.4 * min(len(plain), 40)


def _is_random_of_one_case(piece: str) -> bool:
    """Of capitals (or small letters) and digits alone: 24 and more, of many letters, also of those that hexadecimal digits lack.

    Names of classes are of both cases: `WhisperForConditionalGeneration` changes between them often.
    """
    piece = re.sub(r"^[A-Z]{2,5}(?=[a-z\d]+$)", "", piece)  # a provider's prefix
    if not (piece.islower() or piece.isupper()) or len(re.findall(r"\d", piece)) < 2:
        return False
    letters = {letter for letter in piece.lower() if letter.isalpha()}
    return len(piece) >= 24 and len(letters) >= 10 and len(letters - set("abcdef")) >= 5 and _disorder(piece) >= 0.22


def _mixed(text: str, digits: int = 2) -> bool:
    return bool(re.search(r"[a-z]", text) and re.search(r"[A-Z]", text) and len(re.findall(r"\d", text)) >= digits)


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
