"""Make seeded consoles of kinds that the reader was not tuned to, for `readers_speed.py`.

    python benchmarks/console_inputs.py KIND MEGABYTES OUT

KIND: nccl (NCCL_DEBUG=INFO), deepspeed, megatron (each line a record), ranks (eight prefixed ranks), redraws (labelled and plain bars with
carriage returns and glued), models (printed configurations), stacks (tracebacks and stack dumps), repeated (one line), alike (lines that
differ in their numbers).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

HEADER = (
    "[INFO|2026-03-02 10:00:00] llamafactory.hparams.parser:144 >> Process rank: 0, world size: 8, device: cuda:0, "
    "distributed training: True, compute dtype: torch.bfloat16\n"
    "[INFO|trainer.py:2409] 2026-03-02 10:01:00,000 >> ***** Running training *****\n"
    "{'loss': 1.25, 'grad_norm': 0.5, 'learning_rate': 0.0001, 'epoch': 0.01}\n"
)
"""First lines of every input: by them the file is a run's."""
FILES = ("torch/nn/modules/module.py", "transformers/trainer.py", "torch/autograd/graph.py")
"""Files of stack frames."""
LABELS = ("Loading checkpoint shards", "Running tokenizer on dataset (num_proc=16)", "Map", "Saving")
"""Labels of bars."""


def nccl(rng: random.Random, number: int) -> str:
    """A line of NCCL's log."""
    a, b = rng.randrange(8), rng.randrange(1 << 44)
    said = (
        f"Channel {a:02d}/0 : {a}[{a}] -> {b % 8}[{b % 8}] [send] via NET/IB/{a}/GDRDMA",
        f"AllReduce: opCount {number:x} sendbuff 0x{b:x} recvbuff 0x{b + 512:x} count {b % 9999} datatype 9 op 0 root 0 [nranks=64]",
        f"Trees [0] {a}/-1/-1->{b % 8}->{a} [1] {a}/-1/-1->{a}->-1",
        "NCCL_IB_DISABLE set by environment to 0.",
    )
    return f"gpu-{a:02d}:{b % 99999}:{number % 99999} [{a}] NCCL INFO {rng.choice(said)}\n"


def deepspeed(rng: random.Random, number: int) -> str:
    """A line of DeepSpeed's log."""
    now = f"[2026-03-02 10:{number % 60:02d}:{rng.randrange(60):02d},{rng.randrange(1000):03d}]"
    if number % 3:
        said = f"step={number}, skipped={rng.randrange(3)}, lr=[{rng.random()}], mom=[(0.9, 0.999)]"
        return f"{now} [INFO] [logging.py:96:log_dist] [Rank 0] {said}\n"
    return f"{now} [INFO] [timer.py:199:stop] epoch=0/micro_step={number}, CurrSamplesPerSec={rng.random():.6f}, MemAllocated=9.1GB\n"


def megatron(rng: random.Random, number: int) -> str:
    """A record as Megatron prints it."""
    return (
        f" [2026-03-02 10:00:{number % 60:02d}] iteration {number:8d}/  500000 | consumed samples: {number * 512:12d} | "
        f"elapsed time per iteration (ms): {rng.randrange(9999)}.1 | learning rate: {rng.random():.6E} | global batch size:   512 | "
        f"lm loss: {1 + rng.random():.6E} | loss scale: 1.0 | grad norm: {rng.random():.3f} | number of nan iterations:   0 |\n"
    )


def ranks(rng: random.Random, number: int) -> str:
    """A line of one of eight ranks."""
    rank = rng.randrange(8)
    said = (
        f"[INFO|trainer.py:{rng.randrange(4000)}] 2026-03-02 10:00:{number % 60:02d},001 >> step {number} done in {rng.random():.3f}s",
        f"data worker {rng.randrange(64)} fetched batch {number} shape=({rank}, 4096)",
        f"UserWarning: torch.cpu.amp.autocast(args...) is deprecated, line {rng.randrange(999)}",
        f"input_ids: {[rng.randrange(150_000) for _ in range(20)]}",
    )
    return f"{rng.choice((f'[rank{rank}]: ', f'[default{rank}]:', f'gpu-{rank:02d}: ', f'{rank}: '))}{rng.choice(said)}\n"


def redraws(rng: random.Random, number: int) -> str:
    """A redraw of a bar."""
    bar = f"{number % 100:3d}%|{'█' * (number % 10):10}| {number}/900000 [00:{number % 60:02d}<00:{rng.randrange(60):02d}, 1.25s/it]"
    before = ("\r", "\r", f"\r{LABELS[number % 4]}: ", " ")[rng.randrange(4)]
    return f"{before}{bar}" + ("\n" if number % 200 == 0 else "")


def models(rng: random.Random, number: int) -> str:
    """A printed configuration, or other JSON."""
    keys = "".join(f'  "key_{key}": {rng.randrange(9999)},\n' for key in range(25))
    if number % 2:
        return f'[INFO|configuration_utils.py:765] >> Model config Qwen3Config {{\n{keys}  "hidden_size": 2560\n}}\n\n'
    return "{\n" + keys + "}\n"


def stacks(rng: random.Random, number: int) -> str:
    """A stack dump or a traceback."""
    frames = [(rng.choice(FILES), rng.randrange(3000)) for _ in range(10)]
    if number % 2:
        dump = "".join(f'  File "{file}", line {line} in step\n' for file, line in frames)
        return f"Thread 0x{number:012x} (most recent call first):\n{dump}"
    shown = "".join(f'  File "{file}", line {line}, in step\n    return step(x)\n' for file, line in frames)
    return f"Traceback (most recent call last):\n{shown}ValueError: sample {number} failed, retrying\n"


def repeated(_rng: random.Random, _number: int) -> str:
    """One line, always the same."""
    return "[rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.16 GiB. GPU 3 has a total capacity of 23.64 GiB.\n"


def alike(rng: random.Random, number: int) -> str:
    """A warning or an error that differs in its numbers only."""
    if number % 2:
        return f"RuntimeError: CUDA error: device-side assert triggered at sample {number}\n"
    said = f"Dropped lengthy example with length {rng.randrange(9000)} > 2048."
    return f"[WARNING|2026-03-02 10:00:{number % 60:02d}] llamafactory.data.processor.supervised:168 >> {said}\n"


KINDS: dict[str, Callable[[random.Random, int], str]] = {
    maker.__name__: maker for maker in (nccl, deepspeed, megatron, ranks, redraws, models, stacks, repeated, alike)
}
"""Name -> what makes the next piece."""


def pieces(kind: str, megabytes: int) -> Iterator[str]:
    """The text, at least so large."""
    rng, written, number = random.Random(megabytes), 0, 0
    yield HEADER
    while written < megabytes * 1_000_000:
        number += 1
        piece = KINDS[kind](rng, number)
        written += len(piece)
        yield piece


def main() -> None:
    """Write one input."""
    if len(sys.argv) != 4 or sys.argv[1] not in KINDS:
        sys.exit(__doc__)
    with Path(sys.argv[3]).open("w", encoding="utf-8", newline="") as out:
        out.writelines(pieces(sys.argv[1], int(sys.argv[2])))


if __name__ == "__main__":
    main()
