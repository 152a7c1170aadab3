"""A console's bytes in blocks of whole lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

MAX_LINE = 1 << 20
"""Bytes; longer lines come in pieces."""
PIECE = 1 << 18
"""Bytes of a block about; what is known of a log's shapes serves from the next block on."""


def without_leading_nuls(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Drop NULs at the beginning: a log that was truncated while its writer kept its offset has them."""
    begun = False
    for chunk in chunks:
        text = chunk if begun else chunk.lstrip(b"\0")
        begun = begun or bool(text)
        if text:
            yield text


def blocks(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Blocks of whole lines, as (bytes, whether they end a line); a line longer than `MAX_LINE` (bars without newline) comes in pieces."""
    rest = b""
    for chunk in chunks:
        data, place = rest + chunk, 0
        while (stop := data.rfind(b"\n", place, place + PIECE) + 1 or data.find(b"\n", place + PIECE) + 1) > 0:
            yield data[place:stop], True
            place = stop
        rest = data[place:]
        if len(rest) > MAX_LINE:
            cut = rest.rfind(b"\r", 0, len(rest) - 1) + 1 or len(rest)
            yield rest[:cut], False
            rest = rest[cut:]
    if rest:
        yield rest, False
