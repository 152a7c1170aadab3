"""What another program's message advises is its first step where every remedy is LLaMA-Factory's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.diagnosis.pipeline import analyze
from doctor.reporters.advice import todo

LAST = "NotImplementedError: Cannot copy out of meta tensor; no data! Please use torch.nn.Module.to_empty() instead of torch.nn.Module.to()"
OWN = '  File "/opt/LLaMA-Factory/src/llamafactory/train/tuner.py", line 3, in run_exp\n    trainer.train()\n'
SCRIPT = '  File "/home/me/finetune.py", line 3, in <module>\n    trainer.train()\n'


@pytest.mark.parametrize(("frame", "quoted"), [(SCRIPT, True), (OWN, False)])
def test_the_messages_own_advice_leads_in_another_program(frame: str, quoted: bool, tmp_path: Path) -> None:
    """A person's script is told what the message asks for; LLaMA-Factory's user gets the rule's own step."""
    (tmp_path / "console.log").write_text(f"Traceback (most recent call last):\n{frame}{LAST}\n", encoding="utf-8")
    step = todo(analyze(tmp_path))[0]
    assert ("Please use torch.nn.Module.to_empty()" in step.text) is quoted


PORT = "torch.distributed.DistNetworkError: The server socket has failed to bind to [::]:31555 (errno: 98 - Address already in use).\n"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (
            "torchrun --nproc_per_node 2 src/train.py --stage sft --do_train --model_name_or_path m --dataset d --output_dir o",
            "--rdzv_endpoint",
        ),
        (
            "deepspeed --num_gpus 2 src/train.py --stage sft --do_train --model_name_or_path m --dataset d --output_dir o",
            "`deepspeed --master_port",
        ),
        ("accelerate launch src/train.py --stage sft --do_train --model_name_or_path m --dataset d --output_dir o", "--main_process_port"),
        ("llamafactory-cli train train.yaml", "`MASTER_PORT="),
    ],
)
def test_a_port_is_changed_where_the_launcher_reads_it(command: str, option: str, tmp_path: Path) -> None:
    """torchrun, deepspeed and accelerate do not read MASTER_PORT; llamafactory-cli does. The port is the one of the log."""
    (tmp_path / "console.log").write_text(f"$ {command}\n{PORT}", encoding="utf-8")
    report = analyze(tmp_path)
    assert option in todo(report)[0].text
    assert "port 31555" in report.findings[0].text
    assert any(one.command == "ss -ltnp | grep ':31555 '" for one in report.findings[0].remedies)
