"""What stands on disk around a config, as LLaMA-Factory would find it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doctor.config.preflight import facts_about
from doctor.core.events import Where

INFO = {
    "good": {"file_name": "good.jsonl"},
    "pairs": {"file_name": "good.jsonl", "ranking": True, "columns": {"prompt": "instruction", "chosen": "output"}},
    "gone": {"file_name": "gone.json"},
    "sheet": {"file_name": "sheet.xlsx"},
    "chat": {"file_name": "good.jsonl", "formatting": "sharegpt"},
    "named": {"file_name": "good.jsonl", "columns": {"prompt": "question", "response": "output"}},
    "hub": {"hf_hub_url": "someone/data"},
}


@pytest.fixture
def folder(tmp_path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    (data / "dataset_info.json").write_text(json.dumps(INFO), encoding="utf-8")
    (data / "good.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n' * 3, encoding="utf-8")
    (data / "sheet.xlsx").write_bytes(b"PK")
    return tmp_path


def told(folder: Path, **config) -> dict:
    return {fact.name: fact.value for fact in facts_about({"do_train": True, **config}, folder, Where("train.yaml", 1))}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"dataset": "good", "stage": "sft"}, {}),
        ({"dataset": "good,hub", "stage": "sft"}, {}),
        ({"dataset": ["pairs"], "stage": "dpo"}, {}),
        ({"dataset": "gone"}, {"dataset_file_missing": "gone (gone.json)"}),
        ({"dataset": "sheet"}, {"dataset_file_type": "sheet (sheet.xlsx)"}),
        ({"dataset": "chat"}, {"dataset_columns_missing": "chat (conversations)"}),
        ({"dataset": "named"}, {"dataset_columns_missing": "named (question)"}),
        ({"dataset": "good", "stage": "rm"}, {"dataset_lacks_ranking": "good"}),
        ({"dataset": "pairs", "stage": "sft"}, {"dataset_has_ranking": "pairs"}),
        ({"dataset": "nowhere", "dataset_dir": "ONLINE"}, {}),
        ({"dataset": "nowhere", "tokenized_path": "ready"}, {}),
        ({"dataset": "good", "deepspeed": "ds.json"}, {"deepspeed_file_missing": "ds.json"}),
        ({"dataset": "good", "deepspeed": {"zero_optimization": {"stage": 2}}}, {}),
    ],
)
def test_what_is_missing_is_told_and_nothing_else(folder, config, expected):
    """Each way in which a dataset or a DeepSpeed file can be wrong before the run, and the ways in which it is right."""
    assert told(folder, **config) == expected


def test_a_name_that_is_not_registered_is_told_with_those_that_are(folder):
    """The user sees at once what the name should have been."""
    found = told(folder, dataset="goood")
    assert found["dataset_undefined"] == "goood"
    assert "good" in found["datasets_known"].split(", ")


def test_a_folder_without_dataset_info_is_told(tmp_path):
    """Started in the wrong folder: the path that was looked at is named."""
    assert "data/dataset_info.json" in told(tmp_path, dataset="good")["dataset_info_unreadable"]


def test_the_auto_resume_trap(folder):
    """A checkpoint in output_dir is told, unless the config says what it wants; weights without a checkpoint are another thing."""
    (folder / "saves" / "checkpoint-90").mkdir(parents=True)
    (folder / "saves" / "checkpoint-500").mkdir()
    config = {"dataset": "good", "output_dir": "saves"}
    assert told(folder, **config) == {"output_dir_checkpoint": "saves/checkpoint-500"}
    assert told(folder, **config, overwrite_output_dir=True) == {}
    assert told(folder, **config, resume_from_checkpoint="saves/checkpoint-90") == {}
    (folder / "done").mkdir()
    (folder / "done" / "adapter_model.safetensors").touch()
    assert told(folder, dataset="good", output_dir="done") == {"output_dir_weights": "done"}


def test_damaged_files_are_no_crash(folder):
    """Truncated, binary and odd JSON: something is told or nothing, never an exception."""
    names = {"dataset_info_unreadable", "dataset_undefined", "datasets_known", "dataset_file_missing"}
    for content in (b"", b"\xff\xfe", b"[]", b'{"good": 3}', b'{"good": {"file_name": 3}}'):
        (folder / "data" / "dataset_info.json").write_bytes(content)
        assert set(told(folder, dataset="good")) <= names
