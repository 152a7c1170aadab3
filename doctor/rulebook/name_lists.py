"""Lists of names in the expressions of rules: `{options.newer}` in an expression is the alternation of all names of that list.

- `{options.newer}`: options that a LLaMA-Factory release after 0.7 brought (rules/options.yaml, `since`),
- `{options.gone}`: options that the newest release lacks (rules/options.yaml, `group: gone`),
- `{templates.newer}`: templates of LLaMA-Factory 0.6.3 and newer (rules/versions.yaml, and
  `templates_of_0_7` in rules/lists.yaml),
- `{lists.NAME}`: the names under NAME in rules/lists.yaml.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import msgspec
import yaml

from doctor.errors import DoctorError
from doctor.support.package_files import rules_folder

FILES = ("options.yaml", "lists.yaml", "versions.yaml")
"""Files of the rules folder that hold the lists."""
_SHORTEST = 100
"""Characters; no expression with a list written out is shorter."""
_PLACEHOLDER = re.compile(r"\{((?:options|lists|templates)\.\w+)\}")


def expand(value: Any) -> Any:
    """`value` (texts in lists and mappings) with every placeholder replaced by `(?:name|name|...)`, longest names first.

    Raises DoctorError for a list that does not exist.
    """
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: _alternation(found[1]), value) if "{" in value else value
    if isinstance(value, list):
        return [expand(part) for part in value]
    if isinstance(value, dict):
        return {key: expand(part) for key, part in value.items()}
    return value


def collapse(value: Any) -> Any:
    """The reverse of `expand`, for a reader: every alternation of a list is its placeholder again."""
    if isinstance(value, str):
        for name in name_lists() if len(value) > _SHORTEST else ():
            value = value.replace(_alternation(name), f"{{{name}}}")
        return value
    if isinstance(value, list):
        return [collapse(part) for part in value]
    if isinstance(value, dict):
        return {key: collapse(part) for key, part in value.items()}
    return value


@functools.cache
def _alternation(name: str) -> str:
    lists = name_lists()
    if name not in lists:
        raise DoctorError(f"no list of names {name!r} (known: {', '.join(sorted(lists))})")
    return "(?:" + "|".join(map(re.escape, sorted(lists[name], key=lambda text: (-len(text), text)))) + ")"


@functools.cache
def name_lists() -> dict[str, tuple[str, ...]]:
    """Every list by its placeholder's name."""
    options = msgspec.json.decode((rules_folder() / "options.yaml").read_bytes())
    del options["_about"]
    own = {name: entry for name, entry in options.items() if entry["of"] == "llamafactory"}
    written = yaml.safe_load((rules_folder() / "lists.yaml").read_text(encoding="utf-8"))
    history = msgspec.json.decode((rules_folder() / "versions.yaml").read_bytes())["products"]["llamafactory"]
    oldest = history["versions"][0]
    templates = history["sections"]["templates"]
    return {
        "templates.newer": (*(name for name, changes in templates.items() if changes[0][0] != oldest), *written["templates_of_0_7"]),
        "options.newer": tuple(name for name, entry in own.items() if entry.get("since") and entry["group"] != "gone"),
        "options.gone": tuple(name for name, entry in options.items() if entry["group"] == "gone"),
        **{f"lists.{name}": tuple(map(str, names)) for name, names in written.items()},
    }
