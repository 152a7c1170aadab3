"""How to scan, and the names of the files that a scan writes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from doctor.fleet.scan import engines
from doctor.fleet.scan.records import Limits


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to scan. `output` is the table of runs; all other files go next to it under the same stem.

    `report` names the renderer of a run's report (`module:mapping:key`; None: no reports), `suffix` the ending of its file.
    """

    roots: list[str]
    output: Path
    engine: engines.Choice = engines.Choice()
    limits: Limits = Limits()
    lang: str = "en"
    report: str | None = None
    suffix: str = ".txt"

    def sibling(self, ending: str) -> Path:
        """A file or folder with the stem of the output."""
        return self.output.with_name(self.output.name.removesuffix(".parquet") + ending)


def report_name(path: str, suffix: str) -> str:
    """Path of a run's report in the folder of reports."""
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()
    return f"{digest[:2]}/{digest[2:]}{suffix}"
