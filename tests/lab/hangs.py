"""Hangs put into real trainings on two ranks: which rank, where, which lock, and how soon; and healthy trainings that are silent for long.

    python -m tests.lab.hangs [NAME ...] [--jobs 2] [--every K]

Each hung training runs under `lfdoctor run` with its defaults until the doctor has told of it, and is then ended. Right: the finding names
the rank that the others wait for and the function it stands in (a lock: its file). Printed beside it: how many were told within 60 seconds
after the step that did not come, which depends on the machine. Nothing may be told of a healthy one. The cases and what is true of them
were written before the code that is judged.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.forked import free_port
from tests.lab.install import lab_bin
from tests.lab.runner import kit
from tests.lab.scenarios.base import yaml_text

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
TOLD_WITHIN = 60.0
"""Seconds from the step that did not come (the hang's beginning: steps take a tenth of a second)."""
GIVE_UP = 150.0
"""Seconds of a hang after which nothing more is expected."""
LONGEST = 420.0
SAVES = {"save_steps": 4}
EVALUATES = {"do_eval": True, "val_size": 0.1, "eval_steps": 4, "eval_strategy": "steps"}


@dataclass(frozen=True)
class Hang:
    """`rank`: the one that the others wait for, None if all stand alike; `place`: a pattern of the function (or file) to be named."""

    rank: int | None
    place: str
    lock: str | None = None
    change: dict[str, Any] = field(default_factory=dict)
    held: bool = False
    """Another process holds the lock file."""


WORKER = {"dataloader_num_workers": 1}
HANGS = {
    "collective-barrier": Hang(1, "sync_clock"),
    "collective-log": Hang(0, "mean_reward"),
    "collective-save": Hang(0, "collect_metrics", change=SAVES),
    "collective-collator": Hang(1, "draw_seed"),
    "collective-store": Hang(1, "wait_for_others"),
    "collective-evaluation": Hang(0, "pooled_scores", change=EVALUATES),
    "loader-disk": Hang(1, "open_shard"),
    "loader-worker": Hang(0, "fetch_image", change=WORKER),
    "loader-worker-lock": Hang(1, "shared_cache", change=WORKER),
    "loader-worker-stopped": Hang(1, r"decode_video|dataloader\.py", change=WORKER),
    "loader-download": Hang(0, "download_shard"),
    "loader-queue": Hang(1, "next_item", change={"dataloader_num_workers": 2}),
    "lock-extension": Hang(None, r"compile_kernel|file_baton\.py", lock="build/kernel/lock"),
    "lock-extension-step": Hang(1, r"compile_kernel|file_baton\.py", lock="build/kernel/lock"),
    "lock-hub": Hang(0, "download_model", lock="hub/.locks/models--org--name/abc.lock", held=True),
    "lock-cache": Hang(0, "prepare_cache", lock="cache/prepared.lock", held=True),
    "lock-baton": Hang(1, "claim_batch", lock="cache/claim.lock"),
    "lock-flock": Hang(0, "append_log", lock="cache/results.csv", held=True),
    "tokenizer-text": Hang(0, "normalise_text"),
    "tokenizer-pool": Hang(0, "normalise_text", change={"preprocessing_num_workers": 2}),
    "tokenizer-vocabulary": Hang(1, "load_vocabulary"),
    "tokenizer-lock": Hang(0, "cached_tokens"),
    "tokenizer-download": Hang(0, "fetch_vocabulary|download_shard"),
    "tokenizer-streaming": Hang(0, "normalise_text", change={"streaming": True, **WORKER}),
    "user-server": Hang(1, "report_to_server|download_shard"),
    "user-backup": Hang(0, "backup_checkpoint", change=SAVES),
    "user-busy": Hang(1, "wait_until_ready"),
    "user-confirm": Hang(0, "confirm"),
    "user-thread": Hang(1, "drain"),
    "user-evaluation": Hang(1, "publish", change=EVALUATES),
}
SILENT = {"disable_tqdm": True, "logging_steps": 10}
HEALTHY: dict[str, dict[str, Any]] = {
    "healthy-tokenizing": {**SILENT},
    "healthy-evaluation": {**SILENT, **EVALUATES, "per_device_eval_batch_size": 1},
    "healthy-evaluation-batch": {**SILENT, **EVALUATES, "per_device_eval_batch_size": 8},
    "healthy-metrics": {**SILENT, **EVALUATES, "per_device_eval_batch_size": 8},
    "healthy-saving": {**SILENT, "save_steps": 6},
    "healthy-saving-waits": {**SILENT, "save_steps": 6},
    "healthy-compiling": {**SILENT},
    "healthy-loading": {**SILENT},
    "healthy-plain": {**EVALUATES, **SAVES},
}


def prepare(name: str, base: Path, change: dict[str, Any]) -> Path:
    work = base / name
    work.mkdir()
    for part in ("data", "models"):
        shutil.copytree(base / "kit" / part, work / part)
    for path in (HERE / "hanging").glob("*.py"):
        shutil.copy(path, work)
    steps = 12 if name in HEALTHY else 40
    (work / "train.yaml").write_text(yaml_text({"output_dir": "out", "max_steps": steps, **change}), encoding="utf-8")
    return work


def start(name: str, work: Path) -> subprocess.Popen[bytes]:
    """`lfdoctor run -- torchrun train.py`, as a user starts it."""
    run = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from doctor.cli.main import main; sys.exit(main())"
    torchrun = [str(lab_bin() / "torchrun"), "--nproc_per_node", "2", "--master_port", str(free_port()), "train.py", "train.yaml"]
    variables = {key: value for key, value in os.environ.items() if key in ("LANG", "TMPDIR", "LD_LIBRARY_PATH")}
    variables |= {"PATH": f"{lab_bin()}{os.pathsep}{os.environ['PATH']}", "HOME": str(work), "HF_HUB_OFFLINE": "1"}
    variables |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "LFDOCTOR_LAB_HANG": name, "HF_HOME": str(work / ".cache")}
    with (work / "all.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", run, "run", "-o", "doctor", "--", *torchrun], cwd=work, env=variables, stdout=log, stderr=log
        )


@contextmanager
def locked(work: Path, hang: Hang) -> Iterator[None]:
    """The lock file, held by this process, or left behind by one that was killed an hour ago."""
    if hang.lock is None:
        yield
        return
    path = work / hang.lock
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if hang.held:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            os.utime(path, (time.time() - 3600,) * 2)
        yield


TOLD = re.compile(
    rb"lfdoctor: error at step \d+: .*\[(?:distributed|environment)/[^\]]*stand[^\]]*\]|lfdoctor: .*\[[a-z]+/[^\]]*lock[^\]]*\]"
)


def hung(name: str, base: Path) -> dict[str, Any]:
    """What was told of one hang, and how soon."""
    hang, work = HANGS[name], prepare(name, base, HANGS[name].change)
    with locked(work, hang):
        process = start(name, work)
        try:
            began, told = watched(process, work)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    found: dict[str, Any] = {"told_after": told and began and round(told - began, 1)}
    report = json.loads((work / "doctor" / "report.json").read_text())
    root = next((one for one in report["findings"] if one["role"] == "root"), None)
    found |= {"rule": root and root["rule"], "ranks": root and root["ranks"], "text": root and root["text"]}
    found["rank_right"] = bool(root) and root["ranks"] == ([] if hang.rank is None else [hang.rank])
    found["place_right"] = bool(root) and re.search(hang.place, root["text"]) is not None
    found["lock_right"] = hang.lock is None or (bool(root) and hang.lock in root["text"])
    found["in_time"] = bool(told and began and told - began <= TOLD_WITHIN)
    found["right"] = all(found[key] for key in ("rank_right", "place_right", "lock_right"))
    return found


def watched(process: subprocess.Popen[bytes], work: Path) -> tuple[float | None, float | None]:
    """When the hang began and when it was told (seconds since the epoch); None for what did not happen."""
    since = time.time()
    began: float | None = None
    while process.poll() is None and time.time() - since < LONGEST:
        time.sleep(0.5)
        struck = [path.stat().st_mtime for path in work.glob("struck-*")]
        began = min(struck) if struck else None
        if began is not None and TOLD.search((work / "all.log").read_bytes()):
            told = time.time()
            time.sleep(1)  # the rest of its lines
            return began, told
        if began is not None and time.time() - began > GIVE_UP:
            break
    return began, None


def healthy(name: str, base: Path) -> dict[str, Any]:
    """Whether a healthy training was asked where it stands, and how long it took."""
    work = prepare(name, base, HEALTHY[name])
    began = time.monotonic()
    code = start(name, work).wait(LONGEST * 2)
    asked = sum(path.read_text().count("lfdoctor asks:") for path in (work / "doctor").glob("lfdoctor-stacks-rank*.txt"))
    report = json.loads((work / "doctor" / "report.json").read_text())
    errors = [one["rule"] for one in report["findings"] if one["severity"] == "error"]
    right = code == 0 and not asked and not errors
    return {"right": right, "code": code, "asked": asked, "errors": errors, "seconds": round(time.monotonic() - began)}


def main() -> int:
    """One line a case; the number of those that were not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, metavar="K", help="Only every K-th hang, and every K-th healthy training.")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="Where the trainings' folders stay.")
    arguments = parser.parse_args()
    names = arguments.names or [*list(HANGS)[:: arguments.every], *list(HEALTHY)[:: arguments.every]]
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="lfdoctor-hangs-") as temporary:
        base = arguments.keep or Path(temporary)
        kit(base / "kit")

        def one(name: str) -> None:
            try:
                results[name] = hung(name, base) if name in HANGS else healthy(name, base)
            except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as error:
                results[name] = {"right": False, "error": f"{type(error).__name__}: {error}"}
            print(f"{name}: {'right' if results[name]['right'] else 'WRONG'}: {json.dumps(results[name])}", flush=True)

        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(one, names))
    for group in (HANGS, HEALTHY):
        judged = [results[name]["right"] for name in names if name in group]
        print(f"{sum(judged)} of {len(judged)} {'hangs' if group is HANGS else 'healthy trainings'} right")
    soon = [results[name].get("in_time", False) for name in names if name in HANGS]
    print(f"{sum(soon)} of {len(soon)} hangs told within {TOLD_WITHIN:.0f} s")  # a figure: it depends on what else the machine does
    return sum(not one["right"] for one in results.values())


if __name__ == "__main__":
    sys.exit(main())
