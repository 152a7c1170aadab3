"""Which runs a scan counts as failed."""

from __future__ import annotations

import json
from pathlib import Path

from doctor.diagnosis.pipeline import run_analysis
from doctor.fleet.scan.discovery import discover
from doctor.fleet.scan.records import record_of


def test_overfitting_is_no_failure(tmp_path: Path) -> None:
    """A completed run whose eval loss rose after its best: the checkpoint of the best step is good."""
    history: list[dict[str, float]] = []
    for i in range(1, 31):
        history.append({"step": 10 * i, "loss": 2.0 * 0.85**i, "epoch": i / 3})
        history.append({"step": 10 * i, "eval_loss": 1.0 + 0.02 * abs(i - 6) ** 1.2, "epoch": i / 3})
    state = {"max_steps": 300, "global_step": 300, "log_history": history}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    (found,) = discover([str(tmp_path)])
    analysis = run_analysis(found.paths)
    assert analysis.report.cause == "overfitting"
    assert analysis.report.run.status == "completed"
    assert record_of(found, analysis).failed is False
