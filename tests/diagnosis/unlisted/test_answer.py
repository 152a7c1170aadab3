"""A failed run that no rule explains is told by what its exception proves, else by what is known of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import doctor
from doctor.report.model import FindingView, Report
from doctor.reporters.registry import REPORTERS

HEAD = "Traceback (most recent call last):\n"
SITE = '  File "/opt/venv/lib/python3.11/site-packages/'


def analysed(text: str, folder: Path, config: str | None = None, lang: str = "en") -> Report:
    (folder / "console.log").write_text(text + "\n", encoding="utf-8")
    if config:
        (folder / "train.yaml").write_text(config, encoding="utf-8")
    return doctor.analyze(folder, lang=lang)


def first(text: str, folder: Path, config: str | None = None) -> FindingView:
    return analysed(text, folder, config).findings[0]


def test_an_exception_of_known_form_gets_its_cause(tmp_path: Path) -> None:
    """Nobody listed this message; class and place prove what kind of failure it is, and the sentence says that it is a conclusion."""
    text = f'{HEAD}{SITE}llamafactory/data/tool_utils.py", line 90, in tool_formatter\nIndexError: bin 7 is empty'
    found = first(text, tmp_path)
    assert (found.cause, found.family, found.role, found.severity) == ("dataset_columns_or_tags_mismatch", "data", "root", "error")
    assert 0.5 <= found.confidence < 0.9
    assert "No rule lists this message" in found.text
    assert "bin 7 is empty" in found.text


def test_an_unknown_one_says_what_is_known(tmp_path: Path) -> None:
    """Exception, whose code raised it, last lines, a search, what to send; no cause."""
    text = f'{HEAD}{SITE}transformers/trainer.py", line 90, in _weigh\nRuntimeError: the balance is off'
    found = first(text, tmp_path)
    assert (found.cause, found.rule) == (None, "environment/unknown-exception")
    assert found.title == "RuntimeError: the balance is off"
    assert "huggingface/transformers" in found.text
    assert len(found.evidence) == 2
    search, versions, send = found.remedies
    assert search.references == ["https://github.com/huggingface/transformers/issues?q=%22RuntimeError%22+the+balance+is+off"]
    assert versions.command == "llamafactory-cli env"
    assert "traceback" in send.text


def test_a_persons_own_script(tmp_path: Path) -> None:
    """An exception that the user's own code raised is nobody else's."""
    text = f'{HEAD}  File "/home/me/run.py", line 9, in weigh\nRuntimeError: the balance is off'
    assert "Your own script" in first(text, tmp_path).text


def test_the_earliest_exception_decides(tmp_path: Path) -> None:
    """What other ranks say afterwards is a consequence, and a launcher's echo says nothing."""
    text = (
        f'{HEAD}{SITE}llamafactory/data/tool_utils.py", line 90, in tool_formatter\nIndexError: bin 7 is empty\n'
        f'{HEAD}{SITE}torch/distributed/distributed_c10d.py", line 9, in barrier\nRuntimeError: aa bb timeout in barrier\n'
        f'{HEAD}{SITE}torch/distributed/run.py", line 9, in run\ntorch.distributed.elastic.multiprocessing.errors.ChildFailedError: x'
    )
    assert first(text, tmp_path).cause == "dataset_columns_or_tags_mismatch"


def test_an_exception_before_further_steps_was_caught(tmp_path: Path) -> None:
    """The run went on after the first one; the last one ended it."""
    text = (
        f'{HEAD}{SITE}llamafactory/data/tool_utils.py", line 90, in tool_formatter\nIndexError: bin 7 is empty\n'
        "{'loss': 1.2, 'learning_rate': 1e-05, 'epoch': 0.1}\n{'loss': 1.1, 'learning_rate': 1e-05, 'epoch': 0.2}\n"
        f'{HEAD}{SITE}peft/peft_model.py", line 90, in load_adapter\nRuntimeError: bin 9 is empty'
    )
    assert first(text, tmp_path).cause == "checkpoint_load_failure"


def test_a_line_outside_tracebacks(tmp_path: Path) -> None:
    """A program that ends with one line of text is read too; a warning of the same words is no failure."""
    line = "argument --epochs/--n: invalid int value: 'three'"
    assert first(line, tmp_path).cause == "cli_parsing_error"
    assert analysed("UserWarning: None of the inputs have requires_grad=True", tmp_path).findings == []


def test_a_rule_comes_before_the_table(tmp_path: Path) -> None:
    """What a rule knows is told by the rule."""
    found = first("RuntimeError: CUDA error: no kernel image is available for execution on the device", tmp_path)
    assert found.rule == "device/gpu-arch-unsupported"


def test_the_message_says(tmp_path: Path) -> None:
    """The message's own advice is quoted with a command to paste; an option that it names is checked by the planner."""
    message = "RuntimeError: cannot weigh with it, run with USE_SCALES=0 to disable it. Please set `flash_attn: sdpa`."
    found = first(message, tmp_path, "stage: sft\nmodel_name_or_path: a\ndataset: b\noutput_dir: c\ndo_train: true\n")
    assert [(one.kind, one.command) for one in found.says] == [("option", None), ("variable", "export USE_SCALES=0")]
    remedy = found.remedies[0]
    assert [(change.key, change.new) for change in remedy.changes] == [("flash_attn", "sdpa")]
    assert remedy.status == "apply"


@pytest.mark.parametrize("lang", ["en", "ko", "zh"])
@pytest.mark.parametrize("kind", ["terminal", "markdown", "html", "json", "sarif"])
def test_every_output_shows_it(lang: str, kind: str, tmp_path: Path) -> None:
    """The sentence stands in each format and language, escaped as the format asks."""
    report = analysed("RuntimeError: cannot weigh with it, run with USE_SCALES=0 to disable it.", tmp_path, lang=lang)
    shown = REPORTERS[kind](report)
    plain = json.loads(shown) and shown if kind in ("json", "sarif") else shown.replace("\\", "")
    assert plain.count("USE_SCALES=0") >= 3  # title or quote, the advice, its command


def test_a_run_that_completed_is_left_in_peace(tmp_path: Path) -> None:
    """Neither lines nor exceptions of a completed run become a failure."""
    text = (
        "error: cannot find the file of the cache\n"
        "{'loss': 1.2, 'learning_rate': 1e-05, 'epoch': 0.1}\n"
        "{'train_runtime': 10.0, 'train_loss': 1.2, 'epoch': 1.0}\n***** train metrics *****"
    )
    assert [one.rule for one in analysed(text, tmp_path).findings if one.severity != "note"] == []


def test_a_log_that_breaks_off_inside_a_traceback_says_so(tmp_path: Path) -> None:
    """No exception and no exit code were seen, so none is told."""
    text = f'***** Running training *****\n{HEAD}{SITE}somelib/teapot.py", line 90, in pour\n    lid.lift()'
    found = first(text, tmp_path)
    assert (found.cause, found.title) == (None, "The log breaks off inside a traceback: its exception is missing.")
    assert "exit code" not in found.text


def test_the_options_of_a_command_that_a_launcher_repeats_state_nothing(tmp_path: Path) -> None:
    """DeepSpeed's launcher prints the command of a worker that was killed: its `--deepspeed` file was not refused."""
    line = "[2024-05-15 00:12] [ERROR] [launch.py:184:sigkill_handler] ['/usr/bin/python3', 'run.py', '--deepspeed', 'ds_bad.json']"
    assert [one.cause for one in analysed(line, tmp_path).findings if one.cause == "deepspeed_config_conflict"] == []


def test_a_timeout_is_told_after_lines_that_name_no_exception(tmp_path: Path) -> None:
    """Lines of the same block come before it; after another exception it is but a consequence, and nothing is concluded from it."""
    line = "EE9999  task execute failed, dev_id=5, err_type=13[hccl fftsplus timeout]"
    assert first(f"EH9999: Inner Error!\n{line}", tmp_path).cause == "nccl_timeout_rank_desync"
    raised = f'{HEAD}{SITE}somelib/a.py", line 9, in pour\nTeapotError: short\n\n[INFO] closing'
    causes = [one.cause for one in analysed(f"{raised}\n{line}", tmp_path).findings]
    assert "nccl_timeout_rank_desync" not in causes
