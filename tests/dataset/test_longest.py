"""The longest sequence a training reads: of all samples, or of the batches that are drawn; never a guess. Lengths are kept between runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.dataset import memo, order
from doctor.dataset.longest import Longest, longest
from doctor.dataset.tokenizer import Tokenizer
from tests.dataset.sets import good, lines, put
from tests.dataset.test_lengths import words  # noqa: F401 (a fixture)

pytest.importorskip("tokenizers")


@pytest.fixture
def config(tmp_path: Path, words: str) -> dict[str, object]:  # noqa: F811
    """Eight samples of 2 to 9 tokens, the longest last."""
    put(tmp_path, "one.jsonl", lines(*[good(number, instruction="w " * number, output="w") for number in range(1, 9)]))
    return {"dataset": "one", "template": "empty", "model_name_or_path": words, "per_device_train_batch_size": 2, "disable_shuffling": True}


@pytest.mark.parametrize(
    ("change", "proven", "tokens", "source"),
    [
        ({}, True, 9, "longest_batch"),
        ({"max_steps": 2}, True, 5, "longest_batch"),  # the rows 1 to 4
        ({"max_steps": 4}, True, 9, "longest_batch"),
        ({"max_steps": 9}, True, 9, "longest_batch"),  # a second epoch
        ({"per_device_train_batch_size": 3, "dataloader_drop_last": True}, True, 7, "longest_batch"),  # the rows 1 to 6
        ({"max_samples": 3}, True, 4, "longest_batch"),
        ({"cutoff_len": 6}, True, 6, "longest_batch"),
        ({"max_steps": 2}, False, 9, "longest_sample"),
        ({"max_steps": 2, "deepspeed": "ds.json"}, True, 9, "longest_sample"),
    ],
)
def test_the_longest_sequence_that_is_read(tmp_path, config, change, proven, tokens, source):
    """Where the order is proven, of the batches that the steps read; otherwise of all samples; at most cutoff_len."""
    installed = order.VERSIONS if proven else {}
    found = longest({**config, **change}, tmp_path, installed=installed)
    assert (found.tokens, found.source, found.unknown) == (tokens, source, "")


def test_two_processes_read_twice_as_many_rows(tmp_path, config):
    """One step of two times two rows."""
    assert longest({**config, "max_steps": 1}, tmp_path, world=2, installed=order.VERSIONS).tokens == 5


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"packing": True}, "packing"),
        ({"stage": "pt"}, "packing"),
        ({"template": None}, "no_template"),
        ({"model_name_or_path": "nobody/none"}, "no_tokenizer"),
        ({"dataset": "nothing"}, "not_readable"),
        ({"dataset": None}, "not_readable"),
    ],
)
def test_nothing_is_guessed(tmp_path, config, change, why):
    """Packed rows are as long as cutoff_len; without template, tokenizer or data no length is known."""
    found = longest({**config, **change}, tmp_path)
    assert (found.source, found.unknown, found.facts()) == ("", why, {})


@pytest.mark.parametrize("odd", ["{", '{"instruction": 1, "output": "w"}'])
def test_a_data_set_at_which_the_loader_stops_has_no_length(tmp_path, config, odd):
    """A run with it never trains."""
    put(tmp_path, "one.jsonl", lines(good(1), odd))
    assert longest(config, tmp_path).unknown == "not_readable"


def test_large_data_is_read_only_where_that_is_asked(tmp_path, config):
    """By the size of the files."""
    assert longest(config, tmp_path, most_bytes=10) == Longest(unknown="large")


@pytest.fixture
def kept(tmp_path, monkeypatch, config):
    """Files of any size are kept; how many texts each run encoded."""
    monkeypatch.setenv("LFDOCTOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memo, "MIN_BYTES", 0)
    encoded: list[int] = []
    encode = Tokenizer.encode_all

    def counting(self, groups):
        listed = list(groups)
        encoded.append(len(listed))
        return encode(self, listed)

    monkeypatch.setattr(Tokenizer, "encode_all", counting)

    def run(**change: object) -> tuple[int, int]:
        encoded.clear()
        return longest({**config, **change}, tmp_path).tokens, sum(encoded)

    return run


def test_what_was_measured_is_not_encoded_again(tmp_path, kept):
    """Only if file, template or options change; another content of the same size and time is another file."""
    assert kept() == (9, 8)
    assert kept() == (9, 0)
    assert kept(template="qwen")[1] == 8
    assert kept(cutoff_len=6) == (6, 8)
    assert kept() == (9, 0)
    file = tmp_path / "data" / "one.jsonl"
    about = file.stat()
    file.write_bytes(file.read_bytes().replace(b'"w w "', b'"w-w "'))
    __import__("os").utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert kept()[1] == 8


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x81\xa8measures\xc4\x03abc", b"\x81\xa8measures\xc4\x14" + b"\0" * 20])
def test_a_damaged_cache_only_costs_time(tmp_path, kept, damage):
    """Cut, no MessagePack, a number too few, rows that were not measured."""
    assert kept() == (9, 8)
    (file,) = (tmp_path / "cache" / "lfdoctor").glob("lengths-*.msgpack")
    file.write_bytes(damage)
    assert kept() == (9, 8)


def test_another_users_cache_is_not_believed(tmp_path, kept, monkeypatch):
    """In a shared folder anybody could write lengths."""
    if not hasattr(__import__("os"), "getuid"):
        pytest.skip("no owners")
    assert kept() == (9, 8)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    assert kept() == (9, 8)


def test_a_token_that_the_tokenizer_lacks_is_noticed_each_time(tmp_path, kept, config):
    """Nothing is kept of a template that does not fit."""
    (Path(str(config["model_name_or_path"])) / "tokenizer_config.json").write_text("{}")
    assert kept(template="chatglm3")[1] == 8
    assert kept(template="chatglm3")[1] == 8
