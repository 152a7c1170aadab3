"""Images as tokens by hand-made examples; the arithmetic is proven against LLaMA-Factory in tests/lab/image_proof.py."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from doctor.dataset import images
from doctor.dataset.convert import Sample, Turn
from doctor.dataset.images import Fixed, Grid, Images, images_of, smart_resize
from doctor.dataset.inspect import Look
from doctor.dataset.templates import known_templates
from doctor.dataset.tools import LengthUnknown
from tests.dataset.sets import good, lines, put, seen

QWEN = Grid(patch=14, merge=2, least=3136, most=12845056, max_pixels=768 * 768, min_pixels=32 * 32)
MARKS = ("<s>", "i", "</s>")


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((640, 480), 23 * 17),  # 22.9 and 17.1 squares of 28 pixels
        ((1000, 1000), 27 * 27),  # brought to 768 pixels a side: 27.4 squares
        ((1, 1), 2 * 2),  # LLaMA-Factory makes 32 pixels a side of it, the processor 56
        ((3000, 10), 107),  # 28 pixels high: 107.1 squares in a row
        ((6000, 28), 180),  # a ratio of 214 becomes 180
        ((28, 6000), 180),
        ((70, 70), 2 * 2),  # 2.5 squares: rounded to the even number
    ],
)
def test_tokens_of_an_image_of_the_qwen_family(size, tokens):
    """Squares of 28 pixels, by hand."""
    assert QWEN.tokens(size) == tokens


def test_the_processors_own_bounds_hold_too():
    """At least 56 and at most 112 pixels a side: 4 and 16 squares; a side is never less than a square."""
    assert smart_resize(30, 30, 28, 3136, 12544) == (56, 56)
    assert smart_resize(500, 500, 28, 3136, 12544) == (112, 112)
    assert smart_resize(28, 5000, 28, 3136, 12544) == (28, 1484)
    with pytest.raises(ValueError, match="aspect ratio"):
        smart_resize(1, 201, 28, 3136, 12544)


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images whose name tells their size: no file and no library is needed."""

    def size(_folder: Path, name: str) -> tuple[int, int]:
        width, _, height = Path(name).stem.partition("x")
        return int(width), int(height)

    monkeypatch.setattr(images, "_size", size)


def sample(*contents: str, answers: tuple[str, ...] = ("ok",), **media: list[str]) -> Sample:
    turns = [Turn("assistant" if number % 2 else "user", content) for number, content in enumerate(contents)]
    return Sample(turns, [Turn("assistant", answer) for answer in answers], **media)


def expanded(made: Sample) -> list[str]:
    return [turn.content for turn in Images(QWEN, MARKS, Path()).expanded(made).turns()]


@pytest.mark.usefixtures("sized")
def test_placeholders_take_the_images_in_turn():
    """Over all turns; 56 x 56 are four tokens, 56 x 84 six; both answers of a pair stand as they are."""
    made = sample("see <image>", "yes", "and <image>?", answers=("a", "b"), images=["56x56.png", "56x84.png"])
    assert expanded(made) == ["see <s>iiii</s>", "yes", "and <s>iiiiii</s>?", "a", "b"]
    assert expanded(sample("draw", answers=("<image>",), images=["56x56.png"])) == ["draw", "<s>iiii</s>"]
    assert made.prompt[0].content == "see <image>"


@pytest.mark.usefixtures("sized")
@pytest.mark.parametrize(
    "made",
    [
        sample("<image>", images=["56x56.png"], videos=["a.mp4"]),
        sample("<image>", images=["56x56.png"], audios=["a.wav"]),
        sample("<image> <image>", images=["56x56.png"]),
        sample("none", images=["56x56.png"]),
        sample("<image>", answers=("<image>", "b"), images=["56x56.png", "56x56.png"]),
        sample("<image>", images=["0x5.png"]),
        sample("<image>", images=["1000000x1.png"]),
    ],
    ids=["video", "audio", "too few", "too many", "in one answer of a pair", "no side", "vanishing side"],
)
def test_what_is_not_known_is_not_guessed(made):
    """Other media, counts that do not match, shapes on which LLaMA-Factory stops."""
    with pytest.raises(LengthUnknown, match="media"):
        expanded(made)


class Library:
    """Stands for pillow: a file of three bytes or more is an image."""

    @staticmethod
    def open(path: Path) -> contextlib.nullcontext[SimpleNamespace]:
        if path.stat().st_size < 3:
            raise SyntaxError("broken")
        return contextlib.nullcontext(SimpleNamespace(size=(4, 3)))


def test_a_size_is_that_of_the_header(tmp_path, monkeypatch):
    """In media_dir, or at the path itself; a missing or damaged file is unknown, and so are all without pillow."""
    monkeypatch.setattr(images, "of_the_training", lambda _: Library)
    (tmp_path / "a.png").write_bytes(b"png")
    (tmp_path / "b.png").write_bytes(b"")
    assert images._size(tmp_path, "a.png") == images._size(Path("/nowhere"), str(tmp_path / "a.png")) == (4, 3)
    for name in ("none.png", "b.png"):
        with pytest.raises(LengthUnknown, match="media"):
            images._size(tmp_path, name)
    monkeypatch.setattr(images, "of_the_training", lambda _: None)
    with pytest.raises(LengthUnknown, match="no_pillow"):
        images._size(tmp_path, "other.png")


PREPROCESSOR = {"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 16, "merge_size": 2}
CROPPED = {"image_processor_type": "CLIPImageProcessor", "do_center_crop": True, "crop_size": {"height": 336, "width": 336}}
LLAVA = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


def kind(folder: Path, template: str, preprocessor: object = None, processor: object = None, **config: object) -> Grid | Fixed | None:
    for name, content in (("preprocessor_config.json", preprocessor), ("processor_config.json", processor)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    found = images_of(config, folder, known_templates()[template], folder)
    return found and found._kind


def test_the_models_folder_tells_the_arithmetic(tmp_path):
    """Old and new names of the bounds, options of the configuration; 24 x 24 patches for LLaVA, of whose 577 one is left out."""
    size = {"size": {"shortest_edge": 65536, "longest_edge": 16777216}}
    assert kind(tmp_path, "qwen3_vl", {**PREPROCESSOR, **size}) == Grid(16, 2, 65536, 16777216, 589824, 1024)
    bounds = {"min_pixels": 100, "max_pixels": 900, "size": {"min_pixels": 1, "max_pixels": 2}}
    assert kind(tmp_path, "qwen2_vl", {**PREPROCESSOR, **bounds}, image_max_pixels=5000, image_min_pixels=50) == Grid(
        16, 2, 100, 900, 5000, 50
    )
    assert kind(tmp_path, "llava", CROPPED, LLAVA) == Fixed(576)
    assert kind(tmp_path, "llava", CROPPED, {**LLAVA, "vision_feature_select_strategy": "full"}) == Fixed(577)


@pytest.mark.parametrize(
    ("template", "preprocessor", "processor", "config"),
    [
        ("qwen2_vl", None, None, {}),
        ("qwen2_vl", {**PREPROCESSOR, "image_processor_type": "MyProcessor"}, None, {}),
        ("qwen2_vl", {**PREPROCESSOR, "size": {"height": 1}}, None, {}),
        ("qwen2_vl", {**PREPROCESSOR, "do_resize": False}, None, {}),
        ("qwen2_vl", PREPROCESSOR, {"image_processor": PREPROCESSOR}, {}),
        ("qwen2_vl", PREPROCESSOR, None, {"image_max_pixels": "many"}),
        ("qwen2_vl", PREPROCESSOR, None, {"stage": "pt"}),
        ("llava", {**CROPPED, "do_center_crop": False}, LLAVA, {}),
        ("llava", CROPPED, {}, {}),
        ("gemma3", PREPROCESSOR, None, {}),
        ("qwen2_vl", [1], None, {}),
    ],
)
def test_other_processors_are_unknown(tmp_path, template, preprocessor, processor, config):
    """No length is computed where the settings are not there, are others, or stand in two places."""
    assert kind(tmp_path, template, preprocessor, processor, **config) is None


@pytest.mark.usefixtures("sized")
def test_lengths_with_images_are_in_the_report(tmp_path):
    """A word a token, `<|image_pad|>` one too: 4 for the image and one for each of its marks."""
    library = pytest.importorskip("tokenizers")
    model = tmp_path / "model"
    model.mkdir()
    marks = ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_end|>", "<|im_start|>"]
    tokenizer = library.Tokenizer(library.models.WordLevel({word: n for n, word in enumerate(["[UNK]", "w"])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(marks)
    tokenizer.save(str(model / "tokenizer.json"))
    (model / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSOR, "patch_size": 14}))
    columns = {"prompt": "instruction", "response": "output", "images": "images"}
    rows = [good(1, instruction="w", output="w", images=[]), good(2, instruction="w <image>", output="w", images=["56x56.png"])]
    put(tmp_path, "one.jsonl", lines(*rows), columns=columns)
    (tmp_path / "data" / "56x56.png").write_bytes(b"")
    numbers = seen(tmp_path, Look(near=False), template="qwen2_vl", model_name_or_path=str(model)).numbers
    assert numbers is not None
    assert numbers.unknown == {}
    assert [(place.line, tokens - numbers.longest_places[-1][0]) for tokens, place in numbers.longest_places] == [(2, 6), (1, 0)]
