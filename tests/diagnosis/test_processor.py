"""A multimodal model's processor that was not loaded: what is said with and without the reason."""

from __future__ import annotations

from pathlib import Path

import doctor
from doctor.report.model import Report

REASON = (
    "[INFO|2026-03-02 09:59:31] llamafactory.model.loader:144 >> Failed to load processor: No module named 'torchaudio'.\n"
    "[INFO|2026-03-02 09:59:33] llamafactory.data.loader:144 >> Loading dataset train.json...\n"
)
FAILED = """Traceback (most recent call last):
  File "/opt/LLaMA-Factory/src/llamafactory/data/mm_plugin.py", line 178, in _validate_input
    raise ValueError("Processor was not found, please check and update your model file.")
ValueError: Processor was not found, please check and update your model file.
"""


def report_of(tmp_path: Path, text: str) -> Report:
    (tmp_path / "console.log").write_text(text, encoding="utf-8")
    return doctor.analyze(tmp_path)


def test_without_a_reason_none_is_invented(tmp_path: Path) -> None:
    """The text lists what usually lies behind, and the first step shows the exception that was dropped."""
    first = report_of(tmp_path, FAILED).findings[0]
    assert first.cause == "processor_not_loaded"
    assert "does not show why" in first.text
    assert "AutoProcessor" in (first.remedies[0].command or "")


def test_the_reason_further_up_decides_the_step(tmp_path: Path) -> None:
    """A package that was missing while the processor was built is named and installed; nothing else is advised."""
    first = report_of(tmp_path, REASON + FAILED).findings[0]
    assert first.cause == "processor_not_loaded"
    assert "No module named 'torchaudio'" in first.text
    offered = [row for row in first.remedies if row.status == "manual"]
    assert [row.command for row in offered] == ["python -m pip install torchaudio"]


def test_a_text_model_without_processor_is_no_failure(tmp_path: Path) -> None:
    """The line alone is information: models that read text only have no processor, and their training goes on."""
    trained = "{'loss': 1.5, 'epoch': 0.1}\n{'loss': 1.4, 'epoch': 0.2}\n***** train metrics *****\n  train_loss = 1.45\n"
    assert not report_of(tmp_path, REASON + trained).findings


def test_a_part_that_processors_have_is_no_column_of_the_data(tmp_path: Path) -> None:
    """LLaMA-Factory up to 0.9.2 asked `None` for its image processor while it converted the samples."""
    text = """Traceback (most recent call last):
  File "/opt/LLaMA-Factory/src/llamafactory/data/processor/supervised.py", line 99, in preprocess_dataset
    input_ids, labels = self._encode_data_example(
  File "/opt/LLaMA-Factory/src/llamafactory/data/mm_plugin.py", line 323, in process_messages
    image_processor: "BaseImageProcessor" = getattr(processor, "image_processor")
AttributeError: 'NoneType' object has no attribute 'image_processor'
"""
    assert report_of(tmp_path, text).findings[0].cause == "processor_not_loaded"
