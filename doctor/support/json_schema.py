"""JSON Schemas of msgspec types, independent of the installed msgspec version."""

from __future__ import annotations

from typing import Any

import msgspec


def schema_of(kind: type, title: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a Struct, the same for msgspec 0.18 to 0.23.

    These versions differ in the indentation of class docstrings (dropped here), the place of `null` in `anyOf` (last here), and
    `propertyNames` of mappings (dropped here).
    """
    (top,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return {**about, **_settled(top), "$defs": {name: _settled(part) for name, part in parts.items()}}


def _settled(schema: Any) -> Any:
    """Normalise a schema and its parts. Property names are not keywords, even if they look like them."""
    if isinstance(schema, list):
        return [_settled(part) for part in schema]
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
        out["anyOf"] = sorted(out["anyOf"], key=lambda part: part == {"type": "null"})
    return out
