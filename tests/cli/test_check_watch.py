"""`lfdoctor check --watch`: a check at the start and after every change, whatever the file holds in between."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from doctor.cli import check as module
from doctor.cli.main import main

CONFIG = "model_name_or_path: m\nstage: sft\ndo_train: true\nfinetuning_type: lora\ndataset: d\ntemplate: qwen\noutput_dir: o\n"


class Editor:
    """In the place of time.sleep: each call is the next thing that the writer of the file does, the last one Ctrl-C."""

    def __init__(self, path: Path, *texts: str | None) -> None:
        self.path, self.texts, self.saved = path, list(texts), 0

    def __call__(self, seconds: float) -> None:
        if not self.texts:
            raise KeyboardInterrupt
        text = self.texts.pop(0)
        if text is not None:
            self.path.write_text(text, encoding="utf-8")
            self.saved += 1
            os.utime(self.path, ns=(self.saved, self.saved))  # a clock of its own: two saves within a tick differ


def test_each_saved_version_is_checked_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake appears, and goes when it is corrected; half a YAML is told and the next version is read; nothing happens in between."""
    path = tmp_path / "train.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    editor = Editor(path, None, CONFIG + "lora_ranks: 8\n", None, CONFIG + "lora_rank: [8\n", CONFIG + "lora_rank: 8\n", None)
    monkeypatch.setattr(module.time, "sleep", editor)
    assert main(["check", str(path), "--watch", "--format", "concise"]) == 130
    said = capsys.readouterr()
    assert said.out.count("lora_ranks") == 1
    assert said.err.count("train.yaml") == 1
    assert module.POLL_SECONDS < 1


def test_a_file_that_appears_is_checked(tmp_path: Path) -> None:
    """It may be written later than the command is started."""
    path = tmp_path / "train.yaml"
    seen: list[bool] = []

    def once() -> int:
        seen.append(path.exists())
        return 0

    with pytest.raises(KeyboardInterrupt):
        module.whenever_changed([path], once, Editor(path, None, CONFIG, None))
    assert seen == [False, True]


@pytest.mark.parametrize("other", [["--fix"], ["-o", "report.txt"]])
def test_nothing_is_written_meanwhile(other: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody has the file open."""
    path = tmp_path / "train.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    assert main(["check", str(path), "--watch", *other]) == 2
    assert "--watch" in capsys.readouterr().err
