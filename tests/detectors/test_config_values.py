"""Conditions on the config alone: effective values, whole configs, and where the evidence stands."""

from __future__ import annotations

from typing import Any

import pytest

from doctor.core.events import ConfigSeen, Origin, Where
from doctor.core.run import Run
from doctor.detectors.config_values import ConfigValues
from doctor.rulebook.findings import Match


def looked(detector: ConfigValues, config: dict[str, Any], origin: Origin = "yaml") -> list[Match]:
    """What the detector says of one config."""
    run = Run()
    event = ConfigSeen(where=Where("c.yaml", 7), values=config, origin=origin)
    run.apply(event)
    return [*detector.feed(event, run), *detector.finish(run)]


def test_defaults_count_and_the_given_keys_are_the_evidence():
    """An unwritten option has its default; what is quoted is what stands in the file."""
    detector = ConfigValues(all={"config.finetuning_type": "lora", "config.quantization_bit": 4})
    (match,) = looked(detector, {"quantization_bit": 4})
    assert [piece.text for piece in match.evidence] == ["quantization_bit: 4"]
    assert match.where == Where("c.yaml", 7)
    assert match.facts == {"quantization_bit": 4, "finetuning_type": "lora"}


def test_any_and_all_must_both_hold():
    """`any` is one more condition, not an alternative to `all`."""
    detector = ConfigValues(all={"config.stage": "dpo"}, any=[{"config.fp16": True}, {"config.bf16": True}])
    assert looked(detector, {"stage": "dpo", "bf16": True})
    assert not looked(detector, {"stage": "dpo"})
    assert not looked(detector, {"bf16": True})


def test_a_missing_key_means_nothing_in_a_recovered_config():
    """`whole: true` asks for the user's own file or command."""
    config = {"do_train": True}
    assert looked(ConfigValues(all={"config.dataset": None}, whole=True), config)
    assert not looked(ConfigValues(all={"config.dataset": None}, whole=True), config, "training_args")


def test_other_trainers_and_no_config_at_all_are_left_alone():
    """The v1 trainer's keys are its own; without a config there is nothing to say."""
    detector = ConfigValues(all={"config.bf16": False})
    assert not looked(detector, {"model": "m", "bf16": False})
    assert not looked(detector, {})


@pytest.mark.parametrize("given", [{}, {"all": {"colour": "red"}}, {"any": [{"config.x": {"like": 3}}]}])
def test_impossible_parameters_are_refused(given):
    """A rule's author is told at once."""
    with pytest.raises(ValueError, match=r"needs|path|operator"):
        ConfigValues(**given)
