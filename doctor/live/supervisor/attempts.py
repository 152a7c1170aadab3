"""One start of a training under `--heal`: its config, what it changes and why, and how it ended."""

from __future__ import annotations

from typing import Any

import msgspec

from doctor.config import yaml_edit
from doctor.config.patch import Change
from doctor.live.supervisor.checkpoints import Checkpoint
from doctor.report.model import FindingView, Report
from doctor.support.texts import Text
from doctor.words import catalogue

LOST_SYMPTOMS = ("divergence", "nonfinite", "zero_loss", "plateau")
"""Symptoms of a training that may reach its end and is lost all the same."""


class HealAttempt(msgspec.Struct, kw_only=True):
    """`text` is the YAML it trains with (None: the command names no config), `redone` the steps trained again, `resume` the checkpoint
    it continues from; the other fields after `redone` are filled in when it has ended (`began`, `ended`: seconds since the epoch).
    """

    number: int
    text: str | None
    env: dict[str, str] = {}
    resume: Checkpoint | None = None
    keep_rate: bool = True
    changes: tuple[Change, ...] = ()
    why: Text = msgspec.field(default_factory=lambda: catalogue.text("healing.as_given"))
    parent: HealAttempt | None = None
    redone: int | None = None
    code: int = 0
    report: Report | None = None
    stopped: bool = False
    hooked: bool = False
    began: float = 0.0
    ended: float = 0.0

    @property
    def values(self) -> dict[str, Any]:
        """The config of this attempt."""
        return yaml_edit.load(self.text) if self.text else {}

    @property
    def output_dir(self) -> str:
        """Where it saves checkpoints."""
        return str(self.values.get("output_dir") or "saves/run")

    @property
    def root(self) -> FindingView | None:
        """The finding that is the cause of its failure."""
        return next((finding for finding in self.report.findings if finding.role == "root"), None) if self.report else None

    @property
    def cause(self) -> str:
        """The cause of its failure; `unknown` without one."""
        return (self.root.cause if self.root else None) or "unknown"

    @property
    def last_step(self) -> int:
        """The last step it reached."""
        return (self.report.run.steps.last if self.report else None) or 0

    @property
    def lost(self) -> bool:
        """Whether what it trained is worthless although it did not crash."""
        root = self.root
        return self.stopped or (root is not None and root.severity == "error" and root.symptom in LOST_SYMPTOMS)

    @property
    def is_transient(self) -> bool:
        """Whether the same run may succeed if started again: killed, hung, a GPU or network failure, or an unknown cause."""
        root = self.root
        if root is None or root.symptom in ("killed", "stall"):
            return True
        if root.cause == "hub_unreachable":
            return root.rule != "environment/hub-offline-mode"
        started = self.last_step > 0
        return started and (root.symptom == "nonfinite" or root.family in ("distributed", "device") or root.cause is None)
