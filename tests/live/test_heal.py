"""lfdoctor run --heal: what is tried, from where it goes on, when it gives up. The training is a script that behaves like LLaMA-Factory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

from doctor.config import yaml_edit
from doctor.config.patch import Change
from doctor.live.supervisor import checkpoints
from doctor.live.supervisor.attempts import HealAttempt
from doctor.live.supervisor.checkpoints import Checkpoint
from doctor.live.supervisor.launch import Launch, patched
from doctor.live.supervisor.ledger import Ledger
from doctor.live.supervisor.resume import cannot_resume, first_checkpoint, resume_point
from doctor.report.model import Report
from doctor.reporters.json import parse
from doctor.reporters.registry import REPORTERS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="lfdoctor run needs process groups")
ROOT = Path(__file__).parents[2]

CONFIG = """\
### mine
model_name_or_path: models/tiny  # the model
stage: sft
do_train: true
finetuning_type: lora
quantization_bit: 4
dataset: toy
template: llama3
output_dir: out
logging_steps: 1
save_steps: 5
per_device_train_batch_size: 8
gradient_accumulation_steps: 2
learning_rate: 1.0e-4
max_steps: 20
"""

TRAINING = r"""
import json, os, re, struct, sys, zipfile
from pathlib import Path
import yaml
config = yaml.safe_load(Path(sys.argv[2]).read_text())
output = Path(config["output_dir"])
resume = config.get("resume_from_checkpoint")
kept = sorted(output.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
if resume is None and kept:
    print(f"Resuming training from {kept[-1]}.")
    resume = kept[-1]
first = json.loads((Path(resume) / "trainer_state.json").read_text())["global_step"] if resume else 0
def zipped(path):
    with zipfile.ZipFile(path, "w") as file: file.writestr("data", "x")
def save(folder, step):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    if folder != output:
        zipped(folder / "optimizer.pt"); zipped(folder / "scheduler.pt")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "train_batch_size": 8}))
print("***** Running training *****", flush=True)
print("  Total optimization steps = 20", flush=True)
output.mkdir(parents=True, exist_ok=True)
with (output / "starts").open("a") as file: file.write(json.dumps({"first": first, "resume": str(resume), **config}) + "\n")
for step in range(first + 1, config["max_steps"] + 1):
    print({"loss": 2.0 - step / 100, "grad_norm": 1.0, "learning_rate": 1e-4, "epoch": step / 20}, flush=True)
    exec(os.environ["FAULT"])
    if step % config["save_steps"] == 0: save(output / f"checkpoint-{step}", step)
save(output, step)
print({"train_runtime": 1.0, "train_loss": 1.0, "epoch": 1.0}, flush=True)
"""
OOM = (
    'sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. '
    'GPU 0 has a total capacity of 23.57 GiB of which 0.5 GiB is free.")'
)


def heal(
    tmp_path: Path,
    fault: str,
    *options: str,
    config: str = CONFIG,
    restarts: int = 3,
    words: tuple[str, ...] = (),
    training: str = TRAINING,
) -> tuple[int, dict]:
    (tmp_path / "cfg.yaml").write_text(config)
    (tmp_path / "train.py").write_text(training)
    run = "import sys; sys.argv[0] = 'lfdoctor'; from doctor.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", run, "run", "--heal", str(restarts), "-o", "d", *options, "--"]
    command += [sys.executable, "train.py", "train", "cfg.yaml", *words]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "FAULT": fault}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120)
    report = tmp_path / "d" / "report.json"
    return done.returncode, json.loads(report.read_text()) if report.exists() else {"stdout": done.stdout, "stderr": done.stderr}


def starts(tmp_path: Path, output: str = "out") -> list[dict]:
    return [json.loads(line) for line in (tmp_path / output / "starts").read_text().splitlines()]


def test_out_of_memory_is_patched_and_goes_on_from_the_newest_checkpoint(tmp_path):
    """Half the batch, twice the accumulation, the same folder, no step more than save_steps trained again; the user's file untouched."""
    fault = f'if step == 13 and config["per_device_train_batch_size"] > 4: {OOM}'
    code, report = heal(tmp_path, fault)
    assert code == 0
    first, second = starts(tmp_path)
    assert (second["per_device_train_batch_size"], second["gradient_accumulation_steps"], second["first"]) == (4, 4, 10)
    assert json.loads((tmp_path / second["resume"] / "trainer_state.json").read_text())["train_batch_size"] == 4
    assert second["output_dir"] == first["output_dir"]
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert (tmp_path / "cfg.yaml").read_text() == CONFIG
    assert "# the model" in (tmp_path / "d" / "attempt-2.yaml").read_text()
    one, two = report["attempts"]
    assert (one["outcome"], two["outcome"], two["redone"]) == ("failed", "finished", 3)
    assert one["effective_batch"] == two["effective_batch"] == 16


def test_a_killed_run_goes_on_as_it_was(tmp_path):
    """Nothing explains a kill: no patch, the newest checkpoint, and only once more if it comes back without progress."""
    fault = 'if step == 8 and not Path("struck").exists(): Path("struck").touch(); os.kill(os.getpid(), 9)'
    code, report = heal(tmp_path, fault)
    assert code == 0
    assert [one["first"] for one in starts(tmp_path)] == [0, 5]
    assert report["attempts"][1]["changes"] == []
    assert report["run"]["status"] == "completed"


def test_no_flapping(tmp_path):
    """A run that is killed at the same step again is not started for ever, and the report says why."""
    code, report = heal(tmp_path, "if step == 8: os.kill(os.getpid(), 9)", restarts=9)
    assert code == 128 + 9
    assert len(report["attempts"]) == 2
    assert "No remaining config change can help" in report["healing"]


def test_the_same_patch_is_never_tried_twice(tmp_path):
    """Whatever is tried, it fails: all configs differ, and the budget that was given is kept."""
    code, report = heal(tmp_path, f"if step == 7: {OOM}", restarts=4)
    assert code == 1
    configs = [{key: value for key, value in one.items() if key not in ("first", "resume")} for one in starts(tmp_path)]
    assert len({json.dumps(one, sort_keys=True) for one in configs}) == len(configs) == len(report["attempts"]) <= 5
    assert {one["effective_batch"] for one in report["attempts"]} == {16}
    assert report["healing"]


def test_a_mistake_that_no_patch_cures_is_refused_at_once(tmp_path):
    """A data set that does not exist: one start, the training's own exit code, and the reason."""
    fault = 'raise ValueError("Undefined dataset nothing in dataset_info.json.")'
    code, report = heal(tmp_path, fault)
    assert code == 1
    assert len(report["attempts"]) == 1
    assert report["healing"].startswith("No remaining config change can help")


def test_a_torn_checkpoint_is_not_resumed(tmp_path):
    """Killed while it wrote a checkpoint: the one before is taken, never the trap of the newest folder."""
    fault = """
if step == 10 and not Path("struck").exists():
    Path("struck").touch()
    save(output / "checkpoint-10", 10)
    (output / "checkpoint-10" / "optimizer.pt").write_bytes(b"PK cut off")
    os.kill(os.getpid(), 9)
"""
    code, report = heal(tmp_path, fault)
    assert code == 0
    assert [one["first"] for one in starts(tmp_path)] == [0, 5]
    assert report["attempts"][1]["redone"] == 5


def test_a_full_disk_is_made_room_on(tmp_path):
    """save_total_limit, and at once: the checkpoints that it lets go of are deleted before the restart, the one to go on from is not."""
    fault = 'if step == 15 and len(list(output.glob("checkpoint-*"))) > 1: raise OSError(28, "No space left on device")'
    code, report = heal(tmp_path, fault)
    assert code == 0
    assert [one["first"] for one in starts(tmp_path)] == [0, 10]
    assert [change["key"] for change in report["attempts"][1]["changes"]] == ["save_total_limit"]
    assert not (tmp_path / "out" / "checkpoint-5").exists()


def test_a_hung_run_is_ended_and_started_again(tmp_path):
    """No word and no step for too long: ended by us, so nobody else asked it to stop, and the same goes on from the newest checkpoint."""
    (tmp_path / "cfg.yaml").write_text(CONFIG)
    (tmp_path / "train.py").write_text(TRAINING)
    script = """
import sys
from pathlib import Path
from doctor.live.supervisor.heal import Healer
sys.exit(Healer([sys.executable, "train.py", "train", "cfg.yaml"], Path("d"), 2, kill_after=2.0).run().code)
"""
    fault = 'if step == 8 and not Path("struck").exists(): import time; Path("struck").touch(); time.sleep(60)'
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "FAULT": fault}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=variables, capture_output=True, timeout=60)
    assert done.returncode == 0
    first, second = json.loads((tmp_path / "d" / "report.json").read_text())["attempts"]
    assert (first["outcome"], first["cause"], second["outcome"], second["redone"]) == ("failed", "process_hang", "finished", 3)


def test_overrides_of_the_command_line_stay(tmp_path):
    """key=value words win over the file at the first start, and stand in the YAML of the next."""
    fault = 'if step == 3 and not Path("struck").exists(): Path("struck").touch(); os.kill(os.getpid(), 9)'
    code, _ = heal(tmp_path, fault, words=("learning_rate=3e-5", "lora_rank=4"))
    assert code == 0
    assert [(one["learning_rate"], one.get("lora_rank")) for one in starts(tmp_path)][-1] == (3e-5, 4)


def test_dry_run_starts_nothing_and_shows_the_plan(tmp_path):
    """What would be done about the failure that is there: the remedy, the checkpoint, the command; no file is written."""
    heal(tmp_path, f"if step == 13: {OOM}", restarts=1)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "d" / "attempt-2").rename(tmp_path / "kept")
    code, _ = 0, None
    run = "import sys; sys.argv[0] = 'lfdoctor'; from doctor.cli.main import main; sys.exit(main())"
    command = [
        sys.executable,
        "-c",
        run,
        "run",
        "--heal",
        "2",
        "--dry-run",
        "-o",
        "d",
        "--",
        sys.executable,
        "train.py",
        "train",
        "cfg.yaml",
    ]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    (tmp_path / "kept").rename(tmp_path / "d" / "attempt-2")
    assert done.returncode == code
    assert "checkpoint-10" in done.stdout
    assert "per_device_train_batch_size: 8 -> 4" in done.stdout
    assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before


@pytest.mark.parametrize("lang", ["en", "ko"])
@pytest.mark.parametrize("kind", ["terminal", "markdown", "html"])
def test_the_lineage_is_in_the_report(tmp_path, kind, lang):
    """Every attempt with its change and the checkpoint it went on from can be read in the saved report."""
    code, _ = heal(tmp_path, f'if step == 13 and config["per_device_train_batch_size"] > 4: {OOM}', "--lang", lang)
    assert code == 0
    report = parse((tmp_path / "d" / "report.json").read_bytes())
    text = REPORTERS[kind](report)
    assert "per_device_train_batch_size" in text
    assert "checkpoint-10" in text.replace("\\", "")


def test_the_training_yaml_among_the_words(tmp_path, monkeypatch):
    """accelerate's own YAML is not the training's; without one there is nothing to patch."""
    monkeypatch.chdir(tmp_path)
    Path("fsdp.yaml").write_text("compute_environment: LOCAL_MACHINE\n")
    Path("cfg.yaml").write_text(CONFIG)
    launch = Launch.of(["accelerate", "launch", "--config_file", "fsdp.yaml", "src/train.py", "cfg.yaml", "lora_rank=4"])
    assert launch.config == Path("cfg.yaml")
    assert yaml_edit.load(launch.text or "")["lora_rank"] == 4
    assert launch.with_config(Path("new.yaml"))[-1] == "new.yaml"
    assert Launch.of(["bash", "run.sh"]).text is None


def test_settings_of_a_deepspeed_file_move_into_the_yaml(tmp_path):
    """A remedy inside the DeepSpeed file becomes part of the attempt's own YAML; the file is not ours to change."""
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}, "bf16": {"enabled": "auto"}}))
    text = patched(CONFIG + f"deepspeed: {file}\n", [Change("deepspeed", "set", "zero_optimization.stage", None, 3)], {})
    assert yaml_edit.load(text)["deepspeed"] == {"zero_optimization": {"stage": 3}, "bf16": {"enabled": "auto"}}
    assert json.loads(file.read_text())["zero_optimization"]["stage"] == 2


def test_a_checkpoint_of_the_v1_trainer_is_whole_with_its_mark(tmp_path):
    """LLaMA-Factory's v1 trainer writes metadata.json first and CHECKPOINT_COMPLETE last (v1/core/utils/checkpoint.py)."""
    for step in (5, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "metadata.json").write_text(json.dumps({"global_step": step, "epoch": 0}))
    assert checkpoints.whole(tmp_path) == []
    (tmp_path / "checkpoint-5" / "CHECKPOINT_COMPLETE").touch()
    assert [one.step for one in checkpoints.whole(tmp_path)] == [5]


def whole(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (path / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    for name in ("optimizer.pt", "scheduler.pt"):
        with zipfile.ZipFile(path / name, "w") as file:
            file.writestr("data.pkl", b"x" * 100)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_only_whole_checkpoints_count(tmp_path, name, damage):
    """A checkpoint whose any file was cut off, emptied or never written is none; the older one is still there."""
    whole(tmp_path, 5)
    path = whole(tmp_path, 10) / name
    assert [one.step for one in checkpoints.whole(tmp_path)] == [5, 10]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3] if damage == "cut" else b"")
    assert [one.step for one in checkpoints.whole(tmp_path)] == [5]


# ---- a damaged checkpoint that LLaMA-Factory would resume by itself

LOADS = """
if step == first + 1 and resume:
    torn = not zipfile.is_zipfile(Path(resume) / "optimizer.pt") or zipfile.ZipFile(Path(resume) / "optimizer.pt").testzip()
    if torn: sys.exit("RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory")
"""


@pytest.mark.parametrize("damage", ["cut", "scrambled"])
def test_an_older_checkpoint_is_used_where_the_newest_is_damaged(tmp_path, damage):
    """The first start resumes the newest checkpoint unasked and fails on it: the next one continues from the older, whole one."""
    for step in (5, 10):
        whole(tmp_path / "out", step)
    path = tmp_path / "out" / "checkpoint-10" / "optimizer.pt"
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else bytes(data).replace(b"x" * 100, b"x" * 50 + b"y" * 50))
    script = TRAINING.replace("for step in range(first + 1", f"step = first + 1\n{LOADS}\nfor step in range(first + 1")
    code, report = heal(tmp_path, "pass", training=script)
    assert code == 0
    done = [one["first"] for folder in ("out", "out-fix1") if (tmp_path / folder).exists() for one in starts(tmp_path, folder)]
    assert [first for first in done if first != 10] == [5]
    assert [attempt["outcome"] for attempt in report["attempts"]] == ["failed", "finished"]
    assert report["attempts"][1]["resumed_from"].endswith("checkpoint-5")


def report_of(**finding: object) -> Report:
    """A report with one root finding."""
    base = {"rule": "a/b", "cause": "unknown", "symptom": "crash", "severity": "error", "role": "root", "confidence": 0.9, "title": "T"}
    view = types.SimpleNamespace(**{**base, "family": "a", "steps": [], "remedies": [], **finding})
    run = types.SimpleNamespace(status="failed", steps=types.SimpleNamespace(last=finding.get("last", 0)))
    return types.SimpleNamespace(findings=[view], run=run, patch=None)  # type: ignore[return-value]


def attempt(tmp_path: Path, config: str = "", **finding: object) -> HealAttempt:
    text = f"stage: sft\noutput_dir: {tmp_path / 'out'}\n{config}"
    return HealAttempt(number=1, text=text, code=1, hooked=True, report=report_of(**finding))


@pytest.mark.parametrize(
    ("logging_steps", "onset", "expected"), [(1, 11, 10), (1, 10, 5), (5, 15, 10), (5, 14, 5), (5, 9, None), (10, 20, 10)]
)
def test_a_checkpoint_from_before_the_onset_is_resumed(tmp_path, logging_steps, onset, expected):
    """The onset is the first bad log, a mean over `logging_steps` steps: a checkpoint from within those is no good."""
    points = [Checkpoint(step, tmp_path / f"checkpoint-{step}") for step in (5, 10, 15)]
    failed = attempt(tmp_path, f"logging_steps: {logging_steps}\n", symptom="divergence", steps=[onset, 40])
    point = resume_point(failed, set(), points)
    assert (point.step if point else None) == expected
    other = attempt(tmp_path, f"logging_steps: {logging_steps}\n", symptom="gpu_oom", steps=[onset, 40])
    assert resume_point(other, set(), points) == points[-1]


@pytest.mark.parametrize(("reached", "starts_again"), [([8, 12, 13], 3), ([8, 8], 1), ([8, 5], 1), ([8, 12, 12], 2), ([1, 2, 3, 4, 5], 3)])
def test_a_failure_that_may_pass_is_tried_again_while_there_is_progress(tmp_path, reached, starts_again):
    """The same is started again only if it got further than before, and three times at most."""
    first = attempt(tmp_path, symptom="killed", cause="process_killed", confidence=0.4, last=0)
    ledger = Ledger(first, tmp_path, restarts=9, order=lambda _: [])
    current: object = first
    count = 0
    for last in reached:
        if not isinstance(current, HealAttempt):
            break
        current.code, current.hooked = 137, True
        current.report = report_of(symptom="killed", cause="process_killed", confidence=0.4, last=last)
        current = ledger.next_attempt(current)
        count += isinstance(current, HealAttempt)
    assert count == starts_again


def test_what_a_training_resumes_unasked(tmp_path):
    """The newest checkpoint folder, whole or not; none if the config names one, overwrites, or has no folder."""
    for step in (5, 10):
        whole(tmp_path / "out", step)
    (tmp_path / "out" / "checkpoint-10" / "optimizer.pt").write_bytes(b"PK")
    values = {"output_dir": str(tmp_path / "out")}
    assert first_checkpoint(values) == Checkpoint(10, tmp_path / "out" / "checkpoint-10")
    assert first_checkpoint({**values, "resume_from_checkpoint": "a/checkpoint-7"}) == Checkpoint(7, Path("a/checkpoint-7"))
    assert first_checkpoint({**values, "overwrite_output_dir": True}) is None
    assert first_checkpoint({}) is None
    assert first_checkpoint({"output_dir": str(tmp_path / "empty")}) is None


@pytest.mark.parametrize(
    ("cause", "damaged", "expected"),
    [
        ("checkpoint_load_failure", False, True),
        ("model_files_corrupt", True, True),
        ("model_files_corrupt", False, False),
        ("unknown", True, True),
        ("config_unknown_key", True, False),
    ],
)
def test_which_first_failures_are_the_checkpoints_fault(tmp_path, cause, damaged, expected):
    """A mistake in the config or a damaged base model is not cured by an older checkpoint."""
    path = whole(tmp_path / "out", 10)
    if damaged:
        (path / "optimizer.pt").write_bytes(b"PK")
    failed = attempt(tmp_path, cause=cause, symptom="crash", last=0)
    failed.resume = first_checkpoint(failed.values)
    assert cannot_resume(failed) is expected


def test_the_judge_learns_where_other_rates_jumped(tmp_path):
    """Divergences of attempts with another learning rate are passed on; those with the same rate, and other failures, are not."""
    first = attempt(tmp_path, "learning_rate: 1.0e-4\n", symptom="divergence", steps=[35, 60])
    ledger = Ledger(first, tmp_path, restarts=9)
    ledger.attempts.append(attempt(tmp_path, "learning_rate: 3.0e-5\n", symptom="gpu_oom", steps=[7]))
    ledger.attempts.append(attempt(tmp_path, "learning_rate: 1.0e-5\n", symptom="divergence", steps=[36, 60]))
    third = attempt(tmp_path, "learning_rate: 1.0e-5\n")
    assert ledger.jumps_before(third) == [35]
    assert ledger.jumps_before(attempt(tmp_path, "learning_rate: 2.0e-6\n")) == [35, 36]
