"""The callback: hears a trainer's events, writes them down, stays out of the way."""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from doctor import DoctorCallback, analyze
from doctor.core.events import ConfigSeen, Crash, Fact, Step
from doctor.live.trainer import callback as module
from doctor.live.trainer import checkpoint_size, crashes, hang_check, imports, memory_history, owner, recorder, snapshot, step_timer, values
from doctor.live.trainer.journal import JournalWriter
from doctor.live.trainer.monitor import Monitor
from doctor.live.trainer.step_timer import StepTimer
from doctor.live.trainer.stop_judge import StopJudge
from doctor.readers.reading import read


class State(types.SimpleNamespace):
    """What transformers' TrainerState tells."""


class Trainer:
    """As much of a transformers Trainer as calls callbacks: events in its order, one log a step."""

    def __init__(self, callbacks: list, folder: Path, losses: list[float], fail_at: int | None = None) -> None:
        self.args = types.SimpleNamespace(output_dir=str(folder), learning_rate=1e-4, world_size=1, to_dict=lambda: {"learning_rate": 1e-4})
        self.state = State(global_step=0, max_steps=len(losses), is_world_process_zero=True, num_input_tokens_seen=0)
        self.control = types.SimpleNamespace(should_training_stop=False)
        self.callbacks, self.losses, self.fail_at = callbacks, losses, fail_at

    def call(self, event: str, **kwargs: object) -> None:
        for one in self.callbacks:
            getattr(one, event)(self.args, self.state, self.control, **kwargs)

    def train(self) -> int:
        self.call("on_train_begin", model=None)
        self.call("on_epoch_begin")
        for loss in self.losses:
            self.call("on_step_begin")
            self.call("on_an_event_of_the_future", news=1)
            if self.state.global_step == self.fail_at:
                raise ValueError("the data ran out")
            self.state.global_step += 1
            self.call("on_step_end")
            self.call("on_log", logs={"loss": loss, "learning_rate": 1e-4, "note": "text"})
            if self.control.should_training_stop:
                break
        self.call("on_train_end")
        return self.state.global_step


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Each test is a process of its own as far as the callback can tell."""
    monkeypatch.setattr(owner, "OWNERS", owners := [])
    monkeypatch.setattr(module, "OWNERS", owners)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for name in ("LFDOCTOR_DIR", "RANK", "LFDOCTOR_MONITOR", "LFDOCTOR_STOP"):
        monkeypatch.delenv(name, raising=False)


def events(folder: Path, kind: type) -> list:
    return [event for event in read([folder]).events() if isinstance(event, kind)]


def test_a_training_is_written_down(tmp_path):
    """Every step, the effective configuration, the clock and the planned end of a run come back from its output folder."""
    assert Trainer([DoctorCallback(warn=False)], tmp_path, [2.0, 1.5, 1.0]).train() == 3
    steps = events(tmp_path, Step)
    assert [(one.step, one.metrics["loss"]) for one in steps] == [(1, 2.0), (2, 1.5), (3, 1.0)]
    assert all(one.metrics["data_wait_seconds"] <= one.metrics["step_seconds"] for one in steps)
    facts = {one.name: one.value for one in events(tmp_path, Fact)}
    assert (facts["steps.planned"], facts["run.completed"], facts["run.started_training"]) == (3, True, True)
    assert {"learning_rate": 1e-4} in [one.values for one in events(tmp_path, ConfigSeen)]


def test_an_exception_is_recorded_and_goes_on_unchanged(tmp_path):
    """The crash is in the journal with its step when train() has raised, and train() raises the very same exception."""
    ours = DoctorCallback(warn=False)
    kind = type("Trainer", (Trainer,), {"train": Trainer.train})
    ours.attach(types.SimpleNamespace(Trainer=kind))
    with pytest.raises(ValueError, match="the data ran out"):
        kind([ours], tmp_path, [2.0] * 9, fail_at=4).train()
    (crash,) = events(tmp_path, Crash)
    assert (crash.text, crash.phase, crash.frames[-1].function) == ("ValueError: the data ran out", "train", "train")
    assert {one.name: one.value for one in events(tmp_path, Fact)}["crashed_after_step"] == 4
    report = analyze(tmp_path)
    assert (report.run.status, report.run.steps.last) == ("failed", 4)


def test_the_models_sizes_are_recorded_with_its_nested_configs():
    """Lists of layers and the language model's own config stay data; the path that the model came from is left out."""
    text = {"hidden_size": 64, "layer_types": ("conv", "full_attention"), "dtype": object}
    raw = {"model_type": "own", "_name_or_path": "/home/me/model", "text_config": text, "unset": None}
    config = types.SimpleNamespace(model_type="own", to_dict=lambda: raw)
    model = types.SimpleNamespace(parameters=list, config=config)
    told = dict(snapshot.facts(types.SimpleNamespace(), types.SimpleNamespace(num_train_epochs=None), model, None))
    nested = {"hidden_size": 64, "layer_types": ["conv", "full_attention"], "dtype": str(object)}
    assert told["model.config"] == {"model_type": "own", "text_config": nested}


def test_chained_exceptions_in_printed_order():
    """The original exception is chain 0, as Python prints it."""
    try:
        try:
            raise KeyError("a")
        except KeyError as inner:
            raise RuntimeError("b") from inner
    except RuntimeError as error:
        told = crashes.events_of(error, 3)
    assert [(one["exception"], one["chain"], one["rank"]) for one in told] == [("KeyError", 0, 3), ("RuntimeError", 1, 3)]


@pytest.mark.parametrize("folder", ["/proc/no/such/folder", "/dev/full"])
def test_a_folder_that_cannot_be_written(tmp_path, folder, capsys):
    """Where nothing can be written, the training ends as it would have, and one line says that nobody watched."""
    if not Path("/proc").is_dir():
        pytest.skip("needs Linux")
    ours = DoctorCallback(folder, warn=False)
    assert Trainer([ours], tmp_path, [2.0, 1.0, 0.5]).train() == 3
    assert ours.recorder.dead
    assert capsys.readouterr().err.count("lfdoctor: ") == 1


def test_a_full_disk(tmp_path, capsys):
    """A journal whose every write fails costs one line on the console."""
    if not Path("/dev/full").exists():
        pytest.skip("needs Linux")
    (tmp_path / "lfdoctor.jsonl").symlink_to("/dev/full")
    assert Trainer([DoctorCallback(warn=False)], tmp_path, [2.0, 1.0]).train() == 2
    assert "No space left" in capsys.readouterr().err


@pytest.mark.parametrize(("place", "method"), [(DoctorCallback, "_put_step"), (DoctorCallback, "_put_fact"), (values, "to_float")])
def test_an_error_of_ours_reaches_nobody(tmp_path, monkeypatch, capsys, place, method):
    """Whatever breaks in our own methods: the training ends as it would have, and one line says it."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(place, method, broken)
    assert Trainer([DoctorCallback(warn=False)], tmp_path, [2.0, 1.0]).train() == 2
    assert capsys.readouterr().err.count("switched off after ZeroDivisionError") == 1


def test_nothing_is_said_of_a_training_that_goes_well(tmp_path, capsys):
    """From its beginning to its end not a word on the console."""
    ours = DoctorCallback()
    assert Trainer([ours], tmp_path, [2.0, 1.9, 1.8]).train() == 3
    ours.recorder.flush()
    assert "lfdoctor" not in capsys.readouterr().err


def test_a_callback_that_cannot_begin_says_so_and_stays_away(tmp_path, monkeypatch, capsys):
    """Whatever keeps it from beginning: the training runs without it, and one line says why nothing is recorded."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(module, "Recorder", broken)
    assert Trainer([DoctorCallback(warn=False)], tmp_path, [2.0, 1.0]).train() == 2
    assert capsys.readouterr().err.count("not watching this training: ZeroDivisionError: ours") == 1


def test_a_writer_that_hangs_does_not_hang_the_training(tmp_path, monkeypatch):
    """A disk that does not answer blocks the recorder's thread only; events beyond its queue are dropped."""
    gate = threading.Event()
    monkeypatch.setattr(JournalWriter, "write", lambda *_: gate.wait(20))
    monkeypatch.setattr(recorder.Recorder.flush, "__defaults__", (0.05,))
    ours = DoctorCallback(warn=False)
    done = threading.Thread(target=Trainer([ours], tmp_path, [1.0] * 2000).train)
    done.start()
    done.join(15)
    gate.set()
    assert not done.is_alive()
    done.join()


def test_of_two_callbacks_one_records(tmp_path):
    """Injected and given by hand at once: every step is there once; the next trainer of the process is recorded again."""
    first, second = DoctorCallback(warn=False), DoctorCallback(warn=False)
    Trainer([first, second], tmp_path / "a", [2.0, 1.0]).train()
    assert len((tmp_path / "a" / "lfdoctor.jsonl").read_text().splitlines()) == len(
        set((tmp_path / "a" / "lfdoctor.jsonl").read_text().splitlines())
    )
    assert [one.step for one in events(tmp_path / "a", Step)] == [1, 2]
    Trainer([DoctorCallback(warn=False)], tmp_path / "b", [3.0]).train()
    assert [one.metrics["loss"] for one in events(tmp_path / "b", Step)] == [3.0]


def test_ray_can_send_it(tmp_path):
    """A pickled callback arrives with its settings and starts anew."""
    copy = pickle.loads(pickle.dumps(DoctorCallback(tmp_path, warn=False, stop_on_divergence=True)))
    assert (copy.folder, copy.warn, copy.stop_on_divergence) == (tmp_path, False, True)


def test_a_rank_that_is_known_late(tmp_path):
    """Ray tells a worker its rank after the hook is in: journal and stacks are that rank's, and the first rank's are not touched."""
    ours = DoctorCallback(tmp_path, warn=False)
    ours.listen()
    trainer = Trainer([ours], tmp_path, [2.0, 1.0])
    trainer.args.process_index = 3
    trainer.train()
    assert not (tmp_path / "lfdoctor.jsonl").exists()
    lines = [json.loads(line) for line in (tmp_path / "lfdoctor-rank3.jsonl").read_text().splitlines()]
    assert [one["rank"] for one in lines if one["type"] == "Session"] == [3]
    assert "rank 3" in (tmp_path / "lfdoctor-stacks-rank3.txt").read_text()


def test_silence_is_told_with_its_place(tmp_path, monkeypatch, capsys):
    """A training that hangs inside a step: its place is told on the console once, while it hangs, and is what the report names."""
    monkeypatch.setattr(step_timer, "LEAST_SECONDS", 0.3)
    monkeypatch.setattr(step_timer, "UNKNOWN_SECONDS", 0.3)
    monkeypatch.setattr(step_timer, "FACTOR", 1.0)
    ours = DoctorCallback()
    gate = threading.Event()
    stacks = tmp_path / "lfdoctor-stacks-rank0.txt"
    reports = []

    class Hanging(Trainer):
        def call(self, event: str, **kwargs: object) -> None:
            super().call(event, **kwargs)
            if event == "on_step_begin" and self.state.global_step == 2:
                self.waits_for_a_lock()

        def waits_for_a_lock(self) -> None:
            gate.wait(20)

    training = threading.Thread(target=Hanging([ours], tmp_path, [1.0] * 4).train)
    training.start()
    for _ in range(100):
        if stacks.exists() and b"waits_for_a_lock" in stacks.read_bytes():
            ours.recorder.flush()
            reports.append(analyze(tmp_path))
            break
        gate.wait(0.1)
    gate.set()
    training.join()
    (finding,) = [one for one in reports[0].findings if one.rule == "environment/process-stands-still"]
    assert finding.role == "root"
    assert "step 2" in finding.text
    assert "in waits_for_a_lock" in finding.text
    assert "lfdoctor-stacks-rank0.txt" in finding.evidence[0].source
    assert capsys.readouterr().err.count("no event of the training") == 1
    assert all(one.rule != "environment/process-stands-still" for one in analyze(tmp_path).findings)  # it went on


class OutOfMemoryError(RuntimeError):
    """torch's, by its name."""


def card(snapshot: object) -> types.SimpleNamespace:
    """As much of torch as the callback looks at on a machine with a card; `calls` are those that change something."""
    calls: list[tuple] = []
    memory = types.SimpleNamespace(
        _record_memory_history=lambda *args, **kwargs: calls.append((args, kwargs)),
        _snapshot=snapshot if callable(snapshot) else lambda: snapshot,
    )
    cuda = types.SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, memory_stats=lambda: {"num_ooms": 1}, memory=memory,
        current_device=lambda: 0, device_count=lambda: 1,
        get_device_properties=lambda _: types.SimpleNamespace(name="NVIDIA A10", total_memory=24 << 30),
    )  # fmt: skip
    return types.SimpleNamespace(cuda=cuda, calls=calls, _C=types.SimpleNamespace(_cuda_isHistoryEnabled=lambda: bool(calls)))


def block(size: int, *frames: str) -> dict:
    named = [{"filename": f"/x/{one}.py", "line": 1, "name": one} for one in frames]
    return {"size": size, "state": "active_allocated", "address": 1, "frames": named}


def out_of_memory(tmp_path: Path, monkeypatch, torch: object, **options: bool) -> DoctorCallback:
    monkeypatch.setitem(sys.modules, "torch", torch)

    class Full(Trainer):
        def train(self) -> int:
            try:
                return super().train()
            except ValueError:
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.") from None

    ours = DoctorCallback(tmp_path, warn=False, **options)
    library = types.SimpleNamespace(Trainer=Full, DEFAULT_CALLBACKS=[])
    ours.attach(library)
    with pytest.raises(OutOfMemoryError):
        Full([ours], tmp_path, [2.0] * 6, fail_at=4).train()
    return ours


def test_who_held_the_memory(tmp_path, monkeypatch):
    """With memory_snapshot an out-of-memory leaves a snapshot, and the report says whose memory it was; else torch is asked nothing."""
    torch = card({"segments": [{"blocks": [block(3 << 30, "forward"), block(1 << 30)]}], "device_traces": [[{"action": "alloc"}]]})
    out_of_memory(tmp_path / "on", monkeypatch, torch, memory_snapshot=True)
    assert torch.calls == [(("state",), {"context": "state", "stacks": "python"})]
    report = analyze(tmp_path / "on")
    assert any("3.00 GiB activations (forward.py:1 forward)" in one.text for one in report.findings)
    owner.OWNERS.clear()
    torch.calls.clear()
    out_of_memory(tmp_path / "off", monkeypatch, torch)
    assert torch.calls == []
    assert not list((tmp_path / "off").glob("*.pickle"))


def test_a_recording_of_the_users_own_goes_on(tmp_path, monkeypatch):
    """Whoever keeps torch's memory history already keeps it as it was set; the snapshot is written all the same."""
    torch = card({"segments": [{"blocks": [block(3 << 30, "forward")]}]})
    torch.calls.append(("theirs", {}))
    out_of_memory(tmp_path, monkeypatch, torch, memory_snapshot=True)
    assert torch.calls == [("theirs", {})]
    assert [path.name for path in tmp_path.glob("*.pickle")] == ["lfdoctor-memory-rank0.pickle"]


def test_a_snapshot_stays_small(tmp_path, monkeypatch):
    """However many blocks there are, the file stays readable; the largest blocks keep their stacks longest."""
    monkeypatch.setattr(memory_history, "LIMIT", 200_000)
    monkeypatch.setattr(memory_history, "BLOCKS", 1000)
    blocks = [block(index, f"function_{index}", *(f"outer_{number}_{index}" for number in range(20))) for index in range(1, 1500)]
    out_of_memory(tmp_path, monkeypatch, card({"segments": [{"blocks": blocks}]}), memory_snapshot=True)
    assert (tmp_path / "lfdoctor-memory-rank0.pickle").stat().st_size <= 200_000
    text = next(one.text for one in analyze(tmp_path).findings if one.rule == "memory/snapshot-holders")
    assert "function_1499" in text


def fails(*_: object, **__: object) -> None:
    raise ZeroDivisionError("torch's")


@pytest.mark.parametrize("broken", ["_record_memory_history", "_snapshot"])
def test_a_snapshot_that_fails_changes_nothing(tmp_path, monkeypatch, broken):
    """Whatever torch says to it, the training's own exception comes out, and the journal holds it."""
    torch = card({"segments": []})
    setattr(torch.cuda.memory, broken, fails)
    out_of_memory(tmp_path, monkeypatch, torch, memory_snapshot=True)
    assert [event.exception for event in events(tmp_path, Crash)][-1].endswith("OutOfMemoryError")
    assert not list(tmp_path.glob("*.pickle"))


NAN = float("nan")


def test_stops_only_when_asked(tmp_path):
    """A loss that is NaN for good ends the training with stop_on_divergence, and does not without."""
    losses = [2.0, 1.9, 1.8, *[NAN] * 40]
    assert Trainer([DoctorCallback(warn=False)], tmp_path / "a", losses).train() == 43
    assert Trainer([DoctorCallback(warn=False, stop_on_divergence=True)], tmp_path / "b", losses).train() < 43


@pytest.mark.parametrize("remembers", [True, False])
def test_a_resumed_run_remembers_what_was_good(tmp_path, remembers):
    """A training that goes on from a good checkpoint and diverges two steps later is stopped; only its past tells that."""
    past = [{"loss": 2.5 - step / 12, "learning_rate": 1e-4, "epoch": 0.1, "step": step} for step in range(1, 13)]
    ours = DoctorCallback(warn=False, stop_on_divergence=True)
    trainer = Trainer([ours], tmp_path, [1.5, 1.5, 5.6, *[3.9 + step % 3 / 10 for step in range(45)]])
    trainer.state.global_step, trainer.state.max_steps = 12, 60
    trainer.state.log_history = past if remembers else []
    assert (trainer.train() < 60) is remembers
    assert next(one.step for one in events(tmp_path, Step)) == (1 if remembers else 13)
    found = {one.symptom for one in analyze(tmp_path).findings if one.severity == "error"}
    assert ("divergence" in found) is remembers
    again = Trainer([DoctorCallback(warn=False)], tmp_path, [1.0])
    again.state.global_step, again.state.log_history = 12, past
    again.train()  # into the same journal: the past is not told twice
    lines = [json.loads(line) for line in (tmp_path / "lfdoctor.jsonl").read_text().splitlines()]
    assert sum("history" in one for one in lines) == (12 if remembers else 0)


def test_a_finding_is_told_while_the_training_goes_on(tmp_path, capsys):
    """One line on the console names step and rule, from inside the training process; the training is not stopped."""
    ours = DoctorCallback()
    assert Trainer([ours], tmp_path, [2.0, 1.9, 1.8, *[NAN] * 40]).train() == 43
    assert not ours.recorder.dead
    err, end = "", time.monotonic() + 20  # the recorder's thread tells it, perhaps after the training
    while "lfdoctor: error at step " not in err and time.monotonic() < end:
        time.sleep(0.02)
        err += capsys.readouterr().err
    told = [line for line in err.splitlines() if line.startswith("lfdoctor: error at step ")]
    assert told
    assert len(told) == len(set(told))


def test_times_are_written_to_the_microsecond():
    """More digits of a clock would only make the journal longer."""
    timer = StepTimer()
    for _ in range(3):
        timer.step_begins()
        timer.saved()
        timer.step_ends()
    figures, steps = timer.take(timer.event())
    assert (steps, sorted(figures)) == (3, ["data_wait_seconds", "save_seconds", "step_seconds"])
    assert all(value == round(value, 6) for value in figures.values())


def test_ranks_decide_alike():
    """Two judges that see the same logs beside different clocks answer alike at every step."""
    one, two = StopJudge(), StopJudge()
    for step in range(1, 60):
        loss = 2.0 if step < 20 else NAN
        answers = [judge.step(step, {"loss": loss, "step_seconds": clock}) for judge, clock in ((one, 0.1 * step), (two, 5.0))]
        assert answers[0] == answers[1]


def test_live_findings_are_those_of_the_journal_afterwards(tmp_path):
    """The monitor, fed line by line, knows at the end what the engine finds in the whole file; what it told was among that."""
    told: list[str] = []
    ours = DoctorCallback(warn=False)
    Trainer([ours], tmp_path, [2.0 - 0.01 * step for step in range(60)] + [NAN] * 30).train()
    monitor = Monitor(told.append, str(tmp_path / "lfdoctor.jsonl"))
    for line in (tmp_path / "lfdoctor.jsonl").read_bytes().splitlines():
        monitor.line(line)
    monitor.close()
    report = analyze(tmp_path)
    live = {(one.rule.id, one.steps) for one in monitor.findings()}
    assert live == {(one.rule, tuple(one.steps) if one.steps else None) for one in report.findings}
    assert told
    assert all(any(f"[{rule}]" in text for rule, _ in live) for text in told)


def test_the_journal_stays_small(tmp_path):
    """At most 1 KB a step."""
    Trainer([DoctorCallback(warn=False)], tmp_path, [1.0] * 500).train()
    lines = (tmp_path / "lfdoctor.jsonl").read_text().splitlines()
    assert max(len(line) for line in lines if json.loads(line)["type"] == "Step") < 1000


def test_a_listener_that_fails_costs_the_warnings_only(tmp_path, capsys):
    """A broken rule or plugin: one line, no more warnings, and the journal goes on."""
    ours = DoctorCallback(tmp_path, warn=False)
    heard = []

    def broken(_: bytes) -> None:
        raise ZeroDivisionError("theirs")

    ours.recorder.listeners += [broken, heard.append]
    assert Trainer([ours], tmp_path, [2.0, 1.5, 1.0]).train() == 3
    assert [one.step for one in events(tmp_path, Step)] == [1, 2, 3]
    assert capsys.readouterr().err.count("no more warnings: ZeroDivisionError") == 1
    assert sum(b'"Step"' in line for line in heard) == 3


@pytest.mark.parametrize("begun", [0, 7])
def test_a_healed_run_gets_the_rate_of_its_config(tmp_path, monkeypatch, begun):
    """Optimizer and schedule of a checkpoint keep their course but take the new rate; a run from zero is left alone."""
    monkeypatch.setenv("LFDOCTOR_SET_RATE", "1")
    groups = [{"lr": 0.05, "initial_lr": 0.1}, {"lr": 0.5, "initial_lr": 1.0}]
    optimizer, schedule = types.SimpleNamespace(param_groups=groups), types.SimpleNamespace(base_lrs=[0.1, 1.0], _last_lr=[0.05, 0.5])
    trainer = Trainer([ours := DoctorCallback(warn=False)], tmp_path, [1.0])
    trainer.args.learning_rate = 0.01
    trainer.state.global_step = begun
    ours.on_train_begin(trainer.args, trainer.state, trainer.control, model=None, optimizer=optimizer, lr_scheduler=schedule)
    ours.on_train_end(trainer.args, trainer.state, trainer.control)
    share = 0.1 if begun else 1.0
    assert schedule.base_lrs == pytest.approx([0.1 * share, 1.0 * share])
    assert [group["lr"] for group in groups] == pytest.approx([0.05 * share, 0.5 * share])
    assert [group["initial_lr"] for group in groups] == pytest.approx([0.1 * share, 1.0 * share])


def test_a_package_is_lent_only_where_it_is_missing(tmp_path, monkeypatch):
    """The training's own package stays; one that is missing is taken from lfdoctor's; one that does not load is an ImportError."""
    (tmp_path / "lent_to_tests").mkdir()
    (tmp_path / "lent_to_tests" / "__init__.py").write_text("from .part import value\n")
    (tmp_path / "lent_to_tests" / "part.py").write_text("value = 7\n")
    imports.import_from_path("lent_to_tests", str(tmp_path / "lent_to_tests"))
    assert sys.modules["lent_to_tests"].value == 7
    own = sys.modules["json"]
    imports.import_from_path("json", str(tmp_path / "lent_to_tests"))
    assert sys.modules["json"] is own
    (tmp_path / "broken_loan").mkdir()
    (tmp_path / "broken_loan" / "__init__.py").write_text("raise OSError('another Python')\n")
    with pytest.raises(ImportError, match="another Python"):
        imports.import_from_path("broken_loan", str(tmp_path / "broken_loan"))
    assert "broken_loan" not in sys.modules
    for name in ("lent_to_tests", "lent_to_tests.part"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("training", "warn", "pause", "longest", "hangs"),
    [
        (True, True, 31, 1.0, True),
        (True, True, 29, 1.0, False),
        (True, True, 99, 20.0, False),
        (True, True, 101, 20.0, True),
        (True, False, 301, 1.0, True),
        (True, False, 299, 1.0, False),
        (True, False, 301, 16.0, False),
        (True, False, 400, 19.9, True),
        (False, True, 9999, 1.0, False),
    ],
)
def test_what_counts_as_a_hang(tmp_path, training, warn, pause, longest, hangs):
    """More than 30 s and five times the slowest step, while a training is on; beside `lfdoctor run`, which asks by itself, 300 s and 20."""
    check, timer = hang_check.HangCheck(0, warn=warn), step_timer.StepTimer()
    timer.step_ends()
    timer.slowest["step"] = longest
    timer.last_event -= pause
    check.look(timer, tmp_path, training=training)
    if check.stack_file is not None:
        check.stack_file._open().close()
    assert (tmp_path / "lfdoctor-stacks-rank0.txt").exists() is hangs


def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that a StepTimer sees; add to its only element to let it pass."""
    now = [1000.0]
    monkeypatch.setattr(step_timer.time, "perf_counter", lambda: now[0])
    return now


def test_what_is_expected_is_learnt(monkeypatch):
    """Each phase has its own slowest pause: an evaluation says nothing of steps, and what a run has not done yet may take 300 s."""
    now = clock(monkeypatch)
    timer = step_timer.StepTimer()
    told = [timer.expected]

    def passes(seconds: float, event: Callable[[], object]) -> None:
        now[0] += seconds
        event()
        told.append(timer.expected)

    passes(8, timer.step_begins)
    passes(2, timer.step_ends)
    timer.goes_on_with(evaluation=True, save=True)
    passes(0, timer.event)
    passes(70, timer.evaluates)
    passes(1, timer.evaluated)
    passes(10, timer.saved)
    timer.goes_on_with(evaluation=True, save=False)
    passes(0, timer.event)
    passes(5, timer.evaluated)
    timer.goes_on_with(evaluation=False, save=True)
    passes(0, timer.event)
    #       start begins ends  evaluation  batch  figures: a save is next; saved  evaluation  over  save
    assert told == [300, 300, 40, 300, 350, 300, 40, 350, 40, 50]


@pytest.mark.parametrize("stops", [False, True])
def test_a_disk_without_room_is_told_at_the_start(tmp_path, monkeypatch, capsys, stops):
    """With the figures; the training ends there only where the doctor may stop it, and the report gives the disk as the cause."""
    monkeypatch.setattr(checkpoint_size, "_free", lambda _: 1 << 30)
    weight = types.SimpleNamespace(requires_grad=True, numel=lambda: 1 << 29, element_size=lambda: 4)
    model = types.SimpleNamespace(parameters=lambda: iter([weight]))
    trainer = Trainer([ours := DoctorCallback(warn=False, stop_on_divergence=stops)], tmp_path, [2.0])
    trainer.args = types.SimpleNamespace(**vars(trainer.args), save_strategy="steps", optim="adamw_torch", save_total_limit=None)
    ended = pytest.raises(SystemExit, match="could not be saved") if stops else contextlib.nullcontext()
    with ended as caught:
        trainer.call("on_train_begin", model=model)
    if stops:
        owner.process_crashed(caught.value)
    ours.recorder.flush()
    assert "no room for one checkpoint (weights + optimizer states > free): 2.00 + 4.00 = 6.00 GiB > 1.00 GiB" in capsys.readouterr().err
    (root,) = [one for one in analyze(tmp_path).findings if one.role == "root"]
    assert root.rule == "memory/disk-too-small"
    assert "2.00 + 4.00 = 6.00 GiB > 1.00 GiB" in root.text


def test_a_checkpoint_is_saved_before_the_doctor_stops(tmp_path):
    """The trainer saves after its logs, and ends then."""
    trainer = Trainer([ours := DoctorCallback(warn=False)], tmp_path, [2.0, 9.0, 9.0])
    trainer.args = types.SimpleNamespace(**vars(trainer.args), save_strategy="steps", save_total_limit=None)
    trainer.control.should_save = False
    trainer.call("on_train_begin", model=None)
    ours._judge = types.SimpleNamespace(step=lambda step, metrics: "the loss exploded" if metrics["loss"] > 5 else None)
    for loss, stopped in ((2.0, False), (9.0, True)):
        trainer.call("on_log", logs={"loss": loss})
        assert (trainer.control.should_save, trainer.control.should_training_stop) == (stopped, stopped)
