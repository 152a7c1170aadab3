"""The part of the program in which an out-of-memory traceback fails."""

from __future__ import annotations

import re
from functools import lru_cache

from doctor.core.events import Frame
from doctor.support.lazy_regex import lazy_compile

PLACES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, lazy_compile(pattern))
    for name, pattern in (
        ("engine", r"(?:^|/)(?:vllm|sglang)/|cumem_allocator"),
        ("merge", r"merge_and_unload|:export_model:|export_model\(|unload_and_optionally_merge|get_delta_weight|:merge\b|safe_merge"),
        (
            "save",
            r":save_model:|_save_checkpoint|save_pretrained|save_checkpoint|consolidated_16bit|save_16bit|save_fsdp|full_state_dict|"
            r"get_state_dict|gather_state_dict|:state_dict: .*(?:state_dict\(|clone)|serialization\.py:save|_save_to_state_dict",
        ),
        ("generate", r":generate:|\.generate\(|generation/utils|:_sample:|:_beam_search:"),
        ("gather", r"nested_concat|nested_gather|pad_across_processes|EvalLoopContainer|:compute_metrics:|preprocess_logits_for_metrics"),
        ("eval", r":evaluat(?:e|ion_loop):|:prediction_(?:step|loop):|:predict:|:_evaluate:"),
        (
            "flat_buffer",
            r"flatten_dense_tensors|stage_1_and_2.*:__init__|stage3.*:__init__|_create_fp32_partitions|_configure_zero_optimizer|"
            r"initialize_optimizer_states|bf16_optimizer.*:(?:__init__|_setup_for_real_optimizer)|single_partition_of_fp32|flat_buffer|"
            r"contiguous_gradients|ipg_bucket|dist\.Reducer\(|:_ddp_init_helper:",
        ),
        (
            "optimizer",
            r"exp_avg|_init_group|torch/optim/|(?:fused|_)adam|:_take_model_step:|stage(?:_1_and_2|3)\.py:step:|optimizer\.py:step:|"
            r"optimizer\.step\(|:_optimizer_step:|unscale_grads|bitsandbytes/optim",
        ),
        ("pinned", r"pin_memory|cudaHostAlloc|pinned"),
        ("reference", r"create_ref_model|ref_model|create_reward_model|reward_model|compute_reference_log_probs|value_head"),
        (
            "load",
            r"from_pretrained|_load_pretrained_model|load_state_dict|set_module_tensor_to_device|:load_model:|load_checkpoint_in_model|"
            r"_load_parameter|_materialize|:dispatch_model:|spawn_tp|core_model_loading|(?<!de)quantize_4bit|create_quantized_param|"
            r"_move_model_to_device|_sync_module_states|_broadcast_model|_configure_distributed_model|:init_adapter:|"
            r"[tT]rainer\.py:__init__:|:_prepare_model|:prepare_model: .*\.to\(|caching_allocator_warmup",
        ),
    )
)
"""Place -> expression on a frame (`file:function: code`); the first that matches any frame wins."""
ENGINE_WORDS = ("cumem_allocator", "CuMemAllocator", "cumem.py")
"""vLLM's own allocator (vllm/device_allocator), in messages that it prints without a traceback."""
LOGITS = lazy_compile(
    r"cross_entropy|log_softmax|logsumexp|CrossEntropyLoss|ForCausalLMLoss|loss_function|lm_head|logits|get_batch_logps|loss_fct|fused_linear"
)
VISION = lazy_compile(
    r"self\.visual\(|vision_(?:tower|model|embed\w*)\(|get_(?:image|video)_features|patch_embed\(|\.vpm\(|resampler|"
    r":Vision\w*(?:Attention|Block|Mlp|Encoder|Model)\w*:|"
    r"/(?:modeling_)?(?:clip|siglip2?|pixtral|intern_?vit|navit\w*)(?:/\w+)?\.py|modeling_(?:clip|siglip2?|\w*vit\w*)\.py"
)
BACKWARD = lazy_compile(r":backward:|\.backward\(|run_backward")
FORWARD = lazy_compile(r":forward:|:compute_loss:|:training_step:|:concatenated_forward:")


@lru_cache(16)
def place_of(frames: tuple[Frame, ...]) -> str | None:
    """The part of the program in which a traceback fails: a name of PLACES, or logits, vision, backward, forward; None if no frame matches.

    Any frame may match, except for logits, which only the two innermost frames decide: an outer `logits = model(...)` is part of every
    traceback of a forward pass. Cached, as all ranks fail alike.
    """
    places = [f"{frame.file}:{frame.function}: {frame.code}" for frame in frames]
    for name, pattern in PLACES:
        if any(pattern.search(place) for place in places):
            return name
    for name, pattern, inner in (
        ("logits", LOGITS, places[-2:]),
        ("vision", VISION, places),
        ("backward", BACKWARD, places),
        ("forward", FORWARD, places),
    ):
        if any(pattern.search(place) for place in inner):
            return name
    return None
