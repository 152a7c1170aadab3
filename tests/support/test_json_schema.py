"""The published schemas do not depend on the installed msgspec."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from doctor.support.json_schema import schema_of


class Part(msgspec.Struct):
    """Text for who reads the code.

    More of it.
    """

    description: str
    propertyNames: dict[Literal["a", "b"], int]
    maybe: str | None = None


class Whole(msgspec.Struct):
    """Not part of the schema either."""

    part: Part | None = None


OLD = {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Part"}], "default": None}
NEW = {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}], "default": None}


@pytest.mark.parametrize(("union", "names"), [(OLD, {}), (NEW, {"propertyNames": {"enum": ["a", "b"]}})])
def test_what_msgspec_releases_write_differently_comes_out_the_same(
    monkeypatch: pytest.MonkeyPatch, union: dict[str, Any], names: dict[str, Any]
) -> None:
    """Without docstrings and propertyNames, null last: what 0.18 (first case) and 0.23 write. Properties of such names stay."""
    part = {
        "title": "Part",
        "description": "Text for who reads the code.\n\n    More of it.\n    ",
        "type": "object",
        "properties": {
            "description": {"type": "string"},
            "propertyNames": {"type": "object", "additionalProperties": {"type": "integer"}, **names},
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["description", "propertyNames"],
    }
    whole = {"title": "Whole", "description": "Not part", "type": "object", "properties": {"part": union}, "required": []}
    given = (({"$ref": "#/$defs/Whole"},), {"Part": part, "Whole": whole})
    monkeypatch.setattr(msgspec.json, "schema_components", lambda *_args, **_more: given)
    assert schema_of(Whole, "A title") == EXPECTED


EXPECTED = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A title",
    "$ref": "#/$defs/Whole",
    "$defs": {
        "Part": {
            "title": "Part",
            "type": "object",
            "properties": {
                "description": {"type": "string"},
                "propertyNames": {"type": "object", "additionalProperties": {"type": "integer"}},
                "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            },
            "required": ["description", "propertyNames"],
        },
        "Whole": {
            "title": "Whole",
            "type": "object",
            "properties": {"part": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}], "default": None}},
            "required": [],
        },
    },
}


def test_the_installed_msgspec_gives_that_schema() -> None:
    """Whatever release this environment has."""
    assert schema_of(Whole, "A title") == EXPECTED
