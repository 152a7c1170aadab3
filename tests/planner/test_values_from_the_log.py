"""Without a config the values that the console prints are what a remedy starts from."""

from __future__ import annotations

from pathlib import Path

from doctor.diagnosis.pipeline import analyze

WORKERS = """Running tokenizer on dataset (num_proc=16):  34%|███       | 171000/500000 [01:22<02:31, 2171.48 examples/s]
RuntimeError: One of the subprocesses has abruptly died during map operation.To debug the error, disable multiprocessing.
"""


def test_a_printed_value_is_scaled(tmp_path: Path):
    """16 processes are a quarter: 4, although no config was read."""
    path = tmp_path / "console.log"
    path.write_text(WORKERS)
    patch = analyze([path]).patch
    assert patch is not None
    assert [(change.key, change.old, change.new) for change in patch.changes] == [("preprocessing_num_workers", 16, 4)]
