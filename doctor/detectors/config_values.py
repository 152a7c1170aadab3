"""`config`: conditions on the configuration alone; no run is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from doctor.config.options import scope_of
from doctor.core.events import ConfigSeen, Event, Where
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.conditions import Condition, holds, paths, problems
from doctor.rulebook.findings import Evidence, Match

COMPLETE_ORIGINS = ("yaml", "command", "journal")
"""Origins that contain the whole configuration as the user wrote it."""


class ConfigValues(DetectorBase):
    """Match if the conditions hold; the keys present in the config are the evidence.

    - `all`, `any`: conditions on `config.*` and `written.*` (rulebook/conditions.py).
    - `whole`: only for a config as the user wrote it. In a config recovered from a run a missing key means nothing.

    Configs of the v1 trainer (`model:` instead of `model_name_or_path`) have other keys and are skipped.
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
        self._written = self._written or event.origin in COMPLETE_ORIGINS
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        if not run.has_config or (self.whole and not self._written) or ("model" in run.config and "model_name_or_path" not in run.config):
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
