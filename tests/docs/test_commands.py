"""Every code block of the documentation is run, from top to bottom of its page, and does what it should; what cannot be run says why."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from doctor.cli.main import app, main
from doctor.rulebook.model import Rule
from tests.docs.blocks import ALL, LANGUAGES, PAGES, REASONS, ROOT, Block, blocks, without_blocks

FIXTURE = ROOT / "fixtures" / "gpu_oom_activations-forward"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
SHELL = 'command_not_found_handle() { printf \'%s\\n\' "[[\\"$1\\"], 127]" >> "$TOLD"; return 127; }\n'
"""bash tells what it has not found, where the stand-in for lfdoctor writes its exit codes."""
STAND_IN = f"""#!{sys.executable}
import json, os, sys
sys.path.insert(0, {str(ROOT)!r})
from doctor.cli.main import main
code = main(sys.argv[1:])
with open(os.environ["TOLD"], "a", encoding="utf-8") as told:
    told.write(json.dumps([sys.argv[1:], code]) + "\\n")
raise SystemExit(code)
"""
ROWS = {"id", "cause", "family", "symptom", "sure", "when", "title", "say", "do", "witness"}
"""Fields of a row of the decision table, which docs/writing-a-rule.md shows beside rules."""


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
    shutil.copytree(ROOT / "rules", tmp_path / "rules")
    (tmp_path / "my-rules" / "data").mkdir(parents=True)
    rule = yaml.safe_load(next(block.text for block in blocks(ROOT / "CONTRIBUTING.md") if block.text.startswith("id:")))
    (tmp_path / "my-rules" / "data" / "my-symptom.yaml").write_text(yaml.safe_dump(rule, allow_unicode=True), encoding="utf-8")
    shutil.copy(FIXTURE / "console.log", tmp_path / "slurm-4711.out")
    (tmp_path / "bin").mkdir()
    _program(tmp_path / "bin" / "llamafactory-cli", f"#!{sys.executable}\nprint('training')\n")
    _program(tmp_path / "bin" / "lfdoctor", STAND_IN)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TOLD", str(tmp_path / "told.jsonl"))
    monkeypatch.chdir(tmp_path)
    main(["analyze", "saves/my-run", "--format", "json", "-o", "report.json", "--fail-on", "never"])
    return tmp_path


def _program(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def commands(block: Block) -> list[str]:
    """The lines that call lfdoctor, also where a step of a workflow or another program does, without what stands before it."""
    lines = block.text.replace("\\\n", " ").split("\n")
    found = (re.search(r"(?:^|[ \"'(])(lfdoctor (?!run --heal \d+\s*$)[^#\n|]+)", line.split(" # ")[0]) for line in lines)
    return [one[1].strip() for one in found if one]


def run_shell(block: Block, text: str) -> None:
    """Runs it with bash. Every call of lfdoctor ends with 0, or 1 where findings are told; what -o and --patch name is there."""
    told = Path(os.environ["TOLD"])
    told.write_text("", encoding="utf-8")
    done = subprocess.run(["bash", "-c", SHELL + text], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)
    calls = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]
    assert done.returncode in (0, 1), f"{block.name}: {done.stderr[-2000:]}"
    assert len(calls) >= len(commands(block)), f"{block.name}: {calls}"
    for words, code in calls:
        assert code in (0, 1), f"{block.name}: {words}: {done.stderr[-2000:]}"
        for option in ("-o", "--patch"):
            if option in words and words[0] != "run":
                assert Path(words[words.index(option) + 1]).exists(), f"{block.name}: {words}"


def run_python(block: Block) -> None:
    """Runs it as it stands; it prints something where it says so."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block.text, block.name, "exec"), {})
    assert bool(said.getvalue().strip()) == ("print(" in block.text), block.name


def run_yaml(block: Block) -> None:
    """It is YAML; its commands run; a whole rule passes its own examples, a part of one has fields that rules have."""
    text = yaml.safe_load(block.text)
    run_shell(block, "\n".join(commands(block)))
    if not isinstance(text, dict):
        return
    if {"id", "when", "examples"} <= text.keys():
        own = Path("own") / f"{text['id']}.yaml"
        own.parent.mkdir(parents=True)
        own.write_text(block.text, encoding="utf-8")
        assert main(["rules", "test", "own"]) == 0
    elif block.page.name == "writing-a-rule.md":
        assert text.keys() <= set(Rule.__struct_fields__), block.name


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_runs(page: Path, workplace: Path) -> None:
    """Shell, Python, YAML and JSON; text is what a program prints, and is held by tests of its own."""
    for block in blocks(page):
        if block.why is not None:
            continue
        if block.language == "sh":
            run_shell(block, block.text)
        elif block.language == "python":
            run_python(block)
        elif block.language == "yaml":
            run_yaml(block)
        elif block.language == "json":
            for server in json.loads(block.text)["mcpServers"].values():
                run_shell(block, shlex.join([server["command"], *server["args"]]))


@pytest.mark.parametrize("block", [block for block in ALL if block.why is not None], ids=lambda block: block.name)
def test_what_is_not_run_says_why_and_is_well_formed(block: Block) -> None:
    """A reason that is known, and what of the block it means; the syntax is right, and each of our commands has the options it is given."""
    reason, _, what = str(block.why).partition(": ")
    assert reason in REASONS
    assert len(what.split()) >= 3
    if block.language == "python":
        compile(block.text, block.name, "exec")
        return
    if block.language == "yaml":
        assert yaml.safe_load(block.text)
        return
    assert block.language == "sh"
    assert subprocess.run(["bash", "-n", "-c", block.text], capture_output=True).returncode == 0
    for command in commands(block):
        words = shlex.split(command)[1:]
        assert {word.partition("=")[0] for word in ours(words) if word.startswith("-")} <= options_of(words), command


def served(words: list[str]) -> int:
    """The exit code of a server whose client is gone at once."""
    return subprocess.run([sys.executable, "-m", "doctor", *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode


def ours(words: list[str]) -> list[str]:
    """The words up to `--`, behind which another program's stand."""
    return words[: words.index("--")] if "--" in words else words


def options_of(words: list[str]) -> set[str]:
    """The options of the command that the words begin with."""
    known: Any = get_command(app)
    for word in words:
        if word not in getattr(known, "commands", {}):
            break
        known = known.commands[word]
    return {option for one in known.params for option in (*one.opts, *one.secondary_opts)}


def test_blocks_have_a_language_and_code_stands_in_blocks() -> None:
    """No block without a language that is known here, and no indented one, which nothing would run; commands are not called text."""
    assert [block.name for block in ALL if block.language not in LANGUAGES] == []
    for page in PAGES:
        text = re.sub(r"^::: .*\n(    .*\n)+", "", without_blocks(page), flags=re.MULTILINE)  # the options of the API reference
        assert re.findall(r"(?<=\n\n)    \S.*", text) == [], page.name
    assert [block.name for block in ALL if block.language == "text" and re.search(r"^(lfdoctor|pip|python|make) ", block.text, re.M)] == []


def test_enough_is_run() -> None:
    """Most blocks are run; each command of the program stands in one that is."""
    assert sum(block.why is None for block in ALL) >= 50
    assert sum(block.why is not None for block in ALL) <= 20
    names = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert {command.split()[1] for block in ALL if block.why is None for command in commands(block)} == names


def test_what_is_named_in_passing_exists() -> None:
    """In running text as well no page speaks of a command, an extra or a make target that is not there."""
    names = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    found = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`lfdoctor ([a-z]+)", text):
            assert name in names, f"{page.name}: lfdoctor {name}"
        for some in re.findall(r"(?:lfdoctor|install '?\.)\[([\w,]+)\]", text):
            assert set(some.split(",")) <= EXTRAS.keys(), f"{page.name}: {some}"
            found += 1
        for target in re.findall(r"`make (\w+)", text):
            assert target in targets, f"{page.name}: make {target}"
    assert found >= 8


def test_the_pages_for_ci_use_inputs_and_hooks_that_exist() -> None:
    """The Action's inputs and the ids of the pre-commit hooks in docs/ci.md."""
    parts = [yaml.safe_load(block.text) for block in blocks(ROOT / "docs" / "ci.md") if block.language == "yaml"]
    steps = [step for part in parts if "jobs" in part for step in part["jobs"]["check"]["steps"]]
    given = next(step["with"] for step in steps if "lfdoctor@" in step.get("uses", ""))
    assert given.keys() <= yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["inputs"].keys()
    hooks = {hook["id"] for part in parts if "repos" in part for hook in part["repos"][0]["hooks"]}
    assert hooks <= {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))}
    assert hooks
    assert given
