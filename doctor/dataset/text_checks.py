"""Damage inside the texts of a sample: encoding, control characters, markup, special tokens, secrets, places left unfilled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from doctor.dataset.convert import Sample
from doctor.privacy import secret_kinds

_CONTINUED = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0xC0)) + "".join(
    map(chr, range(0x80, 0xA0))
)
_TWICE = re.compile(
    f"[ÂÃâ][{re.escape(_CONTINUED)}]{{1,2}}|[\u00e0-\u00ef][{re.escape(_CONTINUED)}]{{2}}|\u00f0[{re.escape(_CONTINUED)}]{{3}}"
)
"""UTF-8 read as Windows-1252 or Latin-1: a lead byte, then continuation bytes."""
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
"""C0 without tab, line ends, vertical tab and form feed, which texts out of documents hold."""
_MARKUP = re.compile(
    r"</?(?:p|div|span|br|hr|table|tr|td|th|ul|ol|li|h[1-6]|a|img|script|style|body|html|font)(?:\s[^<>]*)?/?>", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:nbsp|amp|lt|gt|quot|#\d{2,5}|#x[0-9a-fA-F]{2,4});")
_UNFILLED = re.compile(r"\{\{ ?(?:name|author|company|model_name|bot_name|[A-Z_]{3,20}) ?\}\}")
_TOKEN_LIKE = b"w" * 20
"""Every token of secret_kinds is at least this long: texts without one are not searched further."""


def _kinds_of_bytes() -> bytes:
    """For bytes.translate: `w` for what tokens are made of, `c` for control characters, a space for the rest."""
    kinds = bytearray(b" " * 256)
    for byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.":
        kinds[byte] = ord("w")
    for byte in (*range(9), *range(0x0E, 0x20), 0x7F):
        kinds[byte] = ord("c")
    return bytes(kinds)


_KINDS = _kinds_of_bytes()
"""Two regular expressions took four fifths of the time of a sound text; a table and two searches for bytes take a seventh of theirs."""


def text_problems(sample: Sample, special: re.Pattern[str] | None) -> Iterator[tuple[str, str]]:
    """(kind, detail) of each kind of damage in the sample's texts, each kind once. `special`: the template's special tokens."""
    found: dict[str, str] = {}
    for text in sample_texts(sample):
        for kind, detail in _problems(text, special):
            found.setdefault(kind, detail)
    yield from found.items()


def sample_texts(sample: Sample) -> list[str]:
    """System prompt and contents, where they are texts."""
    parts = [sample.system, *[turn.content for turn in sample.prompt], *[turn.content for turn in sample.response]]
    return [part for part in parts if part and isinstance(part, str)]


def sound(sample: Sample, special: re.Pattern[str] | None) -> bool:
    """Whether nothing in the texts can be a problem or a placeholder: what `_problems` looks at first, for all texts at once."""
    text = "\n".join(sample_texts(sample))
    data = text.encode("utf-8", "surrogatepass")
    kinds = data.translate(_KINDS)
    odd = b"c" in kinds or _TOKEN_LIKE in kinds or b"\xc3" in data or b"\xef\xbf\xbd" in data
    marked = "<" in text or "&" in text or "{{" in text or "-----BEGIN" in text
    return not (odd or marked or (special is not None and special.search(text)))


def _problems(text: str, special: re.Pattern[str] | None) -> Iterator[tuple[str, str]]:
    data = text.encode("utf-8", "surrogatepass")
    kinds = data.translate(_KINDS)
    # 0xc3 begins the characters from À to ÿ, with which what _TWICE finds begins
    if (b"\xc3" in data or b"\xef\xbf\xbd" in data) and (broken := mojibake(text)):
        yield "mojibake", broken
    if b"c" in kinds and (found := _CONTROL.search(text)):
        yield "control_chars", f"U+{ord(found[0]):04X}"
    if "<" in text and (found := _MARKUP.search(text)):
        yield "html", found[0][:40]
    elif "&" in text and (found := _ENTITY.search(text)):
        yield "html", found[0]
    if "{{" in text and (found := _UNFILLED.search(text)):
        yield "unfilled", found[0]
    if special is not None and (found := special.search(text)):
        yield "special_tokens", found[0]
    if (_TOKEN_LIKE in kinds or "-----BEGIN" in text) and (secret := _secret(text)):
        yield "secret", secret


def mojibake(text: str) -> str:
    """A piece of the text that was decoded with the wrong encoding, or "" if there is none."""
    if "\ufffd" in text:
        return "\ufffd"
    for found in _TWICE.finditer(text):
        piece = found[0]
        for length in range(len(piece), 1, -1):
            if _repairable(piece[:length]):
                return piece[:length]
    return ""


def _repairable(piece: str) -> bool:
    """Whether the piece becomes one character when its bytes are read as UTF-8."""
    try:
        data = b"".join(_byte(letter) for letter in piece)
        return len(data.decode("utf-8")) == 1
    except UnicodeError:
        return False


def _byte(letter: str) -> bytes:
    return bytes([ord(letter)]) if ord(letter) < 256 else letter.encode("cp1252")


def _secret(text: str) -> str:
    """The kind of the first secret: the part before it that stays when it is masked; never the secret."""
    if "-----BEGIN" in text and secret_kinds.PRIVATE_KEY.search(text):
        return "PRIVATE KEY"
    if not (found := secret_kinds.TOKENS.search(text)):
        return ""
    kind = next((name for name, value in found.groupdict().items() if value is not None), "token")
    return f"{found[kind]}***" if found[kind] else kind


def special_pattern(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """One pattern for all special tokens; None if there are none."""
    known = sorted({token for token in tokens if len(token) >= 3}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, known))) if known else None
