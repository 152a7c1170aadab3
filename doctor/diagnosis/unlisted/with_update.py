"""An exception inside a library, on something of its own: the step is to update that library, with the installed release told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from doctor.config import knowledge, versions
from doctor.core.run import Run
from doctor.diagnosis.unlisted import api_index
from doctor.diagnosis.unlisted.api_wanted import wanted_in
from doctor.diagnosis.unlisted.features import ExceptionFeatures
from doctor.diagnosis.unlisted.last_events import LastEvents
from doctor.diagnosis.unlisted.places import REMOTE_CODE
from doctor.diagnosis.unlisted.with_release import OF_VERSIONS, candidates
from doctor.planner.launching import is_llamafactory
from doctor.rulebook.findings import RankedFinding, root_of, with_root
from doctor.rulebook.model import FIRST, Remedy
from doctor.support.release import parse
from doctor.words import catalogue

_CAUSES = ("hf_stack_api_break", "package_version_conflict")
_INTERNAL = ("TypeError", "AttributeError", "KeyError", "UnboundLocalError", "NameError", "ImportError", "IndexError")
"""Exceptions that a library raises without having meant to refuse anything."""
_OF_MODELS = ("Tokenizer", "TokenizerFast", "ForCausalLM", "LMHeadModel", "ChatModel", "Model", "Config", "Processor")
"""How classes end that come with a model."""
_GENERAL = (*OF_VERSIONS, "confirm", "internal-error")
"""Remedies that speak of versions without naming one: of rules, of causes and of the decision table."""
_DISTRIBUTIONS = {
    "bitsandbytes": "bitsandbytes", "peft": "peft", "trl": "trl", "accelerate": "accelerate", "transformers": "transformers",
    "datasets": "datasets", "optimum": "optimum", "gptqmodel": "gptqmodel", "liger_kernel": "liger-kernel", "unsloth": "unsloth",
    "unsloth_zoo": "unsloth_zoo", "deepspeed": "deepspeed", "hqq": "hqq", "torchao": "torchao", "modelscope": "modelscope",
    "swift": "ms-swift", "axolotl": "axolotl", "vllm": "vllm", "huggingface_hub": "huggingface_hub",
}  # fmt: skip
"""Libraries that are mended by updates -> their names for pip."""


def with_update(ranked: Sequence[RankedFinding], run: Run, seen: LastEvents) -> list[RankedFinding]:
    """The findings; the first, if a library failed inside and no release is told yet, with that library's update as first remedy.

    A model's own code is never served by a newer library, so its failure stays as it is told.
    """
    root = root_of(ranked)
    if root is None or root.rule.cause not in _CAUSES or not _is_general(root.rule.remedies):
        return list(ranked)
    found = [*candidates(root, run, seen)]
    of_model = next((remedy for features in found for remedy in _of_model(features)), None)
    remedy = of_model or next((remedy for features in found[:1] if (remedy := _update(features, run)) is not None), None)
    if remedy is None:
        return list(ranked)
    return with_root(ranked, root.led_by(remedy, without=("newer-llamafactory",) if of_model is not None else ()))


def _is_general(remedies: Sequence[Remedy]) -> bool:
    """Whether the first remedy speaks of versions without naming one."""
    return bool(remedies) and remedies[0].price is None and remedies[0].id in _GENERAL


def _of_model(features: ExceptionFeatures) -> Iterator[Remedy]:
    """Where a class of the model's own code is asked for what it does not have: a transformers of that code's time, never a newer one."""
    wanted = wanted_in(features)
    owner = wanted.owners[0].partition(".")[0] if wanted is not None and wanted.owners else ""
    if wanted is None or wanted.kind not in ("attribute", "parameter") or not owner.endswith(_OF_MODELS) or _is_exported(owner):
        return
    text = catalogue.text("releases.class_of_model", owner=owner)
    yield Remedy(id="transformers-of-the-model", text=text, effect="manual", price=FIRST)


def _is_exported(name: str) -> bool:
    """Whether a release of an indexed package exports a class of that name."""
    index = api_index.load()
    return any(name in index.package(package).names.get(package, {}) for package in ("transformers", "peft", "trl", "accelerate"))


def _update(features: ExceptionFeatures, run: Run) -> Remedy | None:
    """To update the package whose code raised; None for exceptions that refuse something and for packages that no update mends."""
    package = features.place.package if features.place is not None else ""
    name = _DISTRIBUTIONS.get(package)
    if name is None or features.exception not in _INTERNAL or any(place.package == REMOTE_CODE for place in features.path):
        return None
    installed = str(run.facts.get(f"versions.{package}") or "")
    bound = _bound(package, run)
    if bound and installed and parse(installed) >= parse(bound):
        return None
    form = "update_installed" if installed else "update_failing"
    text = catalogue.text(f"releases.{form}", package=name, installed=installed)
    wanted = f'"{name}<={bound}"' if bound else name
    return Remedy(id=f"update-{package}", text=text, effect="manual", price=FIRST, command=f"pip install -U {wanted}")


def _bound(package: str, run: Run) -> str:
    """The newest release of the package that the run's LLaMA-Factory allows; empty for other programs and without a limit."""
    if not is_llamafactory(run, None):
        return ""
    pin = str(knowledge.at(knowledge.history("pins", package), versions.assumed(run.facts)) or "")
    return next((part[2:] for part in pin.split(",") if part.startswith("<=")), "")
