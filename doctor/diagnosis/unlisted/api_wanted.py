"""Which public name an exception says a package does not have: a name of a module, an attribute, a parameter, a model type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from doctor.diagnosis.unlisted.features import ExceptionFeatures
from doctor.diagnosis.unlisted.places import STANDARD, Place

Kind = Literal["name", "module", "attribute", "parameter", "model_type"]

_QUOTE = "['\"`\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}]"
_IMPORT = re.compile(rf"cannot import name {_QUOTE}?(?P<name>\w+){_QUOTE}?(?: from {_QUOTE}?(?P<module>[\w.]+){_QUOTE}?)?")
_FROM = re.compile(r"^\s*from\s+(?P<module>[\w.]+)\s+import\b")
_NO_MODULE = re.compile(r"No module named '?(?P<module>\w+\.[\w.]+)'?")
_OF_MODULE = re.compile(rf"module {_QUOTE}?(?P<module>[\w.]+){_QUOTE}? has no attribute {_QUOTE}?(?P<name>\w+)")
_ATTRIBUTE = re.compile(rf"(?:type object )?{_QUOTE}(?P<owner>\w+){_QUOTE}(?: object)? has no attribute {_QUOTE}(?P<name>\w+)")
_PARAMETER = re.compile(rf"(?P<called>[\w.<>]+)\(\) got an unexpected keyword argument {_QUOTE}(?P<name>\w+)")
_MODEL_TYPE = re.compile(rf"model type {_QUOTE}?(?P<name>[\w.\-]+?){_QUOTE}? but Transformers does not recognize")
_KEY = re.compile(r"^['\"](?P<name>[\w.\-]+)['\"]$")
_TOKENIZER = re.compile(r"(?:Tokenizer|Processor|Image processor) class (?P<name>\w+) does not exist or is not currently imported")
_CALLED = re.compile(r"\b([A-Z]\w+)\(")
_MAPPING = re.compile(r"auto/(?:configuration_auto|auto_factory)$")
_BROKEN = ("partially initialized", "(unknown location)")
"""Python's words for circular imports, and for a package without an `__init__.py`: what is left of a broken installation."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. `owner` is a module, a class, or a function (`Class.method`); several where the message leaves it open.

    `asker` is the place that asks: the innermost frame; None where no frame was printed.
    """

    kind: Kind
    name: str
    owners: tuple[str, ...] = ()
    asker: Place | None = None


def wanted_in(features: ExceptionFeatures) -> Wanted | None:
    """The name that the exception misses; None where it is about something else."""
    return next(_wanted(features), None)


def _wanted(features: ExceptionFeatures) -> Iterator[Wanted]:
    message, asker = features.message.strip(), _asker(features)
    if any(words in message for words in _BROKEN):
        return
    if found := _IMPORT.search(message):
        module = found["module"] or _imported_from(features)
        if module:
            yield Wanted(kind="name", name=found["name"], owners=(module,), asker=asker)
    elif found := _NO_MODULE.search(message):
        yield Wanted(kind="module", name=found["module"], asker=asker)
    elif found := _OF_MODULE.search(message):
        yield Wanted(kind="name", name=found["name"], owners=(found["module"],), asker=asker)
    elif found := _TOKENIZER.search(message):
        yield Wanted(kind="name", name=found["name"], owners=("transformers",))
    elif found := _MODEL_TYPE.search(message):
        yield Wanted(kind="model_type", name=found["name"])
    elif found := _ATTRIBUTE.search(message):
        yield Wanted(kind="attribute", name=found["name"], owners=(found["owner"],), asker=asker)
    elif found := _PARAMETER.search(message):
        yield Wanted(kind="parameter", name=found["name"], owners=_called(found["called"], features), asker=asker)
    elif features.exception == "KeyError" and (found := _KEY.match(message)) and _in_mapping(features):
        yield Wanted(kind="model_type", name=found["name"])


def _asker(features: ExceptionFeatures) -> Place | None:
    """The innermost frame that is no part of Python itself, nor the `__getattr__` of a class: that one only answers."""
    return next((place for place in reversed(features.path) if place.package != STANDARD and place.function != "__getattr__"), None)


def _imported_from(features: ExceptionFeatures) -> str | None:
    """Python up to 3.6 and many pastes leave out the module: the source line has it."""
    code = features.raised.code if features.raised else ""
    found = _FROM.match(code)
    return found["module"] if found and not found["module"].startswith(".") else None


def _called(called: str, features: ExceptionFeatures) -> tuple[str, ...]:
    """`Trainer.__init__`; of a bare `__init__` (Python up to 3.9) the classes that the raising line calls."""
    if called != "__init__":
        return (called.replace(".<locals>", ""),)
    code = features.raised.code if features.raised else ""
    return tuple(f"{name}.__init__" for name in dict.fromkeys(_CALLED.findall(code)))


def _in_mapping(features: ExceptionFeatures) -> bool:
    """Whether a KeyError comes from transformers' table of model types."""
    return any(place.package == "transformers" and _MAPPING.search(place.module) for place in features.path[-3:])
