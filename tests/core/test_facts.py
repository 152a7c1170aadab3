"""The registry of facts against the code that sets them and the rules that ask for them."""

from __future__ import annotations

import ast
import fnmatch
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from doctor.core import facts
from doctor.live.trainer import snapshot
from doctor.readers import command, model_card, results
from doctor.readers.console import facts as console
from doctor.readers.values import SUMMARY_FACTS

PACKAGE = Path(facts.__file__).parents[1]
VERSIONS = [f"versions.{name}" for name in (*model_card._VERSIONS.values(), *snapshot._PACKAGES.values())]
TABLES = [*results._FACTS.values(), *SUMMARY_FACTS.values(), *command._LAUNCH_OPTIONS.values(), *VERSIONS]
"""Names that a reader or the callback takes from a table of its own."""
ELSEWHERE = ["attention", "config.folder"]
"""Set by the console reader from the first letter of a word, and by `lfdoctor estimate` for the file that it was given."""
DYNAMIC = {"core/run.py", "core/events.py", "readers/journal.py", "diagnosis/rule_examples.py"}
"""Files that hand on a name that another program or a rule's example gave."""
ASKED_ONLY = {
    "precision", "stack", "method", "notes", "lora_dtype", "optimizer", "shard", "offload", "chunked_loss", "length", "n_gpus",
}  # fmt: skip
"""Keys of the measurements (tests/memory) that the estimate also takes; no event sets them."""
UNSET = {"phase", "run.running"}
"""Registered facts that no reader sets today: see the test below."""


def names_set(path: Path) -> Iterator[str]:
    """The constant names of `Fact(name=...)`, of `yield "name", value` and `fact("name", ...)`; a part that is computed as `*`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [one.value for one in node.keywords if one.arg == "name"] if called == "Fact" else node.args[:1]
            if called in ("Fact", "fact", "_fact", "_put_fact"):
                yield from (text for one in given if (text := _text(one)))


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
    return ""


def keys_of(path: Path, *functions: str) -> Iterator[str]:
    """First elements of tuples that the named functions yield, and keys of the dicts that they build or fill."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and (not functions or node.name in functions):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Yield) and isinstance(inner.value, ast.Tuple):
                    first = inner.value.elts[0]
                    yield from map(_text, (first.body, first.orelse) if isinstance(first, ast.IfExp) else (first,))
                elif isinstance(inner, ast.Dict):
                    yield from (_text(key) for key in inner.keys if key is not None)
                elif isinstance(inner, ast.Subscript) and isinstance(inner.ctx, ast.Store):
                    yield _text(inner.slice)


@functools.cache
def everything_set() -> set[str]:
    """Every name that is set anywhere. The whole package is parsed for it: once."""
    found = {name for path in PACKAGE.rglob("*.py") for name in names_set(path)} | {*TABLES, *ELSEWHERE}
    found |= {*keys_of(PACKAGE / "live/trainer/snapshot.py", "_environment", "_plan", "_model", "_device")}
    found |= {
        *keys_of(PACKAGE / "config/preflight.py", "_datasets", "_one_dataset", "_deepspeed", "_output", "model_folder", "facts_about")
    }
    found |= {*keys_of(PACKAGE / "readers/command.py", "_split")}
    found |= {*keys_of(PACKAGE / "diagnosis/pipeline.py", "run_analysis")}
    found |= {name for told in console.CONSTANT.values() for name in told}
    found |= {*keys_of(PACKAGE / "readers/console/facts.py", "_process", "_parameters", "_processor"), *console.NAMES}
    found |= {*keys_of(PACKAGE / "readers/console/host_memory.py", "figures")}
    return {name for name in found if re.fullmatch(r"[a-z][\w.*]*", name)}


def is_registered(name: str) -> bool:
    """A name with a computed part is registered if the part is free, or if a registered name fits it."""
    return facts.info(name) is not None or any(fnmatch.fnmatchcase(known, name) for known in facts.FACTS)


def test_what_is_set_is_registered() -> None:
    """Every name that a reader, the callback or the pre-flight checks set has an entry in doctor/core/facts.py."""
    assert sorted(name for name in everything_set() if not is_registered(name)) == []


def test_what_is_registered_is_set() -> None:
    """No entry is left over, but for UNSET: what nobody sets cannot be asked for."""
    names = everything_set()
    unset = {name for name in facts.FACTS if not any(fnmatch.fnmatchcase(name, one) or fnmatch.fnmatchcase(one, name) for one in names)}
    assert unset == UNSET


def test_the_search_finds_the_names() -> None:
    """The search above is no empty one: a few names of each kind of source are among what it finds."""
    assert {
        "world_size", "gpu.name", "versions.llamafactory", "forecast_*", "nccl.collectives.rank*", "env.*", "dataset_undefined",
        "finetuning_method", "run.completed", "saved_at_step", "launcher", "train.runtime_seconds", "compute_dtype",
    } <= everything_set()  # fmt: skip


ASKED = re.compile(r"""\bfacts(?:\.get\(|\[)["']([a-z][\w.]*)["']""")


@pytest.mark.parametrize("folder", ["config", "memory", "readers", "report", "planner"])
def test_what_the_code_asks_for_is_registered(folder: str) -> None:
    """Names in `run.facts.get("...")`, but for those of a match (`first.facts`)."""
    asked: set[str] = set()
    for path in (PACKAGE / folder).rglob("*.py"):
        text = re.sub(r"first\.facts\.get\([^)]*\)", "", path.read_text(encoding="utf-8"))
        asked |= set(ASKED.findall(text))
    assert {name for name in asked if facts.info(name) is None} <= ASKED_ONLY | {"total_gib", "allocated_gib", "wanted_gib"}


def test_the_trainers_own_counter_comes_first() -> None:
    """Both counters in one log: the Trainer's; the copy alone still counts; none is None."""
    assert facts.tokens_seen({"total_tokens": 10.0, "num_input_tokens_seen": 12.0}) == 12.0
    assert facts.tokens_seen({"total_tokens": 10.0}) == 10.0
    assert facts.tokens_seen({"loss": 1.0}) is None
