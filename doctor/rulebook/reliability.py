"""How often each kind of answer on an unlisted failure was right, as measured (rules/reliability.yaml), and the confidence that follows."""

from __future__ import annotations

from functools import cache

import msgspec

from doctor.errors import DoctorError
from doctor.support.cache import load_yaml
from doctor.support.decoding import convert
from doctor.support.package_files import rules_folder

FILE = "reliability.yaml"
WEIGHT = 6.0
"""A row's own record counts against its kind's as many failures: rows that decided fewer are mostly judged by their kind."""
_HIGHEST = 0.89
"""A conclusion from the form of an exception is never told as almost certain."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `told` answers `right` named a cause that a person had given or accepted."""

    right: int
    told: int

    @property
    def rate(self) -> float:
        """0..1; one half where nothing was told."""
        return self.right / self.told if self.told else 0.5


class Reliability(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Records by kind (`KINDS`) and by row of the decision table, over `failures` labelled failures of `repositories` repositories."""

    failures: int
    repositories: int
    kinds: dict[str, Record]
    rows: dict[str, Record]

    def confidence(self, kind: str, row: str = "") -> float:
        """0..1: the kind's rate, moved by the row's own record."""
        rate = self.kinds[kind].rate if kind in self.kinds else 0.5
        own = self.rows.get(row)
        shrunk = (own.right + WEIGHT * rate) / (own.told + WEIGHT) if own is not None else rate
        return round(min(_HIGHEST, shrunk), 2)


def kind_of(said: str, agreement: str) -> str:
    """`likely agreed`: what the row says of itself, or `origin`; and whether the classifier agreed, disagreed, or had no opinion (alone)."""
    return f"{said} {agreement}"


KINDS = tuple(kind_of(said, agreement) for said in ("likely", "possible", "origin") for agreement in ("agreed", "disagreed", "alone"))
"""The kinds of answers of decision table and origins."""


@cache
def reliability() -> Reliability:
    """The records. Raises DoctorError for a file that cannot be read as such."""
    path = rules_folder() / FILE
    try:
        return convert(load_yaml(path), Reliability)
    except (msgspec.ValidationError, OSError, UnicodeDecodeError) as error:
        raise DoctorError(f"{path}: {error}") from error
