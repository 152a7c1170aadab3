"""Public names of many releases joined to the releases that have them, and the file that `api_index.py` reads."""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import msgspec
from api_packages import NUMPY, NUMPY_REMOVED
from origin_packages import Source
from public_names import ClassNames, ModuleNames, Signature, names_of, parts
from public_names import joined as joined_parts

from doctor.diagnosis.unlisted.api_index import PackageNames, Spans, Stored

_PLAIN_BASES = frozenset((
    "object", "ABC", "Module", "PushToHubMixin", "Enum", "str", "int", "float", "Exception", "ValueError", "Protocol", "Generic",
    "NamedTuple", "TypedDict", "ExplicitEnum", "Mixin",
))  # fmt: skip
"""Bases from outside a package that bring none of the names that a package's own classes gain or lose."""
_STAND_INS = ".dummy_"
"""transformers/utils/dummy_pt_objects.py and its kin: stand-ins for classes whose backend is missing."""
_ARGUMENTS = "TrainingArguments.__init__"
"""Settings of other packages' trainers (trl's) derive from it: its own fields are not theirs to lose."""


def dotted(path: str) -> tuple[str, bool]:
    """A file's module name, and whether it is a package."""
    parts = path.removesuffix(".pyi").removesuffix(".py").split("/")
    return (".".join(parts[:-1]), True) if parts[-1] == "__init__" else (".".join(parts), False)


class Parsed:
    """Parts of sources that were parsed, by checksum, kept between runs."""

    def __init__(self, cache: Path, others: frozenset[str]) -> None:
        code = hashlib.blake2b(Path(__file__).with_name("public_names.py").read_bytes(), digest_size=8).hexdigest()
        self._file = cache / f"names-{code}.msgpack"
        kept = msgspec.msgpack.decode(self._file.read_bytes(), type=dict[bytes, ModuleNames | None]) if self._file.exists() else {}
        self._known: dict[bytes, ModuleNames | None] = kept
        self._files: dict[tuple[str, tuple[int, int]], ModuleNames] = {}
        self._others = others

    def save(self) -> None:
        """Keep what was parsed for a later run."""
        self._file.write_bytes(msgspec.msgpack.encode(self._known))
        self._files.clear()

    def release(self, sources: Iterable[Source]) -> dict[str, ModuleNames]:
        """The modules of a release by their dotted names."""
        return {dotted(source.path)[0]: self._file_names(source) for source in sources}

    def _file_names(self, source: Source) -> ModuleNames:
        top, _, inside = source.path.partition("/")
        models = inside.startswith("models/") and top == "transformers" and not inside.startswith("models/auto/")
        key = (top, source.key)
        if key not in self._files:
            text = source.read()
            found = [self._part(part, top) for part in parts(text, models=models)]
            known = [one for one in found if one is not None]
            self._files[key] = joined_parts(known if len(known) == len(found) or models else [*known, *self._whole(text, top)])
        return self._files[key]

    def _whole(self, text: bytes, top: str) -> list[ModuleNames]:
        """The whole source, where some part of it is none: it began inside a string."""
        found = self._part(text, top)
        return [] if found is None else [found]

    def _part(self, part: bytes, top: str) -> ModuleNames | None:
        digest = hashlib.blake2b(top.encode() + b" " + part, digest_size=12).digest()
        if digest not in self._known:
            self._known[digest] = names_of(part, top, self._others)
        return self._known[digest]


class Joined:
    """The names of one package over its releases: name -> numbers of the releases that have it."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.versions: list[str] = []
        self.modules: dict[str, set[int]] = defaultdict(set)
        self.names: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.classes: dict[str, set[int]] = defaultdict(set)
        self.attributes: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.callables: dict[str, set[int]] = defaultdict(set)
        self.parameters: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.open_callables: dict[str, set[int]] = defaultdict(set)
        self.model_types: dict[str, set[int]] = defaultdict(set)
        self.asked: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.derived: set[str] = set()

    def add(self, version: str, modules: dict[str, ModuleNames]) -> None:
        """One more release, later than those before."""
        number = len(self.versions)
        self.versions.append(version)
        offered = _Offered(modules)
        for module, names in modules.items():
            self.modules[module].add(number)
            for name in offered.of(module):
                self.names[module, name].add(number)
            for model_type in names.model_types:
                self.model_types[model_type].add(number)
            for asked in names.asked:
                self.asked[asked].add(number)
        self._classes(number, modules)

    def _classes(self, number: int, modules: dict[str, ModuleNames]) -> None:
        places: dict[str, list[ClassNames]] = defaultdict(list)
        functions: dict[str, list[Signature]] = defaultdict(list)
        for module, names in modules.items():
            if _STAND_INS in module:
                continue
            for name, found in names.classes.items():
                places[name].append(found)
            for name, signature in names.functions.items():
                functions[name].append(signature)
        single = {name: several[0] for name, several in places.items() if len(several) == 1}
        for name, several in places.items():
            self.classes[name].add(number)
            if name in single:
                self._one_class(number, name, single)
            else:
                self._several(number, name, several)
        for name, signatures in functions.items():
            self._signature(number, name, signatures[0] if len(set(signatures)) == 1 else Signature((), any=True))

    def _several(self, number: int, name: str, found: list[ClassNames]) -> None:
        """Classes of one name: nothing is known of their attributes and parameters in this release."""
        self.attributes[name, "*"].add(number)
        for method in {method for one in found for method in one.methods}:
            self._signature(number, f"{name}.{method}", Signature((), any=True))

    def _one_class(self, number: int, name: str, single: dict[str, ClassNames]) -> None:
        lineage, closed = _lineage(name, single)
        for found in lineage:
            for attribute in found.attributes:
                self.attributes[name, attribute].add(number)
        if not closed or any("__getattr__" in found.methods for found in lineage):
            self.attributes[name, "*"].add(number)
        own = single[name].methods
        for method, signature in own.items():
            if not (single[name].dataclass and method == "__init__"):
                self._signature(number, f"{name}.{method}", signature)
        if single[name].dataclass or "__init__" not in own:
            self._inherited_init(number, name, lineage, closed)

    def _inherited_init(self, number: int, name: str, lineage: list[ClassNames], closed: bool) -> None:
        with_init = [found for found in lineage if "__init__" in found.methods]
        if not with_init:
            return
        if lineage[0].dataclass:
            names = tuple(field for found in with_init if found.dataclass for field in found.methods["__init__"].names)
            self._signature(number, f"{name}.__init__", Signature(names, any=False))
            if not closed:
                self.derived.add(f"{name}.__init__")
        else:
            self._signature(number, f"{name}.__init__", with_init[0].methods["__init__"])

    def _signature(self, number: int, name: str, signature: Signature) -> None:
        self.callables[name].add(number)
        if signature.any:
            self.open_callables[name].add(number)
        for parameter in signature.names:
            self.parameters[name, parameter].add(number)


def numpy_names() -> Joined:
    """numpy's removed names."""
    joined = Joined("numpy")
    joined.versions = list(NUMPY)
    for release, names in NUMPY_REMOVED.items():
        for name in names.split():
            joined.names["numpy", name] = set(range(NUMPY.index(release)))
    joined.modules["numpy"] = set(range(len(NUMPY)))
    return joined


def _lineage(name: str, single: dict[str, ClassNames]) -> tuple[list[ClassNames], bool]:
    """The class and its bases inside the package, and whether they are all of its bases that matter."""
    found: dict[str, ClassNames] = {}
    pending, closed = [name], True
    while pending:
        current = pending.pop(0)
        if current in found:
            continue
        if current in single:
            found[current] = single[current]
            pending += single[current].bases
        elif current not in _PLAIN_BASES:
            closed = False
    return list(found.values()), closed


class _Offered:
    """The names that the modules of a release offer, their stars and lazy structures resolved."""

    def __init__(self, modules: dict[str, ModuleNames]) -> None:
        self._modules = modules
        self._packages = {module.rpartition(".")[0] for module in modules}
        self._known: dict[str, set[str]] = {}

    def of(self, module: str) -> set[str]:
        if module not in self._known:
            self._known[module] = set()  # a module that imports itself over others
            self._known[module] = self._find(module)
        return self._known[module]

    def _find(self, module: str) -> set[str]:
        names = self._modules[module]
        out = {*names.names, *names.lazy, *(names.exported or ())}
        for level, inside, name, alias in names.imported:
            base = self._absolute(module, level, inside)
            if name == "*":
                out |= self._starred(base)
            else:
                out.add(alias)
        if names.collects:
            out |= {name for one, found in self._modules.items() if one.startswith(module + ".") for name in found.exported or ()}
        return out

    def _absolute(self, module: str, level: int, inside: str) -> str:
        if not level:
            return inside
        parts = module.split(".")
        kept = parts[: len(parts) - level + (module in self._packages)]
        return ".".join([*kept, *([inside] if inside else [])])

    def _starred(self, base: str) -> set[str]:
        if base not in self._modules:
            return set()
        exported = self._modules[base].exported
        return set(exported) if exported is not None else {name for name in self.of(base) if not name.startswith("_")}


def packed(joined: Joined, targets: dict[str, Joined]) -> PackageNames:
    """What the file holds of a package: of each table only what tells more than the level above it."""
    every = set(range(len(joined.versions)))
    spans = _spans
    names: dict[str, dict[str, Spans]] = defaultdict(dict)
    for (module, name), has in joined.names.items():
        if name.startswith("__") or (module != joined.module and has == joined.modules[module]):
            continue
        names[module][name] = spans(has)
    attributes = _grouped(joined.attributes, joined.classes, {})
    parameters = _grouped(joined.parameters, joined.callables, joined.open_callables)
    upstream = {name for owner, name in targets["transformers"].parameters if owner == _ARGUMENTS} if "transformers" in targets else set()
    for owner in joined.derived & parameters.keys():
        parameters[owner] = {name: has for name, has in parameters[owner].items() if name not in upstream}
    asked: dict[str, Spans] = {}
    for (module, name), has in joined.asked.items():
        target = targets.get(module.partition(".")[0])
        if target is not None and target is not joined and _changes(target, module, name):
            asked[f"{module}:{name}"] = spans(has)
    return PackageNames(
        joined.versions,
        {module: spans(has) for module, has in joined.modules.items() if has != every},
        dict(names),
        attributes,
        parameters,
        {name: spans(has) for name, has in joined.model_types.items()},
        asked,
    )


def _changes(target: Joined, module: str, name: str) -> bool:
    """Whether some release of the package lacks this name or this module."""
    has = target.names.get((module, name)) or target.modules.get(f"{module}.{name}" if name else module)
    return has is not None and len(has) < len(target.versions)


def _grouped(
    table: dict[tuple[str, str], set[int]], owners: dict[str, set[int]], open_owners: dict[str, set[int]]
) -> dict[str, dict[str, Spans]]:
    """Members that come or go while their owner stays."""
    out: dict[str, dict[str, Spans]] = defaultdict(dict)
    for (owner, name), has in table.items():
        if name.startswith("__") or name == "*":
            continue
        unclear = open_owners.get(owner, set()) | table.get((owner, "*"), set())
        whole = (has | unclear) & owners[owner]
        spans = _spans(whole)
        runs = [(first, last) for first, last in zip(spans[::2], spans[1::2], strict=True) if has & set(range(first, last + 1))]
        if whole != owners[owner] and runs:
            out[owner][name] = tuple(number for run in runs for number in run)
    return dict(out)


def _spans(has: set[int]) -> Spans:
    """First and last of each run of consecutive releases, flat."""
    out: list[int] = []
    for number in sorted(has):
        if out and out[-1] == number - 1:
            out[-1] = number
        else:
            out += [number, number]
    return tuple(out)


def write(joined: dict[str, Joined], out: Path) -> dict[str, int]:
    """Write the file; the packed size of each package in bytes. The same input gives the same bytes."""
    blocks = {name: zlib.compress(msgspec.msgpack.encode(packed(one, joined), order="sorted"), 9) for name, one in sorted(joined.items())}
    out.write_bytes(msgspec.msgpack.encode(Stored(blocks)))
    return {name: len(block) for name, block in blocks.items()}
