"""Findings, config and memory estimate -> every remedy's status and one patch, checked again by the config rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from doctor.config.options import effective, effective_batch_size
from doctor.config.patch import Change, Patch, joined
from doctor.core.run import Run
from doctor.planner import launching, search, writing
from doctor.planner.launching import Launch
from doctor.planner.prediction import Predictor
from doctor.planner.situation import Situation, advise, external_settings, has_config, next_name
from doctor.planner.types import Advice, ConfigText, Memory, Plan, PlannedPatch, PreviousAttempt, Status, Strategy
from doctor.rulebook.findings import RankedFinding
from doctor.rulebook.model import Guide, Remedy, Rule, Rulebook
from doctor.support.texts import Text
from doctor.words import catalogue

__all__ = ["Advice", "ConfigText", "Memory", "Plan", "PlannedPatch", "PreviousAttempt", "Status", "Strategy", "plan"]

SURE = 0.5
"""Below this confidence a finding is told but not patched for (issue: a bare `Killed` proves nothing)."""
SECTION_OF = {
    "out_of_memory": "memory",
    "loss_spike": "instability",
    "divergence": "instability",
    "nonfinite": "instability",
    "slow": "speed",
}
"""The chapter of the guide whose steps are all shown for a symptom, beside those that the rule names itself."""
LADDERS = ("out_of_memory", "loss_spike", "divergence", "nonfinite", "overfitting", "plateau", "gradient", "slow", "killed")
"""Symptoms whose remedies are taken one after the other; elsewhere they are different ways to the same end."""
RESTORED = ("learning_rate", "lr_scheduler_type", "warmup_steps", "warmup_ratio", "lora_rank", "finetuning_type", "optim", "deepspeed")
"""What a resumed run takes from its checkpoint, or cannot change (facts of hparams/parser.py 484-500 and transformers' trainer)."""


def plan(
    judged: Sequence[RankedFinding],
    run: Run,
    book: Rulebook,
    *,
    strategy: Strategy = "least-change",
    gpu_memory_gib: float | None = None,
    config_text: ConfigText | None = None,
    previous_attempts: Sequence[PreviousAttempt] = (),
    launch: Launch | None = None,
    checkpoint_seen: bool = True,
) -> Plan:
    """Every remedy's status, and one patch for the root cause (and what agrees with it).

    `previous_attempts` are attempts of the same job that failed from the same cause: what they had already is not proposed again.
    `launch` is how the run was started, if that was read. Without `checkpoint_seen` nothing is resumed.
    """
    work = PatchPlanner(run, book, strategy, gpu_memory_gib, previous_attempts, launch=launch, checkpoint_seen=checkpoint_seen)
    order = sorted(range(len(judged)), key=lambda place: judged[place].role != "root")
    for place in order:
        work.choose(judged[place])
    advice = tuple(work.advice(one) for one in judged)
    return Plan(advice, work.patch(config_text) if work.changes else None)


class _Taken(msgspec.Struct):
    """A finding whose remedies are in the patch."""

    rule: Rule
    steps: list[tuple[Remedy, tuple[Change, ...]]]
    enough: bool | None


class PatchPlanner:
    """The plan while it is made: `situation` is the config with all that was chosen so far."""

    def __init__(
        self,
        run: Run,
        book: Rulebook,
        strategy: Strategy,
        gpu_memory_gib: float | None,
        previous_attempts: Sequence[PreviousAttempt],
        *,
        launch: Launch | None,
        checkpoint_seen: bool,
    ) -> None:
        self.run, self.book, self.strategy, self.gpu_memory_gib, self.launch = run, book, strategy, gpu_memory_gib, launch
        self.rules = tuple(rule for rule in book.rules if rule.detector == "config")
        shape = {"completed": run.completed, "first_step": run.first_step, "last_step": run.last_step, "ranks": len(run.ranks)}
        shape["attempts"] = len(run.attempts)
        self.start = Situation(
            dict(run.config),
            dict(run.facts),
            shape,
            tuple(previous_attempts),
            dict(run.config),
            external_settings(run.facts),
            config_known=has_config(run),
            checkpoint_seen=checkpoint_seen,
        )
        self.situation = self.start
        self.changes: list[Change] = []
        self.taken: dict[int, _Taken] = {}
        self.because: dict[str, str] = {}
        self.owner: dict[tuple[str, str], Rule] = {}
        self.predictor: Predictor | None = None

    def choose(self, judged: RankedFinding) -> None:
        """Takes what this finding needs into the patch, unless it is unsure or explained; what others changed already is left to them."""
        if not self._patched(judged):
            return
        rule, facts = judged.finding.rule, judged.finding.first.facts
        free = [remedy for remedy in rule.remedies if not self.conflicting_rule(remedy, rule, facts)]
        chosen = self._chosen(judged, free, facts)
        if chosen is None or not chosen.steps:
            return
        for remedy, changes in chosen.steps:
            for change in changes:
                self.because[change.key] = f"{rule.id}#{remedy.id}"
                self.owner[change.target, change.key] = rule
            self.changes += changes
        self.situation = chosen.after
        self.taken[id(judged.finding)] = _Taken(rule, chosen.steps, chosen.enough)

    def _patched(self, judged: RankedFinding) -> bool:
        """The root cause is; beside it what else is an error, and what else is wrong in the config."""
        rule = judged.finding.rule
        if judged.role == "consequence" or rule.severity == "note" or judged.finding.confidence < SURE:
            return False
        return judged.role == "root" or rule.severity == "error" or rule.family == "config"

    def _chosen(self, judged: RankedFinding, remedies: list[Remedy], facts: Mapping[str, Any]) -> search.Chosen | None:
        if judged.finding.rule.symptom == "out_of_memory" and self.predictor is None:
            self.predictor = Predictor.for_run(self.situation, facts, self.gpu_memory_gib)
            if self.predictor is not None and self.strategy == "least-change":
                found = search.cheapest(remedies, self.situation, facts, self.rules, self.predictor)
                if found is not None:
                    return found
        ordered = remedies if self.strategy == "guide" else search.direct_first(remedies)
        return search.next_remedy(ordered, self.situation, facts, self.rules)

    def conflicting_rule(self, remedy: Remedy, rule: Rule, facts: Mapping[str, Any]) -> Rule | None:
        """The finding that has changed one of this remedy's keys otherwise."""
        advice = advise(remedy, self.start, facts, ())
        for change in advice.changes if advice.status == "apply" else ():
            owner = self.owner.get((change.target, change.key))
            if owner is not None and owner is not rule and not self._agreed(change):
                return owner
        return None

    def _agreed(self, change: Change) -> bool:
        last = next(one for one in reversed(self.changes) if (one.target, one.key) == (change.target, change.key))
        return last.op == change.op and bool(last.new == change.new)

    def advice(self, judged: RankedFinding) -> tuple[Advice, ...]:
        """The finding's remedies and the guide's other steps of the same chapter, the guide's first and in its order."""
        rule = judged.finding.rule
        out = [self._advice(judged, remedy) for remedy in rule.remedies]
        out += [
            Advice(remedy, "not_applicable", catalogue.text("planner.not_this_cause")) for remedy in _unnamed_steps(rule, self.book.guide)
        ]
        sections = list(dict.fromkeys(one.remedy.guide_step[0] for one in out if one.remedy.guide_step))
        guide = [one for one in out if one.remedy.guide_step]
        guide.sort(
            key=lambda one: (sections.index(one.remedy.guide_step[0]), one.remedy.guide_step[1]) if one.remedy.guide_step else (0, 0)
        )
        return (*guide, *(one for one in out if not one.remedy.guide_step))

    def _advice(self, judged: RankedFinding, remedy: Remedy) -> Advice:
        rule, facts = judged.finding.rule, judged.finding.first.facts
        taken = self.taken.get(id(judged.finding))
        mine = [change for one, changes in (taken.steps if taken else ()) if one is remedy for change in changes]
        if mine:
            return self._in_patch(remedy, joined(self.start.config, mine), facts)
        if not remedy.patch and remedy.keep and self._owns("gradient_accumulation_steps", rule):
            kept = [one for one in joined(self.start.config, self.changes) if one.key == "gradient_accumulation_steps"]
            return Advice(remedy, "apply", catalogue.text("planner.with_step_3"), tuple(kept), chosen=True)
        found = advise(remedy, self.start, facts, self.rules)
        if found.status != "apply":
            return found
        return msgspec.structs.replace(found, **self.rejection_reason(judged, remedy, found))

    def _owns(self, key: str, rule: Rule) -> bool:
        return self.owner.get(("config", key)) is rule

    def _in_patch(self, remedy: Remedy, changes: tuple[Change, ...], facts: Mapping[str, Any]) -> Advice:
        freed = search.freed_gib(changes, self.start, self.predictor) if self.predictor else None
        reason = (
            catalogue.text("planner.frees", gib=freed)
            if freed is not None and freed >= search.MIN_SAVING_GIB
            else catalogue.text("planner.chosen")
        )
        return Advice(remedy, "apply", reason, changes, chosen=True)

    def rejection_reason(self, judged: RankedFinding, remedy: Remedy, found: Advice) -> dict[str, Any]:
        """Status and reason of a remedy that could be applied but is not in the patch."""
        if judged.role == "consequence":
            return {"status": "not_applicable", "reason": catalogue.text("planner.consequence", rule=judged.explained_by or "")}
        other = self.conflicting_rule(remedy, judged.finding.rule, judged.finding.first.facts)
        if other is not None:
            return {"status": "conflict", "reason": catalogue.text("planner.conflict", title=other.title)}
        owners = [self.owner.get((change.target, change.key)) for change in found.changes]
        if found.changes and all(owners) and owners[0] is not None and owners[0] is not judged.finding.rule:
            return {"reason": catalogue.text("planner.shared", title=owners[0].title), "chosen": True}
        failed = self.start.after(found.changes).failed_before()
        if failed is not None:
            return {"status": "rejected", "reason": catalogue.text("planner.tried", run=failed.run)}
        if judged.finding.confidence < SURE:
            return {"reason": catalogue.text("planner.unsure")}
        if id(judged.finding) not in self.taken:
            return {"reason": catalogue.text("planner.possible")}
        if self.predictor and remedy.guide_step and judged.finding.rule.symptom == "out_of_memory":
            freed = search.freed_gib(found.changes, self.start, self.predictor)
            if freed is not None and freed < search.MIN_SAVING_GIB:
                return {"status": "not_applicable", "reason": catalogue.text("planner.frees_nothing", gib=max(freed, 0.0))}
        return {
            "reason": catalogue.text("planner.later") if judged.finding.rule.symptom in LADDERS else catalogue.text("planner.other_way")
        }

    def patch(self, source: ConfigText | None) -> PlannedPatch:
        """All that was chosen, with what a safe patch needs beside it, written out."""
        notes = self.safety_changes()
        changes = joined(self.start.config, self.changes)
        text, more = writing.patched_text(source, changes, self.because) if source else (None, [])
        remedies = [remedy for taken in self.taken.values() for remedy, _ in taken.steps]
        packages = writing.packages(remedies)
        notes += [*more, *([catalogue.text("planner.install", packages=" ".join(packages))] if packages else [])]
        notes += writing.deepspeed_notes(changes, self.situation.config)
        notes += self._command_line_notes(changes) if text is not None and self.launch is None else []
        notes += [] if self.start.config_known else [catalogue.text("planner.no_config")]
        batch = self._effective_batch()
        if batch and batch[0] != batch[1]:
            notes.append(catalogue.text("planner.batch_changes", before=batch[0], after=batch[1]))
        by_options = self.launch is not None and self.launch.has_options
        file = writing.patched_name(source.path) if source and text is not None and not by_options else None
        command = None
        if launching.is_llamafactory(self.run, self.launch):
            command = launching.next_command(self.launch, changes, self.situation.config, source.path if source else None, file)
        return PlannedPatch(
            patch=Patch(changes, {change.key: self.because[change.key] for change in changes if change.key in self.because}),
            source=source.path if source else None,
            yaml=text,
            diff=writing.unified_diff(source.path, source.text, text) if source and text is not None else None,
            overrides=launching.overrides(changes),
            command=command,
            file=file,
            packages=packages,
            notes=tuple(dict.fromkeys(notes)),
            memory=self.predictor.memory(self.situation) if self.predictor else None,
            effective_batch=batch,
            speed=_speed(remedies),
        )

    def safety_changes(self) -> list[Text]:
        """A new output_dir (never the auto-resume trap), a new tokenised dataset, no resuming with changed states."""
        notes = []
        changed = {change.key for change in self.changes if change.target == "config"}
        config = self.situation.config
        if config.get("resume_from_checkpoint") and changed & set(RESTORED):
            self._add(Change("config", "unset", "resume_from_checkpoint", config["resume_from_checkpoint"], None))
            notes.append(catalogue.text("planner.no_resume"))
        resumes = bool(self.situation.config.get("resume_from_checkpoint"))
        if self._began() and not resumes and "output_dir" not in changed:
            path = next_name(config.get("output_dir") or "saves/run")
            self._add(Change("config", "set", "output_dir", config.get("output_dir"), path))
            notes.append(catalogue.text("planner.new_folder", path=path))
        if config.get("tokenized_path") and "tokenized_path" not in changed and changed & set(writing.DATA_KEYS):
            path = next_name(config["tokenized_path"])
            self._add(Change("config", "set", "tokenized_path", config["tokenized_path"], path))
            notes.append(catalogue.text("planner.first_tokenise", path=path))
        if any(taken.enough is False for taken in self.taken.values()):
            notes.append(catalogue.text("planner.not_enough"))
        memory = any(taken.rule.symptom == "out_of_memory" for taken in self.taken.values())
        if memory and self.predictor is None and self.strategy == "least-change":
            notes.append(catalogue.text("planner.no_prediction"))
        return notes

    def _add(self, change: Change) -> None:
        self.changes.append(change)
        self.because[change.key] = "safe-patch"
        self.situation = self.situation.after([change])

    def _began(self) -> bool:
        """Whether there may be an output folder: one is made when training begins; a refused config makes none."""
        if self.run.last_step is not None or self.run.facts.get("run.started_training") or self.run.completed:
            return True
        if self.run.seen <= {"ConfigSeen", "Fact"}:
            return False
        return any(taken.rule.family != "config" for taken in self.taken.values())

    def _command_line_notes(self, changes: Sequence[Change]) -> list[Text]:
        """Keys that the command line sets too, if the command itself is not known and so cannot be written without them."""
        keys = [change.key for change in changes if change.target == "config" and self.run.origin(change.key) == "command"]
        return [catalogue.text("planner.on_command_line", key=key) for key in keys]

    def _effective_batch(self) -> tuple[int, int] | None:
        """Samples per optimizer step before and after; None without a config: defaults are no fact about this run."""
        if not self.start.config_known and not {"per_device_train_batch_size", "gradient_accumulation_steps"} <= self.run.config.keys():
            return None
        world = self.run.facts.get("world_size") or 1
        sizes = [
            effective_batch_size(effective(at.config, at.facts), world if isinstance(world, int) else 1)
            for at in (self.start, self.situation)
        ]
        return (sizes[0], sizes[1]) if sizes[0] is not None and sizes[1] is not None else None


def _unnamed_steps(rule: Rule, guide: Guide | None) -> list[Remedy]:
    """The steps of the chapters concerned that the rule does not name."""
    named = {remedy.guide_step for remedy in rule.remedies}
    sections = {step[0] for step in named if step} | ({SECTION_OF[rule.symptom]} if rule.symptom in SECTION_OF else set())
    return [
        msgspec.structs.replace(step.remedy, source=f"guide/{step.section}/{step.step}")
        for step in (guide.steps if guide else ())
        if step.section in sections and (step.section, step.step) not in named
    ]


def _speed(remedies: Sequence[Remedy]) -> Text | None:
    """What the neutral remedies cost in time: their own words."""
    costs = list(dict.fromkeys(remedy.cost for remedy in remedies if remedy.effect == "neutral" and remedy.cost))
    return catalogue.concatenate(costs) if costs else None
