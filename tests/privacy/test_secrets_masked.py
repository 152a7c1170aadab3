"""Secrets and control characters never leave; ordinary log text does, unchanged."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.privacy.personal import names_in, private
from doctor.privacy.secrets import clean, is_random, mask, plain
from tests.privacy.providers import ALL_KINDS
from tests.secrets import PRIVATE

ROOT = Path(__file__).parents[2]
SECRETS = [
    ("hf_hub_token: {}", "hf_QwErTyUiOpAsDfGhJkLz"),
    ("export OPENAI_API_KEY={}", "sk-proj-abcDEF1234567890abcd"),
    ("swanlab_api_key: {}", "Zx81kkQpl0aYtRmm"),
    ("wandb: Appending key for api.wandb.ai {}", "0123456789abcdef0123456789abcdef01234567"),
    ("WANDB_API_KEY={}", "0123456789abcdef0123456789abcdef01234567"),
    ("aws_access_key_id = {}", "AKIAABCDEFGHIJKLMNOP"),
    ("aws_secret_access_key={}", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"),
    ("Authorization: Bearer {}", "abc.def-GHI_123456"),
    ("'Authorization': 'Basic {}'", "dXNlcjpwYXNzd29yZA=="),
    ("https://user:{}@mirror.example.com/simple", "s3cretpw"),
    ("https://hooks.slack.com/services/{}", "T000/B000/XXXXYYYYZZZZ"),
    ("https://oapi.dingtalk.com/robot/send?access_token={}", "9f8e7d6c5b4a39281706f5e4d3c2b1a0"),
    ("token={}", "a1b2c3d4e5f6a7b8c9d0"),
    ('{{"hub_token": "{}"}}', "plainlookingvalue1"),
    ("git clone https://x:{}@github.com/a/b", "ghp_abcdefghijklmnopqrstuvwx1234"),
    ("ms_hub_token {}", "3f2b8c1d-77aa-4b1e-9f00-a1b2c3d4e5f6"),
]
HARMLESS = [
    "pad_token_id=151643 eos_token: <|im_end|> bos_token: <|endoftext|>",
    "total_tokens: 123456789, tokens per second 2345.1, max_new_tokens: 1024",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 270.00 MiB. GPU 1 has a total capacity of 23.65 GiB",
    "hf_hub_token: null, use_auth_token=False, api_key=None, token: true",
    "commit 0123456789abcdef0123456789abcdef01234567 of transformers",
    "The new embeddings will be initialized; tokenizer file tokenizer.json; password-free login",
    "WANDB_API_KEY=$WANDB_API_KEY python train.py",
    "git+https://github.com/huggingface/transformers@main",
    "Added token special_token_for_images to the vocabulary",
    "ValueError: asking to pad but the tokenizer does not have a padding token (pad_token) 'tokenizer.pad_token = tokenizer.eos_token'",
]


ORDINARY = [
    "trainable params: 20185088 || all params: 14770033664 || trainable%: 0.1367",
    "[rank0]:[E512 10:01:02.123456] 2026-11-30 12:30:45,123 step 13800138000",
    "c10::Error at::native::add std::vector<at::Tensor>::operator[] dead::beef_t",
    "Loading /data/models/Qwen2.5-7B and /data/datasets/alpaca.json, /data1/huggingface/hub/x",
    "snapshots/0123456789abcdef0123456789abcdef01234567/model.safetensors",
    "git version 0123456789abcdef0123456789abcdef01234567",
    "password-free login; pass 3 of 4; PWD=/workspace; tokens: 1234 key: value 关键: abc",
    "epoch 3: pass=3 rate 110105194912310021 samples",
    "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "-p 8080:80 curl -s https://x.example/a mysql -u root",
    "20:20:20 loss 1.0 ETA 1:02:03:04",
]


@pytest.mark.parametrize(("line", "secret"), SECRETS)
def test_a_secret_is_masked_and_its_name_stays(line: str, secret: str) -> None:
    """What makes the value usable is gone, the words before it are still there."""
    masked = clean(line.format(secret))
    assert secret not in masked
    assert "***" in masked
    assert masked[:4] == line.format(secret)[:4]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_kind_of_key_is_masked(kind: str) -> None:
    """Twenty of each: the providers' tokens, named values, arguments of commands, labels in many languages."""
    make, lines = ALL_KINDS[kind]
    for seed in range(20):
        for line in lines:
            secret = make(random.Random(f"{seed} {line}"))
            if kind != "nameless" or is_random(secret):  # a random word may look like a name; none of these has 44 letters
                assert secret not in mask(line.format(secret)), line
                assert secret not in clean(json.dumps({"message": line.format(secret)})), line


@pytest.mark.parametrize("upper", [False, True])
def test_no_pattern_is_spared_where_it_could_match(upper: bool) -> None:
    """With a letter beyond ASCII on the line above every pattern is tried: the masked text is the same as without."""
    for make, lines in ALL_KINDS.values():
        for line in lines:
            given = line.format(make(random.Random(line)))
            given = given.upper() if upper else given
            if given.isascii():
                assert mask(f"\u00e9\n{given}").removeprefix("\u00e9\n") == mask(given)


def test_the_published_list_names_every_kind() -> None:
    """docs/secrets.md lists them, says how many there are, and how many of the fresh ones were held back."""
    page = (ROOT / "docs" / "secrets.md").read_text(encoding="utf-8")
    listed = page.partition("<!-- kinds -->")[2].partition("<!-- end -->")[0]
    assert sorted(name.strip(" .\n") for name in listed.replace("\n", " ").split(",")) == sorted(ALL_KINDS)
    assert len(ALL_KINDS) >= 240
    assert f"{len(ALL_KINDS)} kinds" in page


def test_a_hundred_harmless_lines_stay_as_they_are() -> None:
    """Hashes of commits, models, runs and paths, kernels, wheels, identities of cards and requests, commands without a secret."""
    lines = (Path(__file__).parent / "harmless.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 100
    assert [clean(line) for line in lines] == lines


@pytest.mark.parametrize("kind", PRIVATE)
def test_every_kind_of_personal_data_is_masked(kind: str) -> None:
    """Accounts, hosts, addresses of both versions and of cards, phone and identity numbers, and training samples."""
    for seed in range(20):
        make, lines = PRIVATE[kind]
        for line in lines:
            secret = make(random.Random(f"{seed} {line}"))
            assert secret not in private(line.format(secret)), line


def test_labels_inside_json_escapes_are_read() -> None:
    """Python's json writes Chinese and Korean as escapes; ours and others' journals hold such lines."""
    for line, secret in (("密码：abc123", "abc123"), ("비밀번호: abc123", "abc123"), ("手机 13349297217", "13349297217")):
        assert secret not in private(clean(json.dumps({"message": line})))
    assert clean(r"C:\users\ud83d \u0041") == r"C:\users\ud83d \u0041"


@pytest.mark.parametrize("line", ORDINARY)
def test_ordinary_log_lines_hold_no_personal_data(line: str) -> None:
    """Counts of parameters, clock times, C++ names, shared folders and digests stay."""
    assert private(clean(line)) == line


@pytest.mark.parametrize("line", HARMLESS)
def test_log_text_that_only_sounds_secret_is_kept(line: str) -> None:
    """Words about tokens and hashes without a key's name stay as they are, or evidence would be useless."""
    assert clean(line) == line


def test_masking_twice_changes_nothing_more() -> None:
    """A masked text is fit to be masked again (saved reports are)."""
    for line, secret in SECRETS:
        once = mask(line.format(secret))
        assert mask(once) == once


def test_values_under_a_secret_name_are_masked_in_changes() -> None:
    """A patch that touches a key of that name does not show it."""
    assert plain({"swanlab_api_key": "x", "nested": [{"hub_token": "abc"}], "lora_rank": 8}) == {
        "swanlab_api_key": "***",
        "nested": [{"hub_token": "***"}],
        "lora_rank": 8,
    }


@given(st.text())
def test_cleaned_text_cannot_steer_a_terminal(text: str) -> None:
    """No escape, no other control but the newline, no bidirectional override, always encodable as UTF-8."""
    out = clean(text)
    out.encode()
    assert not any((ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or 0x202A <= ord(c) <= 0x202E for c in out)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_anything_becomes_json(value: object) -> None:
    """Huge integers, bytes, odd keys: a report can always be written."""
    json.dumps(plain(value))


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("node17.lab.internal", {"node17.lab.internal", "node17"}),
        ("trainer.lab.internal", {"trainer.lab.internal"}),
        ("gpu8x", {"gpu8x"}),
    ],
)
def test_a_host_is_known_by_its_short_name_where_that_names_one_machine(host: str, names: set[str]) -> None:
    """A short name with a number is one machine's and is masked alone as well; a word may be any."""
    assert names_in(f"hostname: {host}\n") == names
