"""Share of the errors of a LLaMA-Factory checkout that get an answer: a cause, or what the message itself says.

    python benchmarks/messages_answered.py CHECKOUT [--show]

Each `raise` and `assert` of `src/llamafactory` is rendered once with values in the place of its unknown parts and put at the end of a
console log, under a traceback whose last frame is the function that raises it. `lfdoctor analyze` reads the log: a finding with a cause, or
with something that the message says to do, or a row of rules/exceptions.yaml that tells the family and what helps, is an answer. Errors
without a message and answers of the web server are left out.
Prints the share by folder, and with --show what got none. Exit code 1 below `GOAL`.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import raise_sites
from origins_holdout import VALUES

import doctor

GOAL = 0.97
"""Share of messages that need an answer."""

NOT_KNOWN = "environment/unknown-exception"
"""The rule of failures without an answer."""

NEVER_IN_A_LOG = ("HTTPException",)
"""Exceptions that a web server answers to its client."""

CONSOLE = """\
Traceback (most recent call last):
  File "/usr/local/bin/llamafactory-cli", line 8, in <module>
    sys.exit(main())
  File "/app/src/llamafactory/cli.py", line 24, in main
    launcher.launch()
  File "/app/src/llamafactory/{module}", line 71, in {function}
    raise {exception}(message)
{exception}: {message}
"""


def errors(package: Path) -> Iterator[tuple[str, raise_sites.Site, str]]:
    """Each error of a package once: its module, its place, its message."""
    values = random.Random(0)
    seen: set[tuple[str, str]] = set()
    for file in sorted(package.rglob("*.py")):
        module = file.relative_to(package).as_posix()
        for site in raise_sites.sites(file.read_bytes()) or ():
            message = "".join(values.choice(VALUES) if piece is None else piece for piece in site.pieces)
            if site.exception in NEVER_IN_A_LOG:
                continue
            if any(piece and piece.strip() for piece in site.pieces) and (site.exception, message) not in seen:
                seen.add((site.exception, message))
                yield module, site, message


def answer(module: str, site: raise_sites.Site, message: str) -> str | None:
    """The cause that the report gives the error, else the rule or "says"; None for no answer."""
    function = site.function.rpartition(".")[2] or "<module>"
    with tempfile.TemporaryDirectory() as folder:
        console = CONSOLE.format(module=module, function=function, exception=site.exception, message=message)
        Path(folder, "console.log").write_text(console, encoding="utf-8")
        report = doctor.analyze(folder)
    roots = [finding for finding in report.findings if finding.role == "root" and finding.severity != "note"]
    known = [finding.cause or finding.rule for finding in roots if finding.rule != NOT_KNOWN]
    return known[0] if known else "says" if any(finding.says for finding in roots) else None


def main() -> int:
    """Print the shares; the exit code tells whether `GOAL` is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    package = given.checkout / "src" / "llamafactory"
    if not package.is_dir():
        parser.error(f"{package} is no folder")
    answered: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for module, site, message in errors(package):
        part = module.partition("/")[0]
        found = answer(module, site, message)
        total[part] += 1
        answered[part] += found is not None
        if given.show:
            print(f"{found or 'NO ANSWER'}\t{module}:{site.function}\t{site.exception}: {message}")
    for part in sorted(total):
        print(f"{part}: {answered[part]} of {total[part]}")
    share = answered.total() / total.total()
    print(f"{answered.total()} of {total.total()} errors have an answer: {100 * share:.1f} %")
    return int(share < GOAL)


if __name__ == "__main__":
    sys.exit(main())
