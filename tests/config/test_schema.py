"""The JSON Schema of the training YAML: sound configs pass, injected mistakes do not, and each version has its own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from doctor.cli.main import main
from doctor.config import knowledge
from doctor.config.schema import schema

V1 = yaml.safe_load(Path(__file__).with_name("v1_mistakes.yaml").read_text(encoding="utf-8"))
SOUND: dict[str, dict[str, Any]] = {
    "sft": {"model_name_or_path": "m", "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 8, "lora_target": "all",
            "dataset": "identity,alpaca_en_demo", "template": "llama3", "cutoff_len": 2048, "max_samples": 1000, "output_dir": "saves/a",
            "preprocessing_num_workers": 16, "logging_steps": 10, "save_steps": 500, "plot_loss": True, "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 8, "learning_rate": 1.0e-4, "num_train_epochs": 3.0, "lr_scheduler_type": "cosine",
            "bf16": True, "ddp_timeout": 180000000, "val_size": 0.1, "resume_from_checkpoint": None},
    "full": {"model_name_or_path": "m", "stage": "sft", "do_train": True, "finetuning_type": "full",
             "deepspeed": "examples/deepspeed/ds_z3_config.json", "dataset": "a", "template": "qwen", "learning_rate": 1.0e-5,
             "eval_strategy": "steps", "eval_steps": 500, "optim": "adamw_torch", "weight_decay": 0, "report_to": "none"},
    "dpo": {"model_name_or_path": "m", "stage": "dpo", "pref_beta": 0.1, "pref_loss": "sigmoid", "finetuning_type": "lora",
            "dataset": ["a", "b"], "template": "default", "quantization_bit": 4, "lora_dropout": 0.05, "use_dora": False},
    "chat": {"model_name_or_path": "m", "adapter_name_or_path": "saves/a", "template": "gemma", "infer_backend": "huggingface"},
}  # fmt: skip
"""Configs in the shape of LLaMA-Factory's examples; every option in them exists from 0.9.0 on."""

RELEASES = [version for version in knowledge.releases() if version >= "0.9" or version in knowledge.UNRELEASED]


def problems(values: dict[str, Any], version: str) -> list[str]:
    """What the schema of a version says of a config."""
    return [error.message for error in jsonschema.Draft7Validator(schema(version)).iter_errors(values)]


@pytest.mark.parametrize("version", knowledge.releases())
def test_it_is_a_schema(version: str) -> None:
    """Of every version, by the definition of JSON Schema itself."""
    jsonschema.Draft7Validator.check_schema(schema(version))


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_config_passes(name: str, version: str) -> None:
    """In every version that has all of its options."""
    assert problems(SOUND[name], version) == []


@pytest.mark.parametrize("name", V1["sound"])
def test_a_sound_v1_config_passes(name: str) -> None:
    """With the settings of its plugins."""
    assert problems(V1["sound"][name], "main") == []


def misspelt(name: str, dice: random.Random) -> str:
    """The name without one of its letters."""
    place = dice.randrange(1, len(name) - 1)
    return name[:place] + name[place + 1 :]


def with_mistake(values: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """A misspelt key, a text for a number or a flag, a value that is none of the choices, or a number out of range."""
    wrong: list[tuple[str, Any]] = [("cutoff_len", "long"), ("learning_rate", "fast"), ("do_train", "maybe"), ("stage", "sfft"),
                                    ("finetuning_type", "qlora"), ("template", "no_such_template"), ("lr_scheduler_type", "cosin"),
                                    ("lora_rank", 0), ("lora_dropout", 1.5), ("per_device_train_batch_size", -1)]  # fmt: skip
    if dice.random() < 0.5:
        key = dice.choice([name for name in values if len(name) > 4])
        return {misspelt(name, dice) if name == key else name: value for name, value in values.items()}
    return {**values, **dict([dice.choice(wrong)])}


@pytest.mark.parametrize("number", range(100))
def test_an_injected_mistake_is_rejected(number: int) -> None:
    """100 of them, in the configs above, for the newest release and main."""
    dice = random.Random(number)
    values = with_mistake(SOUND[dice.choice(sorted(SOUND))], dice)
    assert problems(values, dice.choice([knowledge.newest(), "main"])), values


def test_an_option_of_main_is_none_of_the_release() -> None:
    """And one that is gone is none of the newest."""
    assert problems({**SOUND["sft"], "hyper_parallel_cp_size": 2}, "0.9.5")
    assert not problems({**SOUND["sft"], "hyper_parallel_cp_size": 2}, "main")
    assert not problems({**SOUND["sft"], "cpu_infer": 2}, "0.9.4")
    assert problems({**SOUND["sft"], "cpu_infer": 2}, "0.9.5")


def test_the_guides_word_stands_in_the_description() -> None:
    """In the reader's language."""
    told = schema("0.9.5", "ko")["definitions"]["train"]["properties"]["learning_rate"]["description"]
    assert "QLoRA 1e-4~2e-4" in told
    assert "5.0e-5" in told


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    """For a version that is named, else for the newest release; an unknown version is told."""
    assert main(["schema", "config", "--llamafactory-version", "main"]) == 0
    assert json.loads(capsys.readouterr().out)["title"].endswith("(main)")
    assert main(["schema", "config"]) == 0
    assert json.loads(capsys.readouterr().out)["title"].endswith(f"({knowledge.newest()})")
    assert main(["schema", "config", "--llamafactory-version", "0.1"]) == 2


def test_the_published_schema_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/train.schema.json is what the command prints; `make docs` rewrites it."""
    assert main(["schema", "config"]) == 0
    published = Path(__file__).parents[2] / "docs" / "train.schema.json"
    assert capsys.readouterr().out == published.read_text(encoding="utf-8")
