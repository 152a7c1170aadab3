"""The progress line: on a terminal, after a second, gone at the end; nothing elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from doctor.cli import progress
from doctor.readers import reading


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_a_long_reading_is_shown_on_a_terminal_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool):
    """File and megabytes, and at the end the line is cleared; control characters of a file's name are not printed."""
    out = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    monkeypatch.setattr(progress, "DELAY_SECONDS", -1.0)
    path = tmp_path / "a\x1b.log"
    path.write_bytes(b"x" * (3 << 20))
    with progress.shown_progress() as shown:
        list(reading.read([path], progress=shown).events())
    if terminal:
        assert "a?.log" in out.getvalue()
        assert "3.1/3.1 MB" in out.getvalue()
        assert out.getvalue().endswith("\x1b[1A\x1b[2K")
    else:
        assert out.getvalue() == ""


def test_a_short_reading_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Under a second nothing is drawn."""
    out = Terminal()
    monkeypatch.setattr("sys.stderr", out)
    (tmp_path / "a.log").write_bytes(b"Killed\n")
    with progress.shown_progress() as shown:
        list(reading.read([tmp_path], progress=shown).events())
    assert out.getvalue() == ""
