"""Templates and lengths by hand-made examples; the whole is proven against LLaMA-Factory in tests/lab/dataset_proof.py."""

from __future__ import annotations

import json
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from doctor.dataset.convert import Sample, Turn
from doctor.dataset.inspect import Look
from doctor.dataset.numbers import greedy_knapsack, packed_rows, padding
from doctor.dataset.sequences import infer_seqlen, options_of
from doctor.dataset.templates import known_templates, many_turns, one_turn, special_tokens, template_of
from doctor.dataset.tools import LengthUnknown, NotEncodable, called, described
from tests.dataset.sets import found, good, lines, put, seen

WEATHER = json.dumps([{"name": "w", "description": "Weather.", "parameters": {"required": ["c"], "properties": {"c": {"type": "string"}}}}])


def sample(*contents: str, system: str = "") -> Sample:
    turns = [Turn("user" if number % 2 == 0 else "assistant", content) for number, content in enumerate(contents)]
    return Sample(turns[:-1], turns[-1:], system=system)


def test_a_conversation_in_chatml():
    """Prefix and system prompt stand before the first turn only."""
    template = template_of({"template": "qwen"})
    assert template is not None
    assert many_turns(template, sample("hi", "yes", "more", "no", system="Be kind."), mask_history=False) == [
        ["<|im_start|>system\nBe kind.<|im_end|>\n", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"],
        ["yes<|im_end|>\n"],
        ["<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n"],
        ["no<|im_end|>\n"],
    ]


def test_a_template_in_the_style_of_llama2_puts_the_system_prompt_into_the_first_message():
    """Llama2Template."""
    template = known_templates()["llama2"]
    assert many_turns(template, sample("hi", "yes", system="Be kind."), mask_history=False) == [
        [{"special": "bos_token"}, "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nhi [/INST]"],
        ["yes", {"special": "eos_token"}],
    ]


def test_a_reasoning_template_adds_an_empty_thought():
    """Part of the answer when thinking is on, of the prompt when it is off; never beside a thought that is there."""
    on, off = template_of({"template": "qwen3"}), template_of({"template": "qwen3", "enable_thinking": False})
    assert on is not None
    assert off is not None
    empty = "<think>\n\n</think>\n\n"
    assert many_turns(on, sample("hi", "yes"), mask_history=False)[1] == [empty, "yes<|im_end|>\n"]
    assert many_turns(off, sample("hi", "yes"), mask_history=False)[0][-1] == empty
    thought = "<think>\nwell\n</think>\n\nyes"
    assert one_turn(on, sample("hi", thought), Turn("assistant", thought))[1] == [f"{thought}<|im_end|>\n"]
    assert one_turn(off, sample("hi", thought), Turn("assistant", thought))[0][-1] == empty


def test_options_change_the_template():
    """default_system and tool_format."""
    assert template_of({"template": "qwen", "default_system": "Short."}).default_system == "Short."
    assert template_of({"template": "qwen", "tool_format": "mistral"}).tools == "mistral"
    assert template_of({"template": "nothing"}) is None
    assert template_of({}) is None


def test_tools_as_text():
    """The default form, a call, and what LLaMA-Factory cannot use."""
    assert "> Tool Name: w\nTool Description: Weather.\nTool Args:\n  - c (string, required): \n" in described("default", WEATHER)
    assert described("qwen", "[]") == ""
    call = '{"name": "w", "arguments": {"c": "Rome"}}'
    assert called("default", call, None, None) == 'Action: w\nAction Input: {"c": "Rome"}'
    assert called("qwen", f"<think>\nso\n</think>\n\n{call}", ("<think>\n", "\n</think>\n\n"), None).startswith(
        "<think>\nso\n</think>\n\n<tool_call>"
    )
    with pytest.raises(NotEncodable, match="function_json"):
        called("qwen", "no call", None, None)
    with pytest.raises(LengthUnknown):
        described("llama3", WEATHER)


def test_special_tokens_are_those_of_roles_and_ends():
    """Words of thoughts and tools belong into texts."""
    assert special_tokens(known_templates()["qwen3"]) == {"<|im_start|>", "<|im_end|>"}
    assert special_tokens(known_templates()["alpaca"]) == set()


@pytest.mark.parametrize(
    ("source", "target", "cutoff", "kept"),
    [
        (10, 5, 100, (10, 5)),  # all fits
        (200, 20, 100, (80, 20)),  # a short answer stays whole, the prompt is cut
        (20, 200, 100, (20, 80)),  # a short prompt stays whole
        (300, 100, 100, (75, 25)),  # both are cut in proportion
    ],
)
def test_truncation_prefers_the_shorter_side(source, target, cutoff, kept):
    """processor_utils.py, infer_seqlen."""
    assert infer_seqlen(source, target, cutoff) == kept


def test_packing_takes_one_token_from_cutoff_len():
    """data_args.py; pre-training packs by itself and takes none."""
    assert options_of({"cutoff_len": 100, "packing": True}).cutoff_len == 99
    assert options_of({"cutoff_len": 100, "neat_packing": True}).packing
    assert (options_of({"stage": "pt"}).packing, options_of({"stage": "pt"}).cutoff_len) == (True, 2048)
    assert not options_of({"stage": "sft"}).packing


def test_packing_by_hand():
    """The longest that fits is taken first; each thousand samples are packed by themselves."""
    assert greedy_knapsack([4, 6, 3, 7], 10) == [[7, 3], [6, 4]]
    assert packed_rows(array("Q", [4, 6, 3, 7]), 10, 1000) == 2
    assert packed_rows(array("Q", [4, 6, 3, 7]), 10, 1) == 4
    assert packed_rows(array("Q", [4, 60]), 10, 1000) == 1  # too long: dropped


@given(some.lists(some.integers(1, 50), max_size=40))
def test_packing_loses_nothing_and_overfills_nothing(lengths):
    """Every sample is in one row; no row is longer than the capacity."""
    made = greedy_knapsack(lengths, 50)
    assert sorted(length for row in made for length in row) == sorted(lengths)
    assert all(sum(row) <= 50 for row in made)


def test_padding_by_hand():
    """One batch of 8 and 16 tokens is padded to 16 each: a quarter is padding; equal lengths give none."""
    assert padding(array("Q", [8, 16]), 2, grouped=False) == 0.25
    assert padding(array("Q", [8] * 9), 4, grouped=False) == 0
    assert padding(array("Q", [5]), 1, grouped=False) == 1 - 5 / 8


@given(some.lists(some.integers(1, 500), min_size=1, max_size=200), some.integers(1, 8))
def test_padding_is_a_share(lengths, batch):
    """Between 0 and 1, grouped or not."""
    assert all(0 <= padding(array("Q", lengths), batch, grouped=grouped) < 1 for grouped in (True, False))


@pytest.fixture
def words(tmp_path: Path) -> str:
    """A model folder whose tokenizer takes each word and each mark for a token."""
    library = pytest.importorskip("tokenizers")
    place = tmp_path / "model"
    place.mkdir()
    vocabulary = {word: number for number, word in enumerate(["[UNK]", "<|im_end|>", "</s>", "w"])}
    tokenizer = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(place / "tokenizer.json"))
    (place / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "unk_token": "[UNK]"}))
    return str(place)


LENGTHS = Look(near=False)


def test_lengths_of_a_small_set(tmp_path, words):
    """Template `empty`: prompt and answer alone, a word a token; figures by hand."""
    made = [good(1, instruction="w " * prompt, output=" ".join(["w"] * answer)) for prompt, answer in ((2, 2), (3, 5), (1, 7), (10, 20))]
    put(tmp_path, "one.jsonl", lines(*made))
    report = seen(tmp_path, LENGTHS, template="empty", model_name_or_path=words, cutoff_len=10, per_device_train_batch_size=2)
    numbers = report.numbers
    assert numbers is not None
    assert (numbers.samples, numbers.p50, numbers.p90, numbers.longest, numbers.mean) == (4, 8, 30, 30, 12.5)
    assert (numbers.cut, numbers.cut_tokens, numbers.lost, numbers.suggested_cutoff_len) == (1, 20, 0, 32)
    # 10 + 20 into 10: both are cut, int(10 * 20 / 30) = 6 of the answer stay
    assert (numbers.tokens_per_epoch, numbers.trained_per_epoch) == (4 + 8 + 8 + 10, 2 + 5 + 7 + 6)
    assert (numbers.packed_rows, numbers.steps_per_epoch) == (4, 2)
    assert [(tokens, place.line) for tokens, place in numbers.longest_places] == [(30, 4), (8, 2), (8, 3), (4, 1)]
    assert found(report) == {"cut": [4]}


def test_an_answer_that_is_cut_away_is_a_warning(tmp_path, words):
    """cutoff_len 1: int(1 * 2 / 22) = 0 tokens of the answer are left."""
    put(tmp_path, "one.jsonl", lines(good(1, instruction="w " * 20, output="w w"), good(2, instruction="w", output="w")))
    report = seen(tmp_path, LENGTHS, template="empty", model_name_or_path=words, cutoff_len=1)
    assert found(report)["answer_lost"][0] == 1


def test_val_size_and_gpus_count_in_the_steps(tmp_path, words):
    """10 samples, 2 held out, batch 2 on 2 GPUs: two steps."""
    put(tmp_path, "one.jsonl", lines(*[good(number) for number in range(10)]))
    config = {"template": "empty", "model_name_or_path": words, "per_device_train_batch_size": 2}
    assert seen(tmp_path, Look(near=False, gpus=2), val_size=0.2, **config).numbers.steps_per_epoch == 2
    assert seen(tmp_path, Look(near=False, gpus=2), val_size=2, **config).numbers.steps_per_epoch == 2
    assert seen(tmp_path, Look(near=False, gpus=1), **config).numbers.steps_per_epoch == 5


def test_samples_of_unknown_length_are_counted_not_guessed(tmp_path, words):
    """Images: LLaMA-Factory puts hundreds of tokens in place of each. No steps are promised either."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").write_bytes(b"x")
    columns = {"prompt": "instruction", "query": "input", "response": "output", "images": "images"}
    put(tmp_path, "one.jsonl", lines(good(1, images=[]), good(2, instruction="<image>", images=["a.jpg"])), columns=columns)
    numbers = seen(tmp_path, LENGTHS, template="qwen2_vl", model_name_or_path=words).numbers
    assert numbers is not None
    assert (numbers.samples, numbers.unknown, numbers.steps_per_epoch) == (1, {"media": 1}, None)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"template": None}, "no_template"),
        ({"model_name_or_path": "nobody/no-model"}, "no_tokenizer"),
        ({"use_fast_tokenizer": False}, "slow_tokenizer"),
        ({"split_special_tokens": True}, "slow_tokenizer"),
    ],
)
def test_unknown_lengths_say_why(tmp_path, words, config, reason):
    """No number is made up."""
    put(tmp_path, "one.jsonl", lines(good(1)))
    report = seen(tmp_path, LENGTHS, **{"model_name_or_path": words, **config})
    assert (report.numbers, report.unknown) == (None, reason)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 1}', "\0" * 100])
def test_a_damaged_tokenizer_is_a_word(tmp_path, words, content):
    """The library raises plain exceptions."""
    (Path(words) / "tokenizer.json").write_text(content)
    put(tmp_path, "one.jsonl", lines(good(1)))
    assert seen(tmp_path, LENGTHS, model_name_or_path=words).unknown == "broken_tokenizer"


def test_a_token_of_the_template_that_the_tokenizer_lacks_is_an_error(tmp_path, words):
    """chatglm3 wants `[gMASK]` by name: without an unknown token LLaMA-Factory puts None among the ids."""
    put(tmp_path, "one.jsonl", lines(good(1)))
    assert "token_missing" not in found(seen(tmp_path, LENGTHS, model_name_or_path=words, template="chatglm3"))
    (Path(words) / "tokenizer_config.json").write_text("{}")
    report = seen(tmp_path, LENGTHS, model_name_or_path=words, template="chatglm3")
    (finding,) = [finding for finding in report.findings if finding.kind == "token_missing"]
    assert "[gMASK]" in finding.places[0].detail


def test_the_histogram_counts_each_sample_in_a_bin_of_round_width(tmp_path, words):
    """Lengths 2 to 121: bins of 4 tokens, the first of 1 to 4."""
    put(tmp_path, "one.jsonl", lines(*[good(number, instruction="w " * number, output="w") for number in (1, 2, 3, 4, 120)]))
    numbers = seen(tmp_path, LENGTHS, template="empty", model_name_or_path=words).numbers
    assert numbers is not None
    assert (numbers.bin_tokens, len(numbers.bins), numbers.longest) == (4, 31, 121)
    assert (numbers.bins[0], numbers.bins[1], numbers.bins[-1], sum(numbers.bins)) == (3, 1, 1, 5)


def test_no_steps_are_told_of_a_part_of_the_samples(tmp_path, words):
    """Sampled rows, streaming, interleaving, a set with num_samples, a set that is on a hub."""
    put(tmp_path, "one.jsonl", lines(*[good(number) for number in range(6)]))
    put(tmp_path, "two.jsonl", lines(*[good(number + 50) for number in range(6)]), num_samples=3)
    config = {"template": "empty", "model_name_or_path": words}
    assert seen(tmp_path, LENGTHS, **config).numbers.steps_per_epoch == 1
    assert seen(tmp_path, Look(near=False, rows=3), **config).numbers.steps_per_epoch is None
    for more in ({"streaming": True}, {"mix_strategy": "interleave_under"}, {"dataset": "one,two"}, {"dataset": "one,nothing"}):
        assert seen(tmp_path, LENGTHS, **{**config, **more}).numbers.steps_per_epoch is None


@pytest.mark.parametrize(("kind", "told"), [("PreTrainedTokenizerFast", ""), (None, ""), ("LlamaTokenizerFast", "LlamaTokenizerFast")])
def test_a_class_that_transformers_builds_anew_is_named(tmp_path, words, kind, told):
    """Then the lengths are those of tokenizer.json, which may be others."""
    file = Path(words) / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tokenizer_class": kind}))
    put(tmp_path, "one.jsonl", lines(good(1)))
    assert seen(tmp_path, LENGTHS, model_name_or_path=words).rebuilt == told
