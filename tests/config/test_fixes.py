"""`check --fix` writes the right LLaMA-Factory option or leaves the line as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from doctor.config import knowledge
from doctor.config.fixes import fix, unknown
from doctor.config.option_names import known_somewhere, synonyms
from doctor.config.options import table
from doctor.config.yaml_edit import load

BASE = {"model_name_or_path": "Qwen/Qwen2.5-7B", "stage": "sft", "do_train": True, "dataset": "x", "template": "qwen", "output_dir": "o"}
MISTAKES = yaml.safe_load((Path(__file__).parent / "mistakes.yaml").read_text(encoding="utf-8"))


def text_of(values: dict[str, object]) -> str:
    return "# mine\n" + "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}  # {key}\n" for key, value in values.items())


@pytest.mark.parametrize("case", MISTAKES, ids=[",".join(case["before"]) + f"-{number}" for number, case in enumerate(MISTAKES)])
def test_a_common_slip_comes_out_right_or_untouched(case):
    """Each line of the hand-written table; every other line, and its comment, stays byte for byte."""
    wanted = case.get("after", case["before"])
    before = {key: value for key, value in BASE.items() if key not in {*case["before"], *wanted}} | case["before"]
    text = text_of(before)
    found = fix(text, load(text))
    untouched = {key: value for key, value in before.items() if key not in case["before"]}
    assert load(found.text) == {**untouched, **wanted}
    kept = [line for line in text.splitlines() if line.split(":")[0] not in case["before"]]
    assert [line for line in found.text.splitlines() if line in kept] == kept
    if wanted == case["before"]:
        assert found.text == text


def test_a_renamed_key_keeps_place_comment_mark_and_line_ends():
    """BOM, CRLF, the comment behind it and the order are those of the file."""
    text = "\ufeffmodel_name_or_path: m\r\nmax_seq_length: 512  # tokens\r\nstage: sft\r\ntemplate: qwen\r\n"
    assert fix(text, load(text)).text == text.replace("max_seq_length", "cutoff_len")


def test_a_key_whose_meaning_is_set_already_is_left():
    """Two names for one option: neither is dropped, and the reader is told."""
    text = text_of({**BASE, "cutoff_len": 1024, "max_seq_length": 512})
    found = fix(text, load(text))
    assert (found.text, found.done) == (text, ())
    assert tuple(line.en for line in found.left) == (
        "Unknown option `max_seq_length`: it means `cutoff_len`, which this file sets as well",
    )


def test_a_slip_is_told_with_the_nearest_option():
    """Spelling only suggests."""
    assert unknown("stagee").en == "Unknown option `stagee`; did you mean `stage`?"
    assert unknown("placement_strategy").en == "`placement_strategy` is gone after LLaMA-Factory 0.9.4"


def test_trl_recipes_keep_their_names():
    """A YAML of trl has the same transformers options; without a LLaMA-Factory option nothing is renamed in it."""
    text = text_of({"model_name_or_path": "m", "max_seq_length": 512, "num_train_epochs": 1, "learning_rate": 1e-4, "output_dir": "o"})
    assert fix(text, load(text)).text == text


def test_every_synonym_leads_to_an_option_and_names_its_source():
    """The table is whole: targets exist, values are legal, and no name of it is an option of the current release."""
    for name, entry in synonyms().items():
        assert bool(entry.use) != bool(entry.note), name
        option = table().get(entry.use or "")
        assert entry.use is None or (entry.source and option is not None), name
        for value in entry.values.values():
            assert option is not None, name
            assert not option.choices or value in option.choices, name
        assert entry.use == name or name not in table() or table()[name].group == "gone", name


@given(st.dictionaries(st.sampled_from(sorted({*table(), *knowledge.options_of("mcore_adapter")})), st.integers(1, 9)))
def test_no_known_option_is_removed_or_renamed(values):
    """Whatever known options a config holds: afterwards every one is there, but for older names with a successor."""
    config = {**BASE, "tensor_model_parallel_size": 2, **values}
    found = fix(text_of(config), load(text_of(config)))
    lost = config.keys() - load(found.text).keys()
    assert all(table()[key].group == "gone" and table()[key].use in load(found.text) for key in lost)


VALUES = st.booleans() | st.integers() | st.text("aZ0_ .é値", max_size=8)


@given(st.dictionaries(st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=20), VALUES))
def test_no_unknown_key_vanishes(values):
    """A key that nobody knows is still there afterwards, with its value."""
    config = {**BASE, **values}
    after = load(fix(text_of(config), load(text_of(config))).text)
    for key, value in load(text_of(config)).items():
        assert key in after or key in synonyms() or known_somewhere(key)
        assert after.get(key, value) == value or known_somewhere(key)
