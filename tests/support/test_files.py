"""Sizes and ends of files that grow or vanish."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.support.files import end_of_file, file_size


def test_the_size_of_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    """A file that vanished while it was looked at is no error."""
    (tmp_path / "a").write_bytes(b"12345")
    assert file_size(tmp_path / "a") == 5
    assert file_size(tmp_path / "b") == 0


def test_only_the_end_is_read(tmp_path: Path) -> None:
    """A short file comes whole, of a long one the last bytes; what cannot be read is an error."""
    (tmp_path / "a").write_bytes(b"12345")
    assert end_of_file(tmp_path / "a", 2) == b"45"
    assert end_of_file(tmp_path / "a", 5) == b"12345"
    assert end_of_file(tmp_path / "a", 9) == b"12345"
    with pytest.raises(OSError, match="No such file"):
        end_of_file(tmp_path / "b", 2)
