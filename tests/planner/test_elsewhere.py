"""Remedies in the words of the program that ran: what LLaMA-Factory alone knows does not lead for another program."""

from __future__ import annotations

from pathlib import Path

import pytest

import doctor
from doctor.report.model import FindingView
from doctor.reporters.advice import todo

OTHER = """\
Traceback (most recent call last):
  File "/home/me/finetune.py", line 31, in <module>
    main()
"""
OURS = "llamafactory-cli train examples/train_lora/qwen.yaml\n"
TARGETS = "ValueError: Target modules {'W_pack'} not found in the base model. Please check the target modules and try again.\n"
UNSCALE = "ValueError: Attempting to unscale FP16 gradients.\n"


def analysed(folder: Path, text: str) -> tuple[FindingView, str, bool]:
    """The first finding, the first step under "Do next", and whether there is a patch."""
    (folder / "console.log").write_text(text, encoding="utf-8")
    report = doctor.analyze(folder)
    return report.findings[0], todo(report)[0].text, report.patch is not None


def test_another_program_is_told_its_own_names_first(tmp_path: Path) -> None:
    """peft has no `lora_target`, so its own argument leads; LLaMA-Factory's stays readable behind it, and nothing is patched."""
    _, first, patched = analysed(tmp_path, OTHER + TARGETS)
    assert first.startswith('`target_modules="all-linear"` (peft, LoraConfig)')
    assert "`lora_target: all`" in first
    assert not patched


def test_an_unnamed_program_is_told_both(tmp_path: Path) -> None:
    """A pasted line says nothing of the program: LLaMA-Factory's option first, the other name after it."""
    _, first, _ = analysed(tmp_path, TARGETS)
    assert first.index("`lora_target: all`") < first.index("`target_modules")


def test_llamafactory_is_told_nothing_of_others(tmp_path: Path) -> None:
    """Who runs LLaMA-Factory needs no names of peft."""
    _, first, _ = analysed(tmp_path, OURS + TARGETS)
    assert "target_modules" not in first


@pytest.mark.parametrize(("before", "pins"), [(OTHER, False), (OURS, True)])
def test_pins_of_llamafactory_are_for_its_users(before: str, pins: bool, tmp_path: Path) -> None:
    """In a script of one's own the trained weights are cast; what LLaMA-Factory pins says nothing there."""
    _, first, _ = analysed(tmp_path, before + UNSCALE)
    assert ("your LLaMA-Factory pins" in first) is pins
    assert ("torch_dtype=torch.float32" in first) is not pins


def test_a_refused_option_is_removed_although_no_configuration_was_read(tmp_path: Path) -> None:
    """The refusal itself names `val_size`: it is set, whatever else is not known."""
    found, first, _ = analysed(tmp_path, "ValueError: Cannot specify `val_size` if `eval_dataset` is not None.\n")
    assert found.rule == "config/val-size-conflict-error"
    assert first == "Remove `val_size`."


def test_an_option_that_nothing_names_is_not_removed(tmp_path: Path) -> None:
    """The refusal of another command says nothing of `infer_backend`."""
    line = "llamafactory-cli: ValueError: Some keys are not used by the HfArgumentParser: ['adapter_name_or_path']\n"
    (tmp_path / "console.log").write_text(line, encoding="utf-8")
    offered = [one for found in doctor.analyze(tmp_path).findings for one in found.remedies if one.status in ("manual", "apply")]
    assert not any("infer_backend" in one.text for one in offered)


def test_a_class_without_flash_attention_is_not_sent_to_sdpa(tmp_path: Path) -> None:
    """transformers 4.36 refuses sdpa for classes of remote code too (hiyouga/LLaMA-Factory#1882)."""
    found, first, _ = analysed(tmp_path, OURS + "ValueError: QWenLMHeadModel does not support Flash Attention 2.0 yet.\n")
    assert first.startswith("Remove `flash_attn`")
    assert next(one for one in found.remedies if one.id == "use-sdpa").status == "not_applicable"
