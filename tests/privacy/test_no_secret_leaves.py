"""No planted secret comes out: of any format of a report, in any language, nor of the bundle."""

from __future__ import annotations

import json
import shlex
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import doctor
from doctor.cli.main import main
from doctor.live.trainer.journal import encode
from doctor.report.translations import translated
from doctor.reporters.json import settled
from doctor.reporters.registry import NAMES, REPORTERS
from doctor.support.languages import LANGUAGES
from tests.privacy.providers import ALL_KINDS
from tests.secrets import KEYS, PRIVATE, planted

ROUNDS = 5
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.57 GiB."


def test_there_are_enough_of_them() -> None:
    """At least 200 secrets of at least 20 kinds in all rounds, no two alike."""
    keys = [secret for seed in range(ROUNDS) for _, secret, _ in planted(KEYS, seed)]
    assert len(KEYS) >= 20
    assert len(set(keys)) == len(keys) >= 200


def run_with(folder: Path, seed: int, kinds: dict[str, Any] = KEYS) -> list[tuple[str, str]]:
    """A failed run that holds them all: before, in and after the exceptions, in the config, in the names of files and of metrics."""
    keys, private = planted(kinds, seed), planted(PRIVATE, seed)
    config = {"stage": "sft", "do_train": True, "model_name_or_path": "Qwen/Qwen2.5-7B", "finetuning_type": "lora", "template": "qwen"}
    config |= {"dataset": "mine", "output_dir": "saves/x", "per_device_train_batch_size": 8, "cutoff_len": 4096}
    named = {kind: secret for kind, secret, _ in keys}
    config |= {"hub_token": named["hugging face"], "swanlab_api_key": named["swanlab"], "run_name": named["nameless"]}
    lines = [line for _, _, line in [*keys, *private]]
    block = 4  # the report quotes a few lines around each proof: every secret comes near one
    told = [OOM + " " + " ".join(lines[at : at + 2]) + "\n" + "\n".join(lines[at : at + block]) for at in range(0, len(lines), block)]
    told += [f"ValueError: {line}" for line in lines]
    told += [f"RuntimeError: {OOM} {line}" for line in lines[::5]]
    (folder / "console.log").write_text("\n".join(["***** Running training *****", *lines, *told, *lines]) + "\n", encoding="utf-8")
    (folder / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / f"{named['github']}.log").write_text("\n".join(lines), encoding="utf-8")
    rows = [json.dumps({"current_steps": step, "total_steps": 9, "loss": 1.0, named["openai"]: 1.0}) for step in range(1, 6)]
    (folder / "trainer_log.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return [(kind, secret) for kind, secret, _ in [*keys, *private]]


def watched_with(folder: Path, seed: int) -> list[tuple[str, str]]:
    """A failed run that lfdoctor watched: its journal and command tell the secrets as argument, variable, option, fact and message."""
    keys, private = planted(KEYS, seed), planted(PRIVATE, seed)
    lines = [line for _, _, line in [*keys, *private]]
    config = {"stage": "sft", "model_name_or_path": "Qwen/Qwen2.5-7B", "finetuning_type": "lora", "per_device_train_batch_size": 8}
    named = {kind: secret for kind, secret, _ in keys}
    config |= {"hub_token": named["hugging face"], "run_name": named["nameless"], "output_dir": "saves/x", "cutoff_len": 4096}
    events: list[dict[str, Any]] = [
        {"type": "Session", "rank": 0, "time": 1.0, "version": 1},
        {"type": "Given", "argv": ["llamafactory-cli", "a.yaml", *lines[:5]], "yaml": yaml.safe_dump(config) + "# " + "\n# ".join(lines)},
        {"type": "ConfigSeen", "values": config},
        *({"type": "Fact", "name": f"env.SOME_{at}", "value": line} for at, line in enumerate(lines)),
        {"type": "Fact", "name": "env.WANDB_API_KEY", "value": named["nameless"]},
        *(
            {"type": "Step", "step": at, "total": 9, "time": 100.0 + at, "seconds": 1.0 * at, "metrics": {"loss": 1.0}}
            for at in range(1, 5)
        ),
        *({"type": "Crash", "exception": "ValueError", "message": line, "phase": "train", "chain": 1} for line in lines),
        {"type": "Crash", "exception": "torch.OutOfMemoryError", "message": OOM + "\n" + "\n".join(lines), "phase": "train", "chain": 0},
        {"type": "ProcessEnd", "code": 1},
    ]
    (folder / "lfdoctor.jsonl").write_bytes(b"".join(encode(one) + b"\n" for one in events))
    assigned = " ".join(f"SOME_{at}={shlex.quote(line)}" for at, line in enumerate(lines))
    (folder / "command.sh").write_text(f"{assigned} llamafactory-cli train train.yaml\n", encoding="utf-8")
    (folder / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "error.json").write_text(
        json.dumps({"message": {"message": f"ValueError: {lines[0]}", "extraInfo": {"py_callstack": "\n".join(lines)}}}), encoding="utf-8"
    )
    return [(kind, secret) for kind, secret, _ in [*keys, *private]]


def leaked(text: str, secrets: list[tuple[str, str]]) -> list[str]:
    return [f"{kind}: {secret}" for kind, secret in secrets if secret in text or json.dumps(secret)[1:-1] in text]


def run_with_every_kind(folder: Path, seed: int) -> list[tuple[str, str]]:
    """The same with a secret of each of the published kinds."""
    return run_with(folder, seed, ALL_KINDS)


@pytest.mark.parametrize(
    ("left", "seed"), [(run_with_every_kind, 0), *((left, seed) for left in (run_with, watched_with) for seed in range(ROUNDS))]
)
def test_no_secret_leaves_in_a_report_or_a_bundle(seed: int, left: Any, tmp_path: Path) -> None:
    """Every format in every language; and the zip with config, logs, series and the preview of what was masked."""
    run = tmp_path / "run"
    run.mkdir()
    secrets = left(run, seed)
    report = doctor.analyze(run)
    assert report.findings
    assert report.patch is not None
    for lang in LANGUAGES:
        view = translated(settled(report), lang)
        for kind in NAMES:
            assert leaked(REPORTERS[kind](view), secrets) == [], (kind, lang)
    assert leaked(report._repr_html_(), secrets) == []
    assert main(["bundle", str(run), "-o", str(tmp_path / "bundle.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert {"report.json", "report.md", "environment.json", "series.csv", "masked.md"} <= set(texts)
    for name, text in texts.items():
        assert leaked(name + text, secrets) == [], name


def test_a_bundle_still_says_what_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The failure, its surroundings, the config's values, versions and series stand in it unmasked; --preview writes nothing."""
    fixture = Path(__file__).parents[2] / "fixtures" / "lr_too_high-full"
    target = tmp_path / "b.zip"
    assert main(["bundle", str(fixture), "-o", str(target), "--preview"]) == 0
    assert "What was masked" in capsys.readouterr().out
    assert not target.exists()
    assert main(["bundle", str(fixture), "-o", str(target)]) == 0
    with zipfile.ZipFile(target) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    report = json.loads(texts["report.json"])
    assert report["cause"] == "lr_too_high"
    assert any("learning_rate: 0.0375" in text for name, text in texts.items() if name.startswith("files/"))
    assert "loss,0,steps,25,3.0859" in texts["series.csv"]
    assert main(["bundle", str(fixture), "-o", str(target)]) == 2


def test_a_name_seen_once_is_masked_everywhere(tmp_path: Path) -> None:
    """An account that a path betrays, and a host that a launcher names, are gone from the other lines too."""
    log = ["Traceback", '  File "/home/parkminsu/train.py", line 1', "  host      : dgx042", "parkminsu started this on dgx042", OOM]
    (tmp_path / "console.log").write_text("\n".join(["***** Running training *****", *log]) + "\n", encoding="utf-8")
    assert main(["bundle", str(tmp_path), "-o", str(tmp_path / "b.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        whole = "".join(archive.read(name).decode() for name in archive.namelist())
    assert "parkminsu" not in whole
    assert "dgx042" not in whole
    assert "*** started this on ***" in whole
