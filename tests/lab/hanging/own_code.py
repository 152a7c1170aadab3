"""Code as users add it to a training, with one fault each: it never returns. Chosen by name; nothing here knows of lfdoctor.

A hang touches `struck-RANK` first: when it began. `struck` of the healthy cases marks nothing: they end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import filelock
import torch
import torch.distributed as dist
from huggingface_hub.utils import WeakFileLock
from transformers import TrainerCallback

RANK = int(os.environ.get("RANK", "0"))
FOREVER = 100_000


def begins() -> None:
    Path(f"struck-{RANK}").touch()


# collectives that one rank alone enters


def sync_clock() -> None:
    begins()
    dist.barrier()


def mean_reward() -> None:
    begins()
    dist.all_reduce(torch.ones(3))


def collect_metrics() -> None:
    begins()
    parts: list[Any] = [None, None]
    dist.all_gather_object(parts, {"loss": 1.0})


def draw_seed() -> None:
    begins()
    dist.broadcast_object_list([7], src=1 - RANK)


def wait_for_others() -> None:
    begins()
    dist.distributed_c10d._get_default_store().wait(["never-set"], timedelta(hours=20))


def pooled_scores() -> None:
    begins()
    scores = [torch.zeros(2), torch.zeros(2)]
    dist.all_gather(scores, torch.ones(2))


# reading data


def open_shard() -> None:
    begins()
    with contextlib.suppress(FileExistsError):
        os.mkfifo("shard-7.bin")  # stands for a network disk that does not answer
    Path("shard-7.bin").read_bytes()


def fetch_image() -> None:
    begins()
    time.sleep(FOREVER)


LOCK = threading.Lock()


def shared_cache() -> None:
    begins()
    LOCK.acquire()
    LOCK.acquire()


def decode_video() -> None:
    begins()
    os.kill(os.getpid(), signal.SIGSTOP)


def download_shard() -> None:
    """A server that accepts and never answers."""
    begins()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as connection:
        connection.recv(1)


def next_item() -> None:
    begins()
    queue.Queue().get()


# locks


def compile_kernel() -> None:
    """An extension whose build folder holds the lock of a build that was killed."""
    from torch.utils import cpp_extension

    begins()
    Path("kernel.cpp").write_text("int one() { return 1; }\n")
    cpp_extension.load(name="kernel", sources=["kernel.cpp"], build_directory=str(Path("build/kernel").resolve()))


def download_model() -> None:
    begins()
    with WeakFileLock("hub/.locks/models--org--name/abc.lock"):
        pass


def prepare_cache() -> None:
    begins()
    with filelock.FileLock("cache/prepared.lock"):
        pass


def claim_batch() -> None:
    """filelock breaks its own stale marker files; torch's baton does not."""
    from torch.utils.file_baton import FileBaton

    begins()
    FileBaton("cache/claim.lock").wait()


def append_log() -> None:
    begins()
    with Path("cache/results.csv").open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


# tokenizing


def normalise_text() -> None:
    begins()
    time.sleep(FOREVER)


def load_vocabulary() -> None:
    begins()
    threading.Event().wait()


def cached_tokens() -> None:
    begins()
    LOCK.acquire()
    LOCK.acquire()


def fetch_vocabulary() -> None:
    download_shard()


# other code


def report_to_server() -> None:
    download_shard()


def backup_checkpoint() -> None:
    begins()
    subprocess.run(["sleep", str(FOREVER)], check=False)


def wait_until_ready() -> None:
    begins()
    while not Path("ready").exists():
        pass


def confirm() -> None:
    begins()
    os.read(os.pipe()[0], 1)


def drain() -> None:
    begins()
    thread = threading.Thread(target=time.sleep, args=(FOREVER,), daemon=True)
    thread.start()
    thread.join()


def publish() -> None:
    begins()
    condition = threading.Condition()
    with condition:
        condition.wait()


# where they are called


class Own(TrainerCallback):
    """Calls a function at one event of one step on one rank."""

    def __init__(self, event: str, step: int, rank: int | None, function: Callable[[], None]) -> None:
        def called(args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step >= step and (rank is None or rank == RANK):
                function()

        setattr(self, event, called)


CALLS = {"batches": 0}


def in_collator(rank: int, batch: int, function: Callable[[], None]) -> None:
    """Before a batch is put together: in the training process, or in a data loader's worker."""
    from llamafactory.data import collator

    inner = collator.SFTDataCollatorWith4DAttentionMask.__call__

    def collate(self: Any, features: Any) -> Any:
        CALLS["batches"] += 1
        if rank == RANK and batch <= CALLS["batches"]:
            function()
        return inner(self, features)

    collator.SFTDataCollatorWith4DAttentionMask.__call__ = collate


def in_tokenizer(rank: int, example: int, function: Callable[[], None]) -> None:
    """Before an example is tokenized."""
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor as Processor

    inner = Processor._encode_data_example

    def encode(self: Any, *args: Any, **kwargs: Any) -> Any:
        CALLS["examples"] = CALLS.get("examples", 0) + 1
        if rank == RANK and example <= CALLS["examples"]:
            function()
        return inner(self, *args, **kwargs)

    Processor._encode_data_example = encode


def at_start(module: str, name: str, rank: int | None, function: Callable[[], None]) -> None:
    """Before a function of LLaMA-Factory's SFT workflow."""
    import importlib

    owner = importlib.import_module(module)
    inner = getattr(owner, name)

    def first(*args: Any, **kwargs: Any) -> Any:
        if rank is None or rank == RANK:
            function()
        return inner(*args, **kwargs)

    setattr(owner, name, first)


WORKFLOW = "llamafactory.train.sft.workflow"


def install(name: str) -> list[TrainerCallback]:
    """Put the case `name` in place; callbacks for run_exp."""
    where = PLACES.get(name)
    if where is None:
        import importlib

        return list(importlib.import_module("nan_code" if name.startswith("nan-") else "busy_code").install(name))
    how, *rest = where
    if how == "callback":
        event, step, rank, function = rest
        return [Own(event, step, rank, function)]
    {"collator": in_collator, "tokenizer": in_tokenizer, "start": at_start}[how](*rest)
    return []


PLACES: dict[str, tuple[Any, ...]] = {
    "collective-barrier": ("callback", "on_step_end", 6, 1, sync_clock),
    "collective-log": ("callback", "on_log", 5, 0, mean_reward),
    "collective-save": ("callback", "on_save", 4, 0, collect_metrics),
    "collective-collator": ("collator", 1, 9, draw_seed),
    "collective-store": ("callback", "on_step_begin", 7, 1, wait_for_others),
    "collective-evaluation": ("callback", "on_evaluate", 4, 0, pooled_scores),
    "loader-disk": ("collator", 1, 7, open_shard),
    "loader-worker": ("collator", 0, 9, fetch_image),
    "loader-worker-lock": ("collator", 1, 9, shared_cache),
    "loader-worker-stopped": ("collator", 1, 9, decode_video),
    "loader-download": ("collator", 0, 11, download_shard),
    "loader-queue": ("collator", 1, 9, next_item),
    "lock-extension": ("start", WORKFLOW, "load_model", None, compile_kernel),
    "lock-extension-step": ("callback", "on_step_begin", 5, 1, compile_kernel),
    "lock-hub": ("start", WORKFLOW, "load_tokenizer", 0, download_model),
    "lock-cache": ("start", WORKFLOW, "get_dataset", 0, prepare_cache),
    "lock-baton": ("collator", 1, 13, claim_batch),
    "lock-flock": ("callback", "on_log", 6, 0, append_log),
    "tokenizer-text": ("tokenizer", 0, 30, normalise_text),
    "tokenizer-pool": ("tokenizer", 0, 30, normalise_text),
    "tokenizer-vocabulary": ("start", WORKFLOW, "get_template_and_fix_tokenizer", 1, load_vocabulary),
    "tokenizer-lock": ("tokenizer", 0, 100, cached_tokens),
    "tokenizer-download": ("start", WORKFLOW, "load_tokenizer", 0, fetch_vocabulary),
    "tokenizer-streaming": ("tokenizer", 0, 60, normalise_text),
    "user-server": ("callback", "on_step_begin", 6, 1, report_to_server),
    "user-backup": ("callback", "on_save", 4, 0, backup_checkpoint),
    "user-busy": ("callback", "on_step_end", 6, 1, wait_until_ready),
    "user-confirm": ("callback", "on_log", 5, 0, confirm),
    "user-thread": ("callback", "on_log", 7, 1, drain),
    "user-evaluation": ("callback", "on_evaluate", 4, 1, publish),
}
"""Case -> where its code is called, and what it calls."""
