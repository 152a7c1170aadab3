"""One remedy in one situation: its status, the reason, and whether LLaMA-Factory would accept the result."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from doctor.config.options import drop_facts_about, effective, table
from doctor.config.patch import Change, Unknown, apply, changes_of, fill
from doctor.config.versions import versions_of
from doctor.core.run import Run
from doctor.planner.types import Advice, PreviousAttempt
from doctor.planner.v1 import for_v1
from doctor.rulebook.conditions import Scope, holds
from doctor.rulebook.findings import Finding
from doctor.rulebook.model import Op, Remedy, Rule
from doctor.support.texts import Text
from doctor.words import catalogue

FRESH = {"completed": False, "first_step": None, "last_step": None, "ranks": 0, "attempts": 0}
"""The shape of a run that has not begun: the config rules check a patched config with it."""
_BOOKKEEPING = frozenset({"output_dir", "tokenized_path", "resume_from_checkpoint", "run_name", "logging_dir"})
"""Keys that name folders and runs: two attempts that differ in nothing else are the same."""
_OF_THE_OLD_RUN = ("text", "compute_dtype")
"""Facts that say how far the failed run got; the patched config has not been tried yet."""
_WHOLE_CONFIG = ("yaml", "command", "training_args", "journal", "model_card")
"""Origins that tell of every option, by naming it or by leaving it at its default."""


class Situation(msgspec.Struct, frozen=True):
    """The config as patched so far (given keys only), and what is known of the run.

    `facts` also hold the settings outside the config: `env.NAME`, `command.KEY`, `deepspeed.KEY`. `initial_config` and `initial_settings`
    are those before any patch. Without `config_known` LLaMA-Factory's defaults say nothing about the run.
    """

    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    run_shape: Mapping[str, Any]
    previous_attempts: tuple[PreviousAttempt, ...] = ()
    initial_config: Mapping[str, Any] = {}
    initial_settings: Mapping[str, Any] = {}
    config_known: bool = True
    checkpoint_seen: bool = True

    def scope(self, facts: Mapping[str, Any]) -> Scope:
        """What conditions and placeholders may ask; a match's facts override the run's."""
        known = {**self.facts, **facts}
        values = effective(self.config, known)
        plan = {"output_dir": next_name(values.get("output_dir") or "saves/run")}
        return {"config": values, "written": self.config, "fact": known, "run": self.run_shape, "plan": plan}

    def after(self, changes: Iterable[Change]) -> Situation:
        """The situation after these changes."""
        changes = tuple(changes)
        external = {f"{change.target}.{change.key}": change.new for change in changes if change.target != "config"}
        facts = drop_facts_about(self.facts, {change.key for change in changes if change.target == "config"})
        return msgspec.structs.replace(self, config=apply(self.config, changes), facts={**facts, **external})

    def failed_before(self) -> PreviousAttempt | None:
        """The attempt that already had all of these changes (perhaps more) and still failed; None if there is none.

        A change that only keeps the effective batch size counts only if it is alone.
        """
        if not self.previous_attempts:
            return None
        before, now = effective(self.initial_config, self.facts), effective(self.config, self.facts)
        changed = {key for key in {*self.initial_config, *self.config} if key not in _BOOKKEEPING and before.get(key) != now.get(key)}
        changed = changed - {"gradient_accumulation_steps"} or changed
        external = external_settings(self.facts)
        moved = {key: value for key, value in external.items() if self.initial_settings.get(key) != value}
        if not changed and not moved:
            return None
        return next(
            (attempt for attempt in self.previous_attempts if _had(attempt, changed, now, self.facts) and had_settings(attempt, moved)),
            None,
        )


def has_config(run: Run) -> bool:
    """Whether the run's options were read from a file or command that holds them all; a console prints only some."""
    return any(run.origin(key) in _WHOLE_CONFIG for key in run.config)


def external_settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Settings outside the config that patches may change: `env.NAME`, `command.KEY`, `deepspeed.KEY`."""
    return {key: value for key, value in facts.items() if key.startswith(("env.", "command.", "deepspeed."))}


def _had(attempt: PreviousAttempt, keys: Iterable[str], values: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    theirs = effective(attempt.config, facts)
    return all(theirs.get(key) == values.get(key) for key in keys)


def had_settings(attempt: PreviousAttempt, moved: Mapping[str, Any]) -> bool:
    """Whether the attempt is known to have had these settings."""
    return all(key in attempt.settings and str(attempt.settings[key]) == str(value) for key, value in moved.items())


def next_name(path: str) -> str:
    """A folder name that is not in use: `saves/run` -> `saves/run-fix1` -> `saves/run-fix2`."""
    path = str(path).rstrip("/\\") or "run"
    found = re.fullmatch(r"(.*)-fix(\d+)", path)
    return f"{found[1]}-fix{int(found[2]) + 1}" if found else f"{path}-fix1"


def config_errors(rules: Iterable[Rule], config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Rule]:
    """The config rules of severity error that match this config, by id: what LLaMA-Factory would refuse or fail on."""
    known = {name: value for name, value in facts.items() if not name.startswith("run.") and name not in _OF_THE_OLD_RUN}
    scope: Scope = {"config": effective(config, facts), "written": config, "fact": known, "run": FRESH}
    return {rule.id: rule for rule in rules if rule.severity == "error" and holds(_condition(rule), scope) and holds(rule.where, scope)}


def _condition(rule: Rule) -> Any:
    params = rule.params
    return {**(params.get("all") or {}), **({"any": params["any"]} if params.get("any") is not None else {})}


def advise(remedy: Remedy, situation: Situation, facts: Mapping[str, Any], rules: Iterable[Rule]) -> Advice:
    """Whether the remedy can be applied here, its changes, and if not, the reason."""
    advice = _advise(remedy, situation, facts, rules)
    of_v1 = situation.facts.get("llamafactory.trainer") == "v1" and advice.status != "not_applicable"
    return for_v1(remedy, situation.facts) if of_v1 else advice


def _advise(remedy: Remedy, situation: Situation, facts: Mapping[str, Any], rules: Iterable[Rule]) -> Advice:
    """The same for v0's options."""
    if remedy.excluded is not None:
        return Advice(remedy, "not_applicable", remedy.excluded)
    scope = situation.scope(facts)
    reasons = remedy.reasons
    if remedy.harmful_if is not None and holds(remedy.harmful_if, scope):
        return Advice(remedy, "not_applicable", reasons.get("harmful", catalogue.text("planner.harmful")))
    done = remedy.done_if is not None and holds(remedy.done_if, scope)
    helps = holds(remedy.only_if, scope)
    if not situation.config_known and (done or _scales_unknown(remedy, situation)):
        return _of_an_unread_config(remedy, scope, helps=helps, done=done)
    if not helps:
        if done and "not_applicable" not in reasons:
            return Advice(remedy, "done", reasons.get("done", catalogue.text("planner.done")))
        return Advice(remedy, "not_applicable", reasons.get("not_applicable", catalogue.text("planner.not_here")))
    if done:
        return Advice(remedy, "done", reasons.get("done", catalogue.text("planner.done")))
    try:
        changes = changes_of(remedy, situation.config, scope)
    except Unknown as missing:
        return Advice(remedy, "manual" if remedy.command else "not_applicable", catalogue.text("planner.unknown", name=str(missing)))
    if remedy.effect == "manual" or (not remedy.patch and not remedy.keep):
        return Advice(remedy, "manual", catalogue.text("planner.by_hand"), changes)
    if not changes:
        return _nothing_to_change(remedy) if situation.config_known else _of_an_unread_config(remedy, scope, helps=helps, done=True)
    if not situation.checkpoint_seen and any(change.key == "resume_from_checkpoint" and change.new for change in changes):
        return Advice(remedy, "not_applicable", catalogue.text("planner.no_checkpoint"))
    refused = _refused(situation, changes, facts, rules)
    return Advice(remedy, "rejected", refused, changes) if refused else Advice(remedy, "apply", catalogue.text("planner.possible"), changes)


def _of_an_unread_config(remedy: Remedy, scope: Scope, *, helps: bool, done: bool) -> Advice:
    """A remedy whose options were not read: left to the user, unless LLaMA-Factory's default is what a change of the training would set."""
    sets, scales = any(op.set for op in remedy.patch), any(op.scale for op in remedy.patch)
    if helps and (sets or (scales and (remedy.effect == "neutral" or not done))):
        return Advice(remedy, "manual", catalogue.text("planner.unless_set"), _written(remedy, scope))
    return Advice(remedy, "not_applicable", catalogue.text("planner.not_known_set"))


def only_removes(remedy: Remedy, finding: Finding) -> bool:
    """Whether all that the remedy does is to remove options of which the finding's evidence names one."""
    told = " ".join(piece.text for piece in finding.evidence)
    named = any(fill(key, {"fact": finding.first.facts}) in told for op in remedy.patch for key in op.unset or ())
    return named and all(op.unset and not op.set and not op.scale for op in remedy.patch)


def _written(remedy: Remedy, scope: Scope) -> tuple[Change, ...]:
    """The values that a remedy sets, whatever they are now, and the factors of those that depend on an unread value."""
    ops = [op for op in remedy.patch if holds(op.only_if, scope)]
    sets = [Change(op.target, "set", key, None, fill(value, scope)) for op in ops for key, value in (op.set or {}).items()]
    scales = [Change(op.target, "scale", key, None, by) for op in ops for key, by in _factors(op, scope)]
    return (*sets, *scales)


def _factors(op: Op, scope: Scope) -> Iterator[tuple[str, float]]:
    """What to multiply each value by; without those whose factor is not known."""
    for key, scale in (op.scale or {}).items():
        try:
            by = fill(scale.by, scope)
        except Unknown:
            continue
        if isinstance(by, int | float):
            yield key, by


def _scales_unknown(remedy: Remedy, situation: Situation) -> bool:
    """Whether the remedy scales a value that was not read: half of a default is no half of what the run had."""
    return any(key not in situation.config for op in remedy.patch for key in (op.scale or {}))


def _nothing_to_change(remedy: Remedy) -> Advice:
    if remedy.patch:
        return Advice(remedy, "done", remedy.reasons.get("done", catalogue.text("planner.done")))
    return Advice(remedy, "not_applicable", remedy.reasons.get("not_applicable", catalogue.text("planner.not_here")))


def _refused(situation: Situation, changes: tuple[Change, ...], facts: Mapping[str, Any], rules: Iterable[Rule]) -> Text | None:
    """Why LLaMA-Factory would refuse the changed config although it accepted the old one; None if it would not."""
    rules = tuple(rules)
    installed = versions_of({**situation.facts, **facts})
    for change in changes:
        option = table().get(change.key) if change.target == "config" and change.op == "set" else None
        if option is not None and not option.exists_in(installed):
            return _no_such_option(change.key, option.of, ".".join(map(str, installed[option.of])))
    if not situation.config_known:  # what the rules miss may well be set
        return None
    after = situation.after(changes)
    new = config_errors(rules, after.config, {**after.facts, **facts})
    if not new:
        return None
    old = config_errors(rules, situation.config, {**situation.facts, **facts})
    return next((catalogue.text("planner.rejected", title=rule.title) for name, rule in new.items() if name not in old), None)


def _no_such_option(key: str, package: str, version: str) -> Text:
    name = {"llamafactory": "LLaMA-Factory"}.get(package, package)
    return catalogue.text("planner.no_such_option", package=name, version=version, key=key)
