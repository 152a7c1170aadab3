"""The part of the doctor that runs inside a training needs nothing but Python: its environment is the training's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import doctor

ROOT = Path(doctor.__file__).parents[1]


def test_the_callback_imports_without_any_package():
    """No site-packages at all: what `lfdoctor run` loads into the training comes from the standard library and from doctor."""
    loaded = ("hook", "recorder", "snapshot", "crashes", "stacks", "sampler", "memory_history", "rank_work", "accelerators", "trackers")
    modules = ", ".join(f"doctor.live.trainer.{name}" for name in loaded)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {modules}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
