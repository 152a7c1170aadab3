"""Whatever the rows hold, the report is written: no exception, every row counted once, and the cleaned copy can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from doctor.dataset.cleaning import clean_copy
from doctor.dataset.inspect import inspect
from doctor.dataset.output import to_json, to_markdown, to_terminal
from tests.dataset.sets import QUIET, put

SCALARS = some.none() | some.booleans() | some.integers(-5, 5) | some.floats(allow_nan=False, allow_infinity=False)
TEXTS = some.text(max_size=12) | some.sampled_from(
    ("human", "gpt", "user", "assistant", "tool", "<image>", "<|im_end|>", "[]", "{", "a.jpg", "")
)
ANYTHING = some.recursive(
    SCALARS | TEXTS, lambda inner: some.lists(inner, max_size=3) | some.dictionaries(TEXTS, inner, max_size=3), max_leaves=5
)
MESSAGE = some.fixed_dictionaries({}, optional={"from": TEXTS | ANYTHING, "value": TEXTS | ANYTHING, "tool_calls": ANYTHING}) | ANYTHING
ROW = some.fixed_dictionaries(
    {},
    optional={
        "instruction": TEXTS | ANYTHING, "input": TEXTS | ANYTHING, "output": TEXTS | ANYTHING, "history": ANYTHING, "system": ANYTHING,
        "tools": ANYTHING, "images": ANYTHING, "conversations": some.lists(MESSAGE, max_size=5) | ANYTHING, "chosen": MESSAGE,
        "rejected": MESSAGE, "tag": some.booleans() | ANYTHING,
    },
)  # fmt: skip
COLUMNS = {
    "prompt": "instruction", "query": "input", "response": "output", "history": "history", "system": "system", "tools": "tools",
    "images": "images", "messages": "conversations", "chosen": "chosen", "rejected": "rejected", "kto_tag": "tag",
}  # fmt: skip


@pytest.mark.parametrize("form", ["alpaca", "sharegpt", "openai"])
@pytest.mark.parametrize("stage", ["sft", "dpo", "kto", "pt", "ppo"])
@settings(max_examples=30)  # fifteen forms and stages
@given(rows=some.lists(ROW | ANYTHING, max_size=6), template=some.sampled_from(("qwen", "qwen2_vl", None)))
def test_no_row_breaks_the_report(tmp_path_factory: Any, form: str, stage: str, rows: list[Any], template: str | None) -> None:
    """Rows of any shape in every form and stage, in all three outputs."""
    folder = tmp_path_factory.mktemp("fuzz")
    rows = [{}, *rows] if rows and isinstance(rows[0], list) else rows  # a list in the first line is an array of rows
    text = "".join(json.dumps(row) + "\n" for row in rows)
    put(folder, "one.jsonl", text, formatting=form, ranking=stage == "dpo", columns=COLUMNS)
    config = {"dataset": "one", "stage": stage, "template": template}
    report = inspect(config, folder, QUIET)
    (seen,) = report.datasets
    objects = sum(isinstance(row, dict) for row in rows)
    assert (seen.rows, seen.used + seen.dropped) == (len(rows), objects)
    for written in (to_json(report, "en"), to_terminal(report, "ko", folder), to_markdown(report, "zh", folder)):
        assert written.endswith("\n")
    made = clean_copy(config, folder, folder / "clean", QUIET)
    assert made.kept + made.dropped == len(rows)
    kept = (folder / "clean" / "one.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert len(kept) == made.kept
    assert all(isinstance(json.loads(line), dict) for line in kept)


@given(data=some.binary(max_size=300) | some.text(max_size=200).map(str.encode), ending=some.sampled_from(("json", "jsonl", "csv", "txt")))
def test_no_bytes_break_the_report(tmp_path_factory: Any, data: bytes, ending: str) -> None:
    """Files that are anything."""
    folder: Path = tmp_path_factory.mktemp("fuzz")
    put(folder, f"one.{ending}", data)
    report = inspect({"dataset": "one", "template": "qwen"}, folder, QUIET)
    assert to_terminal(report, "en", folder).startswith("Data of")
    assert report.datasets[0].rows <= data.count(b"\n") + data.count(b"\r") + data.count(b",") + 60
