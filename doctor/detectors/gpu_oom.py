"""`gpu_oom`: a card ran out of memory; the message's numbers, the failing frames and the config as facts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from doctor.config.options import effective
from doctor.core.events import Crash, Event, Frame, LogLine
from doctor.core.run import Run
from doctor.detectors.base import DetectorBase
from doctor.rulebook.findings import Evidence, Match
from doctor.support.lazy_regex import lazy_compile

GIB = 2**30
UNITS = {"bytes": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": GIB, "TiB": 2**40}
SIZE = r"([\d.]+) ?(bytes|[KMGT]i?B)"
CONTEXT_GIB = 1.5
"""A process holds about this much beside PyTorch's own memory: CUDA context, cuBLAS, NCCL (0.3 on a consumer card to 1.4 on an H100)."""
LARGEST_VOCABULARY = 262_144
"""Gemma's; no popular model has more tokens, so no logits are larger than batch x length x this x 4 bytes."""

HEADS = tuple(
    lazy_compile(pattern)
    for pattern in (
        # torch 1.x to 2.13, ROCm, torch_npu, Intel, Moore Threads, Cambricon: "<device> out of memory. Tried to allocate ..."
        r"\b(?P<device>CUDA|HIP|NPU|XPU|MUSA|MLU|GCU|HPU|SDAA) out of memory(?:\.|$| \()",
        # torch 1.12 and later on Apple silicon
        r"(?P<device>MPS) backend out of memory",
        # torch 2.x with backend:cudaMallocAsync
        r"Allocation on device(?: \d+)? would exceed allowed memory",
        # a CUDA call itself failed: RuntimeError, torch.AcceleratorError (torch 2.8), Triton
        r"(?P<device>CUDA|HIP)(?: driver)? error:? (?:\(\d+\): )?out of memory",
        r"(?P<device>CUDA)_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|hipErrorOutOfMemory",
        r"CU(?:BLAS|DNN|SOLVER|SPARSE)_STATUS_ALLOC_FAILED",
        # NCCL's own allocations (2.10 and later)
        r"Cuda failure (?:\d+ )?'out of memory'|Failed to CUDA calloc",
        # bitsandbytes' csrc: "Error out of memory at line 380 in file ..."
        r"Error out of memory at line \d+ in file",
        # CANN: ACL_ERROR_RT_MEMORY_ALLOCATION
        r"(?P<device>NPU) .*error code is 207001",
        r"^torch\.(?:cuda\.)?OutOfMemoryError\b",
        # accelerate's find_executable_batch_size swallowed one such message after the other
        r"No executable batch size found",
    )
)
FIELDS = {
    "wanted": (rf"Tried to allocate {SIZE}", rf"Requested\s*:\s*{SIZE}"),
    "total": (rf"total capaci?ty of {SIZE}", rf"{SIZE} total capacity", rf"max allowed: {SIZE}", rf"Device limit\s*:\s*{SIZE}"),
    "free": (rf"of which {SIZE} is free", rf"{SIZE} free", rf"Free \(according to CUDA\)\s*:\s*{SIZE}"),
    "allocated": (
        rf"{SIZE} is allocated by PyTorch",
        rf"{SIZE} already allocated",
        rf"MPS allocated: {SIZE}",
        rf"Currently allocated\s*:\s*{SIZE}",
    ),
    "reserved": (rf"{SIZE} is reserved by PyTorch but unallocated",),
    "held": (rf"{SIZE} reserved in total", rf"{SIZE} cached"),
    "process": (rf"this process has {SIZE} memory in use",),
    "outside": (rf"other allocations: {SIZE}",),
}
COMPILED_FIELDS = {name: tuple(lazy_compile(pattern) for pattern in patterns) for name, patterns in FIELDS.items()}
PROCESSES = lazy_compile(rf"Process \d+ has {SIZE} memory in use")
GPU = lazy_compile(r"\b[GNX]PU ([\x00-\x07]|\d+)[ ;]")
CONTINUED = ("GiB", "MiB", "reserved in total", "allocated by PyTorch", "already allocated")
COMPLETE = ("reserved but unallocated memory is large", "reserved in total", "cached)", "max allowed")

PLACES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, lazy_compile(pattern))
    for name, pattern in (
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
            r"contiguous_gradients|ipg_bucket",
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
            r"_load_parameter|_materialize|:dispatch_model:|spawn_tp|core_model_loading|quantize_4bit|create_quantized_param|"
            r"_move_model_to_device|_sync_module_states|_broadcast_model|_configure_distributed_model|:init_adapter:|"
            r"[tT]rainer\.py:__init__:|:_prepare_model|:prepare_model: .*\.to\(|caching_allocator_warmup",
        ),
    )
)
LOGITS = lazy_compile(
    r"cross_entropy|log_softmax|logsumexp|CrossEntropyLoss|ForCausalLMLoss|loss_function|lm_head|logits|get_batch_logps|loss_fct|fused_linear"
)
VISION = lazy_compile(
    r"self\.visual\(|vision_(?:tower|model|embed\w*)\(|get_(?:image|video)_features|patch_embed\(|\.vpm\(|resampler|"
    r"/(?:modeling_)?(?:clip|siglip2?|pixtral|intern_?vit|navit\w*)(?:/\w+)?\.py|modeling_(?:clip|siglip2?|\w*vit\w*)\.py"
)
BACKWARD = lazy_compile(r":backward:|\.backward\(|run_backward")
FORWARD = lazy_compile(r":forward:|:compute_loss:|:training_step:|:concatenated_forward:")
SAVING_WORDS = ("after returning from state_dict() call", "Failed to clone() tensor with name")
"""torch's FSDP says so in a warning, without a traceback, where the whole state dict does not fit."""
PHASE_OF_PLACE = {
    "merge": "export",
    "save": "save",
    "generate": "predict",
    "gather": "eval",
    "eval": "eval",
    "load": "load",
    **dict.fromkeys(("flat_buffer", "optimizer", "vision", "logits", "backward", "forward"), "train"),
}
NUMBERS = ("wanted_gib", "total_gib", "free_gib", "allocated_gib", "reserved_gib", "process_gib", "others_gib", "gpu")
SHARES = ("wanted_share", "allocated_share", "reserved_share", "others_share")
FROM_CONFIG = ("weights_gib", "weights_share", "request_over_logits", "request_is")


class GpuOom(DetectorBase):
    """No parameters: every rule about a full card shares one instance and asks for its facts under `where`.

    Facts of the message: `device` (cuda, hip, npu, xpu, mps, ...), `generation` (numbers | legacy | bare), `gpu`, `wanted_gib`,
    `total_gib`, `free_gib`, `allocated_gib` (live tensors of this process), `reserved_gib` (kept by PyTorch, unused), `process_gib`
    (this process), `others_gib` (what on the card is not this process's); `wanted_share`, `allocated_share`, `reserved_share` and
    `others_share` of the card; `reserved_over_wanted` (how many times the request the unused part is).
    Facts of the traceback: `place` (load, reference, pinned, forward, logits, vision, backward, optimizer, flat_buffer, eval, gather,
    generate, save, merge) and `phase` (the place's, else the reader's).
    Facts that need the config: `weights_gib` (16-bit or quantised, by the run's parameter count or the size in the model's name),
    `weights_share` (of all cards together: as many as the run tells of, and at least those whose messages are seen),
    `request_over_logits` (the request is more than batch x length x the largest vocabulary x 4 bytes),
    `request_is` (logits | parameters).
    `multi_gpu` is true where a second rank or card shows itself. Several messages of one attempt are told as one, their facts added up.
    """

    reads: ClassVar[tuple[type[Event], ...]] = (LogLine, Crash)
    needs: tuple[str, ...] = ("text",)
    facts: tuple[str, ...] = (
        "device",
        "generation",
        "place",
        "phase",
        "multi_gpu",
        *NUMBERS,
        *SHARES,
        "reserved_over_wanted",
        *FROM_CONFIG,
    )
    literals: tuple[str, ...] = (
        "out of memory",
        "OutOfMemory",
        "OUT_OF_MEMORY",
        "ALLOC_FAILED",
        "cudaErrorMemoryAllocation",
        "would exceed allowed memory",
        "Failed to CUDA calloc",
        "error code is 207001",
        "No executable batch size",
        *CONTINUED,
    )

    def __init__(self) -> None:
        self._known: dict[int, dict[str, Any]] = {}
        self._evidence: dict[int, Evidence] = {}
        self._open: dict[int | None, tuple[str, int]] = {}

    def feed(self, event: LogLine | Crash, run: Run) -> Iterator[Match]:
        if isinstance(event, Crash) and not event.exception:
            # the traceback of a message that a logger printed first, or one that is cut off: it may tell the place
            if event.attempt in self._known and place_of(event.frames) is not None:
                yield self._match(event, run, {}, f"{event.frames[-1].file}:{event.frames[-1].function}: {event.frames[-1].code}")
            return
        text, head, left = event.text[:8000], _head(event.text), 6
        if head is None:
            if not isinstance(event, LogLine) or event.rank not in self._open:
                return
            joined, left = self._open.pop(event.rank)
            text = f"{joined} {text.strip(' │|')}"
            head = _head(text)
            if head is None:
                return
        text = re.sub(r"[ \t\n]+", " ", text)
        if isinstance(event, LogLine) and left and not any(mark in text for mark in COMPLETE):
            self._open[event.rank] = (text, left - 1)
        yield self._match(event, run, _message_facts(text, head), event.text[:2000])

    def _match(self, event: LogLine | Crash, run: Run, fresh: dict[str, Any], quote: str) -> Match:
        known = self._known.setdefault(event.attempt, {})
        if len(self._known) > 256:
            self._known.pop(next(iter(self._known)))
        if fresh.get("wanted_gib") == known.get("wanted_gib", fresh.get("wanted_gib")):
            known.update(fresh)
        _add_place(known, event)
        known["cards_seen"] = max(known.get("cards_seen", 1), (event.rank or 0) + 1, fresh.get("gpu", 0) + 1)
        if (event.rank or 0) > 0 or fresh.get("gpu", 0) > 0 or fresh.get("siblings", 0) > 1 or run.facts.get("world_size", 1) > 1:
            known["multi_gpu"] = True
        facts = {**known, **_config_facts(known, run)}
        evidence = Evidence(event.where, quote)
        first = self._evidence.setdefault(event.attempt, evidence)
        pieces = (evidence,) if first.where == evidence.where else (evidence, first)
        return Match(evidence=pieces, facts=facts, rank=event.rank, attempt=event.attempt, time=event.time)


def _head(text: str) -> re.Match[str] | None:
    """The words that say a card is full; a kernel's or a cgroup's message about host memory does not count."""
    if "cgroup out of memory" in text or "Killed process" in text:
        return None
    return next((found for head in HEADS if (found := head.search(text))), None)


def _gib(number: str, unit: str) -> float | None:
    try:
        return float(number) * UNITS[unit] / GIB
    except ValueError:
        return None


def _message_facts(text: str, head: re.Match[str]) -> dict[str, Any]:
    """The numbers of one message in GiB, and what follows from them."""
    device = (head.groupdict().get("device") or "cuda").lower()
    found: dict[str, float] = {}
    for name, patterns in COMPILED_FIELDS.items():
        hit = next((match for pattern in patterns if (match := pattern.search(text))), None)
        value = _gib(*hit.groups()) if hit else None
        if value is not None:
            found[name] = value
    facts: dict[str, Any] = {"device": device, "generation": _generation(text, found)}
    if gpu := GPU.search(text):
        facts["gpu"] = int(gpu[1]) if gpu[1].isdigit() else ord(gpu[1])
    if "held" in found and "allocated" in found:
        found.setdefault("reserved", max(0.0, found["held"] - found["allocated"]))
    others = _others(text, found, facts)
    if others is not None:
        found["others"] = others
    for name in ("wanted", "total", "free", "allocated", "reserved", "process", "others"):
        if name in found:
            facts[f"{name}_gib"] = round(found[name], 4)
            if found.get("total") and f"{name}_share" in SHARES:
                facts[f"{name}_share"] = round(found[name] / found["total"], 4)
    if found.get("wanted") and "reserved" in found:
        facts["reserved_over_wanted"] = round(found["reserved"] / found["wanted"], 3)
    return facts


def _generation(text: str, found: Mapping[str, float]) -> str:
    if "wanted" not in found:
        return "bare"
    return "legacy" if "total capacity;" in text else "numbers"


def _others(text: str, found: dict[str, float], facts: dict[str, Any]) -> float | None:
    """GiB on the card that belong to others; None where the message does not tell.

    The list of processes is taken where there is one: `this process` is left out, else (inside a container the process does not
    know its own number) the one whose size fits what PyTorch holds. Without a list it is what free and held memory leave, less a context.
    """
    own = found.get("allocated", 0.0) + found.get("reserved", 0.0)
    listed = [size for hit in PROCESSES.finditer(text) if (size := _gib(*hit.groups())) is not None]
    if listed and "process" not in found and "allocated" in found:
        ours = min((size for size in listed if size >= own - 0.05), default=None)
        if ours is not None and ours <= own + 6 * CONTEXT_GIB:
            listed.remove(ours)
            found["process"] = ours
    if listed or "process" in found:
        facts["siblings"] = sum(size < CONTEXT_GIB for size in listed)
        return sum(listed)
    if "outside" in found:
        return found["outside"]
    if {"total", "free", "allocated"} <= found.keys():
        return max(0.0, found["total"] - found["free"] - own - CONTEXT_GIB)
    return None


def _add_place(known: dict[str, Any], event: LogLine | Crash) -> None:
    place = place_of(event.frames) if isinstance(event, Crash) else "save" if any(said in event.text for said in SAVING_WORDS) else None
    if place is not None and (known.get("place") in (None, "forward", "backward")):
        known["place"] = place
    told = PHASE_OF_PLACE.get(known.get("place", ""))
    phase = told or (event.phase if event.phase != "start" else None) or known.get("phase")
    if phase is not None:
        known["phase"] = phase


def place_of(frames: tuple[Frame, ...]) -> str | None:
    """Which part of the program a traceback fails in, told by its frames (`file:function: code`), None where they tell nothing.

    What encloses the failing call decides for saving, evaluating, loading and stepping; logits must be what the innermost frames handle
    (an outer `logits = model(...)` tells nothing), a vision tower encloses.
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


def _config_facts(known: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """What the message means beside the config; nothing where no config is known."""
    if not run.config:
        return {}
    facts: dict[str, Any] = {}
    config = effective(run.config, run.facts)
    weights = _weights_gib(run, config)
    if weights is not None:
        facts["weights_gib"] = round(weights, 1)
        if "total_gib" in known:
            facts["weights_share"] = round(weights / known["total_gib"] / max(_cards(run), known.get("cards_seen", 1)), 3)
    wanted = known.get("wanted_gib")
    tokens = _most_tokens(config, known.get("phase"))
    if wanted is not None and tokens is not None:
        facts["request_over_logits"] = wanted * GIB > tokens * LARGEST_VOCABULARY * 4
        facts.update(_request_is(wanted * GIB, tokens, run))
    return facts


def _weights_gib(run: Run, config: Mapping[str, Any]) -> float | None:
    """Size of the loaded weights: the parameters the run tells, else the size in the model's name ("72B", "8x7B"), 2 bytes each."""
    parameters = run.facts.get("model.params")
    name = str(config.get("model_name_or_path") or "").rstrip("/").rpartition("/")[2]
    if not isinstance(parameters, int | float):
        found = re.search(r"(?<![A-Za-z\d.])(?:(\d+)x)?(\d+(?:\.\d+)?)[bB](?![A-Za-z])", name)
        if not found:
            return None
        parameters = float(found[2]) * float(found[1] or 1) * 1e9
    bits = config.get("quantization_bit")
    width = {4: 0.6, 8: 1.1}.get(bits if isinstance(bits, int) else 0, 0.6 if re.search(r"(?i)int4|awq|gptq|4bit|bnb", name) else 2)
    return float(parameters) * width / GIB


def _cards(run: Run) -> int:
    count = run.facts.get("world_size") or run.facts.get("gpu.count") or 1
    return int(count) if isinstance(count, int | float) and count > 0 else 1


def _most_tokens(config: Mapping[str, Any], phase: str | None) -> int | None:
    """Most tokens one forward pass can hold: batch x cutoff, twice that for pairs."""
    batch = config.get("per_device_eval_batch_size" if phase in ("eval", "predict") else "per_device_train_batch_size")
    length = config.get("cutoff_len")
    if not isinstance(batch, int) or not isinstance(length, int):
        return None
    return batch * length * (2 if config.get("stage") in ("dpo", "rm", "kto") else 1)


def _request_is(wanted: float, tokens: int, run: Run) -> dict[str, str]:
    """Whether the request is the size of the logits or of the whole model (within the rounding of two printed decimals)."""
    shape = run.facts.get("model.config")
    vocabulary = shape.get("vocab_size") if isinstance(shape, dict) else None
    sizes: dict[float, str] = {}
    for parameters in (run.facts.get("model.params"), run.facts.get("model.trainable_params")):
        if isinstance(parameters, int) and parameters > 10**8:
            sizes.update({parameters * width / cards: "parameters" for width in (2, 4) for cards in (1, _cards(run))})
    if isinstance(vocabulary, int):
        sizes.update({tokens * vocabulary * width: "logits" for width in (2, 4)})
    return next(({"request_is": name} for size, name in sizes.items() if abs(wanted - size) <= 0.02 * size), {})
