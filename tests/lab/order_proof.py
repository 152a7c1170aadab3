"""The rows that the real LLaMA-Factory trains on at each step, against those that doctor/dataset/order.py computes.

    python -m tests.lab.order_proof [NAME ...]

Every configuration is trained to its end with a batch recorder inside (order_oracle.py); afterwards each step's rows are computed from the
configuration alone, in the lab's environment (torch). Compared are all steps, batch by batch and rank by rank.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tests.lab.install import lab_bin
from tests.lab.runner import asked, kit

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BASE: dict[str, Any] = {
    "model_name_or_path": "models/tiny-llama", "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 4,
    "lora_target": "q_proj", "dataset": "a", "dataset_dir": "data", "template": "llama3", "cutoff_len": 64, "output_dir": "out",
    "logging_steps": 1, "save_strategy": "no", "report_to": "none", "per_device_train_batch_size": 2, "learning_rate": 1e-5,
    "num_train_epochs": 2.0, "overwrite_cache": True,
}  # fmt: skip
RESUME = {"save_strategy": "steps", "save_only_model": False}
SHARDED = {"fsdp": "full_shard auto_wrap", "fsdp_config": {"fsdp_version": 2, "transformer_layer_cls_to_wrap": "LlamaDecoderLayer"}}
ZERO = {"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto", "zero_allow_untested_optimizer": True}  # fmt: skip
"""As in LLaMA-Factory's examples/deepspeed."""
JOBS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 1),
    "accumulation-4": ({"gradient_accumulation_steps": 4}, 1),
    "ranks-2": ({}, 2),
    "ranks-2-accumulation-4": ({"gradient_accumulation_steps": 4}, 2),
    "ranks-2-drop-last": ({"dataloader_drop_last": True, "gradient_accumulation_steps": 3}, 2),
    "drop-last": ({"dataloader_drop_last": True, "per_device_train_batch_size": 4}, 1),
    "val-share": ({"val_size": 0.17, "seed": 7, "do_eval": True, "eval_strategy": "steps", "eval_steps": 4}, 1),
    "val-count-ranks-2": ({"val_size": 5, "seed": 11, "gradient_accumulation_steps": 2}, 2),
    "max-samples": ({"max_samples": 23}, 1),
    "two-sets-max-samples": ({"dataset": "a,b", "max_samples": 19, "gradient_accumulation_steps": 4}, 1),
    "two-sets-val-ranks-2": ({"dataset": "b,a", "val_size": 0.1, "preprocessing_num_workers": 2}, 2),
    "dropped-rows": ({"dataset": "gaps"}, 1),
    "dropped-rows-val-ranks-2": ({"dataset": "a,gaps", "val_size": 0.25, "max_samples": 30, "gradient_accumulation_steps": 4}, 2),
    "data-seed": ({"data_seed": 5, "seed": 3, "val_size": 4}, 1),
    "unshuffled": ({"disable_shuffling": True, "gradient_accumulation_steps": 4}, 1),
    "unshuffled-ranks-2": ({"disable_shuffling": True, "val_size": 0.1}, 2),
    "max-steps": ({"max_steps": 47, "dataloader_num_workers": 2}, 1),
    "share-of-an-epoch": ({"num_train_epochs": 1.4, "gradient_accumulation_steps": 4}, 2),
    "tiny-ranks-2": ({"max_samples": 3, "num_train_epochs": 3, "per_device_train_batch_size": 4}, 2),
    "folder": ({"dataset": "many"}, 1),
    "dpo": ({"stage": "dpo", "dataset": "pairs", "val_size": 0.1}, 1),
    "dpo-ranks-2": ({"stage": "dpo", "dataset": "pairs", "gradient_accumulation_steps": 4}, 2),
    "rm": ({"stage": "rm", "dataset": "pairs"}, 1),
    "kto": ({"stage": "kto", "dataset": "rated", "gradient_accumulation_steps": 4}, 1),
    "kto-ranks-2": ({"stage": "kto", "dataset": "rated"}, 2),
    "pt-unpacked": ({"stage": "pt", "dataset": "plain", "packing": False}, 1),
    "full": ({"finetuning_type": "full"}, 1),
    "resume-first-epoch": ({**RESUME, "save_steps": 5, "gradient_accumulation_steps": 2}, 1),
    "resume-second-epoch": ({**RESUME, "save_steps": 13, "gradient_accumulation_steps": 2, "num_train_epochs": 3}, 1),
    "resume-first-epoch-ranks-2": ({**RESUME, "save_steps": 5}, 2),
    "resume-second-epoch-ranks-2": ({**RESUME, "save_steps": 13, "num_train_epochs": 3}, 2),
    "resume-edge-ranks-2": ({**RESUME, "save_steps": 10, "num_train_epochs": 3}, 2),
    "deepspeed-0": ({"deepspeed": "z0.json", "gradient_accumulation_steps": 2}, 2),
    "deepspeed-2": ({"deepspeed": "z2.json", "gradient_accumulation_steps": 4, "val_size": 0.17, "seed": 7}, 2),
    "deepspeed-2-one-rank": ({"deepspeed": "z2.json", "data_seed": 5}, 1),
    "deepspeed-2-dpo": ({"deepspeed": "z2.json", "stage": "dpo", "dataset": "pairs", "dataloader_drop_last": True}, 2),
    "deepspeed-2-resume-second-epoch": ({**RESUME, "deepspeed": "z2.json", "save_steps": 13, "num_train_epochs": 3}, 2),
    "deepspeed-3-full": ({"deepspeed": "z3.json", "finetuning_type": "full", "dataset": "a,gaps", "max_samples": 30}, 2),
    "deepspeed-3-unshuffled": ({"deepspeed": "z3.json", "disable_shuffling": True, "gradient_accumulation_steps": 4}, 2),
    "fsdp-2": ({**SHARDED, "gradient_accumulation_steps": 4, "data_seed": 5}, 2),
    "fsdp-2-full-val": ({**SHARDED, "finetuning_type": "full", "val_size": 0.17, "dataloader_drop_last": True}, 2),
    "fsdp-2-two-sets": ({**SHARDED, "dataset": "b,a", "max_samples": 19, "num_train_epochs": 3}, 2),
    "fsdp-2-resume-second-epoch": ({**SHARDED, **RESUME, "save_steps": 13, "num_train_epochs": 3}, 2),
}  # fmt: skip
"""Name -> change of BASE, ranks. A `resume-` job trains once more from its first checkpoint; that second run is compared."""


def answer(number: int) -> str:
    return f"Row #{number}# says " + " ".join(["red fox"] * (1 + number * 7 % 5))


def data(folder: Path) -> None:
    """FOLDER with sets whose rows carry a number each, unique over all sets."""
    folder.mkdir(parents=True)
    asked = {"input": ""}
    plain = [{"instruction": f"Tell #{n}#", **asked, "output": answer(n)} for n in range(37)]
    other = [{"instruction": f"Tell #{n}#", **asked, "output": answer(n)} for n in range(100, 129)]
    gaps = [{"instruction": f"Tell #{n}#", **asked, "output": None if n % 4 == 1 else answer(n)} for n in range(200, 245)]
    pairs = [{"instruction": f"Tell #{n}#", **asked, "chosen": answer(n), "rejected": f"No #{n}#"} for n in range(300, 341)]
    rated = [{"instruction": f"Tell #{n}#", **asked, "output": answer(n), "tag": n % 3 > 0} for n in range(400, 435)]
    texts = [{"text": answer(n)} for n in range(500, 533)]
    pairs[3]["chosen"] = None
    sets = {"a": plain, "b": other, "gaps": gaps, "pairs": pairs, "rated": rated, "plain": texts}
    for name, rows in sets.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "many").mkdir()
    for part in range(5):
        rows = [{"instruction": f"Tell #{n}#", **asked, "output": answer(n)} for n in range(600 + part * 10, 607 + part * 10)]
        (folder / "many" / f"part{part * 7 % 5}.json").write_text(json.dumps(rows, indent=1))
    info: dict[str, Any] = {name: {"file_name": f"{name}.jsonl"} for name in sets}
    info["many"] = {"file_name": "many"}
    info["pairs"] |= {"ranking": True, "columns": {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}}
    info["rated"]["columns"] = {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "tag"}
    info["plain"]["columns"] = {"prompt": "text"}
    (folder / "dataset_info.json").write_text(json.dumps(info))


def prepare(base: Path, name: str) -> dict[str, Any]:
    """A folder of its own for one training."""
    change, ranks = JOBS[name]
    work = base / name
    data(work / "data")
    (work / "models").symlink_to((base / "kit" / "models").resolve())
    for stage in (0, 2, 3):
        (work / f"z{stage}.json").write_text(json.dumps({**ZERO, "zero_optimization": {"stage": stage}}))
    return {"work": str(work), "config": {**BASE, **change}, "ranks": ranks, "launched": "deepspeed" in change}


def train(jobs: list[dict[str, Any]], base: Path) -> None:
    """All jobs in the lab's Python; their logs say why one failed."""
    for job, line in zip(jobs, asked("order_oracle.py", jobs, base), strict=True):
        assert line == "ok", f"the training failed, see {job['work']}/all.log"


def trained(job: Mapping[str, Any]) -> dict[tuple[int, int], list[list[int]]]:
    """(step, rank) -> the rows of each batch, as they were consumed."""
    out: dict[tuple[int, int], list[list[int]]] = {}
    for rank in range(job["ranks"]):
        for line in (Path(job["work"]) / f"seen-{rank}.jsonl").read_text().splitlines():
            step, rows = json.loads(line)
            out.setdefault((step, rank), []).append(rows)
    return out


COMPUTE = """
import json, sys
sys.path[:0], sys.path[len(sys.path):] = [sys.argv[1]], sys.argv[2:3]
from pathlib import Path
from doctor.dataset.step_rows import Asked, rows_of_steps
for line in sys.stdin:
    job = json.loads(line)
    report = rows_of_steps(job["config"], Path(job["work"]), Asked(job["first"], job["last"], job["ranks"]))
    rows = [(row.step, row.rank, row.batch, row.place.file, row.place.line, row.place.row, row.tokens) for row in report.rows]
    print(json.dumps([report.total_steps, rows]), flush=True)
"""


def computed(jobs: list[dict[str, Any]]) -> list[Any]:
    """What we say of each job: total steps, rows of all steps."""
    library = str(Path(msgspec.__file__).parents[1])
    command = [str(lab_bin() / "python"), "-c", COMPUTE, str(ROOT), library]
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    ended = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def numbers(file: str) -> list[tuple[int, int]]:
    """(line, number of its row) of every mark in a file."""
    return [(line, int(text.split("#")[1])) for line, text in enumerate(Path(file).read_text().splitlines(), 1) if "#" in text]


def row_number(file: str, line: int) -> int:
    """The mark of the row that begins at this line, read from the file itself."""
    return next(number for at, number in numbers(file) if at >= line)


def difference(job: Mapping[str, Any], seen: Mapping[tuple[int, int], list[list[int]]], said: Any) -> str:
    """ "" where every batch holds the same rows."""
    total, rows = said
    last = max(step for step, _ in seen)
    if total != last:
        return f"{last} steps trained, {total} computed"
    ours: dict[tuple[int, int, int], list[int]] = {}
    for step, rank, batch, file, line, *_ in rows:
        ours.setdefault((step, rank, batch), []).append(row_number(file, line))
    theirs = {(step, rank, at): rows for (step, rank), batches in seen.items() for at, rows in enumerate(batches, 1)}
    if ours.keys() != theirs.keys():
        return f"batches {sorted(ours.keys() ^ theirs.keys())[:4]}"
    # a row may stand twice in one batch of a tiny set, where its mark is counted once
    wrong = [key for key in theirs if sorted(set(ours[key])) != sorted(set(theirs[key]))]
    return "" if not wrong else f"{len(wrong)} of {len(theirs)} batches, the first {wrong[0]}: {theirs[wrong[0]]}, ours {ours[wrong[0]]}"


def resume(job: dict[str, Any]) -> dict[str, Any]:
    """The job again, from its first checkpoint."""
    work = Path(job["work"])
    first = min((work / "out").glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    for log in work.glob("seen-*.jsonl"):
        log.rename(log.with_suffix(".first"))
    shutil.move(first, work / first.name)
    config = {**job["config"], "resume_from_checkpoint": first.name, "output_dir": "again"}
    return {**job, "config": config}


def main() -> int:
    """One line a configuration; exits with the number that differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        base = given.keep or Path(place)
        kit(base / "kit")
        jobs = [prepare(base, name) for name in given.names or JOBS]
        train(jobs, base)
        again = [resume(job) for job in jobs if "resume-" in job["work"]]
        train(again, base)
        by_work = {job["work"]: job for job in again}
        judged = [dict(by_work.get(job["work"], job)) for job in jobs]
        seen = [trained(job) for job in judged]
        for job, steps in zip(judged, seen, strict=True):
            job |= {"first": min(step for step, _ in steps), "last": max(step for step, _ in steps)}
        wrong = 0
        for job, steps, said in zip(judged, seen, computed(judged), strict=True):
            told = difference(job, steps, said)
            wrong += bool(told)
            same = f"{sum(map(len, steps.values()))} batches of steps {job['first']}-{job['last']} equal"
            print(f"{Path(job['work']).name:28} {told or same}")
        print(f"{len(jobs)} configurations, {wrong} differ")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
