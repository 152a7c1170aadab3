"""The index of public names holds what release notes and threads say: each expectation was written from those, not from the index."""

from __future__ import annotations

import pytest

from doctor.diagnosis.unlisted.api_lookup import Found, asks, look_up
from doctor.diagnosis.unlisted.api_wanted import Kind, Wanted
from doctor.diagnosis.unlisted.places import Place


def found(kind: Kind, name: str, owner: str = "") -> Found:
    known = look_up(Wanted(kind=kind, name=name, owners=(owner,) if owner else ()))
    assert known is not None
    return known


REMOVED = [
    ("name", "DataCollatorForCompletionOnlyLM", "trl", "trl", "0.20.0"),
    ("name", "prepare_model_for_int8_training", "peft", "peft", "0.10.0"),
    ("name", "cached_download", "huggingface_hub", "huggingface_hub", "0.26"),
    ("name", "LlamaFlashAttention2", "transformers.models.llama.modeling_llama", "transformers", "4.48"),
    ("name", "HybridCache", "transformers", "transformers", "5.0"),
    ("name", "AdamW", "transformers", "transformers", "4.50"),
    ("name", "shard_checkpoint", "transformers.modeling_utils", "transformers", "4.47"),
    ("parameter", "dispatch_batches", "Accelerator.__init__", "accelerate", "1.0"),
    ("parameter", "tokenizer", "Trainer.__init__", "transformers", "5.0"),
    ("parameter", "max_seq_length", "SFTTrainer.__init__", "trl", "0.13"),
    ("name", "float", "numpy", "numpy", "1.24"),
]


@pytest.mark.parametrize(("kind", "name", "owner", "package", "since"), REMOVED)
def test_a_removed_name_ends_before_the_release_that_removed_it(kind: Kind, name: str, owner: str, package: str, since: str) -> None:
    """The release notes of `since`, or threads about it, name the removal."""
    known = found(kind, name, owner)
    assert known.package == package
    assert [(one.after or "").startswith(since.removesuffix(".0")) for one in known.ranges] == [True]


ADDED = [
    ("name", "Qwen2_5_VLForConditionalGeneration", "transformers", "transformers", "4.49"),
    ("name", "is_flash_attn_2_available", "transformers.utils", "transformers", "4.35"),
    ("parameter", "processing_class", "Trainer.__init__", "transformers", "4.46"),
    ("model_type", "llama", "", "transformers", "4.28"),
    ("model_type", "mistral", "", "transformers", "4.34"),
    ("model_type", "qwen2", "", "transformers", "4.37"),
    ("model_type", "gemma", "", "transformers", "4.38"),
    ("model_type", "qwen2_vl", "", "transformers", "4.45"),
    ("model_type", "qwen2_5_vl", "", "transformers", "4.49"),
    ("model_type", "gemma3", "", "transformers", "4.50"),
    ("model_type", "qwen3", "", "transformers", "4.51"),
    ("model_type", "llama4", "", "transformers", "4.51"),
    ("model_type", "qwen3_next", "", "transformers", "4.57"),
    ("name", "DPOConfig", "trl", "trl", "0.9"),
    ("name", "GRPOTrainer", "trl", "trl", "0.14"),
]


@pytest.mark.parametrize(("kind", "name", "owner", "package", "since"), ADDED)
def test_an_added_name_begins_with_its_release_and_stays(kind: Kind, name: str, owner: str, package: str, since: str) -> None:
    """The models' cards and the release notes name these releases."""
    known = found(kind, name, owner)
    (only,) = known.ranges
    assert (known.package, only.after) == (package, None)
    assert only.first == since
    assert only.before is not None


def test_a_name_of_every_release_says_nothing() -> None:
    """Its absence has another reason than the release."""
    assert look_up(Wanted(kind="name", name="LoraConfig", owners=("peft",))) is None


def test_a_name_of_no_release_is_known_as_such() -> None:
    """The original LLaMA repository spelt its classes in other letters' case than transformers."""
    known = found("name", "LLaMAForCausalLM", "transformers")
    assert (known.ranges, known.spelled) == ((), "LlamaForCausalLM")
    assert found("name", "BaichuanTokenizer", "transformers").spelled is None


def test_who_asks_for_a_removed_name_is_known_by_release() -> None:
    """peft up to 0.17 imports HybridCache from transformers; 0.18 no longer does (huggingface/peft#2828)."""
    wanted = Wanted(kind="name", name="HybridCache", owners=("transformers",), asker=Place("peft", "peft_model", "<module>"))
    (asking,) = asks("peft", wanted)
    assert asking.last.startswith("0.17.")
    assert asking.after == "0.18"


def test_an_unknown_package_and_an_unknown_class_say_nothing() -> None:
    """Neither is in the index."""
    assert look_up(Wanted(kind="name", name="x", owners=("some_package",))) is None
    assert look_up(Wanted(kind="attribute", name="x", owners=("MyOwnClass",))) is None
