"""LLaMA-Factory in a process of its own, for a question or a training: it keeps global state, and may exit. For the lab's own Python."""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer(ask: Callable[[], str | None]) -> str | None:
    """The error that `ask` tells, None for none; asked again where another process took the port in between."""
    for _ in range(5):
        error = _in_a_fork(ask)
        if error is None or not ("EADDRINUSE" in error or "address already in use" in error.lower()):
            break
    return error


def _in_a_fork(ask: Callable[[], str | None]) -> str | None:
    """Its output is thrown away."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        silent = os.open(os.devnull, os.O_RDWR)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os.write(write, json.dumps(ask()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told) if told else "the parser died"


def load_training(*, with_deepspeed: bool = False) -> None:
    """Import once what every training imports (five seconds), before the forks."""
    sys.modules.update({"bitsandbytes": None} if with_deepspeed else {"bitsandbytes": None, "deepspeed": None})  # slow to import
    import llamafactory.train.tuner  # noqa: F401
    import peft.tuners.lora.model  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401
    import trl  # noqa: F401

    if with_deepspeed:
        import deepspeed.comm.torch  # noqa: F401

    torch.set_num_threads(1)


def train(job: Mapping[str, Any], run: Callable[[int], None]) -> list[int]:
    """`run(rank)` in one fork for each rank of the job, as torchrun starts them; their exit codes.

    `work`: the folder in which they run, where all of their output is in all.log. `ranks`: how many, by default one. `launched`: one rank
    alone is started as several are (FORCE_TORCHRUN=1).
    """
    port, ranks = free_port(), []
    for rank in range(job.get("ranks", 1)):
        pid = os.fork()
        if pid == 0:
            code = _rank(job, rank, port, run)
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        ranks.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks]


def _rank(job: Mapping[str, Any], rank: int, port: int, run: Callable[[int], None]) -> int:
    os.chdir(job["work"])
    log = os.open("all.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    count = str(job.get("ranks", 1))
    if count != "1" or job.get("launched"):
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=count, LOCAL_WORLD_SIZE=count)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    sys.argv = ["train.py"]
    try:
        run(rank)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
