"""Real faults, nobody watching: `lfdoctor run --heal` must bring the real LLaMA-Factory to its end, or refuse with a reason.

    python -m tests.lab.healing [NAME ...] [--jobs 2] [--random SEED]

For each fault: the training finishes with the planned steps, finite weights and a loss no higher than where it began (or the refusal
names the cause), the steps that were trained twice are no more than save_steps at each restart, and the effective batch is what it was.
`--random` puts a healer beside it that has the same remedies, restarts and checkpoints, but takes them in random order.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from doctor.live.trainer.stop_judge import LEAST, WINDOW
from tests.lab.install import lab_bin
from tests.lab.runner import kit
from tests.lab.scenarios.base import GONE, yaml_text

ROOT = Path(__file__).resolve().parents[2]
RESTARTS = 4
NO_CHECKPOINTS = {"disable_gradient_checkpointing": True, "dataset": "long", "cutoff_len": 256}


@dataclass(frozen=True)
class Case:
    """A fault: what is changed in the config or put into the run, and what must come of it."""

    says: str
    change: dict[str, Any]
    fault: dict[str, Any] = field(default_factory=dict)
    ranks: int = 1
    spare_mib: int | None = None
    refused: str | None = None
    waits: int = 0
    """Steps that a run may go on while it is judged: a jump of the loss that comes back is no divergence."""


CASES = {
    "diverging-rate": Case(
        "a warm-up that goes on to 0.3: the loss falls, then explodes",
        {"learning_rate": 0.3, "max_steps": 60, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 100, "save_steps": 12},
        waits=LEAST + WINDOW,
    ),
    "nan": Case(
        "NaN from the attention in one step",
        {"max_steps": 24, "save_steps": 5},
        {"at": "attention", "do": "nan", "step": 13, "once": "struck"},
    ),
    "batch-too-large": Case(
        "a batch of 240 under an address-space limit",
        {**NO_CHECKPOINTS, "per_device_train_batch_size": 240, "gradient_accumulation_steps": 1, "max_steps": 3, "save_steps": 3},
        spare_mib=450,
    ),
    "long-samples": Case(
        "one long sample in 600 under an address-space limit",
        {
            **NO_CHECKPOINTS,
            "dataset": "rare",
            "cutoff_len": 512,
            "per_device_train_batch_size": 30,
            "gradient_accumulation_steps": 1,
            "max_steps": 20,
            "save_steps": 4,
        },
        spare_mib=170,
    ),
    "evaluation": Case(
        "an evaluation batch of 120 under an address-space limit",
        {
            **NO_CHECKPOINTS,
            "cutoff_len": 512,
            "val_size": 0.5,
            "eval_strategy": "steps",
            "eval_steps": 6,
            "save_steps": 6,
            "per_device_eval_batch_size": 120,
            "max_steps": 12,
        },
        spare_mib=90,
    ),
    "foreign-option": Case("peft's name of an option", {"lora_r": 8, "lora_rank": GONE, "max_steps": 6, "save_steps": 6}),
    "mistyped-option": Case(
        "an option that nobody knows", {"lora_ranks": 8, "lora_rank": GONE, "max_steps": 6}, refused="config_obsolete_key"
    ),
    "killed-rank": Case(
        "rank 1 of 2 is killed once",
        {"max_steps": 16, "save_steps": 5},
        {"at": "step", "do": "signal", "signal": 9, "step": 8, "rank": 1, "once": "struck"},
        ranks=2,
    ),
    "full-disk": Case(
        "a disk that holds two checkpoints and a half",
        {"max_steps": 24, "save_steps": 5},
        {"at": "save", "do": "quota", "folder": "saves", "bytes": 2.3},
    ),
    "no-such-dataset": Case("a dataset that nobody registered", {"dataset": "toys", "max_steps": 6}, refused="dataset_not_registered"),
}


def base_yaml(case: Case) -> str:
    return yaml_text({"output_dir": "saves/run", **case.change})


def prepare(name: str, base: Path) -> Path:
    """A new folder with model, data and config of the case."""
    work = base / name
    work.mkdir()
    shutil.copytree(base / "kit" / "data", work / "data")
    shutil.copytree(base / "kit" / "models", work / "models")
    short = [{"instruction": f"Tell me about the fox {number}.", "input": "", "output": "The red fox jumps."} for number in range(600)]
    short[431]["output"] = "The red fox jumps over the river. " * 60
    (work / "data" / "rare.json").write_text(json.dumps(short))
    info = json.loads((work / "data" / "dataset_info.json").read_text())
    (work / "data" / "dataset_info.json").write_text(json.dumps({**info, "rare": {"file_name": "rare.json"}}))
    if name in CASES:
        (work / "train.yaml").write_text(base_yaml(CASES[name]))
    return work


def variables(work: Path, case: Case, fault: dict[str, Any]) -> dict[str, str]:
    out = {key: value for key, value in os.environ.items() if key in ("LANG", "TMPDIR", "LD_LIBRARY_PATH")}
    out |= {"PATH": f"{lab_bin()}{os.pathsep}{os.environ['PATH']}", "HOME": str(work), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    out |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent / "faults"), "LFDOCTOR_LAB_FAULT": json.dumps(fault)}
    out |= {"LFDOCTOR_LAB_TRUTH": str(work / "truth.json"), "HF_HOME": str(work / ".cache")}
    return out | ({"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": str(case.ranks)} if case.ranks > 1 else {})


def lfdoctor(
    work: Path, case: Case, fault: dict[str, Any], arguments: list[str], limit_kib: int | None = None, log: str = "all.log"
) -> int:
    """`lfdoctor run ARGUMENTS` in `work`, as a user's shell would, under `ulimit -v`."""
    return heal_command(work, variables(work, case, fault), arguments, limit_kib, log)


def heal_command(work: Path, env: dict[str, str], arguments: list[str], limit_kib: int | None = None, log: str = "all.log") -> int:
    """The same with the variables given."""
    run = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from doctor.cli.main import main; sys.exit(main())"
    limit = f"ulimit -v {limit_kib}; " if limit_kib else ""
    command = ["bash", "-c", f'{limit}exec "$0" "$@"', sys.executable, "-c", run, "run", *arguments]
    with (work / log).open("wb") as file:
        return subprocess.run(command, cwd=work, env=env, stdout=file, stderr=file, timeout=500).returncode


def address_space(base: Path) -> int:
    """KiB of address space that a watched training needs with one long sample per batch (measured once)."""
    case = Case(
        "", {**NO_CHECKPOINTS, "cutoff_len": 512, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "max_steps": 1}
    )
    work = prepare("small", base)
    (work / "small.yaml").write_text(yaml_text({**case.change, "output_dir": "small"}))
    code = lfdoctor(work, case, {}, ["-o", "small-doctor", "--", "llamafactory-cli", "train", "small.yaml"], log="small.log")
    assert code == 0, f"the measuring run ended with {code}, see {work}/small.log"
    return int(json.loads((work / "truth.json.0").read_text())["address_space_mib"]) * 1024


def quota(work: Path, case: Case) -> dict[str, Any]:
    """The fault, with a quota told in checkpoints as one in bytes."""
    if case.fault.get("do") != "quota":
        return case.fault
    one = {**case.change, "max_steps": 1, "save_steps": 1, "output_dir": "small"}
    (work / "small.yaml").write_text(yaml_text(one))
    assert lfdoctor(work, case, {}, ["-o", "small-doctor", "--", "llamafactory-cli", "train", "small.yaml"], log="small.log") == 0
    size = sum(path.stat().st_size for path in (work / "small" / "checkpoint-1").rglob("*") if path.is_file())
    shutil.rmtree(work / "small")
    return {**case.fault, "bytes": int(case.fault["bytes"] * size)}


def heal(name: str, base: Path, seed: int | None, needed_kib: int) -> dict[str, Any]:
    """Runs one case; what came of it. Raises AssertionError where the promises are broken."""
    case, work = CASES[name], prepare(name, base)
    limit = needed_kib + case.spare_mib * 1024 if case.spare_mib else None
    fault = quota(work, case)
    began = time.monotonic()
    if seed is None:
        words = ["--heal", str(RESTARTS), "-o", "doctor", "--", "llamafactory-cli", "train", "train.yaml"]
        code = lfdoctor(work, case, fault, words, limit)
    else:
        code = by_chance(work, case, fault, seed, limit)
    report = json.loads((work / "doctor" / "report.json").read_text())
    attempts = report["attempts"]
    found = {
        "code": code,
        "attempts": len(attempts),
        "redone": [one["redone"] for one in attempts[1:]],
        "causes": [one["cause"] for one in attempts],
        "changes": [[f"{change['key']}={change['new']}" for change in one["changes"]] for one in attempts[1:]],
        "resumed": [one["resumed_from"] for one in attempts[1:]],
        "seconds": round(time.monotonic() - began),
        "healing": report["healing"],
    }
    found["finished"] = code == 0 and finished(work, case, attempts[-1])
    if seed is None:
        check(case, attempts, found)
    return found


def finished(work: Path, case: Case, last: dict[str, Any]) -> bool:
    """The last step is the planned one, the weights are there and finite, and the loss is not above where it began."""
    output = work / next(
        line.partition(":")[2].split("#")[0].strip()
        for line in (work / (last["config"] or "train.yaml")).read_text().splitlines()
        if line.startswith("output_dir:")
    )
    name = "model.safetensors" if case.change.get("finetuning_type") == "full" else "adapter_model.safetensors"
    if not (output / name).exists():
        return False
    state = json.loads((output / "trainer_state.json").read_text())
    losses = [one["loss"] for one in state["log_history"] if "loss" in one]
    learned = sum(losses[-3:]) / len(losses[-3:]) <= 1.1 * losses[0]
    return bool(state["global_step"] == case.change["max_steps"] and learned and finite(output / name))


def finite(weights: Path) -> bool:
    """Whether every number of a safetensors file in float32 is one."""
    data = weights.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    assert {one["dtype"] for name, one in header.items() if name != "__metadata__"} == {"F32"}
    return bool(numpy.isfinite(numpy.frombuffer(data[begin:], dtype="<f4")).all())


def check(case: Case, attempts: list[dict[str, Any]], found: dict[str, Any]) -> None:
    if case.refused:
        assert found["code"] != 0, f"no refusal: {found}"
        assert (found["causes"][-1], bool(found["healing"])) == (case.refused, True), f"no refusal: {found}"
        return
    assert found["finished"], f"not finished: {found}"
    assert found["attempts"] > 1, f"the fault did not strike: {found}"
    assert len({one["effective_batch"] for one in attempts}) == 1, f"the effective batch changed: {found}"
    assert all(redone <= case.change["save_steps"] + case.waits for redone in found["redone"]), f"trained too much again: {found}"


CHANCE = "import sys; sys.path.insert(0, {root!r}); from tests.lab.healing import chance; sys.exit(chance({seed}))"


def by_chance(work: Path, case: Case, fault: dict[str, Any], seed: int, limit_kib: int | None) -> int:
    limit = f"ulimit -v {limit_kib}; " if limit_kib else ""
    command = ["bash", "-c", f'{limit}exec "$0" "$@"', sys.executable, "-c", CHANCE.format(root=str(ROOT), seed=seed)]
    with (work / "all.log").open("wb") as file:
        return subprocess.run(command, cwd=work, env=variables(work, case, fault), stdout=file, stderr=file, timeout=900).returncode


def chance(seed: int) -> int:
    """The same healer without a diagnosis: every remedy of the rule book that the config takes, and "the same again", in random order."""
    from doctor.live.supervisor.attempts import HealAttempt
    from doctor.live.supervisor.heal import Healer
    from doctor.live.supervisor.ledger import Ledger
    from doctor.live.supervisor.remedies import RemedyCandidate
    from doctor.planner.situation import Situation, advise
    from doctor.report.model import ChangeView
    from doctor.rulebook import loader
    from doctor.words import catalogue

    dice = random.Random(seed)
    rules = loader.load().rules
    remedies = list({remedy.id: remedy for rule in rules for remedy in rule.remedies if remedy.guide_step or remedy.patch}.values())

    def order(attempt: HealAttempt) -> list[RemedyCandidate]:
        situation = Situation(attempt.values, {}, {"completed": False})
        found = [RemedyCandidate((), {}, "again")]
        for remedy in remedies:
            advice = advise(remedy, situation, {}, tuple(rule for rule in rules if rule.detector == "config"))
            views = [ChangeView(one.target, one.op, one.key, one.old, one.new) for one in advice.changes]
            if advice.status == "apply" and views and not any("<" in str(one.new) or "/path/" in str(one.new) for one in views):
                found.append(RemedyCandidate(advice.changes, {one.key: remedy.id for one in advice.changes}, remedy.id))
        return dice.sample(found, len(found))

    class UncheckedRule(Ledger):
        def next_attempt(self, attempt: HealAttempt) -> Any:
            if attempt.number > self.restarts:
                return catalogue.text("healing.restarts_used", count=self.restarts)
            one = order(attempt)[0]
            if not one.changes:
                return self.make_attempt(
                    attempt, attempt, attempt.text or "", (), attempt.env, catalogue.text("healing.restarts_used", count=0)
                )
            return self._patched(attempt) or catalogue.text("healing.restarts_used", count=self.restarts)

    healer = Healer(["llamafactory-cli", "train", "train.yaml"], Path("doctor"), RESTARTS)
    healer.ledger = UncheckedRule(healer.ledger.attempts[0], Path("doctor"), RESTARTS, order)
    return healer.run().code


def main() -> int:
    """One line a case; the number of broken promises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CASES))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--random", type=int, metavar="SEED")
    arguments = parser.parse_args()
    failures: list[str] = []
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="lfdoctor-heal-") as temporary:
        base = Path(temporary)
        kit(base / "kit")
        needed = address_space(base) if any(CASES[name].spare_mib for name in arguments.names) else 0

        def one(name: str) -> None:
            try:
                results[name] = found = heal(name, base, arguments.random, needed)
                print(f"{name}: {CASES[name].says}: {json.dumps(found)}", flush=True)
            except (AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as error:
                failures.append(name)
                kept = Path(tempfile.mkdtemp(prefix=f"lfdoctor-heal-{name}-"))
                shutil.copytree(base / name, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("models", ".cache"))
                print(f"{name}: FAILED: {type(error).__name__}: {error} (kept in {kept})", flush=True)

        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(one, arguments.names))
    curable = [found for name, found in results.items() if not CASES[name].refused]
    ended = [found for found in curable if found["finished"]]
    starts = sum(found["attempts"] for found in curable)
    print(f"{len(ended)} of {len(curable)} trainings finished, {starts} starts in all; {len(failures)} broken promises")
    return len(failures)


if __name__ == "__main__":
    sys.exit(main())
