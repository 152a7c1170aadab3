"""What no change of the config can cure must be refused at once and for the right reason; what one change cures, with that change.

    python -m tests.lab.refusals [NAME ...]

The real LLaMA-Factory under `lfdoctor run --heal 4`. For each case: the root cause of the first attempt, words that its report must
contain, whether healing refused (one start) or cured it (and with which change first), and that nothing was started in vain.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.healing import RESTARTS, Case, heal_command, prepare, variables
from tests.lab.runner import kit
from tests.lab.scenarios.base import yaml_text

QUICK = {"max_steps": 6, "save_steps": 6}
OWN_CALLBACK = """
import sys
from llamafactory.hparams import read_args
from llamafactory.train.tuner import run_exp
from transformers import TrainerCallback


class Checks(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise ValueError("reward table has no row for prompt 17")


run_exp(read_args(), callbacks=[Checks()])
"""


@dataclass(frozen=True)
class Refusal:
    """A run that cannot work. `cause`: as the first attempt's report must name it (None: none is named); `words` must all be in that
    report's terminal text, `not_words` none. `first`: the change of the second attempt that must cure it; without one healing refuses.
    """

    says: str
    change: Mapping[str, Any]
    cause: str | None
    words: tuple[str, ...] = ()
    not_words: tuple[str, ...] = ()
    first: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ("llamafactory-cli", "train", "train.yaml")
    files: Mapping[str, str] = field(default_factory=dict)
    starts: int = 1


CASES = {
    "no-gpu-bf16": Refusal("bf16, no GPU visible", {**QUICK, "bf16": True}, "gpu_not_visible", ("CUDA_VISIBLE_DEVICES",)),
    "no-gpu-torchrun": Refusal(
        "LLaMA-Factory starts torchrun with one process a GPU: none",
        {**QUICK},
        "gpu_not_visible",
        ("CUDA_VISIBLE_DEVICES",),
        env={"FORCE_TORCHRUN": "1"},
    ),
    "mistyped-path": Refusal(
        "a folder that does not exist, offline",
        {**QUICK, "model_name_or_path": "models/tiny-lama"},
        "model_path_not_found",
        ("models/tiny-lama",),
    ),
    "mistyped-absolute-path": Refusal(
        "an absolute path that does not exist, offline",
        {**QUICK, "model_name_or_path": "/data/models/tiny-lama"},
        "model_path_not_found",
        ("/data/models/tiny-lama",),
    ),
    "hub-name-offline": Refusal(
        "a model of the hub, offline and not in the cache",
        {**QUICK, "model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct"},
        "hub_unreachable",
        ("HF_HUB_OFFLINE",),
    ),
    "empty-among-two": Refusal(
        "the second of two data sets has no row",
        {**QUICK, "dataset": "toy,empty"},
        "dataset_empty_after_processing",
        ("empty.json", "holds no row"),
        files={"data/empty.json": "[]"},
    ),
    "val-size-too-large": Refusal(
        "a validation set larger than the data", {**QUICK, "val_size": 500}, "config_invalid_value", ("val_size", "240"), ("streaming",)
    ),
    "own-callback": Refusal(
        "an exception of the user's own callback",
        {**QUICK},
        None,
        ("reward table has no row for prompt 17", "train.py"),
        command=("python", "train.py", "train.yaml"),
        files={"train.py": OWN_CALLBACK},
        starts=2,
    ),
    "swanlab-cloud-offline": Refusal(
        "SwanLab's cloud mode without a network",
        {**QUICK, "use_swanlab": True, "swanlab_mode": "cloud", "swanlab_api_key": "0123456789abcdefghijk"},
        "experiment_tracker_unreachable",
        ("swanlab",),
        first="use_swanlab",
        starts=2,
    ),
    "wandb-missing": Refusal(
        "report_to wandb, which is not installed",
        {**QUICK, "report_to": "wandb"},
        "package_version_conflict",
        ("wandb",),
        first="report_to",
        starts=2,
    ),
    "no-label": Refusal(
        "a cutoff that leaves no label",
        {**QUICK, "cutoff_len": 4, "max_steps": 12},
        "all_labels_masked",
        ("cutoff_len",),
        first="cutoff_len",
        starts=2,
    ),
}


def judge(refusal: Refusal, work: Path, code: int) -> dict[str, Any]:
    """What came of a run, and what is wrong with it."""
    report = json.loads((work / "doctor" / "report.json").read_text())
    first = json.loads((work / "doctor" / "attempt-1" / "report.json").read_text())
    roots = [one for one in first["findings"] if one["role"] == "root"]
    told = shown(work / "doctor" / "attempt-1" / "report.json")
    attempts = report["attempts"]
    changes = [[f"{change['key']}={change['new']}" for change in one["changes"]] for one in attempts[1:]]
    cause = roots[0]["cause"] if roots else None
    wrong = []
    if cause != refusal.cause:
        wrong.append(f"cause {cause}, not {refusal.cause}")
    wrong += [f"says nothing of {word!r}" for word in refusal.words if word not in told]
    wrong += [f"speaks of {word!r}" for word in refusal.not_words if word in told]
    if len(attempts) > refusal.starts:
        wrong.append(f"{len(attempts)} starts")
    if refusal.first is None and (code == 0 or any(changes)):
        wrong.append("not refused")
    if refusal.first is not None and (code != 0 or not changes or not any(one.startswith(f"{refusal.first}=") for one in changes[0])):
        wrong.append(f"not cured by {refusal.first}")
    return {"code": code, "cause": cause, "rule": roots[0]["rule"] if roots else None, "starts": len(attempts), "changes": changes,
            "healing": report["healing"], "wrong": wrong}  # fmt: skip


def shown(path: Path) -> str:
    """The one-screen report of a saved report."""
    from doctor.reporters.base import Screen
    from doctor.reporters.json import parse
    from doctor.reporters.registry import REPORTERS

    return re.sub(r"\s+", " ", REPORTERS["terminal"](parse(path.read_bytes()), Screen(width=100)))


def one(name: str, base: Path) -> dict[str, Any]:
    refusal = CASES[name]
    work = prepare(name, base)
    info = json.loads((work / "data" / "dataset_info.json").read_text())
    (work / "data" / "dataset_info.json").write_text(json.dumps({**info, "empty": {"file_name": "empty.json"}}))
    for place, text in refusal.files.items():
        (work / place).write_text(text)
    (work / "train.yaml").write_text(yaml_text({"output_dir": "saves/run", **refusal.change}))
    began = time.monotonic()
    case = Case(refusal.says, dict(refusal.change))
    words = ["--heal", str(RESTARTS), "-o", "doctor", "--", *refusal.command]
    code = heal_command(work, variables(work, case, {}) | dict(refusal.env), words)
    return {**judge(refusal, work, code), "seconds": round(time.monotonic() - began)}


def main() -> int:
    """One line a case; the number of wrong ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CASES))
    parser.add_argument("--keep", type=Path, help="Folder for what the runs leave.")
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="lfdoctor-refusals-") as temporary:
        base = Path(temporary)
        kit(base / "kit")
        for name in arguments.names:
            found = one(name, base)
            wrong += bool(found["wrong"])
            print(f"{name}: {CASES[name].says}: {json.dumps(found, ensure_ascii=False)}", flush=True)
            if arguments.keep:
                ignored = shutil.ignore_patterns("models", ".cache")
                shutil.copytree(base / name, arguments.keep / name, dirs_exist_ok=True, ignore=ignored)
    print(f"{len(arguments.names) - wrong} of {len(arguments.names)} right")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
