"""DoctorCallback: writes down the events of a trainer; never raises, slows or stops a training unless asked to.

It has the methods of transformers' TrainerCallback without inheriting from it, so importing it imports nothing. It fits transformers from
4.41 on, TRL, LLaMA-Factory's PPO loop (fewer events) and its v1 trainer (no `control`).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from doctor.live.trainer import checkpoint_size, crashes, lock_watch, snapshot
from doctor.live.trainer.hang_check import HangCheck
from doctor.live.trainer.learning_rate import set_learning_rate
from doctor.live.trainer.listeners import listeners, saves_at_stop, stop_judge
from doctor.live.trainer.memory_history import MemoryHistory
from doctor.live.trainer.owner import OWNERS, is_owner, never_raise, process_crashed, take_over, training_begins
from doctor.live.trainer.rank_work import RankWorkTimer
from doctor.live.trainer.recorder import Recorder, log_stderr, rank_of_process, run_with_timeout
from doctor.live.trainer.sampler import Sampler
from doctor.live.trainer.stacks import StackFile
from doctor.live.trainer.step_timer import LEAST_SECONDS, StepTimer
from doctor.live.trainer.trackers import Trackers
from doctor.live.trainer.values import earlier_logs, is_main_process, planned_steps, to_count, to_metrics

NOTE_SECONDS = 1.0
"""Shortest time between two Step events without a log."""
ALIVE_SECONDS = 5.0
"""Shortest time between two Alive events during evaluation; `lfdoctor run` needs one before its silence limit."""
LISTEN_SECONDS = 1.0
"""Longest wait for a disk that does not answer when the training begins."""


class DoctorCallback:
    """`Trainer(callbacks=[DoctorCallback()])`, or LLaMA-Factory's `run_exp(args, callbacks=[DoctorCallback()])`.

    `folder` is where `lfdoctor.jsonl` goes (default: the training's output folder). `warn`: print new findings.
    `stop_on_divergence`: end the training, as an early stop would, once a divergence or a non-finite loss is certain.
    `memory_snapshot`: if the GPU's memory runs out, write a snapshot of who held it.
    """

    def __init__(
        self, folder: str | Path | None = None, *, warn: bool = True, stop_on_divergence: bool = False, memory_snapshot: bool = False
    ) -> None:
        from_env = os.environ.get("LFDOCTOR_DIR")
        self.folder = Path(folder) if folder is not None else Path(from_env) if from_env else None
        self.warn = warn and os.environ.get("LFDOCTOR_MONITOR") != "off"
        self.stop_on_divergence = stop_on_divergence or os.environ.get("LFDOCTOR_STOP") == "1"
        self.memory_snapshot = memory_snapshot or os.environ.get("LFDOCTOR_MEMORY_SNAPSHOT") == "1"
        self.recorder: Recorder | None = None
        self.training = False
        self._memory_history = MemoryHistory(wanted=self.memory_snapshot)
        self.trainer: Any = None
        self._recorded_errors: list[BaseException] = []
        self._judge: Any = None
        self._work_timer: RankWorkTimer | None = None
        self._timer = StepTimer()
        self._hang = HangCheck(rank_of_process(), warn=self.warn)
        self._last_alive = 0.0
        self._noted_step = 0
        self._watches_locks = False
        self._told_indices: list[int] = []
        self._trackers: Trackers | None = None
        try:
            self._prepare()
        except Exception as error:
            log_stderr(f"not watching this training: {type(error).__name__}: {error}")

    def _prepare(self) -> None:
        rank = rank_of_process()
        self._sampler = Sampler(self.folder, whole=os.environ.get("LOCAL_RANK", "0") == "0")
        self.recorder = Recorder(self.folder, rank, sample=self._sample)
        given = snapshot.given() if rank == 0 else None
        if given:
            self.recorder.put(given)
        module = sys.modules.get("transformers.trainer")
        if module is not None:
            self.attach(module)

    def attach(self, module: Any) -> None:
        """Watch uncaught exceptions and, of transformers, `module.Trainer.train`; only the first callback of a process does."""
        if not OWNERS:
            OWNERS.append(self)
            crashes.watch_uncaught(process_crashed)
        if hasattr(module, "Trainer"):
            crashes.watch_training(module.Trainer, training_begins, process_crashed)

    def listen(self) -> None:
        """Let `lfdoctor run` request this process's stacks with a signal."""
        if self.recorder is not None and self.folder is not None:
            self._hang.stack_file = StackFile(self.folder, self.recorder.rank)
            run_with_timeout(self._hang.stack_file.listen, LISTEN_SECONDS)
            if not self._watches_locks:
                self._watches_locks = True
                lock_watch.start(lambda: self._hang.stack_file)

    def __getattr__(self, name: str) -> Any:
        """Events that are not used here, including those of later versions."""
        if name.startswith("on_"):
            return _ignore
        raise AttributeError(name)

    def __reduce__(self) -> Any:
        """Pickle the settings only: Ray sends callbacks to its workers, where a fresh one starts.

        The copy that `lfdoctor run` loaded under a private name may not be importable where it is unpickled; an inert callback of
        transformers takes its place (a process that has the hook adds its own).
        """
        inert = getattr(sys.modules.get("transformers.trainer_callback"), "TrainerCallback", None)
        if not __name__.startswith("doctor.") and inert is not None:
            return inert, ()
        return _rebuild, (self.folder, self.warn, self.stop_on_divergence, self.memory_snapshot)

    @never_raise
    def on_init_end(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """A trainer exists; if the folder is known, write what happens before the training, too."""
        if self.folder is not None and is_owner(self) and self.recorder is not None:
            self._settle_rank(args)
            self.recorder.start()

    def _settle_rank(self, args: Any) -> None:
        """Use the rank the trainer knows (Ray sets it after the hook was loaded)."""
        rank = getattr(args, "process_index", None)
        if self.recorder is not None and type(rank) is int and rank != self.recorder.rank:
            self.recorder.settle(rank)
            self._hang.rank = self.recorder.rank
            if self._hang.stack_file is not None and self.recorder.rank == rank:
                self.listen()

    @never_raise
    def on_train_begin(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """Record configuration, environment and facts; the recorder begins to write."""
        if self.recorder is None or not take_over(self):
            return
        self._settle_rank(args)
        self.training = True
        folder = self.folder or Path(str(getattr(args, "output_dir", None) or "."))
        self._sampler.folder = self._sampler.folder or folder
        config = snapshot.effective(args, self.trainer)
        if self.recorder.rank == 0 and is_main_process(state):
            self.recorder.put({"type": "ConfigSeen", "values": config})
            for name, value in snapshot.facts(args, state, kwargs.get("model"), self.trainer):
                self._put_fact(name, value)
            self._check_disk(args, kwargs.get("model"))
            self._trackers = Trackers.of(args, self.trainer)
            self.recorder.listeners += listeners(args, lambda: self.trainer, self.folder, self._trackers, warn=self.warn)
        if os.environ.get("LFDOCTOR_SET_RATE") == "1" and to_count(getattr(state, "global_step", 0)):
            set_learning_rate(args, kwargs.get("optimizer"), kwargs.get("lr_scheduler"))
            self._put_fact("learning_rate_set", args.learning_rate)
        if self.stop_on_divergence:
            self._judge = stop_judge(args, self.trainer, config)
        self._repeat_history(state)
        self.recorder.start(folder)
        self._memory_history.begin()
        self._work_timer = RankWorkTimer.of(args, self.trainer)
        self._timer = StepTimer()
        self._hang.training_thread = threading.get_ident()
        self._hang.last_step = to_count(getattr(state, "global_step", 0))

    def _check_disk(self, args: Any, model: Any) -> None:
        """Say at once that no checkpoint will fit; end the training where stopping was asked for."""
        size = checkpoint_size.too_large(args, model)
        if size is None:
            return
        self._put_fact("checkpoint.too_large", size)
        log_stderr(f"the disk of {args.output_dir} has no room for one checkpoint (weights + optimizer states > free): {size}")
        if self.stop_on_divergence and self.recorder is not None:
            self.recorder.start(self._sampler.folder)
            self.recorder.flush()
            raise SystemExit("lfdoctor: not trained, its first checkpoint could not be saved")

    def _repeat_history(self, state: Any) -> None:
        """Logs from before the checkpoint of a resumed training: a divergence after it is judged against the levels before it."""
        for step, metrics in earlier_logs(state):
            if self.recorder is not None and self.recorder.rank == 0:
                self.recorder.put({"type": "Step", "step": step, "metrics": metrics, "history": True})
            if self._judge is not None:
                self._judge.remember(step, metrics)

    @never_raise
    def on_epoch_begin(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """The data loader starts over."""
        self._timer.event()

    @never_raise
    def on_step_begin(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """The step's batches are there: the time since the last event was spent waiting for data."""
        since = self._timer.step_begins()
        if self._work_timer is not None:
            self._work_timer.step_begins(since)

    @never_raise
    def on_step_end(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """One more step; written once a second, or with the next log."""
        now = self._timer.step_ends()
        self._hang.last_step = state.global_step
        comes = getattr(control, "should_evaluate", False), getattr(control, "should_save", False)
        if self._timer.goes_on_with(*comes):  # transformers' own callback has decided before ours is called
            self._put_alive()
        if now - self._timer.last_note >= NOTE_SECONDS and is_owner(self):
            self._timer.last_note = now
            self._put_step(state, now, {})

    @never_raise
    def on_log(self, args: Any, state: Any, control: Any = None, logs: Any = None, **kwargs: Any) -> None:
        """The trainer's metrics, with times, tokens and the allocator's figures."""
        now = self._timer.event()
        if isinstance(logs, dict) and is_owner(self):
            metrics = to_metrics(logs)
            if any(name.startswith("eval_") for name in metrics):
                self._timer.evaluated()
            if now - self._timer.last_note >= NOTE_SECONDS or self._timer.last_note == self._timer.start:
                metrics.update(snapshot.allocator())
            self._timer.last_note = now
            tokens = to_count(getattr(state, "num_input_tokens_seen", 0))
            if tokens:
                metrics["total_tokens"] = float(tokens)
            self._put_step(state, now, metrics)
            if self._trackers is not None:
                self._trackers.find(to_count(state.global_step))
            self._maybe_stop(args, control, state, metrics)

    def _put_step(self, state: Any, now: float, metrics: dict[str, float]) -> None:
        figures, steps = self._timer.take(now)
        if self.recorder is None:
            return
        seconds = self._timer.elapsed(now)
        if steps and self._work_timer is not None:  # of every rank: rank 0 alone cannot know that it waits
            work = {"own_seconds": round(self._work_timer.take() / steps, 6), "step_seconds": figures["step_seconds"]}
            sample = {"type": "Sample", "time": round(time.time(), 3), "seconds": seconds, "metrics": work}
            self.recorder.put({**sample, "rank": self.recorder.rank})
        metrics.update(figures)
        if not metrics:
            return
        self._noted_step = to_count(state.global_step)
        step = {"step": self._noted_step, "total": planned_steps(state), "seconds": seconds, "metrics": metrics}
        self.recorder.put({"type": "Step", "time": round(time.time(), 3), **step, **self._expected()})

    def _expected(self) -> dict[str, float]:
        """For `lfdoctor run`: seconds until the next sign of life is overdue, where they are not the least."""
        seconds = self._timer.expected
        return {"expected": round(seconds, 1)} if seconds > LEAST_SECONDS else {}

    def _put_alive(self) -> None:
        if self.recorder is not None and is_owner(self):
            self._last_alive = time.perf_counter()
            step = {"step": self._hang.last_step} if self._hang.last_step else {}
            self.recorder.put({"type": "Alive", "time": round(time.time() - self._timer.pause, 3), **step, **self._expected()})

    def _maybe_stop(self, args: Any, control: Any, state: Any, metrics: dict[str, float]) -> None:
        """All ranks see the same logs and decide alike, at the same step; a stop of one rank alone would hang the others.

        A checkpoint is saved first, so that who knows better can go on from there; not if that would delete an older, better one.
        """
        if self._judge is None or control is None or control.should_training_stop:
            return
        reason = self._judge.step(to_count(state.global_step), metrics)
        if reason is not None:
            control.should_training_stop = True
            if saves_at_stop(args, metrics):
                control.should_save = True
            self._put_fact("stopped_by_doctor", reason)
            if is_main_process(state):
                log_stderr(f"stopping the training at step {state.global_step}: {reason}")

    @never_raise
    def on_prediction_step(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """A batch of an evaluation or prediction: no waiting for data, and a sign of life for `lfdoctor run`."""
        if self._timer.evaluates() - self._last_alive >= ALIVE_SECONDS:
            self._put_alive()

    @never_raise
    def on_evaluate(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """An evaluation or prediction is over."""
        self._timer.evaluated()
        self._put_alive()

    on_predict = on_evaluate

    def _sample(self) -> dict[str, float]:
        """On the recorder's thread: note a last step that no log told, look for a hang, then read the machine."""
        if self.training and self._timer.pause > NOTE_SECONDS and self._hang.last_step > self._noted_step:
            self._noted_step = self._hang.last_step
            self._put_alive()
        self._hang.look(self._timer, self._sampler.folder, training=self.training)
        figures = self._sampler.read()
        indices = self._sampler.accelerators.indices
        if indices != self._told_indices:
            self._told_indices = indices
            self._put_fact("gpu.indices", indices)
        return figures

    @never_raise
    def on_save(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """A checkpoint was written since the last event (logs and evaluations have their own events)."""
        self._timer.saved()
        self._put_alive()
        self._put_fact("saved_at_step", to_count(state.global_step))

    @never_raise
    def on_train_end(self, args: Any, state: Any, control: Any = None, **kwargs: Any) -> None:
        """The loop is over; note whether all planned steps were done."""
        if is_owner(self) and self.recorder is not None:
            self._put_step(state, time.perf_counter(), {})
            planned = planned_steps(state)
            if planned and to_count(state.global_step) >= planned:
                self._put_fact("run.completed", True)
            self.recorder.flush()
        self.training = False
        if self._work_timer is not None:
            self._work_timer.close()

    def begins(self, trainer: Any) -> None:
        """Called before `Trainer.train`: the trainer holds LLaMA-Factory's arguments, which no event carries."""
        self.trainer = trainer

    def crashed(self, error: BaseException) -> None:
        """An exception left the training or ends the process: write it at once, on this thread (at most 2 s)."""
        recorder = self.recorder
        if recorder is None or recorder.dead or any(seen is error for seen in self._recorded_errors) or crashes.is_no_crash(error):
            return
        self._recorded_errors = [*self._recorded_errors, error][-8:]
        self.training = False
        for event in crashes.events_of(error, recorder.rank):
            recorder.put(event)
        allocator = snapshot.allocator()
        if allocator:
            recorder.put({"type": "Sample", "time": time.time(), "rank": recorder.rank, "metrics": allocator})
        if self._hang.last_step:
            self._put_fact("crashed_after_step", self._hang.last_step)
        recorder.start()
        recorder.flush()
        self._memory_history.training_failed(error, self._sampler.folder, recorder.rank)

    def _put_fact(self, name: str, value: Any) -> None:
        if self.recorder is not None:
            self.recorder.put({"type": "Fact", "name": name, "value": value})


def _ignore(*_: Any, **__: Any) -> None:
    """An event that is not used."""


def _rebuild(folder: Path | None, warn: bool, stop: bool, memory_snapshot: bool) -> DoctorCallback:
    return DoctorCallback(folder, warn=warn, stop_on_divergence=stop, memory_snapshot=memory_snapshot)
