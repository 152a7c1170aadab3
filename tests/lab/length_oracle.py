"""Trains with the real LLaMA-Factory and notes the longest padded batch: run by the lab's Python, one fork a job.

Reads a list of jobs as JSON from the file argv[1]: {"work": folder, "config": {...}}; prints a line of JSON for each, [tokens of the
longest row of a batch, batches], or null where the training failed (all.log in the folder).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import forked


def run(config: dict[str, Any]) -> None:
    """One training, in the fork."""
    from llamafactory.train.tuner import run_exp
    from transformers import Trainer

    step = Trainer.training_step
    seen: list[int] = []

    def recording(self: Any, model: Any, inputs: dict[str, Any], *arguments: Any, **more: Any) -> Any:
        seen.append(inputs["input_ids"].shape[1])
        Path("seen.json").write_text(json.dumps([max(seen), len(seen)]))
        return step(self, model, inputs, *arguments, **more)

    Trainer.training_step = recording
    run_exp(config, callbacks=[])


def main() -> None:
    """All jobs."""
    forked.load_training()
    for job in json.loads(Path(sys.argv[1]).read_text()):
        failed = any(forked.train(job, lambda _, job=job: run(job["config"])))
        print("null" if failed else (Path(job["work"]) / "seen.json").read_text(), flush=True)


if __name__ == "__main__":
    main()
