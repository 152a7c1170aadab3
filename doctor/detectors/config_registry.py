"""The detectors that look at a configuration and what is known beside it: all that `lfdoctor check` needs to import."""

from __future__ import annotations

from doctor.detectors.base import Detector
from doctor.detectors.config_values import ConfigValues
from doctor.detectors.fact import KnownFact
from doctor.detectors.option_values import OptionValues
from doctor.detectors.v1_config import V1Config

OF_CONFIGS: dict[str, type[Detector]] = {
    "config": ConfigValues,
    "fact": KnownFact,
    "options": OptionValues,
    "v1_config": V1Config,
}
"""Word under `when:` -> detector class."""
