"""The chosen remedies as one patch: what a safe restart needs is added, then everything is written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from doctor.config.options import effective, effective_batch_size
from doctor.config.patch import Change, Patch, joined
from doctor.planner import launching, writing
from doctor.planner.situation import next_name
from doctor.planner.types import ConfigText, PlannedPatch
from doctor.rulebook.model import Remedy
from doctor.support.texts import Text
from doctor.words import catalogue

if TYPE_CHECKING:
    from doctor.planner.plan import PatchPlanner

RESTORED = ("learning_rate", "lr_scheduler_type", "warmup_steps", "warmup_ratio", "lora_rank", "finetuning_type", "optim", "deepspeed")
"""Keys that a resumed run takes from its checkpoint or cannot change (hparams/parser.py 484-500, transformers' trainer.py)."""
DURING_TRAINING = ("out_of_memory", "loss_spike", "divergence", "nonfinite", "overfitting", "plateau", "gradient", "slow")
"""Symptoms that only a training shows."""
BEFORE_TRAINING = ("start", "tokenise", "load")
"""Phases in which no checkpoint has been saved yet."""


class PatchWriter:
    """Writes the patch of a finished plan."""

    def __init__(self, plan: PatchPlanner) -> None:
        self.plan = plan

    def patch(self, source: ConfigText | None) -> PlannedPatch:
        """The chosen changes and those of a safe restart, written out."""
        notes = self.safety_changes()
        changes = self._one_precision(joined(self.plan.start.config, self.plan.changes))
        text, more = writing.patched_text(source, changes, self.plan.because) if source else (None, [])
        remedies = [remedy for taken in self.plan.taken.values() for remedy, _ in taken.steps]
        packages = writing.packages(remedies)
        notes += [*more, *([catalogue.text("planner.install", packages=" ".join(packages))] if packages else [])]
        notes += writing.deepspeed_notes(changes, self.plan.situation.config)
        notes += self._command_line_notes(changes) if text is not None and self.plan.launch is None else []
        notes += [] if self.plan.start.config_known else [catalogue.text("planner.no_config")]
        batch = self._effective_batch()
        if batch and batch[0] != batch[1]:
            notes.append(catalogue.text("planner.batch_changes", before=batch[0], after=batch[1]))
        by_options = self.plan.launch is not None and self.plan.launch.has_options
        file = writing.patched_name(source.path) if source and text is not None and not by_options else None
        command = None
        if launching.is_llamafactory(self.plan.run, self.plan.launch):
            command = launching.next_command(self.plan.launch, changes, self.plan.situation.config, source.path if source else None, file)
        return PlannedPatch(
            patch=Patch(changes, {change.key: self.plan.because[change.key] for change in changes if change.key in self.plan.because}),
            source=source.path if source else None,
            yaml=text,
            diff=writing.unified_diff(source.path, source.text, text) if source and text is not None else None,
            overrides=launching.overrides(changes),
            command=command,
            file=file,
            packages=packages,
            options=self._options(),
            notes=tuple(dict.fromkeys(notes)),
            memory=self.plan.predictor.memory(self.plan.situation) if self.plan.predictor else None,
            effective_batch=batch,
            speed=_speed(remedies),
        )

    def _one_precision(self, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """Where no config was read, the other half precision is switched off with the one that is set: LLaMA-Factory refuses both."""
        sets = {change.key: change.new for change in changes if change.target == "config"}
        others = [other for key, other in (("bf16", "fp16"), ("fp16", "bf16")) if sets.get(key) is True and other not in sets]
        if self.plan.start.config_known or not others:
            return changes
        return (*changes, *(Change("config", "set", other, None, False) for other in others))

    def _options(self) -> tuple[str, ...]:
        """What the user said besides the run's files, as options of the command line."""
        memory = self.plan.gpu_memory_gib
        return (
            *(("--gpu-memory", f"{memory:g}") if memory is not None else ()),
            *(("--strategy", self.plan.strategy) if self.plan.strategy != "least-change" else ()),
        )

    def safety_changes(self) -> list[Text]:
        """A new output_dir (never the auto-resume trap), a new tokenised dataset, no resuming with changed states."""
        notes = []
        changed = {change.key for change in self.plan.changes if change.target == "config"}
        config = self.plan.situation.config
        if config.get("resume_from_checkpoint") and changed & set(RESTORED):
            self._add(Change("config", "unset", "resume_from_checkpoint", config["resume_from_checkpoint"], None))
            notes.append(catalogue.text("planner.no_resume"))
        resumes = bool(self.plan.situation.config.get("resume_from_checkpoint"))
        restarts = self._began() and not resumes and "output_dir" not in changed and not self.plan.foreign  # only LLaMA-Factory resumes
        if restarts and not config.get("output_dir"):
            notes.append(catalogue.text("planner.other_folder"))
        elif restarts:
            path = next_name(config["output_dir"])
            self._add(Change("config", "set", "output_dir", config.get("output_dir"), path))
            notes.append(catalogue.text("planner.new_folder", path=path))
        if config.get("tokenized_path") and "tokenized_path" not in changed and changed & set(writing.DATA_KEYS):
            path = next_name(config["tokenized_path"])
            self._add(Change("config", "set", "tokenized_path", config["tokenized_path"], path))
            notes.append(catalogue.text("planner.first_tokenise", path=path))
        if any(taken.enough is False for taken in self.plan.taken.values()):
            notes.append(catalogue.text("planner.not_enough"))
        memory = any(taken.rule.symptom == "out_of_memory" for taken in self.plan.taken.values())
        if memory and self.plan.predictor is None and self.plan.strategy == "least-change":
            notes.append(catalogue.text("planner.no_prediction"))
        return notes

    def _add(self, change: Change) -> None:
        self.plan.changes.append(change)
        self.plan.because[change.key] = "safe-patch"
        self.plan.situation = self.plan.situation.after([change])

    def _began(self) -> bool:
        """Whether the failed run may have saved a checkpoint: it trained, or failed in a way that only a training can."""
        run = self.plan.run
        if run.last_step is not None or run.facts.get("run.started_training") or run.completed:
            return True
        if run.seen <= {"ConfigSeen", "Fact"}:
            return False
        return any(taken.rule.symptom in DURING_TRAINING and taken.phase not in BEFORE_TRAINING for taken in self.plan.taken.values())

    def _command_line_notes(self, changes: Sequence[Change]) -> list[Text]:
        """Keys that the command line sets too, if the command itself is not known and so cannot be written without them."""
        keys = [change.key for change in changes if change.target == "config" and self.plan.run.origin(change.key) == "command"]
        return [catalogue.text("planner.on_command_line", key=key) for key in keys]

    def _effective_batch(self) -> tuple[int, int] | None:
        """Samples per optimizer step before and after; None without a config: defaults are no fact about this run."""
        if (
            not self.plan.start.config_known
            and not {"per_device_train_batch_size", "gradient_accumulation_steps"} <= self.plan.run.config.keys()
        ):
            return None
        world = self.plan.run.facts.get("world_size") or 1
        batches = [
            effective_batch_size(effective(at.config, at.facts), world if isinstance(world, int) else 1)
            for at in (self.plan.start, self.plan.situation)
        ]
        return (batches[0], batches[1]) if batches[0] is not None and batches[1] is not None else None


def _speed(remedies: Sequence[Remedy]) -> Text | None:
    """The costs of the neutral remedies, in their own words."""
    costs = list(dict.fromkeys(remedy.cost for remedy in remedies if remedy.effect == "neutral" and remedy.cost))
    return catalogue.concatenate(costs) if costs else None
