"""What a message tells its reader to do is found, quoted, and offered as a command only where that is safe."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.diagnosis.unlisted.advice import MOST, advice_in, asks, pasteable, remedy_of, step_of

FOUND = [
    ("built without support, run with USE_LIBUV=0 to disable it.", "variable", "export USE_LIBUV=0"),
    ('Please set `NCCL_P2P_DISABLE="1"` first.', "variable", "export NCCL_P2P_DISABLE=1"),
    (
        "trl 0.9.6 requires transformers>=4.31.0, but you have transformers 4.30.2 which is incompatible.",
        "command",
        "pip install 'transformers>=4.31.0'",
    ),
    ("tokenizers>=0.21,<0.22 is required for this module", "command", "pip install 'tokenizers>=0.21,<0.22'"),
    ("Please run `pip install transformers[torch]`", "command", "pip install 'transformers[torch]'"),
    ("Install it with pip install flash-attn --no-build-isolation and try again", "command", "pip install flash-attn --no-build-isolation"),
    ("Please install sentencepiece.", "command", "pip install sentencepiece"),
    ("Please upgrade bitsandbytes to use this", "command", "pip install -U bitsandbytes"),
    ("You must run huggingface-cli login before", "command", "huggingface-cli login"),
    ("Please make sure that all nodes see the same folder.", "hint", None),
    ("Consider a smaller value.", "hint", None),
]


@pytest.mark.parametrize(("message", "kind", "command"), FOUND)
def test_advice_is_found(message: str, kind: str, command: str | None) -> None:
    """One piece of advice, with its sentence, and a command that can be pasted where there is one."""
    (says,) = advice_in(message)
    assert (says.kind, says.command, says.quote) == (kind, command, message)


OPTIONS = [
    ("set the option `trust_remote_code=True` to remove this error.", {"trust_remote_code": True}),
    ("by passing the keyword argument `find_unused_parameters=True` to DDP", {"ddp_find_unused_parameters": True}),
    ("Use --overwrite_output_dir to overcome.", {"overwrite_output_dir": True}),
    ("Please set `lr_scheduler_type: cosine`.", {"lr_scheduler_type": "cosine"}),
    ('use attn_implementation="sdpa" instead', {"flash_attn": "sdpa"}),
]


@pytest.mark.parametrize(("message", "sets"), OPTIONS)
def test_an_option_with_a_legal_value_becomes_a_remedy(message: str, sets: dict[str, object]) -> None:
    """The planner gets a patch; arguments of the libraries below become LLaMA-Factory's options."""
    remedy = remedy_of(advice_in(message)[0])
    assert remedy is not None
    assert [op.set for op in remedy.patch] == [sets]


@pytest.mark.parametrize(
    "message",
    [
        "`--fp16` can only be used on CUDA devices, set up one of them.",
        "ZeRO-3 is not compatible with `low_cpu_mem_usage=True` or with passing a `device_map`.",
        "You cannot use `trust_remote_code=True` here.",
        "`group_by_length=True` is not supported with streaming.",
    ],
)
def test_an_option_that_a_sentence_speaks_against(message: str) -> None:
    """It is named, but to say that it does not go: no remedy sets it."""
    assert all(remedy_of(says) is None for says in advice_in(message))


def test_an_illegal_value_is_no_remedy() -> None:
    """A value that LLaMA-Factory's parser refuses is only quoted."""
    assert all(remedy_of(says) is None for says in advice_in("Please set `cutoff_len: many`."))
    assert all(remedy_of(says) is None for says in advice_in("Please set `no_such_option=True`."))
    assert all(remedy_of(says) is None for says in advice_in("Please set `max_steps=2024-99-99`."))  # YAML takes it for a date


NOTHING = ["", "out of memory", "got 3, expected 4", "transformers failed", "the value of x_y=3 was read"]


@pytest.mark.parametrize("message", NOTHING)
def test_a_message_that_asks_for_nothing(message: str) -> None:
    """A statement is no advice."""
    assert advice_in(message) == []


HOSTILE = [
    "pip install x; rm -rf /",
    "pip install $(rm x)",
    "pip install `rm x`",
    "pip install a && b",
    "pip install 'a",
    "pip install a > b",
]


@pytest.mark.parametrize("command", HOSTILE)
def test_a_shell_would_do_more_than_one_thing(command: str) -> None:
    """Such a command is never offered for pasting."""
    assert pasteable(command) is None


@given(st.text(max_size=200))
def test_what_is_offered_is_one_line_of_quoted_words(text: str) -> None:
    """Whatever a log says: a command is one line, splits into words, and has no word that a shell acts on."""
    found = advice_in(f"Please run `pip install {text}` and set A_B={text}")
    assert len(found) <= MOST
    for says in found:
        if says.command is not None:
            assert "\n" not in says.command
            words = shlex.split(says.command)
            assert words[1:] == [f"{says.name}={says.value}"] if words[0] == "export" else shlex.join(words) == says.command
            assert words[0] in ("pip", "export")


def test_the_most_useful_come_first() -> None:
    """Options, then variables, then commands, then hints; a repeated one once."""
    message = "Please check it. Please run `ray status`. Set A_B=1. Set A_B=1. Set `bf16=True`."
    assert [says.kind for says in advice_in(message)] == ["option", "variable", "command"]


def test_what_a_message_asks_for_is_a_step() -> None:
    """A sentence that asks for something leads; one that only asks to look or to report does not."""
    said = advice_in("Cannot convert a MPS Tensor to float64 dtype. Please use float32 instead.")
    step = step_of(said)
    assert step is not None
    assert not step.check
    assert asks(said, "x.double()") == {"asks": "Please use float32 instead.", "asks_at": "x.double()"}
    looks = step_of(advice_in("Something broke. Please check your installation."))
    assert looks is not None
    assert looks.check
    assert step_of(advice_in("list index out of range")) is None


def test_options_that_exclude_each_other_are_told_in_plain_words() -> None:
    """The quoted sentence says what is refused; the step says what to remove."""
    said = advice_in("You can only use one of --cpu, --multi_gpu, --use_deepspeed at a time.")
    step = step_of(said)
    assert step is not None
    assert step.text.en.startswith("Give only one of {asks_one_of}")
    assert asks(said)["asks_one_of"] == "`--cpu`, `--multi_gpu`, `--use_deepspeed`"
    argparse = advice_in("train.py: error: argument --bf16: not allowed with argument --fp16")
    assert asks(argparse)["asks_one_of"] == "`--bf16`, `--fp16`"


def test_one_option_alone_excludes_nothing() -> None:
    assert "asks_one_of" not in asks(advice_in("You can only use one of the values below for --dtype."))


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("When streaming is on, max_steps must be a non-negative integer.", True),
        ("The global train batch size (7 x 1) must be evenly divisible by the number of generations per prompt (8).", True),
        ("`num_beams` has to be a multiple of `num_beam_groups`.", True),
        ("attn_mask must be on the same device as the query", False),
        ("`query` and `key` must have the same dtype", False),
        ("The weights must be loaded before.", False),
    ],
)
def test_what_a_value_must_be_is_asked_for(message: str, asked: bool) -> None:
    """A name and what its value must be; what a kernel expects of tensors asks nothing of the reader."""
    assert [says.kind for says in advice_in(message)] == (["hint"] if asked else [])


def test_an_option_that_is_needed_is_set() -> None:
    """A legal value of LLaMA-Factory's own option."""
    (says,) = advice_in("Freeze/Full PPO training needs `reward_model_type=full`.")
    assert (says.kind, says.name, says.value) == ("option", "reward_model_type", "full")
