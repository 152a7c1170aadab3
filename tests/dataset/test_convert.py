"""Rows become the samples that LLaMA-Factory makes of them, or share their fate (tests/lab/dataset_proof.py asks LLaMA-Factory itself)."""

from __future__ import annotations

from typing import Any

import pytest

from doctor.dataset.attributes import Attributes, attributes, needed_columns
from doctor.dataset.convert import Sample, Turn, convert
from tests.dataset.sets import good, talk

TOOLED = attributes({"formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}})
CHAT = Attributes(formatting="sharegpt")
OPENAI = attributes(
    {
        "formatting": "openai",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "observation_tag": "tool",
            "function_tag": "call", "system_tag": "system",
        },
    }
)  # fmt: skip


def shape(sample: Sample) -> list[tuple[str, Any]]:
    return [(turn.role, turn.content) for turn in sample.turns()]


def test_an_alpaca_row_joins_its_columns_and_puts_the_history_first():
    """prompt, newline, query; the history in pairs before them."""
    about = attributes({"columns": {"prompt": "q", "query": "more", "response": "a", "history": "h", "system": "s"}})
    sample = convert({"q": "one", "more": "two", "a": "three", "h": [["x", "y"]], "s": "be kind"}, about, "sft")
    assert shape(sample) == [("user", "x"), ("assistant", "y"), ("user", "one\ntwo"), ("assistant", "three")]
    assert (sample.system, sample.fate) == ("be kind", "")


def test_columns_that_are_named_replace_all_defaults():
    """An entry with `columns` uses no column that it does not name (parser.py, DatasetAttr.join)."""
    assert needed_columns(Attributes()) == ["instruction", "input", "output"]
    assert needed_columns(attributes({"columns": {"prompt": "text"}})) == ["text"]
    assert needed_columns(attributes({"ranking": True, "columns": {"prompt": "p", "chosen": "c", "rejected": "r"}})) == ["p", "c", "r"]
    assert needed_columns(CHAT) == ["conversations"]


@pytest.mark.parametrize(
    ("row", "stage", "fate", "reason"),
    [
        (good(1, output=None), "sft", "dropped", "no_answer"),
        (good(1, output=3), "sft", "dropped", "answer_not_text"),
        (good(1, output=""), "sft", "", ""),
        (good(1, instruction=None), "sft", "", ""),
        (good(1, instruction=5), "sft", "crash", "not_text"),
        ({"instruction": "only a text"}, "pt", "", ""),
        (good(1), "kto", "dropped", "no_kto_tag"),
    ],
)
def test_the_fate_of_alpaca_rows(row, stage, fate, reason):
    """As LLaMA-Factory 0.9.5 treats them."""
    sample = convert(row, Attributes(), stage)
    assert (sample.fate, sample.reason) == (fate, reason)


@pytest.mark.parametrize(
    ("row", "fate", "reason"),
    [
        (talk(1), "", ""),
        (talk(1, "system", "human", "gpt"), "", ""),
        (talk(1, "human", "function_call", "observation", "gpt"), "dropped", "role_order"),
        (talk(1, "human", "human"), "dropped", "role_order"),
        (talk(1, "human", "bot"), "dropped", "role_order"),
        (talk(1, "human", "gpt", "human"), "dropped", "turn_count"),
        ({"conversations": []}, "dropped", "no_messages"),
        ({"conversations": None}, "crash", "messages_shape"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": None}]}, "crash", "not_text"),
    ],
)
def test_the_fate_of_conversations(row, fate, reason):
    """As LLaMA-Factory 0.9.5 treats them; a call that is no JSON is refused only by its formatter."""
    if row == talk(1, "human", "function_call", "observation", "gpt"):
        fate, reason = "crash", "function_json"
    sample = convert(row, CHAT, "sft")
    assert (sample.fate, sample.reason) == (fate, reason)


def test_tools_must_be_json():
    """A damaged description stops LLaMA-Factory; none is fine."""
    assert convert({**talk(1), "tools": "{"}, TOOLED, "sft").reason == "tools_json"
    assert convert({**talk(1), "tools": ""}, TOOLED, "sft").fate == ""
    assert convert({**talk(1), "tools": [{"name": "f"}]}, TOOLED, "sft").reason == "tools_json"


def test_openai_messages_join_answers_of_tools_and_write_calls_as_json():
    """Two neighbouring answers of tools become one turn; a call becomes JSON; the converter adds its own system words."""
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    row = {
        "messages": [
            {"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "1"},
            {"role": "tool", "content": "2"}, {"role": "assistant", "content": "done"},
        ]
    }  # fmt: skip
    sample = convert(row, OPENAI, "sft")
    assert shape(sample) == [
        ("user", "q"),
        ("function", '[{"name": "f", "arguments": {"a": 1}}]'),
        ("observation", "1\n</tool_response>\n<tool_response>\n2"),
        ("assistant", "done"),
    ]
    assert sample.system == "detailed thinking off"


def test_an_unknown_role_of_openai_messages_is_a_key_error():
    """In sharegpt the sample is only left out."""
    assert convert({"messages": [{"role": "bot", "content": "q"}]}, OPENAI, "sft").reason == "unknown_role"


def test_pairs_and_ratings():
    """The chosen answer first; the empty turn of KTO after a good answer and before a bad one."""
    pair = attributes({"ranking": True, "columns": {"prompt": "instruction", "chosen": "c", "rejected": "r"}})
    assert convert({"instruction": "q", "c": "good", "r": "bad"}, pair, "dpo").response == [
        Turn("assistant", "good"),
        Turn("assistant", "bad"),
    ]
    assert convert({"instruction": "q", "c": "good", "r": None}, pair, "dpo").reason == "no_pair"
    rated = attributes({"columns": {"prompt": "instruction", "response": "output", "kto_tag": "ok"}})
    assert [turn.content for turn in convert({**good(1), "ok": True}, rated, "kto").response] == ["It is 1.", ""]
    assert [turn.content for turn in convert({**good(1), "ok": False}, rated, "kto").response] == ["", "It is 1."]
    assert convert({**good(1), "ok": True}, rated, "sft").reason == "wrong_stage"


def test_kto_skips_a_good_answer_that_is_null_and_stops_at_a_bad_one():
    """feedback.py takes the other turn when the first is empty."""
    rated = attributes({"columns": {"prompt": "instruction", "response": "output", "kto_tag": "ok"}})
    assert convert({**good(1), "output": None, "ok": True}, rated, "kto").fate == ""
    assert convert({**good(1), "output": None, "ok": False}, rated, "kto").reason == "not_text"
