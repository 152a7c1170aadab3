"""A YAML file of rules/ as records of a known shape."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from doctor.errors import DoctorError
from doctor.support.cache import load_yaml
from doctor.support.decoding import convert

Shape = TypeVar("Shape")


def read(path: Path, shape: type[Shape]) -> Shape:
    """The file's content. Raises DoctorError, which names the file, where it cannot be read as such."""
    try:
        return convert(load_yaml(path), shape)
    except (msgspec.ValidationError, OSError, UnicodeDecodeError) as error:
        raise DoctorError(f"{path}: {error}") from error
