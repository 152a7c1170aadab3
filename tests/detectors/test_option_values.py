"""Unknown keys and illegal values: found in what the user wrote, by the version that runs, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from doctor.config.values import as_number
from doctor.core.events import ConfigSeen, Fact, LogLine, Origin, Where
from doctor.core.run import Run
from doctor.detectors.option_values import OptionValues

HERE = Where("c.yaml", 1)


def found(detector: OptionValues, config: dict[str, Any], *, origin: Origin = "yaml", **facts: str) -> dict[str, dict[str, Any]]:
    """Facts by key."""
    run = Run()
    for name, value in facts.items():
        run.apply(Fact(where=HERE, name=f"versions.{name}", value=value))
    event = ConfigSeen(where=HERE, values=config, origin=origin)
    run.apply(event)
    assert list(detector.feed(event, run)) == []
    return {match.key: match.facts for match in detector.finish(run)}


def test_unknown_keys_are_told_one_by_one_with_what_was_meant():
    """A slip, a key that never was, and nonsense; known ones are silent."""
    config = {"model_name_or_path": "m", "lora_ranks": 8, "gptq_bits": 4, "foo_bar": 1, "lora_rank_x_y_z": 1}
    told = found(OptionValues(problem="unknown"), config)
    assert (told["lora_ranks"]["similar"], "suggested" in told["lora_ranks"]) == ("lora_rank", False)
    assert "suggested" not in told["gptq_bits"]
    assert "suggested" not in told["foo_bar"]


def test_the_running_version_decides():
    """group_by_length is legal under transformers 4 and gone in 5; image_resolution lived in LLaMA-Factory 0.9.0 and 0.9.1."""
    detector = OptionValues(problem="unknown")
    assert found(detector, {"group_by_length": True}, transformers="4.57.1", llamafactory="0.9.5") == {}
    gone = found(OptionValues(problem="unknown"), {"group_by_length": True}, transformers="5.6.0", llamafactory="0.9.5")
    assert gone["group_by_length"]["package"] == "transformers 5.6.0"
    assert found(OptionValues(problem="unknown"), {"image_resolution": 512}, llamafactory="0.9.1") == {}
    assert "image_resolution" in found(OptionValues(problem="unknown"), {"image_resolution": 512}, llamafactory="0.9.3")


def test_what_a_run_recorded_itself_is_never_unknown():
    """training_args.bin holds only what was accepted; configs of the v1 trainer and of the benchmark command have keys of their own."""
    assert found(OptionValues(problem="unknown"), {"foo_bar": 1}, origin="training_args") == {}
    assert found(OptionValues(problem="unknown"), {"model": "m", "micro_batch_size": 1}) == {}
    assert found(OptionValues(problem="unknown"), {"task": "mmlu_test", "model_name_or_path": "m"}) == {}


def test_a_console_without_a_version_lowers_the_confidence():
    """Old versions knew other keys, so beside a log of an unknown version the finding is too unsure to be patched."""
    run = Run()
    event = ConfigSeen(where=HERE, values={"foo_bar": 1})
    for one in (LogLine(where=HERE, text="x"), event):
        run.apply(one)
    detector = OptionValues(problem="unknown")
    list(detector.feed(event, run))
    assert next(detector.finish(run)).confidence == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("config", "of", "meant"),
    [
        ({"lr_scheduler_type": "cosin"}, "training", {"similar": "cosine"}),
        ({"lr_scheduler_type": "Cosine"}, "training", {"suggested": "cosine"}),
        ({"save_strategy": False}, "training", {"suggested": "no"}),
        ({"optim": "adamw_hf"}, "training", {"suggested": "adamw_torch"}),
        ({"optim": "AdamW"}, "training", {"suggested": "adamw_torch"}),
        ({"quantization_type": "int8"}, "other", {}),
        ({"pref_loss": "sigmod"}, "other", {"similar": "sigmoid"}),
        ({"mix_strategy": "first_exhausted"}, "other", {"suggested": "interleave_under"}),
        ({"infer_dtype": "bf16"}, "other", {"suggested": "bfloat16"}),
        ({"infer_backend": "vlm"}, "other", {"similar": "vllm"}),
    ],
)
def test_only_a_table_says_what_an_illegal_value_means(config, of, meant):
    """Another name or other capitals of a legal value are suggested; what is merely spelt like one is similar; the legal ones are told."""
    [facts] = found(OptionValues(problem="choice", of=of), config).values()
    assert {name: facts[name] for name in ("suggested", "similar") if name in facts} == meant
    assert facts["legal"]


def test_legal_and_absent_values_are_silent():
    """Null means the default; an option that takes true as well as names takes both."""
    config = {"optim": "sgd", "lr_scheduler_type": None, "stage": "sft", "hub_strategy": "end"}
    assert found(OptionValues(problem="choice", of="training"), config) == {}
    assert found(OptionValues(problem="choice", of="other"), config) == {}


def test_a_value_of_a_version_that_the_run_may_have_is_no_mistake():
    """0.9.4 alone has `infer_backend: ktransformers` (extras/constants.py EngineName.KT)."""
    config = {"infer_backend": "ktransformers"}
    assert found(OptionValues(problem="choice", of="other"), config) == {}
    assert found(OptionValues(problem="choice", of="other"), config, llamafactory="0.9.4") == {}
    assert "infer_backend" in found(OptionValues(problem="choice", of="other"), config, llamafactory="0.9.5")


def test_numbers_and_nothing_in_quotes():
    """A number as text where no text is legal; the text None where nothing is meant, but not where none is a value."""
    told = found(OptionValues(problem="number_as_text"), {"learning_rate": "5e-5", "per_device_train_batch_size": "4", "run_name": "12"})
    assert told == {
        "learning_rate": {"key": "learning_rate", "given": "5e-5", "number": 5e-5},
        "per_device_train_batch_size": {"key": "per_device_train_batch_size", "given": "4", "number": 4},
    }
    assert found(OptionValues(problem="none_as_text"), {"max_samples": "None", "report_to": "none"}).keys() == {"max_samples"}


@pytest.mark.parametrize(("text", "number"), [("4", 4), (" 5e-5 ", 5e-05), ("1_0", 10.0), ("x", None), ("nan", None), ("", None)])
def test_what_counts_as_a_number(text, number):
    """Whole numbers stay whole; not-a-number is none."""
    assert as_number(text) == number


@pytest.mark.parametrize("given", [{"problem": "spelling"}, {"problem": "choice"}, {"problem": "unknown", "of": "training"}])
def test_impossible_parameters_are_refused(given):
    """A rule's author is told at once."""
    with pytest.raises(ValueError, match=r"problem|of"):
        OptionValues(**given)
