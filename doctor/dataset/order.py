"""Which rows of the training set an optimizer step reads: seed, sampler and shards as LLaMA-Factory's libraries use them.

Read from transformers 5.6.0 (Trainer), accelerate 1.11.0 (data_loader.py), datasets 4.0.0 (train_test_split) and torch (RandomSampler), and
proven by tests/lab/order_proof.py on those releases only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from doctor.dataset.sequences import options_of
from doctor.dataset.sharding import other_order
from doctor.dataset.sources import Source, dataset_names
from doctor.support.optional import installed_version, need

VERSIONS = {"llamafactory": "0.9.5", "transformers": "5.6.0", "accelerate": "1.11.0", "datasets": "4.0.0"}
"""The releases whose order is proven."""
STAGES = ("pt", "sft", "rm", "dpo", "kto")
_UNPROVEN = (
    "streaming", "tokenized_path", "full_determinism", "auto_find_batch_size", "accelerator_config",
    "ignore_data_skip", "group_by_length", "parallelism_config", "use_mca", "use_ray", "use_unsloth", "use_hyper_parallel", "use_kt",
)  # fmt: skip
"""Options that change the order, or with which it was not compared."""


class Unknown(Exception):
    """The order cannot be known: a key of words/data.yaml, group order, and what it is about."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class Schedule(msgspec.Struct, frozen=True):
    """What decides the order: samples of one batch on one process, batches of an optimizer step, processes, seeds.

    `seed`: of the split; `shuffle_seed`: of the permutations. `val_size` as in the configuration, 0 for none.
    """

    batch: int = 8
    accumulation: int = 1
    world: int = 1
    drop_last: bool = False
    shuffled: bool = True
    seed: int = 42
    shuffle_seed: int = 42
    val_size: float = 0
    epochs: float = 3.0
    max_steps: int = -1


class Batch(msgspec.Struct, frozen=True):
    """One batch of one process; `number` counts the batches that a process accumulates in the step, from 1. `samples` are indices."""

    step: int
    epoch: int
    rank: int
    number: int
    samples: list[int]


def releases() -> dict[str, str | None]:
    """The releases of this environment; None for what is not installed."""
    return {package: installed_version(package) for package in VERSIONS}


def check(config: Mapping[str, Any], folder: Path, sources: Sequence[Source], installed: Mapping[str, str | None]) -> None:
    """Raises Unknown where the order of this configuration, or of these releases, was never compared.

    `folder` is the working directory of the training.
    """
    for package, proven in VERSIONS.items():
        if installed.get(package) != proven:
            raise Unknown("version", f"{package} {installed.get(package) or '-'} ({proven})")
    if (stage := str(config.get("stage") or "sft")) not in STAGES:
        raise Unknown("option", f"stage: {stage}")
    for name in _UNPROVEN:
        if config.get(name):
            raise Unknown("option", f"{name}: {config[name]}")
    if told := other_order(config, folder):
        raise Unknown(*told)
    if options_of(config).packing:
        raise Unknown("option", "packing")
    if (strategy := config.get("train_sampling_strategy")) not in (None, "random"):
        raise Unknown("option", f"train_sampling_strategy: {strategy}")
    mixing = str(config.get("mix_strategy") or "concat")
    if mixing != "concat" and len(dataset_names(config.get("dataset"))) > 1:
        raise Unknown("option", f"mix_strategy: {mixing}")
    for source in sources:
        if source.problem:
            raise Unknown("not_readable", f"{source.name}: {source.detail or source.problem}")
        if source.attributes.num_samples is not None:
            raise Unknown("option", f"num_samples ({source.name})")
    if not sources:
        raise Unknown("no_data")


def schedule_of(config: Mapping[str, Any], world: int) -> Schedule:
    """The schedule of a configuration on `world` processes. Raises Unknown for a value that is no number."""
    seed = _whole(config, "seed", 42)
    size = _number(config, "val_size", 0.0)
    if size == 1:  # LLaMA-Factory takes the number 1 and the share 1.0 differently
        raise Unknown("option", f"val_size: {config['val_size']}")
    return Schedule(
        batch=_whole(config, "per_device_train_batch_size", 8, 1), accumulation=_whole(config, "gradient_accumulation_steps", 1, 1),
        world=world, drop_last=bool(config.get("dataloader_drop_last")), shuffled=not config.get("disable_shuffling"), seed=seed,
        shuffle_seed=_whole(config, "data_seed", seed), val_size=size if size > 1e-6 else 0,
        epochs=_number(config, "num_train_epochs", 3.0), max_steps=_whole(config, "max_steps", -1, -1),
    )  # fmt: skip


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unknown("option", f"{name}: {value}")
    return value


def _whole(config: Mapping[str, Any], name: str, default: int, least: int = 0) -> int:
    value = _number(config, name, default)
    if not isinstance(value, int) or value < least:
        raise Unknown("option", f"{name}: {value}")
    return value


def train_rows(rows: int, schedule: Schedule) -> Sequence[int]:
    """The rows that training gets, in order, of `rows` rows of all data sets; the others are for evaluation (train_test_split)."""
    if not schedule.val_size:
        return range(rows)
    size = schedule.val_size
    tested = int(size) if size > 1 else math.ceil(size * rows)
    if tested >= rows:
        raise Unknown("option", f"val_size: {size}")
    numpy = need("numpy", "fast", "The split of val_size")
    return list(map(int, numpy.random.default_rng(schedule.seed).permutation(rows)[tested:]))


@lru_cache(maxsize=2)
def permutation(count: int, seed: int) -> list[int]:
    """The order in which torch's RandomSampler draws `count` samples with this seed.

    torch shuffles with the 32-bit Mersenne Twister (ATen, randperm_cpu: Fisher-Yates from the front), which Python has too; torch takes the
    lowest 32 bits of the seed (mt19937.h, init_with_uint32). The list is shared: not to be changed.
    """
    words = [seed & 0xFFFFFFFF]
    for number in range(1, 624):
        words.append((1812433253 * (words[-1] ^ words[-1] >> 30) + number) & 0xFFFFFFFF)
    dice = random.Random()  # noqa: S311 (torch's order, no secret)
    dice.setstate((3, (*words, 624), None))
    order = list(range(count))
    for at in range(count - 1):
        other = at + dice.getrandbits(32) % (count - at)
        order[at], order[other] = order[other], order[at]
    return order


def batches_per_epoch(samples: int, schedule: Schedule) -> int:
    """Batches of each process in one epoch."""
    whole = schedule.batch * schedule.world
    if schedule.drop_last:
        return samples // schedule.batch // schedule.world
    return math.ceil(samples / whole)


def steps_per_epoch(samples: int, schedule: Schedule) -> int:
    """Optimizer steps of one epoch."""
    return max(1, math.ceil(batches_per_epoch(samples, schedule) / schedule.accumulation))


def total_steps(samples: int, schedule: Schedule) -> int:
    """Optimizer steps of the whole training."""
    if schedule.max_steps > 0:
        return schedule.max_steps
    return math.ceil(schedule.epochs * steps_per_epoch(samples, schedule))


def batches_of(step: int, samples: int, schedule: Schedule) -> list[Batch]:
    """The batches of optimizer step `step` (from 1, as it is logged) of a training on `samples` samples.

    A training that was resumed from a checkpoint skips to the same place of the same order. Raises Unknown for a step that the training
    does not have.
    """
    each = steps_per_epoch(samples, schedule)
    last = total_steps(samples, schedule)
    if not batches_per_epoch(samples, schedule):
        raise Unknown("empty")
    if not 1 <= step <= last:
        raise Unknown("no_step", str(last))
    epoch, within = divmod(step - 1, each)
    drawn = permutation(samples, schedule.shuffle_seed + epoch) if schedule.shuffled else range(samples)
    order = _padded(drawn, schedule)
    begin = within * schedule.accumulation
    end = min(begin + schedule.accumulation, batches_per_epoch(samples, schedule))
    size = schedule.batch
    return [
        Batch(step, epoch, rank, number - begin + 1, list(order[(place := number * schedule.world + rank) * size : (place + 1) * size]))
        for number in range(begin, end)
        for rank in range(schedule.world)
    ]


def _padded(order: Sequence[int], schedule: Schedule) -> Sequence[int]:
    """Several processes fill the last round with samples from the beginning (accelerate, BatchSamplerShard, even_batches)."""
    whole = schedule.batch * schedule.world
    missing = -len(order) % whole
    if schedule.world == 1 or schedule.drop_last or not missing:
        return order
    return [*order, *(order[at % len(order)] for at in range(missing))]
