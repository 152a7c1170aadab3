"""The attempts of one job: which runs they are, what was changed from one to the next, whether it helped, what has failed already."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from doctor.config.options import effective
from doctor.planner.plan import PreviousAttempt
from doctor.planner.situation import external_settings

if TYPE_CHECKING:
    from doctor.fleet.scan.records import RunRecord

Verdict = Literal["first", "helped", "other_failure", "no_help", "repeated", "broke", "unknown"]
TRIED = 20
"""So many earlier attempts, the latest ones, are held against what is proposed."""

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
"""Options that say where things go: they differ from run to run and explain nothing."""
_AGAIN = re.compile(
    r"(?i)(?:[-_.](?:fix|retry|attempt|try|rerun|restart|resume|v)[-_]?\d*"
    r"|[-_.]\d{4}[-_]?\d\d[-_]?\d\d(?:[-_T]?\d\d[-_:]?\d\d(?:[-_:]?\d\d)?)?|[-_.]\d{10})+$"
)


def job_name(path: str, config: Mapping[str, Any], *, folder: bool = True) -> str:
    """The name that all attempts of a job share: parent and name without `-fix1`, `_retry2`, dates.

    It is that of the output folder; where the run lies in a `folder` of another name, that folder's (many archives give every run the
    same `output`); a `run_name` of the user's own wins.
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
    """One attempt beside the one before: `changed` maps an option to its value before and now."""

    path: str
    status: str
    cause: str | None
    changed: dict[str, tuple[Any, Any]]
    verdict: Verdict


def attempts(runs: Iterable[RunRecord]) -> list[JobAttempt]:
    """The attempts of one job in the order in which they ended."""
    out: list[JobAttempt] = []
    before: RunRecord | None = None
    for run in sorted(runs, key=lambda one: (one.ended or 0.0, one.path)):
        changed = changes(before, run) if before else {}
        out.append(
            JobAttempt(
                run.path, run.status if run.outcome == "analyzed" else run.outcome, run.cause, changed, _verdict(before, run, changed)
            )
        )
        before = run
    return out


def changes(before: RunRecord, after: RunRecord) -> dict[str, tuple[Any, Any]]:
    """Options whose effective value differs, and surroundings that both runs tell and that differ."""
    old, new = effective(before.config, before.environment), effective(after.config, after.environment)
    keys = sorted({*before.config, *after.config} - NAMES_OF_PLACES)
    changed = {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}
    both = before.environment.keys() & after.environment.keys()
    if "launcher" in both:  # both tell how they were started: a variable that one of them does not tell was not set there
        both |= {key for key in {*before.environment, *after.environment} if key.startswith("env.")}
    now, then = after.environment, before.environment
    return changed | {key: (then.get(key), now.get(key)) for key in sorted(both) if then.get(key) != now.get(key)}


def _verdict(before: RunRecord | None, run: RunRecord, changed: Mapping[str, Any]) -> Verdict:
    """What the changes did to the failure before."""
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


def by_job(runs: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs by the name of their job, those with several attempts only."""
    jobs: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        jobs[run.job].append(run)
    return {job: group for job, group in jobs.items() if len(group) > 1}


def previous_attempts(run: RunRecord, group: Sequence[RunRecord]) -> list[PreviousAttempt]:
    """The job's other attempts that failed of this run's cause: what the planner must not propose again."""
    same = [one for one in group if one.path != run.path and one.failed and one.cause is not None and one.cause == run.cause]
    same.sort(key=lambda one: (one.ended or 0.0, one.path))
    return [PreviousAttempt(one.path, dict(one.config), external_settings(one.environment)) for one in same[-TRIED:]]
