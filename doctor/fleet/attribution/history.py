"""The attempts of a job: which runs they are, what changed from one to the next, whether it helped, what has failed already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from doctor.config.options import effective
from doctor.planner.plan import PreviousAttempt
from doctor.planner.situation import external_settings

if TYPE_CHECKING:
    from doctor.fleet.scan.records import RunRecord

Verdict = Literal["first", "helped", "other_failure", "no_help", "repeated", "broke", "unknown"]
MAX_PREVIOUS = 20
"""Latest earlier attempts whose changes are not proposed again."""

NAMES_OF_PLACES = frozenset(
    {
        "output_dir",
        "run_name",
        "logging_dir",
        "tokenized_path",
        "overwrite_output_dir",
        "resume_from_checkpoint",
        "report_to",
        "deepspeed_file",
    }
)
"""Options that name places: they differ from run to run and explain nothing."""
_AGAIN = re.compile(
    r"(?i)(?:[-_.](?:fix|retry|attempt|try|rerun|restart|resume|v)[-_]?\d*"
    r"|[-_.]\d{4}[-_]?\d\d[-_]?\d\d(?:[-_T]?\d\d[-_:]?\d\d(?:[-_:]?\d\d)?)?|[-_.]\d{10})+$"
)


def job_name(path: str, config: Mapping[str, Any], *, folder: bool = True) -> str:
    """The name that all attempts of a job share: parent folder and name without `-fix1`, `_retry2`, dates.

    In this order: a `run_name` of the user's own; the run's folder if it is a `folder` of another name than output_dir (many archives
    give every run the same `output`); output_dir.
    """
    parts, given = _parts(path), _parts(str(config.get("output_dir") or ""))
    if given and (not folder or given[-1] in parts):
        parts = given
    name = config.get("run_name")
    if isinstance(name, str) and name and name != config.get("output_dir"):
        parts = [*parts[:-1], name]
    last = _AGAIN.sub("", parts[-1]) if parts else ""
    return "/".join([*parts[-2:-1], last or parts[-1]]) if parts else path


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"[\\/]", path) if part not in ("", ".", "..")]


class JobAttempt(msgspec.Struct, frozen=True):
    """An attempt compared with the one before: `changed` maps an option to its values before and now."""

    path: str
    status: str
    cause: str | None
    changed: dict[str, tuple[Any, Any]]
    verdict: Verdict


def attempts(runs: Iterable[RunRecord]) -> list[JobAttempt]:
    """The attempts of a job in the order they ended."""
    out: list[JobAttempt] = []
    before: RunRecord | None = None
    for run in sorted(runs, key=lambda run: (run.ended or 0.0, run.path)):
        changed = changes(before, run) if before else {}
        out.append(
            JobAttempt(
                run.path, run.status if run.outcome == "analyzed" else run.outcome, run.cause, changed, _verdict(before, run, changed)
            )
        )
        before = run
    return out


def changes(before: RunRecord, after: RunRecord) -> dict[str, tuple[Any, Any]]:
    """Options whose effective values differ, and facts of the environment that both runs report and that differ."""
    old, new = effective(before.config, before.environment), effective(after.config, after.environment)
    keys = sorted({*before.config, *after.config} - NAMES_OF_PLACES)
    changed = {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}
    both = before.environment.keys() & after.environment.keys()
    if "launcher" in both:  # both report how they were started: a variable missing in one was not set there
        both |= {key for key in {*before.environment, *after.environment} if key.startswith("env.")}
    now, then = after.environment, before.environment
    return changed | {key: (then.get(key), now.get(key)) for key in sorted(both) if then.get(key) != now.get(key)}


def _verdict(before: RunRecord | None, run: RunRecord, changed: Mapping[str, Any]) -> Verdict:
    """What the changes did to the previous failure."""
    if before is None:
        return "first"
    if before.failed is None or run.failed is None:
        return "unknown"
    if not before.failed:
        return "broke" if run.failed else "unknown"
    if not run.failed:
        return "helped"
    if before.cause != run.cause:
        return "other_failure"
    return "no_help" if changed else "repeated"


def previous_attempts(run: RunRecord, group: Sequence[RunRecord]) -> list[PreviousAttempt]:
    """Other attempts of the job that failed of the same cause: the planner does not propose their settings again."""
    same = [other for other in group if other.path != run.path and other.failed and other.cause is not None and other.cause == run.cause]
    same.sort(key=lambda other: (other.ended or 0.0, other.path))
    latest = same[-MAX_PREVIOUS:]
    return [PreviousAttempt(other.path, dict(other.config), external_settings(other.environment)) for other in latest]
