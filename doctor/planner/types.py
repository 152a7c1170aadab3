"""The records of a plan."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from doctor.config.patch import Change, Patch
from doctor.rulebook.model import Remedy
from doctor.support.texts import Text

Status = Literal["apply", "done", "not_applicable", "conflict", "rejected", "manual"]
Strategy = Literal["least-change", "guide"]
Program = Literal["llamafactory", "other", "unknown"]
"""Whose program ran; `unknown`: nothing in what was read tells."""
FixedBy = Literal["safe", "unsafe", "partly", "nothing"]
"""What writes a patch into the checked config: `check --fix` all of it; all or a part of it only with `--unsafe-fixes`; only an editor."""


class PreviousAttempt(msgspec.Struct, frozen=True):
    """Another attempt of the same job that failed from the same cause: its name, its config (given keys only), and its settings outside
    the config (`settings`): `env.NAME`, `command.KEY`, `deepspeed.KEY`."""

    run: str
    config: dict[str, Any]
    settings: dict[str, Any] = {}


class Advice(msgspec.Struct, frozen=True):
    """One remedy of one finding: its status in this run, the reason, and its changes.

    `apply`: it can be applied and would help. `chosen`: it is in the patch.
    """

    remedy: Remedy
    status: Status
    reason: Text
    changes: tuple[Change, ...] = ()
    chosen: bool = False


class Memory(msgspec.Struct, frozen=True):
    """Predicted peak memory of one GPU, GiB: before and after the patch, the interval for after, the GPU's capacity; `terms` add up to
    before and to after."""

    before: float | None
    after: float | None
    low: float | None
    high: float | None
    capacity: float | None
    terms: tuple[dict[str, float], dict[str, float]] | None = None


class ConfigText(msgspec.Struct, frozen=True):
    """The user's own YAML: its path and text."""

    path: str
    text: str


class PlannedPatch(msgspec.Struct, frozen=True, kw_only=True):
    """The one patch. `yaml` is the whole patched text, `diff` a unified diff: None if the user's YAML is not known.

    `command` starts the training again and expects the patched YAML under the name `file`; `packages` are to be installed before.
    `options` of `lfdoctor fix` lead to this patch again.
    """

    patch: Patch
    source: str | None
    yaml: str | None
    diff: str | None
    overrides: tuple[str, ...] = ()
    command: str | None = None
    file: str | None = None
    packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    notes: tuple[Text, ...] = ()
    memory: Memory | None = None
    effective_batch: tuple[int, int] | None = None
    speed: Text | None = None


class Plan(msgspec.Struct, frozen=True):
    """`advice[i]` belongs to the i-th finding."""

    advice: tuple[tuple[Advice, ...], ...]
    patch: PlannedPatch | None = None
