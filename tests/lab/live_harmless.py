"""Everything of ours breaks, one thing at a time, inside a real transformers training: losses and weights must not differ by a bit.

Run by `python -m tests.lab.live`, in the lab's environment; words behind it choose the cases whose names hold them all.

What breaks: every function that the callback, the recorder, the sampler, the journal and the monitor are made of raises (or, off the
training thread, hangs for good), the disk is full, the folder cannot be made, NVML is missing, the recorder's thread dies, a rule
cannot be read. Prints one line each; exits with the number of trainings that noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed, trainer
from transformers.utils import logging

from doctor.live.trainer import (
    accelerators,
    crashes,
    hang_check,
    imports,
    journal,
    listeners,
    memory_history,
    owner,
    recorder,
    sampler,
    snapshot,
    stacks,
    trackers,
    values,
)  # fmt: skip
from doctor.live.trainer import callback as live

imports.import_from_path("msgspec", os.environ.get("LFDOCTOR_MSGSPEC"))
from doctor.diagnosis import tools  # noqa: E402
from doctor.live.trainer import monitor, stop_judge  # noqa: E402

STEPS = 30


class Model(nn.Module):
    """Something to train: random numbers to random numbers, through dropout, so that every random state counts."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.Dropout(0.3), nn.GELU(), nn.Linear(32, 1))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.net(x).squeeze(-1)
        return {"loss": nn.functional.mse_loss(out, labels), "logits": out}


def train(folder: Path, callbacks: list[Any]) -> tuple[str, str]:
    """The logged figures and a digest of the weights of one seeded training with evaluations and checkpoints."""
    set_seed(5)
    data = [{"x": torch.randn(16), "labels": torch.randn(())} for _ in range(64)]
    arguments = TrainingArguments(
        str(folder), max_steps=STEPS, per_device_train_batch_size=4, logging_steps=1, eval_strategy="steps", eval_steps=10, save_steps=10,
        report_to="none", use_cpu=True, disable_tqdm=True, seed=5,
    )  # fmt: skip
    model = Model()
    one = Trainer(model, arguments, train_dataset=data, eval_dataset=data[:16], callbacks=callbacks)
    one.train()
    kept = [{k: v for k, v in log.items() if not k.endswith(("_runtime", "_per_second"))} for log in one.state.log_history]
    digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
    return str(kept), digest


def raises(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("ours")


def dies(*_: Any, **__: Any) -> Any:
    raise SystemExit


def hangs(*_: Any, **__: Any) -> Any:
    time.sleep(3600)


def replaced(owner: Any, name: str, by: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: mock.patch.object(owner, name, by)


ON_THREAD = [
    (live.DoctorCallback, "_put_step"), (live.DoctorCallback, "_put_fact"), (live.DoctorCallback, "_maybe_stop"), (live, "listeners"),
    (live, "take_over"), (live.DoctorCallback, "begins"), (values, "to_float"), (live, "to_count"), (live, "is_main_process"),
    (live, "stop_judge"), (snapshot, "effective"), (snapshot, "facts"), (snapshot, "allocator"), (snapshot, "given"),
    (recorder.Recorder, "put"), (recorder.Recorder, "start"), (recorder.Recorder, "flush"), (recorder.Recorder, "__init__"),
    (stop_judge.StopJudge, "step"), (stop_judge.StopJudge, "__init__"), (crashes, "watch_uncaught"), (crashes, "watch_training"),
    (live.DoctorCallback, "_repeat_history"), (live.DoctorCallback, "_settle_rank"), (memory_history.MemoryHistory, "training_failed"),
    (memory_history, "begin"), (stacks.StackFile, "listen"), (listeners, "lend_msgspec"), (trackers.Trackers, "of"),
]  # fmt: skip
OFF_THREAD = [
    (sampler.Sampler, "read"), (journal.JournalWriter, "write"), (journal.JournalWriter, "header"), (recorder, "encode"),
    (monitor.Monitor, "line"), (recorder.Recorder, "_drain"), (recorder.Recorder, "_take_sample"), (live.DoctorCallback, "_sample"),
    (hang_check.HangCheck, "dump"), (stacks.StackFile, "write"), (stacks.StackFile, "_open"), (stacks, "free_signal"),
    (accelerators.Accelerators, "read"),
]  # fmt: skip


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    with mock.patch.object(journal.JournalWriter, "_open", return_value=os.open("/dev/full", os.O_WRONLY)):
        yield


def sabotages() -> dict[str, Callable[[], Any]]:
    out = {f"{name} of {getattr(owner, '__name__', owner)} raises": replaced(owner, name, raises) for owner, name in ON_THREAD + OFF_THREAD}
    out |= {f"{name} of {getattr(owner, '__name__', owner)} hangs": replaced(owner, name, hangs) for owner, name in OFF_THREAD}
    out["the recorder's thread dies"] = replaced(recorder.Recorder, "_drain", dies)
    out["a full disk"] = full_disk
    out["no NVML"] = lambda: mock.patch.dict(sys.modules, {"pynvml": None})
    out["a rule that cannot be read"] = replaced(tools.loader, "load", raises)
    out["a broken plugin"] = replaced(monitor.Engine, "feed", raises)
    return out


def run(folder: Path, setting: Callable[[], Any], where: Path | None) -> tuple[str, str]:
    """One training with a doctor that judges, warns and fails."""
    owner.OWNERS.clear()
    kind = trainer.Trainer.train
    try:
        with setting(), contextlib.redirect_stderr(Path(os.devnull).open("w")):
            ours = live.DoctorCallback(where or folder, stop_on_divergence=True, memory_snapshot=True)
            ours.listen()
            return train(folder, [ours])
    finally:
        trainer.Trainer.train = kind


def main() -> int:
    """The number of trainings that were not as without us."""
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    hang_check.SILENCE_SECONDS = hang_check.SILENCE_FACTOR = 0.0  # every pause counts as silence: that code runs too
    sys.excepthook, before = sys.__excepthook__, sys.excepthook
    bad, cases = 0, sabotages()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        base = Path(temporary)
        with contextlib.redirect_stdout(Path(os.devnull).open("w")):
            alone = train(base / "alone", [])
        settings = {"nothing breaks": contextlib.nullcontext, **cases, "a folder that cannot be made": contextlib.nullcontext}
        settings = {name: one for name, one in settings.items() if all(word in name for word in sys.argv[1:])}
        for number, (name, setting) in enumerate(settings.items()):
            folder = base / str(number)
            where = Path("/proc/no/such/folder") if name.startswith("a folder") else None
            began = time.monotonic()
            try:
                with contextlib.redirect_stdout(Path(os.devnull).open("w")):
                    seen = run(folder, setting, where)
                wrong = "" if seen == alone else "FIGURES DIFFER"
            except BaseException as error:
                wrong = f"RAISED {type(error).__name__}: {error}"
            bad += bool(wrong)
            print(f"{'FAIL' if wrong else 'ok  '} {name:52} {time.monotonic() - began:5.1f} s {wrong}", flush=True)
    sys.excepthook = before
    print(f"{len(settings) - bad} of {len(settings)} trainings with a broken doctor are bit-equal to one without it")
    sys.stdout.flush()
    os._exit(bad)  # threads that hang on purpose are not waited for


if __name__ == "__main__":
    threading.excepthook = lambda _: None
    main()
