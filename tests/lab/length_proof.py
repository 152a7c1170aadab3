"""The estimate with the real lengths against that with cutoff_len, for 20 runs whose longest batch the real LLaMA-Factory tells.

    python -m tests.lab.length_proof [--keep FOLDER]

Each run is trained to its end on a tiny model (length_oracle.py), which gives the longest padded batch; a step of this length of the real
model code is traced (memory_trace.py). Both estimates know the configuration alone, one of them also the data.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from doctor import estimate
from doctor.dataset.longest import longest
from doctor.dataset.order import VERSIONS
from tests.lab.memory_oracle import GIB, MODELS, case, traced
from tests.lab.order_proof import BASE
from tests.lab.runner import asked, kit

HERE = Path(__file__).resolve().parent
FOUR = {"quantization_bit": 4}
FULL = {"finetuning_type": "full", "pure_bf16": True}
RUNS: list[tuple[str, dict[str, Any], dict[str, Any], int]] = [
    ("no-vocabulary", {}, {}, 60),
    ("no-vocabulary", {"per_device_train_batch_size": 4}, {}, 150),
    ("no-vocabulary", {"max_steps": 5}, FOUR, 90),
    ("no-vocabulary", {"val_size": 0.2, "cutoff_len": 4096}, {}, 240),
    ("no-vocabulary", {"cutoff_len": 4096}, FULL, 400),
    ("no-vocabulary-mha", {"max_samples": 40}, {}, 200),
    ("no-vocabulary-mha", {"seed": 7, "max_steps": 8}, {"lora_target": "q_proj,v_proj"}, 120),
    ("no-vocabulary-mha", {}, FOUR, 30),
    ("no-vocabulary-mha", {"gradient_accumulation_steps": 4}, FULL, 500),
    ("no-vocabulary-qwen3", {}, {}, 80),
    ("no-vocabulary-qwen3", {"max_steps": 3, "per_device_train_batch_size": 4}, {}, 160),
    ("no-vocabulary-qwen3", {"cutoff_len": 512}, {}, 300),
    ("no-vocabulary-gemma3", {}, {}, 100),
    ("no-vocabulary-gemma3", {"dataloader_drop_last": True, "per_device_train_batch_size": 3}, {}, 220),
    ("no-vocabulary-glm4", {}, {}, 45),
    ("no-vocabulary-glm4", {"data_seed": 3, "max_steps": 6}, {}, 350),
    ("no-vocabulary-olmo3", {"cutoff_len": 1024}, {}, 700),
    ("no-vocabulary-olmo3", {}, {}, 130),
    ("qwen2.5-0.5b", {}, {}, 70),
    ("qwen2.5-0.5b", {"per_device_train_batch_size": 1, "max_steps": 10}, FULL, 180),
]
"""Model, what the training reads (in both), how the model is trained (traced only), words of the median answer."""
ROWS = 80


def prepare(base: Path, number: int) -> dict[str, Any]:
    """The data set of a run, answers of log-normal length as instruction data has them, and its configuration on the tiny model."""
    _, change, _, median = RUNS[number]
    work = base / f"run{number}"
    (work / "data").mkdir(parents=True)
    dice = random.Random(number)
    rows = [
        {"instruction": f"Tell {at}.", "input": "", "output": " ".join(dice.choices(("fox", "dog", "owl"), k=_words(dice, median)))}
        for at in range(ROWS)
    ]
    (work / "data" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "data" / "dataset_info.json").write_text(json.dumps({"a": {"file_name": "a.jsonl"}}))
    (work / "models").symlink_to((base / "kit" / "models").resolve())
    return {"work": str(work), "config": {**BASE, "num_train_epochs": 1.0, "cutoff_len": 2048, **change}}


def _words(dice: random.Random, median: int) -> int:
    return max(1, int(dice.lognormvariate(0, 0.6) * median))


def observed(jobs: list[dict[str, Any]], base: Path) -> list[Any]:
    """[longest row, batches] of each training."""
    return [json.loads(line) for line in asked("length_oracle.py", jobs, base)]


def errors(job: dict[str, Any], number: int, seen: int, peak: float) -> tuple[float, float, Any]:
    """Deviations of both estimates from the traced peak, in percent; what we say of the lengths."""
    model, _, tuning, _ = RUNS[number]
    config = {
        **job["config"],
        "model_name_or_path": "traced-model",
        "lora_rank": 8,
        "lora_target": "all",
        "bf16": not tuning.get("pure_bf16"),
        **tuning,
    }
    told = longest(job["config"], Path(job["work"]), installed=VERSIONS)
    facts = {"model.config": MODELS[model], "attention": "sdpa"}
    plain, real = estimate(config, facts=facts), estimate(config, facts={**facts, **told.facts()})
    before, after = (100 * (one.allocated_gib * GIB / peak - 1) for one in (plain, real))
    return before, after, (told.tokens, told.source, seen)


def main() -> int:
    """One line a run; 0 if the 90th percentile of the errors is at most half as large with the real lengths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        base = given.keep or Path(place)
        kit(base / "kit")
        jobs = [prepare(base, number) for number in range(len(RUNS))]
        seen = observed(jobs, base)
        wanted = [
            {
                **case(model, f"run {at}", length=seen[at][0], batch=jobs[at]["config"]["per_device_train_batch_size"], **tuning),
                "padded": True,
            }
            for at, (model, _, tuning, _) in enumerate(RUNS)
        ]
        peaks = {one["name"]: one.get("peak") for one in traced(wanted, base / "traces.jsonl")}
        pairs = []
        for at, job in enumerate(jobs):
            plain, real, told = errors(job, at, seen[at][0], peaks[wanted[at]["name"]])
            pairs.append((abs(plain), abs(real)))
            print(f"run {at:2} {RUNS[at][0]:22} cutoff_len {plain:+8.1f} %   real {real:+7.1f} %   {told}", flush=True)
    before, after = (sorted(column)[int(0.9 * len(pairs))] for column in zip(*pairs, strict=True))
    print(f"90th percentile of the errors: {before:.1f} % with cutoff_len, {after:.1f} % with the real lengths")
    return int(after > before / 2)


if __name__ == "__main__":
    sys.exit(main())
