"""config.json -> shape for the models of 2025-26: hybrids, unequal attention, experts, towers. Figures are computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from doctor.memory import activations, setup, static
from doctor.memory.model_config import from_config
from doctor.memory.names import lookup
from doctor.memory.shapes import Mixer, Shape, UnknownShape
from tests.memory.configs_2026 import CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_file_gives_the_published_size(name):
    """From its config.json every model has its published (or counted) number of parameters within 1 %."""
    published, raw = CONFIGS[name]
    assert from_config(raw).params == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_table_and_the_config_file_agree(name):
    """What decides the memory of a text run is the same by name and by config.json."""
    by_name, by_file = lookup(name), from_config(CONFIGS[name][1])
    for field in (
        "type",
        "hidden",
        "layers",
        "q",
        "kv",
        "vocab",
        "tied",
        "mlp_width",
        "attention",
        "mixer",
        "attending",
        "feeding",
        "streams",
    ):
        assert getattr(by_name, field) == getattr(by_file, field), field
    assert by_name.linear == by_file.linear


NEXT: dict[str, Any] = {
    "model_type": "qwen3_next",
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "intermediate_size": 16,
    "vocab_size": 10,
    "tie_word_embeddings": True,
    "linear_num_key_heads": 1,
    "linear_key_head_dim": 3,
    "linear_num_value_heads": 2,
    "linear_value_head_dim": 3,
    "linear_conv_kernel_dim": 4,
}
"""Three layers of gated delta net and one of gated attention."""


def test_a_gated_delta_net_by_hand():
    """Projections to q, k (3 each), v, z (6 each), decay and beta (2 each); convolution 12 x 4; A, dt and norm 2 + 2 + 3."""
    shape = from_config(NEXT)
    assert shape.mixer == Mixer(kind="delta_net", layers=3, into=(18, 4), inner=6, small=55)
    assert (shape.attending, shape.feeding) == (1, 4)
    assert shape.attention == 8 * (8 + 8 + 8) + 8 * (4 + 4)  # query, its gate, output, key and value
    assert shape.linear == 256 + 3 * (8 * 22 + 6 * 8) + 4 * 3 * 8 * 16
    assert shape.params == shape.linear + 80 + (2 * 4 + 1) * 8 + 3 * 55


def test_the_layers_of_a_hybrid_by_kind():
    """Each kind is a shape of its own, so that means and maxima are taken over real layers."""
    (attending, attention), (mixing, mixer) = from_config(NEXT).kinds
    assert (attending, mixing) == (1, 3)
    assert (attention.mixer, attention.attending, attention.feeding) == (None, 4, 4)
    assert (mixer.attending, mixer.feeding) == (0, 4)
    dense = from_config({**NEXT, "model_type": "qwen3"})
    assert dense.kinds == ((4, dense),)


def test_nemotrons_layers_have_one_part_each():
    """Of `M-M*` two layers are Mamba, one is attention, one an MLP of two matrices; one norm a layer."""
    raw = {
        "model_type": "nemotron_h",
        "hybrid_override_pattern": "M-M*",
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "intermediate_size": 16,
        "vocab_size": 10,
        "tie_word_embeddings": True,
        "mamba_num_heads": 2,
        "mamba_head_dim": 5,
        "ssm_state_size": 3,
        "n_groups": 1,
        "conv_kernel": 4,
    }
    shape = from_config(raw)
    assert [count for count, _ in shape.kinds] == [1, 2, 1]
    assert shape.mixer == Mixer(kind="mamba2", layers=2, into=(28,), inner=10, small=16 * 5 + 6 + 10)
    assert shape.linear == 8 * (16 + 8) + 2 * (8 * 28 + 10 * 8) + 2 * 8 * 16
    assert shape.small == (4 + 1) * 8 + 2 * 96
    with pytest.raises(UnknownShape, match="nemotron_h"):
        from_config({**raw, "moe_latent_size": 4})


def test_falcon_h1_has_attention_and_mamba_in_every_layer():
    """One kind of layer, with both."""
    ((count, layer),) = from_config(CONFIGS["tiiuae/Falcon-H1-7B-Instruct"][1]).kinds
    assert count == layer.attending == 44
    assert layer.mixer is not None


def plan(shape: Shape, **config: Any) -> setup.Setup:
    """A LoRA run of one sequence of 1,000 tokens."""
    return setup.read({"finetuning_type": "lora", "bf16": True, "cutoff_len": 1000, "per_device_train_batch_size": 1, **config}, {}, shape)


def test_adapters_of_a_hybrid_by_hand():
    """`lora_target: all` reaches the mixer's projections too; q_proj exists only where there is attention, and is twice as wide."""
    shape = from_config(NEXT)
    mlp = 3 * (8 + 16)
    attention = (8 + 16) + 2 * (8 + 4) + (8 + 8)
    mixer = (8 + 18) + (8 + 4) + (6 + 8)
    assert static.adapter_params(plan(shape, lora_rank=2), shape) == 2 * (attention + 3 * mixer + 4 * mlp)
    assert static.adapter_params(plan(shape, lora_rank=2, lora_target="q_proj"), shape) == 2 * (8 + 16)
    assert static.adapter_params(plan(shape, lora_rank=2, lora_target="in_proj_qkvz,out_proj"), shape) == 2 * (3 * (26 + 14) + 16)


def test_saved_activations_of_a_hybrid_are_the_mean_and_the_work_is_the_largest_layer():
    """By hand: a delta net saves 4 x 22 + 9 x 6 bytes a token beside norms and MLP, gated attention 4 x 8 more than plain, its norms of
    queries and keys 4 x 12.
    """
    shape = from_config(NEXT)
    run = plan(shape, flash_attn="fa2", lora_target="none")
    attention = 4 * 8 + 4 * 4 + 4 * 2 + 4 * 8 + 4 * 12
    mixer = 4 * 22 + 9 * 6
    common = 8 * 8 + 6 * 16  # two norms, gate, up and silu
    assert activations.saved_per_layer(run, shape) == common + (attention + 3 * mixer) / 4
    assert activations.layer_work(run, shape) == common + mixer + max(6 * 16 + 6 * 8, mixer)


def test_four_residual_streams_are_four_checkpoints():
    """Gemma 3n's AltUp passes four streams from layer to layer."""
    shape = lookup("google/gemma-3n-E4B-it")
    assert activations.checkpoint_per_layer(plan(shape), shape) == 4 * 2 * 2048


def test_full_layers_of_gemma_4_by_hand():
    """12B: 40 sliding layers (16 heads of 256, 8 for keys), 8 full ones (16 of 512, one for keys that are values as well)."""
    sliding, full = 3840 * 256 * (32 + 16), 3840 * 512 * (32 + 1)
    assert from_config(CONFIGS["google/gemma-4-12B-it"][1]).attention == (40 * sliding + 8 * full) // 48


def test_experts_in_their_dialects():
    """Experts, experts a token, their width, the shared width, plain layers: as Llama 4, Step, Hunyuan, ERNIE and Gemma 4 write them."""

    def experts(name: str) -> tuple[int, ...]:
        shape = from_config(CONFIGS[name][1])
        return shape.experts, shape.active, shape.expert_intermediate, shape.shared_intermediate, shape.dense_layers

    assert experts("meta-llama/Llama-4-Maverick-17B-128E-Instruct") == (128, 1, 8192, 8192, 24)
    assert experts("stepfun-ai/Step-3.5-Flash") == (288, 8, 1280, 1280, 3)
    assert experts("tencent/Hunyuan-A13B-Instruct") == (64, 8, 3072, 3072, 0)
    assert experts("baidu/ERNIE-4.5-21B-A3B-PT") == (64, 6, 1536, 3072, 1)
    assert experts("google/gemma-4-26B-A4B-it") == (128, 8, 704, 2112, 0)
    assert experts("MiniMaxAI/MiniMax-M2") == (256, 8, 1536, 0, 0)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ({**NEXT, "model_type": "minimax_m1", "layer_types": ["linear_attention", "full_attention"] * 2}, "minimax_m1"),
        ({**NEXT, "model_type": "lfm2"}, "does not list its layers"),
        ({**NEXT, "model_type": "granitemoehybrid", "layer_types": "['mamba']"}, "does not list its layers"),
        ({name: value for name, value in NEXT.items() if name != "linear_num_key_heads"}, "linear_num_key_heads"),
        ({**NEXT, "model_type": "kimi_linear"}, "kimi_linear"),
    ],
)
def test_layers_that_are_not_understood_are_refused(raw, why):
    """No figure rather than a wrong one: unknown kinds of layers, layers that are not listed, sizes that are missing."""
    with pytest.raises(UnknownShape, match=why):
        from_config(raw)
