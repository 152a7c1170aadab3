"""Writes what each version of LLaMA-Factory knows: rules/versions.yaml, rules/options.yaml, rules/option_help.yaml, docs/versions.md.

    python benchmarks/make_versions.py SOURCE ... [--as NAME]

A SOURCE is a wheel, a source distribution, a checkout or `REPOSITORY@REF` of LLaMA-Factory, of transformers or of mcore_adapter; a new
version is put in its place, a known one is replaced (`main` above all). Then it prints what a human must look at. Without SOURCE it
writes the other files anew from rules/versions.yaml; `--check` says whether they are current. Nothing of the sources is run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import version_docs
import version_history
import version_knowledge
import version_options
import version_review
import version_sources

REPOSITORY = Path(__file__).parents[1]
RULES = REPOSITORY / "rules"
VERSIONS = RULES / "versions.yaml"
HELP = RULES / "option_help.yaml"


def load() -> version_history.Data:
    """rules/versions.yaml, empty where there is none."""
    return json.loads(VERSIONS.read_text(encoding="utf-8")) if VERSIONS.exists() else {"products": {}}


def load_help() -> dict[str, dict[str, str]]:
    """rules/option_help.yaml: section -> option -> the newest help text."""
    return json.loads(HELP.read_text(encoding="utf-8")) if HELP.exists() else {}


def files(data: version_history.Data, told: dict[str, dict[str, str]]) -> dict[Path, str]:
    """Every file that is made, and its text."""
    return {
        VERSIONS: version_history.text(data),
        HELP: "{\n" + ",\n".join(_section(name, told[name]) for name in sorted(told)) + "\n}\n",
        RULES / "options.yaml": version_options.text(data),
        REPOSITORY / "docs" / "versions.md": version_docs.page(data),
    }


def _section(name: str, texts: dict[str, str]) -> str:
    lines = [f"{json.dumps(option)}: {json.dumps(texts[option], ensure_ascii=False)}" for option in sorted(texts)]
    return f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}"


def take(place: str, name: str | None, data: version_history.Data, told: dict[str, dict[str, str]]) -> list[str]:
    """Put one version into the data; the lines that a human must look at."""
    source = version_sources.read(place, name)
    known = version_knowledge.of(source)
    helps = version_history.without_help(known)
    number = version_history.insert(data, source, known)
    if number == len(data["products"][source.product]["versions"]) - 1:
        for section, texts in helps.items():
            told[f"{source.product}/{section}"] = told.get(f"{source.product}/{section}", {}) | texts
    return version_review.review(data, source)


def main(words: list[str]) -> int:
    """Exit code 1 with --check if a file is not current."""
    check = "--check" in words
    name = words[words.index("--as") + 1] if "--as" in words else None
    places = [word for word in words if not word.startswith("--") and word != name]
    data, told = load(), load_help()
    for place in places:
        print(*take(place, name, data, told), sep="\n")
    wanted: dict[Path, Any] = files(data, told)
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check:
        print(*stale, sep="\n")
        return int(bool(stale))
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
