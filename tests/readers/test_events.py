"""TensorBoard event files at scale: checksums, the many-at-once path against one event at a time, damage in the middle."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.readers.tensorboard.crc import checksum, checksums
from tests.readers.helpers import Seen, field, frame, scalar_event, text_event, varint

NAME = "events.out.tfevents.1.host"


def unmasked(mask: int) -> int:
    turned = (mask - 0xA282EAD8) & 0xFFFFFFFF
    return (turned << 15 | turned >> 17) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "value"),
    [(bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E), (b"123456789", 0xE3069283)],
)
def test_the_checksum_is_crc32c(data: bytes, value: int):
    """The vectors of RFC 3720, appendix B.4, and the usual check value."""
    assert unmasked(checksum(data)) == value


@given(st.integers(1, 40), st.integers(0, 9000), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_many_checksums_at_once_are_those_of_each(count: int, length: int, rng: random.Random):
    """Every length: shorter than a register, longer than a piece."""
    messages = [rng.randbytes(length) for _ in range(count)]
    columns = np.frombuffer(b"".join(messages), dtype=np.uint8).reshape(count, length).T
    assert checksums(columns).tolist() == [checksum(message) for message in messages]


def test_many_events_give_what_each_alone_gives(tmp_path: Path):
    """Tags, lengths, tensors and texts mixed, more than one form of one length, steps over two varint bytes, values to the bit."""
    rng = random.Random(7)
    whole, wanted = [text_event("args", "{}")], {}
    for step in range(1, 400):
        for tag in ("train/loss", "train/lass", "eval/loss", "train/grad_norm", "한국"):
            value = struct.unpack("<f", struct.pack("<f", rng.choice([rng.random(), float("inf"), 1e-30])))[0]
            whole.append(scalar_event(step, tag, value, tensor=rng.random() < 0.1))
            wanted.setdefault(tag, []).append((step, value))
    path = tmp_path / NAME
    path.write_bytes(b"".join(whole))
    seen = Seen(path)
    names = {"train/loss": "loss", "train/lass": "lass", "eval/loss": "eval_loss", "train/grad_norm": "grad_norm", "한국": "한국"}
    assert {tag: seen.series(name) for tag, name in names.items()} == wanted
    assert seen.problems == []


def test_an_event_with_a_wrong_checksum_is_left_out(tmp_path: Path):
    """One flipped bit in a value costs that value, and the report says so."""
    frames = [scalar_event(step, "train/loss", float(step)) for step in range(1, 101)]
    broken = bytearray(frames[49])
    broken[-6] ^= 1
    path = tmp_path / NAME
    path.write_bytes(b"".join([*frames[:49], bytes(broken), *frames[50:]]))
    seen = Seen(path)
    assert [step for step, _ in seen.series("loss")] == [*range(1, 50), *range(51, 101)]
    assert seen.problems == ["events with a wrong checksum: left out"]


def test_step_zero_and_two_values_in_one_event(tmp_path: Path):
    """proto3 leaves a zero out; a summary may hold several values."""
    value = field(1, b"train/loss") + varint(2 << 3 | 5) + struct.pack("<f", 2.5)
    other = field(1, b"train/grad_norm") + varint(2 << 3 | 5) + struct.pack("<f", 1.5)
    both = frame(field(1, 1.7e9) + field(2, 3) + field(5, field(1, value) + field(1, other)))
    path = tmp_path / NAME
    path.write_bytes(frame(field(1, 1.7e9) + field(5, field(1, value))) + both * 20)
    steps = Seen(path).steps
    assert (steps[0].step, steps[0].metrics) == (0, {"loss": 2.5})
    assert (steps[1].step, steps[1].metrics) == (3, {"loss": 2.5, "grad_norm": 1.5})
