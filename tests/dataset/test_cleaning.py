"""--fix-data writes a copy without bad rows and a list of them; it never writes over anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doctor.dataset.cleaning import clean_copy
from doctor.dataset.findings import SEVERITY
from doctor.dataset.inspect import inspect
from doctor.errors import DoctorError
from tests.dataset.sets import QUIET, found, good, lines, put, talk


def cleaned(folder: Path, **config: object) -> tuple[Path, list[dict[str, object]]]:
    out = folder / "clean"
    clean_copy({"dataset": "one", "template": "qwen", **config}, folder, out, QUIET)
    return out, [json.loads(line) for line in (out / "dropped.jsonl").read_text().splitlines()]


def test_bad_rows_are_left_out_and_listed(tmp_path):
    """A broken line, an empty and a null answer, a duplicate: out. A sound row and one with HTML: in. The original is untouched."""
    text = lines(good(1), "{", good(2, output=""), good(3, output=None), good(1), good(4, output="<p>4</p>"))
    put(tmp_path, "one.jsonl", text)
    out, dropped = cleaned(tmp_path)
    assert [json.loads(line) for line in (out / "one.jsonl").read_text().splitlines()] == [good(1), good(4, output="<p>4</p>")]
    assert [(entry["line"], entry["reason"]) for entry in dropped] == [
        (2, "broken_json"), (3, "empty_answer"), (4, "no_answer"), (5, "duplicate"),
    ]  # fmt: skip
    assert (tmp_path / "data" / "one.jsonl").read_text() == text


@pytest.mark.parametrize("ending", ["json", "csv"])
def test_the_copy_is_sound_when_it_is_looked_at_again(tmp_path, ending):
    """Nothing above a note is left, whatever the file type, and the entry keeps its columns."""
    made = [good(number) for number in range(5)] + [good(9, output=""), good(2)]
    if ending == "json":
        put(tmp_path, "one.json", json.dumps(made))
    else:
        put(tmp_path, "one.csv", "instruction,input,output\n" + "".join(f"{row['instruction']},x,{row['output']}\n" for row in made))
    out, dropped = cleaned(tmp_path)
    assert len(dropped) == 2
    again = inspect({"dataset": "one", "template": "qwen", "dataset_dir": str(out)}, tmp_path, QUIET)
    assert [one.rows for one in again.datasets] == [5]
    assert all(SEVERITY[kind] == "note" for kind in found(again))


def test_conversations_and_overlaps(tmp_path):
    """A sample that is also in the training data leaves the evaluation set, not the training data."""
    put(tmp_path, "one.jsonl", lines(talk(1), talk(2, "human", "human"), talk(3)), formatting="sharegpt")
    put(tmp_path, "held.jsonl", lines(talk(3), talk(4)), formatting="sharegpt")
    out, dropped = cleaned(tmp_path, eval_dataset="held")
    assert [(entry["dataset"], entry["line"], entry["reason"]) for entry in dropped] == [("one", 2, "role_order"), ("held", 1, "overlap")]
    assert json.loads((out / "dataset_info.json").read_text())["held"] == {"file_name": "held.jsonl", "formatting": "sharegpt"}


def test_nothing_is_written_over(tmp_path):
    """A folder that holds something, the data folder itself, and a file are refused."""
    put(tmp_path, "one.jsonl", lines(good(1)))
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "data", tmp_path / "file"):
        with pytest.raises(DoctorError, match="never over data"):
            clean_copy({"dataset": "one"}, tmp_path, out, QUIET)
    assert (tmp_path / "data" / "one.jsonl").read_text() == lines(good(1))


def test_a_name_cannot_leave_the_folder(tmp_path):
    """A data set called ../../x is written inside."""
    put(tmp_path, "one.jsonl", lines(good(1)))
    info = tmp_path / "data" / "dataset_info.json"
    info.write_text(json.dumps({"../../x": {"file_name": "one.jsonl"}}))
    out = tmp_path / "deep" / "clean"
    clean_copy({"dataset": "../../x"}, tmp_path, out, QUIET)
    assert sorted(path.name for path in out.iterdir()) == ["_.._x.jsonl", "dataset_info.json", "dropped.jsonl"]
