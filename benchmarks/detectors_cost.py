"""Cost of the detectors that read metrics: microseconds per logged record in the engine, and memory over a million records.

    python benchmarks/detectors_cost.py [--records 100000] [--memory 1000000]

Loads all shipped rules that read steps, as `lfdoctor analyze` does; `engine alone` is the same loop without rules.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
import tracemalloc
from collections.abc import Iterable, Iterator

from doctor.core.events import Step, Where
from doctor.detectors.registry import DETECTORS
from doctor.diagnosis.engine import Engine
from doctor.rulebook import loader
from doctor.rulebook.model import Rule

HERE = Where("made")
"""Place of all events."""


def records(number: int) -> Iterator[Step]:
    """Records of a typical fine-tune: falling loss with noise, grad_norm, cosine learning rate, an evaluation every 500 steps."""
    rng = random.Random(1)
    for step in range(1, number + 1):
        share = step / number
        metrics = {
            "loss": (0.8 + math.exp(-8 * share)) * math.exp(rng.gauss(0, 0.1)),
            "grad_norm": abs(rng.gauss(1, 0.3)),
            "learning_rate": 1e-4 * (1 + math.cos(math.pi * share)) / 2,
            "epoch": 3 * share,
        }
        if step % 500 == 0:
            metrics["eval_loss"] = 1.0 + math.exp(-8 * share)
        yield Step(where=HERE, step=step, metrics=metrics, seconds=2.0 * step)


def metric_rules() -> list[Rule]:
    """The shipped rules with a detector that reads steps."""
    return [rule for rule in loader.load().rules if Step in DETECTORS[rule.detector].reads]


def microseconds(rules: Iterable[Rule], events: list[Step]) -> float:
    """Processor time per record: median over blocks of 1,000 records."""
    engine = Engine(rules)
    blocks = []
    for start in range(0, len(events), 1000):
        block = events[start : start + 1000]
        begin = time.thread_time()
        for event in block:
            engine.feed(event)
        blocks.append((time.thread_time() - begin) / len(block))
    return 1e6 * statistics.median(blocks)


def kept_mib(number: int) -> tuple[float, float]:
    """MiB in use after a tenth of the records and after all."""
    rules = metric_rules()
    tracemalloc.start()
    engine = Engine(rules)
    held = []
    for place, event in enumerate(records(number), start=1):
        engine.feed(event)
        if place in (number // 10, number):
            held.append(tracemalloc.get_traced_memory()[0] / 2**20)
    tracemalloc.stop()
    return held[0], held[1]


def main() -> None:
    """Print the figures, one per line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--memory", type=int, default=1_000_000)
    given = parser.parse_args()
    rules, events = metric_rules(), list(records(given.records))
    alone = microseconds([], events)
    together = microseconds(rules, events)
    print(f"{len(rules)} rules on steps: {together:.1f} us per record, engine alone {alone:.1f}, detectors {together - alone:.1f}")
    for word in sorted({rule.detector for rule in rules}):
        print(f"  {word}: {microseconds([rule for rule in rules if rule.detector == word], events) - alone:.2f} us")
    if given.memory:
        early, late = kept_mib(given.memory)
        print(f"memory: {early:.1f} MiB after {given.memory // 10} records, {late:.1f} MiB after {given.memory}")


if __name__ == "__main__":
    main()
