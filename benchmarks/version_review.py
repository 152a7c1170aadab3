"""What a human must look at when a version of LLaMA-Factory was added: everything that it changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from version_history import Data, at
from version_sources import Source


def review(data: Data, source: Source) -> list[str]:
    """One line for each difference to the version before, by section."""
    product = data["products"][source.product]
    place = product["versions"].index(source.name)
    fork = f" (distribution {source.distribution}: a fork)" if source.distribution.replace("-", "_") != source.product else ""
    lines = [f"## {source.product} {source.name}{fork}"]
    if place == 0:
        return [*lines, "the oldest version: nothing to compare with"]
    before, here = at(product, product["versions"][place - 1]), at(product, source.name)
    for section in sorted({*before, *here}):
        changed = list(differences(before.get(section, {}), here.get(section, {})))
        lines += [f"{section}: {len(changed)} changes", *(f"  {line}" for line in changed)] if changed else []
    return lines


def differences(before: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    """`+ name`, `- name` and `name: field old -> new`."""
    for name in sorted({*before, *here}):
        old, new = before.get(name), here.get(name)
        if old is None:
            yield f"+ {name}" + (f": {shown(new)}" if new is not True else "")
        elif new is None:
            yield f"- {name}"
        elif isinstance(old, dict) and isinstance(new, dict):
            for field in sorted({*old, *new}):
                if json.dumps(old.get(field)) != json.dumps(new.get(field)):
                    yield f"{name}: {field} {shown(old.get(field))} -> {shown(new.get(field))}"
        elif old != new:
            yield f"{name}: {shown(old)} -> {shown(new)}"


def shown(value: Any) -> str:
    """A value in one line; of an option its type and default."""
    if isinstance(value, dict) and "type" in value:
        return f"{value['type']} = {'(computed)' if value.get('computed') else json.dumps(value['default'], ensure_ascii=False)}"
    return json.dumps(value, ensure_ascii=False)
