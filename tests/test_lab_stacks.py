"""The stacks of the lab (tests/lab/stacks.yaml): each is one that its LLaMA-Factory allows, and its runs exist."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from doctor.config import knowledge
from doctor.config.versions import NEWEST
from tests.lab import install
from tests.lab.live_stages import CHECKS
from tests.lab.scenarios import BY_NAME

STACKS = yaml.safe_load(Path(install.__file__).with_name("stacks.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def stack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> install.Stack:
    monkeypatch.setenv("LFDOCTOR_LAB_STACK", request.param)
    monkeypatch.delenv("LFDOCTOR_LAB_VENV", raising=False)
    monkeypatch.setattr(install, "stack", install.stack.__wrapped__)
    return install.stack()


@pytest.mark.parametrize("stack", STACKS, indirect=True)
def test_llamafactory_allows_the_packages_of_its_stack(stack: install.Stack) -> None:
    """By the pins that rules/versions.yaml has read from its sources."""
    for package in ("transformers", "datasets", "accelerate", "peft", "trl"):
        allowed = knowledge.at(knowledge.history("pins", package), stack.version)
        assert allowed, package
        if any(one.startswith(f"{package}==") for one in stack.packages):
            assert stack.pinned(package) in SpecifierSet(allowed), package


@pytest.mark.parametrize("stack", STACKS, indirect=True)
def test_the_runs_that_a_stack_names_exist(stack: install.Stack) -> None:
    """No pattern of scenarios matches nothing, no stage is unknown."""
    for pattern in stack.scenarios:
        assert fnmatch.filter(BY_NAME, pattern), pattern
    assert set(stack.stages) <= set(CHECKS)


@pytest.mark.parametrize("stack", ["release"], indirect=True)
def test_the_first_stack_is_the_newest_release(stack: install.Stack) -> None:
    """What the rules assume of a run that tells nothing is what the lab proves; so they need not be told."""
    assert stack.version == ".".join(map(str, NEWEST["llamafactory"]))
    assert stack.pinned("transformers") == ".".join(map(str, NEWEST["transformers"]))
    assert stack.facts == {}
    assert install.lab_venv() == install.ROOT / ".lab" / "venv"


@pytest.mark.parametrize("stack", ["main"], indirect=True)
def test_another_stack_has_its_own_folder_and_tells_the_rules_what_it_is(stack: install.Stack) -> None:
    """Two environments and their runs lie side by side."""
    assert install.lab_venv() == install.ROOT / ".lab" / "main" / "venv"
    assert stack.facts == {"versions.llamafactory": "main", "versions.transformers": stack.pinned("transformers")}


def test_an_unknown_stack_is_refused_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt name installs nothing."""
    monkeypatch.setenv("LFDOCTOR_LAB_STACK", "mian")
    with pytest.raises(SystemExit, match="release, lowest, main"):
        install.stack.__wrapped__()
