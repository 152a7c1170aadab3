"""Holds the memory estimate against traces of the real code, case by case."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from doctor import estimate  # noqa: E402
from tests.lab.install import lab_bin  # noqa: E402

GIB = 2**30


def decoder(kind: str, h: int, layers: int, heads: int, kv: int, width: int, vocab: int, **more: Any) -> dict[str, Any]:
    """A Hugging Face config; fewer layers than the published model where a case looks at one layer's work."""
    return {
        "model_type": kind,
        "hidden_size": h,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": width,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
        **more,
    }


GEMMA4 = {
    "head_dim": 256,
    "global_head_dim": 512,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "final_logit_softcapping": 30.0,
    "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
}
LFM2 = ["full_attention" if layer in (2, 5, 8, 10, 12, 14) else "conv" for layer in range(16)]

MODELS = {
    "llama2-7b": decoder("llama", 4096, 32, 32, 32, 11008, 32000),
    "llama3-8b": decoder("llama", 4096, 32, 32, 8, 14336, 128256),
    "llama3.2-1b": decoder("llama", 2048, 16, 32, 8, 8192, 128256, head_dim=64, tie_word_embeddings=True),
    "mistral-7b": decoder("mistral", 4096, 32, 32, 8, 14336, 32000),
    "qwen2.5-0.5b": decoder("qwen2", 896, 24, 14, 2, 4864, 151936, tie_word_embeddings=True),
    "qwen2.5-7b": decoder("qwen2", 3584, 28, 28, 4, 18944, 152064),
    "qwen3-4b": decoder("qwen3", 2560, 36, 32, 8, 9728, 151936, head_dim=128, tie_word_embeddings=True),
    "phi-3-mini": decoder("phi3", 3072, 32, 32, 32, 8192, 32064, pad_token_id=0),
    "gemma-2b": decoder("gemma", 2048, 18, 8, 1, 16384, 256000, head_dim=256, tie_word_embeddings=True),
    "no-vocabulary": decoder("llama", 4096, 6, 32, 8, 14336, 1024),
    "no-vocabulary-mha": decoder("llama", 4096, 6, 32, 32, 11008, 1024),
    "no-vocabulary-qwen3": decoder("qwen3", 2560, 8, 32, 8, 9728, 1024, head_dim=128),
    "no-vocabulary-gemma3": decoder("gemma3_text", 3840, 6, 16, 8, 15360, 1024, head_dim=256, tie_word_embeddings=True),
    "no-vocabulary-gemma4": decoder("gemma4_text", 3840, 6, 16, 8, 15360, 1024, tie_word_embeddings=True, **GEMMA4),
    "no-vocabulary-glm4": decoder("glm4", 4096, 6, 32, 2, 13696, 1024, head_dim=128, pad_token_id=0),
    "no-vocabulary-olmo3": decoder("olmo3", 4096, 8, 32, 32, 11008, 1024),
    "no-vocabulary-apertus": decoder("apertus", 4096, 6, 32, 8, 21504, 1024),
    "no-vocabulary-lfm2": decoder("lfm2", 2048, 16, 32, 8, 12288, 1024, tie_word_embeddings=True, layer_types=LFM2),
}


def case(model: str, note: str = "", *, length: int = 1024, batch: int = 1, attention: str = "sdpa", **options: Any) -> dict[str, Any]:
    """One case: a model, and LLaMA-Factory options over LoRA on all linears with bf16."""
    config = {
        "stage": "sft",
        "finetuning_type": "lora",
        "lora_target": "all",
        "bf16": not options.get("pure_bf16"),
        "per_device_train_batch_size": batch,
        "cutoff_len": length,
        **options,
    }
    words = [model, *(f"{key}={value}" for key, value in options.items()), f"b={batch}", f"s={length}", attention, note]
    return {
        "name": " ".join(word for word in words if word),
        "hf": MODELS[model],
        "config": config,
        "length": length,
        "attention": attention,
        "padded": attention == "sdpa",
    }


def cases() -> Iterator[dict[str, Any]]:
    """Methods x models x what moves the peak from one phase to another."""
    four = {"quantization_bit": 4}
    off = {"disable_gradient_checkpointing": True}
    for model in ("llama2-7b", "llama3-8b", "mistral-7b", "qwen2.5-7b", "qwen3-4b", "qwen2.5-0.5b", "phi-3-mini", "gemma-2b"):
        yield case(model)
        yield case(model, batch=2, length=2048, **four)
    yield case("llama3.2-1b", lora_rank=64, length=4096)
    yield case("llama3.2-1b", lora_target="q_proj,v_proj", **off)
    yield case("llama3-8b", lora_dropout=0.1, **four)
    yield case("llama3-8b", pure_bf16=True, lora_target="q_proj,v_proj")
    yield case("llama3-8b", use_dora=True)
    yield case("qwen2.5-0.5b", attention="eager")
    yield case("qwen2.5-0.5b", additional_target="lm_head")
    for model in ("no-vocabulary", "no-vocabulary-mha"):
        yield case(model, length=2048, **four)
        yield case(model, length=2048)
        yield case(model, length=2048, lora_target="q_proj,v_proj")
        yield case(model, length=2048, lora_dropout=0.1)
        yield case(model, length=2048, use_dora=True)
        yield case(model, length=2048, **off)
        yield case(model, length=2048, lora_target="q_proj,v_proj", **four, **off)
        yield case(model, length=1024, attention="eager")
        yield case(model, length=8192, finetuning_type="full", pure_bf16=True)
        yield case(model, length=8192, finetuning_type="full")
        yield case(model, length=4096, finetuning_type="full", pure_bf16=True, **off)
        yield case(model, length=4096, finetuning_type="full", **off)
    for family in ("qwen3", "gemma3", "gemma4", "glm4", "olmo3", "apertus", "lfm2"):
        yield case(f"no-vocabulary-{family}", length=2048)
        yield case(f"no-vocabulary-{family}", length=2048, **off)
    yield case("no-vocabulary-lfm2", length=2048, finetuning_type="full", pure_bf16=True)
    liger = {"enable_liger_kernel": True}
    yield case("llama3-8b", batch=4, length=2048, **liger)
    yield case("llama3-8b", batch=2, length=4096, **liger, **four)
    yield case("llama2-7b", batch=4, length=2048, lora_target="q_proj,v_proj", attention="sdpa", **liger)
    yield case("no-vocabulary", length=8192, **liger)
    yield case("no-vocabulary", length=8192, lora_target="q_proj,v_proj", **liger)
    yield case("no-vocabulary", length=8192, finetuning_type="full", pure_bf16=True, **liger)
    yield case("llama3.2-1b", length=4096, batch=2, finetuning_type="full", pure_bf16=True, **liger)
    yield case("llama3.2-1b", length=2048, batch=2, finetuning_type="full", **liger)
    yield case("llama2-7b", finetuning_type="full")
    yield case("llama2-7b", finetuning_type="full", optim="adamw_torch")
    yield case("llama3-8b", finetuning_type="full", pure_bf16=True, batch=4)
    yield case("qwen2.5-0.5b", finetuning_type="full", batch=4, length=2048)
    yield case("qwen2.5-0.5b", finetuning_type="full", optim="sgd")
    yield case("llama3-8b", finetuning_type="freeze", freeze_trainable_layers=2)
    yield case("qwen2.5-7b", finetuning_type="freeze", freeze_trainable_layers=4, pure_bf16=True, length=2048)
    yield case("llama3-8b", stage="dpo", **four)
    yield case("qwen2.5-0.5b", stage="dpo", batch=2, finetuning_type="full", pure_bf16=True)
    yield case("qwen3-4b", stage="dpo", pref_loss="orpo")


def traced(wanted: list[dict[str, Any]], kept: Path | None) -> Iterator[dict[str, Any]]:
    """What the real code does, case by case (5 to 15 s each); traces of the same cases in the file `kept` are taken as they are."""
    known = {}
    if kept is not None and kept.exists():
        known = {one["name"]: one for one in map(json.loads, kept.read_text(encoding="utf-8").splitlines()) if "error" not in one}
    yield from (known[one["name"]] for one in wanted if one["name"] in known)
    process = subprocess.Popen(
        [str(lab_bin() / "python"), str(HERE / "memory_trace.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([one for one in wanted if one["name"] not in known]))
    process.stdin.close()
    for line in process.stdout:
        if line.startswith("{"):
            if kept is not None:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(line)
            yield json.loads(line)
    process.wait()


def predicted(one: dict[str, Any]) -> Any:
    facts = {"model.config": one["hf"], "attention": one["attention"]}
    return estimate({"model_name_or_path": "traced-model", **one["config"]}, facts=facts)


def main() -> int:
    """Prints a line a case and a summary; 0 if 40 cases were traced, half of them within 1 % and all within 8 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only cases whose names hold all of these words")
    parser.add_argument("--kept", type=Path, help="a file of traces: read first, new ones are added")
    given = parser.parse_args()
    wanted = [one for one in cases() if all(word in one["name"] for word in given.words)]
    by_name = {one["name"]: one for one in wanted}
    errors: list[float] = []
    failed = 0
    for real in traced(wanted, given.kept):
        if "error" in real:
            failed += 1
            print(f"   not traced  {real['name']}: {real['error']}", flush=True)
            continue
        ours = predicted(by_name[real["name"]])
        off = 100 * (ours.allocated_gib * GIB / real["peak"] - 1)
        errors.append(abs(off))
        place = f"{real['phase']}/{real['phases'][real['phase']][1]}"
        print(f"{off:+7.2f} %  {real['peak'] / GIB:7.2f} GiB  {ours.peak_phase:12} {place:52} {real['name']}", flush=True)
    print(f"{len(errors)} traced, {failed} not; median deviation {statistics.median(errors):.2f} %, worst {max(errors):.2f} %")
    return int(failed > 0 or len(errors) < 40 or statistics.median(errors) > 1 or max(errors) > 8)


if __name__ == "__main__":
    sys.exit(main())
