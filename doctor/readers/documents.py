"""Read a small file that is a single YAML mapping or JSON object; a damaged file becomes a problem of its source."""

from __future__ import annotations

import json
from typing import Any

from doctor.config import yaml_edit
from doctor.readers.file import File


def yaml_mapping(file: File, limit: int) -> dict[str, Any] | None:
    """The YAML mapping in a file of at most `limit` bytes; None if it is damaged."""
    try:
        values = yaml_edit.load(file.text(limit) or "")
    except yaml_edit.NotReadable as error:
        file.source.problem(f"cannot be read: {error}")
        return None
    file.source.records = len(values)
    return values


def json_object(file: File, limit: int) -> dict[str, Any] | None:
    """The JSON object in a file of at most `limit` bytes; None if it is damaged."""
    try:
        values = json.loads(file.text(limit) or "")
    except (ValueError, RecursionError) as error:
        file.source.problem(f"damaged JSON: {error}")
        return None
    if not isinstance(values, dict):
        file.source.problem("not a JSON object")
        return None
    file.source.records = len(values)
    return values
