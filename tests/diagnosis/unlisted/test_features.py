"""What is read of an exception: its place, its error number, what its message names, what it runs under."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.core.events import Crash, Fact, Frame, Where
from doctor.core.run import Run
from doctor.diagnosis.unlisted import messages
from doctor.diagnosis.unlisted.features import bases_of, features_of
from doctor.diagnosis.unlisted.places import package_of, places, telling
from doctor.diagnosis.unlisted.telling import features_of_line
from tests.diagnosis.unlisted.helpers import read_console

FILES = [
    ("/opt/venv/lib/python3.11/site-packages/transformers/models/qwen2/modeling_qwen2.py", ("transformers", "models/qwen2/modeling_qwen2")),
    ("C:\\Python311\\Lib\\site-packages\\peft\\utils\\other.py", ("peft", "utils/other")),
    ("/usr/local/lib/python3.10/dist-packages/torch/nn/modules/module.py", ("torch", "nn/modules/module")),
    ("/home/me/LLaMA-Factory/src/llamafactory/train/tuner.py", ("llamafactory", "train/tuner")),
    ("/app/src/llamafactory/third_party/triton/solve_tril.py", ("llamafactory", "third_party/triton/solve_tril")),
    ("/root/LLaMA-Factory/src/llmtuner/data/loader.py", ("llamafactory", "data/loader")),
    ("/usr/lib/python3.11/subprocess.py", ("python", "subprocess")),
    ("<frozen importlib._bootstrap>", ("python", "importlib._bootstrap")),
    ("/root/.cache/huggingface/modules/transformers_modules/my/model/modeling_x.py", ("remote_code", "modeling_x")),
    ("/home/me/finetune.py", ("script", "finetune")),
    ("/opt/venv/bin/torchrun", ("python", "torchrun")),
    ("/home/me/transformers/train.py", ("script", "train")),
]


@pytest.mark.parametrize(("file", "expected"), FILES)
def test_a_file_belongs_to_a_package(file: str, expected: tuple[str, str]) -> None:
    """Package and module are taken from paths of Linux and Windows, of installed and of cloned packages."""
    assert package_of(file) == expected


def frames(*pairs: tuple[str, str]) -> tuple[Frame, ...]:
    return tuple(Frame(f"/opt/venv/lib/python3.11/site-packages/{file}.py", 1, function) for file, function in pairs)


def test_the_telling_frame_is_no_wrapper() -> None:
    """Plumbing of torch and wrappers pass the call on; the frame before them says what was being done."""
    found = places(
        frames(
            ("transformers/trainer", "training_step"),
            ("torch/nn/modules/module", "_call_impl"),
            ("transformers/models/qwen2/modeling_qwen2", "forward"),
            ("accelerate/hooks", "new_forward"),
            ("torch/nn/modules/linear", "forward"),
        )
    )
    place = telling(found)
    assert place is not None
    assert place.name == "transformers/models/qwen2/modeling_qwen2:forward"


def test_where_all_frames_are_wrappers_the_innermost_known_one_tells() -> None:
    """Something is better than nothing; a traceback without a known package has no telling frame."""
    place = telling(places(frames(("torch/nn/modules/module", "_call_impl"), ("accelerate/hooks", "new_forward"))))
    assert place is not None
    assert place.name == "accelerate/hooks:new_forward"
    assert telling(places((Frame("/home/me/a.py", 1, "go"),))) is None


NUMBERS = [
    ("OSError", "[Errno 28] No space left on device", "ENOSPC"),
    ("OSError", "[WinError 1455] The paging file is too small", "ENOMEM"),
    ("ImportError", "[WinError 126] The specified module could not be found", "DLL"),
    ("SafetensorError", "The paging file is too small (os error 12)", "ENOMEM"),
    ("PermissionError", "", "EACCES"),
    ("RuntimeError", "bind: EADDRINUSE", "EADDRINUSE"),
    ("RuntimeError", "error 28", None),
]


@pytest.mark.parametrize(("exception", "message", "expected"), NUMBERS)
def test_error_numbers(exception: str, message: str, expected: str | None) -> None:
    """Numbers of Linux and Windows are one; Python's classes stand for theirs; any other number says nothing."""
    assert messages.error_number(exception, message) == expected


def test_what_a_message_names() -> None:
    """Options, variables, packages, files and quoted words, each told from plain prose."""
    text = "Set `flash_attn` or NCCL_P2P_DISABLE=1; transformers cannot read '/data/a.json' of the model"
    assert messages.options(text) == ("flash_attn",)
    assert messages.variables(text) == ("NCCL_P2P_DISABLE",)
    assert messages.packages(text) == ("flash_attn", "transformers")
    assert messages.files(text) == ("/data/a.json",)
    assert messages.quoted(text) == ("flash_attn", "/data/a.json")
    assert messages.options("the model and the data of this stage") == ()
    assert messages.options("--stage sft") == ("stage",)


def test_bases() -> None:
    """Python's own classes, and those of the libraries that are known."""
    assert bases_of("ModuleNotFoundError") == ("ImportError",)
    assert "HfHubHTTPError" in bases_of("GatedRepoError")
    assert bases_of("SomebodysError") == ()


def test_what_a_run_adds() -> None:
    """Launcher and config come from the run; options that were not given are left out."""
    run, where = Run(), Where("console.log", 1)
    run.apply(Fact(where=where, name="launcher", value="torchrun"))
    run.config.update({"stage": "dpo", "quantization_bit": 4, "fp16": False, "deepspeed": "ds_z3_config.json"})
    crash = Crash(where=where, exception="pkg.ValueError", message="x", frames=frames(("vllm/engine/llm_engine", "step")))
    features = features_of(crash, run)
    assert (features.exception, features.launcher, set(features.runtimes)) == ("ValueError", "torchrun", {"vllm", "torchrun"})
    assert features.config == {"stage": "dpo", "quantization_bit": "4", "zero_stage": "3"}


def test_the_words_of_a_model(tmp_path: Path) -> None:
    """Structure is told from the message's own words by its prefix."""
    text = "Traceback (most recent call last):\n  File \"/x/site-packages/peft/peft_model.py\", line 3, in load_adapter\nKeyError: 'lora'"
    crashes, run = read_console(text, tmp_path)
    words = set(features_of(crashes[0], run).words())
    assert {"class=KeyError", "class=LookupError", "at.package=peft", "at.function=load_adapter", "phase=load", "lora"} <= words


def test_a_traceback_that_was_cut_off(tmp_path: Path) -> None:
    """Its place is known, its exception is not."""
    crashes, run = read_console(
        'Traceback (most recent call last):\n  File "/x/site-packages/peft/peft_model.py", line 3, in forward', tmp_path
    )
    features = features_of(crashes[0], run)
    assert features.cut_off
    assert features.text == ""
    assert features.place is not None
    assert features.place.package == "peft"


def test_an_assertion_without_a_message_is_told_by_its_source_line(tmp_path: Path) -> None:
    """The traceback prints what was asserted; an assertion with a message keeps it."""
    head = 'Traceback (most recent call last):\n  File "/opt/venv/lib/python3.11/site-packages/trl/trainer/utils.py", line 9, in check\n'
    bare, _ = read_console(f"{head}    assert args.num_workers > 1\nAssertionError\n", tmp_path)
    assert features_of(bare[-1]).message == "assert args.num_workers > 1"
    said, _ = read_console(f"{head}    assert args.num_workers > 1, text\nAssertionError: too few\n", tmp_path)
    assert features_of(said[-1]).message == "too few"


LINES = [
    ("x.py, line 3, in f raise KeyError( ValueError: no such pot", "ValueError", "no such pot"),
    ("[rank0] torch.distributed.DistBackendError: NCCL failed", "DistBackendError", "NCCL failed"),
    ("No module named 'triton.common'", "ModuleNotFoundError", "No module named 'triton.common'"),
    ("a.py, line 4, in f next(iter(dataset)) StopIteration", "StopIteration", "a.py, line 4, in f next(iter(dataset))"),
    ("2025-01-02 03:04:05,678 [ERROR] pip.TeapotError: short", "TeapotError", "short"),
    (
        "Failed to load the CPU kernel: No module named 'kernels'. It is optional.",
        "",
        "Failed to load the CPU kernel: No module named 'kernels'. It is optional.",
    ),
    ("data = self.fetcher.fetch(index)  # may raise StopIteration", "", "data = self.fetcher.fetch(index)  # may raise StopIteration"),
    ("Skipping the optional part: ImportError: no teapot", "", "Skipping the optional part: ImportError: no teapot"),
    ("TypeErrors are listed in errors.md", "", "TypeErrors are listed in errors.md"),
    ("an Error: nothing of Python's", "", "an Error: nothing of Python's"),
]


@pytest.mark.parametrize(("line", "name", "message"), LINES)
def test_a_line_names_its_exception(line: str, name: str, message: str) -> None:
    """A traceback whose line breaks were lost, or Python's own words without the class; no class is seen in prose."""
    found = features_of_line(line, {})
    assert (found.exception, found.message) == (name, message)
