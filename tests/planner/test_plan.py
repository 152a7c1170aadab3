"""The plan: every step's status with its reason, and one patch that is small, accepted, and never walks into the resume trap."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doctor.config import yaml_edit
from doctor.config.options import table
from doctor.config.patch import apply
from doctor.core.events import ConfigSeen, Fact, ProcessEnd, Step, Where
from doctor.core.run import Run
from doctor.planner import plan as planner
from doctor.planner.plan import Advice, ConfigText, Plan
from doctor.planner.situation import Situation, advise, config_errors, next_name
from doctor.rulebook import loader
from doctor.rulebook.conditions import holds, paths
from doctor.rulebook.findings import Evidence, Finding, Match, RankedFinding
from doctor.rulebook.model import Guide, Op, Remedy, Rule, Rulebook
from doctor.support.texts import Text
from tests import guide_mapping

BOOK = loader.load()
assert BOOK.guide is not None
GUIDE: Guide = BOOK.guide
STEPS = {(step.section, step.step): step.remedy for step in GUIDE.steps}
HERE = Where("console.log", 1)
LORA = "model_name_or_path: my/model  # ours\nstage: sft\nfinetuning_type: lora\noutput_dir: saves/a\nper_device_train_batch_size: 8\n"


def guide(section: str, *steps: int) -> list[Remedy]:
    """Steps of the guide as a rule cites them."""
    return [msgspec.structs.replace(STEPS[section, step], source=f"guide/{section}/{step}") for step in steps]


def rule(name: str = "memory/test", symptom: str = "out_of_memory", **more: Any) -> Rule:
    """A rule of which only the remedies matter."""
    given = {"severity": "error", "cause": "x", "when": {"log_pattern": {}}, "title": Text(name, name), "body": [], **more}
    return Rule(id=name, symptom=symptom, **given)  # type: ignore[arg-type]


def found(one: Rule, role: str = "root", confidence: float = 0.9, **facts: Any) -> RankedFinding:
    """That rule's finding."""
    match = Match(evidence=(Evidence(HERE, "x"),), facts=facts, confidence=confidence)
    explained = "memory/other" if role == "consequence" else None
    finding = Finding(rule=one, first=match, count=1, ranks=(), steps=None, evidence=match.evidence, order=0)
    return RankedFinding(finding, role, explained)  # type: ignore[arg-type]


def run_of(text: str, step: int | None = 3, **facts: Any) -> Run:
    """A run with this YAML that got as far as `step`."""
    run = Run()
    run.apply(ConfigSeen(where=Where("c.yaml", 1), values=yaml_edit.load(text)))
    for name, value in facts.items():
        run.apply(Fact(where=HERE, name=name.replace("__", "."), value=value))
    if step is not None:
        run.apply(Step(where=HERE, step=step, metrics={"loss": 1.0}))
    return run


def planned(text: str, *judged: RankedFinding, run: Run | None = None, **more: Any) -> Plan:
    """The plan for findings of a run with this YAML."""
    return planner.plan(judged, run or run_of(text), BOOK, config_text=ConfigText("c.yaml", text), **more)


def by_id(advice: tuple[Advice, ...]) -> dict[str, Advice]:
    return {one.remedy.id: one for one in advice}


def test_the_guide_has_its_fourteen_steps_each_in_its_own_words_and_with_real_options():
    """Five for memory, five for instability, four for speed; every key that a remedy sets is an option of LLaMA-Factory's."""
    assert [len([step for step in GUIDE.steps if step.section == name]) for name in ("memory", "instability", "speed")] == [5, 5, 4]
    for step in GUIDE.steps:
        assert step.guide_ko
        for op in step.remedy.patch:
            keys = [*(op.set or {}), *(op.unset or []), *(op.scale or {})]
            assert all(key in table() for key in keys if op.target == "config"), keys


def test_every_step_of_the_chapter_is_shown_in_the_guides_order_with_a_reason():
    """Steps that the rule does not name are there too, and nothing is silent."""
    plan = planned(LORA, found(rule(remedies=[*guide("memory", 3, 1)]), phase="train"))
    shown = [(one.remedy.guide_step, one.status) for one in plan.advice[0]]
    assert [step for step, _ in shown] == [("memory", number) for number in range(1, 6)]
    assert all(one.reason.en and one.reason.ko and one.reason.zh for one in plan.advice[0])
    assert by_id(plan.advice[0])["gradient-checkpointing"].status == "not_applicable"


def test_a_step_that_is_so_by_default_is_done():
    """Gradient checkpointing is on in LLaMA-Factory unless it was switched off; then switching it on is the remedy."""
    one = rule(remedies=guide("memory", 2))
    advice = by_id(planned(LORA, found(one)).advice[0])["gradient-checkpointing"]
    assert (advice.status, advice.changes) == ("done", ())
    assert "default" in advice.reason.en
    off = LORA + "disable_gradient_checkpointing: true\n"
    plan = planned(off, found(one))
    assert plan.patch is not None
    assert plan.patch.yaml is not None
    assert "disable_gradient_checkpointing" not in plan.patch.yaml


def test_the_guides_strategy_takes_one_rung_and_the_next_plan_the_next():
    """Planning on the patched config climbs: quantise, then halve the batch to one; the same patch never comes twice."""
    one = rule(remedies=guide("memory", 1, 2, 3, 4, 5))
    text, seen = LORA, []
    for _ in range(8):
        plan = planned(text, found(one, phase="train"), strategy="guide")
        if plan.patch is None:
            break
        assert plan.patch.yaml is not None
        seen.append({change.key: change.new for change in plan.patch.patch.changes if change.key != "output_dir"})
        text = plan.patch.yaml
    assert seen == [
        {"quantization_bit": 4},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    ]
    assert yaml_edit.load(text)["output_dir"] == "saves/a-fix4"


def test_accumulation_alone_is_no_remedy_but_goes_with_a_smaller_batch():
    """Step 4 of the guide frees nothing by itself; with step 3 it shows what it became."""
    alone = by_id(planned(LORA, found(rule(remedies=guide("memory", 4)))).advice[0])["more-accumulation"]
    assert (alone.status, alone.changes) == ("not_applicable", ())
    both = by_id(planned(LORA, found(rule(remedies=guide("memory", 3, 4)))).advice[0])["more-accumulation"]
    assert (both.status, both.changes[0].new) == ("apply", 2)


def test_least_change_takes_the_cheapest_set_that_is_predicted_to_do():
    """With a known model and card: neutral remedies, several rungs at once, predicted to fit, the effective batch kept."""
    text = LORA.replace("my/model", "meta-llama/Meta-Llama-3-8B-Instruct") + "cutoff_len: 2048\nbf16: true\n"
    plan = planned(text, found(rule(remedies=guide("memory", 1, 2, 3, 4, 5)), phase="train", total_gib=23.6))
    assert plan.patch is not None
    memory = plan.patch.memory
    assert memory is not None
    assert memory.after is not None
    assert memory.before is not None
    assert memory.after < memory.capacity < memory.before
    assert plan.patch.effective_batch == (8, 8)
    changed = {change.key for change in plan.patch.patch.changes}
    assert "per_device_train_batch_size" in changed
    assert "quantization_bit" not in changed
    assert by_id(plan.advice[0])["quantise-4bit"].chosen is False


def test_a_full_fine_tune_that_does_not_load_gets_a_fix_beyond_the_guide_before_the_guides_steps():
    """All five steps are shown as not applicable or done; sharding, offload or LoRA make the patch, and what does comes first."""
    text = LORA.replace("lora", "full").replace("my/model", "meta-llama/Meta-Llama-3-8B-Instruct")
    beyond = [remedy for one in BOOK.rules for remedy in one.remedies if remedy.id in ("zero3-offload", "lora-instead-of-full")]
    unique = list({remedy.id: remedy for remedy in beyond}.values())
    assert len(unique) == 2
    plan = planned(
        text, found(rule(remedies=[*guide("memory", 1, 2, 3, 4, 5), *unique]), phase="load", total_gib=23.6), run=run_of(text, None)
    )
    assert plan.patch is not None
    assert {"deepspeed", "finetuning_type"} & {change.key for change in plan.patch.patch.changes}
    first, *others = plan.advice[0]
    assert (first.chosen, first.remedy.guide_step) == (True, None)
    assert [one.remedy.guide_step for one in others] == [*(("memory", number) for number in range(1, 6)), None]
    assert by_id(plan.advice[0])["quantise-4bit"].status == "not_applicable"


def fix(name: str, key: str | None = None, **more: Any) -> Remedy:
    """A remedy beyond the guide that sets one option, or that a person has to do."""
    return Remedy(id=name, text=Text("x", "x"), **({"patch": [Op(set={key: 1})]} if key else {"effect": "manual"}), **more)


@pytest.mark.parametrize(
    ("remedies", "order"),
    [
        # the rule's own fix is in the patch: it comes first, wherever the rule names it
        (["keep", "guide 1", "guide 3"], ["keep", 1, 2, 3, 4, 5]),
        (["guide none", "guide none 3", "keep", "other"], ["keep", 1, 2, 3, 4, 5, "other"]),
        # a step of the guide is in the patch: what could be taken instead comes after the steps
        (["guide 3", "keep"], [1, 2, 3, 4, 5, "keep"]),
        # by hand, named before the guide: before the guide, and after what is in the patch
        (["by hand", "keep", "guide none"], ["keep", "by hand", 1, 2, 3, 4, 5]),
        (["by hand", "guide 3"], ["by hand", 1, 2, 3, 4, 5]),
        (["guide none", "by hand"], [1, 2, 3, 4, 5, "by hand"]),
        # what does not apply stays behind
        (["never", "guide 3"], [1, 2, 3, 4, 5, "never"]),
        (["guide 3", "guide 1"], [1, 2, 3, 4, 5]),
    ],
)
def test_what_acts_on_the_cause_comes_before_the_guides_steps(remedies, order):
    """The patch's fixes beyond the guide, then those that a person has to do; the guide's steps keep the guide's order, all of them."""
    never = Text("It never helps.", "x")
    known = {
        "keep": fix("keep", "save_total_limit"),
        "other": fix("other", "save_steps"),
        "by hand": fix("by hand"),
        "never": fix("never", "save_steps", excluded=never),
        "guide 1": guide("memory", 1)[0],
        "guide 3": guide("memory", 3)[0],
        "guide none": msgspec.structs.replace(guide("memory", 1)[0], excluded=never),
        "guide none 3": msgspec.structs.replace(guide("memory", 3)[0], excluded=never),
    }
    plan = planned(LORA, found(rule(remedies=[known[name] for name in remedies]), phase="train"))
    assert [one.remedy.guide_step[1] if one.remedy.guide_step else one.remedy.id for one in plan.advice[0]] == order


def test_every_patch_starts_in_a_new_folder():
    """In the old one LLaMA-Factory would silently resume; a refused config never made a folder and keeps its name."""
    plan = planned(LORA, found(rule(remedies=guide("memory", 1))))
    assert plan.patch is not None
    assert yaml_edit.load(plan.patch.yaml or "")["output_dir"] == "saves/a-fix1"
    fix = Remedy(id="f", text=Text("x", "x"), patch=[Op(set={"lora_rank": 4})])
    early = planned(LORA, found(rule("config/test", "config", remedies=[fix])), run=run_of(LORA, None))
    assert early.patch is not None
    assert yaml_edit.load(early.patch.yaml or "")["output_dir"] == "saves/a"
    assert [next_name(path) for path in ("a/", "a-fix1", "a-fix9")] == ["a-fix1", "a-fix2", "a-fix10"]


@pytest.mark.parametrize(("symptom", "phase", "new"), [
    ("out_of_memory", "load", False),
    ("out_of_memory", None, True),
    ("divergence", None, True),
    ("environment", None, False),
])  # fmt: skip
def test_only_a_run_that_may_have_saved_gets_a_new_folder(symptom: str, phase: str | None, new: bool) -> None:
    """A run without a step: an OOM while the weights were loaded, or a used port, left no checkpoint that could be resumed."""
    run = run_of(LORA, None)
    run.apply(ProcessEnd(where=HERE, code=1))
    facts = {"phase": phase} if phase else {}
    fix = Remedy(id="f", text=Text("x", "x"), patch=[Op(set={"lora_rank": 4})])
    plan = planned(LORA, found(rule("x/test", symptom, remedies=[fix]), **facts), run=run)
    assert plan.patch is not None
    assert (yaml_edit.load(plan.patch.yaml or "")["output_dir"] == "saves/a-fix1") is new


def test_without_a_config_the_training_stays_what_it_was() -> None:
    """4-bit weights are named, not patched in; a remedy that keeps the training may be; no output_dir is invented."""
    run = Run()
    run.apply(Step(where=HERE, step=3, metrics={"loss": 1.0}))
    four_bit, liger = guide("memory", 1)[0], Remedy(id="liger", text=Text("x", "x"), patch=[Op(set={"enable_liger_kernel": True})])
    plan = planner.plan([found(rule(remedies=[four_bit]))], run, BOOK)
    assert plan.patch is None
    assert by_id(plan.advice[0])[four_bit.id].status == "apply"
    plan = planner.plan([found(rule(remedies=[four_bit, liger]))], run, BOOK)
    assert plan.patch is not None
    assert [change.key for change in plan.patch.patch.changes] == ["enable_liger_kernel"]
    assert any("output_dir" in note.en for note in plan.patch.notes)


def test_what_a_checkpoint_or_a_tokenised_dataset_would_undo_is_undone():
    """A lower rate needs a fresh start, and a shorter cutoff a new tokenised dataset."""
    text = LORA + "resume_from_checkpoint: saves/a/checkpoint-5\ntokenized_path: tok\ncutoff_len: 4096\n"
    shorter = Remedy(id="s", text=Text("x", "x"), patch=[Op(set={"cutoff_len": 1024, "learning_rate": 1e-5})])
    plan = planned(text, found(rule(remedies=[shorter])))
    assert plan.patch is not None
    after = yaml_edit.load(plan.patch.yaml or "")
    assert "resume_from_checkpoint" not in after
    assert (after["tokenized_path"], after["output_dir"]) == ("tok-fix1", "saves/a-fix1")
    assert len(plan.patch.notes) >= 3


def test_resuming_on_purpose_keeps_the_folder():
    """A remedy that resumes must not be sent to an empty folder."""
    resume = Remedy(id="r", text=Text("x", "x"), patch=[Op(set={"resume_from_checkpoint": True})])
    plan = planned(LORA, found(rule(remedies=[resume])))
    assert plan.patch is not None
    assert yaml_edit.load(plan.patch.yaml or "")["output_dir"] == "saves/a"


def test_of_two_findings_that_want_opposite_things_the_more_severe_wins():
    """An out-of-memory wants a smaller batch, slowness a larger one: the latter is shown as a conflict that names the winner."""
    larger = Remedy(id="larger", text=Text("x", "x"), patch=[Op(set={"per_device_train_batch_size": 16})])
    slow = rule("speed/slow", "slow", severity="warning", remedies=[larger])
    plan = planned(LORA, found(slow, "contributing"), found(rule("memory/oom", remedies=guide("memory", 3)), phase="train"))
    assert plan.advice[0][-1].remedy.id == "larger"
    assert plan.advice[0][-1].status == "conflict"
    assert "memory/oom" in plan.advice[0][-1].reason.en
    assert plan.patch is not None
    assert yaml_edit.load(plan.patch.yaml or "")["per_device_train_batch_size"] == 4


@pytest.mark.parametrize(("role", "confidence"), [("root", 0.4), ("consequence", 0.9)])
def test_what_is_unsure_or_only_a_consequence_gets_no_patch(role, confidence):
    """A bare `Killed` or a torchrun block is told, not patched."""
    plan = planned(LORA, found(rule(remedies=guide("memory", 1)), role, confidence))
    assert plan.patch is None
    assert by_id(plan.advice[0])["quantise-4bit"].chosen is False


def test_a_remedy_that_llamafactory_would_refuse_is_rejected_with_the_rules_title():
    """The config rules look at the result: quantising a full fine-tune is an error of the parser."""
    quantise = Remedy(id="q", text=Text("x", "x"), patch=[Op(set={"quantization_bit": 4})])
    advice = planned(LORA.replace("lora", "full"), found(rule(remedies=[quantise])))
    rejected = by_id(advice.advice[0])["q"]
    assert rejected.status == "rejected"
    assert BOOK["config/quantised-full-or-freeze"].title.en in rejected.reason.en
    assert advice.patch is None


def test_options_that_the_runs_version_lacks_are_not_offered():
    """use_unsloth_gc came with 0.9.0."""
    remedy = Remedy(id="gc", text=Text("x", "x"), patch=[Op(set={"use_unsloth_gc": True})])
    old = planned(LORA, found(rule(remedies=[remedy])), run=run_of(LORA, versions__llamafactory="0.8.3"))
    assert by_id(old.advice[0])["gc"].status == "rejected"
    assert old.patch is None


def test_warmup_is_written_for_the_installed_transformers():
    """From transformers 5 a share stands in warmup_steps, before in warmup_ratio; constant schedules have none."""
    one = rule("stability/x", "divergence", remedies=guide("instability", 2))
    new = planned(LORA, found(one), run=run_of(LORA, versions__transformers="5.6.0"))
    old = planned(LORA, found(one), run=run_of(LORA, versions__transformers="4.57.1"))
    assert new.patch is not None
    assert old.patch is not None
    assert "warmup_steps: 0.1" in (new.patch.yaml or "")
    assert "warmup_ratio: 0.1" in (old.patch.yaml or "")
    constant = planned(LORA + "lr_scheduler_type: constant\n", found(one))
    assert by_id(constant.advice[0])["longer-warmup"].status == "not_applicable"


@pytest.mark.parametrize(
    ("config", "below"),
    [
        ("learning_rate: 0.5\n", 1e-4),
        ("stage: dpo\nlearning_rate: 1.0e-4\n", 5e-6),
        ("finetuning_type: full\nlearning_rate: 1.0e-3\n", 1e-5),
    ],
)
def test_a_diverging_rate_falls_to_where_such_trainings_work(config, below):
    """Not a fixed share of an absurd value: at most what LLaMA-Factory's examples use for the method and stage."""
    plan = planned(config, found(rule("stability/x", "divergence", remedies=guide("instability", 1))))
    assert plan.patch is not None
    assert yaml_edit.load(plan.patch.yaml or "")["learning_rate"] <= below


def test_without_the_yaml_there_are_overrides_and_a_command():
    """What the user can paste: key=value words, a removed key at its default."""
    run = run_of(LORA + "disable_gradient_checkpointing: true\n")
    plan = planner.plan([found(rule(remedies=guide("memory", 2)))], run, BOOK)
    assert plan.patch is not None
    assert plan.patch.overrides == ("disable_gradient_checkpointing=false", "output_dir=saves/a-fix1")
    assert plan.patch.yaml is None
    assert plan.patch.command is not None
    assert plan.patch.command.endswith("disable_gradient_checkpointing=false output_dir=saves/a-fix1")


def test_a_yaml_that_cannot_be_edited_falls_back_to_overrides():
    """Anchors in use are not guessed at."""
    text = "per_device_train_batch_size: &n 8\nper_device_eval_batch_size: *n\n"
    plan = planned(text, found(rule(remedies=guide("memory", 3))))
    assert plan.patch is not None
    assert plan.patch.yaml is None
    assert "per_device_train_batch_size=4" in plan.patch.overrides


def test_the_diff_shows_only_the_asked_keys_and_says_why():
    """Comments stay, new keys name the rule that asked for them."""
    plan = planned(LORA, found(rule(remedies=guide("memory", 1))))
    assert plan.patch is not None
    lines = [line for line in (plan.patch.diff or "").splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert lines == [
        "+quantization_bit: 4  # lfdoctor: memory/test#quantise-4bit",
        "-output_dir: saves/a",
        "+output_dir: saves/a-fix1",
    ]


def test_deepspeed_is_started_with_torchrun():
    """LLaMA-Factory refuses a DeepSpeed config without it on one GPU."""
    text = LORA + "deepspeed: ds_z2_config.json\n"
    plan = planned(text, found(rule(remedies=guide("memory", 3))))
    assert plan.patch is not None
    assert plan.patch.command == "FORCE_TORCHRUN=1 llamafactory-cli train c-patched.yaml"


SHARED = {remedy.id: remedy for one in BOOK.rules for remedy in one.remedies if remedy.effect != "manual"}
SHARED |= {remedy.id: remedy for remedy in STEPS.values()}
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "stage": st.sampled_from(["pt", "sft", "rm", "dpo", "kto"]),
        "finetuning_type": st.sampled_from(["lora", "full", "freeze", "oft"]),
        "per_device_train_batch_size": st.integers(1, 64),
        "gradient_accumulation_steps": st.integers(1, 64),
        "lora_rank": st.integers(1, 256),
        "lora_alpha": st.integers(1, 512),
        "learning_rate": st.floats(1e-7, 10),
        "cutoff_len": st.integers(64, 131072),
        "quantization_bit": st.sampled_from([4, 8]),
        "deepspeed": st.sampled_from(["ds_z2_config.json", "ds_z3_config.json", "ds_z3_offload_config.json"]),
        "bf16": st.booleans(),
        "fp16": st.booleans(),
        "warmup_steps": st.integers(0, 1000),
        "dataloader_num_workers": st.integers(0, 8),
        "preprocessing_num_workers": st.integers(1, 64),
        "disable_gradient_checkpointing": st.booleans(),
        "flash_attn": st.sampled_from(["auto", "sdpa", "fa2", "disabled"]),
    },
)
RULES = [one for one in BOOK.rules if one.detector == "config"]


def _asked(one: Rule) -> set[str]:
    """The options that a rule on the config asks about."""
    return {path.partition(".")[2] for path in paths([one.params.get("all") or {}, *(one.params.get("any") or [])])}


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(SHARED)), CONFIGS, st.integers(1, 4))
def test_every_remedy_ends_and_none_makes_an_acceptable_config_refused(name, config, world_size):
    """Applied again and again it comes to a state where it is done or impossible, and adds no objection of LLaMA-Factory's on the way."""
    remedy, facts = SHARED[name], {"world_size": world_size}
    situation = Situation(config, facts, {})
    before = config_errors(RULES, config, facts)
    for _ in range(25):
        advice = advise(remedy, situation, {}, RULES)
        if advice.status != "apply" or any(change.key == "output_dir" for change in advice.changes):
            return
        situation = situation.after(advice.changes)
        assert apply(situation.config, advice.changes) == situation.config
        assert config_errors(RULES, situation.config, facts).keys() <= before.keys()
    pytest.fail(f"{name} never ends")


def test_done_if_holds_once_a_step_of_the_guide_was_taken():
    """The guide's own steps agree with themselves: what was applied until nothing changes counts as done."""
    for remedy in STEPS.values():
        situation = Situation({"disable_gradient_checkpointing": True, "lora_rank": 64, "bf16": True, "output_dir": "a"}, {}, {})
        for _ in range(40):
            advice = advise(remedy, situation, {}, RULES)
            if advice.status != "apply":
                break
            situation = situation.after(advice.changes)
        assert not remedy.patch or (remedy.done_if is not None and holds(remedy.done_if, situation.scope({}))), remedy.id


def test_an_empty_rulebook_plans_nothing():
    """No findings, no patch."""
    assert planner.plan([], Run(), Rulebook(())) == Plan(())


def test_the_page_about_the_guide_says_what_the_rules_say():
    """docs/guide-mapping.md is generated; `python -m tests.guide_mapping` brings it up to date."""
    assert guide_mapping.PAGE.read_text(encoding="utf-8") == guide_mapping.page()


def test_a_run_that_was_parsed_says_nothing_about_its_patched_config():
    """The config rules on what the parser refuses are silent on runs that got past it, but not on what a remedy makes of them."""
    quantise = Remedy(id="q", text=Text("x", "x"), patch=[Op(set={"quantization_bit": 4})])
    text = LORA.replace("lora", "full")
    run = run_of(text, compute_dtype="torch.bfloat16")
    run.apply(Fact(where=HERE, name="text", value=True))
    assert by_id(planned(text, found(rule(remedies=[quantise])), run=run).advice[0])["q"].status == "rejected"


def test_what_the_patch_removes_is_not_told_back_by_the_failed_run():
    """The run computed in fp16 and its log says so; bf16 in place of fp16 is no conflict with that."""
    swap = Remedy(id="swap", text=Text("x", "x"), patch=[Op(set={"bf16": True}), Op(unset=["fp16"])])
    text = LORA + "fp16: true\n"
    run = run_of(text, compute_dtype="torch.float16")
    plan = planned(text, found(rule(remedies=[swap], symptom="nonfinite")), run=run)
    assert by_id(plan.advice[0])["swap"].status == "apply"
    assert plan.patch is not None
    assert {(one.key, one.op) for one in plan.patch.patch.changes} >= {("bf16", "set"), ("fp16", "unset")}


@pytest.mark.parametrize(("origin", "told"), [("command", True), ("training_args", False), ("yaml", False)])
def test_only_what_stands_on_the_command_line_is_said_to_stand_there(origin: str, told: bool):
    """A key of the patch that the command line gives too would win over the file; one that a training_args.bin repeats does not."""
    run = run_of(LORA)
    run.apply(ConfigSeen(where=Where("elsewhere", 1), values={"per_device_train_batch_size": 8}, origin=origin))  # type: ignore[arg-type]
    smaller = Remedy(id="smaller", text=Text("x", "x"), patch=[Op(set={"per_device_train_batch_size": 4})])
    plan = planned(LORA, found(rule(remedies=[smaller])), run=run)
    assert plan.patch is not None
    assert any("per_device_train_batch_size is also set on the command line" in note.en for note in plan.patch.notes) is told


_ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2), st.just({"a": {}})
)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted({key for one in RULES for key in _asked(one)})), _ODD, max_size=8), st.text(max_size=30))
def test_any_config_and_any_text_get_a_plan(config, text):
    """Damaged and absurd values end in advice, with or without a patch, never in an exception."""
    run = Run()
    run.apply(ConfigSeen(where=Where("c.yaml", 1), values=config))
    every = [*guide("memory", 1, 2, 3, 4, 5), *guide("instability", 1, 2, 3, 4, 5), *guide("speed", 1, 2, 3, 4)]
    plan = planner.plan([found(rule(remedies=every), total_gib=24.0)], run, BOOK, config_text=ConfigText("c.yaml", text))
    assert len(plan.advice[0]) == 14


def unread(*judged: RankedFinding, **facts: Any) -> Plan:
    """The plan of a run of which only a console was read."""
    run = Run()
    for name, value in facts.items():
        run.apply(Fact(where=HERE, name=name.replace("__", "."), value=value))
    return planner.plan(judged, run, BOOK)


def test_an_unread_configuration_hides_no_cure() -> None:
    """What may be set or not is told by hand, with the value where the remedy names one, and with the condition as its reason."""
    advice = by_id(unread(found(BOOK["speed/map-worker-died"])).advice[0])
    fewer = advice["fewer-preprocessing-workers"]
    assert fewer.status == "manual"
    assert "No configuration was read" in fewer.reason.en
    target = by_id(unread(found(BOOK["config/lora-target-error"])).advice[0])["all-linear-layers"]
    assert (target.status, [(change.key, change.new) for change in target.changes]) == ("manual", [("lora_target", "all")])


def test_an_unread_configuration_gives_no_advice_that_a_default_follows_already() -> None:
    """LLaMA-Factory's rank is 8 and its gradient checkpointing on unless somebody changed them: neither is worth a try unseen."""
    advice = by_id(unread(found(BOOK["memory/gpu-oom"], device="cuda")).advice[0])
    assert {name: advice[name].status for name in ("smaller-batch", "gradient-checkpointing", "smaller-rank")} == {
        "smaller-batch": "manual",
        "gradient-checkpointing": "not_applicable",
        "smaller-rank": "not_applicable",
    }


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("stability/fp16-scale-at-minimum", {("bf16", True), ("fp16", None)}),
        ("device/gpu-without-bf16", {("fp16", True), ("bf16", None)}),
    ],
)
def test_what_a_failure_proves_to_be_set_is_changed_though_nothing_was_read(name: str, changes: set[tuple[str, Any]]) -> None:
    """A loss scale at its minimum is one of fp16; so bf16 replaces it, in the patch."""
    patch = unread(found(BOOK[name])).patch
    assert patch is not None
    assert {(change.key, change.new) for change in patch.patch.changes} == changes


def test_what_a_failure_proves_does_not_overrule_the_configuration() -> None:
    """The YAML says bf16: then fp16 was not what overflowed, and nothing is changed from it."""
    plan = planned(LORA + "bf16: true\n", found(BOOK["stability/fp16-scale-at-minimum"]))
    assert by_id(plan.advice[0])["bf16-instead-of-fp16"].status == "not_applicable"
    assert plan.patch is None or not {"bf16", "fp16"} & {change.key for change in plan.patch.patch.changes}


LLAMA = "model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct\nstage: sft\ntemplate: llama3\noutput_dir: saves/a\nbf16: true\n"
FULL_CARD = {"device": "cuda", "total_gib": 23.65, "allocated_gib": 22.8, "wanted_gib": 0.27, "phase": "train", "place": "optimizer"}


def test_no_patch_is_predicted_to_fail_again() -> None:
    """128k tokens on 24 GB: no set of options is predicted to fit, so nothing is patched and the report says that more memory is needed."""
    text = LLAMA + "finetuning_type: lora\ncutoff_len: 131072\nper_device_train_batch_size: 1\n"
    plan = planned(text, found(BOOK["memory/gpu-oom-optimizer-states"], **FULL_CARD), run=run_of(text, None, world_size=1))
    assert plan.patch is None
    assert plan.advice[0][0].remedy.id == "more-memory"


def test_what_fills_the_gpu_besides_the_model_is_not_answered_with_another_training() -> None:
    """An 8B adapter explains a fifth of the 79 GiB that were held: 4-bit weights would cure nothing that is known."""
    text = LLAMA + "finetuning_type: lora\nper_device_train_batch_size: 1\n"
    held = {**FULL_CARD, "total_gib": 79.15, "allocated_gib": 78.2, "phase": "load"}
    plan = planned(text, found(BOOK["memory/gpu-oom-model-too-large"], **held), run=run_of(text, None, world_size=1))
    assert plan.patch is None


def test_a_learning_rate_next_to_zero_is_not_lowered() -> None:
    """Below 5e-7 nothing moves: such a rate is no cause of a rising loss."""
    text = LORA + "learning_rate: 4.0e-07\n"
    advice = by_id(planned(text, found(BOOK["stability/divergence"], step=5, baseline=1.0, value=2.0, ratio=2.0)).advice[0])
    assert advice["lower-learning-rate"].status == "done"


def test_what_removes_the_cause_itself_is_taken_whatever_the_estimate_says() -> None:
    """The evaluation asked for 4.6 GiB with 4 samples: one at a time is the cure, not 4-bit weights that the estimate can measure."""
    text = LLAMA + "finetuning_type: lora\nper_device_train_batch_size: 1\nper_device_eval_batch_size: 4\n"
    asked = {**FULL_CARD, "wanted_gib": 4.64, "phase": "eval", "place": "eval"}
    patch = planned(text, found(BOOK["memory/gpu-oom-evaluation"], **asked), run=run_of(text, 3, world_size=1)).patch
    assert patch is not None
    assert {change.key: change.new for change in patch.patch.changes if change.key != "output_dir"} == {"per_device_eval_batch_size": 1}


def test_full_tuning_goes_on_without_galore() -> None:
    """39.8 GiB on a card of 24: host memory takes the states, and no adapter takes the place of full tuning."""
    text = LLAMA.replace("bf16: true", "pure_bf16: true") + "finetuning_type: full\nuse_galore: true\nper_device_train_batch_size: 1\n"
    plan = planned(text, found(BOOK["memory/gpu-oom-optimizer-states"], **FULL_CARD), run=run_of(text, None, world_size=1))
    assert plan.patch is not None
    changed = {change.key: change.new for change in plan.patch.patch.changes}
    assert "finetuning_type" not in changed
    assert changed["use_galore"] is None
    assert changed["deepspeed"]["zero_optimization"]["offload_optimizer"]["device"] == "cpu"


def v1_advice(remedy: Remedy, **config: Any) -> Advice:
    facts = {"llamafactory.trainer": "v1", "v1.config": {"values": {"model": "m", **config}, "lines": {}}}
    return advise(remedy, Situation({}, facts, {}, config_known=False), {}, ())


@pytest.mark.parametrize(
    ("change", "text", "status", "said"),
    [
        (Op(set={"per_device_train_batch_size": 1}), "Lower it.", "manual", "`per_device_train_batch_size` → `micro_batch_size`"),
        (Op(set={"gradient_accumulation_steps": 2}), "Raise it.", "not_applicable", "`global_batch_size`"),
        (Op(set={"use_galore": True}), "GaLore.", "not_applicable", "no `use_galore`"),
        (Op(set={"disable_gradient_checkpointing": False}), "Checkpoint.", "done", ""),
        (Op(set={"flash_attn": "fa2"}), "Use it.", "not_applicable", "no `flash_attn`"),
        (Op(set={"learning_rate": 1e-5}), "Lower it.", "manual", ""),
        (Op(set={"PYTORCH_CUDA_ALLOC_CONF": "x"}, target="env"), "Set it.", "manual", ""),
    ],
)
def test_a_run_of_the_v1_trainer_gets_no_option_of_v0(change: Op, text: str, status: str, said: str) -> None:
    """v1 refuses v0's names: the remedy is told in v1's, never put into a patch."""
    advice = v1_advice(Remedy(id="r", text=Text(text, text, text), patch=[change]))
    assert (advice.status, advice.changes) == (status, ())
    assert said in f"{advice.remedy.text.en} {advice.reason.en}"


def test_checkpointing_that_a_v1_config_turned_off_can_be_turned_on() -> None:
    """It is on unless the config says otherwise."""
    remedy = Remedy(id="r", text=Text("Checkpoint.", "", ""), patch=[Op(set={"disable_gradient_checkpointing": False})])
    assert v1_advice(remedy, enable_activation_checkpointing=False).status == "manual"
