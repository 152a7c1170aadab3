"""What was tried under `--heal`, and what to try next: which remedy, from which checkpoint, or why to give up. Starts nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from doctor.config import yaml_edit
from doctor.config.patch import Change, apply
from doctor.live.supervisor import checkpoints
from doctor.live.supervisor.attempts import HealAttempt
from doctor.live.supervisor.checkpoints import Checkpoint
from doctor.live.supervisor.launch import patched
from doctor.live.supervisor.remedies import RemedyCandidate, candidates, fingerprint, keep_effective_batch
from doctor.live.supervisor.resume import cannot_resume, resume_point, unused
from doctor.report.model import FindingView
from doctor.support.texts import Text
from doctor.words import catalogue

MAX_PATCHES, MAX_RETRIES = 4, 3
"""Restarts for one cause: with a patch, and without one. Own choice: the deepest guide step needs four patches."""
MIN_CONFIDENCE = 0.5
"""Below, a cause is not sure enough to be patched before the same is tried again."""
PATCH_FAULTS = ("config", "environment", "data")
"""A patch is taken back if its run fails with one of these symptoms and the run before it did not."""

Order = Callable[[HealAttempt], Sequence[RemedyCandidate]]


class Ledger:
    """Remembers what was tried. `next_attempt` returns the next attempt, or a sentence that says why there is none."""

    def __init__(self, first: HealAttempt, folder: Path, restarts: int, order: Order | None = None) -> None:
        self.folder, self.restarts = folder, restarts
        self.attempts = [first]
        self._order = order or candidates
        self._tried = {fingerprint(first.values, first.env)}
        self._patches: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._reached: dict[str, int] = {}
        self._unusable: set[Path] = set()

    def next_attempt(self, attempt: HealAttempt) -> HealAttempt | Text:
        """What to start after this failed attempt."""
        report, root = attempt.report, attempt.root
        if report is None:
            return catalogue.text("healing.no_report")
        if report.run.status == "interrupted":
            return catalogue.text("healing.interrupted")
        if attempt.number > self.restarts:
            return catalogue.text("healing.restarts_used", count=self.restarts)
        if attempt.text is None:
            return catalogue.text("healing.no_config")
        if cannot_resume(attempt):
            return self._from_older_checkpoint(attempt)
        base = _without_bad_patch(attempt)
        if base is attempt and attempt.is_transient and not _is_sure(root) and (again := self._retry(attempt)) is not None:
            return again
        with_patch = self._patched(base)
        if with_patch is not None:
            return with_patch
        again = self._retry(attempt) if attempt.is_transient and base is attempt else None
        return again if again is not None else _gives_up(base, self._patches[base.cause] >= MAX_PATCHES)

    def jumps_before(self, attempt: HealAttempt) -> list[int]:
        """Onsets of the divergences of earlier attempts with another learning rate: at the same step it is the data."""
        rate = attempt.values.get("learning_rate")
        earlier = [other for other in self.attempts if other is not attempt and other.values.get("learning_rate") != rate]
        roots = [other.root for other in earlier]
        return sorted({root.steps[0] for root in roots if root is not None and root.symptom == "divergence" and root.steps})

    def _from_older_checkpoint(self, attempt: HealAttempt) -> HealAttempt:
        """The same from an older checkpoint, the second time from zero: the one it should have continued from does not load."""
        parent = attempt.parent or attempt
        if attempt.resume is not None:
            known = self._points(parent)
            self._unusable |= {point.path for point in known} if self._unusable else {attempt.resume.path}
        return self.make_attempt(parent, attempt, attempt.text or "", attempt.changes, attempt.env, catalogue.text("healing.elsewhere"))

    def _points(self, attempt: HealAttempt) -> list[Checkpoint]:
        """Whole checkpoints that an attempt wrote or began from, except those that did not load."""
        points = checkpoints.whole(Path(attempt.output_dir))
        given = attempt.resume
        if given is not None and (attempt.values.get("resume_from_checkpoint") or checkpoints.is_whole(given)):
            points.append(given)
        return [point for point in points if point.path not in self._unusable]

    def _retry(self, attempt: HealAttempt) -> HealAttempt | None:
        """The same once more; not if the failure came back without any progress."""
        seen = self._reached.get(attempt.cause)
        if self._retries[attempt.cause] >= MAX_RETRIES or (seen is not None and attempt.last_step <= seen):
            return None
        self._retries[attempt.cause] += 1
        self._reached[attempt.cause] = attempt.last_step
        return self.make_attempt(attempt, attempt, attempt.text or "", (), attempt.env, catalogue.text("healing.again"))

    def _patched(self, base: HealAttempt) -> HealAttempt | None:
        if self._patches[base.cause] >= MAX_PATCHES:
            return None
        for candidate in self._order(base):
            changes = keep_effective_batch(base.values, candidate.changes)
            env = base.env | {change.key: str(change.new) for change in changes if change.target == "env" and change.op == "set"}
            key = fingerprint(apply(base.values, [change for change in changes if change.target == "config"]), env, changes)
            if key in self._tried:
                continue
            self._tried.add(key)
            self._patches[base.cause] += 1
            text = patched(base.text or "", changes, candidate.because)
            return self.make_attempt(base, self.attempts[-1], text, changes, env, Text(candidate.text, candidate.text, candidate.text))
        return None

    def make_attempt(
        self, base: HealAttempt, failed: HealAttempt, text: str, changes: tuple[Change, ...], env: dict[str, str], why: Text
    ) -> HealAttempt:
        """The next attempt on `text`: from which checkpoint, into which folder. LLaMA-Factory never resumes it unasked."""
        changed = {change.key for change in changes if change.target == "config"}
        point = resume_point(base, changed, self._points(base))
        number = self.attempts[-1].number + 1
        edits = [*_output_dir(base, changed, point), *self._resume_from(text, changed, point, number)]
        attempt = HealAttempt(
            number=number,
            text=patched(text, edits, {change.key: "safe-restart" for change in edits}),
            env=env,
            resume=point,
            keep_rate=point is None or "learning_rate" not in changed,
            changes=changes,
            why=why,
            parent=base,
            redone=max(0, failed.last_step - (point.step if point else 0)),
        )
        self.attempts.append(attempt)
        return attempt

    def _resume_from(self, text: str, changed: set[str], point: Checkpoint | None, number: int) -> list[Change]:
        if point is None:
            given = "resume_from_checkpoint" in yaml_edit.load(text)
            return [Change("config", "unset", "resume_from_checkpoint", None, None)] if given else []
        path = point.path
        size = yaml_edit.load(text).get("per_device_train_batch_size")
        if "per_device_train_batch_size" in changed and size:
            path = checkpoints.for_batch(point, self.folder / f"resume-{number}" / path.name, int(size))
        return [Change("config", "set", "resume_from_checkpoint", None, str(path))]


def _output_dir(base: HealAttempt, changed: set[str], point: Checkpoint | None) -> list[Change]:
    """A new folder, unless the old one is empty or the attempt continues from its newest checkpoint."""
    output = Path(base.output_dir)
    continues = point is not None and point.path.parent == output and point == max(checkpoints.whole(output), default=None)
    if "output_dir" in changed or continues or checkpoints.untouched(output):
        return []
    return [Change("config", "set", "output_dir", base.output_dir, unused(base.output_dir))]


def _is_sure(root: FindingView | None) -> bool:
    return root is not None and root.confidence >= MIN_CONFIDENCE and root.cause is not None


def _without_bad_patch(attempt: HealAttempt) -> HealAttempt:
    """The attempt to patch next: the one before, if this one's patch caused an error of its own."""
    parent, root = attempt.parent, attempt.root
    if parent is None or parent.root is None or root is None or not attempt.changes:
        return attempt
    own = root.symptom in PATCH_FAULTS and parent.root.symptom not in PATCH_FAULTS and attempt.last_step <= parent.last_step
    return parent if own and root.cause != parent.root.cause else attempt


def _gives_up(attempt: HealAttempt, spent: bool) -> Text:
    root = attempt.root
    if root is None:
        return catalogue.text("healing.unknown")
    by_hand = next((remedy.text for remedy in root.remedies if remedy.status == "manual"), "")
    return catalogue.text("healing.gives_up_spent" if spent else "healing.gives_up", title=root.title, by_hand=by_hand)
