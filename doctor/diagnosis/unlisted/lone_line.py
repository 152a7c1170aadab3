"""A log that is one pasted line or two: what a line that states an error says by itself, and which lines would decide."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol, TypeVar

from doctor.diagnosis.unlisted.features import ExceptionFeatures
from doctor.rulebook.model import Remedy
from doctor.support.texts import Text
from doctor.words import catalogue

_STATES = re.compile(
    r"(?<![\w.])(?:ERROR|CRITICAL|FATAL)\b|\b(?:fatal |import |runtime )?error\s?[:：]|报错|出错|오류|에러|"
    r"undefined symbol|cannot open shared object|core dumped|uncaught exception|terminate called|NCCL (?:error|failure)|CUDA error",
    re.IGNORECASE,
)
"""Lines that state an error though they name no exception; other words of failure also stand in logs of healthy runs."""
_NATIVE = "native"


class Line(Protocol):
    """A line with its features; `text` is the line itself."""

    @property
    def features(self) -> ExceptionFeatures: ...

    @property
    def text(self) -> str: ...


Stated = TypeVar("Stated", bound=Line)


def strongest(lines: Iterable[Stated]) -> Stated | None:
    """The first line that names an exception, else the first that states an error in so many words; None if there is neither."""
    seen = list(lines)
    named = next((one for one in seen if one.features.exception), None)
    return named or next((one for one in seen if one.features.native or _STATES.search(one.text)), None)


def told(features: ExceptionFeatures) -> Text:
    """What the class means, and that the line alone proves no cause."""
    known = catalogue.texts("exceptions")
    name = next((one for one in features.classes if one in known), _NATIVE if features.native else "line")
    return catalogue.text("exceptions.needed", meaning=known[name])


def what_decides(features: ExceptionFeatures) -> Remedy:
    """The lines to give in addition."""
    wanted = "paste_traceback" if features.exception else "paste_lines"
    return Remedy(id="whole-output", text=catalogue.text(f"exceptions.{wanted}"), effect="manual", check=True)
