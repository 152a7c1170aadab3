"""Images, videos and audio of a sample: files that are missing, placeholders that do not match, templates without media."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from doctor.dataset.convert import Sample

PLACEHOLDERS = {"images": "<image>", "videos": "<video>", "audios": "<audio>"}
"""extras/constants.py IMAGE_PLACEHOLDER and its like (an environment variable can change them)."""


def media_problems(sample: Sample, folder: Path, accepted: frozenset[str] | None) -> Iterator[tuple[str, str]]:
    """(kind, detail). `accepted`: the kinds of media that the template takes; None if the template is not known.

    A template that takes media counts the placeholders (mm_plugin.py _validate_messages); one without refuses the files, and leaves
    placeholders without files as they are.
    """
    takes = bool(accepted) or accepted is None
    for kind, placeholder in PLACEHOLDERS.items():
        files = getattr(sample, kind) or []
        if files and accepted is not None and kind not in accepted:
            yield "media_unsupported", kind
            continue
        marks = sum(turn.content.count(placeholder) for turn in _counted(sample) if isinstance(turn.content, str))
        if marks != len(files) and (files or (takes and accepted is not None)):
            yield "media_count", f"{marks} {placeholder}, {len(files)} {kind}"
        for name in files:
            if isinstance(name, str) and not _exists(folder, name):
                yield "media_missing", name[:120]
                break


def _counted(sample: Sample) -> list[Any]:
    """The turns of one conversation: of a pair only the first answer."""
    return [*sample.prompt, *[turn for turn in sample.response if turn.content][:1]]


@lru_cache(maxsize=65536)
def _exists(folder: Path, name: str) -> bool:
    """A path in media_dir, or as it stands (converter.py _find_medias); what is no path (a URL, base64) is not judged."""
    if "://" in name or name.startswith("data:") or len(name) > 1024:
        return True
    try:
        return (folder / name).is_file() or Path(name).is_file()
    except (OSError, ValueError):
        return False
