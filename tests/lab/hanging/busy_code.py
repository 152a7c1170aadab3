"""Healthy trainings that are silent for long: nobody may be asked, whatever takes its time. The counterpart of own_code.py."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, trainer


def compute(seconds: float) -> None:
    """Keep a core busy without a word."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        math.sqrt(2.0)


class Slow(TrainerCallback):
    """Calls a function at an event."""

    def __init__(self, event: str, function: Any) -> None:
        setattr(self, event, lambda args, state, control, **rest: function(state.global_step))


def tokenizing() -> list[TrainerCallback]:
    """110 seconds of tokenizing, its progress bars switched off."""
    from datasets import disable_progress_bars
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor as Processor

    disable_progress_bars()
    inner = Processor._encode_data_example

    def encode(self: Any, *args: Any, **kwargs: Any) -> Any:
        compute(0.45)
        return inner(self, *args, **kwargs)

    Processor._encode_data_example = encode
    return []


def evaluation(batch_seconds: float, waits: bool) -> list[TrainerCallback]:
    """Batches of an evaluation far slower than a step; `waits`: for a card, without using the processor."""
    inner = trainer.Trainer.prediction_step

    def prediction_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        (time.sleep if waits else compute)(batch_seconds)
        return inner(self, *args, **kwargs)

    trainer.Trainer.prediction_step = prediction_step
    return []


def metrics() -> list[TrainerCallback]:
    """The figures of an evaluation take 70 seconds after its last batch."""
    inner = trainer.Trainer.evaluation_loop

    def evaluation_loop(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = inner(self, *args, **kwargs)
        compute(70)
        return out

    trainer.Trainer.evaluation_loop = evaluation_loop
    return []


def saving(seconds: int, each_bytes: int) -> list[TrainerCallback]:
    """A checkpoint that takes long to write."""
    inner = trainer.Trainer._save_checkpoint

    def save(self: Any, *args: Any, **kwargs: Any) -> Any:
        inner(self, *args, **kwargs)
        if os.environ.get("RANK", "0") == "0":
            with Path("large.bin").open("wb") as file:
                for _ in range(seconds):
                    file.write(b"0" * each_bytes)
                    file.flush()
                    time.sleep(1)
            Path("large.bin").unlink()

    trainer.Trainer._save_checkpoint = save
    return []


def compiling() -> list[TrainerCallback]:
    """A first step of 40 seconds, and then an early one of 100."""
    return [Slow("on_step_begin", lambda step: time.sleep({0: 40, 3: 100}.get(step, 0)))]


def loading() -> list[TrainerCallback]:
    """A model that is read for 100 seconds."""
    import llamafactory.train.sft.workflow as workflow

    inner = workflow.load_model

    def load(*args: Any, **kwargs: Any) -> Any:
        for _ in range(100):
            Path("models/tiny-llama/tokenizer.json").read_bytes()
            with Path("/dev/zero").open("rb") as file:
                file.read(20 << 20)
            time.sleep(1)
        return inner(*args, **kwargs)

    workflow.load_model = load
    return []


HEALTHY: dict[str, Any] = {
    "healthy-tokenizing": tokenizing,
    "healthy-evaluation": lambda: evaluation(4, waits=True),
    "healthy-evaluation-batch": lambda: evaluation(55, waits=True),
    "healthy-metrics": metrics,
    "healthy-saving": lambda: saving(100, 4 << 20),
    "healthy-saving-waits": lambda: saving(100, 1),
    "healthy-compiling": compiling,
    "healthy-loading": loading,
    "healthy-plain": list,
}


def install(name: str) -> list[TrainerCallback]:
    """Put the case in place; callbacks for run_exp."""
    return list(HEALTHY[name]())
