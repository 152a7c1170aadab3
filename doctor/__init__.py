"""lfdoctor: the doctor for LLaMA-Factory training runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doctor.report import outputs
from doctor.version import __version__

__all__ = ["DoctorCallback", "DoctorError", "Estimate", "Report", "Run", "__version__", "analyze", "check", "estimate", "read"]

if TYPE_CHECKING:
    from doctor.core.run import Run
    from doctor.diagnosis.check import check
    from doctor.diagnosis.pipeline import analyze, read
    from doctor.errors import DoctorError
    from doctor.live.trainer.callback import DoctorCallback
    from doctor.memory.estimate import Estimate, estimate
    from doctor.report.model import Report


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: `import doctor` inside a training run must cost nothing."""
    if name == "check":
        from doctor.diagnosis.check import check

        return check
    if name in ("analyze", "read"):
        from doctor.diagnosis import pipeline

        return getattr(pipeline, name)
    if name == "Report":
        from doctor.report.model import Report

        return Report
    if name == "REPORTERS":
        from doctor.reporters.registry import REPORTERS

        return REPORTERS
    if name == "Run":
        from doctor.core.run import Run

        return Run
    if name == "DoctorError":
        from doctor.errors import DoctorError

        return DoctorError
    if name == "DoctorCallback":
        from doctor.live.trainer.callback import DoctorCallback

        return DoctorCallback
    if name in ("estimate", "Estimate"):
        from doctor import memory

        return getattr(memory, name)
    raise AttributeError(f"module 'doctor' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)


outputs.find = lambda: __getattr__("REPORTERS")
