"""Which names mean something to LLaMA-Factory: every release, main, its other trainers; and what other frameworks call the same."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from doctor.config import versions
from doctor.config.options import suggestion, table
from doctor.config.versions import Version
from doctor.support import cache
from doctor.support.decoding import convert
from doctor.support.package_files import rules_folder
from doctor.support.texts import Text

LOWEST_SUPPORTED: dict[str, Version] = {"llamafactory": (0, 8, 3), "transformers": (4, 45)}
"""A successor that exists from here on is safe to write: older releases are no longer in use (they are of July and September 2024)."""


MEGATRON = ("mcore_adapter", "megatron_bridge")
"""Groups of options_newer.yaml that exist under USE_MCA=1 or USE_MEGATRON_BRIDGE=1."""

_MEGATRON_NAME = re.compile(r"parallel|^(?:moe|recompute|overlap|pipeline)_|_fusion$|distributed_optimizer|sequence_packing|_seq_lengths$")
"""Names that only Megatron uses, unlike `optimizer` or `micro_batch_size`."""


class NewerNames(msgspec.Struct, frozen=True):
    """One list of rules/options_newer.yaml: names, the first release that has them, and where they were read."""

    since: str
    source: str
    names: str


class Synonym(msgspec.Struct, frozen=True):
    """Another name for the option `use`, or other words for its values (`use` is the name itself then).

    `values` maps given values; `plain` also takes values outside of it as they are. `also` are options to set where the config has
    none. Without `use` there is only a `note` for the reader.
    """

    name: str
    use: str | None = None
    values: dict[str | int | bool, Any] = {}
    plain: bool = False
    also: dict[str, Any] = {}
    note: Text | None = None
    source: str = ""

    def translate(self, value: Any) -> Any:
        """The value that LLaMA-Factory has for it. Raises KeyError if it has none."""
        if self.values:
            for given, meant in self.values.items():
                if type(given) is type(value) and given == value:
                    return meant
            if not self.plain:
                raise KeyError(value)
        return ",".join(map(str, value)) if self.plain and isinstance(value, list) else value


@functools.cache
def newer_names() -> Mapping[str, frozenset[str]]:
    """Names that options.yaml lacks: main, megatron_bridge, mcore_adapter, v1, evaluation."""
    return {group: frozenset(entry.names.split()) for group, entry in _newer().items()}


@functools.cache
def _newer() -> Mapping[str, NewerNames]:
    return convert(cache.load_yaml(rules_folder() / "options_newer.yaml"), dict[str, NewerNames])


@functools.cache
def synonyms() -> Mapping[str, Synonym]:
    """rules/synonyms.yaml, and the older names of options.yaml whose successor every supported release knows."""
    written = {entry.name: entry for entry in convert(cache.load_yaml(rules_folder() / "synonyms.yaml"), list[Synonym])}
    older = {}
    for name, option in table().items():
        successor = table().get(option.use or "")
        if successor and not (successor.since and versions.parse(successor.since) > LOWEST_SUPPORTED[successor.of]):
            older[name] = Synonym(name, option.use, source="rules/options.yaml")
    return {**older, **written}


def known_somewhere(name: str) -> bool:
    """Whether any release, main or another trainer of LLaMA-Factory has this option."""
    return name in table() or any(name in names for names in newer_names().values())


def lacks(name: str, facts: Mapping[str, Any], config: Collection[str] = ()) -> bool:
    """Whether `llamafactory-cli train` does not have this option in the run's release, for a config with these keys.

    Names of main count as lacking only if the run reports a release without them. Megatron's names (USE_MCA=1,
    USE_MEGATRON_BRIDGE=1) are options only where the config is written for Megatron.
    """
    installed = versions.versions_of(facts)
    option = table().get(name)
    if option is not None and option.exists_in(installed):
        return False
    groups = ("main", *(MEGATRON if is_megatron(config) else ()))
    first = [versions.parse(_newer()[group].since) for group in groups if name in newer_names()[group]]
    return not first or (bool(versions.reported(facts, "llamafactory")) and min(first) > installed["llamafactory"])


def is_megatron(config: Collection[str]) -> bool:
    """Whether a config is written for Megatron: it asks for it, or sets one of its parallel sizes or kernels."""
    return any(name in ("use_mca", "use_megatron_bridge") or _is_megatron_name(name) for name in config)


def _is_megatron_name(name: str) -> bool:
    return _MEGATRON_NAME.search(name) is not None and any(name in newer_names()[group] for group in MEGATRON)


def successor(name: str, value: Any) -> str | None:
    """LLaMA-Factory's name for this option, where the value needs no translation; never by similarity."""
    option, synonym = table().get(name), synonyms().get(name)
    if synonym is None or synonym.use is None:
        return option.use if option else None
    try:
        return synonym.use if synonym.use != name and synonym.translate(value) == value else None
    except KeyError:
        return None


def similar(name: str, packages: Mapping[str, Version]) -> str | None:
    """The option that the writer of an unknown name may have meant: a synonym whose value needs translation, else by spelling."""
    synonym = synonyms().get(name)
    return synonym.use if synonym is not None else suggestion(name, packages)
