"""Compare the readers with plain JSON and regular expressions on a folder of run artefacts.

    python benchmarks/readers_corpus.py FOLDER

Reads every file on its own. Columns: the file, its reader, seconds, the number of loss values found by a plain search (JSON lines,
`'loss': x`, or `loss: x` in a line with a step), the share of these in our series, and missing values. Last line: totals.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from doctor.core.events import Step
from doctor.errors import DoctorError
from doctor.readers import reading as readers

NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf|NaN|Infinity)"
"""A number as logs write it."""

IN_DICT = re.compile(rf"['\"](?:eval_)?loss['\"]: ['\"]?({NUMBER})")
"""A loss in a dict line."""

LOSS_WITH_STEP = re.compile(rf"(?:step|iteration)\W{{0,10}}\d+\b.{{0,300}}?\b(?:train_|val_|lm )?loss\s*[:=]\s*({NUMBER})", re.I)
"""A loss in a line with a step."""


def plain(path: Path, text: str) -> Iterator[float]:
    """The loss values found by a plain search."""
    if path.name.startswith("trainer_state"):
        try:
            for entry in json.loads(text)["log_history"]:
                yield from (float(entry[name]) for name in ("loss", "eval_loss") if isinstance(entry.get(name), int | float))
        except (ValueError, KeyError, TypeError):
            return
        return
    for line in re.split(r"[\r\n]", text):
        found = IN_DICT.findall(line)
        if not found and "{" not in line[:1] and (match := LOSS_WITH_STEP.search(line)):
            found = [match[1]]
        yield from map(float, found)


def rounded(value: float) -> str:
    """A key equal for values that differ only by a console's rounding."""
    return f"{value:.3g}" if math.isfinite(value) else str(value)


def ours(path: Path) -> tuple[str, Counter[str], int]:
    """The reader's name, all values of our loss series, and the number of events."""
    reading = readers.read([path])
    values: Counter[str] = Counter()
    count = 0
    for event in reading.events():
        count += 1
        if isinstance(event, Step):
            values.update(rounded(value) for name, value in event.metrics.items() if name.lower().endswith("loss"))
    return reading.sources[0].kind, values, count


def text_of(path: Path) -> str:
    """The file as text; empty for binary formats."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return "" if b"\0" in data[:4096] and data[:2] not in (b"\xff\xfe", b"\xfe\xff") else data.decode("utf-8", "replace")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    wanted = got = taken = failed = 0
    for path in sorted(file for file in arguments.folder.rglob("*") if file.is_file()):
        start = time.perf_counter()
        try:
            kind, values, count = ours(path)
        except DoctorError as error:
            kind, values, count = f"not read ({str(error).splitlines()[-1].strip()[:80]})", Counter(), 0
        except Exception as error:
            kind, values, count = f"CRASH {type(error).__name__}: {error}", Counter(), 0
            failed += 1
        seconds = time.perf_counter() - start
        taken += count > 0
        expected = Counter(map(rounded, plain(path, text_of(path))))
        missing = expected - values
        wanted += expected.total()
        got += expected.total() - missing.total()
        share = f"{expected.total() - missing.total()}/{expected.total()}" if expected else "-"
        print(f"{seconds:7.3f}s {share:>11} {kind:16} {path.relative_to(arguments.folder)} {dict(missing.most_common(4)) or ''}")
    print(f"files read {taken}, crashes {failed}, loss values found {got} of {wanted} = {100 * got / max(wanted, 1):.2f} %")
    sys.exit(failed > 0 or got < 0.99 * wanted)


if __name__ == "__main__":
    main()
