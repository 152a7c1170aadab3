"""Every lfdoctor command that stands in a block of the documentation is run, from top to bottom of its page, and does what it should."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from doctor.cli.main import app, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FIXTURE = ROOT / "fixtures" / "gpu_oom_activations-forward"


def commands(page: Path) -> list[str]:
    """Lines of shell blocks, of indented blocks and of CI steps that call lfdoctor."""
    text = page.read_text(encoding="utf-8")
    fenced = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    lines = [line for kind, block in fenced.findall(text) if kind in ("sh", "bash", "yaml") for line in block.split("\n")]
    lines += [line[4:] for line in fenced.sub("", text).split("\n") if line.startswith("    lfdoctor ")]
    found = (re.match(r"\s*(?:- run: )?(lfdoctor [^#\n]+)", line) for line in lines)
    return [one[1].strip() for one in found if one]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages speak of: a failed run, its config, a saved report, a llamafactory-cli that does nothing."""
    for place in ("saves/my-run", "saves/other-run", "saves/good", "saves/bad", "DIR"):
        shutil.copytree(FIXTURE, tmp_path / place, ignore=shutil.ignore_patterns("expected.yaml", "ORIGIN.md"))
    config = (FIXTURE / "train.yaml").read_text(encoding="utf-8").replace("models/tiny-llama", "Qwen/Qwen2.5-7B-Instruct")
    (tmp_path / "configs").mkdir()
    for name in ("train.yaml", "cfg.yaml", "configs/train.yaml"):
        (tmp_path / name).write_text(config, encoding="utf-8")
    (tmp_path / "job.slurm").write_text("srun llamafactory-cli train train.yaml learning_rate=1e-5\n", encoding="utf-8")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **sizes}), encoding="utf-8")
    shutil.copy(FIXTURE / "console.log", tmp_path / "console.log")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"sft": {"file_name": "sft.json"}}), encoding="utf-8")
    (tmp_path / "data" / "sft.json").write_text(json.dumps([{"instruction": "Say hi", "output": "Hi"}]), encoding="utf-8")
    tool = tmp_path / "bin" / "llamafactory-cli"
    tool.parent.mkdir()
    tool.write_text(f"#!{sys.executable}\nprint('training')\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    monkeypatch.chdir(tmp_path)
    main(["analyze", "saves/my-run", "--format", "json", "-o", "report.json", "--fail-on", "never"])
    return tmp_path


def served(words: list[str]) -> int:
    """The exit code of a server whose client is gone at once."""
    return subprocess.run([sys.executable, "-m", "doctor", *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_every_command_of_a_page_runs(page: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, or 1 where findings are told; the file that -o or --patch names is there afterwards."""
    for command in commands(page):
        words = shlex.split(command)[1:]
        if "-o" in words and words[0] == "analyze":
            (workplace / words[words.index("-o") + 1]).unlink(missing_ok=True)
        code = served(words) if words[0] == "mcp" else main(words)
        told = capsys.readouterr()
        assert code in (0, 1), f"{command}: {told.err}"
        for option in ("-o", "--patch"):
            if option in words and words[0] != "run":
                assert Path(words[words.index(option) + 1]).exists(), command


def test_enough_is_run() -> None:
    """The pages are really searched: the quick start, the recipes and the README have commands, and each command of the program has one."""
    found = [command for page in PAGES for command in commands(page)]
    assert len(found) >= 25
    names = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert {command.split()[1] for command in found} == names


def test_commands_named_in_passing_exist() -> None:
    """In running text as well no page speaks of a command that the program does not have."""
    names = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    for page in PAGES:
        for name in re.findall(r"`lfdoctor ([a-z]+)", page.read_text(encoding="utf-8")):
            assert name in names, f"{page.name}: lfdoctor {name}"
