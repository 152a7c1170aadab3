"""What the lab runs: one entry per run, each with the fault that is put in and the cause that the doctor must name."""

from tests.lab.scenarios import config, healthy, memory, processes, slow, stability
from tests.lab.scenarios.base import Scenario

SCENARIOS: list[Scenario] = [
    *memory.memory(),
    *processes.cascades(),
    *processes.killed(),
    *stability.stability(),
    *slow.slow(),
    *config.config(),
    *healthy.healthy(),
]
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}

VARIANTS = frozenset(
    {
        "gpu_oom_activations-forward-torch1",
        "gpu_oom_activations-forward-torch20",
        "gpu_oom_activations-forward-torch21",
        "gpu_oom_activations-forward-torch22",
        "gpu_oom_activations-backward-terminal",
        "gpu_oom_activations-one-rank-backward",
        "gpu_oom_activations-both-ranks",
        "gpu_oom_model_exceeds_single_gpu-load",
        "gpu_oom_eval_or_predict-one-rank-eval",
        "device_held_by_other_process-shared-card",
        "gpu_oom_fragmentation-fragmented",
        "disk_full-checkpoint",
        "process_killed_unconfirmed-sigkill-unbuffered",
        "process_killed_unconfirmed-rank0-sigkill",
        "native_library_crash-rank1-sigsegv",
        "nccl_timeout_rank_desync-hang-rank0",
        "lr_too_high-full",
        "nonfinite_cause_unknown-unfiltered",
        "nonfinite_cause_unknown-logged-every-5",
        "nonfinite_cause_unknown-one-batch",
        "slow-data-loader",
        "slow-rank",
        "slow-checkpoints",
        "slow-checkpoints-every-5",
        "slow-evaluation-every-10",
        "config-qlora-4bit",
        "config-guide-budget",
        "config-batch-zero",
        "config-flash-attn-true",
        "config-learning-rate-text",
        "config-unknown-key",
        "dataset_json_malformed-cut-off",
        "dataset_columns_or_tags_mismatch-stage",
        "checkpoint_load_failure-full-over-lora",
        "healthy-freeze",
        "healthy-orpo",
        "healthy-split-streams",
        "healthy-terminal",
        "healthy-epochs",
    }
)
"""Close to another scenario: `make lab` judges their recordings in fixtures/, `--all` runs them afresh."""

__all__ = ["BY_NAME", "SCENARIOS", "VARIANTS", "Scenario"]
