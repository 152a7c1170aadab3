"""LLaMA-Factory's options: what exists in which version, what a config means, what a slip was meant to be."""

from __future__ import annotations

import pytest

from doctor.config import options
from doctor.config.options import effective, effective_batch_size, suggestion, table
from doctor.config.versions import NEWEST, parse, versions_of
from doctor.core.events import ConfigSeen, Fact, Where
from doctor.core.run import Run
from doctor.rulebook.conditions import holds

HERE = Where("here")


def test_every_option_has_a_default_of_its_own_type():
    """The table is whole: hundreds of options, and no default that its own type or choices forbid."""
    kinds = {"bool": bool, "int": int, "float": (int, float), "str": str, "list": list, "dict": dict, "null": type(None)}
    assert len(table()) > 350
    for name, option in table().items():
        if option.group == "gone" or option.type == "any":
            continue
        allowed = tuple(kind for word in option.type.split("|") for kind in ([kinds[word]] if word != "any" else [object]))
        flat = tuple(part for kind in allowed for part in (kind if isinstance(kind, tuple) else (kind,)))
        assert option.default is None or isinstance(option.default, flat), name
        assert not option.choices or option.default is None or option.default in option.choices, name


def test_versions_decide_what_exists_and_what_the_default_is():
    """cutoff_len was 1024 up to 0.9.0; group_by_length went with transformers 5; use_unsloth_gc is not in 0.8."""
    assert effective({})["cutoff_len"] == 2048
    assert effective({}, {"versions.llamafactory": "0.9.0"})["cutoff_len"] == 1024
    assert not table()["group_by_length"].exists_in(NEWEST)
    assert table()["group_by_length"].exists_in({**NEWEST, "transformers": (4, 57, 1)})
    assert not table()["use_unsloth_gc"].exists_in({**NEWEST, "llamafactory": (0, 8, 3)})
    assert versions_of({"versions.llamafactory": "0.8.3"})["transformers"][0] == 4


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        ({"lora_rank": 32}, "lora_alpha", 64),
        ({"stage": "pt"}, "packing", True),
        ({"deepspeed": "examples/deepspeed/ds_z3_offload_config.json"}, "zero_stage", 3),
        ({"deepspeed": "examples/deepspeed/ds_z3_offload_config.json"}, "zero_offload", True),
        ({"deepspeed": {"zero_optimization": {"stage": 2, "overlap_comm": True}}}, "zero_overlap_comm", True),
        ({"deepspeed": '{"zero_optimization": {"stage": 1}}'}, "zero_stage", 1),
        ({"deepspeed": "my.json"}, "zero_stage", None),
        ({}, "zero_stage", 0),
        ({"stage": "dpo", "finetuning_type": "full"}, "loads_reference_model", True),
        ({"stage": "dpo", "finetuning_type": "lora"}, "loads_reference_model", False),
        ({"stage": "dpo", "finetuning_type": "full", "pref_loss": "orpo"}, "loads_reference_model", False),
        ({"warmup_steps": 50, "max_steps": 200}, "warmup_share", 0.25),
        ({"warmup_steps": 0.05}, "warmup_share", 0.05),
        ({"warmup_steps": 50}, "warmup_share", None),
        ({"eval_steps": 200, "save_steps": 500}, "saves_at_evaluations", False),
    ],
)
def test_what_a_config_means(config, key, value):
    """Values that follow from others are those LLaMA-Factory would arrive at."""
    assert effective(config)[key] == value


def test_a_console_fills_in_for_a_missing_config_but_never_overrules_one():
    """A log alone tells the method and the batch; what the config says goes first."""
    facts = {"finetuning_method": "Full", "batch.per_device": 4, "gradient_checkpointing": False}
    values = effective({}, facts)
    assert (values["finetuning_type"], values["per_device_train_batch_size"]) == ("full", 4)
    assert values["disable_gradient_checkpointing"] is True
    assert effective({"finetuning_type": "lora"}, facts)["finetuning_type"] == "lora"


def test_effective_batch_size():
    """Per device x accumulation x ranks, defaults included; no number where one part is none."""
    assert effective_batch_size({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}, 4) == 64
    assert effective_batch_size({}) == 8
    assert effective_batch_size({"per_device_train_batch_size": "2"}) is None
    assert effective_batch_size({"gradient_accumulation_steps": 10**400}) is None  # no JSON reader takes such a number
    assert effective_batch_size({"gradient_accumulation_steps": -1}) is None


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("quant_type", "quantization_type"),
        ("evaluation_strategy", "eval_strategy"),
        ("per_gpu_train_batch_size", "per_device_train_batch_size"),
        ("learning-rate", "learning_rate"),
        ("lora_ranks", "lora_rank"),
        ("foo_bar", None),
    ],
)
def test_did_you_mean(slip, meant):
    """Renamed options lead to their successors, slips to the nearest option, nonsense to nothing."""
    assert suggestion(slip, NEWEST) == meant


def test_versions_are_compared_as_numbers():
    """0.9.10 is newer than 0.9.9, and what is no number ends a version."""
    assert parse("0.9.10") > parse("0.9.9")
    assert parse("v0.9.5.dev0") == (0, 9, 5)
    assert parse("unknown") == ()


def test_rules_can_ask_for_config_facts_and_shape():
    """One condition may mix defaults, facts of the run and its shape."""
    run = Run()
    run.apply(ConfigSeen(where=HERE, values={"lora_rank": 4}))
    run.apply(Fact(where=HERE, name="world_size", value=2))
    condition = {"config.lora_alpha": 8, "config.finetuning_type": "lora", "fact.world_size": {"ge": 2}, "run.last_step": None}
    assert holds(condition, options.scope_of(run, {}))
    assert holds({"written.lora_rank": 4, "written.finetuning_type": None}, options.scope_of(run, {}))
    assert not holds({"config.lora_alpha": 16}, options.scope_of(run, {}))
