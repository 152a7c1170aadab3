"""Where the time of a watched job went: a part of its report."""

from __future__ import annotations

import msgspec


class TimeView(msgspec.Struct, frozen=True, kw_only=True):
    """Where the wall-clock time of a job of `lfdoctor run` went, in seconds; `ettr` is useful over wall (effective training time ratio).

    `starting`: until the training loop began, of every start. `lost`: steps whose work was lost with a failure. `other`: after the last
    step (final evaluation, hanging) and between the starts.
    """

    wall_seconds: float
    useful_seconds: float
    ettr: float
    starting_seconds: float
    lost_seconds: float
    other_seconds: float
