"""Damaged input costs that input only: nothing raises, and what stands before the damage is still told."""

from __future__ import annotations

import json
import os
import pickle
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import doctor
from doctor.core.events import Crash, Event, Step
from doctor.errors import DoctorError
from doctor.readers import reading
from doctor.readers.console.line_filter import WANTED, LineFilter
from tests.readers.helpers import jsonl, log_record, scalar_event, text_event
from tests.readers.test_console import HEADER, TORCHRUN
from tests.readers.test_tracebacks import PLAIN

EXAMPLES = int(os.environ.get("LFDOCTOR_FUZZ_EXAMPLES", "60"))
CONSOLE = (
    HEADER + "\r  5%|▌   | 10/200 [00:10<03:10,  1.00s/it]\r" + " " * 20 + "\r{'loss': 1.5, 'grad_norm': 'nan', 'epoch': 0.1}\n"
    '{"current_steps": 20, "total_steps": 200, "loss": 1.25}\n'
    "저장 중 训练 █▌ \x1b[31mred\x1b[0m\n"
    + "".join(f"[rank1]: {line}\n" for line in PLAIN.splitlines())
    + TORCHRUN.format(trailing=" ", code=-9)
    + "[INFO|x.py:1] 2026-03-02 10:00:05,100 >> Model config AConfig {\n  \"hidden_size\": 8\n}\nKilled\n"
)  # fmt: skip
STATE = json.dumps({"max_steps": 4, "log_history": [{"step": step, "loss": 1.0 / step, "grad_norm": 1.0} for step in (1, 2, 3, 4)]})
FILES: dict[str, bytes] = {
    "console.log": CONSOLE.encode(),
    "trainer_log.jsonl": jsonl(*(log_record(step) for step in range(1, 6))).encode(),
    "trainer_state.json": STATE.encode(),
    "events.out.tfevents.1.h": text_event("args", '{"learning_rate": 1.0}')
    + b"".join(scalar_event(s, "train/loss", s / 8) for s in (1, 2, 3)),
    "train.yaml": b"stage: sft\nmodel_name_or_path: m\nlearning_rate: 1e-4\ndeepspeed:\n  zero_optimization: {stage: 2}\n",
    "training_args.bin": pickle.dumps({"learning_rate": 1.0}),
    "train_results.json": b'{"train_loss": 1.0, "train_runtime": 2.0}',
    "adapter_config.json": b'{"peft_type": "LORA", "r": 8, "target_modules": ["q"]}',
    "ds_z2.json": b'{"zero_optimization": {"stage": 2}}',
    "README.md": b"### Training hyperparameters\n\n- learning_rate: 5e-05\n- num_devices: 2\n",
    "run.sh": b"llamafactory-cli train --stage sft --cutoff_len 512\n",
}


@contextmanager
def folder_with(name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


def told(name: str, data: bytes, literals: frozenset[str] | None = None) -> list[Event]:
    """Everything a file tells; nothing to read is an answer too, anything else that is raised is a failure."""
    with folder_with(name, data) as path:
        try:
            return list(reading.read([path], literals=literals).events())
        except DoctorError:
            return []


def plain(events: list[Event]) -> list[str]:
    """Events as texts that can be compared (nan equals nan, whatever the folder)."""
    return [re.sub(r"file='[^']*'", "", repr(event)) for event in events]


def stays(before: list[Event], after: list[Event]) -> bool:
    """Whether all that was told before is told in the same order.

    But for what may have been open: the last step, and each rank's last traceback.
    """
    last = {(type(event), event.rank if isinstance(event, Crash) else None): place for place, event in enumerate(before)}
    rest = iter(plain(after))
    return all(event in rest for event in plain([event for place, event in enumerate(before) if place not in last.values()]))


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_cut_anywhere(name: str, data: st.DataObject):
    """Every prefix of every format can be read."""
    whole = FILES[name]
    told(name, whole[: data.draw(st.integers(0, len(whole)))])


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_garbled_anywhere(name: str, data: st.DataObject):
    """Flipped, inserted and removed bytes, invalid UTF-8 and NULs among them, raise nothing."""
    whole = bytearray(FILES[name])
    for place, noise, removed in data.draw(
        st.lists(st.tuples(st.integers(0, len(whole)), st.binary(max_size=8), st.integers(0, 8)), max_size=6)
    ):
        whole[place : place + removed] = noise
    told(name, bytes(whole))


@given(st.binary(max_size=400), st.sampled_from(list(FILES)))
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_bytes_under_any_name(data: bytes, name: str):
    """A name promises nothing about the content."""
    told(name, data)


@given(st.integers(0, len(CONSOLE.encode())), st.binary(max_size=40))
@settings(max_examples=EXAMPLES, deadline=None)
def test_what_stands_before_the_damage_is_told(place: int, noise: bytes):
    """A console garbled from some line on gives the crashes and steps of the lines before it, unchanged."""
    whole = CONSOLE.encode()
    start = whole.rfind(b"\n", 0, place) + 1
    before = [event for event in told("console.log", whole[:start]) if isinstance(event, Crash | Step)]
    after = [event for event in told("console.log", whole[:start] + b"\n\n" + noise.replace(b"\n", b"")) if isinstance(event, Crash | Step)]
    assert stays(before, after)


def test_windows_line_ends_change_nothing():
    """CRLF gives the same events as LF, places included."""
    assert plain(told("console.log", CONSOLE.replace("\n", "\r\n").encode())) == plain(told("console.log", CONSOLE.encode()))


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\x1b\0"), max_size=30), max_size=12),
    st.lists(st.text("abcEror 0123:%", min_size=1, max_size=8), min_size=1, max_size=6),
)
@settings(max_examples=5 * EXAMPLES, deadline=None)
def test_the_gate_loses_no_line_with_a_literal(lines: list[str], literals: list[str]):
    """Digits, short words and odd characters included: a line that holds a literal always passes, whatever was seen before."""
    gate, searching = LineFilter({WANTED: literals}), LineFilter({WANTED: literals})
    searching.unsearched_bytes = 0
    for line in [*lines, *literals, *(f"{line}{literal}{line}" for line in lines for literal in literals)]:
        if any(literal in line for literal in literals):
            assert gate(line.encode()) & WANTED
            raw = f"{line}\nnext".encode()
            assert gate.candidates(raw, raw.split(b"\n"))[0][0] & WANTED
            assert searching.candidates(raw, raw.split(b"\n"))[0][0] & WANTED


@given(st.lists(st.sampled_from([*CONSOLE.splitlines(keepends=True), "\n", "x\n", '  File "a", line 1, in b\n', "    | \n"]), max_size=40))
@settings(max_examples=5 * EXAMPLES, deadline=None)
def test_lines_in_any_order(lines: list[str]):
    """Shuffled pieces of real logs (interleaved ranks, torn blocks) are read; literals change only which lines are kept."""
    text = "".join(lines).encode()
    whole = [event for event in told("console.log", text) if type(event).__name__ != "LogLine"]
    few = [event for event in told("console.log", text, frozenset({"zzz"})) if type(event).__name__ != "LogLine"]
    assert [type(event) for event in few] == [type(event) for event in whole]


FOLDER = Path(__file__).parents[2] / "fixtures"
FIXTURES = sorted(path for path in FOLDER.glob("*/*") if path.is_file() and path.name not in ("ORIGIN.md", "expected.yaml"))


@given(st.sampled_from(FIXTURES), st.floats(0, 1), st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4))
@settings(max_examples=max(12, EXAMPLES // 5), deadline=None)
def test_a_damaged_fixture_is_analyzed(path: Path, cut: float, flips: list[tuple[float, int]]):
    """A recorded file cut anywhere, or with bytes flipped: a report or DoctorError; what whole lines before the damage told stays."""
    whole = path.read_bytes()
    end = int(cut * len(whole))
    damaged = bytearray(whole)
    for place, mask in flips:
        damaged[min(len(whole) - 1, end + int(place * (len(whole) - end)))] ^= mask
    for data in (whole[:end], bytes(damaged)):
        with folder_with(path.name, data) as copy:
            try:
                assert doctor.analyze(copy).problems == []
            except DoctorError:
                continue
    if path.suffix in (".log", ".jsonl", ".out", ".err"):
        start = whole.rfind(b"\n", 0, end) + 1
        before = [one for one in told(path.name, whole[:start]) if isinstance(one, Step | Crash)]
        after = [one for one in told(path.name, bytes(damaged)) if isinstance(one, Step | Crash)]
        assert stays(before, after)


@pytest.mark.parametrize("name", FILES)
def test_nesting_without_end_raises_nothing(name: str):
    """A hundred thousand brackets, in a whole file and in the middle of a valid one: deeper than any decoder goes."""
    for deep in (b"[" * 100_000, b'{"a":' * 100_000, b"{a: " * 100_000, b'{"log_history": [' + b"[" * 100_000):
        told(name, deep)
        told(name, FILES[name] + b"\n" + deep)
