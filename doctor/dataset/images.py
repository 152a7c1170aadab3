"""Images as tokens: how many image tokens LLaMA-Factory 0.9.5 writes in place of each `<image>` (data/mm_plugin.py).

Known for the Qwen-VL family (Qwen2-VL, 2.5-VL, 3-VL and what uses their plugin) and LLaVA 1.5; proven by tests/lab/image_proof.py. Of an
image only the header is read. Videos and audio are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from doctor.dataset.convert import Sample, Turn
from doctor.dataset.media import PLACEHOLDERS
from doctor.dataset.sequences import options_of
from doctor.dataset.sources import media_folder
from doctor.dataset.templates import Template
from doctor.dataset.tokenizer import settings_in
from doctor.dataset.tools import LengthUnknown
from doctor.support.optional import of_the_training

_PROCESSORS = {"qwen_vl": ("Qwen2VLImageProcessor",), "llava": ("CLIPImageProcessor",)}
"""Classes of the image processors whose arithmetic is known, without `Fast`."""
_MAX_BYTES = 1 << 20
_LEAST_SIDE = 28
_LARGEST_RATIO, _KEPT_RATIO = 200, 180
_MAX_TOKENS = 1 << 18
"""More image tokens than this come from a damaged configuration."""
Size = tuple[int, int]
"""Width and height in pixels."""


class Grid(msgspec.Struct, frozen=True):
    """What decides over the tokens of an image of the Qwen-VL family; pixels are numbers of pixels of a whole image.

    `max_pixels` and `min_pixels` of LLaMA-Factory's options, `most` and `least` of the model's image processor.
    """

    patch: int
    merge: int
    least: int
    most: int
    max_pixels: int
    min_pixels: int

    def tokens(self, size: Size) -> int:
        """Image tokens of one image. Raises ValueError for a shape on which LLaMA-Factory stops."""
        width, height = self._regular(size)
        height, width = smart_resize(height, width, self.patch * self.merge, self.least, self.most)
        return (height // self.patch) * (width // self.patch) // self.merge**2

    def _regular(self, size: Size) -> Size:
        """Qwen2VLPlugin._preprocess_image."""
        width, height = size
        if width * height > self.max_pixels:
            width, height = _scaled(width, height, self.max_pixels)
        if width * height < self.min_pixels:
            width, height = _scaled(width, height, self.min_pixels)
        if min(width, height) < _LEAST_SIDE:
            width, height = max(width, _LEAST_SIDE), max(height, _LEAST_SIDE)
        if width / height > _LARGEST_RATIO:
            width = height * _KEPT_RATIO
        if height / width > _LARGEST_RATIO:
            height = width * _KEPT_RATIO
        return width, height


def _scaled(width: int, height: int, pixels: int) -> Size:
    factor = math.sqrt(pixels / (width * height))
    if not int(width * factor) or not int(height * factor):
        raise ValueError("an image without a side")
    return int(width * factor), int(height * factor)


def smart_resize(height: int, width: int, factor: int, least: int, most: int) -> Size:
    """Height and width as multiples of `factor`, their product between `least` and `most` (transformers, image_processing_qwen2_vl.py)."""
    if max(height, width) / min(height, width) > _LARGEST_RATIO:
        raise ValueError("an aspect ratio above 200")
    tall, wide = round(height / factor) * factor, round(width / factor) * factor
    if tall * wide > most:
        beta = math.sqrt(height * width / most)
        tall, wide = (max(factor, math.floor(side / beta / factor) * factor) for side in (height, width))
    elif tall * wide < least:
        beta = math.sqrt(least / (height * width))
        tall, wide = (math.ceil(side * beta / factor) * factor for side in (height, width))
    return tall, wide


class Fixed(msgspec.Struct, frozen=True):
    """LLaVA 1.5 crops every image to the same size."""

    count: int

    def tokens(self, size: Size) -> int:  # the shape of Grid.tokens
        """Image tokens of one image."""
        return self.count


class Images:
    """Writes the image tokens into the texts of a sample. `folder`: where the images lie."""

    def __init__(self, kind: Grid | Fixed, marks: tuple[str, str, str], folder: Path) -> None:
        self._kind, self._folder = kind, folder
        self._before, self._token, self._after = marks

    def expanded(self, sample: Sample) -> Sample:
        """The sample with the tokens in place of its images. Raises LengthUnknown."""
        images = sample.images or []
        if sample.videos or sample.audios or not all(isinstance(name, str) for name in images):
            raise LengthUnknown("media")
        texts = [self._before + self._token * self._tokens(name) + self._after for name in images]
        prompt, left = self._filled(sample.prompt, texts)
        if left and len(sample.response) != 1:
            raise LengthUnknown("media")
        response, left = self._filled(sample.response, left)
        if left:  # fewer placeholders than images: LLaMA-Factory stops
            raise LengthUnknown("media")
        return msgspec.structs.replace(sample, prompt=prompt, response=response, images=None)

    def _tokens(self, name: str) -> int:
        try:
            found = self._kind.tokens(_size(self._folder, name))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise LengthUnknown("media") from None
        if found > _MAX_TOKENS:
            raise LengthUnknown("media")
        return found

    def _filled(self, turns: list[Turn], texts: list[str]) -> tuple[list[Turn], list[str]]:
        """The turns with the next texts in place of their placeholders, and the texts that are left."""
        out, left = [], iter(texts)
        for turn in turns:
            parts = str(turn.content).split(PLACEHOLDERS["images"])
            out.append(Turn(turn.role, parts[0] + "".join(_next(left) + part for part in parts[1:])) if len(parts) > 1 else turn)
        return out, list(left)


def _next(texts: Iterator[str]) -> str:
    text = next(texts, None)
    if text is None:  # more placeholders than images: LLaMA-Factory stops
        raise LengthUnknown("media")
    return text


@lru_cache(maxsize=65536)
def _size(folder: Path, name: str) -> Size:
    """The size that the header tells. Raises LengthUnknown."""
    library = of_the_training("PIL.Image")
    if library is None:
        raise LengthUnknown("no_pillow")
    for path in (folder / name, Path(name)):  # converter.py _find_medias
        try:
            if path.is_file():
                with library.open(path) as image:
                    width, height = image.size
                    return int(width), int(height)
        except Exception:  # the library raises many kinds for a damaged file
            break
    raise LengthUnknown("media")


def images_of(config: Mapping[str, Any], folder: Path, template: Template, model: Path) -> Images | None:
    """How images become tokens with this template and the image processor in the folder `model`; None where that is not known."""
    if not template.images_as or options_of(config).stage == "pt":
        return None
    processor, image = (settings_in(model / f"{name}_config.json", _MAX_BYTES) for name in ("processor", "preprocessor"))
    nested = processor.get("image_processor")
    if bool(image) == isinstance(nested, dict):  # none, or two that may differ
        return None
    image = nested if isinstance(nested, dict) else image
    if str(image.get("image_processor_type")).removesuffix("Fast") not in _PROCESSORS[template.images_as]:
        return None
    try:
        kind = _fixed(processor, image) if template.images_as == "llava" else _grid(config, image)
    except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError):
        return None
    first, token, last = template.image_marks
    return Images(kind, (first, token, last), media_folder(config, folder))


def _grid(config: Mapping[str, Any], image: Mapping[str, Any]) -> Grid:
    size = image.get("size") or {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    if image.get("do_resize") is False:
        raise ValueError("not resized")
    least, most = image.get("min_pixels"), image.get("max_pixels")
    return Grid(
        patch=int(image.get("patch_size", 14)),
        merge=int(image.get("merge_size", 2)),
        least=int(size["shortest_edge"] if least is None else least),
        most=int(size["longest_edge"] if most is None else most),
        max_pixels=_pixels(config.get("image_max_pixels"), 768 * 768),
        min_pixels=_pixels(config.get("image_min_pixels"), 32 * 32),
    )


def _pixels(value: Any, default: int) -> int:
    """An option of LLaMA-Factory. Raises ValueError for what is no number."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError("not a number of pixels")
    return value


def _fixed(processor: Mapping[str, Any], image: Mapping[str, Any]) -> Fixed:
    """LlavaPlugin: patches of the cropped image, and the token of the class unless it is left out."""
    if image.get("do_center_crop") is not True:
        raise ValueError("not cropped")
    crop, patch = image["crop_size"], int(processor["patch_size"])
    sides = (crop["height"], crop["width"]) if isinstance(crop, Mapping) else (crop, crop)
    count = (int(sides[0]) // patch) * (int(sides[1]) // patch) + int(processor.get("num_additional_image_tokens", 0))
    return Fixed(count - (processor.get("vision_feature_select_strategy") == "default"))
