"""Configs that are wrong, refused before training or in its first seconds."""

from __future__ import annotations

from typing import Any

from tests.lab.scenarios.base import GONE, Scenario

GUIDE_QUICK = """\
# 기본 설정
stage: sft
do_train: true
model_name_or_path: models/tiny-llama
template: llama3

# 데이터셋
dataset: toy
dataset_dir: data
cutoff_len: 1024

# 훈련 방법
finetuning_type: qlora
quantization_bit: 4

# 하이퍼파라미터 (빠른 실험용)
learning_rate: 1e-4
num_train_epochs: 1.0
per_device_train_batch_size: 2
gradient_accumulation_steps: 4

# LoRA 설정
lora_rank: 8
lora_alpha: 16
lora_target: all

# 로깅
output_dir: saves/quick-test
logging_steps: 10
save_steps: 50
"""

GUIDE_PRODUCTION = """\
# 기본 설정
stage: sft
do_train: true
do_eval: true
model_name_or_path: models/tiny-llama
template: llama3

# 데이터셋
dataset: toy
dataset_dir: data
cutoff_len: 2048
max_samples: 50000
preprocessing_num_workers: 16

# 훈련 방법
finetuning_type: lora

# 하이퍼파라미터 (안정성 중심)
learning_rate: 5e-5
lr_scheduler_type: cosine
warmup_steps: 100
num_train_epochs: 3.0
per_device_train_batch_size: 8
gradient_accumulation_steps: 2

# LoRA 설정
lora_rank: 16
lora_alpha: 32
lora_dropout: 0.1
lora_target: all

# 최적화
optim: adamw_torch
weight_decay: 0.01
max_grad_norm: 1.0
gradient_checkpointing: true

# 정밀도
fp16: true
flash_attn: auto

# 로깅 및 저장
output_dir: saves/production-model
logging_steps: 50
save_steps: 500
eval_steps: 500
report_to: tensorboard

# 모니터링
use_swanlab: true
swanlab_project: production
swanlab_run_name: final-model
"""

GUIDE_BUDGET = """\
# 기본 설정
stage: sft
do_train: true
model_name_or_path: models/tiny-llama
template: llama3

# 데이터셋 (작게)
dataset: toy
dataset_dir: data
cutoff_len: 512
max_samples: 1000

# 메모리 최적화
finetuning_type: qlora
quantization_bit: 4
double_quantization: true

# 작은 배치
per_device_train_batch_size: 1
gradient_accumulation_steps: 16
gradient_checkpointing: true

# LoRA (작게)
lora_rank: 4
lora_alpha: 8
lora_target: q_proj,v_proj

# 기타
fp16: true
output_dir: saves/budget-model
"""


def config() -> list[Scenario]:
    def wrong(name: str, says: str, cause: str = "config*", /, curable: bool = True, **change: Any) -> Scenario:
        scenario = {key: change.pop(key) for key in ("also", "earlier", "files", "ranks", "raw", "decidable") if key in change}
        scenario["also"] = (*scenario.get("also", ()), "config_invalid_value")  # the general name of the same mistake
        return Scenario(name, cause, says, {"max_steps": 8, **change}, curable=curable, **scenario)

    return [
        wrong("config-qlora-as-finetuning-type", "the guide's finetuning_type: qlora", "finetuning_type_unknown", finetuning_type="qlora"),
        wrong(
            "config-qlora-4bit",
            "finetuning_type: qlora with quantization_bit: 4",
            "finetuning_type_unknown",
            finetuning_type="qlora",
            quantization_bit=4,
        ),
        wrong("config-flash-attn-true", "flash_attn: true is no name of an attention", "attention_unknown", flash_attn=True),
        wrong("config-stage-orpo", "stage: orpo was replaced by pref_loss", "stage_unknown", stage="orpo", dataset="pair"),
        wrong("config-quantization-none", "quantization_bit: None is the text 'None'", "quantization_bits", quantization_bit="None"),
        wrong("config-learning-rate-text", "a quoted learning rate", "number_in_quotes", learning_rate='"5e-4"'),
        wrong("config-batch-zero", "per_device_train_batch_size: 0", "number_out_of_range", per_device_train_batch_size=0),
        wrong("config-cutoff-zero", "cutoff_len: 0", "number_out_of_range", cutoff_len=0),
        wrong(
            "config-full-quantized",
            "full fine-tuning with quantization_bit: 4",
            "quantized_model_without_adapter",
            finetuning_type="full",
            quantization_bit=4,
            lora_rank=GONE,
            lora_target=GONE,
        ),
        wrong("config-eval-without-data", "do_eval without evaluation data", "eval_data_missing", do_eval=True),
        wrong("config-report-to-unknown", "report_to: wandbb", report_to="wandbb"),
        wrong(
            "config-deepspeed-without-torchrun",
            "deepspeed in one plain process",
            "*deepspeed*",
            deepspeed="ds_z2_config.json",
            files={"ds_z2_config.json": '{"train_batch_size": "auto", "zero_optimization": {"stage": 2}}\n'},
            also=("*launch*", "config*", "*torchrun*"),
        ),
        wrong(
            "config_obsolete_key-evaluation-strategy",
            "evaluation_strategy was renamed to eval_strategy",
            "config_obsolete_key",
            evaluation_strategy="steps",
            eval_steps=4,
            val_size=0.1,
        ),
        wrong("config-unknown-key", "a misspelt key: learning_rates", "config*", learning_rates=1.0e-4, curable=False),
        wrong(
            "eval_save_strategy_mismatch-best-model",
            "load_best_model_at_end without evaluation",
            "eval_save_strategy_mismatch",
            load_best_model_at_end=True,
        ),
        wrong("gpu_without_bf16-cpu", "bf16, and torch sees no GPU", "gpu_not_visible", bf16=True, curable=False),
        wrong("template_missing_or_unknown-name", "template: llama33", "template_missing_or_unknown", curable=False, template="llama33"),
        wrong("lora_target_mismatch-name", "lora_target: query_key_value", "lora_target_mismatch", lora_target="query_key_value"),
        wrong(
            "dataset_not_registered-name", "a name that dataset_info.json lacks", "dataset_not_registered", dataset="my_data", curable=False
        ),
        wrong(
            "dataset_columns_or_tags_mismatch-columns",
            "columns that the file lacks",
            "dataset_columns_or_tags_mismatch",
            dataset="wrong_columns",
            curable=False,
        ),
        wrong(
            "dataset_columns_or_tags_mismatch-stage",
            "stage dpo on data without preferences",
            "dataset_columns_or_tags_mismatch",
            stage="dpo",
            curable=False,
        ),
        wrong(
            "dataset_json_malformed-cut-off",
            "a JSON file that ends too early",
            "dataset_json_malformed",
            dataset="broken_json",
            curable=False,
        ),
        wrong(
            "dataset_empty_after_processing-no-answers",
            "samples without answers",
            "dataset_empty_after_processing",
            dataset="no_answers",
            curable=False,
        ),
        wrong(
            "model_path_not_found-name",
            "a model folder that is not there",
            "model_path*",
            model_name_or_path="models/tiny-lama",
            curable=False,
            also=("hub_unreachable", "*model*"),
        ),
        wrong(
            "package_missing-optim-8bit-galore",
            "use_galore without its package",
            "package*",
            finetuning_type="full",
            use_galore=True,
            lora_rank=GONE,
            lora_target=GONE,
            curable=False,
        ),
        wrong(
            "output_dir_not_empty-finished-run",
            "the folder holds a finished model without checkpoints",
            "output_dir_not_empty",
            save_strategy='"no"',
            earlier=({"max_steps": 4, "save_strategy": '"no"'},),
        ),
        wrong(
            "checkpoint_load_failure-lora-rank",
            "auto-resume from a checkpoint of another lora_rank",
            "checkpoint_load_failure",
            lora_rank=4,
            earlier=({"max_steps": 8, "save_steps": 4},),
            also=("output_dir_not_empty", "*resume*"),
        ),
        wrong(
            "checkpoint_load_failure-full-over-lora",
            "auto-resume of a full fine-tune from a LoRA checkpoint",
            "checkpoint_load_failure",
            finetuning_type="full",
            lora_rank=GONE,
            lora_target=GONE,
            earlier=({"max_steps": 8, "save_steps": 4},),
            also=("output_dir_not_empty", "*resume*"),
        ),
        wrong(
            "resume-silent",
            "a smaller learning rate in the same folder: silently resumed, the new value is ignored",
            "*resume*",
            decidable=False,
            curable=False,
            learning_rate=1.0e-5,
            max_steps=16,
            earlier=({"max_steps": 8, "save_steps": 4},),
            also=("output_dir_not_empty",),
        ),
        wrong("config-guide-quick", "the guide's first example", "finetuning_type_unknown", raw=GUIDE_QUICK),
        wrong(
            "config-guide-production",
            "the guide's second example (swanlab wants an account)",
            "eval_data_missing",
            raw=GUIDE_PRODUCTION,
            curable=False,
        ),
        wrong("config-guide-budget", "the guide's third example", "finetuning_type_unknown", raw=GUIDE_BUDGET),
    ]
