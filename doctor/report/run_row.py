"""The run's own row in a report: what ran, on what, from which files, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from doctor.core.run import Run
from doctor.privacy.personal import private
from doctor.privacy.secrets import clean, plain
from doctor.report.model import RunView, SkippedView, SourceView, Status, StepsView
from doctor.report.status import planned_steps, whole
from doctor.report.vitals import vitals_of

_ENVIRONMENT = (
    "framework", "versions.", "gpu.", "device", "attention", "model.params", "model.trainable_params", "env.", "batch.", "host.",
)  # fmt: skip
"""Facts that a maintainer asks for first, by the beginning of their names."""
_METHOD = {"lora": "lora", "dora": "lora", "full": "full", "freeze": "freeze", "oft": "oft"}
"""Printed fine-tuning method -> `finetuning_type`."""
_ENVIRONMENT_CHARS = 200
"""A longer value is no figure or version and is left out."""


def run_view(run: Run, path: str, status: Status, sources: Sequence[SourceView], skipped: Sequence[SkippedView]) -> RunView:
    """What is known of the run itself; every text masked."""
    config, facts = run.config, run.facts
    return RunView(
        path=clean(path),
        framework=short_text(facts.get("framework")),
        version=short_text(facts.get("versions.llamafactory")),
        stage=short_text(config.get("stage")),
        finetuning_type=short_text(config.get("finetuning_type") or _METHOD.get(str(facts.get("finetuning_method")).lower())),
        model=short_text(config.get("model_name_or_path")),
        world_size=whole(facts.get("world_size")),
        environment=dict(_environment(facts)),
        status=status,
        steps=StepsView(run.first_step, run.last_step, planned_steps(run)),
        vitals=vitals_of(run),
        sources=[msgspec.structs.replace(item, path=clean(item.path), problems=list(map(clean, item.problems))) for item in sources],
        skipped=[msgspec.structs.replace(item, examples=list(map(clean, item.examples))) for item in skipped],
    )


def _environment(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is known of machine and software; figures and short texts only."""
    for name, raw in sorted(facts.items()):
        if name.startswith(_ENVIRONMENT):
            value = plain(raw, name)
            value = private(value, raised=True) if isinstance(value, str) else value
            if isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _ENVIRONMENT_CHARS):
                yield name, value


def short_text(value: Any) -> str | None:
    """A value as masked text; None for nothing."""
    return clean(str(value)) if value not in (None, "") else None
