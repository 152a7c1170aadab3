"""TensorBoard event files: every value to the bit, checksums, damage in the middle."""

from __future__ import annotations

import random
import struct
import sys
import types
from pathlib import Path

import pytest

from doctor.readers.tensorboard.message import Event, parse
from tests.readers.helpers import Seen, crc32c, field, frame, scalar_event, text_event, varint

NAME = "events.out.tfevents.1.host"


@pytest.mark.parametrize(
    ("data", "value"),
    [(bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E), (b"123456789", 0xE3069283)],
)
def test_the_helper_is_crc32c(data: bytes, value: int):
    """The vectors of RFC 3720, appendix B.4, and the usual check value: what the tests below write is what TensorBoard would."""
    assert crc32c(data) == value


@pytest.fixture(params=["google-crc32c", "without"])
def verified(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether checksums are verified: with the library (its function is stood in for where it is not installed) and without it."""
    library = types.SimpleNamespace(value=crc32c) if request.param == "google-crc32c" else None
    monkeypatch.setitem(sys.modules, "google_crc32c", library)
    return library is not None


def test_the_library_is_called_as_it_wants():
    """google-crc32c takes bytes and returns the unmasked value."""
    library = pytest.importorskip("google_crc32c")
    assert library.value(b"123456789") == 0xE3069283


def test_every_value_is_read_to_the_bit(tmp_path: Path):
    """Tags, tensors and texts mixed, steps of two varint bytes, infinities and denormal-sized values."""
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


def test_an_event_without_time_and_step():
    """protobuf leaves out fields that are zero."""
    assert parse(b"") == Event(0.0, 0, [])


def test_an_event_with_a_wrong_checksum_is_left_out(tmp_path: Path, verified: bool):
    """One flipped bit in a value costs that value, and the report says so; without the library nobody can know."""
    frames = [scalar_event(step, "train/loss", float(step)) for step in range(1, 101)]
    broken = bytearray(frames[49])
    broken[-6] ^= 1
    path = tmp_path / NAME
    path.write_bytes(b"".join([*frames[:49], bytes(broken), *frames[50:]]))
    seen = Seen(path)
    assert [step for step, _ in seen.series("loss") if verified is False or step != 50] == [step for step, _ in seen.series("loss")]
    assert len(seen.series("loss")) == (99 if verified else 100)
    assert seen.problems == (["events with a wrong checksum: left out"] if verified else [])


def test_an_event_that_is_no_protobuf_is_left_out(tmp_path: Path, verified: bool):
    """A destroyed message costs that event, found by its checksum or by parsing it; the events around it are read."""
    frames = [scalar_event(step, "train/loss", float(step)) for step in range(1, 101)]
    broken = bytearray(frames[49])
    broken[12:-4] = b"\xff" * (len(broken) - 16)
    path = tmp_path / NAME
    path.write_bytes(b"".join([*frames[:49], bytes(broken), *frames[50:]]))
    seen = Seen(path)
    assert [step for step, _ in seen.series("loss")] == [*range(1, 50), *range(51, 101)]
    assert seen.problems == ["events with a wrong checksum: left out" if verified else "damaged events: left out"]


def test_nothing_is_read_behind_a_damaged_length(tmp_path: Path, verified: bool):
    """The frames before it are; where the next frame begins is unknown."""
    frames = [scalar_event(step, "train/loss", float(step)) for step in range(1, 101)]
    broken = bytearray(frames[49])
    broken[4] ^= 1  # 4 GiB longer
    path = tmp_path / NAME
    path.write_bytes(b"".join([*frames[:49], bytes(broken), *frames[50:]]))
    seen = Seen(path)
    assert [step for step, _ in seen.series("loss")] == [*range(1, 50)]
    assert seen.problems == ["damaged: not read beyond the damage"]


def test_an_event_that_was_not_written_to_its_end(tmp_path: Path, verified: bool):
    """All before it counts, and the report says that the writer stopped in the middle."""
    frames = [scalar_event(step, "train/loss", float(step)) for step in range(1, 11)]
    path = tmp_path / NAME
    path.write_bytes(b"".join(frames)[:-3])
    seen = Seen(path)
    assert [step for step, _ in seen.series("loss")] == [*range(1, 10)]
    assert seen.problems == ["its last event is incomplete (the writer was killed, or still writes)"]


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
