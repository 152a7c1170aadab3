"""What to do after a failed attempt: which remedy next, from which checkpoint, or why to give up. Decides; starts nothing."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from doctor.config import yaml_edit
from doctor.config.options import effective
from doctor.config.patch import Change, apply
from doctor.live.supervisor import checkpoints
from doctor.live.supervisor.checkpoints import Checkpoint
from doctor.live.supervisor.launch import patched
from doctor.planner.situation import next_name
from doctor.report.model import ChangeView, FindingView, Report
from doctor.support.texts import Text
from doctor.words import catalogue

PATCHES, RETRIES = 4, 3
"""So many patches, and so many restarts without one, are tried for one cause at most."""
LOST = ("divergence", "nonfinite", "zero_loss")
"""Symptoms of a training that may reach its end and is lost all the same."""
OWN_FAULT = ("config", "environment", "data")
"""A patch whose run fails with one of these, where the run before it did not, is taken back."""
_BEFORE = (*LOST, "loss_spike", "gradient")
"""Symptoms that the weights carry on: a checkpoint written after they began is no good."""
RESUMABLE = frozenset(
    {
        "per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size", "eval_accumulation_steps",
        "disable_gradient_checkpointing", "use_unsloth_gc", "flash_attn", "enable_liger_kernel", "quantization_bit", "quantization_method",
        "cutoff_len", "tokenized_path", "max_grad_norm", "torch_empty_cache_steps", "upcast_layernorm", "bf16", "fp16",
        "save_total_limit", "save_steps", "save_strategy", "save_only_model", "eval_steps", "eval_strategy", "logging_steps",
        "logging_nan_inf_filter", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers",
        "dataloader_prefetch_factor", "preprocessing_num_workers", "preprocessing_batch_size", "ddp_timeout", "report_to", "plot_loss",
        "compute_accuracy", "predict_with_generate", "image_max_pixels", "video_max_pixels", "ddp_find_unused_parameters",
    }
)  # fmt: skip
"""Keys that leave shapes, optimizer states, schedule and the order of the data as a checkpoint has them. learning_rate is told apart."""
_SCALES = ("linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts", "inverse_sqrt")
"""Schedules that are a factor of the learning rate (transformers/optimization.py, LambdaLR)."""
_OTHER_OPTIMIZERS = ("use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon", "deepspeed", "fsdp")


class Attempt(msgspec.Struct, kw_only=True):
    """One start of the training: its config (None: the command as given), what it changes and why, and how it ended."""

    number: int
    text: str | None
    env: dict[str, str] = {}
    resume: Checkpoint | None = None
    keep_rate: bool = True
    changes: tuple[Change, ...] = ()
    why: Text = msgspec.field(default_factory=lambda: catalogue.text("healing.as_given"))
    parent: Attempt | None = None
    redone: int | None = None
    code: int = 0
    report: Report | None = None
    stopped: bool = False
    hooked: bool = False

    @property
    def values(self) -> dict[str, Any]:
        """The config of this attempt."""
        return yaml_edit.load(self.text) if self.text else {}

    @property
    def root(self) -> FindingView | None:
        """The finding that is its failure's cause."""
        return next((one for one in self.report.findings if one.role == "root"), None) if self.report else None

    @property
    def last_step(self) -> int:
        """The last step it reached."""
        return (self.report.run.steps.last if self.report else None) or 0

    @property
    def lost(self) -> bool:
        """Whether what it trained is worthless although nothing stopped it."""
        root = self.root
        return self.stopped or (root is not None and root.severity == "error" and root.symptom in LOST)


class Candidate(msgspec.Struct, frozen=True):
    """A remedy, or the planner's whole patch: changes, the rule and remedy behind each key, and its words."""

    changes: tuple[Change, ...]
    because: dict[str, str]
    says: str


Order = Callable[[Attempt], Sequence[Candidate]]


class Ledger:
    """Remembers what was tried. `following` gives the next attempt, or the sentence that says why there is none."""

    def __init__(self, first: Attempt, folder: Path, restarts: int, order: Order | None = None) -> None:
        self.folder, self.restarts = folder, restarts
        self.attempts = [first]
        self._order = order or candidates
        self._tried = {fingerprint(first.values, first.env)}
        self._patches: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._reached: dict[str, int] = {}
        self._unusable: set[Path] = set()

    def next_attempt(self, attempt: Attempt) -> Attempt | Text:
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
        if attempt.parent is not None and _cannot_resume(attempt):
            return self._elsewhere(attempt)
        base = _before_a_bad_patch(attempt)
        if base is attempt and is_transient(attempt) and not _sure(root) and (again := self._again(attempt)) is not None:
            return again
        patched_one = self._patched(base)
        if patched_one is not None:
            return patched_one
        again = self._again(attempt) if is_transient(attempt) and base is attempt else None
        return again if again is not None else _gives_up(base, self._patches[_cause(base)] >= PATCHES)

    def _elsewhere(self, attempt: Attempt) -> Attempt:
        """The same from an older checkpoint, the second time from zero: the one it was to go on from does not load."""
        parent = attempt.parent or attempt
        if attempt.resume is not None:
            known = self._points(parent)
            self._unusable |= {one.path for one in known} if self._unusable else {attempt.resume.path}
        return self.make_attempt(parent, attempt, attempt.text or "", attempt.changes, attempt.env, catalogue.text("healing.elsewhere"))

    def _points(self, attempt: Attempt) -> list[Checkpoint]:
        """The checkpoints that an attempt left or began from, but for those that turned out not to load."""
        points = checkpoints.whole(Path(str(attempt.values.get("output_dir") or "saves/run")))
        points += [attempt.resume] if attempt.resume is not None else []
        return [one for one in points if one.path not in self._unusable]

    def _again(self, attempt: Attempt) -> Attempt | None:
        """The same once more: a failure that nothing explains may pass; not where it came back without any progress."""
        cause = _cause(attempt)
        seen = self._reached.get(cause)
        if self._retries[cause] >= RETRIES or (seen is not None and attempt.last_step <= seen):
            return None
        self._retries[cause] += 1
        self._reached[cause] = attempt.last_step
        return self.make_attempt(attempt, attempt, attempt.text or "", (), attempt.env, catalogue.text("healing.again"))

    def _patched(self, base: Attempt) -> Attempt | None:
        cause = _cause(base)
        if self._patches[cause] >= PATCHES:
            return None
        for one in self._order(base):
            changes = _same_effective_batch(base.values, one.changes)
            env = base.env | {change.key: str(change.new) for change in changes if change.target == "env" and change.op == "set"}
            key = fingerprint(apply(base.values, [change for change in changes if change.target == "config"]), env, changes)
            if key in self._tried:
                continue
            self._tried.add(key)
            self._patches[cause] += 1
            return self.make_attempt(
                base, self.attempts[-1], patched(base.text or "", changes, one.because), changes, env, Text(one.says, one.says, one.says)
            )
        return None

    def make_attempt(
        self, base: Attempt, failed: Attempt, text: str, changes: tuple[Change, ...], env: dict[str, str], why: Text
    ) -> Attempt:
        """The next attempt on `text`: from which checkpoint, into which folder. Never one that LLaMA-Factory would resume unasked."""
        changed = {change.key for change in changes if change.target == "config"}
        point = resume_point(base, changed, self._points(base))
        output = str(base.values.get("output_dir") or "saves/run")
        edits: list[Change] = []
        if "output_dir" not in changed:
            newest = point is not None and point.path.parent == Path(output) and point == max(checkpoints.whole(Path(output)), default=None)
            if not newest and not checkpoints.untouched(Path(output)):
                edits.append(Change("config", "set", "output_dir", output, unused(output)))
        number = self.attempts[-1].number + 1
        if point is not None:
            path = point.path
            if "per_device_train_batch_size" in changed:
                size = yaml_edit.load(text).get("per_device_train_batch_size")
                path = checkpoints.for_batch(point, self.folder / f"resume-{number}" / path.name, int(size)) if size else path
            edits.append(Change("config", "set", "resume_from_checkpoint", None, str(path)))
        elif "resume_from_checkpoint" in yaml_edit.load(text):
            edits.append(Change("config", "unset", "resume_from_checkpoint", None, None))
        attempt = Attempt(
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


def candidates(attempt: Attempt) -> Iterator[Candidate]:
    """The planner's patch, then each single remedy of the root cause that applies: in the report's order, the guide's steps first."""
    report, root = attempt.report, attempt.root
    if report is None or root is None:
        return
    texts = {f"{finding.rule}#{remedy.id}": remedy.text for finding in report.findings for remedy in finding.remedies}
    if report.patch is not None:
        kept = [one for one in report.patch.changes if one.key == "tokenized_path" or report.patch.because.get(one.key) != "safe-patch"]
        names = list(dict.fromkeys(report.patch.because.get(one.key, "") for one in kept))
        yield from _candidate(kept, report.patch.because, " ".join(filter(None, map(texts.get, names))))
    for remedy in root.remedies:
        if remedy.status == "apply" and remedy.changes:
            name = f"{root.rule}#{remedy.id}"
            yield from _candidate(remedy.changes, {one.key: name for one in remedy.changes}, remedy.text)


def _candidate(views: Sequence[ChangeView], because: Mapping[str, str], says: str) -> Iterator[Candidate]:
    """Only what a machine can apply: no launch command, no `<placeholder>`, and resuming is decided elsewhere."""
    usable = [one for one in views if one.key != "resume_from_checkpoint"]
    if usable and not any(one.target == "command" or "<" in str(one.new) or "/path/" in str(one.new) for one in usable):
        changes = tuple(Change(one.target, one.op, one.key, one.old, one.new) for one in usable)  # type: ignore[arg-type]
        yield Candidate(changes, {key: name for key, name in because.items() if any(one.key == key for one in usable)}, says)


def resume_point(attempt: Attempt, changed: set[str], points: list[Checkpoint]) -> Checkpoint | None:
    """The newest of the whole checkpoints from before the trouble, if the changed keys may differ from those it was written with."""
    values = effective(attempt.values, {})
    if values.get("stage") in ("ppo", "rm"):  # LLaMA-Factory does not restore the value head (hparams/parser.py 476, 500)
        return None
    if not changed <= RESUMABLE | {"learning_rate"} or ("learning_rate" in changed and not _rate_can_change(attempt, values)):
        return None
    if "cutoff_len" in changed and (values.get("packing") or values.get("neat_packing") or values.get("stage") == "pt"):
        return None  # another number of samples: the schedule would not fit
    root = attempt.root
    if root is not None and root.symptom in _BEFORE:
        every = values.get("logging_steps")
        window = int(every) if isinstance(every, int | float) and every >= 1 else 1
        onset = root.steps[0] if root.steps else 0
        points = [one for one in points if one.step <= onset - window]
    return max(points, default=None)


def _rate_can_change(attempt: Attempt, values: Mapping[str, Any]) -> bool:
    """Whether our callback can give a resumed optimizer and schedule another rate: it was in there, and both are torch's own."""
    schedule = str(values.get("lr_scheduler_type") or "linear")
    return attempt.hooked and schedule in _SCALES and not any(values.get(key) for key in _OTHER_OPTIMIZERS)


def is_transient(attempt: Attempt) -> bool:
    """Whether the same run may succeed when started again: killed, hung, a card or a network that failed, or nobody knows why."""
    root = attempt.root
    if root is None or root.symptom in ("killed", "stall") or root.cause == "hub_unreachable":
        return True
    started = attempt.last_step > 0
    return started and (root.symptom == "nonfinite" or root.family in ("distributed", "device") or root.cause == "unknown")


def _sure(root: FindingView | None) -> bool:
    return root is not None and root.confidence >= 0.5 and root.cause != "unknown"


def _cause(attempt: Attempt) -> str:
    return attempt.root.cause if attempt.root else "unknown"


def _before_a_bad_patch(attempt: Attempt) -> Attempt:
    """The attempt to work on: the one before, where this one's patch brought an error of its own."""
    parent, root = attempt.parent, attempt.root
    if parent is None or parent.root is None or root is None or not attempt.changes:
        return attempt
    own = root.symptom in OWN_FAULT and parent.root.symptom not in OWN_FAULT and attempt.last_step <= parent.last_step
    return parent if own and root.cause != parent.root.cause else attempt


def _cannot_resume(attempt: Attempt) -> bool:
    """Whether it failed between loading its checkpoint and the first step, of something that the run before did not fail of."""
    parent = attempt.parent
    no_step = attempt.resume is not None and attempt.last_step <= attempt.resume.step
    return no_step and parent is not None and attempt.code != 0 and _cause(attempt) != _cause(parent)


def _gives_up(attempt: Attempt, spent: bool) -> Text:
    root = attempt.root
    if root is None:
        return catalogue.text("healing.unknown")
    by_hand = next((one.text for one in root.remedies if one.status == "manual"), "")
    return catalogue.text("healing.gives_up_spent" if spent else "healing.gives_up", title=root.title, by_hand=by_hand)


def fingerprint(values: Mapping[str, Any], env: Mapping[str, str], changes: Sequence[Change] = ()) -> str:
    """One text for one way to train: where it writes and where it resumes do not count."""
    told = {key: value for key, value in values.items() if key not in ("output_dir", "resume_from_checkpoint")}
    beside = [[one.target, one.key, one.new] for one in changes if one.target != "config" or one.key == "output_dir"]
    return json.dumps([told, dict(env), beside], sort_keys=True, default=str)


def unused(output: str) -> str:
    """The next folder name of the family that nothing stands under."""
    name = next_name(output)
    while Path(name).exists():
        name = next_name(name)
    return name


def _same_effective_batch(values: Mapping[str, Any], changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """Batch times accumulation stays what it was: a batch that does not divide it is lowered to one that does."""
    sizes = ("per_device_train_batch_size", "gradient_accumulation_steps")
    before, after = effective(dict(values), {}), effective(apply(values, changes), {})
    numbers = [one[key] for one in (before, after) for key in sizes]
    if not all(type(one) is int and one > 0 for one in numbers) or math.prod(numbers[:2]) == math.prod(numbers[2:]):
        return changes
    whole = math.prod(numbers[:2])
    size = max(one for one in range(1, min(numbers[2], whole) + 1) if whole % one == 0)
    rest = tuple(one for one in changes if one.key not in sizes)
    new = (Change("config", "set", key, values.get(key), to) for key, to in zip(sizes, (size, whole // size), strict=True))
    return (*rest, *(one for one in new if one.new != before[one.key]))


def given_checkpoint(values: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint that a config names itself."""
    found = re.fullmatch(r".*checkpoint-(\d{1,12})[/\\]?", str(values.get("resume_from_checkpoint") or ""))
    return Checkpoint(int(found[1]), Path(found[0])) if found else None
