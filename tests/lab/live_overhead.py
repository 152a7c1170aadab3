"""What the callback costs the training thread per step, beside an empty callback and TensorBoard's; run with the lab's python.

PYTHONPATH=. .lab/venv/bin/python tests/lab/live_overhead.py
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import CallbackHandler
from transformers.utils import logging

from doctor.live.trainer import callback as live
from doctor.live.trainer import owner
from doctor.live.trainer.sampler import Sampler

STEPS, ROUNDS = 4000, 7
LOGS = {"loss": 1.234567, "grad_norm": 0.98, "learning_rate": 5e-5, "epoch": 0.5}


def handler(callbacks: list[Any], folder: Path) -> tuple[CallbackHandler, TrainingArguments, TrainerState, TrainerControl]:
    args = TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True)
    state, control = TrainerState(max_steps=STEPS), TrainerControl()
    state.is_world_process_zero = True
    made = CallbackHandler(callbacks, None, None, None, None)
    made.on_train_begin(args, state, control)
    return made, args, state, control


def per_step(make: Callable[[], list[Any]], log_every: int) -> float:
    """Median over rounds of the microseconds that one step's events take (step begin and end, and a log every `log_every` steps)."""
    times = []
    for _ in range(ROUNDS):
        owner.OWNERS.clear()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            events, args, state, control = handler(make(), Path(folder))
            spent = 0.0
            for step in range(1, STEPS + 1):
                began = time.perf_counter()
                events.on_step_begin(args, state, control)
                state.global_step = step
                events.on_step_end(args, state, control)
                if step % log_every == 0:
                    events.on_log(args, state, control, dict(LOGS))
                spent += time.perf_counter() - began
                if step % 50 == 0:
                    time.sleep(0.001)
            events.on_train_end(args, state, control)
            times.append(1e6 * spent / STEPS)
    return statistics.median(times)


def journal_bytes() -> float:
    owner.OWNERS.clear()
    with tempfile.TemporaryDirectory() as folder:
        events, args, state, control = handler([live.DoctorCallback(folder, warn=False)], Path(folder))
        for step in range(1, STEPS + 1):
            events.on_step_begin(args, state, control)
            state.global_step = step
            events.on_step_end(args, state, control)
            events.on_log(args, state, control, dict(LOGS))
        events.on_train_end(args, state, control)
        lines = [line for line in (Path(folder) / "lfdoctor.jsonl").read_bytes().splitlines() if b'"Step"' in line]
        return sum(map(len, lines)) / STEPS


def main() -> None:
    """Prints one line a figure."""
    logging.set_verbosity_error()
    kinds: dict[str, Callable[[], list[Any]]] = {
        "no callback": list,
        "empty callback": lambda: [TrainerCallback()],
        "doctor": lambda: [live.DoctorCallback(warn=False)],
        "TensorBoardCallback": lambda: [TensorBoardCallback()],
    }
    for log_every in (10, 1):
        found = {name: per_step(make, log_every) for name, make in kinds.items()}
        for name, cost in found.items():
            print(f"log every {log_every:2}: {name:26} {cost:7.2f} us a step, {cost - found['empty callback']:+7.2f} beside an empty one")
    sampler = Sampler(Path.cwd(), whole=True)
    sampler.read()
    began = time.process_time()
    for _ in range(200):
        sampler.read()
    print(f"a sample costs {1e6 * (time.process_time() - began) / 200:.0f} us of one core (once a second: that many millionths)")
    print(f"the journal takes {journal_bytes():.0f} bytes a logged step")


if __name__ == "__main__":
    sys.exit(main())
