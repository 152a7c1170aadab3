"""Which names mean something to LLaMA-Factory: every release, main, its other trainers; and what other frameworks call the same."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec

from doctor.config import knowledge, versions
from doctor.config.options import Option, suggestion, table
from doctor.config.versions import Version
from doctor.support import cache
from doctor.support.decoding import convert
from doctor.support.package_files import rules_folder
from doctor.support.texts import Text

LOWEST_SUPPORTED: dict[str, Version] = {"llamafactory": (0, 8, 3), "transformers": (4, 45)}
"""A successor that exists from here on is safe to write: older releases are no longer in use (they are of July and September 2024)."""


_MEGATRON_NAME = re.compile(r"parallel|^(?:moe|recompute|overlap|pipeline)_|_fusion$|distributed_optimizer|sequence_packing|_seq_lengths$")
"""Names that only Megatron uses, unlike `optimizer` or `micro_batch_size`."""


class Standing(msgspec.Struct, frozen=True):
    """What an option is to the versions that a run may have.

    `known`: the version that is assumed has it. `elsewhere`: another possible version has it (`since`, `until`: the first and last that
    do, as a reader knows them), or the trainer that `switch` starts. `unknown`: all of them refuse it.
    """

    kind: Literal["known", "elsewhere", "unknown"]
    since: str | None = None
    until: str | None = None
    switch: str | None = None


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


TRAINERS = ("megatron_bridge", "mcore_adapter", "v1", "eval", "infer")
"""What else LLaMA-Factory runs than its v0 trainer; each has options of its own (doctor/config/knowledge.py)."""


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
    return name in table() or any(name in knowledge.options_of(trainer) for trainer in TRAINERS)


def lacks(name: str, facts: Mapping[str, Any], config: Collection[str] = ()) -> bool:
    """Whether every LLaMA-Factory that the run may have refuses this option, for a config with these keys."""
    return standing(name, facts, config).kind == "unknown"


def standing(name: str, facts: Mapping[str, Any], config: Collection[str] = ()) -> Standing:
    """What an option is to `llamafactory-cli train` of the run's version, for a config with these keys.

    Megatron's names are options only where the config is written for Megatron.
    """
    option = table().get(name)
    if option is not None and option.exists_in(versions.versions_of(facts)):
        return Standing("known")
    may = versions.possible(facts)
    if option is not None and any(option.exists_in(_packages(version, facts)) for version in may):
        return Standing("elsewhere", *_lifetime(option))
    for trainer, switch in knowledge.MEGATRON.items() if is_megatron(config) else ():
        if any(knowledge.at(knowledge.options_of(trainer).get(name, ()), version) is not None for version in may):
            on = str(facts.get(f"env.{switch.partition('=')[0]}", "")).lower() in ("1", "true", "y")
            return Standing("known") if on else Standing("elsewhere", switch=switch)
    late = knowledge.having(knowledge.options_of("infer").get(name, ()))  # kt_config: of inference, and of KTransformers' own packages
    return Standing("elsewhere", since=knowledge.shown(late[0])) if set(late) & set(may) else Standing("unknown")


def _packages(version: str, facts: Mapping[str, Any]) -> Mapping[str, Version]:
    """The packages of one possible version."""
    return versions.versions_of({**facts, "versions.llamafactory": version})


def _lifetime(option: Option) -> tuple[str | None, str | None]:
    """The first and the last LLaMA-Factory with an option that the newest release lacks."""
    names = {".".join(map(str, number)): name for name, number in versions.UNRELEASED.items()}
    since = names.get(option.since or "", option.since)
    return (knowledge.shown(since) if since else None), option.until


def is_megatron(config: Collection[str]) -> bool:
    """Whether a config is written for Megatron: it asks for it, or sets one of its parallel sizes or kernels."""
    return any(name in ("use_mca", "use_megatron_bridge") or _is_megatron_name(name) for name in config)


def _is_megatron_name(name: str) -> bool:
    return _MEGATRON_NAME.search(name) is not None and any(name in knowledge.options_of(trainer) for trainer in knowledge.MEGATRON)


@functools.cache
def written_out(name: str) -> tuple[str, bool]:
    """The option that a command line means, and whether it is negated: argparse takes every beginning that only one option has, and
    HfArgumentParser `--no_X` for a flag X that is on by default."""
    if known_somewhere(name):
        return name, False
    flag = table().get(name.removeprefix("no_"))
    if name.startswith("no_") and flag is not None and flag.type == "bool":
        return name.removeprefix("no_"), True
    meant = [other for other, option in table().items() if other.startswith(name) and option.exists_in(versions.NEWEST)]
    return (meant[0], False) if len(meant) == 1 else (name, False)


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
