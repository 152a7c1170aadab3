"""From an exception to the name that it misses: each message is Python's or a package's own, typed here by hand."""

from __future__ import annotations

import pytest

from doctor.core.events import Crash, Frame, Where
from doctor.diagnosis.unlisted.api_required import required_in
from doctor.diagnosis.unlisted.api_wanted import Wanted, wanted_in
from doctor.diagnosis.unlisted.features import features_of

SITE = "/opt/env/lib/python3.11/site-packages/"


def wanted(exception: str, message: str, file: str = "train.py", code: str = "") -> Wanted | None:
    frame = Frame(file=file, line=3, function="<module>", code=code)
    crash = Crash(where=Where("log", line=1), exception=exception, message=message, frames=(frame,))
    return wanted_in(features_of(crash))


MESSAGES = [
    ("ImportError", "cannot import name 'X' from 'trl' (/opt/env/lib/trl/__init__.py)", "name", "X", ("trl",)),
    ("ImportError", "cannot import name \N{LEFT SINGLE QUOTATION MARK}X\N{RIGHT SINGLE QUOTATION MARK} from "
     "\N{LEFT SINGLE QUOTATION MARK}transformers.utils\N{RIGHT SINGLE QUOTATION MARK}", "name", "X", ("transformers.utils",)),
    ("AttributeError", "module 'numpy' has no attribute 'float'.", "name", "float", ("numpy",)),
    ("AttributeError", "module transformers has no attribute Qwen2Model", "name", "Qwen2Model", ("transformers",)),
    ("AttributeError", "'DynamicCache' object has no attribute 'seen_tokens'", "attribute", "seen_tokens", ("DynamicCache",)),
    ("AttributeError", "type object 'PartialState' has no attribute 'x'", "attribute", "x", ("PartialState",)),
    ("TypeError", "Trainer.__init__() got an unexpected keyword argument 'tokenizer'", "parameter", "tokenizer", ("Trainer.__init__",)),
    ("ModuleNotFoundError", "No module named 'triton.ops'", "module", "triton.ops", ()),
    ("ValueError", "Tokenizer class Qwen2Tokenizer does not exist or is not currently imported.",
     "name", "Qwen2Tokenizer", ("transformers",)),
    ("ValueError", "The checkpoint has model type `qwen3` but Transformers does not recognize",
     "model_type", "qwen3", ()),
]  # fmt: skip


@pytest.mark.parametrize(("exception", "message", "kind", "name", "owners"), MESSAGES)
def test_the_missing_name_is_read_from_the_message(exception: str, message: str, kind: str, name: str, owners: tuple[str, ...]) -> None:
    """Kind, name and where it was expected."""
    found = wanted(exception, message)
    assert found is not None
    assert (found.kind, found.name, found.owners) == (kind, name, owners)


NOTHING = [
    ("ImportError", "cannot import name 'X' from partially initialized module 'trl' (most likely due to a circular import)"),
    ("ImportError", "cannot import name 'X' from 'trl' (unknown location)"),
    ("AttributeError", "partially initialized module 'torch' has no attribute 'Tensor'"),
    ("KeyError", "'messages'"),
    ("ModuleNotFoundError", "No module named 'trl'"),
    ("RuntimeError", "CUDA error: out of memory"),
]


@pytest.mark.parametrize(("exception", "message"), NOTHING)
def test_a_failure_that_no_release_decides_asks_for_nothing(exception: str, message: str) -> None:
    """Circular imports, broken installations, missing packages and columns of the data are other failures."""
    assert wanted(exception, message) is None


def test_a_bare_init_is_told_by_the_class_that_the_line_calls() -> None:
    """Python up to 3.9 prints no class."""
    found = wanted("TypeError", "__init__() got an unexpected keyword argument 'x'", code="trainer = DPOTrainer(model, x=1)")
    assert found is not None
    assert found.owners == ("DPOTrainer.__init__",)


def test_a_model_type_is_a_key_of_the_table_of_transformers_only() -> None:
    """The same KeyError in the user's own file is one of data."""
    table = SITE + "transformers/models/auto/configuration_auto.py"
    found = wanted("KeyError", "'qwen3'", table, "value = self._mapping[key]")
    assert found is not None
    assert (found.kind, found.name) == ("model_type", "qwen3")
    assert wanted("KeyError", "'qwen3'") is None


def test_the_asker_is_the_package_of_the_innermost_frame() -> None:
    """Its file holds the import."""
    found = wanted("ImportError", "cannot import name 'HybridCache' from 'transformers'", SITE + "peft/peft_model.py")
    assert found is not None
    assert found.asker is not None
    assert found.asker.package == "peft"


REQUIRED = [
    ("transformers>=4.49.0,<=4.55.0 is required for a normal functioning of this module, but found transformers==4.56.1.",
     ("transformers", "transformers>=4.49.0,<=4.55.0")),
    ("transformers>=4.41.2,<=4.48.1, !=4.46.0 ,!=4.48.0 is required for a normal functioning of this module, but found transformers==4.49",
     ("transformers", "transformers>=4.41.2,<=4.48.1,!=4.46.0,!=4.48.0")),
    ("llamafactory 0.9.3 requires transformers<=4.52.4,>=4.45.0; sys_platform == 'linux', but you have transformers 4.57.1",
     ("transformers", "transformers<=4.52.4,>=4.45.0")),
    ("RuntimeError: InternLM3 model requires transformers>=4.47.1, please upgrade it.", ("transformers", "transformers>=4.47.1")),
    ("Found an incompatible version of torchao. Found version 0.7.0, but only versions above 0.16.0 are supported",
     ("torchao", "torchao>=0.16.0")),
    ("we now require users to upgrade torch to at least v2.6 in order to use the function", ("torch", "torch>=2.6")),
    ("this model requires a GPU", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), REQUIRED)
def test_a_release_that_the_message_asks_for_becomes_a_requirement(text: str, expected: tuple[str, str] | None) -> None:
    """As pip takes it, without spaces."""
    assert required_in(text) == expected
