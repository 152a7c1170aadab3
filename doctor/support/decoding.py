"""Typed decoding that two threads may begin at once.

msgspec hangs what it learns of a Struct's fields on the class before it has learnt all of them; a second thread that meets the class in
that moment reads what is not there yet, and the process dies (msgspec 0.22, `StructInfo_Convert`). The doctor also lives in other people's
processes (a training, a notebook, a server), so every type is learnt here, one at a time. Ruff refuses msgspec's own doors elsewhere.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar, overload

import msgspec

_Kind = TypeVar("_Kind")
_learning = threading.Lock()
_learnt: set[Any] = set()


def convert(value: Any, kind: type[_Kind]) -> _Kind:
    """Plain data as this type. Raises msgspec.ValidationError where it does not fit."""
    _learn(kind)
    return msgspec.convert(value, kind)


@overload
def unpack(data: bytes, kind: type[_Kind]) -> _Kind: ...
@overload
def unpack(data: bytes, kind: Any) -> Any: ...
def unpack(data: bytes, kind: Any) -> Any:
    """MessagePack as this type. Raises msgspec.DecodeError for bytes that are none, ValidationError where they do not fit."""
    _learn(kind)
    return msgspec.msgpack.decode(data, type=kind)


def from_json(data: bytes | str, kind: type[_Kind]) -> _Kind:
    """JSON as this type. Raises msgspec.DecodeError for a text that is none, ValidationError where it does not fit."""
    _learn(kind)
    return msgspec.json.decode(data, type=kind)


@overload
def json_decoder(kind: type[_Kind], *, strict: bool = True) -> msgspec.json.Decoder[_Kind]: ...
@overload
def json_decoder(kind: Any, *, strict: bool = True) -> msgspec.json.Decoder[Any]: ...
def json_decoder(kind: Any, *, strict: bool = True) -> msgspec.json.Decoder[Any]:
    """What decodes JSON texts into this type, many of them quickly; not strict, it takes numbers in quotes for numbers."""
    _learn(kind)
    return msgspec.json.Decoder(kind, strict=strict)


def _learn(kind: Any) -> None:
    if kind not in _learnt:
        with _learning:
            msgspec.msgpack.Decoder(kind)
            _learnt.add(kind)
