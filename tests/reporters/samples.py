"""Reports that snapshots are made of, built through the same door as real ones: hand-made rules, findings and plans."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from doctor.config.patch import Change, Patch
from doctor.core.events import ConfigSeen, Fact, ProcessEnd, Step, Where
from doctor.core.run import Run
from doctor.diagnosis.verdict import verdict
from doctor.planner.plan import Advice, Memory, Plan, PlannedPatch, Status
from doctor.report.build import Diagnosis, build
from doctor.report.model import Report, SourceView
from doctor.report.status import run_status
from doctor.rulebook.findings import Evidence, Finding, Match, RankedFinding, Role, UncheckedRule
from doctor.rulebook.model import Body, Guide, Remedy, Rule, Rulebook
from doctor.support.texts import Text

HERE = Where("train.yaml", 1)


CHINESE = {
    "Load the base model in 4 bits (QLoRA).": "以 4 比特加载基座模型（QLoRA）。",
    "Recompute activations instead of keeping them.": "不保存激活值，需要时重新计算。",
    "Halve the batch per GPU.": "单卡批大小减半。",
    "Each step takes somewhat longer.": "每步略慢。",
    "Double the accumulation.": "梯度累积步数加倍。",
    "Halve the LoRA rank.": "LoRA 秩减半。",
    "Let the allocator grow its segments: `PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`.": (
        "让分配器可以扩展显存段：`PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`。"
    ),
    "Shard the model over the GPUs (ZeRO-3).": "把模型切分到各 GPU（ZeRO-3）。",
    "The guide": "指南",
    "When memory runs out": "显存不足时",
    "`finetuning_type: qlora` does not exist.": "`finetuning_type: qlora` 并不存在。",
    "The GPU ran out of memory": "GPU 显存不足",
    "While {phase}, GPU {gpu} ({total_gib:.1f} GiB) was asked for {wanted_gib:.2f} GiB more and had {free_gib:.2f} GiB left.": (
        "{phase}时 GPU {gpu}（{total_gib:.1f} GiB）还要申请 {wanted_gib:.2f} GiB，但只剩 {free_gib:.2f} GiB。"
    ),
    "torchrun stopped all ranks": "torchrun 停止了所有 rank",
    "The accelerator waits for data": "加速卡在等数据",
    "{share:.0%} of the time goes into waiting for the data loader.": "有 {share:.0%} 的时间在等数据加载。",
    "The loss left its course and did not come back": "损失偏离后没有再回来",
    "From step {from_step} on the loss is {ratio:.1f} times what it was.": "从第 {from_step} 步起，损失是之前的 {ratio:.1f} 倍。",
    "Not needed: the smaller batch is enough.": "不需要：减小批大小就够了。",
    "On: LLaMA-Factory's default.": "已启用：这是 LLaMA-Factory 的默认行为。",
    "Frees about 6 GiB.": "约省 6 GiB。",
    "Keeps the effective batch.": "保持有效批大小不变。",
    "Frees 0.1 GiB: not worth it.": "只能省 0.1 GiB，不值得。",
    "1.0 GiB is reserved but unused.": "有 1.0 GiB 被保留但没有使用。",
    "One GPU.": "只有一张 GPU。",
    "A new output_dir, so that the old checkpoint is not resumed.": "output_dir 改成了新目录，以免从旧检查点续训。",
    "Steps take about 5 % longer.": "每步慢约 5%。",
    "Lower the learning rate.": "降低学习率。",
    "0.01 is far above what LoRA takes.": "0.01 远高于 LoRA 能承受的范围。",
    "": "",
}


def both(en: str, ko: str) -> Text:
    return Text(en=en, ko=ko, zh=CHINESE.get(en))


def remedy(name: str, en: str, ko: str, source: str = "beyond", **more: Any) -> Remedy:
    return msgspec.convert(msgspec.to_builtins({"id": name, "source": source, "text": both(en, ko), **more}), Remedy)


QUANTISE = remedy(
    "quantise-4bit",
    "Load the base model in 4 bits (QLoRA).",
    "기본 모델을 4비트로 불러옵니다(QLoRA).",
    "guide/memory/1",
    effect="changes_training",
)
CHECKPOINTING = remedy(
    "gradient-checkpointing", "Recompute activations instead of keeping them.", "활성값을 저장하지 않고 다시 계산합니다.", "guide/memory/2"
)
BATCH = remedy(
    "smaller-batch",
    "Halve the batch per GPU.",
    "GPU당 배치를 절반으로 줄입니다.",
    "guide/memory/3",
    cost=both("Each step takes somewhat longer.", "스텝마다 시간이 조금 더 걸립니다."),
)
ACCUMULATE = remedy("more-accumulation", "Double the accumulation.", "그래디언트 누적을 두 배로 늘립니다.", "guide/memory/4")
RANK = remedy("smaller-rank", "Halve the LoRA rank.", "LoRA 랭크를 절반으로 줄입니다.", "guide/memory/5", effect="changes_training")
ALLOCATOR = remedy(
    "expandable-segments",
    "Let the allocator grow its segments: `PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`.",
    "할당자가 세그먼트를 늘려 쓰게 합니다: `PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`.",
    effect="manual",
)
ZERO = remedy("zero-3", "Shard the model over the GPUs (ZeRO-3).", "모델을 여러 GPU에 나눕니다(ZeRO-3).")

GUIDE = msgspec.convert(
    msgspec.to_builtins(
        {
            "title": both("The guide", "가이드"),
            "sections": {"memory": both("When memory runs out", "메모리 부족 시")},
            "steps": [
                {
                    "section": "memory",
                    "step": place,
                    "guide_ko": words,
                    "remedy": msgspec.to_builtins(one),
                    "correction": correction,
                }
                for place, words, one, correction in (
                    (
                        1,
                        "`quantization_bit: 4` 사용",
                        QUANTISE,
                        both("`finetuning_type: qlora` does not exist.", "`finetuning_type: qlora`는 없습니다."),
                    ),
                    (2, "`gradient_checkpointing: true` 활성화", CHECKPOINTING, None),
                    (3, "`per_device_train_batch_size` 줄이기", BATCH, None),
                    (4, "`gradient_accumulation_steps` 늘리기", ACCUMULATE, None),
                    (5, "`lora_rank` 줄이기", RANK, None),
                )
            ],
        }
    ),
    Guide,
)


def rule(name: str, en: str, ko: str, body: tuple[str, str] | None = None, **more: Any) -> Rule:
    data = {
        "id": name,
        "cause": name.partition("/")[2].replace("-", "_"),
        "symptom": "crash",
        "severity": "error",
        "when": {"log_pattern": {"any_of": ["CUDA out of memory"], "contains": ["CUDA out of memory"]}},
        "title": both(en, ko),
        "body": [Body(body[0], body[1], CHINESE.get(body[0]))] if body else [],
        **more,
    }
    return msgspec.convert(msgspec.to_builtins(data), Rule)


def judged(one: Rule, role: Role, text: str, where: Where, *, explained_by: str | None = None, **more: Any) -> RankedFinding:
    facts, steps, rank = more.get("facts", {}), more.get("steps"), more.get("rank")
    match = Match(evidence=(Evidence(where, text),), facts=facts, steps=steps, rank=rank)
    found = Finding(
        rule=one,
        first=match,
        count=more.get("count", 1),
        ranks=(rank,) if rank is not None else (),
        steps=steps,
        evidence=more.get("evidence", match.evidence),
        order=0,
    )
    return RankedFinding(found, role, explained_by)


def advice(one: Remedy, status: Status, en: str, ko: str, *changes: Change) -> Advice:
    return Advice(one, status, both(en, ko), changes)


OOM = rule(
    "memory/cuda-oom",
    "The GPU ran out of memory",
    "GPU 메모리가 부족합니다",
    (
        "While {phase}, GPU {gpu} ({total_gib:.1f} GiB) was asked for {wanted_gib:.2f} GiB more and had {free_gib:.2f} GiB left.",
        "{phase} 중 GPU {gpu}({total_gib:.1f} GiB)에 {wanted_gib:.2f} GiB가 더 필요했지만 {free_gib:.2f} GiB만 남아 있었습니다.",
    ),
    symptom="out_of_memory",
)
TORCHRUN = rule("distributed/torchrun-failure", "torchrun stopped all ranks", "torchrun이 모든 랭크를 중단했습니다")
SLOW_LOADER = rule(
    "speed/slow-loader",
    "The accelerator waits for data",
    "가속기가 데이터를 기다리고 있습니다",
    ("{share:.0%} of the time goes into waiting for the data loader.", "시간의 {share:.0%}가 데이터 로더를 기다리는 데 쓰입니다."),
    severity="warning",
    symptom="slow",
    confidence=0.75,
)
DIVERGED = rule(
    "stability/divergence",
    "The loss left its course and did not come back",
    "손실이 발산한 뒤 돌아오지 않았습니다",
    ("From step {from_step} on the loss is {ratio:.1f} times what it was.", "스텝 {from_step}부터 손실이 이전의 {ratio:.1f}배입니다."),
    when={"divergence": {"metric": "loss"}},
    symptom="divergence",
    confidence=0.82,
)
BOOK = Rulebook((OOM, TORCHRUN, SLOW_LOADER, DIVERGED), GUIDE)
SOURCES = [
    SourceView("saves/qwen/console.log", "console", 81234, 1204),
    SourceView("saves/qwen/trainer_log.jsonl", "trainer_log", 9234, 12),
    SourceView("saves/qwen/adapter_model.bin", "unknown", 40, 0, ["a pickle: never opened"]),
]
OOM_TEXT = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 270.00 MiB. GPU 1 has a total capacity of 23.65 GiB of which 208.06 MiB "
    "is free. Process 41 has 23.42 GiB memory in use. Of the allocated memory 21.90 GiB is allocated by PyTorch, and 1.02 GiB is reserved."
)


PATCHED_YAML = """\
per_device_train_batch_size: 4
gradient_accumulation_steps: 4
output_dir: saves/qwen-2
hf_hub_token: hf_abcdefghijklmnop1234
"""


def run_of(*events: Any) -> Run:
    run = Run()
    for event in events:
        run.apply(event)
    return run


def steps_of(losses: list[float], every: int = 10) -> list[Step]:
    return [Step(where=Where("trainer_log.jsonl", i + 1), step=(i + 1) * every, metrics={"loss": loss}) for i, loss in enumerate(losses)]


def written(found: list[RankedFinding], plan: Plan, run: Run, book: Rulebook, lang: str = "en", **more: Any) -> Report:
    """The report on these findings, as the pipeline would write it."""
    status = run_status(run, found)
    said = verdict("analyze", status, found, run)
    return build(Diagnosis(run=run, ranked=found, plan=plan, status=status, verdict=said, **more), book, lang)


def oom(lang: str = "en") -> Report:
    """An out-of-memory failure of one rank, torchrun's consequence, a lesser finding, a patch with a prediction."""
    config = ConfigSeen(where=HERE, values={"stage": "sft", "finetuning_type": "lora", "model_name_or_path": "Qwen/Qwen2.5-7B"})
    facts = [Fact(where=HERE, name="world_size", value=2), Fact(where=HERE, name="steps.planned", value=500)]
    run = run_of(config, *facts, *steps_of([1.0] * 12), ProcessEnd(where=Where("console.log", 510), code=1, rank=1, first=True))
    facts_oom = {"phase": "train", "gpu": "1", "total_gib": 23.65, "wanted_gib": 0.264, "free_gib": 0.203}
    found = [
        judged(OOM, "root", OOM_TEXT, Where("saves/qwen/console.log", 482), facts=facts_oom, rank=1),
        judged(
            SLOW_LOADER,
            "contributing",
            "step 100: 3.2 s",
            Where("saves/qwen/trainer_log.jsonl", 10, 100),
            facts={"share": 0.31},
            steps=(20, 120),
        ),
        judged(TORCHRUN, "consequence", "ChildFailedError", Where("saves/qwen/console.log", 510), explained_by=OOM.id),
    ]
    smaller = Change("config", "set", "per_device_train_batch_size", 8, 4)
    more = Change("config", "set", "gradient_accumulation_steps", 2, 4)
    fresh = Change("config", "set", "output_dir", "saves/qwen", "saves/qwen-2")
    plan = Plan(
        (
            (
                advice(QUANTISE, "conflict", "Not needed: the smaller batch is enough.", "더 작은 배치로 충분하므로 필요하지 않습니다."),
                advice(CHECKPOINTING, "done", "On: LLaMA-Factory's default.", "LLaMA-Factory 기본값으로 이미 켜져 있습니다."),
                advice(BATCH, "apply", "Frees about 6 GiB.", "약 6 GiB를 줄입니다.", smaller),
                advice(ACCUMULATE, "apply", "Keeps the effective batch.", "실제 배치 크기를 유지합니다.", more),
                advice(RANK, "not_applicable", "Frees 0.1 GiB: not worth it.", "0.1 GiB만 줄어들어 효과가 거의 없습니다."),
                advice(ALLOCATOR, "manual", "1.0 GiB is reserved but unused.", "1.0 GiB가 예약만 되고 쓰이지 않습니다."),
                advice(ZERO, "not_applicable", "One GPU.", "GPU가 하나입니다."),
            ),
            (advice(ZERO, "not_applicable", "", ""),),
            (),
        ),
        PlannedPatch(
            patch=Patch((smaller, more, fresh), {"per_device_train_batch_size": "memory/cuda-oom#smaller-batch"}),
            source="saves/qwen/train.yaml",
            yaml=PATCHED_YAML,
            diff=(
                "--- a/train.yaml\n+++ b/train.yaml\n@@ -1,4 +1,4 @@\n-per_device_train_batch_size: 8\n+per_device_train_batch_size: 4\n"
                "-gradient_accumulation_steps: 2\n+gradient_accumulation_steps: 4\n-output_dir: saves/qwen\n+output_dir: saves/qwen-2\n"
                " hf_hub_token: hf_abcdefghijklmnop1234\n"
            ),
            command="llamafactory-cli train train.patched.yaml",
            notes=(
                both(
                    "A new output_dir, so that the old checkpoint is not resumed.",
                    "이전 체크포인트에서 재개되지 않도록 output_dir을 바꿨습니다.",
                ),
            ),
            memory=Memory(26.1, 19.8, 18.2, 21.9, 23.65),
            effective_batch=(32, 32),
            speed=both("Steps take about 5 % longer.", "스텝이 약 5% 느려집니다."),
        ),
    )
    blind = [UncheckedRule(DIVERGED, "metrics.grad_norm"), UncheckedRule(SLOW_LOADER, "samples")]
    return written(found, plan, run, BOOK, lang, unchecked=blind, sources=SOURCES, path="saves/qwen")


def diverged(lang: str = "en") -> Report:
    """A loss that leaves its course, with its curve, and no YAML to patch."""
    losses = [2.4 - 0.03 * i for i in range(40)] + [1.4, 3.9, 9.0, math.nan, 9.4, 9.6, 9.8, 9.5]
    run = run_of(*steps_of(losses), Fact(where=HERE, name="run.completed", value=True))
    where = Where("trainer_log.jsonl", 41, 410)
    found = [judged(DIVERGED, "root", "loss 9.0 at step 430", where, facts={"from_step": 420, "ratio": 6.4}, steps=(420, 480))]
    lower = remedy("lower-lr", "Lower the learning rate.", "학습률을 낮춥니다.", "guide/instability/1", effect="changes_training")
    change = Change("config", "set", "learning_rate", 0.01, 0.001)
    plan = Plan(
        ((advice(lower, "apply", "0.01 is far above what LoRA takes.", "0.01은 LoRA에 쓰기에는 너무 큽니다.", change),),),
        PlannedPatch(patch=Patch((change,)), source=None, yaml=None, diff=None, overrides=("learning_rate=0.001",)),
    )
    return written(found, plan, run, BOOK, lang, sources=SOURCES[1:2], path="trainer_log.jsonl")


def empty(lang: str = "en", *, completed: bool = False, crashed: bool = False) -> Report:
    """No finding: a healthy run, a run whose end nobody told, or a failure that no rule knows."""
    end = [Fact(where=HERE, name="run.completed", value=True)] if completed else []
    died = [ProcessEnd(where=Where("console.log", 90), code=1)] if crashed else []
    run = run_of(Fact(where=HERE, name="steps.planned", value=80 if completed else 120), *steps_of([1.2, 1.1, 1.0, 0.9] * 2), *end, *died)
    blind = [UncheckedRule(DIVERGED, "metrics.grad_norm")]
    return written([], Plan(()), run, BOOK, lang, unchecked=blind, sources=SOURCES[:2], path="saves/qwen")
