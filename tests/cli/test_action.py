"""The GitHub Action: its steps are run as a runner runs them (bash -e, inputs as variables), with the program of this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
BROKEN = ROOT / "fixtures" / "config-unknown-key" / "train.yaml"

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="a runner's shell")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a broken config, one of another program, and the installed program where the first step puts it."""
    (tmp_path / "repo" / "configs" / "deep").mkdir(parents=True)
    shutil.copy(BROKEN, tmp_path / "repo" / "configs" / "train.yaml")
    shutil.copy(BROKEN, tmp_path / "repo" / "configs" / "deep" / "two.yaml")
    (tmp_path / "repo" / "configs" / "compose.yaml").write_text("services:\n  a: {image: b}\n", encoding="utf-8")
    program = tmp_path / "lfdoctor" / "bin" / "lfdoctor"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/bash\nPYTHONPATH={ROOT} exec {sys.executable} -m doctor "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return tmp_path / "repo"


def step(checkout: Path, **given: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """The check step with these inputs (others by default), and what it wrote as output."""
    check = next(one for one in ACTION["runs"]["steps"] if one.get("id") == "check")
    inputs = {name: str(given.get(name.replace("-", "_"), one.get("default", ""))) for name, one in ACTION["inputs"].items()}
    variables = {key: value.replace("${{ inputs.", "").replace(" }}", "") for key, value in check["env"].items()}
    output = checkout.parent / "output"
    given_by_runner = {"RUNNER_TEMP": str(checkout.parent), "GITHUB_OUTPUT": str(output)}
    environment = {**os.environ, **given_by_runner, **{key: inputs[name] for key, name in variables.items()}}
    bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", check["run"]]
    done = subprocess.run(bash, cwd=checkout, capture_output=True, text=True, timeout=120, env=environment)
    return done, output.read_text(encoding="utf-8") if output.exists() else ""


def test_findings_become_annotations_and_fail_the_job(checkout: Path) -> None:
    """At file and line of both configs, by a pattern; another program's file is skipped; SARIF is written beside."""
    done, output = step(checkout, configs="configs/**/*.yaml", sarif="out.sarif", gpu_memory="24")
    assert done.returncode == 1
    for name in ("configs/train.yaml", "configs/deep/two.yaml"):
        assert f"::error file={name},line=30,title=Unknown option learning_rates::" in done.stdout
    assert "compose" not in done.stdout
    assert output == f"findings={sum(line.startswith('::') for line in done.stdout.splitlines())}\n"
    assert '"ruleId": "config/unknown-option"' in (checkout / "out.sarif").read_text(encoding="utf-8")


def test_never_fails_only_tells(checkout: Path) -> None:
    """fail-on: never, in Korean."""
    done, _ = step(checkout, configs="configs/train.yaml", fail_on="never", lang="ko")
    assert done.returncode == 0
    assert "::error file=configs/train.yaml,line=30,title=알 수 없는 옵션" in done.stdout


def test_a_healthy_config_has_no_annotation_of_an_error(checkout: Path) -> None:
    """And the number of findings is written even if it is 0 or only notes."""
    healthy = checkout / "configs" / "good.yaml"
    healthy.write_text(BROKEN.read_text(encoding="utf-8").replace("learning_rates: 1.0e-04\n", ""), encoding="utf-8")
    done, output = step(checkout, configs="configs/good.yaml")
    assert done.returncode == 0
    assert "::error" not in done.stdout
    assert output.startswith("findings=")


def test_what_stands_in_an_input_is_never_run(checkout: Path) -> None:
    """A pattern with a command in it matches no file, and neither does one that looks like an option."""
    done, _ = step(checkout, configs="$(touch hacked) `touch hacked` ; touch hacked")
    assert done.returncode == 2
    assert step(checkout, configs="configs/*.yml")[0].stdout.startswith("::error::lfdoctor: no file matches")
    assert step(checkout, configs="--fix")[0].returncode == 2
    assert not (checkout / "hacked").exists()
    assert all("${{" not in one["run"] for one in ACTION["runs"]["steps"])


def test_the_first_step_installs_this_checkout() -> None:
    """A virtual environment of its own, from the action's own folder."""
    first = ACTION["runs"]["steps"][0]
    assert first["env"] == {"ACTION": "${{ github.action_path }}"}
    assert 'pip install --quiet "$ACTION"' in first["run"]
