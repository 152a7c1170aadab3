"""Without a config the values that the console prints are what a remedy starts from, and no default is told as a fact."""

from __future__ import annotations

from pathlib import Path

from doctor.diagnosis.pipeline import analyze

WORKERS = """Running tokenizer on dataset (num_proc=16):  34%|███       | 171000/500000 [01:22<02:31, 2171.48 examples/s]
RuntimeError: One of the subprocesses has abruptly died during map operation.To debug the error, disable multiprocessing.
"""
OTHER_OPTIMIZER = """Traceback (most recent call last):
  File "/app/LLaMA-Factory/src/llamafactory/train/sft/workflow.py", line 96, in run_sft
    train_result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
  File "/opt/venv/lib/python3.11/site-packages/torch/optim/optimizer.py", line 881, in load_state_dict
    raise ValueError(
ValueError: loaded state dict contains a parameter group that doesn't match the size of optimizer's group
"""


def test_a_printed_value_is_scaled(tmp_path: Path):
    """16 processes are a quarter: 4, although no config was read."""
    path = tmp_path / "console.log"
    path.write_text(WORKERS)
    patch = analyze([path]).patch
    assert patch is not None
    assert [(change.key, change.old, change.new) for change in patch.changes] == [("preprocessing_num_workers", 16, 4)]


def test_a_stage_that_frames_show_is_no_configuration(tmp_path: Path):
    """The stage is known from `run_sft`; the batch size is not, and the rules on configs say that they had none."""
    path = tmp_path / "console.log"
    path.write_text(OTHER_OPTIMIZER)
    report = analyze([path])
    assert report.run.stage == "sft"
    assert report.patch is not None
    assert report.patch.predicted.effective_batch is None
    assert {"config/adapter-without-lora"} <= {gap.rule for gap in report.could_not_look}


def test_one_half_precision_where_no_config_was_read(tmp_path: Path):
    """The run may have set the other one, and LLaMA-Factory refuses both: the patch switches it off."""
    path = tmp_path / "console.log"
    path.write_text(
        "ValueError: Attempting to unscale FP16 gradients.\n{'loss': 0.0, 'grad_norm': nan, 'learning_rate': 1e-05, 'epoch': 0.1}\n"
    )
    patch = analyze([path]).patch
    overrides = [] if patch is None else patch.overrides
    assert ("bf16=true" in overrides) is ("fp16=false" in overrides)


def test_a_value_that_was_not_read_is_scaled_in_words(tmp_path: Path):
    """Half of an unknown length is no number: the option and the factor are named, for agents too; no patch has it."""
    path = tmp_path / "console.log"
    path.write_text("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.\n")
    report = analyze([path])
    remedies = {one.id: one for one in report.findings[0].remedies}
    (change,) = remedies["shorter-cutoff"].changes
    assert (remedies["shorter-cutoff"].status, change.op, change.key, change.old, change.new) == (
        "manual",
        "scale",
        "cutoff_len",
        None,
        0.5,
    )
    assert report.patch is None or all(one.op != "scale" for one in report.patch.changes)
