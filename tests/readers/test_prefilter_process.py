"""A second process that looks through a large console changes nothing but the time, whatever becomes of it."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from doctor.readers import reading
from doctor.readers.base import File, Source
from doctor.readers.console import prefilter_process
from doctor.readers.console.finder import State, Wanted
from tests.readers.test_scan import LITERALS, SIEVE, large

pytest.importorskip("hyperscan")
TEXT = "".join(large(7)) + "the word Killed and an Error stand here\n" * 4000 + "".join(large(8))


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A console in many blocks, worth a second process."""
    monkeypatch.setattr(prefilter_process, "LARGE", 0)
    monkeypatch.setattr("doctor.readers.console.prefilter_process.os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr("doctor.readers.console.reader.SMALL", 1 << 20)
    path = tmp_path / "train.log"
    path.write_text(TEXT, encoding="utf-8", newline="")
    return path


def events(path: Path, allow_subprocess: bool) -> list[str]:
    """As text: nan equals nan."""
    return [
        repr(event) for event in reading.read([path], literals=LITERALS, line_patterns=SIEVE, allow_subprocess=allow_subprocess).events()
    ]


def python_that(script: str, folder: Path) -> str:
    """An interpreter of that kind."""
    path = folder / "python-that"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_it_changes_nothing(log: Path, monkeypatch: pytest.MonkeyPatch):
    """Steps, tracebacks, lines and their places; it was there, and is gone afterwards."""
    begun: list[prefilter_process.PrefilterProcess] = []
    made = prefilter_process.PrefilterProcess.__init__

    def noted(self: prefilter_process.PrefilterProcess, file: File, wanted: Wanted) -> None:
        made(self, file, wanted)
        begun.append(self)
        assert self._process is not None
        processes.append(self._process)

    processes: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(prefilter_process.PrefilterProcess, "__init__", noted)
    told = events(log, allow_subprocess=True)
    assert told == events(log, allow_subprocess=False)
    assert [one._own for one in begun] == [None]
    assert [one.returncode is not None for one in processes] == [True]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script as interpreter")
@pytest.mark.parametrize(
    "script",
    ["exit 1", "echo something else", "sleep 60", f'exec "{sys.executable}" "$@" | head -c 2000', "head -c 3 /dev/zero; exec sleep 60"],
)
def test_where_it_fails_the_first_one_goes_on_alone(script: str, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It does not start, writes anything, hangs, or dies in the middle."""
    alone = events(log, allow_subprocess=False)
    monkeypatch.setattr(prefilter_process, "PATIENCE", 2.0)
    monkeypatch.setattr(sys, "executable", python_that(script, tmp_path))
    assert events(log, allow_subprocess=True) == alone


@pytest.mark.parametrize("refused", ["subprocess.Popen", "threading.Thread.start"])
def test_where_the_system_gives_no_more_the_first_one_goes_on_alone(refused: str, log: Path, monkeypatch: pytest.MonkeyPatch):
    """No more processes, no more threads: both at a limit on crowded machines."""
    alone = events(log, allow_subprocess=False)

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError("no more processes") if "Popen" in refused else RuntimeError("can't start new thread")

    monkeypatch.setattr(refused, refuse)
    assert events(log, allow_subprocess=True) == alone


def test_a_block_that_it_does_not_know_is_looked_at_here(log: Path):
    """The file was written to meanwhile: the finds of other bytes are worth nothing."""
    one = prefilter_process.PrefilterProcess(File(log, "train.log", Source("train.log", "console", 0)), Wanted(("loss",), ("Killed",)))
    try:
        one.begin(0, 0, State())
        found = one.scan(b"nothing\nKilled\nloss\n")
    finally:
        one.close()
    assert found is not None
    assert (found.lines, found.ends, found.numbers, found.starts, found.stops) == (3, [14, 19], [1, 2], [8, 15], [14, 19])


def test_it_imports_nothing_from_the_folder_it_starts_in(log: Path, tmp_path: Path):
    """A run folder may hold anybody's modules."""
    (tmp_path / "msgspec.py").write_text("open('imported', 'w')")
    (tmp_path / "doctor").mkdir()
    (tmp_path / "doctor" / "__init__.py").write_text("open('imported', 'w')")
    script = """
import sys
sys.path = [one for one in sys.path if one]
import doctor
from doctor.readers.console import prefilter_process
prefilter_process.LARGE = 0
prefilter_process.os.sched_getaffinity = lambda _: {0, 1}
doctor.analyze("train.log")
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "imported").exists()


def test_small_and_streamed_logs_and_single_processors_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It takes a moment to start."""
    path = tmp_path / "train.log"
    path.write_text("x" * 1000)
    source = Source("train.log", "console", 0)
    monkeypatch.setattr("doctor.readers.console.prefilter_process.os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert not prefilter_process.worthwhile(File(path, "train.log", source))
    monkeypatch.setattr(prefilter_process, "LARGE", 0)
    assert prefilter_process.worthwhile(File(path, "train.log", source))
    with path.open("rb") as stream:
        assert not prefilter_process.worthwhile(File(path, "-", source, stream))
    monkeypatch.setattr("doctor.readers.console.prefilter_process.os.sched_getaffinity", lambda _: {0}, raising=False)
    assert not prefilter_process.worthwhile(File(path, "train.log", source))
    monkeypatch.setattr("doctor.readers.console.prefilter_process.os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    assert not prefilter_process.worthwhile(File(path, "train.log", source))
