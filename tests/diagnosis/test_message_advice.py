"""What another program's message advises is its first step where every remedy is LLaMA-Factory's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.diagnosis.message_advice import with_message_advice
from doctor.diagnosis.pipeline import analyze
from doctor.reporters.advice import todo
from doctor.rulebook.findings import RankedFinding
from doctor.rulebook.model import Remedy
from doctor.support.texts import Text
from tests.planner.test_admission import finding

LAST = "NotImplementedError: Cannot copy it; no data! Please use to_empty() instead of to()"
OWN = Remedy(id="own", text=Text("Update LLaMA-Factory.", "x", "x"), effect="manual")
ANY = Remedy(id="any", text=Text("Free the memory.", "x", "x"), effect="manual")


@pytest.mark.parametrize(("remedy", "first"), [(OWN, "message-asks"), (ANY, "any")])
def test_the_messages_own_advice_leads_where_no_remedy_fits(remedy: Remedy, first: str) -> None:
    """A step of LLaMA-Factory alone gives way to what the message asks for; one for everybody stays first."""
    ranked = with_message_advice([RankedFinding(finding(0.9, LAST, remedy), "root")])
    assert ranked[0].finding.rule.remedies[0].id == first


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
