"""Files of other programs that share words with training configurations: 300 and more, made from shapes and a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import yaml

WORDS = ("web", "db", "train", "gpu", "cache", "api", "model", "eval", "data", "lora", "worker", "qwen")


def _compose(dice: random.Random) -> dict[str, Any]:
    names = dice.sample(WORDS, 3)
    services = {name: {"image": f"{name}:1", "ports": ["80:80"], "environment": {"stage": "prod"}} for name in names}
    return {"version": "3.8", "services": services, "volumes": {"data": {}}, "networks": {"net": None}}


def _k8s(dice: random.Random) -> dict[str, Any]:
    kind = dice.choice(["Deployment", "Job", "Service", "ConfigMap", "PyTorchJob"])
    args = ["llamafactory-cli", "train", "train.yaml", "--learning_rate", "1e-4"]
    pod = {"containers": [{"name": "c", "image": "hiyouga/llamafactory", "args": args}]}
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": dice.choice(WORDS)}, "spec": {"template": {"spec": pod}}}


def _workflow(dice: random.Random) -> dict[str, Any]:
    return {"name": dice.choice(WORDS), "on": ["push"], "jobs": {"train": {"runs-on": "ubuntu", "steps": [{"run": "make train"}]}}}


def _gitlab(dice: random.Random) -> dict[str, Any]:
    return {"stages": ["build", "train"], dice.choice(WORDS): {"stage": "train", "script": ["make"], "tags": ["gpu"]}, "image": "python"}


def _hydra(dice: random.Random) -> dict[str, Any]:
    return {"defaults": [{"model": dice.choice(WORDS)}, "_self_"], "seed": 42, "output_dir": "o", "trainer": {"max_epochs": 3}}


def _hydra_flat(dice: random.Random) -> dict[str, Any]:
    return {"_target_": "src.Model", "lr": 1e-3, "hidden": dice.randrange(9), "optimizer": "adam", "dataset": "cifar", "seed": 1}


def _lightning(dice: random.Random) -> dict[str, Any]:
    return {
        "seed_everything": 1,
        "trainer": {"max_epochs": 3, "devices": dice.randrange(9)},
        "model": {"lr": 0.1},
        "data": {"batch_size": 8},
    }


def _openapi(dice: random.Random) -> dict[str, Any]:
    return {"openapi": "3.0.0", "info": {"title": dice.choice(WORDS)}, "paths": {"/v1/chat": {}}, "components": {}}


def _package(dice: random.Random) -> dict[str, Any]:
    return {"name": dice.choice(WORDS), "version": "1.0.0", "scripts": {"train": "node t.js"}, "dependencies": {"x": "^1"}, "private": True}


def _tsconfig(dice: random.Random) -> dict[str, Any]:
    return {"compilerOptions": {"target": "es6", "strict": bool(dice.randrange(2))}, "include": ["src"], "exclude": ["node_modules"]}


def _mkdocs(dice: random.Random) -> dict[str, Any]:
    return {"site_name": dice.choice(WORDS), "theme": {"name": "material"}, "nav": [{"Home": "index.md"}], "plugins": ["search"]}


def _accelerate(dice: random.Random) -> dict[str, Any]:
    return {
        "compute_environment": "LOCAL_MACHINE", "debug": False, "distributed_type": "FSDP", "mixed_precision": "bf16",
        "fsdp_config": {"fsdp_version": 2}, "num_machines": 1, "num_processes": dice.randrange(1, 9), "use_cpu": False,
    }  # fmt: skip


def _deepspeed(dice: random.Random) -> dict[str, Any]:
    return {
        "bf16": {"enabled": True}, "fp16": {"enabled": "auto"}, "gradient_accumulation_steps": "auto",
        "zero_optimization": {"stage": dice.randrange(4)}, "train_batch_size": "auto",
    }  # fmt: skip


def _model_config(dice: random.Random) -> dict[str, Any]:
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64 * dice.randrange(1, 9), "vocab_size": 32000}


def _adapter_config(dice: random.Random) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "r": dice.randrange(1, 64),
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj"],
        "use_dora": False,
    }


def _generation_config(dice: random.Random) -> dict[str, Any]:
    return {"do_sample": True, "temperature": dice.random(), "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1, "max_new_tokens": 64}


def _trainer_state(dice: random.Random) -> dict[str, Any]:
    return {"best_metric": None, "global_step": dice.randrange(99), "log_history": [], "eval_steps": 5, "logging_steps": 1, "max_steps": 9}


def _axolotl(dice: random.Random) -> dict[str, Any]:
    return {
        "base_model": "NousResearch/Llama", "datasets": [{"path": "x"}], "adapter": "lora", "lora_r": dice.randrange(1, 64),
        "sequence_len": 4096, "micro_batch_size": 2, "num_epochs": 1, "lr_scheduler": "cosine", "learning_rate": 2e-4, "bf16": "auto",
        "val_set_size": 0.05, "output_dir": "./o", "wandb_project": None, "special_tokens": None, "optimizer": "adamw_8bit",
    }  # fmt: skip


def _torchtune(dice: random.Random) -> dict[str, Any]:
    return {
        "output_dir": "/tmp/o", "tokenizer": {"_component_": "x", "max_seq_len": None}, "model": {"_component_": "y"}, "seed": 1,
        "dataset": {"_component_": "z"}, "batch_size": dice.randrange(1, 9), "epochs": 1, "optimizer": {"lr": 1}, "loss": {},
    }  # fmt: skip


def _ansible(dice: random.Random) -> dict[str, Any]:
    return {"hosts": "gpu", "become": True, "tasks": [{"name": dice.choice(WORDS), "shell": "nvidia-smi"}], "roles": ["cuda"]}


def _conda(dice: random.Random) -> dict[str, Any]:
    return {"name": dice.choice(WORDS), "channels": ["conda-forge"], "dependencies": ["python=3.11", {"pip": ["llamafactory"]}]}


def _precommit(dice: random.Random) -> dict[str, Any]:
    return {"repos": [{"repo": "https://github.com/x/y", "rev": f"v{dice.randrange(9)}", "hooks": [{"id": "lfdoctor"}]}], "fail_fast": True}


def _prometheus(dice: random.Random) -> dict[str, Any]:
    return {"global": {"scrape_interval": f"{dice.randrange(9)}s"}, "scrape_configs": [{"job_name": "train"}], "rule_files": []}


def _dvc(dice: random.Random) -> dict[str, Any]:
    return {"stages": {"train": {"cmd": "llamafactory-cli train t.yaml", "deps": [dice.choice(WORDS)], "outs": ["saves"]}}}


def _dvc_params(dice: random.Random) -> dict[str, Any]:
    return {"prepare": {"split": 0.2}, "train": {"learning_rate": dice.random(), "epochs": 3}, "seed": 7}


def _dataset_info(dice: random.Random) -> dict[str, Any]:
    return {name: {"file_name": f"{name}.json", "formatting": "sharegpt"} for name in dice.sample(WORDS, 3)}


def _skypilot(dice: random.Random) -> dict[str, Any]:
    return {"resources": {"accelerators": f"A100:{dice.randrange(1, 9)}"}, "num_nodes": 1, "setup": "pip", "run": "llamafactory-cli train"}


def _wandb_sweep(dice: random.Random) -> dict[str, Any]:
    return {"program": "train.py", "method": "bayes", "metric": {"name": "loss"}, "parameters": {"learning_rate": {"max": dice.random()}}}


def _vllm(dice: random.Random) -> dict[str, Any]:
    return {"model": "Qwen/Qwen3", "host": "0.0.0.0", "port": 8000 + dice.randrange(9), "max-model-len": 4096, "seed": 1}


def _helm(dice: random.Random) -> dict[str, Any]:
    return {"replicaCount": dice.randrange(9), "image": {"repository": "x"}, "resources": {"limits": {"nvidia.com/gpu": 1}}, "env": []}


def _strings(dice: random.Random) -> dict[str, Any]:
    return {f"message.{word}": f"{word} {dice.randrange(99)}" for word in WORDS}


def _mlflow(dice: random.Random) -> dict[str, Any]:
    return {
        "artifact_uri": "file:///mlruns/0/a", "end_time": 1, "entry_point_name": "", "experiment_id": "0", "lifecycle_stage": "active",
        "run_id": f"{dice.getrandbits(128):032x}", "run_name": dice.choice(WORDS), "source_name": "train.py", "status": 3, "tags": [],
    }  # fmt: skip


def _wandb_config(dice: random.Random) -> dict[str, Any]:
    options = {name: {"value": dice.randrange(9)} for name in ("learning_rate", "per_device_train_batch_size", "num_train_epochs", "seed")}
    return {"wandb_version": 1, "_wandb": {"value": {"python_version": "3.11"}}, **options}


def _wandb_metadata(dice: random.Random) -> dict[str, Any]:
    return {
        "os": "Linux",
        "python": "3.11",
        "program": "train.py",
        "gpu": "A100",
        "gpu_count": dice.randrange(1, 9),
        "args": ["train.yaml"],
    }


def _tokenizer(dice: random.Random) -> dict[str, Any]:
    return {
        "add_bos_token": False, "added_tokens_decoder": {"151643": {"content": "<|endoftext|>", "special": True}}, "chat_template": "{{ x }}",
        "model_max_length": 1 << dice.randrange(10, 18), "padding_side": "right", "tokenizer_class": "Qwen2Tokenizer", "pad_token": "x",
    }  # fmt: skip


def _special_tokens(dice: random.Random) -> dict[str, Any]:
    return {"additional_special_tokens": ["<|im_start|>"], "eos_token": dice.choice(WORDS), "pad_token": "<|endoftext|>"}


def _swift(dice: random.Random) -> dict[str, Any]:
    return {
        "model": "Qwen/Qwen3-8B", "model_type": "qwen3", "train_type": "lora", "dataset": ["alpaca"], "lora_rank": dice.randrange(1, 64),
        "torch_dtype": "bfloat16", "swift_version": "3.9", "rlhf_type": None, "tuner_backend": "peft", "ckpt_dir": None, "load_args": False,
        "target_modules": ["all-linear"], "freeze_llm": False, "infer_backend": "pt", "eval_human": False, "hf_hub": True,
        "val_dataset": [], "columns": {}, "loss_type": None, "packing_length": None, "attn_impl": None, "new_special_tokens": [],
    }  # fmt: skip


def _verl(dice: random.Random) -> dict[str, Any]:
    actor = {"model": {"path": "Qwen/Qwen3-8B"}, "actor": {"optim": {"lr": 1e-6}, "ppo_mini_batch_size": dice.randrange(9)}}
    return {"data": {"train_files": "x", "train_batch_size": 1024}, "actor_rollout_ref": actor, "trainer": {"total_epochs": 15}}


def _ray_cluster(dice: random.Random) -> dict[str, Any]:
    return {"cluster_name": dice.choice(WORDS), "max_workers": dice.randrange(9), "provider": {"type": "aws"}, "auth": {"ssh_user": "x"}}


def _argo(dice: random.Random) -> dict[str, Any]:
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "spec": {"entrypoint": dice.choice(WORDS), "templates": []}}


def _cog(dice: random.Random) -> dict[str, Any]:
    return {"build": {"gpu": True, "python_version": "3.11"}, "predict": "predict.py:Predictor", "train": f"train.py:{dice.choice(WORDS)}"}


def _renovate(dice: random.Random) -> dict[str, Any]:
    return {"$schema": "x", "extends": ["config:base"], "labels": [dice.choice(WORDS)], "packageRules": []}


def _eval_harness(dice: random.Random) -> dict[str, Any]:
    return {"task": f"my_{dice.choice(WORDS)}", "dataset_path": "x", "output_type": "generate_until", "doc_to_text": "q", "metric_list": []}


SHAPES: tuple[Callable[[random.Random], dict[str, Any]], ...] = (
    _compose, _k8s, _workflow, _gitlab, _hydra, _hydra_flat, _lightning, _openapi, _package, _tsconfig, _mkdocs, _accelerate, _deepspeed,
    _model_config, _adapter_config, _generation_config, _trainer_state, _axolotl, _torchtune, _ansible, _conda, _precommit, _prometheus,
    _dvc, _dvc_params, _dataset_info, _skypilot, _wandb_sweep, _vllm, _helm, _strings,
    _mlflow, _wandb_config, _wandb_metadata, _tokenizer, _special_tokens, _swift, _verl, _ray_cluster, _argo, _cog, _renovate,
    _eval_harness,
)  # fmt: skip


def foreign_files(seed: int) -> Iterator[tuple[str, bytes]]:
    """(name, content): every shape seven times, as YAML or JSON, with and without comments, BOM and CRLF."""
    dice = random.Random(seed)
    for number in range(7):
        for shape in SHAPES:
            values = shape(dice)
            as_json = dice.random() < 0.3
            text = json.dumps(values, indent=dice.choice([None, 2])) if as_json else yaml.safe_dump(values, sort_keys=False)
            text = text if as_json or dice.random() < 0.5 else f"# {dice.choice(WORDS)}\n{text}"
            data = text.replace("\n", "\r\n").encode() if dice.random() < 0.2 else text.encode()
            data = b"\xef\xbb\xbf" + data if not as_json and dice.random() < 0.1 else data
            yield f"{shape.__name__.strip('_')}-{number}.{'json' if as_json else 'yaml'}", data
