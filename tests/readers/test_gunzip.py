"""gzip data by zlib: the same bytes as Python's own gzip, and all of those before damage."""

from __future__ import annotations

import gzip
import io
import random
import zlib

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from doctor.readers.formats.gunzip import Gunzip

MEMBERS = [random.Random(seed).randbytes(size) * 3 + b"a" * size for seed, size in enumerate((0, 1, 40, 3000, 40_000))]
HEADER = 10


def gunzipped(data: bytes, size: int) -> tuple[bytes, Exception | None]:
    """What is read, and what is raised then."""
    reader, out = Gunzip(io.BufferedReader(io.BytesIO(data))), b""
    try:
        while part := reader.read1(size):
            out += part
    except (zlib.error, EOFError) as error:
        return out, error
    return out, None


def by_python(data: bytes) -> tuple[bytes, Exception | None]:
    out = b""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while part := file.read1(100):
                out += part
    except (zlib.error, OSError, EOFError) as error:
        return out, error
    return out, None


@given(st.lists(st.sampled_from(MEMBERS), min_size=1, max_size=4), st.integers(0, 50), st.integers(1, 200_000))
@settings(max_examples=60, deadline=None)
def test_members_and_padding(members: list[bytes], padding: int, size: int):
    """Concatenated files are one text; NULs behind them are nothing."""
    data = b"".join(map(gzip.compress, members)) + b"\0" * padding
    assert gunzipped(data, size) == (b"".join(members), None)


@given(st.sampled_from(MEMBERS), st.floats(0, 1), st.integers(0, 255), st.booleans(), st.integers(1, 100_000))
@settings(max_examples=200, deadline=None)
def test_nothing_before_damage_is_lost(member: bytes, share: float, noise: int, cut: bool, size: int):
    """A file cut off or with one wrong byte: at least what Python's own reader gives before it raises, and it raises where that does.

    Of a member's header zlib believes less than Python does: left out.
    """
    first = gzip.compress(b"first" * 100)
    whole = first + gzip.compress(member)
    place = int(share * (len(whole) - 1))
    assume(cut or not (place < HEADER or len(first) <= place < len(first) + HEADER))
    damaged = whole[:place] if cut else whole[:place] + bytes([noise]) + whole[place + 1 :]
    ours, error = gunzipped(damaged, size)
    theirs, their_error = by_python(damaged)
    assert ours.startswith(theirs)
    assert (error is None) == (their_error is None)
