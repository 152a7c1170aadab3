"""Values as logs and configs write them."""

from __future__ import annotations

import pytest

from doctor.readers.values import duration_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0:04:56", 296.0), ("1 day, 0:08:23", 86903.0), ("12:00:00.25", 43200.0), ("9" * 5000 + ":00:00", None), ("4:56", None), (7, None)],
)
def test_a_duration_is_read_and_nothing_else(text: object, seconds: float | None) -> None:
    """Python refuses to read numbers of thousands of digits; no run took so long."""
    assert duration_seconds(text) == seconds
