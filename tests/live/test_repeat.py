"""Steps that are repeated after a NaN: what is started, from where, and what two outcomes mean together. The training is a script."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest

from doctor.live.supervisor.launch import Launch
from doctor.live.supervisor.repeat import Repetition, begins_from
from doctor.live.trainer import checkpoint_size
from doctor.live.trainer.listeners import saves_at_stop

ROOT = Path(__file__).parents[2]
CONFIG = """\
model_name_or_path: models/tiny  # the model
stage: sft
dataset: toy
output_dir: out
logging_steps: 4
save_steps: 5
report_to: wandb
max_steps: 20
"""
TRAINING = """
import json, os, sys, yaml
from pathlib import Path
config = yaml.safe_load(Path(sys.argv[1]).read_text())
folder = Path(os.environ["LFDOCTOR_DIR"])
Path(config["output_dir"]).mkdir(parents=True)
(Path(config["output_dir"]) / "weights").write_text("x")
with open("starts", "a") as file: file.write(json.dumps({**config, "asked": os.environ["LFDOCTOR_REPEAT"]}) + "\\n")
starts = len(Path("starts").read_text().splitlines())
found = FOUND
if found: (folder / "lfdoctor.jsonl").write_text(json.dumps({"type": "Repeat", **found}, separators=(",", ":")) + "\\n")
"""
MODULE = {"kind": "module", "name": "model.layers.1.mlp", "direction": "forward", "micro_batch": 2, "step": 13, "rank": 0}


def checkpoint(folder: Path, step: int) -> None:
    """A whole checkpoint."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    for name in ("optimizer.pt", "scheduler.pt"):
        with zipfile.ZipFile(path / name, "w") as file:
            file.writestr("data", "x")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))


def repeated(folder: Path, found: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`lfdoctor run --repeat 14` of a training that finds this."""
    (folder / "train.yaml").write_text(CONFIG)
    (folder / "train.py").write_text(TRAINING.replace("FOUND", found))
    command = [sys.executable, "-c", "import sys; from doctor.cli.main import main; sys.exit(main())"]
    command += ["run", "-o", "d", "--repeat", "14", *words, "--", sys.executable, "train.py", "train.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="lfdoctor run needs process groups")
def test_it_begins_before_the_log_and_writes_nowhere_else(tmp_path):
    """The log of step 14 is a mean of 11 to 14: checkpoint-10 is the newest from before; neither saves, reports nor the user's folder."""
    for step in (5, 10, 12):
        checkpoint(tmp_path / "out", step)
    before = sorted(str(path) for path in (tmp_path / "out").rglob("*"))
    done = repeated(tmp_path, repr(MODULE))
    assert done.returncode == 0, done.stderr
    starts = [json.loads(line) for line in (tmp_path / "starts").read_text().splitlines()]
    assert [one["asked"] for one in starts] == ["11-14", "11-14"]
    assert {one["resume_from_checkpoint"] for one in starts} == {str(tmp_path / "out" / "checkpoint-10")}
    assert [one["output_dir"] for one in starts] == [str(tmp_path / "d" / f"repeat-{number}" / "output") for number in (1, 2)]
    assert {(one["save_strategy"], one["report_to"], one["max_steps"]) for one in starts} == {("no", "none", 20)}
    assert sorted(str(path) for path in (tmp_path / "out").rglob("*")) == before
    assert not (tmp_path / "d" / "repeat-1" / "output").exists()
    assert "the first value that is not finite comes out of model.layers.1.mlp (forward)" in done.stdout
    assert "not in the hardware" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="lfdoctor run needs process groups")
@pytest.mark.parametrize(
    ("found", "verdict", "code"),
    [
        ("[{'kind': 'nothing', 'step': 14, 'rank': 0}, {'kind': 'loss', 'name': '', 'micro_batch': 1, 'step': 9, 'rank': 0}][starts - 1]",
         "differs", 1),
        ("{'kind': 'nothing', 'step': 14, 'rank': 0}", "nothing", 0),
        ("None", "failed", 1),
    ],
)  # fmt: skip
def test_what_two_outcomes_mean(tmp_path, found, verdict, code):
    """Another outcome from the same checkpoint is the machine's doing; none at all is no answer."""
    done = repeated(tmp_path, found, "--lang", "ko")
    assert done.returncode == code, done.stderr
    assert json.loads((tmp_path / "d" / "repeat.json").read_text())["verdict"] == verdict
    assert "스텝을 2회 다시 학습했습니다(처음부터 시작)" in done.stdout


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ([MODULE, {**MODULE, "rank": 1, "micro_batch": 1}], "same"),
        ([MODULE, {**MODULE, "name": "lm_head"}], "differs"),
        ([{**MODULE, "kind": "sample", "rows": [1]}, {**MODULE, "kind": "sample", "rows": [0]}], "differs"),
        ([MODULE, {}], "failed"),
    ],
)
def test_outcomes_are_compared_by_what_was_found(outcomes, verdict):
    """Step, kind, name and rows count; which rank wrote it down first does not."""
    assert Repetition((11, 14), None, outcomes).verdict == verdict


def test_the_checkpoint_that_the_config_resumes_counts(tmp_path):
    """A resumed training has its checkpoint elsewhere; one behind the trouble is of no use."""
    config = tmp_path / "train.yaml"
    config.write_text(CONFIG.replace("output_dir: out", f"output_dir: {tmp_path}/out") + "resume_from_checkpoint: old/checkpoint-8\n")
    launch = Launch.of(["train", str(config)])
    assert begins_from(launch, 14).step == 8
    assert begins_from(launch, 11) is None


# ---- a disk without room, and a checkpoint before a stop


class Weight(types.SimpleNamespace):
    """A parameter of so many float32 numbers."""

    def numel(self) -> int:
        return int(self.count)

    def element_size(self) -> int:
        return 4


def arguments(**more: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        **{"save_strategy": "steps", "optim": "adamw_torch", "output_dir": "out", "save_total_limit": None, **more}
    )


GIB_OF_FLOATS = 1 << 28


@pytest.mark.parametrize(
    ("args", "peft", "free_gib", "told"),
    [
        (arguments(), False, 6.5, "3.00 + 4.00 = 7.00 GiB > 6.50 GiB"),
        (arguments(), False, 7.0, None),
        (arguments(), True, 5.9, "2.00 + 4.00 = 6.00 GiB > 5.90 GiB"),
        (arguments(save_only_model=True), True, 2.5, None),
        (arguments(optim="adafactor"), True, 1.0, "2.00 + 0.00 = 2.00 GiB > 1.00 GiB"),
        (arguments(deepspeed="z3.json"), True, 2.5, None),
        (arguments(save_strategy="no"), False, 0.1, None),
        (arguments(save_strategy=types.SimpleNamespace(value="no")), False, 0.1, None),
    ],
)
def test_what_one_checkpoint_takes(monkeypatch, tmp_path, args, peft, free_gib, told):
    """3 GiB of weights, of which 2 are trained by Adam: a full checkpoint is 3 + 4, an adapter's 2 + 4; the unknown counts as none."""
    monkeypatch.setattr(checkpoint_size.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=int(free_gib * (1 << 30))))
    weights = [Weight(count=2 * GIB_OF_FLOATS, requires_grad=True), Weight(count=GIB_OF_FLOATS, requires_grad=False)]
    model = types.SimpleNamespace(parameters=lambda: iter(weights), **({"peft_config": {}} if peft else {}))
    args.output_dir = str(tmp_path / "not" / "there" / "yet")
    assert checkpoint_size.too_large(args, model) == told


@pytest.mark.parametrize(
    ("args", "loss", "healed", "saves"),
    [
        (arguments(), 9.0, False, True),
        (arguments(), float("nan"), False, False),
        (arguments(save_total_limit=2), 9.0, False, False),
        (arguments(save_strategy="no"), 9.0, False, False),
        (arguments(), 9.0, True, False),
    ],
)
def test_a_checkpoint_before_a_stop(monkeypatch, args, loss, healed, saves):
    """Who knows better can go on from it; never one of NaN, nor one that costs an older one its place, nor under healing."""
    monkeypatch.setenv("LFDOCTOR_SAVE_AT_STOP", "0" if healed else "1")
    assert saves_at_stop(args, {"loss": loss}) is saves
