"""What may happen to the bytes of a file: each function takes the content and dice, and returns another content."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable

from tests.fuzz.values import odd_json, odd_numbers, odd_yaml

Dice = random.Random
Damage = Callable[[bytes, Dice], bytes]

LARGEST = 600_000
"""Bytes that a damaged file has at most, compressed bombs aside."""


def cut(data: bytes, dice: Dice) -> bytes:
    """The end is missing, as after a crash or a full disk."""
    return data[: dice.randrange(len(data) + 1)]


def headless(data: bytes, dice: Dice) -> bytes:
    """The beginning is missing, as after a rotation."""
    return data[dice.randrange(len(data) + 1) :]


def hole(data: bytes, dice: Dice) -> bytes:
    """A block in the middle is missing, or was never written: NULs."""
    start, size = dice.randrange(len(data) + 1), dice.choice((1, 10, 500, 4096))
    return data[:start] + (bytes(size) if dice.random() < 0.5 else b"") + data[start + size :]


def flipped(data: bytes, dice: Dice) -> bytes:
    """Single bytes are others."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 3, 20))):
        if out:
            out[dice.randrange(len(out))] ^= dice.randrange(1, 256)
    return bytes(out)


def inserted(data: bytes, dice: Dice) -> bytes:
    """Noise in between: random bytes, escape sequences, brackets, quotes, a byte repeated."""
    noise = dice.choice(
        (dice.randbytes(dice.randrange(1, 60)), b"\x1b[2J\x1b]0;x\x07", b"\0" * 300, b"[" * 3000, b"{\"a\":" * 3000, b"\"", b"'",
         b"\\", b"%", b"\xff\xfe", b"\xe2\x80\xae", b"\xed\xa0\x80", b"\r", b"\n\n\n", b"\t", b"a" * 60_000, b"|" * 60_000,
         b"&a [*a]", b"<<: *x", b"---\n")
    )  # fmt: skip
    place = dice.randrange(len(data) + 1)
    return data[:place] + noise + data[place:]


def doubled(data: bytes, dice: Dice) -> bytes:
    """A block, or the whole, stands there several times."""
    start = 0 if dice.random() < 0.3 else dice.randrange(len(data) + 1)
    end = len(data) if start == 0 else min(len(data), start + dice.choice((50, 2000, 20_000)))
    block = data[start:end]
    return data[:end] + block * min(dice.choice((1, 3, 50)), LARGEST // (len(block) + 1)) + data[end:]


def reordered(data: bytes, dice: Dice) -> bytes:
    """Lines of a window in another order, as of several processes."""
    lines = data.splitlines(keepends=True)
    start, size = dice.randrange(len(lines) + 1), dice.choice((5, 40, 100_000))
    window = lines[start : start + size]
    dice.shuffle(window)
    return b"".join([*lines[:start], *window, *lines[start + size :]])


def thinned(data: bytes, dice: Dice) -> bytes:
    """Lines are missing here and there."""
    share = dice.choice((0.02, 0.3, 0.9))
    return b"".join(line for line in data.splitlines(keepends=True) if dice.random() > share)


def one_line(data: bytes, dice: Dice) -> bytes:
    """No line ends, or those of another system."""
    return data.replace(b"\n", dice.choice((b"", b" ", b"\r", b"\r\n", b"\n\r", b"\x0b", b"\xe2\x80\xa8", b"\\n")))


def prefixed(data: bytes, dice: Dice) -> bytes:
    """Every line behind something that a launcher, a cluster or an editor puts there."""
    before = dice.choice(
        (b"[rank0]: ", b"2026-01-01T00:00:00Z stdout F ", b"> ", b"| ", b"\x1b[36m(pid=7)\x1b[0m ", b"  ", b"7\t", b"a" * 200)
    )
    return b"".join(before + line for line in data.splitlines(keepends=True))


def recoded(data: bytes, dice: Dice) -> bytes:
    """In another encoding, or with the mark of one."""
    text = data.decode("utf-8", "replace")
    codec = dice.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030", "latin-1", "utf-8-sig", "cp949", "utf-7", "shift_jis"))
    if dice.random() < 0.2:
        return dice.choice((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff\xfe\0\0")) + data
    return text.encode(codec, "replace")


def packed(data: bytes, dice: Dice) -> bytes:
    """Compressed, whole or cut off, once or twice."""
    pack = dice.choice((gzip.compress, bz2.compress, lzma.compress))
    out = pack(data)
    out = pack(out) if dice.random() < 0.1 else out
    return out[: dice.randrange(len(out) + 1)] if dice.random() < 0.4 else out


def packed_bomb(data: bytes, dice: Dice) -> bytes:
    """A small file that unpacks to much: NULs, one endless line, brackets, or the content again and again."""
    if dice.random() < 0.3:
        return gzip.compress((data or b"x\n") * (1 + (10 << 20) // (len(data) + 1)), compresslevel=1)
    return gzip.compress(dice.choice((b"\0", b"x", b"[", b"\n", b"{}\n")) * ((1 << 20) * dice.choice((5, 40, 120))), compresslevel=1)


def yaml_bomb(data: bytes, dice: Dice) -> bytes:
    """References to references: a few lines that mean a billion values; or one that holds itself."""
    levels = dice.choice((3, 9, 30))
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]" for at in range(1, levels)]
    bomb = "\n".join(lines) if dice.random() < 0.7 else "loop: &loop\n  again: *loop"
    return data + b"\n" + bomb.encode() + b"\n"


def nested(data: bytes, dice: Dice) -> bytes:
    """Deeper than any decoder goes, alone or inside."""
    deep = dice.choice((b"[", b'{"a":', b"{a: ", b"- ", b"'", b'{"log_history":[', b"(", b"Traceback (most recent call last):\n"))
    deep *= dice.choice((500, 20_000, 90_000))
    place = dice.choice((0, len(data), dice.randrange(len(data) + 1)))
    return data[:place] + deep[:LARGEST] + data[place:]


def long_line(data: bytes, dice: Dice) -> bytes:
    """One line repeated on itself up to half a megabyte."""
    line = dice.choice(data.splitlines() or [b"x"])[:2000] + dice.choice((b"", b" ", b",", b"\\n"))
    place = dice.randrange(len(data) + 1)
    return data[:place] + line * dice.choice((10, 200, 500_000 // (len(line) + 1))) + data[place:]


BYTES: tuple[Damage, ...] = (
    cut, cut, headless, hole, flipped, flipped, inserted, inserted, doubled, reordered, thinned, one_line, prefixed, recoded, packed,
    packed_bomb, yaml_bomb, nested, long_line, odd_numbers, odd_numbers, odd_numbers,
)  # fmt: skip
"""For every file; twice what happens most."""

STRUCTURED: dict[str, Damage] = {".json": odd_json, ".jsonl": odd_json, ".yaml": odd_yaml, ".yml": odd_yaml}
"""By the suffix of the file: values inside of the format."""


def damaged(data: bytes, suffix: str, dice: Dice) -> bytes:
    """The content after one damage that fits its suffix."""
    structured = STRUCTURED.get(suffix)
    chosen = structured if structured is not None and dice.random() < 0.5 else dice.choice(BYTES)
    out = chosen(data, dice)
    return out if chosen in (packed, packed_bomb) else out[:LARGEST]
