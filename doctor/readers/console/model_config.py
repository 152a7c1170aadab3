"""The model configuration that transformers prints over many lines: `Model config Qwen2Config {` ... `}`."""

from __future__ import annotations

import json
import re
from typing import Any

_BEGIN = re.compile(r"\b\w+Config \{\s*$")
_MAX_LINES = 400
"""A printed configuration has at most about 150 lines; a longer one was cut or is none."""
_MODEL_KEYS = frozenset({"hidden_size", "n_embd", "text_config"})
"""Keys that a language model's configuration has and a generation or quantisation configuration does not."""


class ModelConfigBlock:
    """`feed` line after line. `lane` is the lane whose lines belong to the open block, None if none is open."""

    def __init__(self) -> None:
        self.lane: str | None = None
        self._lines: list[str] = []
        self._last_lines: list[str] = []
        self._last: dict[str, Any] | None = None

    def begin(self, lane: str, text: str) -> None:
        """Open a block if this line begins one."""
        if "Config {" in text and _BEGIN.search(text):
            self.lane, self._lines = lane, ["{"]

    def feed(self, *lines: str) -> dict[str, Any] | None:
        """Add lines of the open block; return the configuration that the last one completes, unless it is the same as the one before."""
        self._lines += lines
        ends = lines[-1].rstrip() == "}"
        if ends or len(self._lines) > _MAX_LINES:
            self.lane = None
        return self._complete() if ends else None

    def _complete(self) -> dict[str, Any] | None:
        if self._lines == self._last_lines:
            return None
        self._last_lines = self._lines
        try:
            model = json.loads("\n".join(self._lines))
        except (ValueError, RecursionError):
            return None
        if not isinstance(model, dict) or model.keys().isdisjoint(_MODEL_KEYS) or model == self._last:
            return None
        self._last = model
        return model
