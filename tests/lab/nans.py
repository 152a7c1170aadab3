"""Non-finite values put into real trainings: `lfdoctor run --repeat STEP` must name the step, and the sample, the weight or the module.

    python -m tests.lab.nans [NAME ...] [--jobs 2] [--every K]

Each case tells the doctor only the logged step at which a user sees the NaN (every fourth is logged, or every one). The cases and what is
true of them were written before the code that is judged.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.install import lab_bin
from tests.lab.runner import kit
from tests.lab.scenarios.base import yaml_text

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BAD_ROW = {"instruction": "Tell me about the @ animal.", "input": "", "output": "The @ animal @ jumps."}
PLACE = 77
"""Where the bad sample stands in the data (0 is the first)."""


@dataclass(frozen=True)
class Nan:
    """`step`: where the first value is not finite (None: where the order of the data has the bad sample), `seen`: the step that is asked
    about; `kind` and `name`: what must be told, the name as the end of a module's or parameter's; `row`: the bad sample is to be named."""

    kind: str
    name: str = ""
    step: int | None = None
    seen: int = 8
    row: bool = False
    change: dict[str, Any] = field(default_factory=dict)


def sample(name: str, **change: Any) -> Nan:
    """Asked about at the last step: by then every sample was read."""
    last = change.get("max_steps", 60)
    return Nan("sample", name, None, last, row=True, change={"max_steps": last, **change})


FOUR = {"logging_steps": 4}
NANS = {
    "nan-sample-embedding": sample("embed_tokens"),
    "nan-sample-attention": sample("layers.1.self_attn"),
    "nan-sample-overflow": sample("layers.0.mlp", per_device_train_batch_size=4, gradient_accumulation_steps=1),
    "nan-sample-single": sample(
        "layers.1.mlp.gate_proj", per_device_train_batch_size=1, gradient_accumulation_steps=1, max_samples=80, max_steps=80
    ),
    "nan-sample-head": sample("lm_head", per_device_train_batch_size=4),
    "nan-sample-norm": sample("layers.0.input_layernorm", gradient_accumulation_steps=4),
    "nan-sample-backward": sample("layers.1.mlp"),
    "nan-weight-base": Nan("weight", "layers.0.self_attn.q_proj.base_layer.weight", 5, change=FOUR),
    "nan-weight-lora-a": Nan("weight", "layers.1.mlp.up_proj.lora_A.default.weight", 6, 6),
    "nan-weight-lora-b": Nan("weight", "layers.0.self_attn.v_proj.lora_B.default.weight", 3, 4, change=FOUR),
    "nan-weight-embedding": Nan("weight", "embed_tokens.weight", 4, 4),
    "nan-weight-norm": Nan("weight", "layers.1.post_attention_layernorm.weight", 7, change=FOUR),
    "nan-weight-optimizer": Nan("weight", "weight", 6, 6),
    "nan-module-attention": Nan("module", "layers.0.self_attn", 6, change=FOUR),
    "nan-module-down": Nan("module", "layers.1.mlp.down_proj", 4, 4),
    "nan-module-norm": Nan("module", "layers.0.input_layernorm", 7, change=FOUR),
    "nan-module-final": Nan("module", "model.norm", 5, change={"finetuning_type": "full", **FOUR}),
    "nan-module-head": Nan("module", "lm_head", 3, 4, change=FOUR),
    "nan-module-backward": Nan("module", "layers.1.self_attn.o_proj", 6, change=FOUR),
    "nan-module-backward-gate": Nan("module", "layers.0.mlp.gate_proj", 5, change={"disable_gradient_checkpointing": True, **FOUR}),
}
OTHERS = {
    "nan-once": Nan("differs", "layers.0.mlp", 5, 5),
    "nan-never": Nan("nothing", "", None, 4),
}


def run(name: str, base: Path) -> dict[str, Any]:
    """What the repetition told."""
    case, work = {**NANS, **OTHERS}[name], base / name
    work.mkdir()
    for part in ("data", "models"):
        shutil.copytree(base / "kit" / part, work / part)
    for path in (HERE / "hanging").glob("*.py"):
        shutil.copy(path, work)
    rows = json.loads((work / "data" / "toy.json").read_text())
    rows[PLACE] = BAD_ROW
    (work / "data" / "toy.json").write_text(json.dumps(rows, indent=1) + "\n")
    (work / "train.yaml").write_text(yaml_text({"output_dir": "out", "max_steps": 12, "lora_dropout": 0.1, **case.change}))
    command = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from doctor.cli.main import main; sys.exit(main())"
    words = ["run", "-o", "doctor", "--repeat", str(case.seen), "--", str(lab_bin() / "python"), "train.py", "train.yaml"]
    variables = {key: value for key, value in os.environ.items() if key in ("LANG", "TMPDIR", "LD_LIBRARY_PATH")}
    variables |= {"PATH": f"{lab_bin()}{os.pathsep}{os.environ['PATH']}", "HOME": str(work), "HF_HUB_OFFLINE": "1"}
    variables |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "LFDOCTOR_LAB_HANG": name, "HF_HOME": str(work / ".cache")}
    with (work / "all.log").open("wb") as log:
        code = subprocess.run(
            [sys.executable, "-c", command, *words], cwd=work, env=variables, stdout=log, stderr=log, timeout=900
        ).returncode
    found = json.loads((work / "doctor" / "repeat.json").read_text())
    return {"code": code, "found": found, **judged(case, found)}


def judged(case: Nan, found: dict[str, Any]) -> dict[str, bool]:
    first = found["outcomes"][0] if found["outcomes"] else None
    if case.kind in ("differs", "nothing"):
        return {"right": found["verdict"] == case.kind}
    kind = bool(first) and first["kind"] == case.kind
    step = bool(first) and (case.step is None or first["step"] == case.step)
    name = bool(first) and str(first.get("name") or "").endswith(case.name)
    row = bool(first) and (not case.row or "@" in str(first.get("text", "")))
    same = found["verdict"] == "same"
    return {
        "kind": kind,
        "step": step,
        "name": name,
        "row": row,
        "same": same,
        "right": same and step and (row if case.row else kind and name),
    }


def main() -> int:
    """One line a case; the number of those that were not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, metavar="K")
    arguments = parser.parse_args()
    names = arguments.names or [*list(NANS)[:: arguments.every], *list(OTHERS)[:: arguments.every]]
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="lfdoctor-nans-") as temporary:
        base = Path(temporary)
        kit(base / "kit")

        def one(name: str) -> None:
            try:
                results[name] = run(name, base)
            except (AssertionError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                log = base / name / "all.log"
                tail = log.read_text(errors="replace")[-600:] if log.exists() else ""
                results[name] = {"right": False, "error": f"{type(error).__name__}: {error}", "tail": tail}
            print(f"{name}: {'right' if results[name]['right'] else 'WRONG'}: {json.dumps(results[name])}", flush=True)

        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(one, names))
    for group, what in ((NANS, "non-finite values"), (OTHERS, "other repetitions")):
        right = [results[name]["right"] for name in names if name in group]
        print(f"{sum(right)} of {len(right)} {what} right")
    return sum(not one["right"] for one in results.values())


if __name__ == "__main__":
    sys.exit(main())
