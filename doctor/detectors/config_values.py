"""`config`: the configuration alone is wrong or risky; no run is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from doctor.config.options import scope_of
from doctor.core.events import ConfigSeen, Event, Where
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.conditions import Condition, holds, paths, problems
from doctor.rulebook.findings import Evidence, Match

WHOLE = ("yaml", "command", "journal")


class ConfigValues(DetectorBase):
    """Parameters: `all` (or `any`): conditions on `config.*` (rulebook/conditions.py); the given keys become the evidence.

    `whole: true`: only for a config as the user wrote it; of one that was recovered from a run, a missing key means nothing.
    Configs of the v1 trainer (`model:` instead of `model_name_or_path`) have other keys and are left alone.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (ConfigSeen,)
    needs: tuple[str, ...] = ("config",)

    def __init__(self, all: dict[str, Any] | None = None, any: list[Any] | None = None, whole: bool = False) -> None:
        self.condition: Condition = {**(all or {}), **({"any": any} if any is not None else {})}
        for problem in problems(self.condition):
            raise ValueError(problem)
        if not self.condition:
            raise ValueError("needs `all` or `any`")
        self.keys = tuple(dict.fromkeys(path.partition(".")[2] for path in paths(self.condition)))
        self.facts = self.keys
        self.whole = whole
        self._written = False

    def feed(self, event: ConfigSeen, run: Run) -> Iterator[Match]:
        self._written = self._written or event.origin in WHOLE
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        if not run.config or (self.whole and not self._written) or ("model" in run.config and "model_name_or_path" not in run.config):
            return
        scope = scope_of(run, {})
        if not holds(self.condition, scope):
            return
        values = scope["config"]
        facts = {key: values.get(key) for key in self.keys if values.get(key) is not None}
        given = [key for key in self.keys if key in run.config]
        evidence = tuple(Evidence(run.config_where[key], f"{key}: {run.config[key]}") for key in given)
        yield Match(evidence=evidence or (Evidence(_any_place(run), ", ".join(self.keys)),), facts=facts)


def _any_place(run: Run) -> Where:
    return next(iter(run.config_where.values()))
