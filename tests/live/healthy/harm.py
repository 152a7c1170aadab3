"""What may harm a run: the judge inside the training, the report that healing reads. No training is started.

Each curve goes the way of a real run: through `StopJudge` (decides inside the training), through `Monitor` (the live warnings), and as a
journal through `analyze`, whose report healing judges (`HealAttempt.lost`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from doctor import analyze
from doctor.live.supervisor.attempts import HealAttempt
from doctor.live.trainer.journal import encode
from doctor.live.trainer.monitor import Monitor
from doctor.live.trainer.stop_judge import StopJudge
from tests.live.healthy.curves import Curve


class Harm(NamedTuple):
    """What was done to a healthy curve; `told` are the rules of live warnings and of the report, errors with an exclamation mark."""

    stopped: int | None
    restarted: bool
    told: list[str]

    @property
    def error(self) -> bool:
        """Whether the report holds an error."""
        return any(name.startswith("!") for name in self.told)


def stopped_at(made: Curve) -> int | None:
    """The step at which the training would be stopped."""
    judge = StopJudge(config=made.config)
    for number, log in enumerate(made.logs, 1):
        if number <= made.history:
            judge.remember(number * made.every, log)
        elif judge.step(number * made.every, log):
            return number * made.every
    return None


def journal(made: Curve) -> Iterator[bytes]:
    """The lines that the callback would have written."""
    last = len(made.logs) * made.every
    yield encode({"type": "Session", "time": 1.7e9, "rank": 0, "version": 1, "pid": 1, "host": "node", "world": 1})
    yield encode({"type": "ConfigSeen", "values": {**made.config, "logging_steps": made.every}})
    for name, value in {"framework": "llamafactory", "run.started_training": True, "steps.planned": last}.items():
        yield encode({"type": "Fact", "name": name, "value": value})
    for number, log in enumerate(made.logs, 1):
        event = {"type": "Step", "step": number * made.every, "total": last, "metrics": log}
        yield encode({**event, "history": True} if number <= made.history else {**event, "time": 1.7e9 + number, "seconds": number})
    yield encode({"type": "Fact", "name": "run.completed", "value": True})


def harm(made: Curve) -> Harm:
    """Everything that may be done to a run, and what is said of it."""
    warned: list[str] = []
    monitor = Monitor(warned.append)
    lines = list(journal(made))
    for line in lines:
        monitor.line(line)
    monitor.close()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "lfdoctor.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        report = analyze(folder)
    told = {("!" if finding.severity == "error" else "") + finding.rule for finding in report.findings if finding.severity != "note"}
    told |= {"live:" + text.rpartition("[")[2].rstrip("]") for text in warned}
    return Harm(stopped_at(made), HealAttempt(number=1, text=None, report=report).lost, sorted(told))
