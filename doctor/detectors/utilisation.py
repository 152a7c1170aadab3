"""`utilisation`: tokens per second and GPU, and model FLOPs utilisation (MFU)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from doctor.core.events import Event, Step
from doctor.core.facts import TOKEN_COUNTERS, tokens_seen
from doctor.core.run import Run
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match
from doctor.support.lazy_regex import lazy_compile


class Utilisation(DetectorBase):
    """MFU after PaLM (arXiv 2204.02311, appendix B) without the attention term.

    - FLOPs per parameter and token: 6, or 4 if only an adapter is trained (no gradients of the base weights). Recomputation is excluded.
    - Tokens and seconds: from the first log of the last attempt, which includes warm-up, to its last; with padding, as LLaMA-Factory
      counts.
    - `below`: MFU limit in percent; `seconds`: minimum duration.
    - `peaks`: regular expression on the GPU's name -> dense 16-bit TFLOP/s; the first match wins.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (Step,)
    needs: tuple[str, ...] = ("metrics.total_tokens",)
    facts: tuple[str, ...] = ("metric", "step", "value", "baseline", "mfu", "tokens_per_second", "gpu")

    def __init__(self, *, below: float, seconds: float, peaks: dict[str, float]) -> None:
        self.below, self.seconds = below, seconds
        self.peaks = [(lazy_compile(pattern, re.IGNORECASE), peak) for pattern, peak in peaks.items()]
        self.first: Step | None = None
        self.last: Step | None = None

    def could_look(self, run: Run) -> str | None:
        return None if any(counter in run.series for counter in TOKEN_COUNTERS) else self.needs[0]

    def feed(self, event: Step, run: Run) -> Iterator[Match]:
        if event.seconds is None or tokens_seen(event.metrics) is None:
            return QUIET
        if self.first is None or self.first.attempt != event.attempt:
            self.first = event
        self.last = event
        return QUIET

    def finish(self, run: Run) -> Iterator[Match]:
        gpu, params = run.facts.get("gpu.name"), run.facts.get("model.params")
        if self.first is None or self.last is None or not isinstance(gpu, str) or not isinstance(params, int | float):
            return
        peak = next((peak for pattern, peak in self.peaks if pattern.search(gpu)), None)
        seconds = (self.last.seconds or 0.0) - (self.first.seconds or 0.0)
        if peak is None or seconds < self.seconds:
            return
        world = max(int(run.facts.get("world_size") or 1), 1)
        rate = ((tokens_seen(self.last.metrics) or 0.0) - (tokens_seen(self.first.metrics) or 0.0)) / seconds / world
        per_token = (4 if run.config.get("finetuning_type", "lora") in ("lora", "oft") else 6) * params
        mfu = 100 * rate * per_token / (peak * 1e12)
        if 0 < mfu < self.below:
            facts = {"metric": "throughput", "step": self.first.step, "value": rate, "baseline": peak, "mfu": mfu}
            text = f"{rate:.0f} tokens/s per GPU, {mfu:.1f} % of {peak:g} TFLOP/s"
            yield Match(
                evidence=(Evidence(self.first.where, text),),
                facts={**facts, "tokens_per_second": rate, "gpu": gpu},
                steps=(self.first.step, self.last.step),
            )
