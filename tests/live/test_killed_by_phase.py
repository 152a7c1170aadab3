"""A kill for memory is told with what the run was doing then, although only `lfdoctor run` knows of the kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doctor import analyze

CONSOLE = """\
[INFO|2026-03-01 10:00:00] llamafactory.hparams.parser:468 >> Process rank: 0, world size: 1, device: cuda:0, \
distributed training: False, compute dtype: torch.bfloat16
[INFO|2026-03-01 10:00:09] llamafactory.data.loader:143 >> Loading dataset alpaca_en.json...
Running tokenizer on dataset (num_proc=16):  40%|████      | 20800/52002 [00:07<00:11, 2731.10 examples/s]
[INFO|2026-03-01 10:00:31] llamafactory.model.model_utils.kv_cache:143 >> KV cache is disabled during training.
Loading weights:  20%|██        | 60/291 [00:02<00:08, 27.32it/s]
[INFO|2026-03-01 10:00:52] llamafactory.model.loader:143 >> trainable params: 20,971,520 || all params: 8,051,232,768 || trainable%: 0.2605
[INFO|trainer.py:2519] 2026-03-01 10:00:53,101 >> ***** Running training *****
[INFO|trainer.py:2522] 2026-03-01 10:00:53,101 >>   Total optimization steps = 1,200
  0%|          | 0/1200 [00:00<?, ?it/s]
{'loss': '1.4', 'grad_norm': '0.9', 'learning_rate': '1e-06', 'epoch': '0.01'}
  1%|          | 10/1200 [00:20<40:00, 2.02s/it]
[INFO|trainer.py:4307] 2026-03-01 10:01:15,101 >> Saving model checkpoint to saves/llama/checkpoint-10
[INFO|tokenization_utils_base.py:2510] 2026-03-01 10:01:15,300 >> tokenizer config file saved in \
saves/llama/checkpoint-10/tokenizer_config.json
"""
KILL = [
    {"type": "LogLine", "text": "Memory cgroup out of memory: memory.events oom_kill went from 0 to 1 during the run"},
    {"type": "ProcessEnd", "signal": 9},
]


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        (3, "memory/killed-while-preprocessing"),
        (5, "memory/host-oom-killer"),
        (8, "memory/host-oom-killer-training"),
        (9, "memory/host-oom-killer-training"),
        (11, "memory/host-oom-killer-training"),
        (13, "memory/killed-while-saving"),
    ],
)
@pytest.mark.parametrize("confirmed", [True, False])
def test_the_phase_of_the_kill(tmp_path: Path, lines: int, rule: str, confirmed: bool):
    """Tokenising, loading, before the first step, in a step, between two, saving: never "while loading" where the training had begun."""
    (tmp_path / "console.log").write_text("\n".join(CONSOLE.splitlines()[:lines]) + "\n")
    (tmp_path / "lfdoctor-run.jsonl").write_text("".join(json.dumps(event) + "\n" for event in KILL[not confirmed :]))
    (root,) = [one for one in analyze(tmp_path).findings if one.role == "root"]
    unconfirmed = {"memory/host-oom-killer": "memory/killed-while-loading", "memory/host-oom-killer-training": "memory/process-killed"}
    assert root.rule == (rule if confirmed else unconfirmed.get(rule, rule))
