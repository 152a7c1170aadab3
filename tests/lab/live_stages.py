"""Real LLaMA-Factory under `lfdoctor run`: every stage is seen step by step, to bit-equal losses and weights with and without us.

`python -m tests.lab.live_stages [NAME ...]` in the lab's environment (see README.md); prints one line a stage and exits with the failures.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from doctor.diagnose import analyze
from doctor.events import Step
from doctor.live.monitor import Monitor
from doctor.readers import read
from tests.lab.install import lab_bin
from tests.lab.runner import kit
from tests.lab.scenarios.base import yaml_text

ROOT = Path(__file__).resolve().parents[2]
COMMON = {"max_steps": 12, "save_steps": 6, "logging_steps": 1, "do_eval": True, "val_size": 0.1, "eval_steps": 6, "eval_strategy": "steps"}
STAGES: dict[str, tuple[dict[str, Any], int]] = {
    "sft": ({"stage": "sft"}, 1),
    "sft-every-5": ({"stage": "sft", "logging_steps": 5}, 1),
    "pt": ({"stage": "pt", "dataset": "plain"}, 1),
    "rm": ({"stage": "rm", "dataset": "pair"}, 1),
    "dpo": ({"stage": "dpo", "dataset": "pair"}, 1),
    "kto": ({"stage": "kto", "dataset": "kto"}, 1),
    "sft-2-ranks": ({"stage": "sft"}, 2),
    "dpo-2-ranks": ({"stage": "dpo", "dataset": "pair"}, 2),
    "pt-2-ranks": ({"stage": "pt", "dataset": "plain"}, 2),
    "rm-2-ranks": ({"stage": "rm", "dataset": "pair"}, 2),
    "kto-2-ranks": ({"stage": "kto", "dataset": "kto"}, 2),
    "sft-diverges": ({"stage": "sft", "learning_rate": 30.0, "max_steps": 30, "warmup_steps": 0, "max_grad_norm": 100.0}, 1),
}


def variables(work: Path, ranks: int) -> dict[str, str]:
    out = {key: value for key, value in os.environ.items() if key in ("LANG", "TMPDIR", "LD_LIBRARY_PATH")}
    out |= {"PATH": f"{lab_bin()}{os.pathsep}{os.environ['PATH']}", "HOME": str(work), "HF_HUB_OFFLINE": "1"}
    out |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return out | ({"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": str(ranks)} if ranks > 1 else {})


def train(work: Path, change: dict[str, Any], ranks: int, *, watched: bool) -> int:
    """One training in the new folder `work`, alone or under `lfdoctor run -o doctor`."""
    (work / "train.yaml").write_text(yaml_text({**COMMON, **change, "output_dir": "out"}), encoding="utf-8")
    command = ["llamafactory-cli", "train", "train.yaml"]
    if watched:
        run = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from doctor.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", run, "run", "-o", "doctor", "--", *command]
    with (work / "all.log").open("wb") as log:
        return subprocess.run(command, cwd=work, env=variables(work, ranks), stdout=log, stderr=log, timeout=400).returncode


def figures(work: Path) -> list[dict[str, Any]]:
    """The losses and norms of the run, as transformers wrote them, without the clock's figures."""
    history = json.loads((work / "out" / "trainer_state.json").read_text())["log_history"]
    return [{key: value for key, value in one.items() if not key.endswith(("_runtime", "_per_second"))} for one in history]


def weights(work: Path) -> str:
    return hashlib.sha256((work / "out" / "adapter_model.safetensors").read_bytes()).hexdigest()


def live_findings(folder: Path) -> set[tuple[str, tuple[int, int] | None]]:
    """What a monitor knew at the end that saw the journal's lines as they came."""
    monitor = Monitor(lambda _: None, str(folder / "lfdoctor.jsonl"))
    for line in (folder / "lfdoctor.jsonl").read_bytes().splitlines():
        monitor.line(line)
    monitor.close()
    return {(one.rule.id, one.steps) for one in monitor.findings()}


def check(name: str, base: Path) -> str:
    """Runs a stage twice; returns what is proven. Raises AssertionError."""
    change, ranks = STAGES[name]
    folders = {}
    for watched in (False, True):
        work = folders[watched] = base / f"{name}-{'watched' if watched else 'alone'}"
        work.mkdir()
        shutil.copytree(base / "kit" / "data", work / "data")
        shutil.copytree(base / "kit" / "models", work / "models")
        code = train(work, change, ranks, watched=watched)
        assert code == 0, f"exit code {code}, see {work}/all.log"
    alone, watched_folder = folders[False], folders[True]
    assert str(figures(alone)) == str(figures(watched_folder)), "the logged figures differ"
    assert weights(alone) == weights(watched_folder), "the weights differ"
    journal = watched_folder / "doctor" / "lfdoctor.jsonl"
    steps = [event for event in read([journal]).events() if isinstance(event, Step)]
    logged = {one["step"]: one["loss"] for one in figures(watched_folder) if "loss" in one}
    told = {event.step: event.metrics["loss"] for event in steps if "loss" in event.metrics}
    assert str(told) == str(logged), f"steps {sorted(told)} of {sorted(logged)}"
    evaluated = {event.step for event in steps if "eval_loss" in event.metrics}
    assert evaluated == {one["step"] for one in figures(watched_folder) if "eval_loss" in one}, "evaluations are missing"
    for rank in range(1, ranks):
        lines = (watched_folder / "doctor" / f"lfdoctor-rank{rank}.jsonl").read_text()
        seen = [json.loads(line)["step"] for line in lines.splitlines() if '"type":"Step"' in line and '"loss"' in line]
        assert sorted(set(seen)) == sorted(logged), f"rank {rank} saw {seen}"
    afterwards = {(one.rule, tuple(one.steps) if one.steps else None) for one in analyze(journal).findings}
    live = live_findings(watched_folder / "doctor")
    assert live == afterwards, f"live {live}, afterwards {afterwards}"
    warned = sum(line.startswith(b"lfdoctor: ") for line in (watched_folder / "all.log").read_bytes().splitlines())
    return (
        f"{len(told)} logged steps, {len(evaluated)} evaluations, bit-equal; {len(live)} findings live = afterwards; {warned} lines of ours"
    )


def main(names: list[str]) -> int:
    """All stages, or those named."""
    failures = 0
    with tempfile.TemporaryDirectory(prefix="lfdoctor-live-") as temporary:
        base = Path(temporary)
        kit(base / "kit")
        for name in names or STAGES:
            try:
                print(f"{name}: {check(name, base)}", flush=True)
            except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
                failures += 1
                kept = Path(tempfile.mkdtemp(prefix=f"lfdoctor-live-{name}-"))
                shutil.copytree(base, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("kit", "models"))
                print(f"{name}: FAILED: {error} (kept in {kept})", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
