"""What an index of older releases says of the messages that later releases have gained.

    python benchmarks/origins_holdout.py FROZEN FULL [--show N]

FROZEN and FULL are files of make_origins.py, the first made with --newest. Each new message is rendered from its source with values in the
place of its unknown parts, and looked up in FROZEN: by its text alone, and with the frame that raises it. Right is the package and the
function; a message whose text an older release of the same package has is not new.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from doctor.diagnosis.unlisted import origin_causes, origin_index, origins
from doctor.diagnosis.unlisted.origin_index import Index, StoredSite, StoredTemplate

PACKAGES = ("transformers", "trl", "peft", "accelerate", "datasets", "llamafactory")
VALUES = ("model.layers.3.mlp", "4", "torch.float32", "/data/train", "['a', 'b']", "cuda:0", "Qwen3ForCausalLM", "0.5")
"""What stands for unknown parts: names, numbers, types, paths, lists."""


class New(NamedTuple):
    """A message that a later release raises, and where."""

    package: str
    module: str
    function: str
    exception: str
    message: str


def new_messages(frozen: Index, full: Index) -> Iterator[New]:
    """Each new template once, with its place in the newest release that has it."""
    values = random.Random(0)
    old = {(package, stored.text) for stored in frozen.templates() for package in _packages(frozen, stored)}
    for stored in full.templates():
        for package in sorted(_packages(full, stored) & set(PACKAGES)):
            if (package, stored.text) not in old:
                site = max((site for site in stored.sites if _package(full, site) == package), key=lambda site: site.last)
                module, exception = full.head.modules[site.module], full.head.exceptions[site.exception]
                yield New(package, module, site.function.rpartition(".")[2], exception, _rendered(stored.text, values))


def outcome(new: New, index: Index, *, frame: bool) -> tuple[str, origins.Origin | None]:
    """ "none", "right" (package and function), "package" (its function is another), or "wrong"."""
    place = (new.package, new.function) if frame else (None, None)
    found = origins.find(new.exception, new.message, *place, index=index)
    if found is None:
        return "none", None
    if new.package not in {site.package for site in found.sites}:
        return "wrong", found
    return ("right" if new.function == found.function else "package"), found


def main() -> None:
    """Print the outcomes by package, the share with a cause by module, and with --show some wrong ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frozen", type=Path)
    parser.add_argument("full", type=Path)
    parser.add_argument("--show", type=int, default=0)
    given = parser.parse_args()
    frozen, full = origin_index.load(given.frozen), origin_index.load(given.full)
    alone: dict[str, Counter[str]] = {package: Counter() for package in PACKAGES}
    framed: Counter[str] = Counter()
    caused: Counter[bool] = Counter()
    wrong: list[str] = []
    for new in new_messages(frozen, full):
        result, found = outcome(new, frozen, frame=False)
        alone[new.package][result] += 1
        if found is not None and result == "wrong":
            wrong.append(
                f"{new.module}:{new.function} {new.message[:100]!r}\n    taken for {found.sites[0].module}: {found.template[:100]!r}"
            )
        framed[outcome(new, frozen, frame=True)[0]] += bool(new.function)
        caused[origin_causes.label_of(new.module, new.function, new.exception, "") is not None] += 1
    for package, counts in alone.items():
        print(f"{package}: {sum(counts.values())} new messages; by text alone {dict(counts)}")
    print(f"all by text alone: {dict(sum(alone.values(), Counter()))}; with the frame: {dict(framed)}; cause by module: {caused[True]}")
    for line in wrong[: given.show]:
        print(line)


def _packages(index: Index, stored: StoredTemplate) -> set[str]:
    return {_package(index, site) for site in stored.sites}


def _package(index: Index, site: StoredSite) -> str:
    return index.head.modules[site.module].partition("/")[0]


def _rendered(text: str, values: random.Random) -> str:
    first, *rest = text.split("\0")
    return first + "".join(values.choice(VALUES) + piece for piece in rest)


if __name__ == "__main__":
    main()
