"""Real LLaMA-Factory, watched by callback and by hook: every stage is seen step by step, to bit-equal figures and weights without us.

    python -m tests.lab.live_stages [NAME ...] [--jobs 2]

Each stage trains three times: alone, with `run_exp(args, callbacks=[DoctorCallback()])`, and as `lfdoctor run -- llamafactory-cli train`
(where an existing sitecustomize is chain-loaded). Of both journals: every logged step and evaluation, on every rank; the findings of a
monitor that heard it line by line are those of `analyze` afterwards. Prints one line a stage; exits with the number of failures.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import yaml

from doctor.core.events import Step
from doctor.diagnosis.pipeline import analyze
from doctor.live.trainer.monitor import Monitor
from doctor.readers.reading import read
from tests.lab.install import lab_bin, stack
from tests.lab.runner import kit
from tests.lab.scenarios.base import yaml_text

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
COMMON = {"max_steps": 12, "save_steps": 6, "logging_steps": 1, "do_eval": True, "val_size": 0.1, "eval_steps": 6, "eval_strategy": "steps"}
KINDS: dict[str, dict[str, Any]] = {
    "pt": {"stage": "pt", "dataset": "plain"},
    "sft": {"stage": "sft"},
    "rm": {"stage": "rm", "dataset": "pair"},
    "dpo": {"stage": "dpo", "dataset": "pair"},
    "kto": {"stage": "kto", "dataset": "kto"},
}
STAGES: dict[str, tuple[dict[str, Any], int]] = {
    **{name: (change, 1) for name, change in KINDS.items()},
    **{f"{name}-2-ranks": (change, 2) for name, change in KINDS.items()},
    "sft-every-5": ({"stage": "sft", "logging_steps": 5}, 1),
    "sft-diverges": ({"stage": "sft", "learning_rate": 30.0, "max_steps": 30, "warmup_steps": 0, "max_grad_norm": 100.0}, 1),
}
TRL = {"output_dir": "out", "max_steps": 12, "logging_steps": 1, "per_device_train_batch_size": 2, "save_steps": 6, "report_to": "none"}


class Zygote:
    """The lab's Python with LLaMA-Factory imported (zygote.py); trains what it is told, in the variables of `base`."""

    def __init__(self, base: Path) -> None:
        environment = {**variables(base, 1), "LFDOCTOR_MSGSPEC": str(Path(msgspec.__file__).parent), "HF_HOME": str(base / ".cache")}
        command = [str(lab_bin() / "python"), str(HERE / "zygote.py")]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, env=environment, text=True, **pipes)

    def train(self, work: Path, config: Mapping[str, Any], ranks: int, *, callback: bool, kind: str = "llamafactory") -> None:
        """Raises AssertionError where that fails."""
        job = {"work": str(work), "config": config, "ranks": ranks, "callback": callback, "kind": kind}
        print(json.dumps(job), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer.strip() == '{"code": 0}', f"the training failed, see {work}/all.log"

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def variables(work: Path, ranks: int) -> dict[str, str]:
    out = {key: value for key, value in os.environ.items() if key in ("LANG", "TMPDIR", "LD_LIBRARY_PATH")}
    out |= {
        "PATH": f"{lab_bin()}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(work),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(HERE / "faults"),
    }
    out |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return out | ({"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": str(ranks)} if ranks > 1 else {})


def folder(base: Path, name: str) -> Path:
    work = base / name
    work.mkdir()
    shutil.copytree(base / "kit" / "data", work / "data")
    shutil.copytree(base / "kit" / "models", work / "models")
    return work


def cli(work: Path, words: list[str], more: Mapping[str, str], ranks: int = 1, *, watched: bool = True) -> None:
    """`llamafactory-cli` with these words, alone or under `lfdoctor run -o doctor`. Raises AssertionError where it fails."""
    command = ["llamafactory-cli", *words]
    if watched:
        run = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from doctor.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", run, "run", "-o", "doctor", "--", *command]
    with (work / "all.log").open("wb") as log:
        code = subprocess.run(command, cwd=work, env={**variables(work, ranks), **more}, stdout=log, stderr=log, timeout=400).returncode
    assert code == 0, f"exit code {code}, see {work}/all.log"


def figures(work: Path) -> list[dict[str, Any]]:
    """The losses and norms of the run, as transformers wrote them, without the clock's figures."""
    history = json.loads((work / "out" / "trainer_state.json").read_text())["log_history"]
    return [{key: value for key, value in one.items() if not key.endswith(("_runtime", "_per_second"))} for one in history]


def weights(work: Path) -> str:
    path = next(path for name in ("adapter_model.safetensors", "model.safetensors") if (path := work / "out" / name).exists())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def live_findings(journal: Path) -> set[tuple[str, tuple[int, int] | None]]:
    """What a monitor knew at the end that saw the journal's lines as they came."""
    monitor = Monitor(lambda _: None, str(journal))
    for line in journal.read_bytes().splitlines():
        monitor.line(line)
    monitor.close()
    return {(one.rule.id, one.steps) for one in monitor.findings()}


def judged(journal: Path) -> int:
    """How many findings there were; live they are those of the journal afterwards, and all of them are in the whole run's report."""
    live = live_findings(journal)
    afterwards = {(one.rule, tuple(one.steps) if one.steps else None) for one in analyze(journal).findings}
    assert live == afterwards, f"live {live}, afterwards {afterwards}"
    whole = {one.rule for one in analyze(journal.parent).findings}
    assert {rule for rule, _ in live} <= whole, f"live {live}, in the whole folder {whole}"
    return len(live)


def seen(journal: Path, logged: Mapping[int, float], evaluated: set[int], ranks: int) -> None:
    """The journal holds every logged step with its loss, every evaluation, and every other rank's journal holds every step."""
    steps = [event for event in read([journal]).events() if isinstance(event, Step)]
    told = {event.step: event.metrics["loss"] for event in steps if "loss" in event.metrics}
    assert str(told) == str(logged), f"steps {sorted(told)} of {sorted(logged)}"
    assert {event.step for event in steps if "eval_loss" in event.metrics} == evaluated, "evaluations are missing"
    for rank in range(1, ranks):
        lines = journal.with_name(f"lfdoctor-rank{rank}.jsonl").read_text()
        steps_of = [json.loads(line)["step"] for line in lines.splitlines() if '"type":"Step"' in line and '"loss"' in line]
        assert sorted(set(steps_of)) == sorted(logged), f"rank {rank} saw {steps_of}"


def check(name: str, base: Path, zygote: Zygote) -> str:
    """Trains a stage three times; returns what is proven. Raises AssertionError."""
    change, ranks = STAGES[name]
    text = yaml_text({**COMMON, **change, "output_dir": "out"})
    alone, callback, hook = (folder(base, f"{name}-{how}") for how in ("alone", "callback", "hook"))
    for work in (alone, callback):
        zygote.train(work, yaml.safe_load(text), ranks, callback=work is callback)
    (hook / "train.yaml").write_text(text, encoding="utf-8")
    try:
        cli(hook, ["train", "train.yaml"], {}, ranks)
    except AssertionError:
        # gloo's threads abort a finished process now and then, also without us: once more
        if ranks == 1 or "terminate called without an active exception" not in (hook / "all.log").read_text(errors="replace"):
            raise
        for left in ("out", "doctor"):
            shutil.rmtree(hook / left)
        cli(hook, ["train", "train.yaml"], {}, ranks)
    logged = {one["step"]: one["loss"] for one in figures(alone) if "loss" in one}
    evaluated = {one["step"] for one in figures(alone) if "eval_loss" in one}
    counts = []
    for work, journal in ((callback, callback / "out"), (hook, hook / "doctor")):
        assert str(figures(alone)) == str(figures(work)), f"the logged figures of {work.name} differ"
        assert weights(alone) == weights(work), f"the weights of {work.name} differ"
        seen(journal / "lfdoctor.jsonl", logged, evaluated, ranks)
        counts.append(judged(journal / "lfdoctor.jsonl"))
    told = f"{len(logged)} logged steps and {len(evaluated)} evaluations seen by callback and hook"
    return f"{told}, bit-equal; {counts} findings live = afterwards"


def check_trl(name: str, base: Path, zygote: Zygote) -> str:
    alone, callback = (folder(base, f"{name}-{how}") for how in ("alone", "callback"))
    for work in (alone, callback):
        zygote.train(work, TRL, 1, callback=work is callback, kind=name)
    assert str(figures(alone)) == str(figures(callback)), "the logged figures differ"
    assert weights(alone) == weights(callback), "the weights differ"
    logged = {one["step"]: one["loss"] for one in figures(alone) if "loss" in one}
    seen(callback / "out" / "lfdoctor.jsonl", logged, set(), 1)
    return f"{len(logged)} steps seen by the callback, bit-equal; {judged(callback / 'out' / 'lfdoctor.jsonl')} findings live = afterwards"


V1 = {
    "model": "models/tiny-llama", "train_dataset": "data.yaml", "output_dir": "out", "micro_batch_size": 2,
    "global_batch_size": 4, "cutoff_len": 128, "learning_rate": 5e-4, "max_steps": 12, "bf16": False, "batching_workers": 0,
}  # fmt: skip


V1_TEMPLATE = {"template": "qwen3_nothink"} if stack().version == "0.9.5" else {}
"""After 0.9.5 there are no templates but the model's own, or ChatML."""


def check_v1(name: str, base: Path, zygote: Zygote) -> str:
    """LLaMA-Factory's v1 trainer: another loop, other callbacks."""
    works = [folder(base, f"{name}-{how}") for how in ("alone", "hook")]
    for work in works:
        (work / "v1.yaml").write_text(yaml.safe_dump(V1 | V1_TEMPLATE), encoding="utf-8")
        data = {"toy": {"path": "data/toy.json", "source": "local", "converter": "alpaca"}}
        (work / "data.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
        cli(work, ["sft", "v1.yaml"], {"USE_V1": "1"}, watched=work is works[1])
    logs = [[json.loads(line) for line in (work / "out" / "trainer_log.jsonl").read_text().splitlines()] for work in works]
    assert str(logs[0]) == str(logs[1]), "the logged figures differ"
    assert weights(works[0]) == weights(works[1]), "the weights differ"
    journal = works[1] / "doctor" / "lfdoctor.jsonl"
    seen(journal, {one["step"]: one["loss"] for one in logs[0]}, set(), 1)
    return f"{len(logs[0])} steps seen by the hook, bit-equal; {judged(journal)} findings live = afterwards"


def check_ppo(name: str, base: Path, zygote: Zygote) -> str:
    """LLaMA-Factory's own PPO loop, with trl 0.9.6 in a folder of its own (see ppo/sitecustomize.py)."""
    library = ROOT / ".lab" / "ppo"
    if not (library / "trl").is_dir():
        pip = [str(lab_bin() / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(library), "trl==0.9.6"]
        subprocess.run(pip, check=True)
    more = {"PYTHONPATH": os.pathsep.join([str(HERE / "ppo"), str(library)]), "DISABLE_VERSION_CHECK": "1"}
    works = [folder(base, f"{name}-{how}") for how in ("alone", "hook")]
    for work in works:
        zygote.train(
            work, yaml.safe_load(yaml_text({"stage": "rm", "dataset": "pair", "max_steps": 2, "output_dir": "rm"})), 1, callback=False
        )
        text = yaml_text({"stage": "ppo", "max_steps": 3, "output_dir": "out", "reward_model": "rm", "max_new_tokens": 8, "save_steps": 2})
        (work / "ppo.yaml").write_text(text, encoding="utf-8")
        cli(work, ["train", "ppo.yaml"], more, watched=work is works[1])
    losses = [[line for line in (work / "all.log").read_text().splitlines() if "'loss'" in line] for work in works]
    assert losses[0] == losses[1], f"the logged figures differ: {losses}"
    assert len(losses[0]) == 3, "it did not train"
    steps = [event for event in read([works[1] / "doctor" / "lfdoctor.jsonl"]).events() if isinstance(event, Step)]
    assert [(one.step, "loss" in one.metrics, "reward" in one.metrics) for one in steps] == [(step, True, True) for step in (1, 2, 3)]
    return f"{len(steps)} steps seen by the hook; {judged(works[1] / 'doctor' / 'lfdoctor.jsonl')} findings live = afterwards"


HEALER = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from doctor.live.supervisor.heal import Healer
sys.exit(Healer(["llamafactory-cli", "train", "train.yaml"], Path("doctor"), 2, kill_after=24.0, dump_after=8.0).run().code)
"""


def check_hang(name: str, base: Path, zygote: Zygote) -> str:
    """One rank of two hangs for good: the report names it and where it stands; ended, the training goes on from its checkpoint."""
    work = folder(base, name)
    (work / "train.yaml").write_text(yaml_text({"stage": "sft", "max_steps": 12, "save_steps": 5, "output_dir": "out"}), encoding="utf-8")
    fault = {"at": "step", "do": "sleep", "seconds": 10_000, "step": 8, "rank": 1, "once": "struck"}
    more = {"LFDOCTOR_LAB_FAULT": json.dumps(fault)}
    with (work / "all.log").open("wb") as log:
        command = [sys.executable, "-c", HEALER, str(ROOT)]
        code = subprocess.run(command, cwd=work, env={**variables(work, 2), **more}, stdout=log, stderr=log, timeout=400).returncode
    assert code == 0, f"exit code {code}, see {work}/all.log"
    hung = json.loads((work / "doctor" / "attempt-1" / "report.json").read_text())
    root = next(one for one in hung["findings"] if one["role"] == "root")
    assert (root["rule"], root["ranks"]) == ("distributed/rank-stands-still", [1]), f"{root['rule']} on {root['ranks']}"
    assert "in strike" in root["text"], root["text"]
    first, second = json.loads((work / "doctor" / "report.json").read_text())["attempts"]
    assert (first["outcome"], second["outcome"], second["redone"]) == ("failed", "finished", 3), [first, second]
    return f"named {root['evidence'][0]['text'][:120]}...; healed from checkpoint-5"


CHECKS = {
    **dict.fromkeys(STAGES, check), "hang-2-ranks": check_hang,
    "trl-sft": check_trl, "trl-dpo": check_trl, "v1": check_v1, "ppo": check_ppo,
}  # fmt: skip


def main() -> int:
    """All stages, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CHECKS), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="lfdoctor-live-") as temporary:
        base = Path(temporary)
        kit(base / "kit")
        zygotes: queue.SimpleQueue[Zygote] = queue.SimpleQueue()
        for _ in range(arguments.jobs):
            zygotes.put(Zygote(base))

        def one(name: str) -> None:
            zygote = zygotes.get()
            try:
                print(f"{name}: {CHECKS[name](name, base, zygote)}", flush=True)
            except (AssertionError, OSError, ValueError, KeyError, StopIteration, subprocess.SubprocessError) as error:
                failures.append(name)
                kept = Path(tempfile.mkdtemp(prefix=f"lfdoctor-live-{name}-"))
                for work in base.glob(f"{name}-*"):
                    shutil.copytree(work, kept / work.name, ignore=shutil.ignore_patterns("models", ".cache"))
                print(f"{name}: FAILED: {type(error).__name__}: {error} (kept in {kept})", flush=True)
            finally:
                zygotes.put(zygote)

        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(one, arguments.names))
        for _ in range(arguments.jobs):
            zygotes.get().close()
    print(f"{len(arguments.names) - len(failures)} of {len(arguments.names)} as declared")
    return len(failures)


if __name__ == "__main__":
    sys.exit(main())
