"""Patches for simulated failures of real configs: does LLaMA-Factory's own parser accept each, and what would an engineer say of them?

    python benchmarks/simulated_patches.py CONFIGS [--each 5] [--seed 1] [--draw 80] [--out DIR]

For every YAML under CONFIGS that the real parser accepts, --each failures are played: out of memory on a card of 24, 40 or 80 GB (forward,
backward, loss, optimizer, loading, evaluation), host memory (loading, tokenising, training), NaN, divergence, a spike, a loss of zero,
overfitting, a hang. The folder gets the config and a console in the shape of a real one; `analyze` plans the patch. Counted: patches,
refused ones, changed effective batches, remedies that change the training. --draw N prints N patches chosen by --seed, to be judged by a
person: does it cure (good), is it harmless and not enough or roundabout (weak), does it harm or cannot act (bad)? Needs the lab.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "lab")]

import doctor  # noqa: E402
from doctor.config import yaml_edit  # noqa: E402
from doctor.config.options import effective  # noqa: E402
from doctor.report.model import Report  # noqa: E402
from tests.lab.parser_proof import ask  # noqa: E402

Config = dict[str, Any]
CARDS = {24: "23.65", 40: "39.39", 80: "79.15"}
"""Sold size of a card -> GiB that PyTorch reports."""
SITE = "/opt/venv/lib/python3.11/site-packages"
BEGIN = (
    "$ {launch}llamafactory-cli train train.yaml\n"
    "[INFO|2025-06-01 10:00:00] llamafactory.hparams.parser:143 >> Process rank: 0, world size: {world}, device: cuda:0, distributed"
    " training: {distributed}, compute dtype: {dtype}\n"
)
RUNNING = (
    "[INFO|trainer.py:2414] 2025-06-01 10:05:00,000 >> ***** Running training *****\n"
    "[INFO|trainer.py:2415] 2025-06-01 10:05:00,000 >>   Num examples = 12,000\n"
    "[INFO|trainer.py:2423] 2025-06-01 10:05:00,000 >>   Total optimization steps = {steps:,}\n"
)
FRAMES = {
    "forward": [
        ("transformers/trainer.py", "training_step"),
        ("transformers/trainer.py", "compute_loss"),
        ("transformers/models/qwen2/modeling_qwen2.py", "forward"),
        ("torch/nn/modules/linear.py", "forward"),
    ],
    "backward": [
        ("transformers/trainer.py", "training_step"),
        ("accelerate/accelerator.py", "backward"),
        ("torch/_tensor.py", "backward"),
        ("torch/autograd/graph.py", "_engine_run_backward"),
    ],
    "loss": [
        ("transformers/trainer.py", "training_step"),
        ("transformers/trainer.py", "compute_loss"),
        ("transformers/loss/loss_utils.py", "ForCausalLMLoss"),
        ("transformers/loss/loss_utils.py", "fixed_cross_entropy"),
        ("torch/nn/functional.py", "cross_entropy"),
    ],
    "optimizer": [
        ("transformers/trainer.py", "_inner_training_loop"),
        ("accelerate/optimizer.py", "step"),
        ("torch/optim/adamw.py", "step"),
        ("torch/optim/adam.py", "_init_group"),
    ],
    "load": [
        ("llamafactory/model/loader.py", "load_model"),
        ("transformers/modeling_utils.py", "from_pretrained"),
        ("transformers/modeling_utils.py", "_load_state_dict_into_meta_model"),
    ],
    "eval": [
        ("transformers/trainer.py", "_maybe_log_save_evaluate"),
        ("transformers/trainer.py", "evaluate"),
        ("transformers/trainer.py", "evaluation_loop"),
        ("transformers/trainer.py", "prediction_step"),
    ],
}
"""Where it ran out of memory -> the innermost frames: file, function."""
WANTED = {
    "forward": "270.00 MiB",
    "backward": "512.00 MiB",
    "loss": "2.32 GiB",
    "optimizer": "224.00 MiB",
    "load": "136.00 MiB",
    "eval": "4.64 GiB",
}


@dataclass(frozen=True)
class Played:
    """One failure of one config: the files of its folder."""

    name: str
    config: Config
    text: str
    failure: str
    card: int
    world: int
    console: str


@dataclass(frozen=True)
class Planned:
    """What was planned for it; `error` is the parser's."""

    played: Played
    report: Report
    patched: Config | None
    error: str | None = None


def traceback(place: str) -> str:
    """The frames of a failure as Python prints them."""
    outer = [("llamafactory/train/tuner.py", "run_exp"), ("llamafactory/train/sft/workflow.py", "run_sft")]
    trained = [("transformers/trainer.py", "train"), ("transformers/trainer.py", "_inner_training_loop")]
    frames = [*outer, *([] if place == "load" else trained), *FRAMES[place]]
    return "Traceback (most recent call last):\n" + "".join(f'  File "{SITE}/{file}", line 100, in {name}\n' for file, name in frames)


def out_of_memory(place: str, card: int) -> str:
    """PyTorch 2.5's message for a full card."""
    total = float(CARDS[card])
    return (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {WANTED[place]}. GPU 0 has a total capacity of {total} GiB of which"
        f" {85 if place != 'eval' else 810}.00 MiB is free. Including non-PyTorch memory, this process has {total - 0.1:.2f} GiB memory in"
        " use."
        f" Of the allocated memory {total - 0.9:.2f} GiB is allocated by PyTorch, and 161.33 MiB is reserved by PyTorch but unallocated.\n"
    )


def logged(losses: list[float], config: Config, grads: list[float] | None = None, evals: dict[int, float] | None = None) -> str:
    """Log lines as often as the config says, of a run of 100 logs; the rate falls linearly from the config's."""
    values = effective(config)
    top, every = float(values.get("learning_rate") or 5e-5), log_steps(config)
    out = []
    for place, loss in enumerate(losses):
        step, grad = every * (place + 1), (grads or [0.8] * len(losses))[place]
        rate = top * (1 - place / 100)
        out.append(f"{{'loss': {loss:.4f}, 'grad_norm': {grad:.4f}, 'learning_rate': {rate:.6g}, 'epoch': {place / 33:.2f}}}")
        out.append(f" {place + 1:3.0f}%|###       | {step}/{100 * every} [{place:02d}:10<30:00,  1.00s/it]")
        if evals and place + 1 in evals:
            out.append(f"{{'eval_loss': {evals[place + 1]:.4f}, 'eval_runtime': 12.1, 'epoch': {place / 33:.2f}}}")
    return "\n".join(out) + "\n"


def log_steps(config: Config) -> int:
    """Steps between two logs."""
    every = effective(config).get("logging_steps")
    return int(every) if isinstance(every, int | float) and every >= 1 else 10


def curve(count: int, chance: random.Random, start: float = 1.8, end: float = 1.1) -> list[float]:
    """A loss that falls, with noise of 2 %."""
    return [(end + (start - end) * 0.97**place) * (1 + chance.gauss(0, 0.02)) for place in range(count)]


def ending(failure: str, card: int, config: Config, chance: random.Random) -> str:
    """The console from the header on."""
    running = RUNNING.format(steps=100 * log_steps(config))
    if failure.startswith("oom "):
        place = failure.removeprefix("oom ")
        before = (
            "Loading checkpoint shards:  40%|####      | 2/5 [00:10<00:15,  5.0s/it]\n"
            if place == "load"
            else RUNNING.format(steps=100 * log_steps(config))
        )
        trained = logged(curve(12, chance), config) + "***** Running Evaluation *****\n" if place == "eval" else ""
        return before + trained + traceback(place) + out_of_memory(place, card)
    killed = "train.sh: line 1: 28617 Killed                  llamafactory-cli train train.yaml\n"
    good = curve(40, chance)
    return {
        "host load": "Loading checkpoint shards:  40%|####      | 2/5 [00:40<01:00, 20.0s/it]\n" + killed,
        "host tokenise": "Running tokenizer on dataset (num_proc=16):  18%|#8        | 2160/12000 [00:39<02:46, 59.0 examples/s]\n"
        "RuntimeError: One of the subprocesses has abruptly died during map operation.To debug the error, disable multiprocessing.\n",
        "host train": running + logged(good, config) + killed,
        "nan": running + logged([*good, *[0.0] * 12], config, [0.8] * 40 + [float("nan")] * 12),
        "divergence": running + logged([*good[:20], *[6.0 + chance.gauss(0, 0.1) for _ in range(30)]], config, [0.8] * 20 + [40.0] * 30),
        "spike": running + logged([*good, 4.9, *curve(20, chance, 1.2)], config, [0.8] * 40 + [9.0] + [0.8] * 20),
        "zero loss": running + logged([0.0] * 30, config, [0.0] * 30),
        "overfitting": running
        + logged([1.8 * 0.93**place for place in range(60)], config, None, {10: 1.5, 20: 1.3, 30: 1.35, 40: 1.6, 50: 1.9, 60: 2.2}),
        "hang": running + logged(good[:8], config) + "[E ProcessGroupNCCL.cpp:607] [Rank 1] Watchdog caught collective operation timeout:"
        " WorkNCCL(SeqNum=812, OpType=ALLREDUCE, NumelIn=16777216, Timeout(ms)=1800000) ran for 1800312 milliseconds before timing out.\n",
    }[failure]


def possible(config: Config, world: int) -> list[str]:
    """The failures that such a run can have."""
    values = effective(config)
    evaluates = values.get("eval_strategy") not in (None, "no") or bool(values.get("val_size") or values.get("eval_dataset"))
    plain = ["nan", "divergence", "spike", "zero loss", "host load", "host tokenise", "host train"]
    places = [
        "forward",
        "backward",
        "optimizer",
        "load",
        *(["loss"] if values["stage"] in ("pt", "sft") else []),
        *(["eval"] if evaluates else []),
    ]
    return [*(f"oom {place}" for place in places), *plain, *(["overfitting"] if evaluates else []), *(["hang"] if world > 1 else [])]


def card_of(config: Config, world: int, chance: random.Random) -> int:
    """A card on which running out of memory is no surprise, by the size in the model's name and two bytes a parameter."""
    found = re.search(r"(?i)(\d+(?:\.\d+)?)\s*b\b", str(config.get("model_name_or_path", "")))
    size = float(found[1]) if found else 7.0
    values = effective(config)
    bytes_each = 0.7 if values.get("quantization_bit") else 16.0 if values["finetuning_type"] == "full" else 2.0
    shards = world if values.get("zero_stage") == 3 else 1
    able = [card for card in CARDS if size * bytes_each / shards >= 0.5 * card]
    return chance.choice(able) if able else 24


def failures(folder: Path, each: int, chance: random.Random) -> Iterator[Played]:
    """The failures of every config under `folder` that the real parser accepts."""
    texts = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.rglob("*.y*ml"))}
    configs: dict[str, Config] = {}
    for name, text in texts.items():
        try:
            configs[name] = {**yaml_edit.load(text)}
        except yaml_edit.NotReadable:
            continue
    answers = ask((name, {**config, "output_dir": "saves/run"}) for name, config in configs.items())
    taken = [name for name in configs if answers[name] is None and configs[name].get("do_train")]
    print(f"{len(configs)} configs read, {len(taken)} of them trainings that the parser accepts")
    for name in taken:
        yield from failures_of(name, configs[name], texts[name], each, chance)


def failures_of(name: str, config: Config, text: str, each: int, chance: random.Random) -> Iterator[Played]:
    """At most `each` failures that a run of this config can have."""
    sharded = bool(config.get("deepspeed") or config.get("fsdp"))
    world = chance.choice([4, 8]) if sharded else chance.choice([1, 1, 1, 2])
    options = possible(config, world)
    values = effective(config)
    half = "torch.float16" if values.get("fp16") else "torch.float32"
    dtype = "torch.bfloat16" if values.get("bf16") or values.get("pure_bf16") else half
    launch = f"FORCE_TORCHRUN=1 NPROC_PER_NODE={world} " if world > 1 or sharded else ""
    for failure in chance.sample(options, min(each, len(options))):
        card = card_of(config, world, chance)
        begin = BEGIN.format(launch=launch, world=world, distributed=world > 1, dtype=dtype)
        yield Played(name, config, text, failure, card, world, begin + ending(failure, card, config, chance))


def planned(played: Played) -> Planned:
    """What `analyze` says of its folder."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.yaml").write_text(played.text, encoding="utf-8")
        (Path(folder) / "console.log").write_text(played.console, encoding="utf-8")
        report = doctor.analyze(folder)
    patch = report.patch
    after = {**yaml_edit.load(patch.yaml)} if patch and patch.yaml else None
    return Planned(played, report, after)


def changes_of(one: Planned) -> str:
    """The patch in one line."""
    changes = one.report.patch.changes if one.report.patch else []
    return "; ".join(
        f"{change.key}: {change.old} -> {'removed' if change.op == 'unset' else str(change.new)[:60]}"
        for change in changes
        if change.key != "output_dir"
    )


def shown(number: int, one: Planned) -> str:
    """A patch for a judge: config, failure, finding, changes, prediction, what else is advised."""
    played, report = one.played, one.report
    keys = (
        "model_name_or_path", "stage", "finetuning_type", "quantization_bit", "deepspeed", "fsdp", "per_device_train_batch_size",
        "gradient_accumulation_steps", "cutoff_len", "learning_rate", "lora_rank", "pure_bf16", "bf16", "fp16", "num_train_epochs",
        "max_steps", "optim", "enable_liger_kernel", "disable_gradient_checkpointing", "pref_loss", "flash_attn", "packing",
        "preprocessing_num_workers", "eval_strategy", "load_best_model_at_end", "per_device_eval_batch_size",
    )  # fmt: skip
    given = ", ".join(f"{key}={str(played.config[key])[:60]}" for key in keys if key in played.config)
    memory = report.patch.predicted.memory_gib if report.patch else None
    guess = f" | memory {memory.before} -> {memory.after} of {memory.capacity}" if memory else ""
    root = next((one for one in report.findings if one.role == "root"), None)
    other = [f"{row.status}: {row.text[:100]}" for row in (root.remedies if root else []) if row.status in ("manual", "apply")][:4]
    where = f"{played.card} GB x {played.world}"
    head = f"{number}. {played.name} [{played.failure}, {where}]"
    return f"{head}\n   {given}\n   {report.cause}: {changes_of(one) or 'no patch'}{guess}\n   {other}"


def refused(plans: list[Planned]) -> list[tuple[Planned, str]]:
    """The patched configs that the real parser does not accept, with its error."""
    patched = {str(place): one.patched for place, one in enumerate(plans) if one.patched is not None}
    answers = ask((place, {**config, "output_dir": "saves/run"}) for place, config in patched.items())
    return [(plans[int(place)], error) for place, error in answers.items() if error is not None]


def batch_moved(one: Planned) -> bool:
    """Whether the patch changes the effective batch."""
    batch = one.report.patch.predicted.effective_batch if one.report.patch else None
    return batch is not None and batch[0] != batch[1]


def summary(plans: list[Planned]) -> None:
    """Prints failures, patches and the keys that they change, by kind of failure."""
    for failure in sorted({one.played.failure for one in plans}):
        rows = [one for one in plans if one.played.failure == failure]
        changed = [{change.key for change in one.report.patch.changes} for one in rows if one.report.patch]
        keys = Counter(key for patch in changed for key in patch)
        print(f"  {failure:14} {len(rows):4} failures, {len(changed):4} patches  {dict(keys.most_common(7))}")


def main() -> int:
    """The number of patches that the parser refuses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", type=Path)
    parser.add_argument("--each", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for a JSON of all patches")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    plans = [planned(one) for one in failures(arguments.configs, arguments.each, chance)]
    bad = refused(plans)
    for one, error in bad:
        print(f"  refused: {one.played.name} [{one.played.failure}] {changes_of(one)}: {error}")
    with_patch = [one for one in plans if one.report.patch]
    moved = sum(batch_moved(one) for one in with_patch)
    print(f"{len(plans)} failures, {len(with_patch)} patches, {len(bad)} refused, {moved} with another effective batch")
    summary(plans)
    drawn = random.Random(arguments.seed).sample(with_patch, min(arguments.draw, len(with_patch)))
    for number, one in enumerate(drawn, 1):
        print(shown(number, one))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        told = [
            {"config": one.played.name, "failure": one.played.failure, "cause": one.report.cause, "patch": changes_of(one)} for one in plans
        ]
        (arguments.out / "patches.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    return len(bad)


if __name__ == "__main__":
    sys.exit(main())
