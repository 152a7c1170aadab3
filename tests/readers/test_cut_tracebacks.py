"""Tracebacks as people paste them: a lost prefix, lost line ends, no last line."""

from __future__ import annotations

from pathlib import Path

from tests.readers.helpers import console

FRAMES = """Traceback (most recent call last):
  File "/app/src/llamafactory/data/mm_plugin.py", line 520, in _get_mm_inputs
    processor = self.load()
"""


def test_the_last_line_without_the_prefix_of_the_others(tmp_path: Path):
    """The exception belongs to the rank whose traceback lacks one."""
    text = "".join(f"[rank0]: {line}\n" for line in FRAMES.splitlines()) + "AttributeError: 'NoneType' object has no attribute 'size'\n"
    (crash,) = console(tmp_path, text).crashes
    assert (crash.exception, crash.rank, crash.frames[-1].function) == ("AttributeError", 0, "_get_mm_inputs")


def test_two_ranks_could_be_meant(tmp_path: Path):
    """Then the exception stands alone, and both tracebacks are cut off."""
    ranks = "".join(f"[rank{rank}]: {line}\n" for rank in (0, 1) for line in FRAMES.splitlines())
    crashes = console(tmp_path, ranks + "AttributeError: 'NoneType' object has no attribute 'size'\n").crashes
    assert sorted((crash.exception, len(crash.frames)) for crash in crashes) == [("", 1), ("", 1), ("AttributeError", 0)]


def test_an_exception_behind_its_source_line(tmp_path: Path):
    """The line end between them was lost."""
    text = FRAMES + "if isinstance(videos[0], list) and is_valid(videos[0][0]): IndexError: list index out of range\n"
    (crash,) = console(tmp_path, text).crashes
    assert (crash.exception, crash.message, len(crash.frames)) == ("IndexError", "list index out of range", 1)


def test_a_raising_source_line_names_the_exception(tmp_path: Path):
    """The traceback is cut off behind `raise RuntimeError("...")`."""
    text = FRAMES + '  File "/opt/venv/lib/python3.11/site-packages/swanlab/data/sdk.py", line 88, in log\n' \
        '    raise RuntimeError("No active run. Call init first.")\n'  # fmt: skip
    (crash,) = console(tmp_path, text).crashes
    assert (crash.exception, crash.message, crash.frames[-1].function) == ("RuntimeError", "No active run. Call init first.", "log")


def test_a_source_line_that_only_calls_something(tmp_path: Path):
    """Nothing is known of the exception."""
    (crash,) = console(tmp_path, FRAMES).crashes
    assert (crash.exception, crash.message) == ("", "")


def test_a_raising_source_line_after_frames_that_were_cut_out(tmp_path: Path):
    """The innermost frames were left out of the paste; the raising line still names class and text, and belongs to its rank."""
    text = (
        "".join(f"[rank1]: {line}\n" for line in FRAMES.splitlines()) + '[rank1]: raise RuntimeError("No active run. Call init first.")\n'
    )
    (crash,) = console(tmp_path, text).crashes
    assert (crash.exception, crash.message, crash.rank) == ("RuntimeError", "No active run. Call init first.", 1)


def test_a_raising_source_line_alone(tmp_path: Path):
    """It is all that was pasted: class and the text's template."""
    (crash,) = console(tmp_path, 'raise ValueError("Invalid weight in {}.".format(rows))\nLoading: the rest\n').crashes
    assert (crash.exception, crash.message, crash.frames) == ("ValueError", "Invalid weight in {}.", ())


def test_the_exception_behind_a_raising_line_counts(tmp_path: Path):
    """Its message is complete, the template is not; one exception, not two."""
    text = 'raise ValueError("Invalid weight in {}.".format(rows))\nValueError: Invalid weight in [3].\n'
    (crash,) = console(tmp_path, text).crashes
    assert (crash.exception, crash.message) == ("ValueError", "Invalid weight in [3].")


def test_a_sentence_that_begins_with_raise(tmp_path: Path):
    """Advice of a message is no source line."""
    assert console(tmp_path, "raise the limit with ulimit -n\nError budget: 3\n").crashes == []
