"""Compare the memory estimate with measured peaks of small fine-tunes on a CUDA device, and collect real out-of-memory messages.

Random weights in real shapes; methods x lengths x batches, three steps each. Needs torch, transformers, peft and llamafactory, and
bitsandbytes for the 4-bit rows; flash-attn is not used. Exits with 0 and a message without a CUDA device.

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
"""Bytes per GiB."""

NEEDED = ("torch", "transformers", "peft", "llamafactory")
"""Packages that must be installed."""


def cases() -> Iterator[dict[str, Any]]:
    """Cases for a 24 GB GPU, a minute or two in total: two small models, every method, lengths and batches that change the peak."""
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
    """Why nothing can be measured; None if it can."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    import torch

    return None if torch.cuda.is_available() else "no CUDA device"


def use_bitsandbytes() -> bool:
    """Replace the lab's substitute by real nf4 linears; False if bitsandbytes is not installed."""
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


def measure(case: dict[str, Any]) -> tuple[float, float]:
    """(peak allocated, peak reserved) of the third step, in bytes."""
    import torch

    from tests.lab.memory_trace import Step

    gc.collect()
    torch.cuda.empty_cache()
    with torch.device("cuda"):
        step = Step(case, SimpleNamespace(phase=""), device="cuda")
        step()
        step()
        torch.cuda.reset_peak_memory_stats()
        step()
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def refused(case: dict[str, Any], share: float) -> str:
    """The out-of-memory message of the case when the process may use only `share` of the GPU's memory."""
    import torch

    torch.cuda.set_per_process_memory_fraction(share)
    try:
        measure(case)
    except torch.cuda.OutOfMemoryError as error:
        return str(error)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return ""


def compare(case: dict[str, Any]) -> dict[str, Any]:
    """A row: measured and predicted peak in GiB, deviation in percent."""
    peak, reserved = measure(case)
    facts = {"model.config": case["hf"], "attention": case["attention"]}
    ours = estimate({"model_name_or_path": "random-weights", **case["config"]}, facts=facts)
    off = 100 * (ours.allocated_gib * GIB / peak - 1)
    print(f"{off:+7.2f} %  {peak / GIB:7.2f} GiB  reserved {reserved / GIB:7.2f}  {ours.peak_phase:12}  {case['name']}", flush=True)
    return {"name": case["name"], "peak_gib": peak / GIB, "reserved_gib": reserved / GIB, "estimate": ours.to_dict(), "off_percent": off}


def main() -> int:
    """Print a line per case and a summary; optionally write rows and messages to a file."""
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
    wanted = [case for case in cases() if all(word in case["name"] for word in given.words)]
    rows = [compare(case) for case in wanted if four or not case["config"].get("quantization_bit")]
    messages = [refused(case("qwen2.5-0.5b", batch=8, length=4096), share) for share in (0.05, 0.1)]
    off = [abs(row["off_percent"]) for row in rows]
    if off:
        print(f"{len(off)} runs: median deviation {statistics.median(off):.2f} %, worst {max(off):.2f} %")
    if given.output:
        given.output.write_text(json.dumps({"device": device, "rows": rows, "messages": messages}, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
