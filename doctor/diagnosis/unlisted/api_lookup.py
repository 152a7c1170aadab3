"""Which releases have the name that an exception misses, and in which direction the installed one has to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from doctor.diagnosis.unlisted import api_index
from doctor.diagnosis.unlisted.api_index import Index, PackageNames, Spans
from doctor.diagnosis.unlisted.api_wanted import Wanted
from doctor.support.release import Version, parse

_ALL_PYTHON = frozenset(("llamafactory", "transformers", "trl", "peft", "accelerate", "datasets"))
"""Packages whose top-level names are all written in Python, so that a name that is not in the index is in no release."""
_BASES = (
    ("TokenizerFast", ("PreTrainedTokenizerFast", "PreTrainedTokenizerBase")),
    ("Tokenizer", ("PreTrainedTokenizer", "PreTrainedTokenizerBase")),
    ("Config", ("PretrainedConfig", "PreTrainedConfig", "TrainingArguments")), ("Trainer", ("Trainer",)),
    ("Cache", ("DynamicCache", "Cache")),
    ("ForCausalLM", ("PreTrainedModel", "GenerationMixin")), ("ForConditionalGeneration", ("PreTrainedModel", "GenerationMixin")),
    ("Model", ("PreTrainedModel",)), ("Processor", ("ProcessorMixin",)), ("Arguments", ("TrainingArguments",)),
)  # fmt: skip
"""Endings of classes -> transformers' bases that such a class inherits from, where the class itself is not in the index."""


_TELLING = 3
"""Underscores of an attribute that no other class is likely to have: `all_tied_weights_keys`."""


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive releases that have a name. `before` is the release before them, `after` the one after them; None at the index's ends.

    `4.57` stands for a minor release of which one patch is in the index; `last` is that patch.
    """

    first: str
    last: str
    before: str | None
    after: str | None

    def holds(self, version: Version) -> bool:
        """Whether a version lies in the range."""
        return (self.before is None or version >= parse(self.first)) and (self.after is None or version < parse(self.after))


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the index knows of a wanted name. No ranges: no release has it. `spelled` is the same name in other letters' case.

    `inherited`: a base class has it; the class itself is in no indexed package, but a model's own code or the user's.
    """

    package: str
    ranges: tuple[Range, ...]
    oldest: str
    newest: str
    spelled: str | None = None
    inherited: bool = False


def look_up(wanted: Wanted, index: Index | None = None) -> Found | None:
    """What is known of the name; None where the index cannot tell."""
    known = index or api_index.load()
    if wanted.kind == "model_type":
        names = known.package("transformers")
        return _found("transformers", names, names.model_types.get(wanted.name, ()))
    if wanted.kind == "module":
        return _module(wanted.name, known)
    if wanted.kind == "name":
        return _name(wanted.owners[0], wanted.name, known)
    return _member(wanted, known)


def minor(version: str) -> str:
    """`4.57` of `4.57.6`: of most minor releases the index holds the last patch alone."""
    return ".".join(version.split(".")[:2])


def ranges(versions: Sequence[str], spans: Spans) -> tuple[Range, ...]:
    """The spans with the releases around them."""
    minors = [minor(version) for version in versions]
    short = [one if minors.count(one) == 1 else version for one, version in zip(minors, versions, strict=True)]
    pairs = zip(spans[::2], spans[1::2], strict=True)
    return tuple(
        Range(
            first=short[first],
            last=versions[last],
            before=short[first - 1] if first else None,
            after=short[last + 1] if last + 1 < len(versions) else None,
        )
        for first, last in pairs
    )


def asks(asker: str, wanted: Wanted, index: Index | None = None) -> tuple[Range, ...]:
    """The releases of a package that import the wanted name; () where it is unknown."""
    known = index or api_index.load()
    if asker not in known.packages or wanted.kind not in ("name", "module"):
        return ()
    names = known.package(asker)
    key = f"{wanted.owners[0]}:{wanted.name}" if wanted.kind == "name" else f"{wanted.name}:"
    return ranges(names.versions, names.asked.get(key, ()))


def _found(package: str, names: PackageNames, spans: Spans, spelled: str | None = None) -> Found:
    return Found(
        package=package,
        ranges=ranges(names.versions, spans),
        oldest=minor(names.versions[0]),
        newest=minor(names.versions[-1]),
        spelled=spelled,
    )


def _module(module: str, index: Index) -> Found | None:
    package = module.partition(".")[0]
    spans = index.package(package).modules.get(module) if package in index.packages else None
    return None if spans is None else _found(package, index.package(package), spans)


def _name(module: str, name: str, index: Index) -> Found | None:
    package = module.partition(".")[0]
    if package not in index.packages:
        return None
    names = index.package(package)
    offered = names.names.get(module, {})
    spans = offered.get(name) or names.modules.get(f"{module}.{name}")
    if spans is not None:
        return None if spans == (0, len(names.versions) - 1) else _found(package, names, spans)
    if module != package or package not in _ALL_PYTHON or name.startswith("_"):
        return None
    return _found(package, names, (), next((other for other in offered if other.lower() == name.lower()), None))


def _member(wanted: Wanted, index: Index) -> Found | None:
    """An attribute of a class or a parameter: of the one package that has such a class with such a member at times."""
    for owners, inherited in ((wanted.owners, False), (tuple(_inherited(wanted)), True)):
        hits = [
            (package, spans)
            for package in sorted(index.packages)
            for owner in owners
            if (spans := _table(index.package(package), wanted).get(owner, {}).get(wanted.name)) is not None
        ]
        if hits:
            package, spans = hits[0]
            found = _found(package, index.package(package), spans)
            return msgspec.structs.replace(found, inherited=inherited) if len({one for one, _ in hits}) == 1 else None
    return None


def _table(names: PackageNames, wanted: Wanted) -> dict[str, dict[str, Spans]]:
    return names.attributes if wanted.kind == "attribute" else names.parameters


def _inherited(wanted: Wanted) -> Iterator[str]:
    """What a class of this name may inherit from. Where nobody is known to ask, `lm_head` is as likely a part of the model's own."""
    if wanted.kind == "attribute" and wanted.asker is None and wanted.name.count("_") < _TELLING:
        return
    for owner in wanted.owners:
        name, dot, method = owner.partition(".")
        bases = next((bases for ending, bases in _BASES if name.endswith(ending)), ())
        if not bases and wanted.kind == "attribute" and wanted.name.count("_") >= _TELLING and name[:1].isupper():
            bases = ("PreTrainedModel",)
        yield from (f"{base}{dot}{method}" for base in bases if base != name)
