"""Samples with images: our token ids and labels against LLaMA-Factory's own, token by token.

    python -m tests.lab.image_proof [FOLDER]

FOLDER holds torchvision (`pip install --no-deps --target FOLDER torchvision`), which the lab lacks and the processors of Qwen-VL need.
Every model is a folder with a made tokenizer and the image processor's published settings; the images are blank PNG files of many shapes.
Exit code 1 for any difference.
"""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import msgspec

from tests.lab import dataset_kit
from tests.lab.dataset_proof import compare, oracle
from tests.lab.install import lab_bin

ROOT = Path(__file__).resolve().parents[2]
SHAPES = (
    (1, 1), (3, 900), (900, 3), (27, 28), (28, 28), (29, 56), (64, 48), (100, 100), (224, 224), (336, 336), (500, 333), (640, 480),
    (767, 769), (768, 768), (1000, 999), (1024, 768), (1920, 1080), (1080, 1920), (3000, 200), (200, 3000), (4000, 3000), (10, 2100),
    (2100, 10), (5000, 24), (42, 70), (98, 126), (1372, 21),
)  # fmt: skip
"""Width and height."""
QWEN = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
BOUNDS = {"min_pixels": 3136, "max_pixels": 12845056}
SLOW, FAST = {"image_processor_type": "Qwen2VLImageProcessor"}, {"image_processor_type": "Qwen2VLImageProcessorFast"}
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "qwen2-vl": ("Qwen2VLProcessor", {**QWEN, **BOUNDS, **SLOW}, {}),
    "qwen2.5-vl": ("Qwen2_5_VLProcessor", {**QWEN, **BOUNDS, **FAST}, {}),
    "narrow": ("Qwen2VLProcessor", {**QWEN, **SLOW, "min_pixels": 50176, "max_pixels": 200704}, {}),
    "qwen3-vl": ("Qwen3VLProcessor", {**QWEN, **FAST, "patch_size": 16, "size": {"longest_edge": 16777216, "shortest_edge": 65536}}, {}),
    "llava": (
        "LlavaProcessor",
        {
            "image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 336, "width": 336}, "do_center_crop": True,
            "do_resize": True, "size": {"shortest_edge": 336}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        },
        {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1, "image_token": "<image>"},
    ),
    "llava-full": (
        "LlavaProcessor",
        {
            "image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 224, "width": 224}, "do_center_crop": True,
            "do_resize": True, "size": {"shortest_edge": 224}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        },
        {"patch_size": 32, "vision_feature_select_strategy": "full", "num_additional_image_tokens": 1, "image_token": "<image>"},
    ),
}  # fmt: skip
"""Name -> processor, image processor's settings (as on the hub), processor's own settings."""
JOBS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("qwen2-vl", {"template": "qwen2_vl"}),
    ("qwen2-vl", {"template": "qwen2_vl", "image_max_pixels": 262144, "mask_history": True}),
    ("qwen2-vl", {"template": "qwen2_vl", "image_min_pixels": 40000, "cutoff_len": 300}),
    ("qwen2.5-vl", {"template": "qwen2_vl", "image_max_pixels": 2000000, "image_min_pixels": 784}),
    ("narrow", {"template": "qwen2_vl", "cutoff_len": 128, "train_on_prompt": True}),
    ("qwen3-vl", {"template": "qwen3_vl_nothink"}),
    ("qwen3-vl", {"template": "qwen3_vl", "image_max_pixels": 100000}),
    ("llava", {"template": "llava"}),
    ("llava-full", {"template": "llava", "cutoff_len": 512}),
    ("qwen2-vl", {"template": "qwen2_vl", "stage": "dpo", "dataset": "pairs"}),
    ("qwen2-vl", {"template": "qwen2_vl", "stage": "kto", "dataset": "rated"}),
)


def png(width: int, height: int) -> bytes:
    """A black image with one bit a pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((width + 7) // 8)) * height
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def data(folder: Path) -> None:
    """One image a sample of every shape, several images, none, images in a later turn, pairs and ratings."""
    (folder / "images").mkdir(parents=True)
    for width, height in SHAPES:
        (folder / "images" / f"{width}x{height}.png").write_bytes(png(width, height))
    dice = random.Random(5)
    names = [f"images/{width}x{height}.png" for width, height in SHAPES]
    one = [
        {"instruction": f"<image>What is in picture {n}?", "output": f"Nothing, {n} times.", "images": [name]}
        for n, name in enumerate(names)
    ]
    one += [
        {"instruction": "Compare <image> with <image> and <image>", "output": "All are black. " * n, "images": dice.sample(names, 3),
         "history": [["Hello <image>?", "Black."]] if n % 2 else []}
        for n in range(12)
    ]  # fmt: skip
    for row in one:
        row["images"] += [dice.choice(names)] * bool(row.get("history"))
    one.append({"instruction": "No picture here.", "output": "Fine.", "images": []})
    pairs = [
        {"instruction": f"<image>Which? {n}", "chosen": "This.", "rejected": "That one there.", "images": [name]}
        for n, name in enumerate(names)
    ]
    rated = [{"instruction": "Rate <image>", "output": "Good.", "tag": n % 2 > 0, "images": [name]} for n, name in enumerate(names)]
    for name, rows in (("one", one), ("pairs", pairs), ("rated", rated)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"prompt": "instruction", "images": "images"}
    info = {
        "one": {"file_name": "one.jsonl", "columns": {**columns, "response": "output", "history": "history"}},
        "pairs": {"file_name": "pairs.jsonl", "ranking": True, "columns": {**columns, "chosen": "chosen", "rejected": "rejected"}},
        "rated": {"file_name": "rated.jsonl", "columns": {**columns, "response": "output", "kto_tag": "tag"}},
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))


def model(folder: Path, name: str, tokenizer: Path) -> Path:
    """A folder as on the hub, without weights."""
    processor, image, own = MODELS[name]
    place = folder / name
    place.mkdir()
    for file in tokenizer.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    about = json.loads((place / "tokenizer_config.json").read_text())
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<image>"]
    about |= {"additional_special_tokens": marks, "processor_class": processor}
    (place / "tokenizer_config.json").write_text(json.dumps(about))
    (place / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (place / "preprocessor_config.json").write_text(json.dumps({**image, "processor_class": processor}))
    if own:
        (place / "processor_config.json").write_text(json.dumps({**own, "processor_class": processor}))
    else:
        video = {
            **image,
            "video_processor_type": processor.replace("Processor", "VideoProcessor").replace("2_5_", "2"),
            "processor_class": processor,
        }
        (place / "video_preprocessor_config.json").write_text(json.dumps(video))
    return place


COMPUTE = """
import json, sys
sys.path[:0], sys.path[len(sys.path):] = [sys.argv[1]], sys.argv[2:3]
from tests.lab.dataset_proof import ours
for line in sys.stdin:
    print(json.dumps(ours(json.loads(line))), flush=True)
"""


def computed(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our answers, where pillow is."""
    command = [str(lab_bin() / "python"), "-c", COMPUTE, str(ROOT), str(Path(msgspec.__file__).parents[1])]
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    ended = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def main() -> int:
    """One line a configuration."""
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        data(work / "data")
        tokenizer = dataset_kit.tokenizers(work)["chat"]
        places = {name: model(work, name, tokenizer) for name in MODELS}
        base = {
            "stage": "sft", "do_train": True, "finetuning_type": "lora", "dataset": "one", "cutoff_len": 20000,
            "dataset_dir": str(work / "data"),
            "output_dir": str(work / "out"), "overwrite_cache": True, "report_to": "none",
        }  # fmt: skip
        jobs = [{**base, "model_name_or_path": str(places[name]), **change} for name, change in JOBS]
        wrong = counted = 0
        for (name, change), job, theirs, mine in zip(JOBS, jobs, oracle(jobs, work, *sys.argv[1:2]), computed(jobs), strict=True):
            told, samples, unknown = compare(job, theirs, mine)
            wrong += bool(told) or not samples
            counted += samples
            print(
                f"{name:12} {change} {told or f'{samples} equal, {unknown} unknown'}" + (f" {theirs['error']}" if "error" in theirs else "")
            )
        print(f"{len(jobs)} configurations, {counted} sequences, {wrong} configurations differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
