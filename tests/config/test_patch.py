"""Patch operations: what a remedy changes in a config, and what it keeps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.config.options import effective, effective_batch_size
from doctor.config.patch import Change, Unknown, apply, changes_of, fill, joined
from doctor.rulebook.model import Op, Remedy, Scale
from doctor.support.texts import Text

SAY = Text("x", "x")


def changed(config: dict[str, Any], *ops: Op, keep: tuple[str, ...] = (), facts: dict[str, Any] | None = None) -> dict[str, Any]:
    """New values by key; a removed key is None."""
    remedy = Remedy(id="r", text=SAY, patch=list(ops), keep=list(keep))
    scope = {"config": effective(config, facts), "fact": facts or {}, "run": {}, "plan": {"output_dir": "new"}}
    return {change.key: change.new for change in changes_of(remedy, config, scope)}


HALVE = Op(scale={"per_device_train_batch_size": Scale(by=0.5, at_least=1)})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"per_device_train_batch_size": 8}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}),
        (
            {"per_device_train_batch_size": 5, "gradient_accumulation_steps": 3},
            {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8},
        ),
        ({}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}),
        ({"per_device_train_batch_size": 1}, {}),
        ({"per_device_train_batch_size": "auto"}, {}),
        ({"per_device_train_batch_size": True}, {}),
    ],
)
def test_a_smaller_batch_keeps_the_effective_one(config, expected):
    """Accumulation takes over what the batch lost, rounded up; a batch of one, or no number, is left alone."""
    assert changed(config, HALVE, keep=("effective_batch_size",)) == expected


@given(st.integers(1, 4096), st.integers(1, 512))
def test_the_effective_batch_never_shrinks_and_grows_by_less_than_one_micro_batch(batch, steps):
    """For any sizes: old <= new < old + the new batch per device."""
    config = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
    after = {**config, **changed(config, HALVE, keep=("effective_batch_size",))}
    old, new = effective_batch_size(config), effective_batch_size(after)
    assert old is not None
    assert new is not None
    assert old <= new < old + after["per_device_train_batch_size"]


def test_numbers_fixed_in_inline_deepspeed_settings_follow():
    """transformers refuses a batch that contradicts the DeepSpeed settings, so fixed numbers there become auto."""
    config = {"per_device_train_batch_size": 4, "deepspeed": {"train_batch_size": 32, "zero_optimization": {"stage": 2}}}
    after = changed(config, HALVE, keep=("effective_batch_size",))
    assert after["deepspeed"] == {"train_batch_size": "auto", "zero_optimization": {"stage": 2}}
    assert config["deepspeed"]["train_batch_size"] == 32


RANK = Op(scale={"lora_rank": Scale(by=0.5, at_least=8)})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"lora_rank": 64, "lora_alpha": 128}, {"lora_rank": 32, "lora_alpha": 64}),
        ({"lora_rank": 64}, {"lora_rank": 32}),
        ({"lora_rank": 64, "lora_alpha": 100, "use_rslora": True}, {"lora_rank": 32, "lora_alpha": 71}),
        ({"lora_rank": 4, "lora_alpha": 8}, {}),
    ],
)
def test_a_smaller_rank_keeps_the_adapters_scale(config, expected):
    """A written alpha follows the rank (its square root under rsLoRA), an unwritten one follows by itself; a limit never raises."""
    assert changed(config, RANK, keep=("lora_scaling",)) == expected


@pytest.mark.parametrize(
    ("scale", "value", "new"),
    [
        (Scale(by=0.4, at_most=1e-4), 1.0, 1e-4),
        (Scale(by=0.4, at_most=1e-4), 1e-4, 4e-5),
        (Scale(by=0.4), "5e-5", 2e-5),
        (Scale(by=10, at_most=1e-4), 2e-4, None),
        (Scale(by=10, at_most=1e-4), 1e-5, 1e-4),
        (Scale(by=0.5), float("nan"), None),
    ],
)
def test_scaling_moves_one_way_only(scale, value, new):
    """A factor below one never raises and one above never lowers; numbers in quotes are read, not-a-numbers left."""
    assert changed({"learning_rate": value}, Op(scale={"learning_rate": scale})).get("learning_rate") == new


def test_setting_what_is_so_already_changes_nothing():
    """A default that is not written counts as set; true is not 1."""
    assert changed({}, Op(set={"dataloader_num_workers": 0})) == {}
    assert changed({"save_total_limit": 1}, Op(set={"save_total_limit": True})) == {"save_total_limit": True}


def test_removing_a_key():
    """Only what is given can be removed; the old value is kept in the change."""
    scope = {"config": effective({"fp16": True}), "fact": {}, "run": {}}
    found = changes_of(Remedy(id="r", text=SAY, patch=[Op(unset=["fp16", "bf16"])]), {"fp16": True}, scope)
    assert found == (Change("config", "unset", "fp16", True, None),)


def test_an_operation_may_have_a_condition_of_its_own():
    """Conditions of operations see the state before the remedy, whatever its other operations change."""
    ops = (Op(set={"stage": "dpo"}), Op(set={"pref_loss": "orpo"}, only_if={"config.stage": "orpo"}))
    assert changed({"stage": "orpo"}, *ops) == {"stage": "dpo", "pref_loss": "orpo"}
    assert changed({"stage": "simpo"}, *ops) == {"stage": "dpo"}


def test_placeholders_take_values_with_their_types():
    """One placeholder alone keeps the number a number, inside a text it becomes text, keys may be placeholders; unknown ones raise."""
    facts = {"number": 5e-5, "key": "optim"}
    assert changed({}, Op(set={"learning_rate": "{fact.number}"}), facts={"number": 3e-5}) == {"learning_rate": 3e-5}
    assert changed({}, Op(set={"{fact.key}": "sgd"}), facts=facts) == {"optim": "sgd"}
    assert changed({"output_dir": "a"}, Op(set={"tokenized_path": "{config.output_dir}-tokens"})) == {"tokenized_path": "a-tokens"}
    with pytest.raises(Unknown):
        fill("{fact.nothing}", {"config": {}, "fact": {}, "run": {}})


def test_deepspeed_settings_are_changed_in_place_only_where_they_stand_in_the_config():
    """Inline settings become a change of the config, a file becomes a change of the file."""
    op = Op(set={"zero_optimization.overlap_comm": False}, target="deepspeed")
    inline = {"deepspeed": {"zero_optimization": {"stage": 3, "overlap_comm": True}}}
    assert changed(inline, op) == {"deepspeed": {"zero_optimization": {"stage": 3, "overlap_comm": False}}}
    scope = {"config": effective({"deepspeed": "z3.json"}), "fact": {}, "run": {}}
    found = changes_of(Remedy(id="r", text=SAY, patch=[op]), {"deepspeed": "z3.json"}, scope)
    assert found == (Change("deepspeed", "set", "zero_optimization.overlap_comm", None, False),)


_KEYS = st.sampled_from(["lora_rank", "learning_rate", "fp16", "optim", "output_dir"])
_VALUES = st.one_of(st.none(), st.booleans(), st.integers(0, 99), st.text("abc", max_size=3))
_CHANGES = st.lists(
    st.builds(
        lambda key, op, new: Change("config", op, key, None, new if op == "set" else None),
        _KEYS,
        st.sampled_from(["set", "unset"]),
        _VALUES,
    )
)


@given(st.dictionaries(_KEYS, _VALUES), _CHANGES)
def test_applying_twice_is_applying_once_and_joining_loses_nothing(config, changes):
    """Patching is idempotent, and one joined change a key does what the whole sequence did."""
    once = apply(config, changes)
    assert apply(once, changes) == once
    together = joined(config, changes)
    assert apply(config, together) == once
    assert len({change.key for change in together}) == len(together)
