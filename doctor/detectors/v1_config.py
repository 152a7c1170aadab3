"""`v1_config`: what the v1 trainer (USE_V1=1) refuses in its config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, get_args

from doctor.config.v1 import Kind, problems
from doctor.core.events import Event, Fact, Where
from doctor.core.run import Run
from doctor.detectors.base import DetectorBase
from doctor.rulebook.findings import Evidence, Match

FACT = "v1.config"
"""Fact of the config reader: {"values": options, "lines": key -> 1-based line}."""


class V1Config(DetectorBase):
    """Parameter `problem`:

    - `unknown`: no such option, or no such setting of a plugin. Facts: key, given, suggested (v1's name for an option of v0), similar
      (nearest spelling), plugin, until (the last version that had the option).
    - `ignored`: a setting that its plugin does not read, without refusing it. Facts: key, given, similar, plugin.
    - `value`: of another type, or not among the choices. Facts: key, given, legal, similar, wanted (the types).
    - `conflict`: settings that exclude each other. Facts: key, given, conflict (which: doctor/config/v1.py).
    - `elsewhere`: the assumed version lacks it, a newer possible one has it. Facts: key, given, since.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Fact,)
    needs: tuple[str, ...] = ("config",)
    facts: tuple[str, ...] = ("key", "given", "suggested", "similar", "plugin", "legal", "wanted", "conflict", "since", "until")

    def __init__(self, problem: str) -> None:
        if problem not in get_args(Kind):
            raise ValueError(f"problem is one of {', '.join(get_args(Kind))}")
        self.problem = problem

    def finish(self, run: Run) -> Iterator[Match]:
        config = run.facts.get(FACT)
        if not isinstance(config, dict):
            return
        for found in problems(config["values"], run.facts):
            if found.kind == self.problem:
                place = run.fact_where[FACT]
                line = config["lines"].get(found.key.partition(".")[0])
                known = {name: value for name, value in found.facts.items() if value is not None}
                yield Match(
                    evidence=(Evidence(Where(place.file, line) if line else place, f"{found.key}: {found.given}"),),
                    facts={"key": found.key, "given": found.given, **known},
                    key=found.key,
                )
