"""Whether the program that failed is another one than LLaMA-Factory, by the frames of its tracebacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from doctor.core.events import Crash
from doctor.diagnosis.unlisted.places import SCRIPT, Place, places
from doctor.readers.origins import OTHER_TRAINERS
from doctor.rulebook.model import Rule

_OWN = "llamafactory"
_READ_CONFIGS = ("config", "options", "v1_config")
"""Detectors that read nothing but the configuration."""


def judges_llamafactorys_options(rule: Rule) -> bool:
    """Whether a rule says what LLaMA-Factory makes of a configuration, by the configuration alone: another program reads it otherwise."""
    return rule.family == "config" and rule.detector in _READ_CONFIGS


def is_of_another_program(tracebacks: Iterable[Sequence[Crash]]) -> bool:
    """Whether some traceback shows another trainer, or begins in a person's own script, and none shows LLaMA-Factory.

    An excerpt without its first frames proves nothing.
    """
    found = [places(crash.frames) for chain in tracebacks for crash in chain if crash.frames]
    if any(place.package == _OWN for frames in found for place in frames):
        return False
    return any(_is_other(frames) for frames in found)


def _is_other(frames: Sequence[Place]) -> bool:
    begins_in_script = frames[0].package == SCRIPT and frames[0].function == "<module>"
    return begins_in_script or any(place.package in OTHER_TRAINERS for place in frames)
