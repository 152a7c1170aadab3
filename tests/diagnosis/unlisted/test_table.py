"""The decision table (rules/exceptions.yaml): every form decides its own example, every sentence can be said in every language."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from doctor.diagnosis.rule_lints import LONGEST_EXPRESSION, WITNESS, placeholders
from doctor.diagnosis.unlisted.features import ExceptionFeatures, features_of
from doctor.diagnosis.unlisted.table import conclude
from doctor.diagnosis.unlisted.telling import features_of_line
from doctor.report.build import _may_say  # the report's own test of a paragraph
from doctor.rulebook.exceptions import Form, Row, named, rows
from doctor.support.package_files import rules_folder
from tests.diagnosis.unlisted.helpers import read_console

FORMS = [pytest.param(row, form, id=f"{row.id}-{place}") for row in rows() for place, form in enumerate(row.when)]
ALWAYS = {"exception", "message", "function", "package", "phase", "signal"}
"""Facts that the answer sets where they are known."""


def features_in(form: Form, folder: Path) -> ExceptionFeatures:
    """The example's exception, line or signal; a first line `config: {...}` is what the run was given."""
    text, config = form.example, {}
    if text.startswith("config: "):
        head, _, text = text.partition("\n")
        config = yaml.safe_load(head)["config"]
    crashes, run = read_console(text, folder)
    if crashes:
        return msgspec.structs.replace(features_of(crashes[-1], run), config=config)
    if run.ends and run.ends[0].signal:
        return ExceptionFeatures(signal=run.ends[0].signal)
    return features_of_line(text.strip(), config)


@pytest.mark.parametrize(("row", "form"), FORMS)
def test_a_form_decides_its_example(row: Row, form: Form, tmp_path: Path) -> None:
    """No earlier row takes the example, and the facts that the sentence names are taken from it."""
    features = features_in(form, tmp_path)
    conclusion = conclude(features)
    assert conclusion is not None
    assert conclusion.row.id == row.id
    assert conclude(features, [msgspec.structs.replace(row, when=[form])]) is not None, "another form of the row decides it"


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in rows()])
def test_a_row_is_whole(row: Row) -> None:
    """Family, witness and texts are in order, and every placeholder is a fact that is always set or a group of each of its forms."""
    assert (rules_folder() / row.family).is_dir()
    assert re.fullmatch(r"[a-z0-9_]+", row.cause)
    assert row.witness
    assert all(WITNESS.fullmatch(one) for one in row.witness)
    for text in (row.title, row.say, row.do):
        if text is not None:
            assert all((text.en, text.ko, text.zh))
            assert placeholders(text.en) == placeholders(text.ko) == placeholders(text.zh)
    asked = placeholders(row.say.en)
    for form in row.when:
        assert asked <= ALWAYS | named(form), form.example
        assert not (asked & {"function", "package"}) - named(form) or form.place or form.frames, form.example
    assert row.do or row.remedies


def test_row_ids_differ_from_each_other() -> None:
    """A finding's rule names one row."""
    ids = [row.id for row in rows()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("row", "form"), FORMS)
def test_an_expression_compiles_and_is_readable(row: Row, form: Form) -> None:
    """Every expression of a form is a valid one of readable length."""
    for pattern in (form.place, form.raised, form.frames, form.code, form.text, form.none_of, *form.config.values()):
        if pattern is not None:
            re.compile(pattern)
            assert len(pattern) <= 2 * LONGEST_EXPRESSION


def test_a_row_becomes_a_rule_that_speaks() -> None:
    """The sentence of a row stands behind the opening, and is said once its facts are known."""
    row = next(row for row in rows() if row.id == "module-missing")
    rule = row.rule(row.title)
    assert rule.id == "environment/module-missing"
    assert 0.7 <= rule.confidence < 0.9
    scope = {"config": {}, "run": {}, "fact": {"module": "jieba"}}
    assert _may_say(rule.body[0], scope)
    assert not _may_say(rule.body[0], {**scope, "fact": {}})


SILENT = {
    "a message that says nothing": "RuntimeError: boom",
    "a bare assertion": "AssertionError",
    "a test of a person's own": 'Traceback (most recent call last):\n  File "/home/me/run.py", line 3, in go\nValueError: the moon is full',
    "words of an NPU inside others": "ValueError: Cannot guess the number",
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in SILENT.items()])
def test_nothing_is_concluded_from_nothing(text: str, tmp_path: Path) -> None:
    """An exception whose form proves no cause gets none."""
    crashes, run = read_console(text, tmp_path)
    assert [conclude(features_of(crash, run)) for crash in crashes] == [None]


SPECIAL_FIRST = [
    ("OSError: [Errno 28] No space left on device: '/dev/shm/nccl-a1B2c3'", "shared-memory-refused"),
    ("OSError: [Errno 28] No space left on device: '/data/out/model.safetensors'", "disk-refuses-more"),
    ("ModuleNotFoundError: No module named 'flash_attn'", "flash-attention-package"),
    ("ModuleNotFoundError: No module named 'peft.tuners.lora9'", "submodule-missing"),
    ("ModuleNotFoundError: No module named 'nltk'", "module-missing"),
    ("RuntimeError: Address already in use", "port-taken"),
    ("ValueError: Image features and image tokens do not match: tokens: 0, features 1156", "media-and-placeholders"),
    ("ValueError: Image features and image tokens do not match: tokens: 900, features 1156", "vision-tokens-and-features"),
    (
        "requests.exceptions.ConnectionError: ('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))",
        "no-route-to-hub",
    ),
    ("RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!", "two-devices-cpu"),
    ('RuntimeError: Attempted to set the storage of a tensor on device "npu:4" to a storage on different device "npu:0".', "two-devices"),
    ("OSError: The paging file is too small for this operation to complete. (os error 1455)", "host-memory-while-loading"),
]


@pytest.mark.parametrize(("text", "row"), SPECIAL_FIRST)
def test_the_special_row_wins(text: str, row: str, tmp_path: Path) -> None:
    """Of neighbours that share words the one whose mechanism it is decides."""
    crashes, run = read_console(text, tmp_path)
    conclusion = conclude(features_of(crashes[0], run))
    assert conclusion is not None
    assert conclusion.row.id == row
