"""Runs that are slow for a known reason, with the seconds that were put in."""

from __future__ import annotations

from tests.lab.scenarios.base import Scenario

LONG = {"max_steps": 40, "include_num_input_tokens_seen": True}


def slow() -> list[Scenario]:
    """The clock runs 30 times too fast: a sleep of 0.2 s is one of 6 s to everybody who looks at the logs."""

    def sleepy(name: str, cause: str, says: str, at: str, seconds: float, **rest: object) -> Scenario:
        fault = {"at": at, "do": "sleep", "seconds": seconds, **{key: rest.pop(key) for key in ("step", "times", "rank") if key in rest}}
        return Scenario(name, cause, says, fault=fault, **{"clock": 30, "change": LONG, "share": "injected", **rest})  # type: ignore[arg-type]

    return [
        sleepy("slow-data-loader", "slow_data*", "the collator sleeps before every micro batch", "collate", 0.2, decidable=False),
        sleepy("slow-rank", "slow*", "rank 1 of 2 sleeps before every step", "step", 0.3, rank=1, ranks=2, decidable=False),
        sleepy("slow-data-loader-watched", "slow_data_loader", "as slow-data-loader, seen by the callback", "collate", 0.2, watched=True),
        sleepy("slow-rank-watched", "slow_rank", "as slow-rank, seen by the callback", "step", 0.3, rank=1, ranks=2, watched=True),
        sleepy("slow-steps-from-20", "slow_step_drift", "every step from the 20th on takes longer", "step", 0.2, step=20, clock=100),
        sleepy("stalled-once", "slow_stall", "one long pause at step 20", "step", 12.0, step=20, times=1),
        sleepy(
            "slow-checkpoints",
            "slow_checkpointing",
            "a checkpoint every step, slow to write: no step without one to compare with",
            "save",
            0.1,
            change={"save_steps": 1, "save_total_limit": 2, "max_steps": 40},
            share="save",
            decidable=False,
        ),
        sleepy(
            "slow-checkpoints-watched",
            "slow_checkpointing",
            "as slow-checkpoints, seen by the callback",
            "save",
            0.1,
            change={"save_steps": 1, "save_total_limit": 2, "max_steps": 40},
            share="save",
            watched=True,
        ),
        Scenario(
            "slow-checkpoints-every-5",
            "slow_checkpointing",
            "a checkpoint every five steps, slow to write",
            {"save_steps": 5, "save_total_limit": 2, "max_steps": 40},
            fault={"at": "save", "do": "sleep", "seconds": 0.3},
            share="save",
            clock=30,
            curable=True,
        ),
        Scenario(
            "slow-evaluation",
            "slow_eval_too_often",
            "an evaluation every step",
            {"eval_strategy": "steps", "eval_steps": 1, "val_size": 0.2, "max_steps": 60, "per_device_eval_batch_size": 4},
            share="eval",
            clock=30,
            curable=True,
        ),
        Scenario(
            "slow-evaluation-every-10",
            "slow_eval_too_often",
            "an evaluation every ten steps over a third of the data",
            {"eval_strategy": "steps", "eval_steps": 10, "val_size": 0.33, "max_steps": 60, "per_device_eval_batch_size": 2},
            share="eval",
            clock=30,
            curable=True,
        ),
        Scenario(
            "slow_tokenization-one-worker",
            "slow_tokenization",
            "tokenising takes hours in one worker",
            {"overwrite_cache": True, "max_steps": 10},
            fault={"at": "tokenise", "do": "sleep", "seconds": 0.08},
            clock=300,
            curable=True,
        ),
    ]
