"""Launch scripts as people write them: the options, the YAML and the overrides of each wrapper are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from doctor.config.option_names import written_out
from doctor.core.events import ConfigSeen, Fact
from doctor.diagnosis.check import check
from doctor.diagnosis.pipeline import analyze
from doctor.readers.command import Command, is_script, named_config
from doctor.readers.file import File, Source

LAUNCHES: list[tuple[str, str, dict[str, Any], str | None]] = [
    ("lower.sh", "m=Qwen/Qwen3-4B\nlr=1e-5\nllamafactory-cli train \\\n  --model_name_or_path $m --learning_rate ${lr}\n",
     {"model_name_or_path": "Qwen/Qwen3-4B", "learning_rate": 1e-05}, None),
    ("job.slurm", "#SBATCH -N 1\nsrun accelerate launch --config_file f.yaml --num_processes 8 src/train.py a.yaml learning_rate=1e-5\n",
     {"learning_rate": 1e-05}, "a.yaml"),
    ("nested.sh", "FORCE_TORCHRUN=1 lmf train x.yaml output_dir=y kt_config.kt_mode=a\n",
     {"output_dir": "y", "kt_config": {"kt_mode": "a"}}, "x.yaml"),
    ("shell.sh", 'srun bash -c "llamafactory-cli train x.yaml lr_scheduler_type=cosine"\n', {"lr_scheduler_type": "cosine"}, "x.yaml"),
    ("ray.sh", "ray job submit --address http://a:1 -- llamafactory-cli train x.yaml seed=1\n", {"seed": 1}, "x.yaml"),
    ("docker.sh", "docker run --gpus all img llamafactory-cli train x.yaml num_train_epochs=3\n", {"num_train_epochs": 3}, "x.yaml"),
    ("torchrun.sh", "torchrun --nproc_per_node 8 $(pwd)/src/train.py --no_dataloader_pin_memory --stage dpo\n",
     {"dataloader_pin_memory": False, "stage": "dpo"}, None),
    ("deepspeed.sh", "deepspeed --num_gpus 8 --master_port=9901 src/train.py --deepspeed ds.json --stage sft\n",
     {"deepspeed": "ds.json", "stage": "sft"}, None),
    ("short.sh", "llamafactory-cli train --stage sft --lora_r 128 --per-device-train-batch-size 2\n",
     {"stage": "sft", "lora_rank": 128, "per_device_train_batch_size": 2}, None),
    ("module.sh", "python -m accelerate.commands.launch --num_processes 4 src/train.py a.yaml learning_rate=2e-5\n",
     {"learning_rate": 2e-05}, "a.yaml"),
    ("cli.sh", "accelerate launch --config_file acc.yaml -m llamafactory.cli train b.yaml seed=3\n", {"seed": 3}, "b.yaml"),
    ("use_ray.sh", "USE_RAY=1 llamafactory-cli train c.yaml ray_num_workers=4\n", {"ray_num_workers": 4}, "c.yaml"),

        ("ray_module.sh", "ray job submit --runtime-env-json '{\"env_vars\": {}}' -- python -m llamafactory.cli train r.yaml max_steps=5\n",
     {"max_steps": 5}, "r.yaml"),
    ("rendezvous.sh", "torchrun --nnodes=2 --node_rank=$RANK --rdzv_backend=c10d -m llamafactory.launcher g.yaml save_steps=100\n",
     {"save_steps": 100}, "g.yaml"),
    ("include.sh", "deepspeed --include localhost:0,1 --module llamafactory.launcher f.yaml cutoff_len=1024\n",
     {"cutoff_len": 1024}, "f.yaml"),
    ("words.sh", 'ARGS="--stage sft --cutoff_len 4096"\nllamafactory-cli train $ARGS\n', {"stage": "sft", "cutoff_len": 4096}, None),
    ("array.sh", 'args=(\n  --stage dpo\n  --pref_beta 0.2\n)\nllamafactory-cli train "${args[@]}"\n',
     {"stage": "dpo", "pref_beta": 0.2}, None),
    ("loop.sh", "for lr in 1e-4 2e-4; do\n  llamafactory-cli train m.yaml learning_rate=$lr output_dir=saves/$lr\ndone\n",
     {"output_dir": "saves/$lr"}, "m.yaml"),
    ("file.slurm", "srun -n1 bash -c 'FORCE_TORCHRUN=1 llamafactory-cli train p.yaml deepspeed=ds.json'\n",
     {"deepspeed": "ds.json"}, "p.yaml"),
    ("abbreviated.sh", "llamafactory-cli train --num_train 3 --per_device_train 2 --gradient_acc 8\n",
     {"num_train_epochs": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}, None),
    ("dotted.sh", "nohup llamafactory-cli train j.yaml lr_scheduler_kwargs.min_lr=1e-6 > log.txt 2>&1 &\n",
     {"lr_scheduler_kwargs": {"min_lr": 1e-06}}, "j.yaml"),
    ("continued.mk", "CFG ?= d.yaml\ntrain: data\n\tFORCE_TORCHRUN=1 \\\n\tllamafactory-cli train $(CFG) \\\n\t  output_dir=saves/x\n",
     {"output_dir": "saves/x"}, "d.yaml"),
    ("Makefile", "LR := 1e-5\nrun:\n\t@USE_MCA=1 llamafactory-cli train x.yaml learning_rate=$(LR)\n", {"learning_rate": 1e-05}, "x.yaml"),
]  # fmt: skip
"""(file name, text, its options, the YAML that it names)."""


@pytest.mark.parametrize(("name", "text", "options", "yaml"), LAUNCHES, ids=[case[0] for case in LAUNCHES])
def test_a_launch_is_read(name: str, text: str, options: dict[str, Any], yaml: str | None, tmp_path: Path) -> None:
    """Its own options only: those of docker, ray and the launchers are no training options."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert is_script(path)
    events = list(Command().configs(File(path, name, Source(name, "command", len(text)))))
    values: dict[str, Any] = {}
    for event in events:
        values |= event.values if isinstance(event, ConfigSeen) else {}
    assert values == options
    assert [event.value for event in events if isinstance(event, Fact) and event.name == "config.named"] == ([yaml] if yaml else [])


def test_variables_behind_a_scheduler_are_the_trainings(tmp_path: Path) -> None:
    """What a shell sets behind srun reaches the training: DeepSpeed is started with torchrun here."""
    path = tmp_path / "job.slurm"
    path.write_text("srun -n1 bash -c 'FORCE_TORCHRUN=1 llamafactory-cli train p.yaml deepspeed=ds.json'\n", encoding="utf-8")
    events = Command().configs(File(path, "job.slurm", Source("job.slurm", "command", 1)))
    assert ("env.FORCE_TORCHRUN", "1") in [(event.name, event.value) for event in events if isinstance(event, Fact)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("lora_r", ("lora_rank", False)),
        ("lora_rank", ("lora_rank", False)),
        ("lora", ("lora", False)),  # several options begin so: argparse calls it ambiguous
        ("no_remove_unused_columns", ("remove_unused_columns", True)),
        ("no_cuda", ("no_cuda", False)),
    ],
)
def test_an_abbreviation_is_written_out(written: str, meant: tuple[str, bool]) -> None:
    """As argparse does, and only where one option alone begins so."""
    assert written_out(written) == meant


def test_check_judges_the_yaml_and_what_the_command_overrides(tmp_path: Path) -> None:
    """The misspelt override is refused; the YAML's own value that it replaces is not seen."""
    (tmp_path / "train.yaml").write_text(
        "model_name_or_path: m\nstage: sft\ndo_train: true\ndataset: a\ntemplate: qwen_3\n", encoding="utf-8"
    )
    (tmp_path / "run.sh").write_text("llamafactory-cli train train.yaml template=qwen3 lora_rnk=8\n", encoding="utf-8")
    assert named_config(tmp_path / "run.sh", tmp_path) == tmp_path / "train.yaml"
    found = check(tmp_path / "run.sh", folder=tmp_path).findings
    assert [finding.rule for finding in found if finding.severity == "error"] == ["config/unknown-option"]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("NPROC_PER_NODE=4 swift sft --model_type qwen2-vl --num_train_epochs 3 --deepspeed default-zero2\n", "swift"),
        ("accelerate launch -m axolotl.cli.train config.yaml --learning_rate 1e-5 --output_dir out\n", "axolotl"),
        ("/opt/venv/bin/trl sft --model_name_or_path m --learning_rate 1e-5\n", "trl"),
    ],
)
def test_the_options_of_another_trainer_are_its_own(tmp_path: Path, command: str, name: str) -> None:
    """Its defaults are others: no batch of 8, no option of LLaMA-Factory, no command of it in the report."""
    (tmp_path / "run.sh").write_text(command)
    (tmp_path / "console.log").write_text(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 34.83 GiB. GPU 0 has a total capacity of 44.55 GiB.\n"
    )
    report = analyze(tmp_path)
    assert report.run.framework == name
    assert report.patch is None or (report.patch.command is None and report.patch.predicted.effective_batch is None)
    assert report.patch is None or not any("resume" in note for note in report.patch.notes)
    assert not any("llamafactory-cli" in str(remedy.command) for finding in report.findings for remedy in finding.remedies)
