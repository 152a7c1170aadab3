"""Lengths that are only counted are those of the sequences themselves, for every kind of template and option."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from doctor.dataset.convert import Sample, Turn
from doctor.dataset.counts import count
from doctor.dataset.sequences import Options, build, plan
from doctor.dataset.templates import known_templates
from doctor.dataset.tokenizer import Tokenizer

TEMPLATES = ("empty", "qwen", "qwen3", "llama2", "alpaca", "chatglm3", "mistral", "deepseek", "baichuan2")
CONTENT = some.lists(some.sampled_from(("w", "x", "<|im_end|>")), max_size=12).map(" ".join)
OPTIONS = some.builds(
    Options, stage=some.sampled_from(("sft", "dpo", "kto", "pt", "ppo")), cutoff_len=some.integers(1, 40), train_on_prompt=some.booleans(),
    mask_history=some.booleans(), packing=some.booleans(),
)  # fmt: skip


def tokenizer(*, ends: bool) -> Tokenizer:
    library = pytest.importorskip("tokenizers")
    words = {word: number for number, word in enumerate(["[UNK]", "</s>", "w", "x", "<|im_end|>"])}
    backend = library.Tokenizer(library.models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend, {"unk_token": "[UNK]", **({"eos_token": "</s>"} if ends else {})}, special=library.AddedToken)


@given(
    contents=some.lists(CONTENT, min_size=2, max_size=6).filter(lambda found: len(found) % 2 == 0),
    other=CONTENT,
    name=some.sampled_from(TEMPLATES),
    options=OPTIONS,
    ends=some.booleans(),
)
def test_counted_and_built_lengths_are_equal(contents, other, name, options, ends):
    """Whole, kept, answer and trained tokens; the answers of a pair, one rated answer, several turns."""
    turns = [Turn("user" if number % 2 == 0 else "assistant", content) for number, content in enumerate(contents)]
    answers = [turns[-1], Turn("assistant", other)] if options.stage in ("dpo", "kto") else turns[-1:]
    template, words = known_templates()[name], tokenizer(ends=ends)
    made = plan(Sample(turns[:-1], answers), template, options)
    built = [(one.whole, len(one.ids), one.answer, one.trained) for one in build(made, words, template, options)]
    assert [tuple(one) for one in count(made, words, template, options)] == built
