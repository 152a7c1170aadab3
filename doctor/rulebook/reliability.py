"""How often each kind of answer on an unlisted failure was right, as measured (rules/reliability.yaml), and the confidence that follows."""

from __future__ import annotations

from functools import cache

import msgspec

from doctor.rulebook import data_file
from doctor.support.package_files import rules_folder

FILE = "reliability.yaml"
WEIGHT = 20.0
"""A row's own record counts against that of all rows as many answers: rows that decided fewer are mostly judged as the others. Of 3, 6, 12,
20, 40 the one with the least log loss when each repository is left out (benchmarks/reliability.py)."""
_HIGHEST = 0.89
"""A conclusion from the form of an exception is never told as almost certain."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `told` answers `right` named a cause that a person had given or accepted."""

    right: int
    told: int

    @property
    def rate(self) -> float:
        """0..1, inside it (Laplace's rule): one half where nothing was told."""
        return (self.right + 1) / (self.told + 2)

    def towards(self, rate: float, weight: float) -> float:
        """The rate as if `weight` more answers of that rate had been told."""
        return (self.right + weight * rate) / (self.told + weight)


class Reliability(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Records by kind (`KINDS`) and by row of the decision table, over `failures` labelled failures of `repositories` repositories."""

    failures: int
    repositories: int
    kinds: dict[str, Record]
    rows: dict[str, Record]

    def confidence(self, kind: str, row: str = "") -> float:
        """0..1: the odds of the kind, times how much better or worse the row is than all rows that say the same of themselves."""
        found = self.kinds.get(kind, Record(0, 0))
        said = kind.partition(" ")[0]
        alike = [record for name, record in self.kinds.items() if name.startswith(f"{said} ")]
        usual = Record(sum(one.right for one in alike), sum(one.told for one in alike)).rate
        own = self.rows.get(row, Record(0, 0)).towards(usual, WEIGHT)
        odds = _odds(found.rate) * _odds(own) / _odds(usual)
        return round(min(_HIGHEST, odds / (1 + odds)), 2)


def _odds(rate: float) -> float:
    return rate / (1 - rate)


def kind_of(said: str, agreement: str) -> str:
    """`likely agreed`: what the row says of itself, or `origin`; and what the classifier did (alone: it had no opinion)."""
    return f"{said} {agreement}"


KINDS = tuple(kind_of(said, agreement) for said in ("likely", "possible", "origin") for agreement in ("agreed", "disagreed", "alone"))
"""The kinds of answers of decision table and origins."""


@cache
def reliability() -> Reliability:
    """The records. Raises DoctorError for a file that cannot be read as such."""
    return data_file.read(rules_folder() / FILE, Reliability)
