"""All detectors, by the word rules use under `when:`. A new one needs a file and a line here (configurations: config_registry.py)."""

from __future__ import annotations

from doctor.detectors.base import Detector
from doctor.detectors.collectives import Collectives
from doctor.detectors.config_registry import OF_CONFIGS
from doctor.detectors.divergence import Divergence
from doctor.detectors.final_losses import FinalLosses
from doctor.detectors.gpu_oom import GpuOom
from doctor.detectors.gradient import Gradient
from doctor.detectors.log_pattern import LogPattern
from doctor.detectors.loss_level import LossLevel
from doctor.detectors.loss_spike import LossSpike
from doctor.detectors.nonfinite import Nonfinite
from doctor.detectors.overfitting import Overfitting
from doctor.detectors.plateau import Plateau
from doctor.detectors.preference import Preference
from doctor.detectors.process_end import ProcessEnds
from doctor.detectors.sample_level import SampleLevel
from doctor.detectors.schedule import Schedule
from doctor.detectors.share_of_step import ShareOfStep
from doctor.detectors.slow_rank import SlowRank
from doctor.detectors.standstill import Standstill
from doctor.detectors.step_time import StepTime
from doctor.detectors.stops_after import StopsAfter
from doctor.detectors.traceback_place import TracebackPlace
from doctor.detectors.uncaught_exception import UncaughtException
from doctor.detectors.utilisation import Utilisation
from doctor.detectors.zero_loss import ZeroLoss

DETECTORS: dict[str, type[Detector]] = {
    **OF_CONFIGS,
    "log_pattern": LogPattern,
    "traceback": TracebackPlace,
    "stops_after": StopsAfter,
    "process_end": ProcessEnds,
    "gpu_oom": GpuOom,
    "uncaught_exception": UncaughtException,
    "divergence": Divergence,
    "gradient": Gradient,
    "loss_level": LossLevel,
    "loss_spike": LossSpike,
    "nonfinite": Nonfinite,
    "overfitting": Overfitting,
    "final_losses": FinalLosses,
    "plateau": Plateau,
    "preference": Preference,
    "schedule": Schedule,
    "zero_loss": ZeroLoss,
    "sample_level": SampleLevel,
    "step_time": StepTime,
    "utilisation": Utilisation,
    "share_of_step": ShareOfStep,
    "slow_rank": SlowRank,
    "standstill": Standstill,
    "collectives": Collectives,
}
"""Word under `when:` -> detector class."""
