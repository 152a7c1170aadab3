"""Thread-safe typed decoding with msgspec.

msgspec stores type information on a Struct class before it is complete. A second thread using the class at that moment reads
uninitialised memory and the process crashes (msgspec 0.22, `StructInfo_Convert`). The doctor also runs inside other processes (a
training, a notebook, a server), so every type is prepared here under a lock. Ruff bans msgspec's own decoding functions elsewhere.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar, overload

import msgspec

_Kind = TypeVar("_Kind")
_lock = threading.Lock()
_prepared: set[Any] = set()


def convert(value: Any, kind: type[_Kind]) -> _Kind:
    """Convert plain data to this type. Raises msgspec.ValidationError."""
    _prepare(kind)
    return msgspec.convert(value, kind)


@overload
def unpack(data: bytes, kind: type[_Kind]) -> _Kind: ...
@overload
def unpack(data: bytes, kind: Any) -> Any: ...
def unpack(data: bytes, kind: Any) -> Any:
    """Decode MessagePack to this type. Raises msgspec.DecodeError for invalid bytes, ValidationError for other types."""
    _prepare(kind)
    return msgspec.msgpack.decode(data, type=kind)


def from_json(data: bytes | str, kind: type[_Kind]) -> _Kind:
    """Decode JSON to this type. Raises msgspec.DecodeError for invalid JSON, ValidationError for other types."""
    _prepare(kind)
    return msgspec.json.decode(data, type=kind)


@overload
def json_decoder(kind: type[_Kind], *, strict: bool = True) -> msgspec.json.Decoder[_Kind]: ...
@overload
def json_decoder(kind: Any, *, strict: bool = True) -> msgspec.json.Decoder[Any]: ...
def json_decoder(kind: Any, *, strict: bool = True) -> msgspec.json.Decoder[Any]:
    """A reusable JSON decoder for this type. If not strict, it accepts numbers in quotes."""
    _prepare(kind)
    return msgspec.json.Decoder(kind, strict=strict)


def _prepare(kind: Any) -> None:
    """Let msgspec build its type information for `kind`, a type at a time."""
    if kind not in _prepared:
        with _lock:
            msgspec.msgpack.Decoder(kind)
            _prepared.add(kind)
