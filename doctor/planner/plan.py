"""Findings, config and memory estimate -> the status of every remedy, and one patch that the config rules accept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from doctor.config.options import options_from_facts
from doctor.config.patch import Change, joined
from doctor.core.run import Run
from doctor.planner import search
from doctor.planner.admission import refusal, runs_on_npu, shards_by_fsdp
from doctor.planner.assembly import PatchWriter
from doctor.planner.elsewhere import told_for
from doctor.planner.launching import Launch
from doctor.planner.prediction import Predictor, filled_by_something_else
from doctor.planner.situation import Situation, advise, external_settings, has_config, only_removes
from doctor.planner.types import Advice, ConfigText, Memory, Plan, PlannedPatch, PreviousAttempt, Program, Status, Strategy
from doctor.rulebook.findings import Finding, RankedFinding
from doctor.rulebook.model import Guide, Remedy, Rule, Rulebook
from doctor.support.texts import Text
from doctor.words import catalogue

__all__ = ["Advice", "ConfigText", "Memory", "Plan", "PlannedPatch", "PreviousAttempt", "Program", "Status", "Strategy", "plan"]

MIN_PATCH_CONFIDENCE = 0.5
"""Findings below get no patch: a bare `Killed` proves nothing."""
SECTION_OF = {
    "out_of_memory": "memory",
    "loss_spike": "instability",
    "divergence": "instability",
    "nonfinite": "instability",
    "slow": "speed",
}
"""Symptom -> the chapter of the guide whose steps are all shown, besides those that the rule names itself."""
STEPWISE = ("out_of_memory", "loss_spike", "divergence", "nonfinite", "overfitting", "plateau", "gradient", "slow", "killed")
"""Symptoms whose remedies are tried one after the other; for others they are alternatives."""
_MORE_MEMORY = Remedy(id="more-memory", text=catalogue.text("planner.more_memory"), effect="manual")
"""What is left where no set of options is predicted to fit."""


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
    program: Program = "llamafactory",
) -> Plan:
    """Every remedy's status, and one patch for the root cause (and what agrees with it).

    `previous_attempts` are attempts of the same job that failed from the same cause: what they had already is not proposed again.
    `launch` is how the run was started, if that was read. Without `checkpoint_seen` nothing is resumed. `program`: whose program ran.
    """
    judged = told_for(program, judged)
    work = PatchPlanner(
        run, book, strategy, gpu_memory_gib, previous_attempts, launch=launch, checkpoint_seen=checkpoint_seen, foreign=program == "other"
    )
    work.believe(judged)
    order = sorted(range(len(judged)), key=lambda place: judged[place].role != "root")
    for place in order:
        work.choose(judged[place])
    advice = tuple(work.advice(ranked) for ranked in judged)
    return Plan(advice, PatchWriter(work).patch(config_text) if work.changes else None)


class _Taken(msgspec.Struct):
    """A finding whose remedies are in the patch, and the phase it happened in; `enough`: whether they are predicted to suffice."""

    rule: Rule
    phase: str | None
    steps: list[tuple[Remedy, tuple[Change, ...]]]
    enough: bool | None


class PatchPlanner:
    """A plan in the making: `start` is the situation of the run, `situation` the one with everything chosen so far."""

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
        foreign: bool = False,
    ) -> None:
        self.foreign = foreign
        self.setting = {"foreign": foreign, "fsdp": shards_by_fsdp(run.config, run.facts), "npu": runs_on_npu(run.facts)}
        self.run, self.book, self.strategy, self.gpu_memory_gib, self.launch = run, book, strategy, gpu_memory_gib, launch
        self.rules = tuple(rule for rule in book.rules if rule.detector == "config")
        shape = {"completed": run.completed, "first_step": run.first_step, "last_step": run.last_step, "ranks": len(run.ranks)}
        shape["attempts"] = len(run.attempts)
        known = has_config(run)
        config = dict(run.config) if known else {**options_from_facts(run.facts), **run.config}
        self.start = Situation(
            config,
            dict(run.facts),
            shape,
            tuple(previous_attempts),
            config,
            external_settings(run.facts),
            config_known=known,
            checkpoint_seen=checkpoint_seen,
        )
        self.situation = self.start
        self.changes: list[Change] = []
        self.taken: dict[int, _Taken] = {}
        self.because: dict[str, str] = {}
        self.owner: dict[tuple[str, str], Rule] = {}
        self.predictor: Predictor | None = None
        self.too_large: dict[int, Memory] = {}

    def believe(self, judged: Sequence[RankedFinding]) -> None:
        """Where no configuration was read: take the options that the root causes prove for given, so that a remedy can change them."""
        if self.start.config_known:
            return
        roots = [ranked.finding.rule for ranked in judged if ranked.role == "root" and ranked.finding.confidence >= MIN_PATCH_CONFIDENCE]
        proved = {key: value for rule in roots for key, value in rule.proves.items()}
        config = {**proved, **self.start.config}
        self.start = msgspec.structs.replace(self.start, config=config, initial_config=config)
        self.situation = self.start

    def choose(self, judged: RankedFinding) -> None:
        """Add this finding's remedies to the patch, unless it is uncertain or explained; keys that others changed are left to them."""
        if not self._patched(judged):
            return
        rule, facts = judged.finding.rule, judged.finding.first.facts
        admitted = [one for one in rule.remedies if refusal(one, judged.finding, **self.setting) is None]
        free = [remedy for remedy in admitted if not self.conflicting_rule(remedy, rule, facts)]
        chosen = self._chosen(judged, free, facts)
        if chosen is None or not chosen.steps:
            return
        if self._predicted_in_vain(rule, chosen) and self.predictor is not None:
            self.too_large[id(judged.finding)] = self.predictor.memory(chosen.after)
            return
        for remedy, changes in chosen.steps:
            for change in changes:
                self.because[change.key] = f"{rule.id}#{remedy.id}"
                self.owner[change.target, change.key] = rule
            self.changes += changes
        self.situation = chosen.after
        self.taken[id(judged.finding)] = _Taken(rule, facts.get("phase"), chosen.steps, chosen.enough)

    def _predicted_in_vain(self, rule: Rule, chosen: search.Chosen) -> bool:
        """Whether the patch of a full GPU would only fail again; under the guide's strategy one rung is taken whatever is predicted."""
        if all(search.is_direct(remedy) for remedy, _ in chosen.steps):
            return False
        unsure = chosen.enough is False or (chosen.enough is None and rule.symptom == "out_of_memory" and self.strategy == "least-change")
        return unsure and self._too_large(chosen.after)

    def _too_large(self, after: Situation) -> bool:
        """Whether a situation is predicted to need more than the GPU has: such a patch would only fail again."""
        need = self.predictor.after(after) if self.predictor else None
        return need is not None and self.predictor is not None and need > self.predictor.capacity

    def _patched(self, judged: RankedFinding) -> bool:
        """Whether the patch covers this finding: the root cause, other errors, what else is wrong in the config."""
        rule = judged.finding.rule
        if judged.finding.is_note:
            return judged.role == "root"
        if judged.role == "consequence" or judged.finding.severity == "note" or judged.finding.confidence < MIN_PATCH_CONFIDENCE:
            return False
        return judged.role == "root" or rule.severity == "error" or rule.family == "config"

    def _chosen(self, judged: RankedFinding, remedies: list[Remedy], facts: Mapping[str, Any]) -> search.Chosen | None:
        """For a full GPU: what removes the cause itself; else what is predicted to fit; else what may be tried."""
        full_gpu = judged.finding.rule.symptom == "out_of_memory"
        search_for_it = full_gpu and self.predictor is None
        if search_for_it:
            self.predictor = Predictor.for_run(self.situation, facts, self.gpu_memory_gib)
        if not full_gpu or self.strategy == "guide":
            ordered = remedies if self.strategy == "guide" else search.direct_first(remedies)
            return search.next_remedy(ordered, self.situation, facts, self.rules)
        direct = search.next_remedy([one for one in remedies if search.is_direct(one)], self.situation, facts, self.rules)
        if direct is not None:
            return direct
        if search_for_it and self.predictor is not None:
            found = search.same_training_first(remedies, self.situation, facts, self.rules, self.predictor)
            if found is not None:
                return found
            self._note_what_is_in_vain(judged, remedies, facts, self.predictor)
        return search.next_remedy(self._unpredicted(remedies, facts), self.situation, facts, self.rules)

    def _note_what_is_in_vain(self, judged: RankedFinding, remedies: list[Remedy], facts: Mapping[str, Any], predictor: Predictor) -> None:
        """Where even all remedies together are predicted not to fit, the report says how much is missing."""
        best = search.cheapest(remedies, self.situation, facts, self.rules, predictor)
        after = best.after if best else self.situation
        if self._too_large(after):
            self.too_large[id(judged.finding)] = predictor.memory(after)

    def _unpredicted(self, remedies: list[Remedy], facts: Mapping[str, Any]) -> list[Remedy]:
        """What may be tried against a full GPU though no set of remedies was found sufficient: first what keeps the training.

        Whether that is enough cannot be told. So what changes the scope comes only where nothing else applies, and not at all where it
        would free nothing, where something else fills the GPU, where no configuration was read, or full tuning would end.
        """
        if not self.start.config_known:
            return [remedy for remedy in remedies if remedy.effect != "changes_training"]
        same = [remedy for remedy in remedies if not search.changes_scope(remedy)]
        if self.predictor or filled_by_something_else(self.situation, facts, self.gpu_memory_gib):
            return same
        return [*same, *(remedy for remedy in remedies if search.changes_scope(remedy) and not search.changes_method(remedy))]

    def conflicting_rule(self, remedy: Remedy, rule: Rule, facts: Mapping[str, Any]) -> Rule | None:
        """The rule that has set one of this remedy's keys to something else."""
        advice = advise(remedy, self.start, facts, ())
        for change in advice.changes if advice.status == "apply" else ():
            owner = self.owner.get((change.target, change.key))
            if owner is not None and owner is not rule and not self._agreed(change):
                return owner
        return None

    def _agreed(self, change: Change) -> bool:
        last = next(other for other in reversed(self.changes) if (other.target, other.key) == (change.target, change.key))
        return last.op == change.op and bool(last.new == change.new)

    def advice(self, judged: RankedFinding) -> tuple[Advice, ...]:
        """The finding's remedies and the other steps of the same chapter, in the order of the report.

        A warning that is only a note here needs nothing, unless the report is about it.
        """
        rule = judged.finding.rule
        if judged.finding.is_note and judged.role != "root":
            return ()
        named = [self._advice(judged, remedy) for remedy in rule.remedies]
        if id(judged.finding) in self.too_large:
            named.insert(0, Advice(_MORE_MEMORY, "manual", self._needs_more(judged)))
        not_this_cause = catalogue.text("planner.not_this_cause")
        others = [Advice(remedy, "not_applicable", not_this_cause) for remedy in _unnamed_steps(rule, self.book.guide)]
        return in_report_order(named, others)

    def _advice(self, judged: RankedFinding, remedy: Remedy) -> Advice:
        refused = refusal(remedy, judged.finding, **self.setting)
        if refused is not None:
            return Advice(remedy, "not_applicable", refused)
        rule, facts = judged.finding.rule, judged.finding.first.facts
        taken = self.taken.get(id(judged.finding))
        mine = [change for step, changes in (taken.steps if taken else ()) if step is remedy for change in changes]
        if mine:
            return self._in_patch(remedy, joined(self.start.config, mine), facts)
        if not remedy.patch and remedy.keep and self._owns("gradient_accumulation_steps", rule):
            kept = [step for step in joined(self.start.config, self.changes) if step.key == "gradient_accumulation_steps"]
            return Advice(remedy, "apply", catalogue.text("planner.with_step_3"), tuple(kept), chosen=True)
        found = advise(remedy, self.start, facts, self.rules)
        if found.status != "apply":
            return self._of_a_refused_option(found, judged.finding)
        return msgspec.structs.replace(found, **self.rejection_reason(judged, remedy, found))

    def _of_a_refused_option(self, found: Advice, finding: Finding) -> Advice:
        """Where no configuration was read: an option that is to go, and that the refusal itself names, is likely to be set."""
        unread = not self.start.config_known and found.reason == catalogue.text("planner.not_known_set")
        if not unread or finding.rule.family != "config" or not only_removes(found.remedy, finding):
            return found
        return msgspec.structs.replace(found, status="manual", reason=catalogue.text("planner.if_set"))

    def _needs_more(self, judged: RankedFinding) -> Text:
        memory = self.too_large[id(judged.finding)]
        return catalogue.text("planner.too_large", after=memory.after, capacity=memory.capacity)

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
        """Status and reason of an applicable remedy that is not in the patch."""
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
        if judged.finding.confidence < MIN_PATCH_CONFIDENCE:
            return {"reason": catalogue.text("planner.unsure")}
        if id(judged.finding) in self.too_large and found.changes:
            return {"status": "rejected", "reason": self._needs_more(judged)}
        if id(judged.finding) not in self.taken:
            return {"reason": catalogue.text("planner.possible")}
        if self.predictor and remedy.guide_step and judged.finding.rule.symptom == "out_of_memory":
            freed = search.freed_gib(found.changes, self.start, self.predictor)
            if freed is not None and freed < search.MIN_SAVING_GIB:
                return {"status": "not_applicable", "reason": catalogue.text("planner.frees_nothing", gib=max(freed, 0.0))}
        return {
            "reason": catalogue.text("planner.later") if judged.finding.rule.symptom in STEPWISE else catalogue.text("planner.other_way")
        }


def in_report_order(named: Sequence[Advice], other_steps: Sequence[Advice]) -> tuple[Advice, ...]:
    """A rule's remedies and the guide's other steps as the report lists them.

    1. what acts on the cause and is not a step of the guide: first what is in the patch, then what the rule names before any step of
       the guide, if a person has to do it or if no step of the guide is in the patch;
    2. the guide's steps, all of them, in the guide's order;
    3. the other remedies, in the rule's order.

    In each group what only shows more stands behind what cures.
    """
    before_guide = next((place for place, row in enumerate(named) if row.remedy.guide_step), len(named))
    guide_chosen = any(row.chosen and row.remedy.guide_step for row in named)

    def acts_on_cause(place: int, row: Advice) -> bool:
        preferred = row.status == "manual" or (row.status == "apply" and not guide_chosen)
        return row.remedy.guide_step is None and (row.chosen or (place < before_guide and preferred))

    direct = [row for place, row in enumerate(named) if acts_on_cause(place, row)]
    steps = [(row.remedy.guide_step, row) for row in (*named, *other_steps) if row.remedy.guide_step]
    sections = list(dict.fromkeys(section for (section, _), _ in steps))
    guide = [row for _, row in sorted(steps, key=lambda step: (sections.index(step[0][0]), step[0][1]))]
    rest = [row for row in named if row.remedy.guide_step is None and not any(row is other for other in direct)]
    return (
        *sorted(direct, key=lambda row: (not row.chosen, row.remedy.check)),
        *guide,
        *sorted(rest, key=lambda row: row.remedy.check),
    )


def _unnamed_steps(rule: Rule, guide: Guide | None) -> list[Remedy]:
    """The steps of the chapters in question that the rule does not name."""
    named = {remedy.guide_step for remedy in rule.remedies}
    sections = {step[0] for step in named if step} | ({SECTION_OF[rule.symptom]} if rule.symptom in SECTION_OF else set())
    return [
        msgspec.structs.replace(step.remedy, source=f"guide/{step.section}/{step.step}")
        for step in (guide.steps if guide else ())
        if step.section in sections and (step.section, step.step) not in named
    ]
