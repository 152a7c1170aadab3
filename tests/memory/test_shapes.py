"""Model shapes: the table, names, config.json files."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.errors import DoctorError
from doctor.memory.model_config import from_config
from doctor.memory.names import base_of, family, known_models, lookup, read_json
from doctor.memory.shapes import UnknownShape

ALL = known_models()


@pytest.mark.parametrize("entry", ALL, ids=[entry.names[0] for entry in ALL])
def test_every_shape_adds_up_to_the_published_size(entry):
    """The sizes of an entry give its published number of parameters within 1 %: a wrong width or layer count cannot hide."""
    assert entry.shape.params / 1e9 == pytest.approx(entry.params_b, rel=0.01)
    assert entry.source.startswith("https://")


def test_the_table_covers_what_people_train():
    """At least 60 shapes, experts and vision towers among them, and no name in two entries."""
    names = [name.lower() for entry in ALL for name in entry.names]
    assert len(ALL) >= 60
    assert len(names) == len(set(names))
    assert sum(entry.shape.experts > 0 for entry in ALL) >= 8
    assert sum(entry.shape.vision is not None for entry in ALL) >= 8


@pytest.mark.parametrize(
    ("name", "same_as"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B"),
        ("/data/models/Qwen2.5-7B-Instruct/", "Qwen/Qwen2.5-7B"),
        ("C:\\models\\Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
        ("unsloth/Qwen2.5-7B-Instruct-bnb-4bit", "Qwen/Qwen2.5-7B"),
        ("LLM-Research/Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B"),
        ("NousResearch/Hermes-mirror/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B"),
        ("/root/.cache/huggingface/hub/models--Qwen--Qwen2.5-7B-Instruct/snapshots/0a1b2c", "Qwen/Qwen2.5-7B"),
        ("/mnt/workspace/.cache/modelscope/hub/Qwen/Qwen2___5-7B-Instruct", "Qwen/Qwen2.5-7B"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "mistralai/Mistral-7B-v0.1"),
        ("Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B"),
    ],
)
def test_names_that_share_a_shape_are_found(name, same_as):
    """Instruct, quantised, mirrored, cached and local names lead to the base model's sizes."""
    assert lookup(name).params == lookup(same_as).params


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen2.5-9B", "my-model", "deepseek-ai/DeepSeek-V9", "meta-llama/Llama-3-7B", "Qwen2.5", "", "/", "checkpoint-7B"]
)
def test_unknown_models_are_refused_by_name(name):
    """A size that is not listed is never replaced by a near one; the error names the model."""
    with pytest.raises(UnknownShape) as caught:
        lookup(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("me/Qwen2.5-7B-Instruct-my-sft", "Qwen/Qwen2.5-7B"),
        ("saves/Llama-3.1-8B_math_v2", "meta-llama/Meta-Llama-3-8B"),
        ("me/Llama-3-8B-Instruct-Pro", None),
        ("me/Qwen2.5-7B-VL-test", None),
        ("me/Llama-3.1-8B-pruned-4B", None),
        ("me/qwen-tuned", None),
    ],
)
def test_fine_tunes_named_after_a_base(name, base):
    """A known base with a harmless suffix is taken as the base; suffixes that hint at another shape are refused."""
    found = base_of(name)
    assert (found and found.names[0]) == base
    if base is None:
        with pytest.raises(UnknownShape):
            lookup(name)


def test_layers_of_another_kind_are_refused():
    """State-space models are not decoders of attention and MLP: no figure rather than a wrong one."""
    with pytest.raises(UnknownShape, match="jamba"):
        from_config({**CONFIGS["meta-llama/Meta-Llama-3-8B"], "model_type": "jamba"})


def test_the_name_tells_how_weights_are_stored():
    """GPTQ, AWQ and pre-quantised names are loaded as such."""
    assert lookup("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4").quantized == "gptq4"
    assert lookup("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8").quantized == "gptq8"
    assert lookup("Qwen/Qwen2.5-7B-Instruct-AWQ").quantized == "awq4"
    assert lookup("unsloth/Qwen2.5-7B-bnb-4bit").quantized == "nf4"
    assert lookup("Qwen/Qwen2.5-7B").quantized == ""


def test_a_folder_with_a_config_is_preferred_to_its_name(tmp_path):
    """A local model called like a known one but of another size is taken as what its config.json says."""
    folder = tmp_path / "Qwen2.5-7B"
    folder.mkdir()
    config = {"model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1000}
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 128, "num_key_value_heads": 2}))
    assert lookup(str(folder)).hidden == 64


CONFIGS = {
    "meta-llama/Meta-Llama-3-8B": {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "THUDM/chatglm3-6b": {
        "model_type": "chatglm",
        "hidden_size": 4096,
        "num_layers": 28,
        "num_attention_heads": 32,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "kv_channels": 128,
        "ffn_hidden_size": 13696,
        "padded_vocab_size": 65024,
    },
    "Qwen/Qwen-7B": {
        "model_type": "qwen",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 22016,
        "kv_channels": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen3-30B-A3B": {
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
    "deepseek-ai/DeepSeek-V2-Lite": {
        "model_type": "deepseek_v2",
        "hidden_size": 2048,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 512,
        "q_lora_rank": None,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": 102400,
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "model_type": "qwen2_5_vl",
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "vision_config": {
            "depth": 32,
            "hidden_act": "silu",
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "spatial_merge_size": 2,
        },
    },
    "google/gemma-3-4b-it": {
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "num_hidden_layers": 34,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "intermediate_size": 10240,
            "vocab_size": 262208,
        },
        "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27, "intermediate_size": 4304, "patch_size": 14},
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_file_gives_the_same_size_as_the_table(name):
    """The reader of config.json understands the dialects of the families: both ways lead to one number of parameters."""
    assert from_config(CONFIGS[name]).params == pytest.approx(lookup(name).params, rel=0.01)


def test_a_quantised_config_is_recognised():
    """quantization_config of a checkpoint decides how wide its weights are."""
    base = CONFIGS["meta-llama/Meta-Llama-3-8B"]
    assert from_config({**base, "quantization_config": {"quant_method": "gptq", "bits": 8}}).quantized == "gptq8"
    assert from_config({**base, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}).quantized == "nf4"


@given(
    st.dictionaries(
        st.sampled_from([*CONFIGS["Qwen/Qwen3-30B-A3B"], "text_config", "vision_config", "quantization_config"]),
        st.none()
        | st.integers()
        | st.text(max_size=5)
        | st.lists(st.integers(), max_size=2)
        | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    )
)
def test_any_mapping_is_a_shape_or_a_refusal(raw):
    """Whatever a config.json holds, it is read or refused with UnknownShape; nothing else is raised."""
    with contextlib.suppress(UnknownShape):
        assert from_config(raw).params >= 0


def test_broken_json_is_told(tmp_path):
    """A config.json that is none is an error that names the file."""
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(DoctorError, match=r"config\.json"):
        read_json(path)


def test_family_keeps_what_changes_the_size():
    """Only parts of a name that leave the shape alone are dropped; without a size there is no family."""
    assert family("Qwen2.5-7B-Instruct-GPTQ-Int4") == family("qwen2.5-7b") == "qwen2.57b"
    assert family("Qwen2.5-Coder-7B") != family("Qwen2.5-7B")
    assert family("DeepSeek-V3") == ""
