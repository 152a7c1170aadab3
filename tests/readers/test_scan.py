"""The multi-pattern pass and the gate tell the same of every console, whatever its size, its blocks and its damage."""

from __future__ import annotations

import functools
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.core.events import LogLine
from doctor.diagnosis.engine import Engine
from doctor.readers import reading
from doctor.readers.console import finder, scan
from doctor.readers.console import reader as console_reader
from doctor.readers.console.line_patterns import line_patterns
from doctor.readers.console.superset import superset
from doctor.rulebook.loader import load
from doctor.support.literal_search import MultiSearch
from tests.readers.test_damage import CONSOLE, EXAMPLES

BOOK = load()
LITERALS = Engine(BOOK.rules).literals
PATTERNS = Engine(BOOK.rules).line_patterns
EXPRESSIONS = [re.compile(one) for one in PATTERNS.expressions]
COMPILED = functools.lru_cache(line_patterns)
"""Half a second a time: once is enough for all logs of a worker."""
LOGS = sorted((Path(__file__).parents[2] / "fixtures").glob("*/*.log"))
FIXTURES = LOGS[::7]


def told(path: Path, small: int, monkeypatch: pytest.MonkeyPatch, engine: bool = True) -> list[str]:
    """Every event that a rule could want, as text (nan equals nan); the pass takes over after `small` bytes."""
    monkeypatch.setattr(console_reader, "SMALL", small)
    if not engine:
        monkeypatch.setitem(sys.modules, "hyperscan", None)
    events = reading.read([path], literals=LITERALS).events()
    return [repr(event) for event in events if not isinstance(event, LogLine) or any(literal in event.text for literal in LITERALS)]


def by_patterns(path: Path, monkeypatch: pytest.MonkeyPatch, many: int) -> tuple[list[str], list[str]]:
    """(Every event that is no line, every line that some rule's expression matches), with the expressions from line `many` on.

    Times are left out: the clock is that of the lines that are looked at.
    """
    monkeypatch.setattr(console_reader, "SMALL", 0)
    for module in (console_reader, finder):
        monkeypatch.setattr(module, "MANY", many)
    monkeypatch.setattr(finder, "line_patterns", COMPILED)
    events = list(reading.read([path], literals=LITERALS, line_patterns=PATTERNS).events())
    texts = [event for event in events if isinstance(event, LogLine) and any(one.search(event.text) for one in EXPRESSIONS)]
    others = [event for event in events if not isinstance(event, LogLine)]
    return tuple([re.sub(r"time=[^,)]*", "", repr(event)) for event in some] for some in (others, texts))  # type: ignore[return-value]


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
def test_the_pass_finds_what_the_gate_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int):
    """Events, places and phases are equal to those of the line-by-line way, with the engine and without its wheel."""
    pytest.importorskip("hyperscan")
    path = tmp_path / "train.log"
    path.write_text("".join(large(seed)), encoding="utf-8", newline="")
    plain = told(path, 1 << 60, monkeypatch)
    assert len(plain) > 50
    assert told(path, 0, monkeypatch) == plain
    assert told(path, 0, monkeypatch, engine=False) == plain


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.parent.name)
def test_the_pass_changes_nothing_on_real_logs(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Recorded runs, the pass from the first byte on."""
    pytest.importorskip("hyperscan")
    assert told(path, 0, monkeypatch) == told(path, 1 << 60, monkeypatch)


@pytest.mark.parametrize("part", range(6))
def test_the_expressions_find_what_the_literals_find(monkeypatch: pytest.MonkeyPatch, part: int):
    """Recorded runs, the expressions from the first byte on: the same steps, tracebacks, facts, ends, and lines that a rule matches."""
    pytest.importorskip("hyperscan")
    for path in LOGS[part::18]:  # every third
        assert by_patterns(path, monkeypatch, -1) == by_patterns(path, monkeypatch, 1 << 60), path


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_expressions_find_every_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int):
    """The examples of all rules in one console, shuffled, with prefixes, colours, bars and carriage returns around them."""
    pytest.importorskip("hyperscan")
    rng = random.Random(seed)
    texts = [text for rule in BOOK.rules for one in (*rule.examples.match, *rule.examples.no_match) if (text := one.line or one.text or "")]
    rng.shuffle(texts)
    around = ("{}", "{}", "[rank3]: {}", "node-1: {}", "\x1b[31m{}\x1b[0m", " 50%|█████     | 5/10 [00:01<00:01,  1.00s/it]{}",
              "x\r{}", "  {}", "2026-03-02 10:00:05,100 - INFO - {}", "(Worker pid=12, ip=10.0.0.1) {}", "저장 {} 끝")  # fmt: skip
    path = tmp_path / "train.log"
    path.write_text(
        "\n".join(rng.choice(around).format(line) for text in texts for line in [*text.splitlines(), "ok"]), encoding="utf-8", newline=""
    )
    found = by_patterns(path, monkeypatch, -1)
    assert found == by_patterns(path, monkeypatch, 1 << 60)
    assert len(found[1]) > 400


def test_a_console_in_another_code_page_keeps_to_the_literals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """GBK: its bytes are not those of the expressions."""
    pytest.importorskip("hyperscan")
    path = tmp_path / "train.log"
    path.write_bytes("训练日志 the word Error stands here\n".encode("gbk") * 100)
    monkeypatch.setattr(console_reader, "SMALL", 0)
    monkeypatch.setattr(finder, "MANY", -1)
    events = reading.read([path], literals=LITERALS, line_patterns=PATTERNS).events()
    assert [event.text for event in events if isinstance(event, LogLine)] == ["训练日志 the word Error stands here"] * 100


def test_of_lines_that_are_only_signs_the_last_one_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A thousand lines that mention an Error and nothing else: the last one of the block is looked at."""
    pytest.importorskip("hyperscan")
    path = tmp_path / "train.log"
    path.write_text("".join(f"the word Error stands here, {number}\n" for number in range(1000)))
    monkeypatch.setattr(console_reader, "SMALL", 0)
    monkeypatch.setattr(finder, "MANY", -1)
    lines = [event for event in reading.read([path], literals=LITERALS, line_patterns=PATTERNS).events() if isinstance(event, LogLine)]
    assert [line.where.line for line in lines] == [1000]


@given(st.sampled_from(sorted(PATTERNS.expressions)), st.data())
@settings(max_examples=5 * EXAMPLES, deadline=None)
def test_a_superset_finds_what_its_expression_finds(expression: str, data: st.DataObject):
    """Texts made to match a rule's expression, of any characters that a line can have."""
    hyperscan = pytest.importorskip("hyperscan")
    text = data.draw(st.from_regex(expression).filter(lambda text: not set("\n\r") & set(text) and "\0" not in text))
    found: list[int] = []
    database = hyperscan.Database()
    database.compile(expressions=[superset(expression).body], ids=[0], flags=[0])
    database.scan(text.encode("utf-8", "replace"), match_event_handler=lambda *hit: found.append(hit[2]))
    assert found


@given(st.lists(st.binary(max_size=60), max_size=20), st.integers(1, 50))
@settings(max_examples=EXAMPLES, deadline=None)
def test_blocks_are_the_bytes_and_end_lines(chunks: list[bytes], longest: int):
    """However the bytes come: nothing is lost, and every block but pieces of overlong lines ends with a newline."""
    found = list(scan.blocks(chunks))
    assert b"".join(data for data, _ in found) == b"".join(chunks)
    assert all(data.endswith(b"\n") for data, whole in found if whole)


@given(st.lists(st.text("abcEror 0123:%한", min_size=1, max_size=8), min_size=1, max_size=6), st.text("abcEror 0123:%한xyz", max_size=60))
@settings(max_examples=5 * EXAMPLES, deadline=None)
def test_literals_are_found_as_by_looking_for_each(literals: list[str], text: str):
    """In texts and in bytes."""
    assert set(MultiSearch(literals).find(text)) == {one for one in literals if one in text}
    raw = [one.encode() for one in literals]
    assert set(MultiSearch(raw).find(text.encode())) == {one for one in raw if one in text.encode()}


@pytest.mark.parametrize("engine", [True, False])
def test_a_traceback_inside_glued_bars_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: bool):
    """Megabytes of bars without a newline before it, by the pass and by the gate."""
    bar = " 50%|█████     | 5/10 [00:01<00:01,  1.00s/it]".encode()
    path = tmp_path / "train.log"
    path.write_bytes(bar * 30_000 + b'Traceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: glued\n')
    assert sum("message='glued'" in event for event in told(path, 0 if engine else 1 << 60, monkeypatch)) == 1


@pytest.mark.parametrize(
    ("line", "kept"),
    [(b"x" * 3000 + b"\rCUDA error", b"CUDA error"), (b"CUDA error\r" + b"x" * 3000 + b"\r\r", b"CUDA error\r" + b"x" * 3000)],
)
def test_of_a_long_line_what_was_found_is_kept(line: bytes, kept: bytes):
    """Also where it ends with the line; a find of the next line is left to it."""
    end = line.index(b"error") + 5
    data = line + b"\nCUDA error"
    assert scan.relevant_part(data, 0, len(line), [end, len(data)], 0) == kept
