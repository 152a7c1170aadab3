"""One sample of 2,000 makes a step of the real LLaMA-Factory fail: does `analyze` name its line?

    python -m tests.lab.sample_proof [NAME ...] [--keep FOLDER]

Which sample it is, a seed draws. Counted is a line that a page shows (doctor/reporters/advice.py, sample_lines), not only one in the JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.lab.install import lab_bin
from tests.lab.order_proof import BASE
from tests.lab.runner import asked, kit

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
ROWS = 2000
JOBS: dict[str, tuple[str, dict[str, Any], int]] = {
    "oom-plain": ("oom", {}, 1),
    "oom-accumulation-4": ("oom", {"gradient_accumulation_steps": 4}, 1),
    "oom-batch-8": ("oom", {"per_device_train_batch_size": 8}, 1),
    "oom-every-5": ("oom", {"logging_steps": 5, "gradient_accumulation_steps": 2}, 1),
    "oom-every-10": ("oom", {"logging_steps": 10, "per_device_train_batch_size": 4}, 1),
    "oom-val-size": ("oom", {"val_size": 0.1, "seed": 7}, 1),
    "oom-ranks-2": ("oom", {}, 2),
    "oom-ranks-2-every-5": ("oom", {"logging_steps": 5, "gradient_accumulation_steps": 2}, 2),
    "oom-dropped-rows": ("oom", {"dataset": "gaps"}, 1),
    "oom-two-sets": ("oom", {"dataset": "other,one", "gradient_accumulation_steps": 2}, 1),
    "oom-full": ("oom", {"finetuning_type": "full", "data_seed": 5}, 1),
    "nan-plain": ("nan", {}, 1),
    "nan-accumulation-4": ("nan", {"gradient_accumulation_steps": 4}, 1),
    "nan-batch-4-every-5": ("nan", {"per_device_train_batch_size": 4, "logging_steps": 5}, 1),
    "nan-shown": ("nan", {"logging_nan_inf_filter": False, "val_size": 20}, 1),
    "nan-ranks-2": ("nan", {}, 2),
    "nan-unshuffled": ("nan", {"disable_shuffling": True, "gradient_accumulation_steps": 2}, 1),
    "nan-pretraining": ("nan", {"stage": "pt", "dataset": "plain", "packing": False}, 1),
    "error-plain": ("error", {"gradient_accumulation_steps": 2}, 1),
    "error-batch-4": ("error", {"per_device_train_batch_size": 4}, 1),
}  # fmt: skip
"""Name -> fault, change of the configuration, ranks."""


def row(number: int, dice: random.Random, *, long: bool) -> dict[str, Any]:
    words = " ".join(dice.choice(("red fox", "old dog", "grey owl")) for _ in range(60 if long else dice.randint(1, 12)))
    return {"instruction": f"Tell #{number}#", "input": "", "output": f"Row #{number}# says {words}"}


def data(folder: Path, name: str, fault: str) -> tuple[str, int]:
    """FOLDER/data with the sets of a job; the marked row and the line on which it stands. The sample of an OOM is a long one."""
    folder.mkdir(parents=True)
    dice = random.Random(name)
    chosen = dice.randrange(ROWS)
    rows = [row(number, dice, long=fault == "oom" and number == chosen) for number in range(ROWS)]
    other = [row(number, dice, long=False) for number in range(ROWS, ROWS + 300)]
    gaps = [{**one, "output": None} if number % 7 == 3 and number != chosen else one for number, one in enumerate(rows)]
    texts = [{"text": one["output"]} for one in rows]
    sets = {"one": rows, "other": other, "gaps": gaps, "plain": texts}
    for one, its in sets.items():
        (folder / f"{one}.jsonl").write_text("".join(json.dumps(value) + "\n" for value in its))
    info: dict[str, Any] = {one: {"file_name": f"{one}.jsonl"} for one in sets}
    info["plain"]["columns"] = {"prompt": "text"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return f"#{chosen}#", chosen + 1


def prepare(base: Path, name: str) -> dict[str, Any]:
    """A folder of its own for one training, with the YAML as a user has it."""
    fault, change, ranks = JOBS[name]
    work = base / name
    mark, line = data(work / "data", name, fault)
    (work / "models").symlink_to((base / "kit" / "models").resolve())
    config = {**BASE, "dataset": "one", "num_train_epochs": 1.0, "cutoff_len": 128, "output_dir": "out", **change}
    (work / "train.yaml").write_text(yaml.safe_dump(config))
    return {"work": str(work), "config": config, "ranks": ranks, "fault": fault, "mark": mark, "line": line}


ANALYSE = """
import json, sys
sys.path[:0], sys.path[len(sys.path):] = [sys.argv[1]], sys.argv[2:3]
from doctor.diagnosis.pipeline import analyze
from doctor.reporters import advice
from doctor.words import catalogue
for line in sys.stdin:
    report = analyze(json.loads(line))
    root = next((finding for finding in report.findings if finding.role == "root"), None)
    shown = advice.sample_lines(root, catalogue.load("en")) if root else ("", [])
    held = [f"{row.file}:{row.line}" for row in root.samples.rows] if root and root.samples else []
    print(json.dumps([report.cause, *shown, held]), flush=True)
"""


def analysed(jobs: list[dict[str, Any]]) -> list[Any]:
    """Cause, heading, lines shown and places held of each run, computed in the environment of the training."""
    library = str(Path(msgspec.__file__).parents[1])
    command = [str(lab_bin() / "python"), "-c", ANALYSE, str(ROOT), library]
    lines = "".join(json.dumps(job["work"]) + "\n" for job in jobs)
    ended = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True, cwd="/")
    return [json.loads(line) for line in ended.stdout.splitlines()]


def main() -> int:
    """One line a run; 0 if at least nine in ten name the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        base = given.keep or Path(place)
        kit(base / "kit")
        jobs = [prepare(base, name) for name in given.names or JOBS]
        asked("sample_oracle.py", jobs, base)
        named = 0
        for job, (cause, heading, lines, held) in zip(jobs, analysed(jobs), strict=True):
            names = [name for name in ("one", "gaps", "plain") if name in job["config"]["dataset"]]
            wanted = f"data/{names[0]}.jsonl:{job['line']}"
            told = any(line.split(",")[0] == wanted for line in lines)
            named += told
            place_held = held.index(wanted) + 1 if wanted in held else 0
            print(f"{Path(job['work']).name:24} {'named' if told else 'MISSED'} {wanted} {cause} [{heading}] {place_held} of {len(held)}")
        print(f"{named} of {len(jobs)} named")
    return int(named < 0.9 * len(jobs))


if __name__ == "__main__":
    sys.exit(main())
