"""Every command that a report prints does what it says when it is pasted: into a real shell with a dry llamafactory-cli and lfdoctor."""

from __future__ import annotations

import html
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import doctor
from doctor.planner.launching import Launch
from doctor.report.model import PatchView, Report
from doctor.reporters.advice import next_commands
from doctor.reporters.base import Screen
from doctor.reporters.json import settled
from doctor.reporters.registry import REPORTERS
from doctor.rulebook import loader
from tests.expected import fixtures
from tests.reporters.dry_shell import Call, DryShell

BATCHES = 6
FACTS = re.compile(r"(?<!\$)\{[a-z][a-z_.]*\}")


class Received(NamedTuple):
    """What a training gets from a command line: variables, its config file, key=value overrides, and the words before the config."""

    env: dict[str, str]
    config: str
    overrides: dict[str, Any]
    launcher: list[str]


def received(call: Call) -> Received:
    """What llamafactory-cli (hparams/parser.py read_args) makes of what it gets."""
    words = [call.program, *call.arguments]
    place = next(at for at, word in enumerate(words) if word.endswith((".yaml", ".yml", ".json")))
    assert words[:2] == ["llamafactory-cli", "train"]
    pairs = [word.split("=", 1) for word in words[place + 1 :]]
    return Received(call.env, words[place], {key: yaml.safe_load(value) for key, value in pairs}, words[:place])


def dry_run(command: str, shell: DryShell) -> Received:
    """What the training gets when the command is pasted."""
    [call] = shell.paste(command)
    return received(call)


def started_with(fixture: Path, shell: DryShell) -> Received:
    """What the fixture's own run.sh gave the training."""
    line = next(line for line in (fixture / "run.sh").read_text(encoding="utf-8").splitlines() if "llamafactory-cli" in line)
    return dry_run(re.sub(r"lfdoctor run .* -- ", "", line), shell)


@pytest.fixture
def shell(tmp_path_factory: pytest.TempPathFactory) -> DryShell:
    """bash, as most terminals."""
    return DryShell(tmp_path_factory.mktemp("shell"))


def training_command(report: Report) -> str | None:
    return report.patch.command if report.patch else None


def printed(report: Report) -> dict[str, list[str]]:
    """The commands to run next as each format shows them: on a narrow terminal, in a Markdown block, behind HTML's buttons."""
    page = REPORTERS["terminal"](report, Screen(width=40)).split("\n")
    blocks = re.findall(r"```sh\n(.*?)\n```", REPORTERS["markdown"](report), re.DOTALL)
    buttons = re.findall(r'class="command"><code>([^<]*)</code><button[^>]*data-copy="([^"]*)"', REPORTERS["html"](report))
    assert all(shown == copied for shown, copied in buttons)
    wanted = set(next_commands(report))
    return {
        "terminal": [line.strip() for line in page if line.strip() in wanted],
        "markdown": blocks[-1].split("\n") if blocks else [],
        "html": [html.unescape(copied) for copied in dict.fromkeys(copied for _, copied in buttons)],  # once in each language
    }


@pytest.mark.parametrize("batch", range(BATCHES))
def test_commands_of_every_fixture_arrive_as_meant(batch: int, shell: DryShell) -> None:
    """Pasted out of every format: packages first, then the patch, then the training with the patch's config, overrides and variables, and
    the user's where the patch does not change them."""
    trained = 0
    for fixture in fixtures()[batch::BATCHES]:
        report = doctor.analyze(fixture)
        patch = report.patch
        if patch is None or patch.command is None:
            assert next_commands(report) == [], fixture.name  # at most options to add to a command that is not known
            continue
        trained += 1
        given = started_with(fixture, shell)
        for kind, lines in printed(settled(report)).items():
            *before, last = shell.paste(*lines)
            got = received(last)
            assert got.config == (patch.file or given.config), (fixture.name, kind)
            env = {change.key: str(change.new) for change in patch.changes if change.target == "env"}
            assert got.env in ({**given.env, **env}, {"FORCE_TORCHRUN": "1", **given.env, **env}), (fixture.name, kind)
            assert got.overrides == expected_overrides(given, patch), (fixture.name, kind)
            assert [call for call in before if call.program == "pip"] == (
                [Call("pip", ["install", *patch.packages], {})] if patch.packages else []
            )
            fixes = [call.arguments for call in before if call.program == "lfdoctor"]
            assert fixes == ([["fix", report.run.path, *patch.options, "-o", got.config]] if patch.yaml else []), (fixture.name, kind)
    assert trained > 0


def expected_overrides(given: Received, patch: PatchView) -> dict[str, Any]:
    """The user's own words but for those that the patch changes, and the changes that stand in no file."""
    changed = {change.key for change in patch.changes}
    behind = {
        change.key: change.new for change in patch.changes if change.target == "command" or (change.target == "config" and not patch.yaml)
    }
    return {**{key: value for key, value in given.overrides.items() if key not in changed}, **behind}


def test_commands_of_remedies_parse_in_every_shell(tmp_path: Path) -> None:
    """Of all rules: one line that sh and bash take; only the config's and the log's names and facts are filled in."""
    commands = {remedy.command for rule in loader.load().rules for remedy in rule.remedies if remedy.command}
    assert len(commands) > 60
    for command in sorted(commands):
        assert "\n" not in command
        command = FACTS.sub("'a b'", command)
        assert "{" not in re.sub(r"\$\{\w+\}|\{print[^}]*\}", "", command) or "python -c" in command, command
        filled = command.replace("<config>", "'my train.yaml'").replace("<log>", "'a b.log'")
        assert "python -c" in command or not re.search(r"<[a-z ]+>", filled), command
        for shell in ("sh", "bash"):
            done = subprocess.run([shell, "-n", "-c", filled], capture_output=True, check=False)
            assert (done.returncode, done.stderr) == (0, b""), command


ODD = [
    "with blank",
    "it's",
    'say "hi"',
    "$HOME",
    "$(touch x)",
    "`touch x`",
    "a;touch x",
    "a&b",
    "*",
    "학습 로그",
    "训练",
    "-rf",
    "~",
    "a!b",
    "#a",
    "a\\b",
]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("kind", ["bash", "sh"])
def test_odd_names_arrive_as_they_are(name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders, configs and values with blanks, quotes, dollars, Korean: nothing is expanded, split, run or taken for an option."""
    monkeypatch.chdir(tmp_path)
    folder = Path(name)
    folder.mkdir()
    value = shlex.quote(name)
    config = shlex.quote(f"conf/{name}.yaml")
    report = told(folder, f"NAME={value} llamafactory-cli train {config} run_name={value}\n")
    value_arrives = "/home/somebody" if name == "$HOME" else name  # a reference to a variable stays one
    (tmp_path / "dry").mkdir()
    fixing, training = DryShell(tmp_path / "dry", kind).paste(*next_commands(settled(report)))
    assert fixing.arguments == ["fix", f"./{name}" if name.startswith("-") else name, "-o", "train-patched.yaml"]
    assert training.arguments == ["train", "train-patched.yaml", f"run_name={value_arrives}"]
    assert training.env == {"NAME": value_arrives}


@pytest.mark.skipif(os.name == "nt", reason="such names do not exist there")
def test_a_name_with_a_newline_stays_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bash and zsh read $'...'."""
    monkeypatch.chdir(tmp_path)
    folder = Path("a\n'b")
    folder.mkdir()
    (tmp_path / "dry").mkdir()
    fixing, _ = DryShell(tmp_path / "dry").paste(*next_commands(settled(told(folder))))
    assert fixing.arguments[1] == "a\n'b"


RUN = """\
[INFO|trainer.py:2405] 2025-01-03 10:01:00,000 >> ***** Running training *****
[INFO|trainer.py:2411] 2025-01-03 10:01:00,000 >>   Total optimization steps = 20
{'loss': 1.5123, 'grad_norm': 0.912, 'learning_rate': 1e-05, 'epoch': 0.5}
Traceback (most recent call last):
  File "/opt/env/lib/python3.11/site-packages/transformers/trainer.py", line 3736, in training_step
    self.accelerator.backward(loss, **kwargs)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 23.65 GiB.
"""
YAML = "model_name_or_path: Qwen/Qwen2.5-7B-Instruct\nstage: sft\nfinetuning_type: lora\ntemplate: qwen\ndataset: d\noutput_dir: saves/q\n"


def told(folder: Path, script: str | None = None, config: str | None = YAML, console: str = RUN) -> Report:
    (folder / "console.log").write_text(console)
    if script is not None:
        (folder / "command.sh").write_text(script)
    if config is not None:
        (folder / "train.yaml").write_text(config)
    return doctor.analyze(folder)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "CUDA_VISIBLE_DEVICES=1 llamafactory-cli train train.yaml learning_rate=1e-4\n",
            "CUDA_VISIBLE_DEVICES=1 llamafactory-cli train train-patched.yaml learning_rate=1e-4",
        ),
        (
            "export WANDB_MODE=offline\nFORCE_TORCHRUN=1 nohup llamafactory-cli train conf/train.yaml \\\n  max_steps=20 > log 2>&1 &\n",
            "WANDB_MODE=offline FORCE_TORCHRUN=1 llamafactory-cli train train-patched.yaml max_steps=20",
        ),
        (
            "NPROC=8\nexport CUDA_VISIBLE_DEVICES=0,1\ntorchrun --nproc_per_node $NPROC src/train.py train.yaml\n",
            "CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc_per_node 8 src/train.py train-patched.yaml",
        ),
        ("lfdoctor run -o watched -- llamafactory-cli train train.yaml\n", "llamafactory-cli train train-patched.yaml"),
        (
            "accelerate launch --config_file acc.yaml src/train.py train.yaml\n",
            "accelerate launch --config_file acc.yaml src/train.py train-patched.yaml",
        ),
        ("torchrun --nproc_per_node 8 src/train.py train.yaml\n", "torchrun --nproc_per_node 8 src/train.py train-patched.yaml"),
        (None, "llamafactory-cli train train-patched.yaml"),
    ],
)
def test_the_users_launcher_variables_and_overrides_are_kept(script: str | None, expected: str, tmp_path: Path) -> None:
    """What stands before and behind the YAML stays; redirections and the watching lfdoctor do not."""
    assert training_command(told(tmp_path, script)) == expected


def test_an_override_that_the_patch_changes_does_not_win_over_the_file(tmp_path: Path, shell: DryShell) -> None:
    """`per_device_train_batch_size=16` behind the YAML would undo the patch."""
    report = told(tmp_path, "llamafactory-cli train train.yaml per_device_train_batch_size=16 warmup_steps=3 output_dir=saves/other\n")
    assert report.patch is not None
    changed = {change.key for change in report.patch.changes}
    assert "output_dir" in changed
    got = dry_run(training_command(report) or "", shell)
    assert got.overrides == {
        key: value for key, value in {"per_device_train_batch_size": 16, "warmup_steps": 3}.items() if key not in changed
    }


def test_a_training_started_with_options_gets_options(tmp_path: Path) -> None:
    """No YAML: changed options in place, new ones behind, a reference to a variable stays one."""
    start = 'CUDA_VISIBLE_DEVICES=0 torchrun --nproc_per_node 2 src/train.py --stage sft --model_name_or_path "$MODEL" --output_dir saves/q'
    script = f"{start} --finetuning_type lora\n"
    report = told(tmp_path, script, config=None)
    command = training_command(report) or ""
    assert command.startswith(f"{start}-fix1 --finetuning_type lora --")
    changes = report.patch.changes if report.patch else []
    assert len(changes) > 1
    assert all(f" --{change.key} {change.new}" in command for change in changes)


def test_a_run_of_another_program_gets_no_llamafactory_command(tmp_path: Path) -> None:
    """Options that LLaMA-Factory does not have, and nothing that names it."""
    report = told(tmp_path, config="sequence_len: 2048\nmicro_batch_size: 4\nper_device_train_batch_size: 4\nlearning_rate: 1e-4\n")
    assert "llamafactory-cli" not in REPORTERS["terminal"](report)


def test_without_a_configuration_no_default_is_told_as_a_fact(tmp_path: Path) -> None:
    """A log alone: no effective batch, nothing "already set", no halved default; the page advises --config."""
    report = told(tmp_path, config=None)
    assert report.patch is None or report.patch.predicted.effective_batch is None
    assert all(remedy.status != "done" for finding in report.findings for remedy in finding.remedies)
    assert not {"per_device_train_batch_size", "lora_rank"} & {change.key for change in (report.patch.changes if report.patch else ())}
    page = " ".join(REPORTERS["terminal"](report).split())
    assert "--config" in page
    assert "Effective batch" not in page
    assert "default" not in page.partition("Guide corrections")[0]


def test_resuming_is_advised_only_where_a_checkpoint_was_seen(tmp_path: Path) -> None:
    """A GPU that failed before the first save leaves nothing to resume from; with a checkpoint folder there is."""
    broken = RUN.partition("torch.OutOfMemoryError")[0] + "RuntimeError: CUDA error: uncorrectable ECC error encountered\n"

    def offered() -> list[str]:
        report = told(tmp_path, console=broken)
        patched = [change.key for change in (report.patch.changes if report.patch else ())]
        return patched + [change.key for finding in report.findings for remedy in finding.remedies for change in remedy.changes]

    assert "resume_from_checkpoint" not in offered()
    (tmp_path / "out" / "checkpoint-10").mkdir(parents=True)
    assert "resume_from_checkpoint" in offered()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("(base) kim@gpu1:~/x$ CUDA_VISIBLE_DEVICES=0 llamafactory-cli train a.yaml", ["llamafactory-cli", "train", "a.yaml"]),
        ("llamafactory-cli train a.yaml 2>&1 | tee log", ["llamafactory-cli", "train", "a.yaml"]),
        ("echo hello", None),
        ("python other.py a.yaml", None),
        ("torchrun 'unclosed train.py", ["torchrun", "'unclosed", "train.py"]),
    ],
)
def test_a_command_line_is_taken_apart(line: str, words: list[str] | None) -> None:
    """Prompts, pipes and redirections are no part of it; what starts no LLaMA-Factory training is none."""
    launch = Launch.parse(line)
    assert (launch.words if launch else None) == words


def test_a_command_substitution_of_a_log_is_never_printed_live(tmp_path: Path, shell: DryShell) -> None:
    """A log may be anybody's: what it pasted must not run when it is pasted back."""
    report = told(tmp_path, "llamafactory-cli train train.yaml 'run_name=$(touch owned)' 'x=`touch owned`' y=a;touch owned\n")
    *_, call = shell.paste(*next_commands(report))
    assert call.arguments == ["train", "train-patched.yaml", "run_name=$(touch owned)", "x=`touch owned`", "y=a"]
