"""Rules of plugins fire while a training runs, as they do in analyze."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from doctor import DoctorCallback, analyze
from doctor.live.trainer import owner
from doctor.live.trainer.monitor import Monitor
from doctor.live.trainer.stop_judge import StopJudge
from tests.live.test_callback import Trainer

RULE = """
id: stability/acme-loss-is-negative
cause: acme
symptom: nonfinite
severity: error
confidence: 0.9
when: {acme_negative: {}}
title: {en: "Acme's loss is negative", ko: "손실이 음수입니다"}
body:
  - {en: "It went below zero.", ko: "0 아래로 내려갔습니다."}
remedies: []
examples:
  match:
    - series: {loss: [1.0, -1.0]}
  no_match:
    - series: {loss: [1.0, 2.0]}
"""
MODULE = """
from pathlib import Path
from doctor.core.events import Step
from doctor.detectors.base import QUIET, DetectorBase
from doctor.rulebook.findings import Evidence, Match

class Negative(DetectorBase):
    reads, needs, facts = (Step,), ("metrics.loss",), ()
    def feed(self, event, run):
        if event.metrics.get("loss", 0.0) >= 0:
            return QUIET
        return iter([Match(evidence=(Evidence(event.where, "negative"),), facts={}, steps=(event.step, event.step))])

DETECTORS = {"acme_negative": Negative}
RULES = Path(__file__).parent / "acme_rules"
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed distribution with an entry point of group `lfdoctor`: a detector, and a rule that uses it."""
    site = tmp_path / "site"
    (site / "acme_rules" / "stability").mkdir(parents=True)
    (site / "acme_rules" / "stability" / "acme-loss-is-negative.yaml").write_text(RULE, encoding="utf-8")
    (site / "acme_plugin.py").write_text(MODULE)
    info = site / "acme_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lfdoctor]\nacme = acme_plugin\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(owner, "OWNERS", [])
    yield
    sys.modules.pop("acme_plugin", None)


def test_a_plugin_rule_fires_live(tmp_path, plugin, capsys):
    """The monitor inside the training, the one of lfdoctor run and the analysis afterwards all find what the plugin finds."""
    callback = DoctorCallback(tmp_path / "run")
    Trainer([callback], tmp_path / "run", [1.0, 0.5, -0.5, 0.4]).train()
    assert callback.recorder.flush(60)  # reading all rules anew takes seconds on a busy machine
    assert "error at step 3: Acme's loss is negative [stability/acme-loss-is-negative]" in capsys.readouterr().err
    warnings: list[str] = []
    monitor = Monitor(warnings.append)
    for line in (tmp_path / "run" / "lfdoctor.jsonl").read_bytes().splitlines():
        monitor.line(line)
    monitor.close()
    assert [text for text in warnings if "acme" in text]
    assert any(finding.rule == "stability/acme-loss-is-negative" for finding in analyze(tmp_path / "run").findings)


def test_a_plugin_rule_can_stop_a_run(tmp_path, plugin):
    """An error of a symptom that no later step repairs stops a run that asked for it."""
    judge = StopJudge()
    assert [judge.step(step, {"loss": loss}) for step, loss in enumerate((1.0, 0.5, -0.5), 1)] == [None, None, "Acme's loss is negative"]


def test_a_broken_plugin_rule_costs_the_warnings_only(tmp_path, plugin, capsys):
    """A rule that cannot be read: one line each, the training ends as it would have, and its steps are in the journal."""
    (tmp_path / "site" / "acme_rules" / "stability" / "acme-loss-is-negative.yaml").write_text("id: [")
    callback = DoctorCallback(tmp_path / "run", stop_on_divergence=True)
    assert Trainer([callback], tmp_path / "run", [1.0, 0.5, -0.5]).train() == 3
    assert callback.recorder.flush(60)
    messages = capsys.readouterr().err
    assert messages.count("cannot stop a diverging run by itself here") == 1
    assert messages.count("no more warnings") == 1
    assert (tmp_path / "run" / "lfdoctor.jsonl").read_text().count('"type":"Step"') == 3
