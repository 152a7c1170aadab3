"""The index of origins: a message finds the place that raises it, and nothing else does; what the labels say, and what a user reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.diagnosis.unlisted import origin_causes, origin_index, origins
from doctor.diagnosis.unlisted.origin_index import StoredSite, StoredTemplate
from doctor.diagnosis.unlisted.origin_text import sentence
from doctor.diagnosis.unlisted.origins import Origin, Release, Site
from doctor.rulebook import loader
from doctor.support.languages import LANGUAGES

INDEX = origin_index.load()
TEMPLATES = list(INDEX.templates())
TELLING = [stored for stored in TEMPLATES if stored.bits > origins.MIN_BITS]
# No value of full stops alone: at the end of a message they are taken for its punctuation.
VALUE = st.from_regex(r"[a-z0-9]([a-z0-9_./-]{0,12}[a-z0-9])?", fullmatch=True)


def module_of(site: StoredSite) -> str:
    return INDEX.head.modules[site.module]


def rendered(stored: StoredTemplate, values: list[str]) -> str:
    """The template with values for its unknown parts."""
    pieces = stored.text.split("\0")
    return "".join(piece + value for piece, value in zip(pieces, [*(values * len(pieces))[: len(pieces) - 1], ""], strict=True))


STRATEGIES = """--load_best_model_at_end requires the save and eval strategy to match, but found
- Evaluation strategy: epoch
- Save strategy: no"""


@pytest.mark.parametrize(
    ("exception", "message", "place"),
    [
        ("ValueError", "Template qwen9 does not exist.", "llamafactory/data/template.py:get_template_and_fix_tokenizer"),
        ("ValueError", STRATEGIES, "transformers/training_args.py:"),  # __post_init__, later _validate_args
        ("ValueError", STRATEGIES.partition("\n")[0], "transformers/training_args.py:"),  # the first line alone
        (
            "AssertionError",
            "CUDA_HOME does not exist, unable to compile CUDA op(s)",
            "deepspeed/ops/op_builder/builder.py:installed_cuda_version",
        ),
        (
            "RuntimeError",
            "One of the subprocesses has abruptly died during map operation.To debug the error, disable multiprocessing.",
            "datasets/utils/py_utils.py:iflatmap_unordered",
        ),
    ],
)
def test_messages_of_the_stack(exception: str, message: str, place: str) -> None:
    """Messages as runs logged them; the function is empty where releases differ in it."""
    found = origins.find(exception, message)
    assert found is not None
    assert f"{found.module}:{found.function}" == place


@pytest.mark.parametrize(
    ("exception", "message"),
    [
        ("AttributeError", "'Qwen3ForCausalLM' object has no attribute 'foo'"),  # the interpreter's own, though packages imitate it
        ("ModuleNotFoundError", "No module named 'foo'"),
        ("TypeError", "train() got an unexpected keyword argument 'foo'"),
        ("RuntimeError", "CUDA error: an illegal memory access was encountered"),  # C++
        ("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.5 GiB"),
        ("ValueError", "foo is not supported"),
        ("ValueError", "Could not find glyph A in font"),  # "Could not find {} in {}" is one of transformers' templates
        ("ValueError", "modulus must be a positive integer, got 4.5"),  # and "{} must be a positive integer, got {}" one of DeepSpeed's
        ("ValueError", "my own check of the column names failed for shard 7"),
        ("KeyError", "'instruction'"),
        ("ValueError", ""),
        ("", ""),
    ],
)
def test_messages_of_nobody(exception: str, message: str) -> None:
    """A message of the interpreter, of C++, of a user's script, or with too few words has no origin."""
    assert origins.find(exception, message) is None


@settings(max_examples=300)
@given(st.sampled_from(TELLING), st.lists(VALUE, min_size=1, max_size=4))
def test_a_message_finds_its_own_place(stored: StoredTemplate, values: list[str]) -> None:
    """Whatever was filled in: with the frame, package and function are right; without it, a template that tells no less fits."""
    message = rendered(stored, values)
    site = stored.sites[0]
    exception, function = INDEX.head.exceptions[site.exception], site.function.rpartition(".")[2]
    package = module_of(site).partition("/")[0]
    if function:
        found = origins.find(exception, message, package, function)
        assert found is not None
        assert {(own.package, own.function.rpartition(".")[2]) for own in found.sites} == {(package, function)}
    alone = origins.find(exception, message)
    assert alone is not None
    assert alone.bits >= stored.bits or module_of(site) in {own.module for own in alone.sites}


@settings(max_examples=200)
@given(st.text(max_size=400), st.text(max_size=40))
def test_any_text_is_a_message(message: str, exception: str) -> None:
    """No text of a log raises an error; what it finds is a template that it contains."""
    found = origins.find(exception, message)
    assert found is None or 0 < found.confidence <= 1


@pytest.mark.parametrize(
    "message",
    ["x" * 1_000_000, "\0" * 5_000, "a " * 500_000, ".*(a+)+$" * 1_000, " ".join(word for block in INDEX.head.words for word in block)],
)
def test_hostile_messages_read_few_blocks(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a message is, and however many rare words it has, no more blocks are read than words are looked up."""
    read: list[int] = []
    block = INDEX.block

    def counted(number: int) -> list[StoredTemplate]:
        read.append(number)
        return block(number)

    monkeypatch.setattr(INDEX, "block", counted)
    origins.find("ValueError", message)
    assert len(read) <= origin_index.MAX_WORDS


def test_a_frame_of_another_package_speaks_against_a_short_message() -> None:
    """`Template {} does not exist.` raised inside torch is not LLaMA-Factory's; a long message may have been raised again there."""
    assert origins.find("ValueError", "Template qwen9 does not exist.", "torch", "reraise") is None
    long = "Cannot find valid samples, check `data/README.md` for the data format."
    found = origins.find("RuntimeError", long, "torch", "reraise")
    assert found is not None
    assert found.elsewhere
    assert sentence(found).en == "The same message is also in llamafactory."


def test_another_class_speaks_against_a_short_message() -> None:
    """The same words in another exception are no proof."""
    assert origins.find("ValueError", "Template qwen9 does not exist.") is not None
    assert origins.find("OSError", "Template qwen9 does not exist.") is None


def test_no_template_of_common_words_answers_without_a_frame() -> None:
    """For templates that tell less than MIN_BITS_OWN the frame decides: without it none of them is ever an origin."""
    short = [stored for stored in TEMPLATES if stored.bits < origins.MIN_BITS_OWN]
    assert short
    for stored in short[::7]:
        found = origins.find(INDEX.head.exceptions[stored.sites[0].exception], rendered(stored, ["zq"]))
        assert found is None or found.bits >= origins.MIN_BITS_OWN


def test_size() -> None:
    """The file is small enough to ship: at most 2 MB."""
    assert 500_000 < origin_index.FILE.stat().st_size <= 2_000_000
    assert {"llamafactory", "transformers", "peft", "trl", "accelerate", "datasets", "deepspeed", "bitsandbytes", "torch"} <= set(
        INDEX.head.versions
    )


# --- labels


def label_uses() -> Iterator[tuple[str, origin_causes.Label, str]]:
    """Package, label and template of every labelled place."""
    for stored in TEMPLATES:
        text = stored.text.replace("\0", "{}")
        for site in stored.sites:
            label = origin_causes.label_of(module_of(site), site.function, INDEX.head.exceptions[site.exception], text)
            if label is not None:
                yield module_of(site).partition("/")[0], label, text


def test_every_label_is_used() -> None:
    """A label, and each part of a message that it names, is the first that fits for at least one place."""
    uses = list(label_uses())
    for package, labels in origin_causes.labels().items():
        for label in labels:
            texts = [text for own, used, text in uses if own == package and used is label]
            assert texts, (package, label)
            for part in label.says:
                assert any(part in text for text in texts), (package, label.cause, part)


def test_labels_name_causes_that_rules_explain() -> None:
    """A cause without a rule would have no text and no remedy."""
    known = {rule.cause for rule in loader.load().rules}
    named = {label.cause for labels in origin_causes.labels().values() for label in labels}
    assert named
    assert named <= known - {"unknown"}


def test_a_place_without_a_label_has_no_cause() -> None:
    """Unlabelled is unlabelled: no default, no guess from the package."""
    assert origin_causes.label_of("transformers/cache_utils.py", "Cache.crop", "ValueError", "anything") is None
    assert origin_causes.label_of("nosuchpackage/a.py", "f", "ValueError", "Template {} does not exist.") is None


@pytest.mark.parametrize(
    ("exception", "message", "cause"),
    [
        ("ValueError", "Template qwen9 does not exist.", "template_missing_or_unknown"),
        ("ValueError", "Cannot merge adapters to a quantized model.", "export_merge_quantized_base"),
        ("ValueError", "Cannot use `packing` and nothing else", None),
        ("RuntimeError", "Cannot find valid samples, check `data/README.md` for the data format.", "dataset_empty_after_processing"),
        ("ValueError", "Attempting to unscale FP16 gradients.", "mixed_precision_dtype_conflict"),
        ("OSError", "Not enough disk space. Needed: 3 (download: 1, generated: 2, post-processed: 0)", "disk_full"),
    ],
)
def test_causes_of_messages(exception: str, message: str, cause: str | None) -> None:
    """What a person read in the sources is what the message is told to mean."""
    found = origins.find(exception, message)
    assert (found.cause if found else None) == cause


# --- in words


def origin(*places: tuple[str, str, int, int, int]) -> Origin:
    """An origin of places: module, function, number of the first, last and newest release (named 4.0, 4.1, ...)."""
    sites = tuple(
        Site(
            module.partition("/")[0],
            module,
            function,
            "ValueError",
            Release(first, f"4.{first}"),
            Release(last, f"4.{last}"),
            first == 0,
            last == newest,
        )
        for module, function, first, last, newest in places
    )
    return Origin(sites, "no {}", 30, 0.9)


@pytest.mark.parametrize(
    ("places", "english"),
    [
        ([("a/b.py", "T.f", 1, 3, 9)], "This message comes from a 4.1 to 4.3: `f` in a/b.py."),
        ([("a/b.py", "T.f", 2, 2, 9)], "This message comes from a 4.2: `f` in a/b.py."),
        ([("a/b.py", "T.f", 0, 3, 9)], "This message comes from a up to 4.3: `f` in a/b.py."),
        ([("a/b.py", "T.f", 1, 9, 9)], "This message comes from a 4.1 and later: `f` in a/b.py."),
        ([("a/b.py", "T.f", 0, 9, 9)], "This message comes from a 4.0 (or earlier) and later: `f` in a/b.py."),
        ([("a/b.py", "f", 1, 2, 9), ("a/c.py", "f", 3, 4, 9)], "This message comes from a 4.1 to 4.4: `f` in several of its files."),
        ([("a/b.py", "f", 1, 2, 9), ("a/b.py", "g", 3, 9, 9)], "This message comes from a 4.1 and later, a/b.py."),
        ([("a/b.py", "f", 1, 2, 9), ("a/c.py", "g", 1, 4, 9)], "This message comes from a 4.1 to 4.4, from several places."),
        ([("a/b.py", "f", 1, 2, 9), ("z/c.py", "f", 1, 4, 9)], "Several packages have this message: a, z."),
    ],
)
def test_the_sentence(places: list[tuple[str, str, int, int, int]], english: str) -> None:
    """As much of the place as all sites share; the releases that have any of them."""
    text = sentence(origin(*places))
    assert text.en == english
    assert len({text.get(lang) for lang in LANGUAGES}) == len(LANGUAGES)


def test_the_sentence_in_korean_and_chinese() -> None:
    """Names stay as they are."""
    text = sentence(origin(("a/b.py", "T.f", 1, 3, 9)))
    assert text.ko == "이 메시지는 a 4.1부터 4.3까지의 a/b.py에 있는 `f`에서 나옵니다."
    assert text.zh == "这条消息来自 a 4.1 到 4.3：a/b.py 中的 `f`。"
