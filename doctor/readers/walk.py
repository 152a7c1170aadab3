"""The files below a folder that may be readable, by a bounded walk that never opens weights, pipes or data sets."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec

from doctor.readers.formats.compression import plain_name

DEPTH = 3
"""Levels of subfolders that are read: output_dir, attempt, checkpoint."""
FILES = 5000
"""Files returned in all."""
CROWD = 1000
"""A folder with more entries is a data set: only files whose names say that a training wrote them are returned."""
_MAX_ENTRIES = 200_000
"""Entries of one folder that are listed."""
_EXAMPLES = 3
"""Skipped paths that are kept as examples for each reason."""

_SKIPPED_FOLDERS = frozenset(
    {".git", ".cache", "__pycache__", "node_modules", ".venv", "venv", "site-packages", ".mypy_cache", ".pytest_cache"}
)
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".npy", ".npz")
_ARCHIVES = (".tar", ".tgz", ".zip", ".7z")
_DATA = (".arrow", ".parquet", ".csv", ".tsv")
_OTHERS = (
    ".lock", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".pdf", ".mp4", ".mp3", ".wav", ".jinja", ".model", ".tiktoken", ".pyc",
    ".so", ".py", ".ipynb", ".html", ".js", ".css", ".whl", ".orig",
)  # fmt: skip
_SKIPPED_NAMES = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json", "special_tokens_map.json",
     "generation_config.json", "preprocessor_config.json", "model.safetensors.index.json", "requirements.txt", "dataset_info.json"}
)  # fmt: skip
_TRAINING_NAMES = ("log", "trainer_", "events.out", "train", ".yaml", ".yml", ".out", ".err", "results.json", "config.json")


Reason = Literal[
    "weights", "archive", "data set", "other file", "no regular file", "too many files", "too deep", "crowded folder", "unreadable",
    "too large", "damaged archive", "not known", "empty", "written by lfdoctor",
]  # fmt: skip
"""Why a file or folder was not read; doctor/words/report.yaml has a text for each (`skipped_...`)."""


class Skipped(msgspec.Struct):
    """What was not read: reason -> number of files (or folders), and the first of them."""

    reasons: dict[Reason, tuple[int, list[str]]] = {}

    def note(self, reason: Reason, path: str, count: int = 1) -> None:
        """Count a path that was skipped for this reason."""
        number, examples = self.reasons.get(reason, (0, []))
        self.reasons[reason] = (number + count, [*examples, path] if len(examples) < _EXAMPLES else examples)


def unwanted(name: str) -> Reason | None:
    """Why a file of this name is never opened; None if it may be readable (training_args.bin has no weights)."""
    low = plain_name(Path(name.lower()))
    if low == "training_args.bin" or low.endswith(("_snapshot.pickle", ".pickle")):
        return None
    kinds: tuple[tuple[tuple[str, ...], Reason], ...] = (
        (_WEIGHTS, "weights"),
        (_ARCHIVES, "archive"),
        (_DATA, "data set"),
        (_OTHERS, "other file"),
    )
    for endings, reason in kinds:
        if low.endswith(endings):
            return reason
    return "other file" if low in _SKIPPED_NAMES else None


def worth_a_look(name: str) -> bool:
    """Whether a file of this name may be readable."""
    return unwanted(name) is None


def walk(root: Path, skipped: Skipped) -> Iterator[Path]:
    """Regular files under `root`, `DEPTH` levels deep, in a fixed order. A folder is visited once, however many links lead to it."""
    seen: set[tuple[int, int]] = set()
    budget = [FILES]
    yield from _walk(root, 0, seen, budget, skipped)


def _walk(folder: Path, depth: int, seen: set[tuple[int, int]], budget: list[int], skipped: Skipped) -> Iterator[Path]:
    try:
        status = folder.stat()
        entries = _entries(folder, skipped)
    except OSError:
        skipped.note("unreadable", str(folder))
        return
    if (status.st_dev, status.st_ino) in seen:
        return
    if status.st_ino:
        seen.add((status.st_dev, status.st_ino))
    folders: list[Path] = []
    for entry in entries:
        kind = _kind(entry)
        if kind == "folder":
            folders += [Path(entry.path)] if entry.name not in _SKIPPED_FOLDERS else []
        elif kind != "file":
            skipped.note("no regular file", entry.path)
        elif (reason := unwanted(entry.name)) is not None:
            skipped.note(reason, entry.path)
        elif budget[0] <= 0:
            skipped.note("too many files", entry.path)
        else:
            budget[0] -= 1
            yield Path(entry.path)
    for subfolder in folders:
        if depth < DEPTH:
            yield from _walk(subfolder, depth + 1, seen, budget, skipped)
        else:
            skipped.note("too deep", str(subfolder))


def _entries(folder: Path, skipped: Skipped) -> list[os.DirEntry[str]]:
    """The folder's entries in natural order; of a crowded folder only those with training names."""
    with os.scandir(folder) as listing:
        entries = list(islice(listing, CROWD + 1))
        if len(entries) > CROWD:
            count = len(entries)
            entries = [entry for entry in entries if _is_training_name(entry.name)]
            for entry in islice(listing, _MAX_ENTRIES):
                count += 1
                if _is_training_name(entry.name) and len(entries) < FILES:
                    entries.append(entry)
            skipped.note("crowded folder", str(folder), count - len(entries))
    return sorted(entries, key=lambda entry: natural_sort_key(entry.name))


def _is_training_name(name: str) -> bool:
    low = name.lower()
    return any(word in low for word in _TRAINING_NAMES)


def _kind(entry: os.DirEntry[str]) -> str:
    """`file`, `folder`, or empty for anything else (pipes, sockets, devices, dead links)."""
    try:
        mode = entry.stat().st_mode
    except OSError:
        return ""
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else ""


def natural_sort_key(name: str) -> list[tuple[int, int | str]]:
    """Natural order: `checkpoint-9` before `checkpoint-10`."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]{1,18})", name) if part]
