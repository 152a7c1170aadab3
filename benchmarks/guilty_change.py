"""Accuracy of failure attribution on synthetic sweeps: is the harmful key ranked first, and is "cannot tell" said if there is none?

    python benchmarks/guilty_change.py [--sweeps 200] [--seed 1]

Half of the sweeps have a single harmful key, half two. Each has 20 to 1,000 runs (log-uniform) and 3 to 12 varied keys of every kind:
log-uniform learning rates, grids of numbers, words, switches, keys set in some runs only. A run fails if a harmful key has a harmful
value (20 to 50 % of the runs); then `NOISE` of all labels are flipped. As many sweeps again have failures that no key causes.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from doctor.fleet.attribution.changes import Trial, explain

NOISE = 0.05
"""Share of labels flipped."""

NAMES = (
    "learning_rate", "per_device_train_batch_size", "lora_rank", "cutoff_len", "warmup_ratio", "packing", "flash_attn", "lr_scheduler_type",
    "neftune_noise_alpha", "template", "bf16", "gradient_accumulation_steps", "weight_decay", "optim", "max_grad_norm", "versions.torch",
)  # fmt: skip
"""Names of varied keys."""


def column(kind: str, runs: int, chance: Any) -> tuple[list[Any], list[bool]]:
    """Values of a key per run, and whether each is harmful."""
    if kind == "continuous":
        values = 10 ** chance.uniform(-6, -3, runs)
        cut = np.quantile(values, 1 - chance.uniform(0.2, 0.5))
        return [float(f"{value:.3g}") for value in values], list(values > cut)
    if kind == "grid":
        grid = sorted(float(value) for value in chance.choice([1, 2, 4, 8, 16, 32, 64, 128], size=chance.integers(3, 6), replace=False))
        values = chance.choice(grid, runs)
        cut = grid[-int(chance.integers(1, max(2, len(grid) // 2 + 1))) - 1]
        return [int(value) for value in values], list(values > cut) if chance.random() < 0.7 else list(values <= grid[0])
    if kind == "switch":
        values = chance.random(runs) < chance.uniform(0.25, 0.6)
        return [bool(value) for value in values], list(values)
    words = [f"word{i}" for i in range(chance.integers(2, 6))]
    values = chance.choice(words, runs)
    return [str(value) for value in values], list(values == words[0])


def sweep(harmful: int, chance: Any) -> tuple[list[Trial], set[str]]:
    """The runs of a sweep and its harmful keys."""
    runs = round(math.exp(chance.uniform(math.log(20), math.log(1000))))
    names = list(chance.choice(NAMES, size=chance.integers(3, 13), replace=False))
    columns = {name: column(chance.choice(["continuous", "grid", "switch", "words"]), runs, chance) for name in names}
    guilty = set(map(str, chance.choice(names, size=harmful, replace=False)))
    failed = np.zeros(runs, dtype=bool)
    for name in guilty:
        failed |= np.array(columns[name][1])
    if not harmful:
        failed = chance.random(runs) < chance.uniform(0.1, 0.5)
    failed ^= chance.random(runs) < NOISE
    trials = [Trial(f"run{i}", bool(failed[i]), {name: columns[name][0][i] for name in names}) for i in range(runs)]
    return trials, guilty


def main() -> None:
    """Print the shares and the time for a thousand runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chance = np.random.default_rng(given.seed)
    first = named = both = two = 0
    for i in range(given.sweeps):
        trials, guilty = sweep(1 + i % 2, chance)
        found = explain(trials)
        right = found.suspects[0].key in guilty
        first += right
        named += right and found.verdict == "found"
        if len(guilty) == 2:
            two += 1
            both += {candidate.key for candidate in found.suspects[:2]} == guilty
    silent = sum(explain(sweep(0, chance)[0]).verdict != "found" for _ in range(given.sweeps))
    large = [sweep(1, chance)[0] for _ in range(3)]
    seconds = []
    for trials in large:
        trials = [Trial(f"{i}", trial.failed, trial.values) for i, trial in enumerate((trials * (1000 // len(trials) + 1))[:1000])]
        begin = time.perf_counter()
        explain(trials)
        seconds.append(time.perf_counter() - begin)
    print(
        f"{given.sweeps} sweeps with harmful keys: right key first {first / given.sweeps:.1%}, and called guilty {named / given.sweeps:.1%}"
    )
    print(f"of {two} with two harmful keys both lead in {both / max(1, two):.1%}")
    print(f"{given.sweeps} sweeps without: cannot tell {silent / given.sweeps:.1%}")
    print(f"1,000 runs: {sorted(seconds)[1]:.2f} s")


if __name__ == "__main__":
    main()
