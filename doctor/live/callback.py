"""DoctorCallback: hears a trainer's events and writes them down; never raises, slows or stops a training unless asked to.

It has the methods of transformers' TrainerCallback without being one: nothing is imported, so it fits every version from 4.41 on, TRL,
LLaMA-Factory's PPO loop (fewer events) and its v1 trainer (no `control`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doctor.live import crashes, snapshot
from doctor.live.own_time import OwnTime
from doctor.live.recorder import Recorder, rank_of_process, say
from doctor.live.sampler import Sampler

TICK = 1.0
"""Between logs the step is noted once in so many seconds."""
SILENCE, SILENCE_TIMES = 300.0, 20.0
"""No event for so many seconds, and for so many times the longest pause so far, is silence: where the training hangs is written down."""

_owner: list[DoctorCallback] = []
"""The callback that records this process's training: of several in one trainer the first."""


def _harmless(method: Callable[..., Any]) -> Callable[..., Any]:
    """An error of ours switches us off, is told once, and goes no further."""

    @functools.wraps(method)
    def guarded(self: DoctorCallback, *args: Any, **kwargs: Any) -> Any:
        if self.recorder is None or self.recorder.dead:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.recorder.fail(error)
            return None

    return guarded


class DoctorCallback:
    """`Trainer(callbacks=[DoctorCallback()])`, or LLaMA-Factory's `run_exp(args, callbacks=[DoctorCallback()])`.

    `folder` is where `lfdoctor.jsonl` goes (default: the training's output folder). `warn`: tell new findings on the console.
    `stop_on_divergence`: end the training, as an early stop would, once a divergence or a non-finite loss is certain.
    """

    def __init__(self, folder: str | Path | None = None, *, warn: bool = True, stop_on_divergence: bool = False) -> None:
        told = os.environ.get("LFDOCTOR_DIR")
        self.folder = Path(folder) if folder is not None else Path(told) if told else None
        self.warn = warn and os.environ.get("LFDOCTOR_MONITOR") != "off"
        self.stop_on_divergence = stop_on_divergence or os.environ.get("LFDOCTOR_STOP") == "1"
        self.recorder: Recorder | None = None
        self.training = False
        self._trainer: Any = None
        self._seen: list[BaseException] = []
        self._judge: Any = None
        self._own: OwnTime | None = None
        self._reset()
        try:
            self._prepare()
        except Exception as error:
            say(f"not watching this training: {type(error).__name__}: {error}")

    def _prepare(self) -> None:
        rank = rank_of_process()
        sampler = Sampler(self.folder, whole=os.environ.get("LOCAL_RANK", "0") == "0")
        self._sampler = sampler
        self.recorder = Recorder(self.folder, rank, sample=self._look)
        given = snapshot.given() if rank == 0 else None
        if given:
            self.recorder.put(given)
        module = sys.modules.get("transformers.trainer")
        if module is not None:
            self.attach(module)

    def attach(self, module: Any) -> None:
        """Watches `module.Trainer.train` and uncaught exceptions; only the first callback of a process does."""
        if not _owner:
            _owner.append(self)
            crashes.watch_uncaught(_crashed)
            crashes.watch_training(module.Trainer, _begins, _crashed)

    @property
    def _mine(self) -> bool:
        """Whether this callback is the one that records."""
        return bool(_owner) and _owner[0] is self

    def _take_over(self) -> bool:
        """Becomes the one that records, unless another one is at it."""
        if not self._mine and not (_owner and _owner[0].training):
            _owner[:] = [self]
        return self._mine

    def __getattr__(self, name: str) -> Any:
        """Events that we do not use, and those that later versions add."""
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(name)

    def __reduce__(self) -> Any:
        """Ray sends callbacks to its workers: a fresh one begins there."""
        return _again, (self.folder, self.warn, self.stop_on_divergence)

    def _reset(self) -> None:
        now = time.perf_counter()
        self._start = self._idle = self._record = self._tick = now
        self._wait = self._save = 0.0
        self._steps = 0
        self._last_step = 0
        self._longest = 0.0
        self._silent = False
        self._thread = threading.get_ident()

    @_harmless
    def on_init_end(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """A trainer exists: where the folder is known, what happens before the training is written, too."""
        if self.folder is not None and self._mine and self.recorder is not None:
            self.recorder.start()

    @_harmless
    def on_train_begin(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """Configuration, environment and facts; the recorder begins to write."""
        if self.recorder is None or not self._take_over():
            return
        self.training = True
        folder = self.folder or Path(str(getattr(args, "output_dir", None) or "."))
        self._sampler.folder = self._sampler.folder or folder
        if self.recorder.rank == 0 and _is_first(state):
            values = snapshot.effective(args, self._trainer)
            self.recorder.put({"type": "ConfigSeen", "values": values})
            for name, value in snapshot.facts(args, state, kwargs.get("model"), self._trainer):
                self._fact(name, value)
            if self.warn:
                self._watch()
        if self.stop_on_divergence:
            self._judge = _stop_judge(args, self._trainer)
        self.recorder.start(folder)
        self._own = OwnTime.of(args, self._trainer)
        self._reset()
        self._last_step = _whole(getattr(state, "global_step", 0))

    def _watch(self) -> None:
        """Findings as they come, on the recorder's thread; needs what the doctor itself needs (msgspec), and does without."""
        try:
            from doctor.live.monitor import Monitor
        except ImportError:
            return
        if self.recorder is not None:
            self.recorder.listener = Monitor(lambda text: say(f"{text} (lfdoctor analyze)")).line

    @_harmless
    def on_epoch_begin(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """The data loader begins anew."""
        self._idle = time.perf_counter()

    @_harmless
    def on_step_begin(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """The step's batches are there (transformers fetches them before this event): what has passed since the last event was waiting."""
        self._wait += time.perf_counter() - self._idle
        if self._own is not None:
            self._own.step_begins(self._idle)

    @_harmless
    def on_step_end(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """One more step; noted once a second, or with the next log."""
        now = time.perf_counter()
        self._longest = max(self._longest, now - self._idle)
        self._idle = now
        self._steps += 1
        self._last_step = state.global_step
        if now - self._tick >= TICK and self._mine:
            self._tick = now
            self._step(state, now, {})

    @_harmless
    def on_log(self, args: Any, state: Any, control: Any = None, logs: Any = None, **kwargs: Any) -> None:
        """What the trainer logs, and with it the clock, the tokens and the allocator."""
        now = time.perf_counter()
        if isinstance(logs, dict) and self._mine:
            metrics = {name: value for name, one in logs.items() if (value := _figure(one)) is not None and name != "step"}
            if now - self._tick >= TICK or self._tick == self._start:
                metrics.update(snapshot.allocator())
            self._tick = now
            tokens = _whole(getattr(state, "num_input_tokens_seen", 0))
            if tokens:
                metrics["total_tokens"] = float(tokens)
            self._step(state, now, metrics)
            self._maybe_stop(control, state, metrics)
        self._idle = time.perf_counter()

    def _step(self, state: Any, now: float, metrics: dict[str, float]) -> None:
        """A Step event; step_seconds and data_wait_seconds are means over the steps since the last one, save_seconds is the sum."""
        if self._save:
            metrics["save_seconds"] = round(self._save, 6)
            self._save = 0.0
        if self._steps:
            metrics["step_seconds"] = round((now - self._record) / self._steps, 6)
            metrics["data_wait_seconds"] = round(min(self._wait, now - self._record) / self._steps, 6)
            self._tell_own_time(now)
            self._record, self._wait, self._steps = now, 0.0, 0
        if not metrics or self.recorder is None:
            return
        total = _whole(getattr(state, "max_steps", None) or getattr(state, "num_training_steps", 0))
        self.recorder.put(
            {
                "type": "Step",
                "time": round(time.time(), 3),
                "step": _whole(state.global_step),
                "total": total,
                "seconds": round(now - self._start, 3),
                "metrics": metrics,
            }
        )

    def _tell_own_time(self, now: float) -> None:
        """Of every rank: rank 0 alone could not tell that it waits."""
        if self._own is not None and self.recorder is not None:
            figures = {"own_seconds": self._own.take() / self._steps, "step_seconds": (now - self._record) / self._steps}
            figures = {name: round(value, 6) for name, value in figures.items()}
            sample = {"type": "Sample", "time": round(time.time(), 3), "seconds": round(now - self._start, 3), "metrics": figures}
            self.recorder.put({**sample, "rank": self.recorder.rank})

    def _maybe_stop(self, control: Any, state: Any, metrics: dict[str, float]) -> None:
        """Every rank sees the same logs and so decides the same, at the same step; a stop of one rank alone would hang the others."""
        if self._judge is None or control is None or control.should_training_stop:
            return
        reason = self._judge.step(_whole(state.global_step), metrics)
        if reason is not None:
            control.should_training_stop = True
            self._fact("stopped_by_doctor", reason)
            if _is_first(state):
                say(f"stopping the training at step {state.global_step}: {reason}")

    @_harmless
    def on_evaluate(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """Evaluation is over: its time is no waiting for data."""
        self._idle = time.perf_counter()

    on_predict = on_prediction_step = on_evaluate

    def _look(self) -> dict[str, float]:
        """On the recorder's thread: the machine, and whether the training has fallen silent."""
        pause = time.perf_counter() - self._idle
        silent = self.training and pause > max(SILENCE, SILENCE_TIMES * self._longest)
        if silent and not self._silent and self.recorder is not None:
            stack = traceback.extract_stack(sys._current_frames().get(self._thread))[-30:]
            places = [f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" for frame in stack]
            text = f"rank {self.recorder.rank}: no event of the training for {pause:.0f} s after step {self._last_step}; it is at"
            for line in (text, *places):
                self.recorder.put({"type": "LogLine", "time": time.time(), "rank": self.recorder.rank, "text": line})
            say(f"{text} {places[-1] if places else 'an unknown place'}")
        self._silent = silent
        return self._sampler.read()

    @_harmless
    def on_save(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """A checkpoint is written (what came before it, a log or an evaluation, has an event of its own): no waiting for data."""
        now = time.perf_counter()
        self._save += now - self._idle
        self._idle = now
        self._fact("saved_at_step", _whole(state.global_step))

    @_harmless
    def on_train_end(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """The loop is over; whether as planned."""
        if self._mine and self.recorder is not None:
            self._step(state, time.perf_counter(), {})
            planned = _whole(getattr(state, "max_steps", None) or getattr(state, "num_training_steps", 0))
            if planned and _whole(state.global_step) >= planned:
                self._fact("run.completed", True)
            self.recorder.flush()
        self.training = False
        if self._own is not None:
            self._own.close()

    def begins(self, trainer: Any) -> None:
        """A trainer is about to train: it holds LLaMA-Factory's arguments, which no event tells of."""
        self._trainer = trainer

    def crashed(self, error: BaseException) -> None:
        """An exception left the training or ends the process: written down at once, on this thread's time (2 seconds at most)."""
        recorder = self.recorder
        if recorder is None or recorder.dead or any(one is error for one in self._seen) or _no_crash(error):
            return
        self._seen = [*self._seen, error][-8:]
        self.training = False
        for event in crashes.events_of(error, recorder.rank):
            recorder.put(event)
        state = snapshot.allocator()
        if state:
            recorder.put({"type": "Sample", "time": time.time(), "rank": recorder.rank, "metrics": state})
        if self._last_step:
            self._fact("crashed_after_step", self._last_step)
        recorder.start()
        recorder.flush()

    def _fact(self, name: str, value: Any) -> None:
        if self.recorder is not None:
            self.recorder.put({"type": "Fact", "name": name, "value": value})


def _nothing(*_: Any, **__: Any) -> None:
    """An event that tells us nothing."""


def _again(folder: Path | None, warn: bool, stop: bool) -> DoctorCallback:
    return DoctorCallback(folder, warn=warn, stop_on_divergence=stop)


def _begins(trainer: Any) -> None:
    with contextlib.suppress(Exception):  # never into a training
        _owner[0].begins(trainer)


def _crashed(error: BaseException) -> None:
    with contextlib.suppress(Exception):  # never over somebody's own exception
        _owner[0].crashed(error)


def _no_crash(error: BaseException) -> bool:
    """A clean exit, and the launcher that only repeats that its child failed."""
    return (isinstance(error, SystemExit) and error.code in (0, None)) or type(error).__name__ in ("CalledProcessError", "ChildFailedError")


def _stop_judge(args: Any, trainer: Any) -> Any:
    """The judge, where a stop is safe: one process, or a transformers Trainer, whose ranks all log the same."""
    from doctor.live.monitor import StopJudge

    alone = _whole(getattr(args, "world_size", 1)) <= 1
    return StopJudge() if alone or trainer is not None else None


def _is_first(state: Any) -> bool:
    return bool(getattr(state, "is_world_process_zero", True))


def _whole(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 1 << 60 else 0


def _figure(value: Any) -> float | None:
    """A logged number; a tensor is left alone, for reading it could wait for the card."""
    kind = type(value)
    if kind is float or kind is int:
        return float(value)
    if kind.__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        item = value.item()
        return float(item) if isinstance(item, (int, float)) else None
    return None
