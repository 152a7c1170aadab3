"""Processes that are killed, crash, hang or exit, alone or one rank of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.lab.scenarios.base import Scenario


def killed() -> list[Scenario]:
    def signalled(name: str, cause: str, says: str, number: int, **rest: Any) -> Scenario:
        fault = {"at": "step", "do": "signal", "signal": number, "step": 8, **({"rank": rest["failing_rank"]} if rest.get("ranks") else {})}
        return Scenario(f"{cause}-{name}", cause, says, {"max_steps": 24, "save_steps": 6}, fault=fault, **rest)

    unknown, crash = "process_killed_unconfirmed", "native_library_crash"
    return [
        signalled("sigkill", unknown, "SIGKILL; the shell says so", 9),
        signalled("sigkill-silent", unknown, "SIGKILL and nothing says so: the log just stops", 9, script=False, decidable=False),
        signalled("sigkill-unbuffered", unknown, "SIGKILL with PYTHONUNBUFFERED=1", 9, unbuffered=True),
        signalled("sigsegv", crash, "SIGSEGV", 11),
        Scenario(
            "host_ram_oom_checkpoint_save-sigkill",
            "host_ram_oom_checkpoint_save",
            "SIGKILL while a checkpoint is written",
            {"max_steps": 24, "save_steps": 6},
            fault={"at": "save", "do": "signal", "signal": 9},
            also=(unknown,),
        ),
        signalled(
            "sigterm",
            unknown,
            "SIGTERM, as schedulers and `kill` send it: somebody wanted it to stop",
            15,
            decidable=False,
            status="interrupted",
        ),
        Scenario(
            "interrupted-ctrl-c",
            "*",
            "KeyboardInterrupt at step 8: somebody wanted it to stop",
            {"max_steps": 24, "save_steps": 6},
            fault={"at": "step", "do": "interrupt", "step": 8},
            capture="terminal",
            decidable=False,
            status="interrupted",
        ),
        signalled("rank1-sigkill", unknown, "rank 1 of 2 is killed", 9, ranks=2, failing_rank=1),
        signalled("rank0-sigkill", unknown, "rank 0 of 2 is killed", 9, ranks=2, failing_rank=0),
        signalled("rank1-sigsegv", crash, "rank 1 of 2 dies of SIGSEGV", 11, ranks=2, failing_rank=1),
    ]


def cascades() -> list[Scenario]:
    def on_rank(
        name: str, cause: str, says: str, rank: int, fault: Mapping[str, Any], change: Mapping[str, Any] | None = None, **rest: Any
    ) -> Scenario:
        rest = {"ranks": 2, "failing_rank": rank, **rest}
        return Scenario(name, cause, says, {"max_steps": 24, **(change or {})}, fault={"step": 8, **fault, "rank": rank}, **rest)

    return [
        on_rank(
            "process_exited-rank1",
            "process_exited*",
            "rank 1 of 2 calls sys.exit(3)",
            1,
            {"at": "step", "do": "exit", "code": 3},
            also=("process*", "unknown"),
        ),
        on_rank(
            "data-error-rank1",
            "dataset*",
            "KeyError in the collator of rank 1",
            1,
            {"at": "collate", "do": "raise", "raise": "KeyError", "args": ["input_ids"]},
            also=("unknown", "*mismatch*"),
        ),
        on_rank(
            "host_memory-rank1",
            "host_ram_*",
            "MemoryError on rank 1",
            1,
            {"at": "collate", "do": "raise", "raise": "MemoryError"},
            also=("*",),
        ),
        on_rank(
            "nccl_timeout_rank_desync-hang",
            "nccl_timeout_rank_desync",
            "rank 1 hangs; gloo gives up on rank 0 after ddp_timeout",
            1,
            {"at": "step", "do": "sleep", "seconds": 10000},
            {"ddp_timeout": 15},
            failing_rank=0,
        ),
        on_rank(
            "nccl_timeout_rank_desync-hang-rank0",
            "nccl_timeout_rank_desync",
            "rank 0 hangs; rank 1 gives up",
            0,
            {"at": "step", "do": "sleep", "seconds": 10000},
            {"ddp_timeout": 15},
            failing_rank=1,
        ),
        on_rank(
            "nccl_timeout_during_preprocessing-slow",
            "nccl_timeout_during_preprocessing",
            "rank 0 tokenises for longer than ddp_timeout",
            0,
            {"at": "tokenise", "do": "sleep", "seconds": 0.15, "step": 0},
            {"ddp_timeout": 15, "overwrite_cache": True},
            failing_rank=1,
        ),
        Scenario(
            "port_in_use-two-ranks",
            "port_in_use",
            "another program listens on the master port",
            {"max_steps": 24},
            ranks=2,
            held_port=29511,
            env={"MASTER_PORT": "29511"},
        ),
    ]
