"""Compressed files: what can be read of them, whole, cut off or damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.readers.file import File, Source
from doctor.readers.formats.compression import compression, decompression_errors, decompressor

MEMBERS = [random.Random(seed).randbytes(size) * 3 + b"a" * size for seed, size in enumerate((0, 1, 40, 3000, 40_000))]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


def read(data: bytes, size: int) -> tuple[bytes, Exception | None]:
    """What is read, and what is raised then."""
    file, out = io.BufferedReader(io.BytesIO(data)), b""
    try:
        function = decompressor(file, data[:6])
        while part := function(size):
            out += part
    except decompression_errors() as error:
        return out, error
    return out, None


def readable(data: bytes) -> bytes:
    """All that zlib gets out of gzip data fed byte by byte, over all members: nothing more can be known."""
    out, member = b"", zlib.decompressobj(31)
    for place in range(len(data)):
        if member.eof:
            member = zlib.decompressobj(31)
        out += member.decompress(data[place : place + 1])
    return out + member.flush()


@pytest.mark.parametrize("kind", COMPRESS)
@given(st.lists(st.sampled_from(MEMBERS), min_size=1, max_size=3), st.integers(1, 100_000))
@settings(max_examples=20, deadline=None)
def test_members_that_follow_one_another_are_one_text(kind: str, members: list[bytes], size: int):
    """Concatenated files are the concatenated text, at any read size."""
    data = b"".join(map(COMPRESS[kind], members))
    assert compression(data) == kind
    assert read(data, size) == (b"".join(members), None)


@given(st.integers(0, 4), st.floats(0, 1), st.integers(1, 100_000))
@settings(max_examples=100, deadline=None)
def test_nothing_before_a_cut_is_lost(number: int, share: float, size: int):
    """A gzip file whose writer was killed: every byte that its compressed bytes determine is read, then it raises."""
    first = gzip.compress(b"first" * 100)
    whole = first + gzip.compress(MEMBERS[number])
    cut = whole[: 6 + int(share * (len(whole) - 7))]
    out, error = read(cut, size)
    assert out == readable(cut)
    assert (error is None) == (len(cut) == len(first))


@given(st.integers(2, 4), st.floats(0, 1), st.integers(1, 255))
@settings(max_examples=100, deadline=None)
def test_one_wrong_byte_is_noticed(number: int, share: float, noise: int):
    """A changed byte is noticed, unless it changes nothing; the member before it is read in any case."""
    first, member = gzip.compress(b"first" * 100), MEMBERS[number]
    whole = bytearray(first + gzip.compress(member))
    place = len(first) + 10 + int(share * (len(whole) - len(first) - 19))
    whole[place] ^= noise
    out, error = read(bytes(whole), 4096)
    assert out.startswith(b"first" * 100)
    assert error is not None or out == b"first" * 100 + member  # the last bits of a block may be padding


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_cut_file_is_read_up_to_the_cut_with_a_problem(tmp_path: Path, kind: str):
    """Through `File`: the text before the cut, and the problem that names the compression."""
    text = "".join(f"line {number}\n" for number in range(50_000)).encode()
    packed = COMPRESS[kind](text)
    path = tmp_path / "train.log.x"
    path.write_bytes(packed[: len(packed) * 2 // 3] if kind == "gzip" else packed[:-4])
    source = Source(str(path), "console", path.stat().st_size)
    read_ = b"".join(File(path, str(path), source).chunks())
    assert text.startswith(read_)
    assert len(read_) > len(text) // 2
    (problem,) = source.problems
    assert kind in problem
