"""What a reader is told of a cause that was not proved: its family, a title, and what would confirm it (rules/causes.yaml)."""

from __future__ import annotations

import re
from functools import cache

import msgspec

from doctor.rulebook import data_file
from doctor.support.package_files import rules_folder
from doctor.support.texts import Text


class CauseNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`check` says how to confirm the cause or rule it out; `needs` is an expression for what it presupposes (a package, a feature)."""

    family: str
    title: Text
    check: Text
    needs: str | None = None

    def is_possible(self, text: str) -> bool:
        """Whether what the cause presupposes stands in a text, in upper or lower case."""
        return self.needs is None or re.search(self.needs, text, re.IGNORECASE) is not None


@cache
def cause_notes() -> dict[str, CauseNote]:
    """The notes by cause. Raises DoctorError for a file that cannot be read as such."""
    return data_file.read(rules_folder() / "causes.yaml", dict[str, CauseNote])
