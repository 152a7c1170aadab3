"""Whether a mapping is a configuration of LLaMA-Factory. The only predicate: `check`, `check --fix` and the readers ask it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from doctor.config import knowledge
from doctor.config.option_names import known_somewhere
from doctor.config.options import table

Shape = Literal["v0", "v1", "web ui"]
"""v0: `llamafactory-cli train`; v1: the trainer of USE_V1=1; web ui: llamaboard_config.yaml."""

MIN_KNOWN_SHARE = 0.5
"""More than this share of the top-level keys must be options of some release. 195 published configs: 0.7 and up; DeepSpeed and
accelerate configs, which share the most keys: 0.4 and less."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SPECIFIC = _words(
    """
    model_name_or_path finetuning_type cutoff_len lora_target lora_rank do_train adapter_name_or_path dataset_dir pref_loss
    pref_beta export_dir neat_packing quantization_bit quantization_method tokenized_path per_device_train_batch_size
    per_device_eval_batch_size num_train_epochs infer_backend overwrite_cache preprocessing_num_workers lr_scheduler_type
    predict_with_generate freeze_vision_tower use_mca use_megatron_bridge freeze_trainable_layers max_samples reward_model
    """
)
"""Option names that hardly any other program uses: one of them is enough."""

LLAMAFACTORY_ONLY = _words(
    """
    finetuning_type cutoff_len lora_target dataset_dir pref_loss pref_beta export_dir neat_packing quantization_bit
    quantization_method tokenized_path infer_backend freeze_vision_tower use_mca use_megatron_bridge freeze_trainable_layers
    adapter_name_or_path stage template dataset
    """
)
"""Names that trl and transformers do not have in their YAML files."""

STAGES = frozenset({"pt", "sft", "rm", "ppo", "dpo", "kto", "orpo"})
"""Values of `stage`; orpo was a stage up to 0.7. CI files use the same key for other things."""

FOREIGN = _words(
    """
    apiVersion services jobs openapi swagger asyncapi defaults zero_optimization train_micro_batch_size_per_gpu
    compute_environment distributed_type architectures peft_type wandb_version _wandb site_name nav stages log_history best_metric
    repos dependencies devDependencies compilerOptions plugins scripts channels extends datasources groups receivers
    AWSTemplateFormatVersion Resources resource tasks hosts roles script include workflow steps runs image pipeline _target_ hydra
    """
)
"""Top-level keys of other programs' files; no release of LLaMA-Factory has one of them."""


V1_ONLY = _words("train_dataset peft_config kernel_config quant_config dist_config init_config model_class sample_backend")
"""Names of the v1 trainer that no v0 config has."""


def shape_of(values: Mapping[str, Any]) -> Shape | None:
    """Which kind of LLaMA-Factory config this is; None for any other mapping, however many keys it shares with one.

    A mapping that holds nothing but options is one, however small it is; generation settings alone are transformers' own file.
    """
    if all(key in table() and _plausible(key, value) for key, value in values.items()):
        return "v0" if any(table()[key].group != "generating" for key in values) else None
    stage = values.get("stage")
    names = set(values) - ({"stage"} if isinstance(stage, str) and stage not in STAGES else set())
    shape = shape_by_names(values.keys())
    if shape != "v0":
        return shape
    return "v0" if _telling(names) else None


def _plausible(key: str, value: Any) -> bool:
    """Whether the value can be LLaMA-Factory's: many programs have a key `stage`, `template` or `dataset`."""
    if key == "stage":
        return isinstance(value, str) and value in STAGES
    return not isinstance(value, Mapping) or bool({"dict", "any"} & set(table()[key].type.split("|")))


def shape_by_names(names: Collection[str]) -> Shape | None:
    """The same from the top-level names alone (a file of which only the beginning is known)."""
    keys = {str(name) for name in names}
    if not keys or (keys & FOREIGN and not keys & {"finetuning_type", "cutoff_len"}):
        return None
    if sum(name.startswith(("top.", "train.")) for name in keys) > len(keys) / 2:
        return "web ui"
    v1 = knowledge.options_of("v1").keys()
    if "model" in keys and "model_name_or_path" not in keys and len(keys & v1) > MIN_KNOWN_SHARE * len(keys) and keys & V1_ONLY:
        return "v1"
    known = sum(map(known_somewhere, keys))
    return "v0" if known > MIN_KNOWN_SHARE * len(keys) and _telling(keys) else None


def written_for_llamafactory(values: Mapping[str, Any]) -> bool:
    """Whether a v0 config is certainly LLaMA-Factory's own: trl reads YAML files with the same transformers options."""
    stage = values.get("stage")
    return bool(values.keys() & LLAMAFACTORY_ONLY - ({"stage"} if isinstance(stage, str) and stage not in STAGES else set()))


def _telling(names: Collection[str]) -> bool:
    """One specific name, or two of the plain words that LLaMA-Factory always takes together."""
    plain = len({"stage", "template", "dataset", "learning_rate"} & set(names))
    return bool(SPECIFIC & set(names)) or plain >= 2
