"""`lfdoctor run --heal N`: analyzes a failed training, patches it and restarts it from a safe checkpoint until it finishes."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from doctor.config.options import effective_batch_size
from doctor.diagnosis.pipeline import analyze as diagnose
from doctor.errors import DoctorError
from doctor.live.supervisor import checkpoints, watched_run
from doctor.live.supervisor.attempts import HealAttempt
from doctor.live.supervisor.effective_time import ALL, Start, effective_time
from doctor.live.supervisor.hang_detector import hung_after
from doctor.live.supervisor.journal_tail import Listeners
from doctor.live.supervisor.launch import Launch
from doctor.live.supervisor.ledger import Ledger, Order
from doctor.live.supervisor.repeat import begins_from, repeat
from doctor.live.supervisor.resume import first_checkpoint
from doctor.live.supervisor.run_folder import RunFolder
from doctor.live.supervisor.watched_run import Outcome
from doctor.live.trainer.stop_judge import JUMPS_VARIABLE
from doctor.privacy.secrets import mask, plain
from doctor.report.model import AttemptView, ChangeView, Report
from doctor.report.time_spent import TimeView
from doctor.support.texts import Text
from doctor.words import catalogue

REPEATED_SECONDS = 1800.0
"""A repetition that is expected to take longer is left to the user."""
REPEATED_FACTOR = 6.0
"""Time of a repetition in that of the training's own steps: two of them, each with hooks on every module that look at every value
(three times as slow in the lab, where modules are small: the worst case)."""
REPEATED_STEP_SECONDS = 10.0
"""A step's time where it is not known."""


class Healer:
    """One training in several attempts; `folder` receives attempt-K/ (as `watched_run.run` fills it), attempt-K.yaml and report.json."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        restarts: int,
        *,
        lang: str = "en",
        analyze: Callable[..., Report] = diagnose,
        order: Order | None = None,
        dump_after: float | None = None,
        kill_after: float | None = None,
        env: Mapping[str, str] = {},
        listeners: Listeners = Listeners(),  # noqa: B008  frozen
    ) -> None:
        self._listeners, self._env = listeners, dict(env)
        self._dump_after, self._kill_after = dump_after, kill_after if kill_after is not None else hung_after(dump_after)
        self.launch, self.folder, self.lang = Launch.of(command), folder, lang
        self._analyze, self._began = analyze, time.time()
        first = HealAttempt(number=1, text=self.launch.text)
        first.resume = first_checkpoint(first.values)
        self.ledger = Ledger(first, folder, restarts, order)
        self.repeated: list[str] = []
        self._repeated: set[int] = set()

    def run(self) -> Outcome:
        """Start attempts until one finishes or none is left to try. Raises DoctorError (2) if nothing can be started or written."""
        with RunFolder(self.folder, self.launch.command, reserve=False):
            return self._run()

    def _run(self) -> Outcome:
        attempt, warned = self.ledger.attempts[0], []
        while True:
            outcome = self._watched(attempt)
            warned += outcome.warned
            outcome = self._repeat(attempt, outcome)
            decision = self._next(attempt, outcome)
            report = self._with_attempts(outcome, decision if isinstance(decision, Text) else None)
            if isinstance(decision, Text):
                return msgspec.structs.replace(outcome, code=outcome.code or int(attempt.lost), report=report, warned=warned)
            self._announce(decision)
            self._make_room(decision)
            attempt = decision

    def _next(self, attempt: HealAttempt, outcome: Outcome) -> HealAttempt | Text:
        if outcome.code == 0 and not attempt.lost:
            return catalogue.text("healing.healed")
        if outcome.stop_requested:
            return catalogue.text("healing.interrupted")
        return self.ledger.next_attempt(attempt)

    def _watched(self, attempt: HealAttempt) -> Outcome:
        folder, config = self.folder / f"attempt-{attempt.number}", self.launch.config
        if attempt.number > 1 or self.launch.overridden:
            config = self.write(attempt)
        attempt.began = time.time()
        outcome = watched_run.run(
            self.launch.with_config(config) if attempt.number > 1 and config else self.launch.command,
            folder,
            stop_on_divergence=True,
            lang=self.lang,
            analyze=self._analyze,
            env=self._environment(attempt),
            config=config,
            dump_after=self._dump_after,
            kill_after=self._kill_after,
            listeners=self._listeners,
        )
        attempt.code, attempt.report, attempt.ended = outcome.code, outcome.report, time.time()
        journal = folder / "lfdoctor.jsonl"
        attempt.hooked = journal.exists()
        attempt.stopped = attempt.hooked and b'"name":"stopped_by_doctor"' in journal.read_bytes()
        return outcome

    def _repeat(self, attempt: HealAttempt, outcome: Outcome) -> Outcome:
        """After a NaN: name the sample, weight or module, once for each step that it began at, and where that takes a reasonable time."""
        root, report = attempt.root, attempt.report
        if root is None or report is None or root.symptom != "nonfinite" or not root.steps or not attempt.hooked or attempt.text is None:
            return outcome
        step, launch = root.steps[0], msgspec.structs.replace(self.launch, text=attempt.text)
        if outcome.stop_requested or step in self._repeated:
            return outcome
        self._repeated.add(step)
        each = (report.run.vitals.seconds_per_step if report.run.vitals else None) or REPEATED_STEP_SECONDS
        point = begins_from(launch, step)
        if (step - (point.step if point else 0)) * each * REPEATED_FACTOR > REPEATED_SECONDS:
            self._say([catalogue.say("repeat.by_hand", self.lang, step=step)])
            return outcome
        try:
            found = repeat(launch, self.folder / f"attempt-{attempt.number}", step, self._environment(attempt))
        except KeyboardInterrupt:
            return msgspec.structs.replace(outcome, stop_requested=True)
        self.repeated = found.lines(self.lang)
        self._say(self.repeated)
        return outcome

    def _say(self, told: Sequence[str]) -> None:
        for line in told:
            print(f"lfdoctor: {line}", file=sys.stderr, flush=True)
        self._listeners.tell("\n".join(told))

    def _environment(self, attempt: HealAttempt) -> dict[str, str]:
        jumps = ",".join(map(str, self.ledger.jumps_before(attempt)))
        rate = {} if attempt.keep_rate else {"LFDOCTOR_SET_RATE": "1"}
        return {"LFDOCTOR_SAVE_AT_STOP": "0", **self._env, **attempt.env, **rate, **({JUMPS_VARIABLE: jumps} if jumps else {})}

    def write(self, attempt: HealAttempt) -> Path:
        """Write the attempt's YAML. Raises DoctorError."""
        path = self._yaml_path(attempt)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(attempt.text or "", encoding="utf-8")
        except OSError as error:
            raise DoctorError(f"cannot write {path}: {error.strerror or error}") from error
        return path

    def _make_room(self, attempt: HealAttempt) -> None:
        """Before a restart on a full disk: delete what save_total_limit would, of the checkpoints that these attempts wrote."""
        failed, limit = attempt.parent, attempt.values.get("save_total_limit")
        if failed is None or failed.root is None or failed.root.cause != "disk_full" or type(limit) is not int or limit < 1:
            return
        gone = checkpoints.make_room(Path(str(failed.values.get("output_dir"))), limit, attempt.resume, self._began)
        names = ", ".join(map(str, gone)) or "-"
        self._say([catalogue.say("healing.made_room", self.lang, count=len(gone), limit=limit, names=names)])

    def _with_attempts(self, outcome: Outcome, end: Text | None) -> Report | None:
        """The last attempt's report with all attempts, saved after each of them: it exists even if this process is killed."""
        if outcome.report is None:
            return None
        views = [self.view(attempt) for attempt in self.ledger.attempts if attempt.report is not None]
        healing = end.get(self.lang) if end and (len(views) > 1 or end != catalogue.text("healing.healed")) else None
        if healing and self.repeated:
            healing = " ".join([healing, *self.repeated])
        report = msgspec.structs.replace(outcome.report, attempts=views, healing=healing, time=self._time())
        watched_run.save_or_complain(report, self.folder / "report.json")
        return report

    def _time(self) -> TimeView | None:
        """Where the time of all attempts that have ended went."""
        ended = [attempt for attempt in self.ledger.attempts if attempt.ended]
        starts = [Start.read(self.folder / f"attempt-{attempt.number}", attempt.began, attempt.ended) for attempt in ended]
        continued = [attempt.resume.step if attempt.resume else 0 for attempt in ended[1:]]
        last = ended[-1]
        kept = 0 if last.lost else ALL if last.code == 0 else starts[-1].saved
        return effective_time(starts, continued, kept)

    def view(self, attempt: HealAttempt) -> AttemptView:
        """The attempt as a row of the report."""
        root = attempt.root
        failed = attempt.code != 0 or attempt.lost
        interrupted = attempt.report is not None and attempt.report.run.status == "interrupted"
        return AttemptView(
            number=attempt.number,
            outcome="interrupted" if interrupted else "finished" if not failed else "failed" if attempt.code else "stopped",
            code=attempt.code,
            why=attempt.why.get(self.lang),
            changes=[
                ChangeView(change.target, change.op, change.key, plain(change.old, change.key), plain(change.new, change.key))
                for change in attempt.changes
            ],
            config=str(self.path(attempt) or "") or None,
            command=self.command(attempt),
            resumed_from=str(attempt.resume.path) if attempt.resume else None,
            redone=attempt.redone,
            cause=root.cause if failed and root else None,
            title=root.title if failed and root else None,
            last_step=attempt.last_step or None,
            effective_batch=effective_batch_size(attempt.values) if attempt.text else None,
        )

    def path(self, attempt: HealAttempt) -> Path | None:
        """The YAML that the attempt trains with."""
        return self.launch.config if attempt.number == 1 else self._yaml_path(attempt)

    def _yaml_path(self, attempt: HealAttempt) -> Path:
        """attempt-K.yaml; another name if the user's own config has this one (it was written by an earlier healing)."""
        path = self.folder / f"attempt-{attempt.number}.yaml"
        given = self.launch.config
        return path.with_suffix(".new.yaml") if given is not None and given.resolve() == path.resolve() else path

    def command(self, attempt: HealAttempt) -> str:
        """The command that starts the attempt by hand; secrets masked."""
        path = self.path(attempt)
        words = self.launch.command if attempt.number == 1 or path is None else self.launch.with_config(path)
        return " ".join(
            [*(f"{name}={shlex.quote(value)}" for name, value in attempt.env.items()), *(shlex.quote(mask(word)) for word in words)]
        )

    def _announce(self, attempt: HealAttempt) -> None:
        self._say(lines(attempt, self.lang))

    def dry(self, evidence: Sequence[Path]) -> list[str]:
        """What would be done about the failure in the evidence, as lines; starts and writes nothing."""
        attempt = self.ledger.attempts[0]
        config = self.launch.config
        attempt.report = partial(self._analyze, lang=self.lang)(list(evidence), config=config)
        attempt.hooked = any(path.name == "lfdoctor.jsonl" for path in evidence)
        root = attempt.root
        if attempt.report.verdict in ("healthy", "undecided") or (root is None and attempt.report.run.status == "completed"):
            return [catalogue.text("healing.nothing_failed").get(self.lang), f"attempt 1: {self.command(attempt)}"]
        next_attempt = self.ledger.next_attempt(attempt)
        if isinstance(next_attempt, Text):
            return [next_attempt.get(self.lang)]
        return [*([root.title] if root else []), *lines(next_attempt, self.lang), f"$ {self.command(next_attempt)}"]


def lines(attempt: HealAttempt, lang: str) -> list[str]:
    """An attempt as lines: why, what changes, where it starts."""
    start = (
        catalogue.text("healing.resumes", path=attempt.resume.path, redone=attempt.redone or 0)
        if attempt.resume
        else catalogue.text("healing.starts_anew", redone=attempt.redone or 0)
    )
    head = f"attempt {attempt.number}: {attempt.why.get(lang)}"
    changes = [
        f"  {'' if change.target == 'config' else change.target + ' '}{change.key}: "
        f"{plain(change.old, change.key)} -> {plain(change.new, change.key)}"
        for change in attempt.changes
    ]
    return [head, *changes, f"  {start.get(lang)} (output_dir: {attempt.values.get('output_dir')})"]
