"""Labelled curves through all rules on metrics: ill ones are found where they are ill, healthy ones are silent."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.detectors.samples import diagnose, steps

CURVES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parents[1] / "cases" / "curves.yaml").read_text(encoding="utf-8"))
METRICS = ("loss", "grad_norm", "learning_rate")
SLACK = 10
"""Records by which a finding may begin before or end after the labelled range."""


def series(segments: Sequence[Sequence[float]], noise: float, seed: str) -> list[float]:
    """The records of some segments [from, to, records], each times log-normal noise."""
    rng = random.Random(seed)
    values = [start + (stop - start) * i / max(1, count - 1) for start, stop, count in segments for i in range(int(count))]
    return [value * math.exp(rng.gauss(0.0, noise)) for value in values]


def found(curve: dict[str, Any], shift: int = 0) -> dict[str, tuple[int, int] | None]:
    """Symptom -> steps of what the rules say of the curve, drawn with another seed for each `shift`."""
    columns: dict[str, list[float]] = {}
    for name in METRICS:
        noise = curve["noise"] if name == "loss" else 0.0
        if name in curve:
            columns[name] = series(curve[name], noise, f"{curve['id']} {shift}")
    for record, value in curve.get("at", {}).items():
        columns["loss"][record - 1] = value
    return {finding.rule.symptom: finding.steps for finding in diagnose(steps(**columns)).values()}


@pytest.mark.parametrize("curve", [pytest.param(one, id=one["id"]) for one in CURVES if one["expect"] == "healthy"])
def test_a_healthy_curve_is_silent(curve: dict[str, Any]) -> None:
    """No finding above a note, whatever the noise."""
    assert [found(curve, shift) for shift in range(5)] == [{}] * 5


@pytest.mark.parametrize("curve", [pytest.param(one, id=one["id"]) for one in CURVES if one["expect"] != "healthy"])
def test_an_ill_curve_is_found_where_it_is_ill(curve: dict[str, Any]) -> None:
    """One of the expected symptoms, overlapping the labelled steps and not much wider."""
    for shift in range(5):
        spans = [span for symptom, span in found(curve, shift).items() if symptom in curve["expect"] and span]
        assert spans, found(curve, shift)
        assert any(curve["from"] - SLACK <= first <= curve["to"] and curve["from"] <= last <= curve["to"] + SLACK for first, last in spans)


def test_there_are_as_many_ill_curves_as_healthy_ones() -> None:
    """Twelve of each: neither silence nor alarm alone passes."""
    assert [sum(one["expect"] == "healthy" for one in CURVES), len(CURVES)] == [12, 24]
