"""Files that grow or vanish while they are looked at."""

from __future__ import annotations

from pathlib import Path


def file_size(path: Path) -> int:
    """Bytes of a file; 0 if it is not there or cannot be asked."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def end_of_file(path: Path, most: int) -> bytes:
    """The last bytes of a file, at most `most`. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - most))
        return file.read(most)
