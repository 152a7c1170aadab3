"""A model's config.json on this machine is used before the table: by path, relative to the config, in a hub's cache, in the run folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from doctor import check, estimate
from doctor.memory.local_config import Place, find
from doctor.memory.names import lookup
from tests.readers.helpers import Seen

TINY = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 1000,
}


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    """No test sees the caches of the machine it runs on."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "MODELSCOPE_CACHE", "USE_MODELSCOPE_HUB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(Path, "home", lambda: home)
    return home


def put(folder: Path, raw: dict[str, Any] | None = None) -> Path:
    """A config.json in a new folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(TINY if raw is None else raw))
    return folder


def test_the_hub_cache_is_preferred_to_the_table(empty_home):
    """The snapshot of `main` first, then the newest; an organisation and a name in one folder name."""
    cached = empty_home / ".cache" / "huggingface" / "hub" / "models--Qwen--Qwen2.5-7B"
    old, new = put(cached / "snapshots" / "aaa"), put(cached / "snapshots" / "bbb", {**TINY, "hidden_size": 32})
    for age, folder in enumerate((old, new)):
        os.utime(folder / "config.json", (1000 + age, 1000 + age))
    assert lookup("Qwen/Qwen2.5-7B").hidden == 32
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("aaa\n")
    assert lookup("Qwen/Qwen2.5-7B").hidden == 64
    assert lookup(str(cached)).hidden == 64
    assert lookup("Qwen/Qwen2.5-14B").hidden == 5120


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "MODELSCOPE_CACHE", "cache_dir"])
def test_where_caches_lie(tmp_path, monkeypatch, variable):
    """huggingface_hub's and ModelScope's variables, and the option cache_dir."""
    root = tmp_path / "caches"
    below = {"HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub", "MODELSCOPE_CACHE": "models"}.get(variable, "")
    name = "acme/own___5-7b" if variable == "MODELSCOPE_CACHE" else "models--acme--own.5-7b/snapshots/abc"
    put(root / below / name)
    if variable != "cache_dir":
        monkeypatch.setenv(variable, str(root))
    place = Place(cache=str(root)) if variable == "cache_dir" else Place()
    assert lookup("acme/own.5-7b", place).hidden == 64


@pytest.mark.parametrize(
    "place", [".cache/modelscope/hub/models/acme/own___5-7b", ".cache/modelscope/models/acme--own.5-7b/snapshots/master"]
)
def test_the_hub_that_is_asked_for_stands_first(empty_home, monkeypatch, place):
    """USE_MODELSCOPE_HUB=1: the copy of ModelScope, in its old and its new layout, before that of Hugging Face."""
    put(empty_home / ".cache/huggingface/hub/models--acme--own.5-7b/snapshots/abc", {**TINY, "hidden_size": 32})
    put(empty_home / place)
    assert lookup("acme/own.5-7b").hidden == 32
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    assert lookup("acme/own.5-7b").hidden == 64


def test_a_path_relative_to_the_config_file(tmp_path, monkeypatch):
    """`model_name_or_path: models/own` in conf/train.yaml, started elsewhere."""
    put(tmp_path / "conf" / "models" / "own", {**TINY, "vocab_size": 1_000_000})
    config = tmp_path / "conf" / "train.yaml"
    config.write_text("model_name_or_path: models/own\nstage: sft\nfinetuning_type: lora\nbf16: true\n")
    monkeypatch.chdir(tmp_path)
    assert estimate(config).params_b == 0.128  # 2 x 64 million of embedding and head, two small layers


def test_a_damaged_config_is_no_answer(empty_home):
    """What cannot be read, or has no sizes, leaves the table's answer."""
    cached = empty_home / ".cache" / "huggingface" / "hub" / "models--Qwen--Qwen2.5-7B" / "snapshots" / "aaa"
    put(cached, {"model_type": "qwen2"})
    assert lookup("Qwen/Qwen2.5-7B").hidden == 3584
    (cached / "config.json").write_text("{")
    assert lookup("Qwen/Qwen2.5-7B").hidden == 3584
    assert find("Qwen/Qwen2.5-7B\0", Place()) is None
    assert find("../Qwen2.5-7B", Place()) is None


def test_a_nested_text_config_of_a_new_hybrid_is_used(tmp_path):
    """estimate reads Qwen3.5's nested config where model_name_or_path names the folder, and says how its layers are counted."""
    text = {
        **TINY,
        "model_type": "qwen3_5_text",
        "head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 1,
        "linear_key_head_dim": 16,
        "linear_num_value_heads": 2,
        "linear_value_head_dim": 16,
    }
    folder = put(tmp_path / "own", {"model_type": "qwen3_5", "text_config": text})
    found = estimate({"model_name_or_path": str(folder), "stage": "sft", "finetuning_type": "lora", "bf16": True})
    assert found.regime == "hybrid layers"
    assert any("flash-linear-attention" in note.en for note in found.notes)


def test_check_uses_it(tmp_path):
    """`check` says that it does not fit from the sizes in the model's own config.json: 100 layers of a model no table knows."""
    put(
        tmp_path / "models" / "own",
        {**TINY, "hidden_size": 8192, "num_hidden_layers": 100, "intermediate_size": 28672, "vocab_size": 128000},
    )
    config = tmp_path / "train.yaml"
    text = "model_name_or_path: models/own\nstage: sft\nfinetuning_type: lora\ndo_train: true\ndataset: d\ntemplate: qwen\n"
    config.write_text(text + "output_dir: out\nbf16: true\n")
    report = check(config, folder=tmp_path, gpu_memory_gib=24)
    assert "memory" in {finding.rule.partition("/")[0] for finding in report.findings}


def test_analyze_uses_the_config_that_the_run_saved(tmp_path):
    """A full run's output folder holds the model's config.json beside the trainer's files: its sizes are the run's."""
    run = put(tmp_path / "run")
    (run / "trainer_log.jsonl").write_text('{"current_steps": 1, "total_steps": 2, "loss": 1.0}\n')
    assert Seen(run).facts["model.config"]["hidden_size"] == 64
    other = put(tmp_path / "other" / "models")
    (other.parent / "trainer_log.jsonl").write_text('{"current_steps": 1, "total_steps": 2, "loss": 1.0}\n')
    assert "model.config" not in Seen(other.parent).facts
