"""torch beside torch_npu, torchvision and torchaudio: which releases belong together, and what to install where the log shows others."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from doctor.core.events import Crash
from doctor.core.run import Run
from doctor.diagnosis.unlisted.learned import is_open
from doctor.diagnosis.unlisted.with_release import OF_VERSIONS
from doctor.rulebook import data_file
from doctor.rulebook.findings import Finding, RankedFinding, root_of, with_root
from doctor.rulebook.model import FIRST, Remedy
from doctor.support.package_files import rules_folder
from doctor.support.release import parse
from doctor.words import catalogue

_CAUSES = ("package_version_conflict", "hf_stack_api_break", "native_library_crash")
"""Causes of rules that say that compiled or installed packages do not fit each other."""
_PARTNERS = ("torch_npu", "torchvision", "torchaudio")
_REPLACED = (*OF_VERSIONS, "reinstall-torch-trio", "torch-of-the-npu")
"""Remedies that say the same without a number."""


class Stack(msgspec.Struct, frozen=True):
    """What belongs together: `because` (a package and its version) goes with `torch`; `installed` is the torch that is there."""

    torch: str
    because: str
    installed: str
    wanted: Mapping[str, str]


def with_torch_stack(ranked: Sequence[RankedFinding], run: Run, tracebacks: Iterable[Sequence[Crash]]) -> list[RankedFinding]:
    """The findings; the first, if it is about packages that do not fit and the log shows such of torch's, with those to install."""
    root = root_of(ranked)
    if root is None or not (root.rule.cause in _CAUSES or is_open(root)):
        return list(ranked)
    stack = mismatch(run.facts)
    if stack is None or not _names_partner(root, tracebacks):
        return list(ranked)
    return with_root(ranked, root.led_by(_remedy(stack), without=_REPLACED))


def mismatch(facts: Mapping[str, Any]) -> Stack | None:
    """The packages that belong together, where the log shows versions that do not; None where they fit or are not known.

    torch_npu decides, as it is built for one torch and one CANN; without it torch does, and its partners follow.
    """
    torch, npu = _plain(facts, "torch"), _plain(facts, "torch_npu")
    known = [name for name in _PARTNERS[1:] if _plain(facts, name)]
    if not torch:
        return None
    target = npu or torch
    wanted = {name: partner for name in known if (partner := _partner(name, target)) is not None}
    wrong = [name for name, partner in wanted.items() if _minor(partner) != _minor(_plain(facts, name))]
    if npu and npu != torch:
        return Stack(target, f"torch_npu {facts['versions.torch_npu']}", torch, {"torch": target, **wanted})
    if not wrong:
        return None
    because = f"torch_npu {facts['versions.torch_npu']}" if npu else ""
    return Stack(target, because, torch, {name: wanted[name] for name in wrong})


def _remedy(stack: Stack) -> Remedy:
    packages = [f"{name}=={version}" for name, version in stack.wanted.items()]
    form = "torch_of_npu" if stack.torch != stack.installed else "partners_of_torch"
    text = catalogue.text(
        f"releases.{form}", packages=" ".join(packages), torch=stack.torch, because=stack.because, installed=stack.installed
    )
    return Remedy(id="torch-stack", text=text, effect="manual", price=FIRST, command=f"pip install {' '.join(packages)}")


def _names_partner(finding: Finding, tracebacks: Iterable[Sequence[Crash]]) -> bool:
    """Whether the failure speaks of one of the packages, in its lines or in the files of its traceback."""
    files = [str(frame.file) for chain in tracebacks for crash in chain for frame in crash.frames]
    texts = [piece.text for piece in finding.evidence]
    name = re.compile("|".join(_PARTNERS))
    return any(name.search(text) for text in (*texts, *files))


def _partner(name: str, torch: str) -> str | None:
    """The release of torchvision or torchaudio that belongs to a torch; None where the table does not have it."""
    listed = _table().get(name, {}).get(torch)
    return listed or (torch if name == "torchaudio" and torch in _table()["torchvision"] else None)


def _plain(facts: Mapping[str, Any], package: str) -> str:
    """`2.8.0` of `2.8.0.post2+cpu`; empty where it is not known."""
    return ".".join(map(str, parse(str(facts.get(f"versions.{package}") or ""))[:3]))


def _minor(version: str) -> tuple[int, ...]:
    return parse(version)[:2]


@functools.cache
def _table() -> dict[str, dict[str, str]]:
    """rules/torch_stack.yaml: package -> torch -> its release."""
    return data_file.read(rules_folder() / "torch_stack.yaml", dict[str, dict[str, str]])
