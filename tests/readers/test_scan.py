"""A console's blocks, its shapes and its repetitions change nothing that is told of it."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.core.events import Crash, Event, LogLine
from doctor.diagnosis.engine import Engine
from doctor.readers import reading
from doctor.readers.console import blocks, line_filter
from doctor.readers.console.blocks import blocks as blocks_of
from doctor.rulebook.loader import load
from doctor.support import literal_search
from doctor.support.literal_search import MultiSearch
from tests.readers.test_damage import CONSOLE, EXAMPLES

BOOK = load()
LITERALS = Engine(BOOK.rules).literals


def told(path: Path, literals: frozenset[str] | None = LITERALS) -> list[Event]:
    """All events of a console."""
    return list(reading.read([path], literals=literals).events())


def shown(events: list[Event]) -> list[str]:
    """Events as text (nan equals nan) without times, which are those of lines looked at; of the lines those that a rule could want."""
    wanted = (event for event in events if not isinstance(event, LogLine) or any(literal in event.text for literal in LITERALS))
    return [re.sub(r"\btime=[^,)]*", "", repr(event)) for event in wanted]


def large(seed: int) -> Iterator[str]:
    """A console of bars, records, spam, interleaved tracebacks, a torn block, bars glued without newline."""
    rng = random.Random(seed)
    yield CONSOLE
    for step in range(1, 1500):
        bar = f"\r{step // 15:3d}%|██        | {step}/1500 [00:10<03:10,  1.00s/it]"
        kind = rng.randrange(12)
        yield bar * rng.randrange(1, 40)
        if kind == 0:
            yield "\r" + " " * 40 + f"\r{{'loss': '{1 + 1 / step:.4f}', 'grad_norm': '0.5', 'epoch': '{step / 1500:.4g}'}}\n{bar}"
        elif kind == 1:
            yield f"\nnode-{step}:12:13 [0] NCCL INFO Channel {step}/0 via P2P\n"
        elif kind == 2:
            yield "\n" + "x" * rng.randrange(3000) + "\n"
        elif kind == 3 and step % 5 == 0:
            yield f'\n[rank{step % 3}]: Traceback (most recent call last):\n[rank{step % 3}]:   File "a.py", line {step}, in f\n{bar}'
            yield f"\n[rank{step % 3}]: RuntimeError: CUDA error: device-side assert triggered {step}\n"
        elif kind == 4:
            yield f" {step}%|█| {step}/9999 [00:01<00:02,  3.00it/s]" * rng.randrange(300)
    yield "Killed\n"


@pytest.mark.parametrize("seed", [1, 2])
def test_every_line_read_tells_the_same(tmp_path: Path, seed: int):
    """Where every line is wanted, nothing but lines that no rule wants is added."""
    path = tmp_path / "train.log"
    path.write_text("".join(large(seed)), encoding="utf-8", newline="")
    wanted = shown(told(path))
    assert len(wanted) > 50
    assert shown(told(path, None)) == wanted


@pytest.mark.parametrize("seed", [3, 4])
def test_the_size_of_blocks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int):
    """Blocks that end inside tracebacks, printed models and records."""
    path = tmp_path / "train.log"
    path.write_text("".join(large(seed)), encoding="utf-8", newline="")
    whole = shown(told(path))
    monkeypatch.setattr(blocks, "PIECE", 700)
    assert shown(told(path)) == whole


@pytest.mark.parametrize("engine", [True, False])
def test_the_engine_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: bool):
    """Hyperscan from the first block and shape on, or not installed: the tracebacks and the end of `large` are told."""
    path = tmp_path / "train.log"
    path.write_text("".join(large(5)), encoding="utf-8", newline="")
    expected = shown(told(path))
    if engine:
        pytest.importorskip("hyperscan")
        monkeypatch.setattr(literal_search, "TEXTS_BEFORE_HYPERSCAN", 1)
        monkeypatch.setattr(line_filter, "BYTES_BEFORE_BLOCK_SEARCH", 0)
    else:
        monkeypatch.setitem(sys.modules, "hyperscan", None)
    found = shown(told(path))
    assert found == expected
    assert any("signal=9" in one and "reporter='shell'" in one for one in found)


def test_a_flood_is_counted(tmp_path: Path):
    """Of 5,000 lines that differ in numbers the first 1,000 are read, then one a block for all; the source says so."""
    path = tmp_path / "train.log"
    path.write_text("".join(f"Dropped lengthy example with length {number} > 2048.\n" for number in range(5000)) * 20)
    read = reading.read([path], literals=frozenset({"Dropped lengthy example"}))
    lines = [event for event in read.events() if isinstance(event, LogLine)]
    assert sum(line.repeats for line in lines) == 100_000
    assert lines[-1].where.line == 100_000
    assert [line.where.line for line in lines[:1000]] == list(range(1, 1001))
    left_out = 100_000 - len(lines)
    assert left_out > 70_000
    assert read.sources[0].problems == [f"{left_out:,} lines differ from others in their numbers only: counted, not read"]


def test_a_flood_of_errors_is_counted(tmp_path: Path):
    """Exceptions without traceback, each on one line, as the ranks of a job print them."""
    path = tmp_path / "train.log"
    path.write_text("".join(f"[rank3]: RuntimeError: CUDA error: no device {number}\n" for number in range(50_000)))
    crashes = [event for event in told(path) if isinstance(event, Crash)]
    assert sum(crash.repeats for crash in crashes) == 50_000
    assert len(crashes) < 12_000


def test_the_exception_of_a_traceback_is_read_in_a_flood_of_it(tmp_path: Path):
    """50,000 times the same line, and once more as the end of a traceback in the same block."""
    line = "ValueError: sample 7 is empty\n"
    path = tmp_path / "train.log"
    path.write_text(line * 50_000 + 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\n' + line + "ok\n" + line * 9)
    crashes = [event for event in told(path) if isinstance(event, Crash) and event.frames]
    assert [(crash.exception, crash.where.line) for crash in crashes] == [("ValueError", 50_004)]


@pytest.mark.parametrize("before", ["", "[rank1]: "])
def test_a_flood_of_tracebacks_is_counted(tmp_path: Path, before: str):
    """20,000 tracebacks that differ in numbers, then one elsewhere, and one with a cause of its own: no exception is lost or added."""
    frames = '  File "a.py", line {0}, in f\n    g({0})\n'
    head = "Traceback (most recent call last):\n"
    alike = [f"{head}{frames.format(number)}ValueError: sample {number} is empty\nskipped\n" for number in range(20_000)]
    other = f"{head}{frames.format(1)}    deeper()\nValueError: sample 1 is empty\nskipped\n"
    chained = (
        f"{head}{frames.format(1)}ValueError: sample 1 is empty\n\nDuring handling of the above exception, another exception occurred:\n\n"
    )
    text = "".join([*alike[:19_000], other, chained, head, frames.format(2), "KeyError: 'x'\n", *alike[19_000:]])
    path = tmp_path / "train.log"
    path.write_text("".join(before + line for line in text.splitlines(keepends=True)))
    crashes = [event for event in told(path) if isinstance(event, Crash)]
    assert sum(crash.repeats for crash in crashes) == 20_003
    assert len(crashes) < 2_500
    assert [(crash.exception, crash.chain) for crash in crashes if crash.chain] == [("KeyError", 1)]
    assert sum(crash.frames[-1].line == 1 for crash in crashes) >= 2


def test_records_are_never_left_out(tmp_path: Path):
    """3,000 lines of metrics have one shape."""
    path = tmp_path / "train.log"
    path.write_text("".join(f"{{'loss': 1.{step:04d}, 'grad_norm': 0.5, 'epoch': 0.1}}\n" for step in range(3000)))
    read = reading.read([path], literals=LITERALS)
    assert sum(type(event).__name__ == "Step" for event in read.events()) == 3000
    assert not read.sources[0].problems


def test_without_literals_every_line_is_read(tmp_path: Path):
    """Also of many that are alike."""
    path = tmp_path / "train.log"
    path.write_text("Killed time\n" * (line_filter.ENOUGH * 40))
    assert sum(isinstance(event, LogLine) for event in told(path, None)) == line_filter.ENOUGH * 40


@given(st.lists(st.binary(max_size=60), max_size=20), st.integers(1, 50))
@settings(max_examples=EXAMPLES, deadline=None)
def test_blocks_are_the_bytes_and_end_lines(chunks: list[bytes], longest: int):
    """However the bytes come: nothing is lost, and every block but pieces of overlong lines ends with a newline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "MAX_LINE", longest)
        patch.setattr(blocks, "PIECE", longest)
        found = list(blocks_of(chunks))
    assert b"".join(data for data, _ in found) == b"".join(chunks)
    assert all(data.endswith(b"\n") for data, whole in found if whole)


@given(st.lists(st.text("abcEror 0123:%한", min_size=1, max_size=8), min_size=1, max_size=6), st.text("abcEror 0123:%한xyz", max_size=60))
@settings(max_examples=5 * EXAMPLES, deadline=None)
def test_literals_are_found_as_by_looking_for_each(literals: list[str], text: str):
    """In texts and in bytes."""
    assert set(MultiSearch(literals).find(text)) == {one for one in literals if one in text}
    raw = [one.encode() for one in literals]
    assert set(MultiSearch(raw).find(text.encode())) == {one for one in raw if one in text.encode()}


def test_a_traceback_inside_glued_bars_is_found(tmp_path: Path):
    """Megabytes of bars without a newline before it."""
    bar = " 50%|█████     | 5/10 [00:01<00:01,  1.00s/it]".encode()
    path = tmp_path / "train.log"
    path.write_bytes(bar * 30_000 + b'Traceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: glued\n')
    assert [event.message for event in told(path) if isinstance(event, Crash)] == ["glued"]
