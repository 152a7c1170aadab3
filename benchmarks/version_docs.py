"""docs/versions.md: what changed in which release of LLaMA-Factory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from version_history import Data, at
from version_review import differences

_TITLES = {
    "v0": "Options of `llamafactory-cli train`",
    "megatron_bridge": "Options with `USE_MEGATRON_BRIDGE=1`",
    "v1": "Options of the v1 trainer (`USE_V1=1`)",
    "v1_plugins": "Plugins of the v1 trainer",
    "eval": "Options of `llamafactory-cli eval`",
    "infer": "Options of inference alone",
    "templates": "Templates",
    "pins": "Releases of other packages",
    "checks": "Checks when it starts",
}
"""Section -> heading, in reading order."""


def page(data: Data) -> str:
    """The page: newest first."""
    product = data["products"]["llamafactory"]
    versions = product["versions"]
    lines = [
        "# LLaMA-Factory by version",
        "",
        "What changed between releases, read from their sources by `benchmarks/make_versions.py`; `main` is the development branch. "
        "`lfdoctor check --llamafactory-version 0.9.4` judges a config by one of them. Two of them are also run, with faults put in and "
        "patches tried: the newest release by `make lab`, `main` by `make lab STACK=main`.",
        "",
        *_overview(product),
    ]
    for before, version in zip(reversed(versions[:-1]), reversed(versions[1:]), strict=True):
        lines += ["", f"## {version}"]
        old, new = at(product, before), at(product, version)
        for section, title in _TITLES.items():
            changed = list(differences(old.get(section, {}), new.get(section, {})))
            if changed:
                lines += ["", f"### {title}: {version}" if section in ("v0", "checks") else f"### {title} ({version})", ""]
                lines += list(_listed(changed, section))
    return "\n".join(lines) + "\n"


def _overview(product: dict[str, Any]) -> Iterator[str]:
    yield "| version | options | templates | transformers |"
    yield "|---|---|---|---|"
    for version in reversed(product["versions"]):
        known = at(product, version)
        pin = known.get("pins", {}).get("transformers", "")
        yield f"| {version} | {len(known['v0'])} | {len(known.get('templates', {}))} | `{pin}` |"


def _listed(changed: list[str], section: str) -> Iterator[str]:
    if section == "templates":
        for sign, word in (("+ ", "new"), ("- ", "gone")):
            names = [line[2:] for line in changed if line.startswith(sign)]
            if names:
                yield f"- {word}: " + ", ".join(f"`{name}`" for name in names)
        return
    for line in changed:
        sign, rest = (line[:2], line[2:]) if line[:2] in ("+ ", "- ") else ("", line)
        words = {"+ ": "new", "- ": "gone"}.get(sign, "changed")
        name, _, told = (rest, "", "") if section == "checks" else rest.partition(": ")
        yield f"- {words}: `{name.replace('`', chr(39))}`" + (f" ({_code(told)})" if told else "")


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`" if len(text) <= 160 else f"`{text[:157].replace('`', chr(39))}...`"
