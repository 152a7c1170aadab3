"""Configurations: YAML as LLaMA-Factory loads it, the web UI's, command lines, DeepSpeed's, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.core.events import ConfigSeen
from doctor.diagnosis.check import check
from doctor.diagnosis.pipeline import analyze
from tests.readers.helpers import Seen, console


def config(folder: Path, text: str, name: str = "train.yaml") -> Seen:
    (folder / name).write_text(text)
    (folder / "console.log").write_text("a line\n")
    return Seen(folder)


def test_values_are_those_llamafactory_would_load(tmp_path: Path):
    """OmegaConf's rules: 5e-5 is a number, None is a text, yes is true, an empty value is null."""
    text = "stage: sft\nmodel_name_or_path: m\nlearning_rate: 5e-5\nquantization_bit: None\nbf16: yes\neval_dataset:\nseed: 0010\n"
    values = config(tmp_path, text).config
    assert values["learning_rate"] == 5e-05
    assert (values["quantization_bit"], values["bf16"], values["eval_dataset"], values["seed"]) == ("None", True, None, 8)


def test_a_key_given_twice_is_said(tmp_path: Path):
    """The last value counts, and the key is told with its line: LLaMA-Factory refuses such a file."""
    seen = config(tmp_path, "stage: sft\nmodel_name_or_path: m\ncutoff_len: 1\ncutoff_len: 2\n")
    assert seen.config["cutoff_len"] == 2
    assert seen.facts["config_duplicate_key"] == "cutoff_len"


def test_broken_yaml_gives_its_readable_lines(tmp_path: Path):
    """A note in brackets or a tab spoils the file, not the options around it; there is no text to patch then."""
    seen = config(tmp_path, "stage: sft\nmodel_name_or_path: m\ncutoff_len: 512  # short\n(run on two nodes)\n\tlearning_rate: 1e-4\n")
    assert seen.config["cutoff_len"] == 512
    assert seen.reading.config_source is None
    assert any("line by line" in problem for problem in seen.problems)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch PWNED']",
        "stage: !!python/object/apply:os.system ['touch PWNED']\nmodel_name_or_path: m\n",
        "stage: sft\nmodel_name_or_path: &a [" + "x," * 10 + "]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\n",
        "stage: &a [*a]\nmodel_name_or_path: m\n",
    ],
)  # fmt: skip
def test_hostile_yaml_does_nothing(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch):
    """Tags that would run code, and aliases that would blow up, are problems of that file."""
    monkeypatch.chdir(tmp_path)
    config(tmp_path, text)
    assert not (tmp_path / "PWNED").exists()


def test_the_v1_trainers_config_is_not_judged_by_v0_names(tmp_path: Path):
    """`model:` instead of model_name_or_path is the v1 trainer: a fact, no options."""
    seen = config(tmp_path, "model: m\ntrain_dataset: data.yaml\nmicro_batch_size: 1\npeft_config:\n  name: lora\n")
    assert seen.facts["llamafactory.trainer"] == "v1"
    assert seen.of(ConfigSeen) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dataset_info.json", '{"toy": {"file_name": "toy.json", "columns": {"prompt": "dataset"}}}'),
        ("config.json", '{"architectures": ["A"], "hidden_size": 64, "model_type": "llama"}'),
        ("compose.yaml", "services:\n  trainer:\n    image: x\n"),
    ],
)
def test_what_is_no_training_configuration(tmp_path: Path, name: str, text: str):
    """Data set lists, model configurations and other programs' files are left alone."""
    assert config(tmp_path, text, name).of(ConfigSeen) == []


def test_the_web_uis_files(tmp_path: Path):
    """llamaboard_config.yaml keeps numbers as texts under its own names; training_args.yaml holds the real ones."""
    board = "top.finetuning_type: lora\ntrain.learning_rate: 5e-5\ntrain.batch_size: 2\ntrain.training_stage: Reward Modeling\n"
    values = config(tmp_path, board, "llamaboard_config.yaml").config
    assert (values["learning_rate"], values["per_device_train_batch_size"], values["stage"]) == (5e-05, 2, "rm")


BOARD = """top.booster: liger_kernel
top.finetuning_type: {method}
top.model_name: Qwen2.5-7B-Instruct
top.quantization_bit: '4'
top.rope_scaling: none
train.batch_size: 2
train.compute_type: pure_bf16
train.dataset: [identity, alpaca_en_demo]
train.extra_args: '{{"optim": "adamw_8bit"}}'
train.lora_rank: 8
train.max_samples: '100000'
train.training_stage: DPO
"""


def test_the_web_uis_fields_are_the_options_that_it_makes_of_them(tmp_path: Path):
    """Its choices, its own names and its extra arguments (webui/runner.py, _parse_train_args); LoRA's fields only with LoRA."""
    meant = {"enable_liger_kernel": True, "finetuning_type": "lora", "quantization_bit": 4, "per_device_train_batch_size": 2,
             "pure_bf16": True, "dataset": "identity,alpaca_en_demo", "optim": "adamw_8bit", "lora_rank": 8, "max_samples": 100000,
             "stage": "dpo"}  # fmt: skip
    assert config(tmp_path, BOARD.format(method="lora"), "llamaboard_config.yaml").config == meant
    full = config(tmp_path, BOARD.format(method="full"), "llamaboard_config.yaml").config
    assert full == {name: value for name, value in meant.items() if name != "lora_rank"} | {"finetuning_type": "full"}


def test_check_says_that_the_command_line_refuses_the_web_uis_settings(tmp_path: Path):
    """Under any name; its training_args.yaml is a training configuration, and a run that has both files is no mistake."""
    (tmp_path / "2026.yaml").write_text(BOARD.format(method="lora"))
    (tmp_path / "training_args.yaml").write_text("stage: sft\ndo_train: true\nmodel_name_or_path: m\ntemplate: qwen\ndataset: identity\n")
    told = {name: {one.rule for one in check(tmp_path / name, folder=tmp_path).findings} for name in ("2026.yaml", "training_args.yaml")}
    assert "config/check-web-ui-settings" in told["2026.yaml"]
    assert "config/check-web-ui-settings" not in told["training_args.yaml"]
    assert "config/check-web-ui-settings" not in {one.rule for one in analyze(tmp_path).findings}


def test_deepspeed_files_are_facts(tmp_path: Path):
    """The only DeepSpeed file, or the one that the configuration names, is known; of several unnamed ones none."""
    (tmp_path / "ds_z2.json").write_text('{"zero_optimization": {"stage": 2}}')
    assert config(tmp_path, "a: 1\n", "x.txt").facts["deepspeed.stage"] == 2
    (tmp_path / "ds_z3.json").write_text('{"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": "auto"}')
    assert "deepspeed.stage" not in Seen(tmp_path).facts
    seen = config(tmp_path, "stage: sft\nmodel_name_or_path: m\ndeepspeed: conf/ds_z3.json\n")
    assert seen.facts["deepspeed.stage"] == 3


COMMAND = r"""#!/bin/bash
# --stage dpo is what we did before
export NCCL_P2P_DISABLE=1
GPUS=4
CUDA_VISIBLE_DEVICES=0,1,2,3 nohup torchrun --nproc_per_node $GPUS --master_port=29500 \
    src/train.py \
    --stage sft --do_train \
    --model_name_or_path "some/model" --lora_target q_proj,v_proj \
    --learning_rate 5e-5 --fp16 --overwrite_cache False \
    --output_dir=saves/x > train.log 2>&1 &
"""


def test_a_shell_script(tmp_path: Path):
    """Options over continued lines, flags without value, assignments, launcher settings apart; comments are no options."""
    (tmp_path / "run.sh").write_text(COMMAND)
    seen = Seen(tmp_path)
    assert seen.config == {
        "stage": "sft", "do_train": True, "model_name_or_path": "some/model", "lora_target": "q_proj,v_proj", "learning_rate": 5e-05,
        "fp16": True, "overwrite_cache": False, "output_dir": "saves/x",
    }  # fmt: skip
    facts = {"env.CUDA_VISIBLE_DEVICES": "0,1,2,3", "env.NCCL_P2P_DISABLE": "1", "launcher": "torchrun", "nproc_per_node": 4}
    assert facts.items() <= seen.facts.items()


@pytest.mark.parametrize(
    ("command", "launcher"),
    [
        ("llamafactory-cli train --stage sft --cutoff_len 512", "llamafactory-cli"),
        ("deepspeed --num_gpus 6 src/train_bash.py --stage sft --cutoff_len 512", "deepspeed"),
        ("accelerate launch --num_processes 2 src/train_bash.py --stage sft --cutoff_len 512", "accelerate"),
        ("python -m torch.distributed.run --nproc-per-node=2 src/train.py --stage sft --cutoff_len 512", "torchrun"),
        ("python src/train_bash.py --stage sft --cutoff_len 512", "python"),
        ("llamafactory-cli train x.yaml stage=sft cutoff_len=512", "llamafactory-cli"),
    ],
)
def test_commands_of_every_launcher(tmp_path: Path, command: str, launcher: str):
    """The launcher is a fact, its settings are no training options."""
    (tmp_path / "command.sh").write_text(command)
    seen = Seen(tmp_path)
    assert (seen.config, seen.facts["launcher"]) == ({"stage": "sft", "cutoff_len": 512}, launcher)


@pytest.mark.parametrize(
    "text", ["--stage sft --cutoff_len 512", '{"stage": "sft", "cutoff_len": 512}', "stage: sft, cutoff_len: 512 (two GPUs)"]
)
def test_options_without_a_command(tmp_path: Path, text: str):
    """A command.sh may hold bare options, JSON, or a note of pairs."""
    (tmp_path / "command.sh").write_text(text)
    assert Seen(tmp_path).config == {"stage": "sft", "cutoff_len": 512}


def test_a_command_pasted_above_the_log(tmp_path: Path):
    """The prompt line of a console is the user's command; messages that mention options are not."""
    text = "user@host:~/lf$ CUDA_VISIBLE_DEVICES=1 llamafactory-cli train \\\n    --stage rm \\\n    --cutoff_len 512\n"
    text += "ValueError: `--predict_with_generate` cannot be set as True except SFT.\n"
    seen = console(tmp_path, text)
    assert (seen.config, seen.facts["env.CUDA_VISIBLE_DEVICES"]) == ({"stage": "rm", "cutoff_len": 512}, "1")


def test_a_config_without_a_log_is_enough(tmp_path: Path):
    """A folder with a configuration alone can be read."""
    (tmp_path / "merge.yaml").write_text("model_name_or_path: m\nadapter_name_or_path: a\nexport_dir: out\n")
    assert Seen(tmp_path).config["export_dir"] == "out"
