"""Only configurations of LLaMA-Factory are taken for one."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from doctor.cli.main import main
from doctor.config.recognise import shape_of
from doctor.config.yaml_edit import load
from tests.config.foreign import SHAPES, foreign_files


def test_three_hundred_foreign_files_are_left_byte_for_byte(tmp_path, capsys):
    """check --fix on files of 43 other programs: exit code 2, a reason, no backup, no changed byte."""
    files = dict(foreign_files(1))
    assert len(files) >= 300
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert main(["check", str(tmp_path / name), "--fix", "--unsafe-fixes"]) == 2, name
        assert (tmp_path / name).read_bytes() == data, name
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.count("not a LLaMA-Factory training configuration") == len(files)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


HOOKS = {hook["id"]: hook for hook in yaml.safe_load((Path(__file__).parents[2] / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))}


@pytest.mark.parametrize("hook", HOOKS)
def test_the_hooks_pass_over_foreign_files(hook, tmp_path, monkeypatch, capsys):
    """As pre-commit calls them, with every file at once, also with those that the hook's patterns would have kept out: exit code 0, nothing
    changed, nothing said; a config of ours among them is checked, and mended by the fixing hook alone."""
    monkeypatch.chdir(tmp_path)
    files = dict(foreign_files(7))
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    program, *words = shlex.split(HOOKS[hook]["entry"])
    assert program == "lfdoctor"
    assert main([*words, *files]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    ours = "model_name_or_path: m\nstage: sft\ndo_train: true\ndataset: x\ntemplate: qwen\noutput_dir: o\nlora_r: 8\n"
    (tmp_path / "train.yaml").write_text(ours, encoding="utf-8")
    assert main([*words, *files, "train.yaml"]) in (0, 1)
    mended = (tmp_path / "train.yaml").read_text(encoding="utf-8")
    assert mended == (ours.replace("lora_r:", "lora_rank:") if hook == "lfdoctor-check-fix" else ours)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("examples/train_lora/llama3_lora_sft.yaml", True),
        ("configs/qwen_sft.yml", True),
        ("train.yaml", True),
        ("docker-compose.train.yaml", False),
        (".github/workflows/train.yml", False),
        ("k8s/train-job.yaml", False),
        ("mkdocs.yml", False),
        ("helm/values-train.yaml", False),
        ("openapi.yaml", False),
    ],
)
@pytest.mark.parametrize("hook", HOOKS)
def test_the_hooks_patterns_choose_training_configs(hook, name, taken):
    """`files` and `exclude` of .pre-commit-hooks.yaml, as pre-commit searches them."""
    entry = HOOKS[hook]
    assert bool(re.search(entry["files"], name) and not re.search(entry["exclude"], name)) is taken


@pytest.mark.parametrize("seed", range(2, 6))
def test_no_foreign_shape_is_recognised(seed):
    """The predicate alone, over other seeds."""
    assert [name for name, data in foreign_files(seed) if shape_of(load(data.decode("utf-8-sig")))] == []
    assert len(SHAPES) > 30


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ({"model_name_or_path": "m"}, "v0"),
        ({"stage": "sft", "dataset": "x"}, "v0"),
        ({"stage": "build", "dataset": "x"}, None),
        ({"model_name_or_path": "m", "max_seq_length": 1, "stage": "sft", "dataset": "x", "epochs": 3}, "v0"),
        ({"model": "m", "train_dataset": "x", "peft_config": {"name": "lora"}, "micro_batch_size": 1}, "v1"),
        ({"top.model_name": "Qwen", "train.learning_rate": "5e-5"}, "web ui"),
        ({"task": "mmlu_test", "model_name_or_path": "m", "template": "fewshot", "n_shot": 5, "lang": "en"}, "v0"),
        ({"model_name_or_path": "m", "export_dir": "o", "template": "qwen"}, "v0"),
        ({"finetuning_type": "lora", "stage": "sft", "dataset": "x", "model_type": "qwen", "jobs": 4}, "v0"),
        ({"lora_rank": 8}, "v0"),
        ({"learning_rate": 1e-4}, "v0"),
        ({"output_dir": "o", "seed": 1}, "v0"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}}, "v0"),
        ({"learning_rate": 1e-4, "epochs": 3}, None),
        ({"template": {"metadata": {}}}, None),
        ({"do_sample": True, "temperature": 0.7}, None),
        ({"stage": "build"}, None),
        ({"stage": ["build", "test"]}, None),
        ({}, None),
    ],
)
def test_what_is_a_config(values, shape):
    """v0, v1, the web UI's file, export and benchmark configs are ours; an unknown key in ours changes nothing.

    A mapping of a few general names is ours if it holds nothing else and the values can be LLaMA-Factory's.
    """
    assert shape_of(values) == shape
    assert json.dumps(values)  # plain data: the same file as JSON would be taken the same way
