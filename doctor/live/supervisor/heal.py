"""`lfdoctor run --heal N`: a failed training is analyzed, patched and started again from a safe checkpoint, until it finishes."""

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
from doctor.live.supervisor import ledger as book
from doctor.live.supervisor.hang_detector import SILENCE_BEFORE_DUMP_SECONDS
from doctor.live.supervisor.launch import Launch
from doctor.live.supervisor.ledger import Attempt, Ledger
from doctor.live.supervisor.watched_run import Listeners, Outcome
from doctor.privacy.secrets import mask, plain
from doctor.report.model import AttemptView, ChangeView, Report
from doctor.support.texts import Text
from doctor.words import catalogue

HUNG_SECONDS = 1800.0
"""LLaMA-Factory's ddp_timeout is 5 years (180000000 s): without a limit of ours a hung rank would hang an unattended run for good."""


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
        order: book.Order | None = None,
        silence: float = HUNG_SECONDS,
        ask: float = SILENCE_BEFORE_DUMP_SECONDS,
        env: Mapping[str, str] = {},
        ears: Listeners = Listeners(),  # noqa: B008  frozen
    ) -> None:
        self._ears, self._ask, self._env = ears, ask, dict(env)
        self.launch, self.folder, self.lang, self._silence = Launch.of(command), folder, lang, silence
        self._analyze, self._began = analyze, time.time()
        first = Attempt(number=1, text=self.launch.text)
        first.resume = book.given_checkpoint(first.values)
        self.ledger = Ledger(first, folder, restarts, order)

    def run(self) -> Outcome:
        """Starts attempts until one finishes, or none is left to try. Raises DoctorError (2) if nothing can be started or written."""
        attempt, warned = self.ledger.attempts[0], []
        while True:
            outcome = self._watched(attempt)
            warned += outcome.warned
            decision = self._next(attempt, outcome)
            report = self._told(outcome, decision if isinstance(decision, Text) else None)
            if isinstance(decision, Text):
                return msgspec.structs.replace(outcome, code=outcome.code or int(attempt.lost), report=report, warned=warned)
            self._announce(decision)
            self._make_room(decision)
            attempt = decision

    def _next(self, attempt: Attempt, outcome: Outcome) -> Attempt | Text:
        if outcome.code == 0 and not attempt.lost:
            return catalogue.text("healing.healed")
        if outcome.asked_to_stop:
            return catalogue.text("healing.interrupted")
        return self.ledger.next_attempt(attempt)

    def _watched(self, attempt: Attempt) -> Outcome:
        folder, config = self.folder / f"attempt-{attempt.number}", self.launch.config
        if attempt.number > 1 or self.launch.overridden:
            config = self.write(attempt)
        outcome = watched_run.run(
            self.launch.with_config(config) if attempt.number > 1 and config else self.launch.command,
            folder,
            stop_on_divergence=True,
            lang=self.lang,
            analyze=self._analyze,
            env={**self._env, **attempt.env, **({} if attempt.keep_rate else {"LFDOCTOR_SET_RATE": "1"})},
            config=config,
            silence=self._silence,
            ask=self._ask,
            ears=self._ears,
        )
        attempt.code, attempt.report = outcome.code, outcome.report
        journal = folder / "lfdoctor.jsonl"
        attempt.hooked = journal.exists()
        attempt.stopped = attempt.hooked and b'"name":"stopped_by_doctor"' in journal.read_bytes()
        return outcome

    def write(self, attempt: Attempt) -> Path:
        """attempt-K.yaml. Raises DoctorError."""
        path = self.folder / f"attempt-{attempt.number}.yaml"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(attempt.text or "", encoding="utf-8")
        except OSError as error:
            raise DoctorError(f"cannot write {path}: {error.strerror or error}") from error
        return path

    def _make_room(self, attempt: Attempt) -> None:
        """Before a restart on a full disk: what the config's save_total_limit lets go of, of what this healing's own attempts wrote."""
        failed, limit = attempt.parent, attempt.values.get("save_total_limit")
        if failed is None or failed.root is None or failed.root.cause != "disk_full" or type(limit) is not int or limit < 1:
            return
        gone = checkpoints.make_room(Path(str(failed.values.get("output_dir"))), limit, attempt.resume, self._began)
        print(
            f"lfdoctor: {catalogue.text('healing.made_room', count=len(gone), limit=limit).in_language(self.lang)}",
            file=sys.stderr,
            flush=True,
        )

    def _told(self, outcome: Outcome, word: Text | None) -> Report | None:
        """The last attempt's report with the lineage; written after every attempt, so that it is there whatever happens to us."""
        if outcome.report is None:
            return None
        views = [self.view(one) for one in self.ledger.attempts if one.report is not None]
        healing = word.in_language(self.lang) if word and (len(views) > 1 or word != catalogue.text("healing.healed")) else None
        report = msgspec.structs.replace(outcome.report, attempts=views, healing=healing)
        try:
            watched_run.save(report, self.folder / "report.json")
        except OSError as error:
            print(f"lfdoctor: {self.folder}: {error.strerror or error}", file=sys.stderr)
        return report

    def view(self, attempt: Attempt) -> AttemptView:
        """One row of the lineage."""
        root = attempt.root
        failed = attempt.code != 0 or attempt.lost
        interrupted = attempt.report is not None and attempt.report.run.status == "interrupted"
        return AttemptView(
            number=attempt.number,
            outcome="interrupted" if interrupted else "finished" if not failed else "failed" if attempt.code else "stopped",
            code=attempt.code,
            why=attempt.why.in_language(self.lang),
            changes=[ChangeView(one.target, one.op, one.key, plain(one.old, one.key), plain(one.new, one.key)) for one in attempt.changes],
            config=str(self.path(attempt) or "") or None,
            command=self.command(attempt),
            resumed_from=str(attempt.resume.path) if attempt.resume else None,
            redone=attempt.redone,
            cause=root.cause if failed and root else None,
            title=root.title if failed and root else None,
            last_step=attempt.last_step or None,
            effective_batch=effective_batch_size(attempt.values) if attempt.text else None,
        )

    def path(self, attempt: Attempt) -> Path | None:
        """The YAML that the attempt trains with."""
        return self.launch.config if attempt.number == 1 else self.folder / f"attempt-{attempt.number}.yaml"

    def command(self, attempt: Attempt) -> str:
        """What is typed to start the attempt by hand; secrets masked."""
        path = self.path(attempt)
        words = self.launch.command if attempt.number == 1 or path is None else self.launch.with_config(path)
        return " ".join(
            [*(f"{name}={shlex.quote(value)}" for name, value in attempt.env.items()), *(shlex.quote(mask(one)) for one in words)]
        )

    def _announce(self, attempt: Attempt) -> None:
        for line in lines(attempt, self.lang):
            print(f"lfdoctor: {line}", file=sys.stderr, flush=True)
        self._ears.tell("\n".join(lines(attempt, self.lang)))

    def dry(self, evidence: Sequence[Path]) -> list[str]:
        """What would be done, line by line, for the failure that the evidence tells of; nothing is started or written."""
        attempt = self.ledger.attempts[0]
        config = self.launch.config
        attempt.report = partial(self._analyze, lang=self.lang)(list(evidence), config=config)
        attempt.hooked = any(path.name == "lfdoctor.jsonl" for path in evidence)
        root = attempt.root
        if attempt.report.healthy or (root is None and attempt.report.run.status == "completed"):
            return [catalogue.text("healing.nothing_failed").in_language(self.lang), f"attempt 1: {self.command(attempt)}"]
        next_attempt = self.ledger.next_attempt(attempt)
        if isinstance(next_attempt, Text):
            return [next_attempt.in_language(self.lang)]
        return [*([root.title] if root else []), *lines(next_attempt, self.lang), f"$ {self.command(next_attempt)}"]


def lines(attempt: Attempt, lang: str) -> list[str]:
    """An attempt in words: why, what changes, from where it goes on."""
    start = (
        catalogue.text("healing.resumes", path=attempt.resume.path, redone=attempt.redone or 0)
        if attempt.resume
        else catalogue.text("healing.starts_anew", redone=attempt.redone or 0)
    )
    head = f"attempt {attempt.number}: {attempt.why.in_language(lang)}"
    changes = [
        f"  {'' if one.target == 'config' else one.target + ' '}{one.key}: {plain(one.old, one.key)} -> {plain(one.new, one.key)}"
        for one in attempt.changes
    ]
    return [head, *changes, f"  {start.in_language(lang)} (output_dir: {attempt.values.get('output_dir')})"]
