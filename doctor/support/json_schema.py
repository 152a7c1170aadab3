"""JSON Schemas of msgspec types that do not depend on the msgspec that is installed."""

from __future__ import annotations

from typing import Any

import msgspec


def schema_of(kind: type, title: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a Struct, the same under msgspec 0.18 to 0.23.

    These versions differ in three things: how docstrings of classes are indented (left out here, they are for who reads the code), whether
    `null` stands first or last in `anyOf` (here last), and whether `propertyNames` of mappings is given (left out).
    """
    (top,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return {**about, **_settled(top), "$defs": {name: _settled(part) for name, part in parts.items()}}


def _settled(schema: Any) -> Any:
    """A schema and all that it holds. Names of properties are not keywords, whatever they are."""
    if isinstance(schema, list):
        return [_settled(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {
        key: {name: _settled(part) for name, part in value.items()}
        if key == "properties"
        else value
        if key == "default"
        else _settled(value)
        for key, value in schema.items()
        if key not in ("description", "propertyNames")
    }
    if "anyOf" in out:
        out["anyOf"] = sorted(out["anyOf"], key=lambda one: one == {"type": "null"})
    return out
