"""Rule files: what is accepted, and what an author is told of a slip."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doctor.detectors.registry import DETECTORS
from doctor.errors import DoctorError
from doctor.rulebook import loader, parsing

RULE = """\
id: memory/test-rule
cause: gpu_oom_activations
symptom: out_of_memory
severity: error
when:
  log_pattern:
    contains: [needle]
    any_of: ['needle (?P<size>\\d+)']
title: {en: A needle, ko: 바늘}
body:
  - {en: "Found {size}.", ko: "{size} 발견."}
remedies:
  - id: pull
    text: {en: Pull it., ko: 당기세요.}
    only_if: {config.stage: sft}
    patch: [{set: {stage: pt}}]
"""


def written(folder: Path, text: str, name: str = "test-rule") -> Path:
    path = folder / "memory" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_rule_file_becomes_a_rule(tmp_path):
    """Every part of a plain rule arrives where the engine and the planner look for it."""
    rule = parsing.parse_rule(written(tmp_path, RULE), {})
    assert (rule.family, rule.detector, rule.params["contains"]) == ("memory", "log_pattern", ["needle"])
    assert rule.title.get("ko") == "바늘"
    assert rule.remedies[0].patch[0].set == {"stage": "pt"}


@pytest.mark.parametrize(
    ("old", "new", "line", "word"),
    [
        ("severity: error", "severity: fatal", 4, "fatal"),
        ("title: {en: A needle, ko: 바늘}", "title: {en: A needle}", 9, "ko"),
        ("config.stage: sft", "colour: red", 13, "colour"),
        ("id: memory/test-rule", "id: memory/other", 1, "memory/test-rule"),
        ("patch: [{set: {stage: pt}}]", "patch: [{set: {stage: pt}, unset: [x]}]", 13, "exactly one"),
        ("    text: {en: Pull it., ko: 당기세요.}", "    words: x", 13, "words"),
    ],
)
def test_a_slip_is_told_with_file_and_line(tmp_path, old, new, line, word):
    """The message names the file, the line of the slip (or of the item it stands in) and what is wrong."""
    path = written(tmp_path, RULE.replace(old, new))
    with pytest.raises(DoctorError) as error:
        parsing.parse_rule(path, {})
    assert f"{path}:{line}:" in str(error.value)
    assert word in str(error.value)


def test_a_detector_that_does_not_exist_or_refuses_is_told(tmp_path):
    """An unknown word under `when:`, an unknown parameter and a broken pattern are found when rules are loaded to be checked."""
    for change in (("log_pattern:", "log_patern:"), ("contains:", "containing:"), ("needle (", "needle ((")):
        written(tmp_path, RULE.replace(*change))
        with pytest.raises(DoctorError, match=r"test-rule\.yaml:5"):
            loader.load([tmp_path], detectors=DETECTORS)


def test_the_cache_gives_the_same_rules_and_notices_changes(tmp_path, monkeypatch):
    """A second load comes from the cache and equals the first; an edited rule is read anew; a damaged cache does no harm."""
    monkeypatch.setenv("LFDOCTOR_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mine"
    folder.mkdir()
    path = written(folder, RULE)
    first = loader.load([folder])
    (cached,) = (tmp_path / "cache").rglob("rules-*.msgpack")
    assert loader.load([folder]) == first
    path.write_text(RULE.replace("A needle", "A longer needle"), encoding="utf-8")
    assert loader.load([folder])["memory/test-rule"].title.en == "A longer needle"
    for cached in (tmp_path / "cache").rglob("rules-*.msgpack"):
        cached.write_bytes(b"junk")
    assert loader.load([folder])["memory/test-rule"].title.en == "A longer needle"


def test_a_rule_without_when_takes_that_of_the_rule_it_refines(tmp_path):
    """Through several generations; one that refines nothing, or itself in a circle, is refused."""
    parent = written(tmp_path, RULE)
    child = parent.with_name("child.yaml")
    head, _, tail = RULE.partition("when:")
    rest = tail[tail.index("\ntitle:") :]
    child.write_text(head.replace("memory/test-rule", "memory/child") + "refines: [memory/test-rule]" + rest, encoding="utf-8")
    grandchild = parent.with_name("grandchild.yaml")
    grandchild.write_text(
        child.read_text(encoding="utf-8").replace("memory/child", "memory/grandchild").replace("[memory/test-rule]", "[memory/child]"),
        encoding="utf-8",
    )
    files = {f"memory/{path.stem}": path for path in (parent, child, grandchild)}
    own = parsing.parse_rule(parent, {}).when
    assert parsing.parse_rule(grandchild, {}, files).when == own
    with pytest.raises(DoctorError, match="no `when:`"):
        parsing.parse_rule(grandchild, {}, {})
    child.write_text(child.read_text(encoding="utf-8").replace("[memory/test-rule]", "[memory/grandchild]"), encoding="utf-8")
    with pytest.raises(DoctorError, match="no `when:`"):
        parsing.parse_rule(grandchild, {}, files)


def test_a_list_of_names_is_written_out(tmp_path):
    """`{options.newer}` and `{lists.NAME}` become alternations of the names in the data files; other braces stay."""
    text = RULE.replace("['needle (?P<size>\\d+)']", "['needle x{2,3} (?P<size>{options.newer}|{lists.model_types})']")
    pattern = parsing.parse_rule(written(tmp_path, text), {}).params["any_of"][0]
    assert pattern.startswith("needle x{2,3} (?P<size>(?:")
    for name in ("enable_liger_kernel", "use_muon", "qwen3_moe", "kosmos-2.5"):
        assert re.fullmatch(pattern, f"needle xx {name}")
    for name in ("num_train_epochs", "evaluation_strategy", "kosmos-2x5"):
        assert not re.fullmatch(pattern, f"needle xx {name}")


def test_a_list_that_does_not_exist_is_named(tmp_path):
    """The message names the rule's file and the lists that exist."""
    path = written(tmp_path, RULE.replace("needle (?P", "{lists.colours} (?P"))
    with pytest.raises(DoctorError, match=r"test-rule\.yaml:5: no list of names 'lists\.colours' \(known: (lists\.\w+, )+options\."):
        parsing.parse_rule(path, {})
