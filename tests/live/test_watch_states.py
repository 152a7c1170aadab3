"""lfdoctor watch: what it says that a run is doing, while the run writes its files as `lfdoctor run` and the trainer do."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from doctor.live.watch.screen import render
from doctor.live.watch.state import Signs, signs_of, state_of
from doctor.live.watch.view import Watched
from doctor.reporters.base import Screen
from doctor.reporters.terminal.canvas import to_text

START = (
    "[INFO|2026-03-01 10:00:00] llamafactory.hparams.parser:468 >> Process rank: 0, world size: 1, device: cuda:0, "
    "distributed training: False, compute dtype: torch.bfloat16\n"
)
TOKENISE = "Running tokenizer on dataset (num_proc=16):  40%|####      | 20800/52002 [00:07<00:11, 2731.10 examples/s]\n"
LOAD = "Loading checkpoint shards:  20%|##        | 1/4 [00:02<00:08, 27.32it/s]\n"
TRAIN = "[INFO|trainer.py:2519] 2026-03-01 10:00:53,101 >> ***** Running training *****\n"
SAVE = "[INFO|trainer.py:4307] 2026-03-01 10:01:15,101 >> Saving model checkpoint to saves/llama/checkpoint-10\n"
EVALUATE = "[INFO|trainer.py:4641] 2026-03-01 10:01:20,101 >> ***** Running Evaluation *****\n"
BEGUN = [{"type": "Fact", "name": "run.started_training", "value": True}, {"type": "Fact", "name": "steps.planned", "value": 20}]


def encode(event: dict[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"))


def write(folder: Path, console: str, events: list[dict[str, Any]] = [], end: list[dict[str, Any]] = []) -> Watched:  # noqa: B006
    (folder / "console.log").write_text(console)
    session = {"type": "Session", "version": 1, "rank": 0, "time": time.time() - 600}
    (folder / "lfdoctor.jsonl").write_text("".join(encode(event) + "\n" for event in [session, *events]))
    if end:
        (folder / "lfdoctor-run.jsonl").write_text("".join(encode(event) + "\n" for event in end))
    return Watched(folder)


def steps(count: int, seconds_ago: float = 0.0, each: float = 1.0) -> list[dict[str, Any]]:
    last = time.time() - seconds_ago
    return [
        {
            "type": "Step",
            "time": last - each * (count - step),
            "step": step,
            "total": 20,
            "seconds": each * step,
            "metrics": {"loss": 2 - step / 50},
        }
        for step in range(1, count + 1)
    ]


def sample(seconds_ago: float = 0.0) -> dict[str, Any]:
    return {"type": "Sample", "time": time.time() - seconds_ago, "seconds": 1.0, "metrics": {"process.rss_gib": 1.0}}


@pytest.mark.parametrize(
    ("console", "events", "state"),
    [
        ("", [], "starting"),
        (START, [], "starting"),
        (START + TOKENISE, [], "tokenising"),
        (START + TOKENISE + LOAD, [], "loading"),
        (START + LOAD + TRAIN, BEGUN, "training"),
        (START + LOAD, BEGUN, "training"),
        (START + TRAIN, [*BEGUN, *steps(5)], "training"),
        (START + TRAIN, [*BEGUN, *steps(5), {"type": "Alive", "time": time.time()}], "evaluating"),
        (START + TRAIN + EVALUATE, [*BEGUN, *steps(5)], "evaluating"),
        (START + TRAIN + SAVE, [*BEGUN, *steps(5)], "saving"),
    ],
)
def test_a_run_that_is_alive(tmp_path, console, events, state):
    """Each phase under its name; before the first step a run is starting, not of unknown end."""
    assert write(tmp_path, console, [*events, sample()]).state().state == state


@pytest.mark.parametrize(
    ("end", "state"),
    [
        ([{"type": "ProcessEnd", "code": 1}], "failed"),
        ([{"type": "ProcessEnd", "signal": 9}], "failed"),
        ([{"type": "ProcessEnd", "signal": 15}], "interrupted"),
    ],
)
def test_a_run_that_ended_badly(tmp_path, end, state):
    """How the process ended stands above what it did last."""
    assert write(tmp_path, START + TRAIN, [*BEGUN, *steps(5)], end).state().state == state


def test_stopped_at_14_of_20_is_no_completed_run(tmp_path):
    """The trainer ended well, but before its last step: an early stop, by us or by the user's own callback."""
    ended = [{"type": "ProcessEnd", "code": 0}]
    console = START + TRAIN + "***** train metrics *****\n"
    assert write(tmp_path, console, [*BEGUN, *steps(14)], ended).state().state == "stopped_early"
    (tmp_path / "lfdoctor.jsonl").unlink()
    completed = {"type": "Fact", "name": "run.completed", "value": True}
    assert write(tmp_path, console, [*BEGUN, *steps(20), completed], ended).state().state == "finished"


def quiet(folder: Path, seconds: float, *names: str) -> None:
    for name in names:
        os.utime(folder / name, (time.time() - seconds,) * 2)


def test_a_hung_training_has_stalled(tmp_path):
    """Steps of one second, then none for five minutes while the recorder still samples the machine: stalled, not training."""
    watched = write(tmp_path, START + TRAIN, [*BEGUN, *steps(5, seconds_ago=300), sample(2)])
    quiet(tmp_path, 300, "console.log")
    state = watched.state()
    assert (state.state, state.left is None or state.left >= 0) == ("stalled", True)
    assert "stalled" in to_text([render(state, 80, "en")], Screen(width=80))


def test_slow_steps_are_no_stall(tmp_path):
    """Steps of two minutes: five minutes without one are within five of them."""
    watched = write(tmp_path, START + TRAIN, [*BEGUN, *steps(5, seconds_ago=300, each=120), sample(2)])
    quiet(tmp_path, 300, "console.log")
    assert watched.state().state == "training"


def test_without_any_sign_the_end_is_unknown(tmp_path):
    """Neither steps nor samples for an hour, and nobody wrote down an end: a machine that died."""
    watched = write(tmp_path, START + TRAIN, [*BEGUN, *steps(5, seconds_ago=3600), sample(3600)])
    quiet(tmp_path, 3600, "console.log", "lfdoctor.jsonl")
    assert watched.state().state == "unknown"


def test_a_silent_load_is_no_stall(tmp_path):
    """Ten minutes without a line before the first step: a large model on a network disk."""
    watched = write(tmp_path, START + LOAD, [sample(2)])
    quiet(tmp_path, 600, "console.log")
    assert watched.state().state == "loading"


def test_only_the_newest_process_counts(tmp_path):
    """A pause between two processes of one journal is no slow step."""
    session = {"type": "Session", "version": 1, "rank": 0, "time": 0.0}
    path = tmp_path / "lfdoctor.jsonl"
    events = [session, *steps(3, seconds_ago=5000), session, *steps(3, seconds_ago=10, each=2), sample(1)]
    path.write_text("".join(encode(event) + "\n" for event in events) + '{"type":"Step","time":17')
    signs = signs_of(path)
    assert (round(signs.longest, 1), signs.evaluates) == (2.0, False)
    assert time.time() - signs.last == pytest.approx(10, abs=2)
    assert signs_of(tmp_path / "none.jsonl") == Signs()


@pytest.mark.parametrize("lang", ["en", "ko", "zh"])
def test_every_state_has_its_word(tmp_path, lang):
    """In each language, and no two states share one."""
    state = write(tmp_path, START + TRAIN, [*BEGUN, *steps(5)]).state()
    from typing import get_args

    import msgspec

    from doctor.live.watch.state import State

    heads = [
        to_text([render(msgspec.structs.replace(state, state=one), 200, lang)], Screen(width=200)).split("\n")[0] for one in get_args(State)
    ]
    assert len(set(heads)) == len(get_args(State))


def test_vital_signs_are_shown(tmp_path):
    """Where the loss began and is, and the pace."""
    text = to_text([render(write(tmp_path, START + TRAIN, [*BEGUN, *steps(5)]).state(), 80, "en")], Screen(width=80))
    assert "loss 1.98 to 1.9" in text
    assert "1 s/step" in text


def test_a_status_that_was_read_is_not_doubted():
    """No silence turns a finished run into another state."""
    assert state_of("completed", {}, 5, Signs(), None, time.time()) == "finished"
