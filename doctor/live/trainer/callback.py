"""DoctorCallback: hears a trainer's events and writes them down; never raises, slows or stops a training unless asked to.

It has the methods of transformers' TrainerCallback without being one: nothing is imported, so it fits every version from 4.41 on, TRL,
LLaMA-Factory's PPO loop (fewer events) and its v1 trainer (no `control`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doctor.live.trainer import crashes, memory_history, snapshot, stacks
from doctor.live.trainer.rank_work import RankWorkTimer
from doctor.live.trainer.recorder import Recorder, log_stderr, rank_of_process, run_with_timeout
from doctor.live.trainer.sampler import Sampler

TICK = 1.0
"""Between logs the step is noted once in so many seconds."""
SILENCE, SILENCE_TIMES = 300.0, 20.0
"""No event for so many seconds, and for so many times the longest pause so far, is silence: where the training hangs is written down."""

PAST = 500
"""So many logs from before a resumed training's checkpoint are repeated in its journal."""
TERMINATE_GRACE_SECONDS, SNAPSHOT = 1.0, 60.0
"""A disk that does not answer holds the training's thread so many seconds at most, when it begins; a memory snapshot a dying process."""

_owner: list[DoctorCallback] = []
"""The callback that records this process's training: of several in one trainer the first."""


def never_raise(method: Callable[..., Any]) -> Callable[..., Any]:
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
    `memory_snapshot`: if the card's memory runs out, leave a snapshot of who held it.
    """

    def __init__(
        self, folder: str | Path | None = None, *, warn: bool = True, stop_on_divergence: bool = False, memory_snapshot: bool = False
    ) -> None:
        told = os.environ.get("LFDOCTOR_DIR")
        self.folder = Path(folder) if folder is not None else Path(told) if told else None
        self.warn = warn and os.environ.get("LFDOCTOR_MONITOR") != "off"
        self.stop_on_divergence = stop_on_divergence or os.environ.get("LFDOCTOR_STOP") == "1"
        self.memory_snapshot = memory_snapshot or os.environ.get("LFDOCTOR_MEMORY_SNAPSHOT") == "1"
        self.recorder: Recorder | None = None
        self.training = False
        self._stacks: stacks.Stacks | None = None
        self._keeps_memory = False
        self._trainer: Any = None
        self._seen: list[BaseException] = []
        self._judge: Any = None
        self._own: RankWorkTimer | None = None
        self._reset()
        try:
            self._prepare()
        except Exception as error:
            log_stderr(f"not watching this training: {type(error).__name__}: {error}")

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
        """Watches uncaught exceptions and, of transformers, `module.Trainer.train`; only the first callback of a process does."""
        if not _owner:
            _owner.append(self)
            crashes.watch_uncaught(_crashed)
        if hasattr(module, "Trainer"):
            crashes.watch_training(module.Trainer, _begins, _crashed)

    def listen(self) -> None:
        """From now on `lfdoctor run` may ask this process where it stands."""
        if self.recorder is not None and self.folder is not None:
            self._stacks = stacks.Stacks(self.folder, self.recorder.rank)
            run_with_timeout(self._stacks.listen, TERMINATE_GRACE_SECONDS)

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
        return _again, (self.folder, self.warn, self.stop_on_divergence, self.memory_snapshot)

    def _reset(self) -> None:
        now = time.perf_counter()
        self._start = self._idle = self._record = self._tick = now
        self._wait = self._save = 0.0
        self._steps = 0
        self._last_step = 0
        self._longest = 0.0
        self._silent = False
        self._thread = threading.get_ident()

    @never_raise
    def on_init_end(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """A trainer exists: where the folder is known, what happens before the training is written, too."""
        if self.folder is not None and self._mine and self.recorder is not None:
            self._settle(args)
            self.recorder.start()

    def _settle(self, args: Any) -> None:
        """The rank as the trainer knows it."""
        rank = getattr(args, "process_index", None)
        if self.recorder is not None and type(rank) is int and rank != self.recorder.rank:
            self.recorder.settle(rank)
            if self._stacks is not None and self.recorder.rank == rank:
                self.listen()

    @never_raise
    def on_train_begin(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """Configuration, environment and facts; the recorder begins to write."""
        if self.recorder is None or not self._take_over():
            return
        self._settle(args)
        self.training = True
        folder = self.folder or Path(str(getattr(args, "output_dir", None) or "."))
        self._sampler.folder = self._sampler.folder or folder
        if self.recorder.rank == 0 and _is_first(state):
            values = snapshot.effective(args, self._trainer)
            self.recorder.put({"type": "ConfigSeen", "values": values})
            for name, value in snapshot.facts(args, state, kwargs.get("model"), self._trainer):
                self._fact(name, value)
            self._watch(args)
        if os.environ.get("LFDOCTOR_SET_RATE") == "1" and _whole(getattr(state, "global_step", 0)):
            self._set_rate(args, kwargs.get("optimizer"), kwargs.get("lr_scheduler"))
        if self.stop_on_divergence:
            self._judge = _stop_judge(args, self._trainer)
        self._remember(state)
        self.recorder.start(folder)
        self._keep_memory()
        self._own = RankWorkTimer.of(args, self._trainer)
        self._reset()
        self._last_step = _whole(getattr(state, "global_step", 0))

    def _remember(self, state: Any) -> None:
        """What a resumed training logged before its checkpoint: a divergence that goes on from there is seen against what was good."""
        begun = _whole(getattr(state, "global_step", 0))
        for log in (getattr(state, "log_history", None) or [])[-PAST:] if begun else ():
            step = _whole(log.get("step"))
            metrics = {name: value for name, one in log.items() if name != "step" and (value := _figure(one)) is not None}
            if not 0 < step <= begun or not metrics:
                continue
            if self.recorder is not None and self.recorder.rank == 0:
                self.recorder.put({"type": "Step", "step": step, "metrics": metrics, "history": True})
            if self._judge is not None:
                self._judge.step(step, metrics)

    def _keep_memory(self) -> None:
        """Begins the history that a snapshot needs; one that torch cannot keep costs the snapshot only."""
        if self.memory_snapshot and not self._keeps_memory:
            try:
                self._keeps_memory = memory_history.begin()
            except Exception as error:  # another torch than any that we know
                self.memory_snapshot = False
                log_stderr(f"no memory snapshot here: {type(error).__name__}: {error}")

    def _set_rate(self, args: Any, optimizer: Any, schedule: Any) -> None:
        """A resumed run takes its learning rate from the checkpoint; `lfdoctor run --heal` asks for that of the config instead.

        The schedule stays where it is: every LambdaLR is a factor of its base rates, the first of which is `learning_rate`.
        """
        before = schedule.base_lrs[0]
        factor = float(args.learning_rate) / before
        schedule.base_lrs = [rate * factor for rate in schedule.base_lrs]
        for group in optimizer.param_groups:
            group["lr"] *= factor
            group["initial_lr"] = group.get("initial_lr", before) * factor
        schedule._last_lr = [group["lr"] for group in optimizer.param_groups]
        self._fact("learning_rate_set", args.learning_rate)

    def _watch(self, args: Any) -> None:
        """What listens on the recorder's thread: warnings on the console, TensorBoard, notifications."""
        lines: list[Callable[[bytes], None]] = []
        texts: list[Callable[[str], None]] = [lambda text: log_stderr(f"{text} (lfdoctor analyze)")] if self.warn else []
        if "tensorboard" in (getattr(args, "report_to", None) or ()):
            from doctor.live.trainer.tensorboard import Board, writer_of

            board = Board(lambda: writer_of(self._trainer))
            lines.append(board.line)
            texts.append(board.finding)
        urls = os.environ.get("LFDOCTOR_NOTIFY", "").split() if self.warn else []
        if texts or urls:
            lines += self._monitor(texts, urls)
        if lines and self.recorder is not None:
            self.recorder.listeners += lines

    def _monitor(self, texts: list[Callable[[str], None]], urls: list[str]) -> list[Callable[[bytes], None]]:
        """The monitor's ear; none where what the doctor itself needs (msgspec) is not to be had."""
        try:
            import_from_path("msgspec", os.environ.get("LFDOCTOR_MSGSPEC"))
            from doctor.live.trainer.monitor import Monitor

            if urls:
                from doctor.live.watch.alerts import Notifier

                texts.append(Notifier(urls, f"lfdoctor: {self.folder or Path.cwd()}", complain=log_stderr).tell)
        except Exception as error:
            log_stderr(f"no warnings here: {error}")
            return []

        def tell(text: str) -> None:
            for one in texts:
                one(text)

        return [Monitor(tell).line]

    @never_raise
    def on_epoch_begin(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """The data loader begins anew."""
        self._idle = time.perf_counter()

    @never_raise
    def on_step_begin(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """The step's batches are there (transformers fetches them before this event): what has passed since the last event was waiting."""
        self._wait += time.perf_counter() - self._idle
        if self._own is not None:
            self._own.step_begins(self._idle)

    @never_raise
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

    @never_raise
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
                log_stderr(f"stopping the training at step {state.global_step}: {reason}")

    @never_raise
    def on_evaluate(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """Evaluation is over: its time is no waiting for data."""
        self._idle = time.perf_counter()

    on_predict = on_prediction_step = on_evaluate

    def _look(self) -> dict[str, float]:
        """On the recorder's thread: the machine, and whether the training has fallen silent."""
        pause = time.perf_counter() - self._idle
        silent = self.training and pause > max(SILENCE, SILENCE_TIMES * self._longest)
        if silent and not self._silent:
            with contextlib.suppress(Exception):  # no file for the stacks: the journal goes on
                self.dump_stacks(pause)
        self._silent = silent
        return self._sampler.read()

    def dump_stacks(self, pause: float) -> None:
        """Where every thread stands, in a file beside the journal; the place of the training's on the console, if nobody else tells it."""
        if self.recorder is None or self._sampler.folder is None:
            return
        self._stacks = self._stacks or stacks.Stacks(self._sampler.folder, self.recorder.rank)
        self._stacks.write(self._last_step, pause, self._thread)
        if self.warn:
            frame = sys._current_frames().get(self._thread)
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" if frame is not None else "an unknown place"
            text = f"rank {self.recorder.rank}: no event of the training for {pause:.0f} s after step {self._last_step}; it is at {place}"
            log_stderr(f"{text} ({self._stacks.path})")

    @never_raise
    def on_save(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """A checkpoint is written (what came before it, a log or an evaluation, has an event of its own): no waiting for data."""
        now = time.perf_counter()
        self._save += now - self._idle
        self._idle = now
        self._fact("saved_at_step", _whole(state.global_step))

    @never_raise
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
        if self._keeps_memory and memory_history.is_out_of_memory(error) and self._sampler.folder is not None:
            self._keeps_memory = False
            folder, rank = self._sampler.folder, recorder.rank
            run_with_timeout(lambda: memory_history.write(folder, rank), SNAPSHOT)

    def _fact(self, name: str, value: Any) -> None:
        if self.recorder is not None:
            self.recorder.put({"type": "Fact", "name": name, "value": value})


def _nothing(*_: Any, **__: Any) -> None:
    """An event that tells us nothing."""


def _again(folder: Path | None, warn: bool, stop: bool, snapshot: bool) -> DoctorCallback:
    return DoctorCallback(folder, warn=warn, stop_on_divergence=stop, memory_snapshot=snapshot)


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
    """The judge, where a stop is safe: one process, or a transformers Trainer, whose ranks all log the same.

    It needs msgspec; where the training's environment has none, that of the `lfdoctor run` which started it is used, under its name.
    """
    try:
        import_from_path("msgspec", os.environ.get("LFDOCTOR_MSGSPEC"))
        from doctor.live.trainer.monitor import StopJudge
    except ImportError as error:
        log_stderr(f"cannot stop a diverging run by itself here: {error}")
        return None
    alone = _whole(getattr(args, "world_size", 1)) <= 1
    return StopJudge() if alone or trainer is not None else None


def import_from_path(name: str, place: str | None) -> None:
    """Makes the package in the folder `place` importable as `name`, unless the environment has one. Raises ImportError."""
    if name in sys.modules or importlib.util.find_spec(name) is not None or not place:  # noqa: TID251 (msgspec)
        return
    spec = importlib.util.spec_from_file_location(name, Path(place) / "__init__.py", submodule_search_locations=[place])
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # built for another Python
        del sys.modules[name]
        raise ImportError(f"{name} of lfdoctor does not load here: {error}") from error


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
