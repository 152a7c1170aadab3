"""One table of phases: the live callback and the reader of a printed traceback name the same phase for the same stack."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from doctor.core import phases
from doctor.core.phases import Phase, phase_of
from doctor.live.trainer import crashes
from tests.readers.helpers import console

# Written by hand, outermost first: no stack is a recording, and frames in between are left out. The names are those that the comments of
# doctor/core/phases.py place in LLaMA-Factory, transformers, datasets, peft, trl, torch, DeepSpeed and Lightning; no release has all.
STACKS: list[tuple[str, Phase]] = [
    ("run_exp get_train_args _parse_train_args", "start"),
    ("run_exp read_args", "start"),
    ("export_model get_infer_args _parse_infer_args _parse_args", "start"),
    ("run_eval get_eval_args", "start"),
    ("main get_ray_args", "start"),
    ("get_train_args _parse_train_mca_args", "start"),
    ("run_sft load_tokenizer from_pretrained", "load"),
    ("run_sft get_template_and_fix_tokenizer", "tokenise"),
    ("run_sft get_dataset _get_merged_dataset _load_single_dataset load_dataset", "tokenise"),
    ("run_sft get_dataset _load_single_dataset align_dataset map _map_single convert_alpaca", "tokenise"),
    ("run_sft get_dataset _get_preprocessed_dataset map _map_single preprocess_supervised_dataset", "tokenise"),
    ("map convert_sharegpt", "tokenise"),
    ("map convert_openai", "tokenise"),
    ("map preprocess_dataset", "tokenise"),
    ("SFTTrainer.__init__ _prepare_dataset", "tokenise"),
    ("run_sft load_model load_config", "load"),
    ("run_sft load_model patch_config configure_quantization", "load"),
    ("run_sft load_model patch_model", "load"),
    ("run_sft load_model init_adapter _setup_lora_tuning", "load"),
    ("run_sft load_model from_pretrained _load_pretrained_model _load_state_dict_into_meta_model", "load"),
    ("load_model from_pretrained _finalize_model_loading", "load"),
    ("load_model from_pretrained convert_and_load_state_dict_in_model", "load"),
    ("load_model load_valuehead_params", "load"),
    ("run_dpo create_ref_model", "load"),
    ("run_ppo create_reward_model load_adapter", "load"),
    ("run_sft Trainer.train _load_from_checkpoint Module.load_state_dict", "load"),
    ("run_sft train _inner_training_loop training_step compute_loss forward", "train"),
    ("run_ppo ppo_train step", "train"),
    ("train _inner_training_loop step _optimizer_step", "train"),
    ("fit optimizer_step", "train"),
    ("train _inner_training_loop _maybe_log_save_evaluate _evaluate evaluate evaluation_loop prediction_step", "eval"),
    ("evaluate evaluation_loop preprocess_logits_for_metrics", "eval"),
    ("evaluate prediction_loop prediction_step", "eval"),
    ("run_sft predict evaluation_loop prediction_step generate", "predict"),
    ("run_sft predict prediction_loop prediction_step", "predict"),
    ("run_sft predict", "predict"),
    ("train _inner_training_loop _maybe_log_save_evaluate _save_checkpoint save_model _save save_pretrained", "save"),
    ("_save_checkpoint _save_optimizer_and_scheduler save _save", "save"),
    ("save_model save_checkpoint", "save"),
    ("save_model save_16bit_model", "save"),
    ("run_sft save_state", "save"),
    ("export_model load_model from_pretrained", "load"),
    ("export_model save_pretrained save_file", "export"),
    ("export_model push_to_hub", "export"),
    ("get_dataset load_dataset download_and_prepare _prepare_split_single", "tokenise"),
]  # fmt: skip


def raised(stack: str) -> BaseException:
    """A real exception whose frames have these names, outermost first (the class of a method is not part of a frame's name)."""
    scope: dict[str, object] = {}
    names = [name.rpartition(".")[2] for name in stack.split()]
    for name, inner in zip(reversed(names), ["fail", *reversed(names)], strict=False):
        body = "raise RuntimeError('broken')" if inner == "fail" else f"{inner}_()"
        exec(f"def {name}():\n    {body}\n{name}_ = {name}", scope)
    try:
        scope[f"{names[0]}_"]()  # type: ignore[operator]
    except RuntimeError as error:
        return error
    raise AssertionError(stack)


@pytest.mark.parametrize(("stack", "phase"), STACKS, ids=[stack for stack, _ in STACKS])
def test_live_and_post_mortem_name_the_same_phase(tmp_path: Path, stack: str, phase: Phase):
    """The same exception, as the callback records it and as its printed traceback is read: both say what the libraries were doing."""
    error = raised(stack)
    (live,) = crashes.events_of(error, 0)
    (printed,) = console(tmp_path, "".join(traceback.format_exception(error))).crashes
    assert (live["phase"], printed.phase) == (phase, phase)


def test_every_entry_of_the_table_is_in_a_stack():
    """No function of the table goes untested: each pattern decides a stack above, alone."""
    innermost = {name.rpartition(".")[2] for stack, _ in STACKS for name in stack.split()}
    for phase, patterns in phases._FUNCTIONS.items():
        for pattern in patterns:
            named = [name for name in innermost if phases.re.fullmatch(pattern, name)]
            assert named, pattern
            assert {phase_of([name]) for name in named} == {phase}, pattern


@pytest.mark.parametrize(("line", "phase"), phases.MARKERS.items())
def test_a_marker_line_begins_its_phase(tmp_path: Path, line: str, phase: Phase):
    """A line that contains the marker, then an exception whose stack names no phase: the exception is of the marker's phase."""
    text = (
        f'[INFO|a.py:1] 2026-03-02 10:00:05,100 >> {line}\nTraceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: x\n'
    )
    (crash,) = console(tmp_path, text).crashes
    assert crash.phase == phase


def test_a_stack_without_a_known_function_has_no_phase():
    """Neither guessed nor taken from a name that only contains a known one."""
    assert phase_of(["<module>", "retrain", "my_predict_fn"]) is None
    assert phase_of([]) is None


def test_the_phases_are_those_of_the_table():
    """Every phase of the type has functions or markers, and the table names no other."""
    assert set(phases.PHASES) == set(phases._FUNCTIONS) | set(phases.MARKERS.values())
