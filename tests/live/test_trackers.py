"""Alerts in the trackers that a run reports to: the libraries are fakes with the documented calls, as they behave across threads."""

from __future__ import annotations

import contextvars
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest

from doctor import DoctorCallback
from doctor.live.trainer import callback as module
from doctor.live.trainer import owner
from doctor.live.trainer.trackers import ATTEMPTS, MAX_WAITING, Trackers

TEXT = "error at step 5: The loss became NaN [stability/nonfinite]"


class Sent(list):
    """What arrived, and from which thread."""

    def wait(self, count: int) -> list[Any]:
        until = time.monotonic() + 5
        while len(self) < count and time.monotonic() < until:
            time.sleep(0.01)
        return list(self)


def fake_wandb(sent: Sent) -> types.ModuleType:
    """`wandb.run` is None until wandb.init."""
    wandb = types.ModuleType("wandb")
    wandb.run = types.SimpleNamespace(alert=lambda title, text, level=None, wait_duration=60: sent.append((title, text, wait_duration)))
    return wandb


def fake_swanlab(sent: Sent) -> types.ModuleType:
    """get_run raises without a run, as in 0.10."""
    swanlab = types.ModuleType("swanlab")
    swanlab.opened = True

    def get_run() -> object:
        if not swanlab.opened:
            raise RuntimeError("no run")
        return object()

    swanlab.get_run, swanlab.Text = get_run, lambda text: ("text", text)
    swanlab.log = lambda data, step=None: sent.append((data, step))
    return swanlab


def fake_mlflow(sent: Sent) -> types.ModuleType:
    """The active run belongs to the thread that started it."""
    mlflow, opened_by = types.ModuleType("mlflow"), threading.get_ident()
    run = types.SimpleNamespace(info=types.SimpleNamespace(run_id="r7"))
    mlflow.active_run = lambda: run if threading.get_ident() == opened_by else None
    mlflow.MlflowClient = lambda: types.SimpleNamespace(set_tag=lambda *words: sent.append(words))
    return mlflow


def fake_trackio(sent: Sent) -> types.ModuleType:
    """The current run is a context variable; alert raises where it is not set."""
    trackio = types.ModuleType("trackio")
    current: contextvars.ContextVar[Any] = contextvars.ContextVar("current_run", default=None)
    trackio.context_vars = types.SimpleNamespace(current_run=current)

    def alert(title: str, text: str | None = None, level: str = "warn") -> None:
        if current.get() is None:
            raise RuntimeError("Call trackio.init() before trackio.alert().")
        sent.append((title, text))

    trackio.alert = alert
    current.set("run")
    return trackio


FAKES = {"wandb": fake_wandb, "swanlab": fake_swanlab, "mlflow": fake_mlflow, "trackio": fake_trackio}
EXPECTED = {
    "wandb": ("lfdoctor: stability/nonfinite", f"step 5: {TEXT}", 0),
    "swanlab": ({"lfdoctor/stability-nonfinite": ("text", TEXT)}, 5),
    "mlflow": ("r7", "lfdoctor.stability.nonfinite", f"step 5: {TEXT}"),
    "trackio": ("lfdoctor: stability/nonfinite", f"step 5: {TEXT}"),
}


@pytest.mark.parametrize("name", FAKES)
def test_an_alert_arrives(monkeypatch, name):
    """In the form that the tracker documents, sent from another thread than the training's."""
    sent = Sent()
    monkeypatch.setitem(sys.modules, name, FAKES[name](sent))
    trackers = Trackers.of(types.SimpleNamespace(report_to=[name]), None)
    trackers.find(5)
    threading.Thread(target=trackers.tell, args=(TEXT,)).start()
    assert sent.wait(1) == [EXPECTED[name]]
    assert trackers._thread is not threading.current_thread()


@pytest.mark.parametrize(
    ("report_to", "callbacks", "names"),
    [
        ([], [], None),
        ("none", [], None),
        (None, [], None),
        (["tensorboard"], ["ProgressCallback"], None),
        (["wandb", "tensorboard"], [], ["wandb"]),
        ("mlflow", [], ["mlflow"]),
        ([], ["SwanLabCallbackExtension", "LogCallback"], ["swanlab"]),
        ([], ["TrackioCallback"], ["trackio"]),
        (["all"], [], ["wandb", "swanlab", "mlflow", "trackio"]),
    ],
)
def test_where_the_run_reports(report_to, callbacks, names):
    """report_to, and callbacks that LLaMA-Factory adds by itself; any other tracker is left alone."""
    handler = types.SimpleNamespace(callbacks=[type(name, (), {})() for name in callbacks])
    trackers = Trackers.of(types.SimpleNamespace(report_to=report_to), types.SimpleNamespace(callback_handler=handler))
    assert (list(trackers._missing) if trackers else None) == names


def test_a_tracker_of_others_is_not_touched(monkeypatch):
    """W&B is loaded and has a run, but this training does not report to it."""
    sent = Sent()
    monkeypatch.setitem(sys.modules, "wandb", fake_wandb(sent))
    assert Trackers.of(types.SimpleNamespace(report_to=["tensorboard"]), None) is None


def test_a_run_that_is_opened_later(monkeypatch):
    """What was found before wandb.init arrives once it was called; it keeps its own step."""
    sent = Sent()
    wandb = fake_wandb(sent)
    opened, wandb.run = wandb.run, None
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    trackers = Trackers(["wandb", "mlflow"])
    trackers.find(1)
    trackers.tell("warning [a/b]")
    assert trackers._thread is None
    wandb.run = opened
    trackers.find(2)
    assert sent.wait(1) == [("lfdoctor: a/b", "step 1: warning [a/b]", 0)]


def test_the_search_ends(monkeypatch):
    """A tracker that never opens a run is looked for a few times, not at every log."""
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    trackers = Trackers(["wandb"])
    for step in range(10 * ATTEMPTS):
        trackers.find(step)
    monkeypatch.setitem(sys.modules, "wandb", fake_wandb(Sent()))
    trackers.find(1000)
    assert trackers._found == []


def test_a_tracker_that_fails_or_hangs_costs_nothing(monkeypatch):
    """An exception of one does not keep the alert from the other; behind a server that does not answer at most 100 wait."""
    sent, answer = Sent(), threading.Event()
    wandb, mlflow = fake_wandb(sent), fake_mlflow(sent)
    wandb.run.alert = lambda **_: 1 / 0
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    trackers = Trackers(["wandb", "mlflow"])
    trackers.find(5)
    trackers.tell(TEXT)
    assert sent.wait(1) == [EXPECTED["mlflow"]]
    wandb.run.alert = lambda **_: answer.wait(10)
    began = time.monotonic()
    for number in range(3 * MAX_WAITING):
        trackers.tell(f"{number} [a/b]")
    assert time.monotonic() - began < 2
    assert trackers._queue.qsize() <= MAX_WAITING
    answer.set()


def test_a_training_tells_its_tracker(monkeypatch, tmp_path: Path):
    """End to end: a loss that becomes NaN is an alert in the W&B run that the training opened with its first log."""
    monkeypatch.setattr(owner, "OWNERS", owners := [])
    monkeypatch.setattr(module, "OWNERS", owners)
    sent = Sent()
    wandb = fake_wandb(sent)
    opened, wandb.run = wandb.run, None
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    args = types.SimpleNamespace(output_dir=str(tmp_path), report_to=["wandb"], world_size=1, to_dict=dict)
    state = types.SimpleNamespace(global_step=0, max_steps=8, is_world_process_zero=True, num_input_tokens_seen=0)
    callback = DoctorCallback(warn=False)
    callback.on_train_begin(args, state, None, model=None)
    for loss in [2.0, 1.9, 1.8, float("nan"), float("nan"), float("nan"), float("nan"), float("nan")]:
        state.global_step += 1
        callback.on_step_end(args, state, None)
        callback.on_log(args, state, None, logs={"loss": loss, "learning_rate": 1e-4, "grad_norm": 1.0})
        wandb.run = opened
    callback.on_train_end(args, state, None)
    assert "lfdoctor: stability/nonfinite" in [title for title, *_ in sent.wait(1)]
    assert not callback.recorder.dead
