"""What the fuzzer found, kept: damaged folders by their seed, and the inputs themselves, as seeds change with the recordings."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

import doctor
from doctor.cli.main import main
from doctor.reporters.json import settled
from doctor.reporters.registry import REPORTERS
from tests.fuzz import folders, oracle
from tests.reporters import samples

SEEDS = (91500263, 91500497, 91500512)
SECONDS = 10.0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_folder_that_once_failed_keeps_every_promise(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No exception, no wrong exit code, and ten seconds of processor time at most."""
    monkeypatch.chdir(tmp_path)
    target = folders.make(tmp_path / "run", seed)
    begin = time.process_time()
    assert oracle.judge(target, seed) == []
    assert time.process_time() - begin < SECONDS


@pytest.mark.parametrize("name", ["trainer_state.json", "trainer_log.jsonl"])
def test_a_bomb_of_empty_records_is_left_in_time(name: str, tmp_path: Path) -> None:
    """40 million of them in 500 kB; the steps beside it are still read."""
    (tmp_path / name).write_bytes(gzip.compress(b"{}\n" * 40_000_000, 1))
    (tmp_path / "console.log").write_text("".join(f"{{'loss': 1.0, 'learning_rate': 1e-05, 'epoch': {at}.0}}\n" for at in range(1, 5)))
    begin = time.process_time()
    report = doctor.analyze(tmp_path)
    assert time.process_time() - begin < SECONDS
    assert {Path(source.path).name: source.records > 0 for source in report.run.sources} == {name: False, "console.log": True}


@pytest.mark.parametrize("damage", [{"values": [[], 1.0]}, {"values": []}, {"steps": [1]}, {"marks": []}, {"metric": None}])
def test_a_saved_report_with_a_damaged_series_is_refused(
    damage: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and exit code 2, not a traceback from the drawing."""
    data = json.loads(REPORTERS["json"](settled(samples.diverged())))
    data["findings"][0]["series"] |= damage
    saved = tmp_path / "report.json"
    saved.write_text(json.dumps(data))
    assert main(["show", str(saved)]) == 2
    assert "not an lfdoctor report" in capsys.readouterr().err
