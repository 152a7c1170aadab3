"""Small real fine-tunes on the CUDA device at hand: measured peaks beside the estimate, and real out-of-memory messages.

Random weights of real shapes, methods x lengths x batches, three steps each; needs torch, transformers, peft and llamafactory in the
environment (bitsandbytes for the 4-bit rows, flash-attn for none). Without a CUDA device it says so and exits 0.

    python benchmarks/gpu_memory.py [-o FILE.json] [word in a case's name ...]
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from doctor import estimate
from tests.lab.memory_oracle import case

GIB = 2**30
NEEDED = ("torch", "transformers", "peft", "llamafactory")


def cases() -> Iterator[dict[str, Any]]:
    """What fits a card of 24 GB in a minute or two: two small models, every method, lengths and batches that move the peak."""
    for model in ("qwen2.5-0.5b", "llama3.2-1b"):
        for batch, length in ((1, 512), (2, 1024), (4, 2048)):
            yield case(model, batch=batch, length=length)
            yield case(model, batch=batch, length=length, quantization_bit=4)
            yield case(model, batch=batch, length=length, finetuning_type="full", pure_bf16=True)
        yield case(model, length=1024, finetuning_type="full")
        yield case(model, length=1024, finetuning_type="full", optim="adamw_torch")
        yield case(model, length=1024, disable_gradient_checkpointing=True)
        yield case(model, length=1024, attention="eager")
        yield case(model, length=1024, lora_dropout=0.1)
        yield case(model, length=1024, stage="dpo")
    yield case("no-vocabulary", length=8192)
    yield case("no-vocabulary", length=8192, quantization_bit=4)


def missing() -> str | None:
    """Why nothing can be measured here, or None."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


def use_bitsandbytes() -> bool:
    """Puts real nf4 linears in the place of the lab's stand-in; False where bitsandbytes is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return False
    import bitsandbytes
    import torch

    from tests.lab import memory_trace

    def real(inputs: int, outputs: int) -> Any:
        linear = bitsandbytes.nn.Linear4bit(
            inputs, outputs, bias=False, compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4", device="cpu"
        )
        return linear.to("cuda")

    memory_trace.Linear4 = real
    return True


def measure(one: dict[str, Any]) -> tuple[float, float]:
    """(peak allocated, peak reserved) in bytes of the third step."""
    import torch

    from tests.lab.memory_trace import Step

    gc.collect()
    torch.cuda.empty_cache()
    with torch.device("cuda"):
        step = Step(one, SimpleNamespace(phase=""), device="cuda")
        step()
        step()
        torch.cuda.reset_peak_memory_stats()
        step()
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def refused(one: dict[str, Any], share: float) -> str:
    """The message of a real out-of-memory error: the case on a card that is allowed `share` of its memory."""
    import torch

    torch.cuda.set_per_process_memory_fraction(share)
    try:
        measure(one)
    except torch.cuda.OutOfMemoryError as error:
        return str(error)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return ""


def compare(one: dict[str, Any]) -> dict[str, Any]:
    """One row: measured and predicted GiB, deviation in %."""
    peak, reserved = measure(one)
    facts = {"model.config": one["hf"], "attention": one["attention"]}
    ours = estimate({"model_name_or_path": "random-weights", **one["config"]}, facts=facts)
    off = 100 * (ours.allocated_gib * GIB / peak - 1)
    print(f"{off:+7.2f} %  {peak / GIB:7.2f} GiB  reserved {reserved / GIB:7.2f}  {ours.peak_phase:12}  {one['name']}", flush=True)
    return {"name": one["name"], "peak_gib": peak / GIB, "reserved_gib": reserved / GIB, "estimate": ours.to_dict(), "off_percent": off}


def main() -> int:
    """Prints a line a case and a summary; writes the rows and the messages where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    why = missing()
    if why is not None:
        print(f"nothing measured: {why}")
        return 0
    import torch
    import transformers

    device = f"{torch.cuda.get_device_name()}, torch {torch.__version__}, transformers {transformers.__version__}"
    print(device)
    four = use_bitsandbytes()
    wanted = [one for one in cases() if all(word in one["name"] for word in given.words)]
    rows = [compare(one) for one in wanted if four or not one["config"].get("quantization_bit")]
    messages = [refused(case("qwen2.5-0.5b", batch=8, length=4096), share) for share in (0.05, 0.1)]
    off = [abs(row["off_percent"]) for row in rows]
    if off:
        print(f"{len(off)} runs: median deviation {statistics.median(off):.2f} %, worst {max(off):.2f} %")
    if given.output:
        given.output.write_text(json.dumps({"device": device, "rows": rows, "messages": messages}, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
