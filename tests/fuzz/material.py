"""Whole files of every format that is read, small, to be damaged: what the recorded fixtures do not hold."""

from __future__ import annotations

import functools
import json
import pickle
from typing import Any

from tests.readers.helpers import field, jsonl, log_record, scalar_event, text_event
from tests.readers.test_formats import swanlab_json, swanlab_messages, wandb_file, wandb_items

_FRAME = {"filename": "/x/torch/nn/modules/linear.py", "line": 134, "name": "forward"}
_SCALARS = [{"epoch": 0.1 * step, "step": step, "loss": 2 / step, "grad_norm": 1.0, "learning_rate": 1e-5} for step in range(1, 30)]
_STACK = 'Thread 0x1 (most recent call first):\n  File "/x/train.py", line 5 in step\n'


def _json(**values: Any) -> bytes:
    return json.dumps(values).encode()


def _journal() -> bytes:
    steps = [
        {"type": "Step", "step": at, "total": 9, "time": 100.0 + at, "seconds": 1.0, "metrics": {"loss": 1.0 / at}} for at in range(1, 8)
    ]
    samples = [{"type": "Sample", "rank": 0, "time": 100.5 + at, "values": {"vram": 9.5, "rss": 1.0}} for at in range(5)]
    crash = {"type": "Crash", "exception": "ValueError", "message": "bad", "phase": "train", "chain": 0}
    given = {"type": "Given", "argv": ["llamafactory-cli", "train", "a.yaml"], "yaml": "stage: sft\nlearning_rate: 1e-4\n"}
    return jsonl(
        {"type": "Session", "rank": 0, "time": 1.0, "version": 1}, given, *steps, *samples, crash, {"type": "ProcessEnd", "code": 1}
    ).encode()


def _wandb() -> bytes:
    config = field(17, field(1, b"id") + field(4, wandb_items({"learning_rate": 1e-4, "per_device_train_batch_size": 2})))
    rows = [{"train/loss": 3 - step / 10, "train/grad_norm": "NaN", "train/global_step": step, "_step": step} for step in range(40)]
    return wandb_file(field(1, 1), config, *(field(2, wandb_items(row)) for row in rows), field(13, field(1, 1) + field(3, b"Killed\n")))


@functools.cache
def material() -> dict[str, bytes]:
    """Relative path -> content."""
    events = b"".join(scalar_event(step, f"train/{tag}", step / 8) for step in range(1, 40) for tag in ("loss", "grad_norm"))
    blocks = [{"size": 3 << 30, "state": "active_allocated", "frames": [_FRAME]}]
    collectives = [
        {"profiling_name": "nccl:all_reduce", "collective_seq_id": 7, "state": "started", "frames": [_FRAME], "process_group": ["0", "x"]}
    ]
    return {
        "lfdoctor.jsonl": _journal(),
        "trainer_log.jsonl": jsonl(*(log_record(step, 40) for step in range(1, 41))).encode(),
        "trainer_state.json": json.dumps({"max_steps": 29, "global_step": 29, "log_history": _SCALARS}, indent=1).encode(),
        "checkpoint-20/trainer_state.json": json.dumps({"max_steps": 29, "global_step": 20, "log_history": _SCALARS[:20]}).encode(),
        "runs/Mar02/events.out.tfevents.1700000000.host.1.0": text_event("args", '{"learning_rate": 1.0}') + events,
        "wandb/run-20260101_000000-abc/run-abc.wandb": _wandb(),
        "wandb/run-20260101_000000-abc/files/config.yaml": b"wandb_version: 1\nlearning_rate: {value: 0.001}\nbf16: {value: true}\n",
        "wandb/run-20260101_000000-abc/files/wandb-metadata.json": b'{"gpu": "NVIDIA H100", "gpu_count": 2, "python": "CPython 3.11.7"}',
        "wandb/run-20260101_000000-abc/files/wandb-summary.json": b'{"train/loss": 1.5, "_step": 9, "train/global_step": 90}',
        "swanlog/run-abc/backup.swanlab": swanlab_messages()[:60_000],
        "swanlog/run-abd/run-abd.swanlab": swanlab_json()[:60_000],
        "swanlog/run-abc/files/swanlab-metadata.json": b'{"gpu": {"nvidia": {"0": {"value": "A100", "memory": "80"}}}, "python": "3.11"}',
        "training_args.bin": pickle.dumps({"learning_rate": 1.0, "max_steps": 10, "output_dir": "o"}),
        "train_results.json": _json(epoch=3.0, train_loss=1.0, train_runtime=2.0, train_samples_per_second=3.3),
        "all_results.json": b'{"epoch": 3.0, "eval_loss": 1.0, "predict_bleu-4": 30.5}',
        "adapter_config.json": _json(peft_type="LORA", r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], lora_dropout=0.0),
        "ds_z3_config.json": _json(train_batch_size="auto", zero_optimization={"stage": 3, "offload_optimizer": {"device": "cpu"}}),
        "README.md": b"### Training hyperparameters\n\n- learning_rate: 5e-05\n- num_devices: 2\n- train_batch_size: 4\n\n"
        b"### Framework versions\n\n- PEFT 0.15.2\n",
        "accelerate.yaml": b"compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\nnum_processes: 2\nmixed_precision: bf16\n",
        "error.json": _json(message={"message": "ValueError: bad", "extraInfo": {"py_callstack": _STACK, "timestamp": "1"}}),
        "oom.pickle": pickle.dumps({"segments": [{"device": 0, "blocks": blocks}], "device_traces": [[]]}),
        "nccl_trace_rank_1": pickle.dumps({"version": "2.4", "nccl_version": "2.21.5", "entries": collectives}),
        "lfdoctor-stacks-0.txt": b"lfdoctor listens: rank 0 pid 7\nlfdoctor asks: rank 0 pid 7 step 5 silent 90 time 1700000000\n"
        + _STACK.encode(),
        "command.sh": b"CUDA_VISIBLE_DEVICES=0 llamafactory-cli train train.yaml learning_rate=1e-4 \\\n  --max_steps 20\n",
        "dmesg.txt": b"[1.0] NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off.\n[2.0] oom-kill:constraint=CONSTRAINT_NONE\n",
        "llamaboard_config.yaml": b"top.finetuning_type: lora\ntrain.learning_rate: 5e-5\ntrain.batch_size: 2\n",
        "training_args.yaml": b"stage: sft\nmodel_name_or_path: m\ncutoff_len: 512\n",
        "config.json": _json(model_type="qwen2", hidden_size=3584, num_hidden_layers=28, vocab_size=152064, num_attention_heads=28),
        "v1.yaml": b"model: m\ntrain_dataset: data/v1.yaml\nmicro_batch_size: 1\nquant_config: {name: bnb}\n",
        "attempt_1/lfdoctor.jsonl": _journal(),
        "report.json": _json(format=1, tool={"name": "lfdoctor", "version": "0.1"}, healthy=True, cause=None, run={"path": "x"}),
    }
