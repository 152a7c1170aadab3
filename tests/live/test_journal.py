"""The journal: what was written comes back as the same events, whatever a crash left of the file."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.core.events import ConfigSeen, Crash, Fact, ProcessEnd, Sample, Step
from doctor.diagnosis.engine import Engine
from doctor.live.trainer.journal import JournalWriter, encode
from doctor.readers import reading
from doctor.rulebook.loader import load

SESSION = {"type": "Session", "rank": 0, "time": 1.0, "version": 1}


def step(number: int, **metrics: float) -> dict:
    return {"type": "Step", "step": number, "total": 50, "seconds": number / 2, "time": 100 + number / 2, "metrics": metrics}


def events(path: Path) -> list:
    return list(reading.read([path]).events())


def write(path: Path, lines: list[dict]) -> None:
    journal = JournalWriter(path)
    journal.write([encode(line) for line in lines])
    journal.close()


def test_every_kind_of_event_comes_back(tmp_path):
    """Config, facts, steps with non-finite figures, samples, crashes and ends are the events that any other reader would give."""
    path = tmp_path / "lfdoctor.jsonl"
    crash = {"type": "Crash", "exception": "torch.OutOfMemoryError", "message": "CUDA out of memory.", "phase": "train", "chain": 0}
    write(
        path,
        [
            SESSION,
            {"type": "Given", "argv": ["llamafactory-cli", "a.yaml", "learning_rate=2e-4"], "yaml": "stage: sft\nlearning_rate: 1e-5\n"},
            {"type": "ConfigSeen", "values": {"optim": "adamw_torch", "not_an_option": 1}},
            {"type": "Fact", "name": "world_size", "value": 2},
            step(1, loss=1.5, grad_norm=math.inf),
            step(2, loss=math.nan),
            {"type": "Sample", "seconds": 3.0, "metrics": {"gpu.0.used_gib": 20.5}},
            {**crash, "frames": [["train.py", 3, "train", "loss.backward()"]]},
            {"type": "ProcessEnd", "signal": 9},
        ],
    )
    seen = events(path)
    configs = {event.origin: event.values for event in seen if isinstance(event, ConfigSeen)}
    assert configs["journal"] == {"stage": "sft", "learning_rate": 2e-4}
    assert configs["training_args"] == {"optim": "adamw_torch"}
    steps = [event for event in seen if isinstance(event, Step)]
    assert [one.step for one in steps] == [1, 2]
    assert steps[0].metrics["grad_norm"] == math.inf
    assert math.isnan(steps[1].metrics["loss"])
    assert (steps[0].seconds, steps[0].time, steps[0].where.line) == (0.5, 100.5, 5)
    assert {event.name: event.value for event in seen if isinstance(event, Fact)}["world_size"] == 2
    (sample,) = (event for event in seen if isinstance(event, Sample))
    (raised,) = (event for event in seen if isinstance(event, Crash))
    (end,) = (event for event in seen if isinstance(event, ProcessEnd))
    assert (sample.metrics, sample.seconds) == ({"gpu.0.used_gib": 20.5}, 3.0)
    assert (raised.text, raised.phase, raised.frames[0].function) == ("torch.OutOfMemoryError: CUDA out of memory.", "train", "train")
    assert (end.signal, end.reporter) == (9, "supervisor")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_truncated_or_damaged_anywhere(tmp_path_factory, data):
    """A journal cut at any byte, or with any byte overwritten, gives every step whose line is whole, and never an error."""
    path = tmp_path_factory.mktemp("cut") / "lfdoctor.jsonl"
    write(path, [SESSION, *(step(number, loss=2.0 + number) for number in range(1, 21))])
    whole = path.read_bytes()
    place = data.draw(st.integers(min_value=1, max_value=len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:place])
        expected = set(range(1, whole[:place].count(b"\n")))
    else:
        path.write_bytes(whole[:place] + data.draw(st.binary(min_size=1, max_size=1)) + whole[place + 1 :])
        hit = whole[:place].count(b"\n")
        expected = set(range(1, 21)) - {hit, hit + 1}
    assert expected <= {event.step for event in events(path) if isinstance(event, Step)}


BOOK = load()
NAMES = st.sampled_from(["type", "step", "metrics", "values", "frames", "rank", "name", "argv", "yaml"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
)
KINDS = st.sampled_from(["Step", "Crash", "Given", "ConfigSeen", "Fact", "Sample", "ProcessEnd", "Session", "LogLine"])


@settings(max_examples=200, deadline=None)
@given(st.lists(ANYTHING, max_size=6), KINDS)
def test_hostile_lines(tmp_path_factory, values, kind):
    """Values of any shape under the names that we use cost their line; the events that remain go through every rule without an error."""
    path = tmp_path_factory.mktemp("hostile") / "lfdoctor.jsonl"
    path.write_text(
        "".join(json.dumps(value | {"type": kind} if isinstance(value, dict) else value) + "\n" for value in [SESSION, *values])
    )
    engine = Engine(BOOK.rules)
    for event in events(path):
        engine.feed(event)
    engine.findings()
    assert engine.problems == []


def test_an_evaluation_before_the_first_step_is_of_step_zero(tmp_path):
    """eval_on_start; a negative step is none."""
    path = tmp_path / "lfdoctor.jsonl"
    write(path, [SESSION, step(0, eval_loss=2.0), step(-1, loss=1.0)])
    assert [(one.step, one.metrics) for one in events(path) if isinstance(one, Step)] == [(0, {"eval_loss": 2.0})]


def test_a_torn_line_does_not_swallow_the_next_session(tmp_path):
    """A process killed while it wrote, then a restart that appends: the first line of the restart is whole, and it is a new attempt."""
    path = tmp_path / "lfdoctor.jsonl"
    write(path, [SESSION, step(1, loss=2.0), step(2, loss=1.9) | {"seconds": 9.0}])
    with path.open("ab") as file:
        file.write(b'{"type":"Step","step":3,"metr')
    write(path, [SESSION, step(1, loss=2.1), step(2, loss=1.8)])
    assert [(event.attempt, event.step) for event in events(path) if isinstance(event, Step)] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_rotation_bounds_the_journal_and_keeps_its_beginning(tmp_path):
    """However much is written, the two files together stay below twice the limit, and the newest one knows the configuration."""
    journal = JournalWriter(tmp_path / "lfdoctor.jsonl", limit=20_000)
    head = [encode(SESSION), encode({"type": "ConfigSeen", "values": {"stage": "sft"}})]
    journal.header(head)
    journal.write(head)
    for number in range(1, 2001):
        journal.write([encode(step(number, loss=1.0))])
    journal.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert sum(sizes) < 2 * 20_500
    seen = events(tmp_path / "lfdoctor.jsonl")
    assert any(isinstance(event, ConfigSeen) for event in seen)
    both = [event for event in reading.read([tmp_path]).events() if isinstance(event, Step)]
    assert both[-1].step == 2000
    assert {event.attempt for event in both} == {0}


def test_only_the_first_rank_tells_steps(tmp_path):
    """All ranks log the same metrics: two journals are one run with one attempt, and a crash keeps its rank."""
    for rank in (0, 1):
        name = "lfdoctor-rank1.jsonl" if rank else "lfdoctor.jsonl"
        write(tmp_path / name, [{**SESSION, "rank": rank}, step(1, loss=2.0), step(2, loss=1.0)])
    write(tmp_path / "lfdoctor-rank1.jsonl", [{"type": "Crash", "rank": 1, "exception": "ValueError", "message": "no", "frames": []}])
    seen = events(tmp_path)
    assert [(event.attempt, event.step) for event in seen if isinstance(event, Step)] == [(0, 1), (0, 2)]
    assert [event.rank for event in seen if isinstance(event, Crash)] == [1]


WRITER = """
import sys, time
from pathlib import Path
from doctor.live.trainer.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]), 0)
recorder.start()
for number in range(1, 100000):
    recorder.put({"type": "Step", "step": number, "metrics": {"loss": 1.0 / number}})
    if number % 50 == 0:
        recorder.flush()
        print(number, flush=True)
    time.sleep(0.0002)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_kill_9_loses_nothing_that_was_flushed(tmp_path):
    """Killed at random moments, the journal holds every step up to the last flush, in order, and can be appended to."""
    dice = random.Random(3)
    for kill in range(8):
        folder = tmp_path / str(kill)
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        flushed = int(process.stdout.readline())
        time.sleep(dice.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        flushed = int(rest[-1]) if rest else flushed
        process.wait()
        process.stdout.close()
        steps = [event.step for event in events(folder / "lfdoctor.jsonl") if isinstance(event, Step)]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) >= flushed


def test_work_that_never_ends_does_not_keep_the_process():
    """A disk that does not answer: the caller goes on after its time, and the process can end while the work still waits."""
    wait = "run_with_timeout(lambda: time.sleep(300), 0.1)"
    code = f"import time\nfrom doctor.live.trainer.recorder import run_with_timeout\n{wait}\nprint('on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "on\n")
