"""Make seeded inputs for the readers' benchmarks: consoles, trainer logs, states, event files and a typical run folder.

    python benchmarks/inputs.py KIND SIZE OUT

KIND is one of:

- bars: SIZE MB of a realistic large console: progress bars, NCCL and library messages, at most 50,000 loss records, ranks, an OOM in the
  middle, torchrun's failure block at the end.
- hostile: SIZE MB of lines that nearly match a rule: half contain a rule's literal with a wrong character, half a literal that is not
  enough for any rule.
- flood: SIZE MB; half of the lines match a rule.
- records: a console of SIZE loss records.
- trainer_log, trainer_state: SIZE records.
- events: SIZE steps of 20 tags.
- run: a folder with a console of 3 x SIZE lines and SIZE records.

More than 300 lines, as all kinds share the same loss curve and line generators.
"""

from __future__ import annotations

import json
import math
import random
import re
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

HOST = "node-07"
"""Host name in the inputs."""

TAGS = (
    "train/loss", "train/grad_norm", "train/learning_rate", "train/epoch", "train/num_input_tokens_seen", "train/train_runtime",
    "train/train_tokens_per_second", "eval/loss", "eval/runtime", "eval/samples_per_second", "eval/steps_per_second",
    "train/rewards/chosen", "train/rewards/rejected", "train/rewards/accuracies", "train/rewards/margins", "train/logps/chosen",
    "train/logps/rejected", "train/logits/chosen", "train/logits/rejected", "train/sft_loss",
)  # fmt: skip
"""TensorBoard tags of an event file."""

RECORDS = 50_000
"""Maximum loss records of a realistic console."""


def clock(seconds: float) -> str:
    """A duration as tqdm writes it."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60:02d}:{rest % 60:02d}"


def loss_at(step: int, steps: int) -> float:
    """Loss of a typical fine-tune. Its noise depends on the step alone, so all files of a run agree."""
    return 0.4 + 1.2 * math.exp(-3 * step / steps) + 0.1 * (step * 7919 % 1009 / 1009 - 0.5)


def bar(step: int, steps: int, seconds: float) -> str:
    """A redraw of the training's progress bar."""
    share = step / steps
    filled = int(share * 10)
    shown, left = "█" * filled + " " * (10 - filled), clock(seconds / share - seconds)
    return f"\r{int(share * 100):3d}%|{shown}| {step}/{steps} [{clock(seconds)}<{left},  1.25s/it]"


def record(step: int, steps: int, rng: random.Random, strings: bool) -> str:
    """A dict line, of transformers 5 (`strings`) or 4."""
    loss, norm = loss_at(step, steps), abs(rng.gauss(0.6, 0.2))
    rate, epoch = 1e-4 * (1 - step / (steps + 1)), 3 * step / steps
    if strings:
        return f"{{'loss': '{loss:.4g}', 'grad_norm': '{norm:.4g}', 'learning_rate': '{rate:.4g}', 'epoch': '{epoch:.4g}'}}\n"
    return f"{{'loss': {loss:.4f}, 'grad_norm': {norm!r}, 'learning_rate': {rate!r}, 'epoch': {epoch:.2f}}}\n"


def spam(rng: random.Random) -> str:
    """A line that NCCL or a library prints often."""
    kind, a, b = rng.randrange(6), rng.randrange(10_000), rng.randrange(64)
    now = f"2026-03-02 10:{a % 60:02d}:{b % 60:02d},{a % 1000:03d}"
    if kind < 3:
        return f"{HOST}:{a}:{a + b} [{b % 8}] NCCL INFO Channel {b % 24:02d}/0 : {b % 8}[{b % 8}] -> {a % 8}[{a % 8}] via P2P/CUMEM/read\n"
    if kind == 3:
        message = f"step={a}, skipped=0, lr=[{a * 1e-9:.6e}], mom=[(0.9, 0.999)]"
        return f"[default{b % 8}]:[{now}] [INFO] [logging.py:128:log_dist] [Rank 0] {message}\n"
    if kind == 4:
        place = "/opt/conda/lib/python3.11/site-packages/torch/utils/checkpoint.py"
        return f"{place}:{a}: UserWarning: the default of use_reentrant will change\n  warnings.warn(\n"
    return (
        f"[INFO|tokenization_utils_base.py:2500] {now} >> tokenizer config file saved in saves/sft/checkpoint-{a}/tokenizer_config.json\n"
    )


def header(steps: int) -> str:
    """The lines before the first progress bar."""
    ranks = "".join(
        f"[INFO|2026-03-02 10:00:0{rank}] llamafactory.hparams.parser:144 >> Process rank: {rank}, world size: 8, device: cuda:{rank}, "
        "distributed training: True, compute dtype: torch.bfloat16\n"
        for rank in range(8)
    )
    stamp = "[INFO|trainer.py:2409] 2026-03-02 10:01:00,000 >>"
    lines = ("***** Running training *****", "  Num examples = 1,000,000", "  Num Epochs = 3", f"  Total optimization steps = {steps:,}")
    return ranks + "".join(f"{stamp} {line}\n" for line in lines)


def oom(rank: int) -> str:
    """An OOM traceback of a rank, each line with its prefix."""
    lines = (
        "Traceback (most recent call last):",
        '  File "/app/src/llamafactory/launcher.py", line 185, in <module>',
        "    run_exp()",
        '  File "/opt/conda/lib/python3.11/site-packages/transformers/trainer.py", line 2325, in _inner_training_loop',
        "    tr_loss_step = self.training_step(model, inputs)",
        '  File "/opt/conda/lib/python3.11/site-packages/torch/nn/modules/linear.py", line 134, in forward',
        "    return F.linear(input, self.weight, self.bias)",
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.16 GiB. GPU {rank} has a total capacity of 79.10 GiB of which "
        "912.81 MiB is free. Including non-PyTorch memory, this process has 78.20 GiB memory in use. Of the allocated memory 76.35 GiB "
        "is allocated by PyTorch, and 1.13 GiB is reserved by PyTorch but unallocated.",
    )
    return "".join(f"[rank{rank}]: {line}\n" for line in lines)


def torchrun_block(rank: int) -> str:
    """torchrun's failure block."""
    line = "E0302 11:02:09.100000 140213 torch/distributed/elastic/multiprocessing/api.py:874] failed (exitcode: 1) local_rank:"
    return (
        f"{line} {rank} (pid: 140287) of binary: /opt/conda/bin/python\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n" + "=" * 60 + "\n"
        "/app/src/llamafactory/launcher.py FAILED\n" + "-" * 60 + "\nFailures:\n  <NO_OTHER_FAILURES>\n" + "-" * 60 + "\n"
        f"Root Cause (first observed failure):\n[0]:\n  time      : 2026-03-02_11:02:09\n  host      : {HOST}\n"
        f"  rank      : {rank} (local_rank: {rank})\n  exitcode  : 1 (pid: 140287)\n  error_file: <N/A>\n" + "=" * 60 + "\n"
    )


def bars(megabytes: int) -> Iterator[str]:
    """The realistic large console."""
    rng = random.Random(megabytes)
    size, steps = megabytes * 1_000_000, megabytes * 11_000
    every = max(10, -(-steps // RECORDS))
    yield header(steps)
    written, failed = 2_000, False
    for step in range(1, steps + 1):
        text = bar(step, steps, 1.25 * step)
        if step % every == 0:
            text += "\r" + " " * 70 + "\r" + record(step, steps, rng, failed) + text
        if rng.random() < 0.05:
            text += "\n" + spam(rng)
        if not failed and written > size / 2:
            text += "\n" + oom(3)
            failed = True
        written += len(text.encode())
        yield text
        if written > size - 3_000:
            break
    yield "\n" + torchrun_block(3)


def spread(megabytes: int, whole: list[str], broken: list[str]) -> Iterator[str]:
    """Distinct lines without bars, alternating between a literal of `whole` and a literal of `broken` with a wrong character."""
    rng = random.Random(megabytes)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(5000)]
    yield header(100)
    written, size = 2_000, megabytes * 1_000_000
    while written < size - 3_000:
        block = []
        for count in range(2000):
            literal = rng.choice(broken if count % 2 else whole)
            if count % 2:
                place = rng.randrange(1, len(literal))
                literal = f"{literal[:place]}~{literal[place + 1 :]}"
            before, after = " ".join(rng.choices(words, k=4)), " ".join(rng.choices(words, k=5))
            block.append(f"[INFO|{rng.choice(words)}.py:{rng.randint(1, 999)}] {before} {literal} {after} {rng.getrandbits(48):x}\n")
        text = "".join(block)
        written += len(text.encode())
        yield text
    yield oom(3) + torchrun_block(3)


def literals() -> tuple[list[str], list[str]]:
    """The rules' literals in two groups: those that suffice for a rule or a fact, and those that need more text."""
    from doctor.diagnosis.engine import Engine
    from doctor.readers.console import facts
    from doctor.rulebook import loader

    engine = Engine(loader.load().rules)
    expressions = [re.compile(expression) for rule in engine.rules for expression in rule.params.get("any_of", ())]
    known = sorted(literal for literal in engine.literals if len(literal) > 5 and literal.isprintable())
    enough = [
        literal for literal in known if facts.has_fact(literal) or any(regex.search(f"word {literal} word 0a1b") for regex in expressions)
    ]
    return enough, [literal for literal in known if literal not in enough]


def hostile(megabytes: int) -> Iterator[str]:
    """A console in which every line nearly matches a rule."""
    enough, others = literals()
    yield from spread(megabytes, others, enough + others)


def flood(megabytes: int) -> Iterator[str]:
    """A console in which every second line matches a rule."""
    enough, others = literals()
    yield from spread(megabytes, enough, enough + others)


def records(number: int) -> Iterator[str]:
    """A console of mostly loss records."""
    rng = random.Random(number)
    yield header(number)
    for step in range(1, number + 1):
        yield bar(step, number, step) + "\r" + " " * 70 + "\r" + record(step, number, rng, True)


def trainer_log(number: int) -> Iterator[str]:
    """trainer_log.jsonl of LLaMA-Factory >= 0.9.1 with transformers 5, a record per step."""
    rng = random.Random(number)
    for step in range(1, number + 1):
        yield json.dumps(
            {
                "current_steps": step, "total_steps": number, "loss": loss_at(step, number), "lr": 1e-4 * (1 - step / (number + 1)),
                "epoch": 3 * step / number, "percentage": round(100 * step / number, 2),
                "elapsed_time": f"{step // 3600}:{step // 60 % 60:02d}:{step % 60:02d}",
                "remaining_time": "1 day, 2:03:04", "throughput": round(9000 + rng.random() * 50, 2), "total_tokens": 16384 * step,
            }
        ) + "\n"  # fmt: skip


def trainer_state(number: int) -> Iterator[str]:
    """trainer_state.json as transformers writes it, an evaluation every 50 records."""
    rng = random.Random(number)
    history = []
    for step in range(1, number + 1):
        epoch = 3 * step / number
        record = {
            "loss": loss_at(step, number),
            "grad_norm": abs(rng.gauss(0.6, 0.2)),
            "learning_rate": 1e-4 * (1 - step / (number + 1)),
        }
        history.append({"epoch": epoch, **record, "step": step})
        if step % 50 == 0:
            history.append({"epoch": epoch, "eval_loss": record["loss"] + 0.1, "eval_runtime": 1.5, "step": step})
    yield json.dumps({"epoch": 3.0, "global_step": number, "log_history": history, "max_steps": number, "num_train_epochs": 3}, indent=2)


def crc(data: bytes) -> int:
    """CRC-32C with TFRecord's mask."""
    value = 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 255] ^ (value >> 8)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def table() -> list[int]:
    """The byte table of the Castagnoli polynomial (reflected: 0x82F63B78)."""
    out = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        out.append(byte)
    return out


TABLE = table()
"""The CRC table, built once."""


def varint(value: int) -> bytes:
    """A protobuf varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def frame(data: bytes) -> bytes:
    """A TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", crc(length)) + data + struct.pack("<I", crc(data))


def events(steps: int) -> Iterator[bytes]:
    """A TensorBoard event file as the Trainer writes it: an event per scalar."""
    rng = random.Random(steps)
    yield frame(b"\x09" + struct.pack("<d", 1.7e9) + b"\x1a\x0dbrain.Event:2")
    for step in range(1, steps + 1):
        stamp = b"\x09" + struct.pack("<d", 1.7e9 + step) + b"\x10" + varint(step)
        for tag in TAGS:
            value = b"\x0a" + varint(len(tag)) + tag.encode() + b"\x15" + struct.pack("<f", rng.random())
            summary = b"\x0a" + varint(len(value)) + value
            yield frame(stamp + b"\x2a" + varint(len(summary)) + summary)


def write(out: BinaryIO, parts: Iterator[str | bytes]) -> None:
    """Write in blocks of a few MB."""
    block: list[bytes] = []
    for count, part in enumerate(parts):
        block.append(part if isinstance(part, bytes) else part.encode())
        if count % 20_000 == 0:
            out.write(b"".join(block))
            block.clear()
    out.write(b"".join(block))


MAKERS: dict[str, Callable[[int], Iterator[str | bytes]]] = {
    "bars": bars, "hostile": hostile, "flood": flood, "records": records,
    "trainer_log": trainer_log, "trainer_state": trainer_state, "events": events,
}  # fmt: skip
"""KIND -> function that makes the input."""


def run_folder(number: int, out: Path) -> None:
    """A typical run: console, trainer_log.jsonl and the training YAML."""
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    with (out / "train.log").open("wb") as log:
        lines = (record(step, number, rng, True) + spam(rng) + spam(rng) for step in range(1, number + 1))
        write(log, iter((header(number), *lines, oom(3), torchrun_block(3))))
    with (out / "trainer_log.jsonl").open("wb") as log:
        write(log, trainer_log(number))
    options = "model_name_or_path: models/m\nstage: sft\ndo_train: true\nfinetuning_type: lora\ndataset: d\ntemplate: qwen\n"
    (out / "train.yaml").write_text(f"{options}output_dir: saves/m\nlearning_rate: 1.0e-4\n", encoding="utf-8")


def make(kind: str, size: int, out: Path) -> Path:
    """Path of the input; made if it does not exist."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        if kind == "run":
            run_folder(size, out)
        else:
            half = out.with_name(f"{out.name}.part")
            with half.open("wb") as file:
                write(file, MAKERS[kind](size))
            half.rename(out)
    return out


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in (*MAKERS, "run"):
        sys.exit(__doc__)
    print(make(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
