"""The only exceptions a user ever sees."""

from __future__ import annotations

BAD_USAGE = 2
NOTHING_TO_READ = 3


class DoctorError(Exception):
    """An error to be shown as one plain message; `exit_code` is 2 (bad usage, unreadable rule or config) or 3 (nothing to read)."""

    def __init__(self, message: str, exit_code: int = BAD_USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code
