"""Configs of the v1 trainer: sound ones pass, and of each mistake the rule, the key and what was meant are told."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from doctor.config.v1 import problems
from doctor.diagnosis.check import check

CASES = yaml.safe_load(Path(__file__).with_name("v1_mistakes.yaml").read_text(encoding="utf-8"))
MAIN = {"versions.llamafactory": "main"}


def found(values: dict[str, Any], folder: Path, version: str | None = "main") -> list[Any]:
    """What `check` says above a note of a config with these values."""
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return [finding for finding in check(path, folder=folder, llamafactory_version=version).findings if finding.severity != "note"]


@pytest.mark.parametrize("name", CASES["sound"])
@pytest.mark.parametrize("version", ["main", None])
def test_a_sound_config_is_accepted(name: str, version: str | None, tmp_path: Path) -> None:
    """For main, and for a version that is not known: what only main has is no error then."""
    assert found(CASES["sound"][name], tmp_path, version) == []


@pytest.mark.parametrize("case", CASES["mistakes"], ids=lambda case: f"{case['of']}-{case['key']}")
def test_a_mistake_is_named(case: dict[str, Any], tmp_path: Path) -> None:
    """The rule stands in the report; the problem names the key and says the fact."""
    values = copy.deepcopy(CASES["sound"][case["of"]])
    for path, value in case.get("set", {}).items():
        place, _, setting = path.partition(".")
        if setting:
            values[place][setting] = value
        else:
            values[place] = value
    if "drop" in case:
        place, _, setting = case["drop"].partition(".")
        (values[place] if setting else values).pop(setting or place)
    assert f"config/{case['rule']}" in [finding.rule for finding in found(values, tmp_path)]
    told = {problem.key: problem.facts for problem in problems(values, MAIN)}
    assert case.get("says", {}).items() <= told[case["key"]].items()


def test_an_option_of_main_is_refused_by_a_release_that_is_named(tmp_path: Path) -> None:
    """cp_size came after 0.9.5: an error for that release, a note where the version is unknown, nothing for main."""
    values = CASES["sound"]["ulysses"]
    assert [finding.rule for finding in found(values, tmp_path, "0.9.5")] == ["config/v1-unknown-option"] * 2  # cp_mode and cp_size
    path = tmp_path / "train.yaml"
    notes = [finding.rule for finding in check(path, folder=tmp_path).findings if finding.severity == "note"]
    assert notes.count("config/v1-option-of-another-version") == 2
