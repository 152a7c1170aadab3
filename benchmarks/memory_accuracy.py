"""Compare the memory estimate and two common rules of thumb with published measurements: `memory_accuracy.py --rows FILE.csv`.

The CSV has a measured run per row: model, method (full, lora, qlora4, ...), lora_rank, lora_targets, precision, optimizer, micro_batch,
seq_len, grad_checkpointing, attention, chunked_loss, shard, offload, n_gpus, gpu, stack, lora_dtype, notes, peak_gib, what_is_reported,
bound ("=" for a figure) and complete ("0": a setting that determines memory was not published). Only figures of torch's peak
(max_memory_allocated) are compared. Without rows it prints the time of an estimate.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import timeit
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from doctor.errors import DoctorError
from doctor.memory import Estimate, estimate

FACTS = "stack shard offload n_gpus gpu chunked_loss precision optimizer attention lora_dtype notes method".split()  # noqa: SIM905
"""Columns that determine the estimate besides the options."""

README_RULE = {"full": 18.0, "pure": 8.0, "lora": 2.0, "8": 1.0, "4": 0.5}
"""GB per billion parameters in LLaMA-Factory's README (table "Hardware Requirement"); ignores length and batch."""


def options(row: Mapping[str, str]) -> dict[str, Any]:
    """The row as LLaMA-Factory's options."""
    method = row["method"]
    pure = "pure" in row["precision"] or "true" in row["precision"]
    found: dict[str, Any] = {
        "model_name_or_path": row["model"],
        "stage": "sft",
        "finetuning_type": "full" if method.startswith("full") else "lora",
        "per_device_train_batch_size": int(float(row["micro_batch"])),
        "cutoff_len": int(float(row["seq_len"])),
        "pure_bf16" if pure else "bf16": True,
        "disable_gradient_checkpointing": row["grad_checkpointing"] == "0",
        "optim": row["optimizer"] or None,
        "lora_rank": int(float(row["lora_rank"] or 8)),
        "lora_target": row["lora_targets"] or "all",
    }
    bits = next((bit for bit in (4, 8) if str(bit) in method and "lora" in method), None)
    return found if bits is None else {**found, "quantization_bit": bits}


def readme_rule(row: Mapping[str, str], ours: Estimate) -> float:
    """GiB by the README's factor on the parameters."""
    method = row["method"]
    kind = next((bit for bit in ("4", "8") if bit in method), None) or ("full" if method.startswith("full") else "lora")
    kind = "pure" if kind == "full" and ("pure" in row["precision"] or "true" in row["precision"]) else kind
    return README_RULE[kind] * ours.params_b * 1e9 / 2**30


def states_rule(_: Mapping[str, str], ours: Estimate) -> float:
    """GiB of weights, gradients and optimizer states alone, as in model-state calculators."""
    return sum(ours.terms.get(name, 0.0) for name in ("weights", "adapters", "gradients", "optimizer"))


RULES: dict[str, Callable[[Mapping[str, str], Estimate], float]] = {
    "this estimate": lambda _, ours: ours.allocated_gib,
    "README multipliers": readme_rule,
    "weights, gradients, optimizer": states_rule,
}
"""Name in the table -> estimate in GiB."""


def measured(path: Path) -> Iterator[tuple[Mapping[str, str], Estimate, float]]:
    """Rows with a measured peak, our estimate, the peak in GiB."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if (
                row.get("complete") == "0"
                or row["bound"] != "="
                or "alloc" not in row["what_is_reported"]
                or not row["seq_len"]
                or not row["micro_batch"]
            ):
                continue
            try:
                ours = estimate(options(row), facts={name: row[name] for name in FACTS if row[name]})
            except DoctorError as error:
                print(f"refused: {error}", file=sys.stderr)
                continue
            yield row, ours, float(row["peak_gib"])


def main() -> int:
    """Print a line per rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path)
    given = parser.parse_args()
    config = {"model_name_or_path": "Qwen/Qwen2.5-7B", "finetuning_type": "lora", "bf16": True}
    print(f"one estimate: {timeit.timeit(lambda: estimate(config), number=500) * 2:.2f} ms")
    if given.rows is None:
        return 0
    rows = list(measured(given.rows))
    inside = [ours.low_gib <= peak <= ours.high_gib for _, ours, peak in rows]
    for name, rule in RULES.items():
        errors = sorted(100 * abs(rule(row, ours) / peak - 1) for row, ours, peak in rows)
        print(f"{name:32} n {len(errors)}  median error {statistics.median(errors):5.1f} %  p90 {errors[int(0.9 * len(errors))]:5.1f} %")
    print(f"inside the printed interval: {100 * sum(inside) / len(inside):.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
