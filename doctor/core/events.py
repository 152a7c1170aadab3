"""The events of a run, produced by the readers and by the live callback.

All are frozen msgspec structs that JSON can hold. There are two lanes: metrics ordered by step (`Step`, `Sample`) and text ordered by line
(`LogLine`, `Crash`, `ProcessEnd`). Between the lanes there is no order. `ConfigSeen` comes before both.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from doctor.core.phases import Phase

Origin = Literal["yaml", "command", "training_args", "model_card", "events", "adapter", "console", "journal", "inferred"]
"""Where a configuration was found: the user's own file or command line, what a run left behind, or a single option that follows from it."""


MAX_STEP = 1 << 52
"""Larger steps are no steps, and not exact as floats."""
MAX_INTEGER = 1 << 63
"""Larger integers are no figures of a run, and no JSON reader takes them."""


class Where(msgspec.Struct, frozen=True, order=True, gc=False):
    """A place in a file: a 1-based line, or a training step."""

    file: str
    line: int | None = None
    step: int | None = None

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.file}:{self.line}"
        return self.file if self.step is None else f"{self.file} step {self.step}"


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Common part. `rank` is the global rank if known, `attempt` counts from 0, `time` is in Unix seconds if known."""

    where: Where
    rank: int | None = None
    attempt: int = 0
    time: float | None = None


class ConfigSeen(Event, frozen=True, kw_only=True):
    """A training configuration under LLaMA-Factory's option names (values as LLaMA-Factory would load them).

    Within one origin a later value replaces an earlier one, key by key; between origins `doctor.core.run.ORIGIN_TRUST` decides.
    `lines` has the keys' 1-based lines in the file, where known.
    """

    values: dict[str, Any]
    origin: Origin = "yaml"
    lines: dict[str, int] = {}


class Step(Event, frozen=True, kw_only=True, gc=False):
    """The joined metrics of one optimizer step (`step` as the run counts them).

    `metrics` uses the names of `trainer_state.json` (loss, grad_norm, learning_rate, epoch, eval_loss, rewards/accuracies, ...),
    plus from trainer_log.jsonl: throughput, total_tokens, vram_allocated_gib, vram_reserved_gib. Non-finite values are kept.
    `seconds` is wall time since training began in this process, if known. `exact` is False if the source does not print the step and
    the reader inferred it. `history`: logged before the checkpoint that this process resumed from.
    """

    step: int
    metrics: dict[str, float]
    seconds: float | None = None
    exact: bool = True
    history: bool = False


class LogLine(Event, frozen=True, kw_only=True):
    """One line of text (no newline, no ANSI codes, no rank prefix; cut at 20,000 characters).

    `repeats`: how many lines it stands for, itself included; the others differ in their numbers only.
    """

    text: str
    level: str | None = None
    phase: Phase | None = None
    repeats: int = 1


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """One frame of a traceback; `code` is the source line printed under it."""

    file: str
    line: int | None
    function: str
    code: str = ""


class Crash(Event, frozen=True, kw_only=True):
    """One exception of a printed traceback, outermost frame first.

    Of chained exceptions each is a `Crash` of its own, in printed order: `chain` 0 is the original one,
    1, 2, ... those raised while handling it or from it. The exception's lines are not repeated as `LogLine`s. `repeats`: see `LogLine`.
    """

    exception: str
    message: str = ""
    frames: tuple[Frame, ...] = ()
    phase: Phase | None = None
    chain: int = 0
    repeats: int = 1

    @property
    def text(self) -> str:
        """`exception: message`, the text that patterns are matched against; of a traceback that was cut off, its frames' source lines."""
        if not self.exception:
            return "\n".join(frame.code for frame in self.frames)
        return f"{self.exception}: {self.message}" if self.message else self.exception


class Sample(Event, frozen=True, kw_only=True):
    """Readings of the machine, `seconds` after the process began; names have their units (gpu.0.used_gib, host.available_gib, ...)."""

    metrics: dict[str, float]
    seconds: float | None = None


class ProcessEnd(Event, frozen=True, kw_only=True):
    """A process of the run ended: exit `code` (shell or Python style; negative = -signal) and/or `signal` number.

    `reporter` is the source: torchrun's failure block, the shell, or our own supervisor. `first` marks the process that torchrun
    names "Root Cause (first observed failure)". `phase` is the run's phase at the time of the report.
    """

    code: int | None = None
    signal: int | None = None
    reporter: str = "torchrun"
    first: bool = False
    local_rank: int | None = None
    phase: Phase | None = None


class Fact(Event, frozen=True, kw_only=True):
    """Something known about the run as a whole: world_size, gpu.name, gpu.total_gib, versions.torch, steps.planned, run.completed, ..."""

    name: str
    value: Any
