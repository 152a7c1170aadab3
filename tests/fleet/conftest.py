"""Run folders for scans: copies of fixtures, and what goes wrong with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOME = (
    "healthy-sft", "healthy-dpo", "healthy-split-streams", "gpu_oom_activations-forward", "lr_too_high-lora",
    "dataset_not_registered-name", "nonfinite_cause_unknown-one-batch", "interrupted-ctrl-c",
)  # fmt: skip


def copy(fixture: str, target: Path) -> Path:
    """A fixture as a run, without what tells its answer."""
    shutil.copytree(ROOT / "fixtures" / fixture, target, ignore=shutil.ignore_patterns("ORIGIN.md", "expected.yaml"))
    return target


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with a few runs of every kind."""
    for name in SOME:
        copy(name, tmp_path / "runs" / name)
    return tmp_path / "runs"
