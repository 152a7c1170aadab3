"""Which changes a restart may try, in order, and when two of them are the same training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from doctor.config.options import effective
from doctor.config.patch import Change, apply
from doctor.live.supervisor.attempts import HealAttempt
from doctor.report.model import ChangeView


class RemedyCandidate(msgspec.Struct, frozen=True):
    """A remedy, or the planner's whole patch: its changes, the rule and remedy behind each key, and its text."""

    changes: tuple[Change, ...]
    because: dict[str, str]
    text: str


def candidates(attempt: HealAttempt) -> Iterator[RemedyCandidate]:
    """The planner's patch, then each applicable remedy of the root cause alone, in the report's order."""
    report, root = attempt.report, attempt.root
    if report is None or root is None:
        return
    texts = {f"{finding.rule}#{remedy.id}": remedy.text for finding in report.findings for remedy in finding.remedies}
    if report.patch is not None:
        because = report.patch.because
        kept = [view for view in report.patch.changes if view.key == "tokenized_path" or because.get(view.key) != "safe-patch"]
        names = list(dict.fromkeys(because.get(view.key, "") for view in kept))
        yield from _candidate(kept, because, " ".join(filter(None, map(texts.get, names))))
    for remedy in root.remedies:
        if remedy.status == "apply" and remedy.changes:
            name = f"{root.rule}#{remedy.id}"
            yield from _candidate(remedy.changes, {view.key: name for view in remedy.changes}, remedy.text)


def _candidate(views: Sequence[ChangeView], because: Mapping[str, str], text: str) -> Iterator[RemedyCandidate]:
    """Nothing if a change needs a person: a launch command, a `<placeholder>`. Where to resume is decided by `resume_point`."""
    usable = [view for view in views if view.key != "resume_from_checkpoint"]
    if usable and not any(view.target == "command" or "<" in str(view.new) or "/path/" in str(view.new) for view in usable):
        changes = tuple(Change(view.target, view.op, view.key, view.old, view.new) for view in usable)  # type: ignore[arg-type]
        keys = {view.key for view in usable}
        yield RemedyCandidate(changes, {key: name for key, name in because.items() if key in keys}, text)


def fingerprint(values: Mapping[str, Any], env: Mapping[str, str], changes: Sequence[Change] = ()) -> str:
    """Equal for two attempts that train the same way; where they write and where they resume does not count."""
    config = {key: value for key, value in values.items() if key not in ("output_dir", "resume_from_checkpoint")}
    external = [[change.target, change.key, change.new] for change in changes if change.target != "config" or change.key == "output_dir"]
    return json.dumps([config, dict(env), external], sort_keys=True, default=str)


def keep_effective_batch(values: Mapping[str, Any], changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The changes with batch size times accumulation as before: a batch size that does not divide it is lowered to one that does."""
    sizes = ("per_device_train_batch_size", "gradient_accumulation_steps")
    before, after = effective(dict(values), {}), effective(apply(values, changes), {})
    numbers = [options[key] for options in (before, after) for key in sizes]
    if not all(type(number) is int and number > 0 for number in numbers) or math.prod(numbers[:2]) == math.prod(numbers[2:]):
        return changes
    total = math.prod(numbers[:2])
    size = max(divisor for divisor in range(1, min(numbers[2], total) + 1) if total % divisor == 0)
    rest = tuple(change for change in changes if change.key not in sizes)
    new = (Change("config", "set", key, values.get(key), to) for key, to in zip(sizes, (size, total // size), strict=True))
    return (*rest, *(change for change in new if change.new != before[change.key]))
