"""A configuration file on disk: read whole, as UTF-8, or refused with the reason."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from doctor.config import yaml_text
from doctor.errors import DoctorError
from doctor.support.texts import Text
from doctor.words import catalogue

MAX_BYTES = 1 << 20
"""The largest configuration that is read; LLaMA-Factory's own have 2 kB."""


def read_text(path: Path) -> str:
    """The file's text with its byte order mark and line ends. Raises DoctorError (2) for anything but a UTF-8 text file with content."""
    size = regular_size(path)
    if size > MAX_BYTES:
        raise DoctorError(catalogue.text("errors.too_large", path=path, size=size >> 20))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DoctorError(catalogue.text("errors.cannot_read", path=path, reason=error.strerror or error)) from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise DoctorError(catalogue.text("errors.not_utf8", path=path, byte=f"0x{data[error.start]:02x}", offset=error.start)) from error
    if not text.strip("\ufeff \t\r\n\0"):
        raise DoctorError(catalogue.text("errors.empty", path=path))
    return text


def regular_size(path: Path) -> int:
    """The size in bytes of a file that can be opened without waiting. Raises DoctorError (2) for pipes, devices and folders."""
    try:
        state = path.stat()
    except OSError as error:
        raise DoctorError(catalogue.text("errors.cannot_read", path=path, reason=error.strerror or error)) from error
    if not stat.S_ISREG(state.st_mode):
        raise DoctorError(catalogue.text("errors.no_file", path=path, kind=_kind(state.st_mode)))
    return state.st_size


def read_values(path: Path) -> dict[str, Any]:
    """The options in the file, as LLaMA-Factory would load them. Raises DoctorError (2), naming the line where it is no valid YAML."""
    return parse(path, read_text(path))


def parse(path: Path, text: str) -> dict[str, Any]:
    """The options in the text of `path`. Raises DoctorError (2) as `read_values` does."""
    try:
        return yaml_text.load(text)
    except yaml_text.NotReadable as error:
        raise DoctorError(catalogue.text("errors.no_yaml", path=path, reason=error)) from error


def _kind(mode: int) -> Text:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return catalogue.text(f"errors.{kinds.get(stat.S_IFMT(mode), 'device')}")
