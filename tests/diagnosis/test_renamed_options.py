"""Refused options are told with the names and values that LLaMA-Factory has for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.diagnosis.pipeline import analyze
from doctor.reporters.advice import todo

KEYS = "ValueError: Some keys are not used by the HfArgumentParser: {}\n"
ARGUMENTS = "ValueError: Some specified arguments are not used by the HfArgumentParser: {}\n"


@pytest.mark.parametrize(
    ("line", "told", "silent"),
    [
        (ARGUMENTS.format("['--checkpoint_dir', 'saves/lora']"), "adapter_name_or_path for an adapter", "`saves/lora`"),
        (KEYS.format("['max_seq_length']"), "`max_seq_length` is `cutoff_len` (the value stays)", "lora_rank"),
        (
            ARGUMENTS.format("['--load_in_4bit', 'True', '--lora_r', '8']"),
            "`load_in_4bit` is `quantization_bit: 4`; `lora_r` is `lora_rank`",
            "`8`",
        ),
        (KEYS.format("['max_source_length', 'lora_r']"), "cutoff_len bounds prompt and answer together", "checkpoint_dir"),
    ],
)
def test_the_present_name_is_the_first_step(line: str, told: str, silent: str, tmp_path: Path) -> None:
    """Every refused name that the table of synonyms has, with its value where the message holds one; nothing of other names."""
    (tmp_path / "console.log").write_text(line, encoding="utf-8")
    step = todo(analyze(tmp_path))[0]
    assert told in step.text
    assert silent not in step.text


def test_an_unknown_name_is_not_guessed(tmp_path: Path) -> None:
    """A name that no table has is left to the general step."""
    (tmp_path / "console.log").write_text(KEYS.format("['my_own_switch']"), encoding="utf-8")
    assert not any("under the names" in step.text for step in todo(analyze(tmp_path)))


def test_what_the_rule_renames_itself_is_told_once(tmp_path: Path) -> None:
    """`evaluation_strategy` has a patch of its own."""
    (tmp_path / "console.log").write_text(KEYS.format("['evaluation_strategy']"), encoding="utf-8")
    assert not any("under the names" in step.text for step in todo(analyze(tmp_path)))


def test_the_reader_gets_it_in_korean_and_chinese(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_text(KEYS.format("['max_seq_length']"), encoding="utf-8")
    assert "`max_seq_length` → `cutoff_len`(값은 그대로)" in todo(analyze(tmp_path, lang="ko"))[0].text
    assert "`max_seq_length` 改为 `cutoff_len`（值不变）" in todo(analyze(tmp_path, lang="zh"))[0].text
