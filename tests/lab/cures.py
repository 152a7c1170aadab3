"""Primary remedies against real faults: the run fails, `lfdoctor fix --start` applies what it advises, and the training must reach its end.

    python -m tests.lab.cures [NAME_PATTERN ...] [--jobs 2] [--keep DIR] [--write]

A fault stays where it was: the address-space limit, the full disk, the busy port, the card that holds so many samples, the option without
which a step fails. So only a remedy that acts on the cause ends well. Checked: exit code 0, the planned steps, finite weights, a loss not
above where it began, the same effective batch, and no second fault in what the new run wrote. Where the advice is no matter of options
(`by_hand`), `fix` must refuse, and the change that its report names is made by hand. `--write` writes the table in docs/cures.md, with
what earlier calls left in --keep.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import yaml

import doctor
from doctor.report.model import ChangeView, Report
from tests.lab import runner
from tests.lab.healing import finite
from tests.lab.install import ROOT, lab_bin
from tests.lab.scenarios import BY_NAME
from tests.lab.scenarios.base import Scenario, yaml_text
from tests.lab.scenarios.unseen import unseen

TABLE = ROOT / "docs" / "cures.md"
UNSEEN = {one.name: one for one in unseen()}
RISE = 1.1
"""A loss that ends at most this many times where it began has not diverged; runs of few steps are noisy."""
PATIENCE_SECONDS = 900
"""A machine with other work is no fault."""
BATCH_KEYS = ("per_device_train_batch_size", "gradient_accumulation_steps")


@dataclass(frozen=True)
class Cure:
    """One fault. `fault` is added to the scenario's: what the cure must reach (`rows`, `unless`). `change` is added to its config.

    `once`: the fault is one of circumstances and is over when the training starts again. `bf16`: the card that is played has bf16.
    `by_hand`: the change that the advice names where no patch can make it. `spare_mib`: another limit of the address space.
    """

    scenario: str
    fault: Mapping[str, Any] = field(default_factory=dict)
    change: Mapping[str, Any] = field(default_factory=dict)
    once: bool = False
    bf16: bool = False
    by_hand: Mapping[str, Any] | None = None
    spare_mib: int | None = None

    @property
    def faulty(self) -> Scenario:
        """The scenario with what this case adds."""
        base = BY_NAME.get(self.scenario) or UNSEEN[self.scenario]
        fault = {**base.fault, **self.fault} if base.fault else {}
        limit = self.spare_mib or base.limit_mib
        return dataclasses.replace(base, fault=fault, change={**base.change, **self.change}, limit_mib=limit)


SMALL_BATCH = {"unless": r"per_device_train_batch_size: [1-4]\b"}
CASES = [
    # the card
    Cure("gpu_oom_activations-forward", {"rows": 4}),
    Cure("gpu_oom_activations-forward-torch1", {"rows": 4}),
    Cure("gpu_oom_activations-forward-torch22", {"rows": 4}),
    Cure("gpu_oom_activations-backward", SMALL_BATCH),
    Cure("gpu_oom_activations-one-rank-backward", SMALL_BATCH),
    Cure("gpu_oom_activations-both-ranks", {"rows": 4}),
    Cure("gpu_oom_long_sequence-midrun", {"rows": 1}),
    Cure("gpu_oom_optimizer_states-first-step", {"unless": "pure_bf16: true"}, bf16=True),
    Cure("gpu_oom_eval_or_predict-eval", {"rows": 1}),
    Cure("gpu_oom_eval_or_predict-one-rank-eval", {"rows": 1}),
    Cure("gpu_oom_checkpoint_save-save", {"unless": "save_only_model: true"}),
    Cure("gpu_oom_fragmentation-fragmented", {"unless": "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True"}),
    # host memory and disks
    Cure("host_ram_oom-batch", spare_mib=650),
    Cure("disk_full-checkpoint", {"unless": "save_total_limit: 1|save_only_model: true"}),
    # numbers
    Cure("lr_too_high-lora"),
    Cure("lr_too_high-full"),
    Cure("lr_too_high-full-eval"),
    Cure("lr_too_high-dpo"),
    Cure("lr_too_high-saturated"),
    Cure("lr_warmup-longer-than-run"),
    Cure("fp16_overflow-attention", {"unless": "bf16: true"}, bf16=True),
    # speed
    Cure("slow-checkpoints-every-5"),
    Cure("slow-evaluation"),
    Cure("slow_tokenization-one-worker"),
    # processes
    Cure("port_in_use-two-ranks"),
    Cure("nccl_timeout_during_preprocessing-slow"),
    # configs
    Cure("config-qlora-as-finetuning-type"),
    Cure("config-flash-attn-true"),
    Cure("config-stage-orpo"),
    Cure("config-quantization-none"),
    Cure("config-learning-rate-text"),
    Cure("config-batch-zero"),
    Cure("config-unknown-key"),
    Cure("config-cutoff-zero"),
    Cure("config-full-quantized"),
    Cure("config-eval-without-data"),
    Cure("config-report-to-unknown"),
    Cure("config_obsolete_key-evaluation-strategy"),
    Cure("eval_save_strategy_mismatch-best-model"),
    Cure("lora_target_mismatch-name"),
    Cure("output_dir_not_empty-finished-run"),
    Cure("checkpoint_load_failure-lora-rank"),
    Cure("checkpoint_load_failure-full-over-lora"),
    # the advice is no patch
    Cure("template_missing_or_unknown-name", by_hand={"template": "llama3"}),
    Cure("dataset_not_registered-name", by_hand={"dataset": "toy"}),
    Cure("dataset_columns_or_tags_mismatch-stage", by_hand={"dataset": "pair"}),
    Cure("model_path_not_found-name", by_hand={"model_name_or_path": "models/tiny-llama"}),
]


@dataclass
class Result:
    """What came of a case: the cells of its row; `wrong` is empty where it was cured."""

    cause: str = ""
    says: str = ""
    remedy: str = ""
    before: str = ""
    after: str = ""
    wrong: list[str] = field(default_factory=list)


def treat(case: Cure, base: Path) -> Result:
    """Fails, is fixed, and runs again."""
    scenario, work = case.faulty, base / case.scenario
    result = Result(says=scenario.says)
    fail(case, work, base / "kit")
    report = doctor.analyze(work)
    result.cause, result.before = report.cause or "none", standing(report)
    if not scenario.accepts(report.cause):
        result.wrong.append(f"cause {report.cause}, wanted {scenario.cause}")
    code = fix_and_start(case, work)
    if case.by_hand is None:
        result.remedy = told(report.patch.changes if report.patch else [])
        after = newest_config(work)
    else:
        if report.patch is not None and code == 0:
            result.wrong.append("a patch, though only a person can change this")
        result.remedy = "by hand: " + ", ".join(f"`{key}: {value}`" for key, value in case.by_hand.items())
        after = work / "by-hand.yaml"
        text = yaml_text({**scenario.change, **case.by_hand, "output_dir": "saves/by-hand"})
        code = runner.shell(work, text, scenario, fault=scenario.fault, name=after.name, log="by-hand.log")
    judge(result, code, work, scenario, after)
    return result


def fail(case: Cure, work: Path, kit: Path) -> None:
    """The faulty run in the new folder `work`."""
    runner.run(case.faulty, work, kit)
    for left in work.glob("*calibration*"):  # the lab's own measurement of the limit is no run of the user's
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def limit(work: Path) -> str:
    """The shell's line that set the limit of the faulty run; `true` without one."""
    return next((line for line in (work / "run.sh").read_text().splitlines() if line.startswith("ulimit")), "true")


def fix_and_start(case: Cure, work: Path) -> int:
    """`lfdoctor fix . --start --yes` in a shell with the limits and variables of the run; its exit code."""
    scenario = case.faulty
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from doctor.cli.main import main; sys.exit(main())"
    variables = runner._environment(work, scenario, {} if case.once else scenario.fault)
    variables |= {"LFDOCTOR_LAB_BF16": "1"} if case.bf16 else {}
    command = ["bash", "-c", f'{limit(work)}; exec "$0" "$@"', sys.executable, "-c", script, "fix", ".", "--start", "--yes"]
    with runner.held(scenario.held_port), (work / "fix.log").open("wb") as log:
        return subprocess.run(
            command, cwd=work, env=variables, stdout=log, stderr=log, timeout=runner.TIMEOUT_SECONDS, check=False
        ).returncode


def newest_config(work: Path) -> Path:
    """The config that `fix` wrote; the run's own where the patch is one of variables."""
    return next(iter(sorted(work.glob("train-patched*.yaml"))), work / "train.yaml")


def judge(result: Result, code: int, work: Path, scenario: Scenario, after: Path) -> None:
    """Fills `after` and `wrong`: whether the training reached its end as planned and nothing else is the matter."""
    if code:
        result.wrong.append(f"exit code {code}")
        return
    old, new = (yaml.safe_load(path.read_text()) or {} for path in (work / "train.yaml", after))
    output = work / new["output_dir"]
    state = json.loads((output / "trainer_state.json").read_text())
    losses = [one["loss"] for one in state["log_history"] if "loss" in one]
    if state["global_step"] != state["max_steps"]:
        result.wrong.append(f"step {state['global_step']} of {state['max_steps']}")
    if losses and not sum(losses[-3:]) / len(losses[-3:]) <= RISE * losses[0]:
        result.wrong.append(f"loss {losses[0]:.3g} -> {losses[-1]:.3g}")
    weights = next(output.glob("*model.safetensors"))
    if not new.get("pure_bf16") and not finite(weights):
        result.wrong.append("weights that are no numbers")
    batches = [effective_batch(config, scenario) for config in (old, new)]
    if batches[0] != batches[1] and old.get(BATCH_KEYS[0], 1) != 0:
        result.wrong.append(f"effective batch {batches[0]} -> {batches[1]}")
    again = doctor.analyze(output)
    second = [one.rule for one in again.findings if one.severity == "error"]
    if second:
        result.wrong.append(f"second fault: {second}")
    moved = f"loss {losses[0]:.2f} → {losses[-1]:.2f}, " if losses else ""
    result.after = f"{state['global_step']} of {state['max_steps']} steps, {moved}effective batch {batches[1]}"


def effective_batch(config: Mapping[str, Any], scenario: Scenario) -> int:
    """Samples of one optimizer step; LLaMA-Factory's defaults are 8 and 1."""
    return int(config.get(BATCH_KEYS[0], 8)) * int(config.get(BATCH_KEYS[1], 1)) * scenario.ranks


def standing(report: Report) -> str:
    """How the faulty run ended, in a few words."""
    where = f" at step {report.run.steps.last}" if report.run.steps.last else ""
    return f"{report.run.status}{where}"


def told(changes: list[ChangeView]) -> str:
    """The changes of a patch in one line; folders and run names only keep runs apart."""
    kept = [one for one in changes if one.key not in ("output_dir", "resume_from_checkpoint") or len(changes) == 1]
    return ", ".join(
        f"`{one.key}` removed" if one.op == "unset" else f"`{one.key}: {'' if one.old is None else f'{one.old} → '}{one.new}`"
        for one in kept
    )


def versions() -> str:
    """LLaMA-Factory, transformers, torch and Python of the lab."""
    code = (
        "import sys; from importlib.metadata import version as v; print('LLaMA-Factory', v('llamafactory'), '· transformers',"
        " v('transformers'), '· torch', v('torch'), '· Python', sys.version.split()[0])"
    )
    return subprocess.run([str(lab_bin() / "python"), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def table(results: Mapping[str, Result]) -> str:
    """docs/cures.md."""
    cured = sum(not one.wrong for one in results.values())
    head = f"""# Cures, proved

`python -m tests.lab.cures --write` provokes each fault in the real LLaMA-Factory, runs `lfdoctor fix --start` in its folder, and looks at
what came of it: the fault stays where it was (the limit, the disk, the port, the card that holds so many samples), and the training must
reach its planned end with finite weights, a loss that has not risen, the same effective batch and no second fault. "by hand": no patch can
make the change that the report names; `fix` refused, and it was made by hand. The faults of a GPU are played on the CPU
([tests/lab](../tests/lab/README.md)); of the slow runs it is not measured here whether they became fast (`make lab` does).

{date.today()} · {versions()}

{cured} of {len(results)} faults cured.

| cause | fault | remedy | before | after |
|---|---|---|---|---|
"""
    rows = [
        f"| {one.cause} | {one.says} | {one.remedy or '-'} | {one.before} | {ending(one)} |"
        for one in sorted(results.values(), key=lambda one: one.cause)
    ]
    return head + "\n".join(rows) + "\n"


def ending(result: Result) -> str:
    """The last cell of a row."""
    return f"not cured: {'; '.join(result.wrong)}" if result.wrong else result.after


def main() -> int:
    """The number of faults that were not cured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the runs and their results; default: a temporary one")
    arguments = parser.parse_args()
    runner.TIMEOUT_SECONDS = PATIENCE_SECONDS
    chosen = [case for case in CASES if any(fnmatch.fnmatch(case.scenario, pattern) for pattern in arguments.patterns)]
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(prefix="lfdoctor-cures-") as temporary:
        base = arguments.keep or Path(temporary)
        base.mkdir(parents=True, exist_ok=True)
        runner.kit(base / "kit")

        def one(case: Cure) -> None:
            began = time.monotonic()
            try:
                result = treat(case, base)
            except Exception as error:  # a broken run costs this case only
                result = Result(cause="?", says=case.faulty.says, wrong=[f"{type(error).__name__}: {error}"])
            results[case.scenario] = result
            (base / f"{case.scenario}.json").write_text(json.dumps(dataclasses.asdict(result)), encoding="utf-8")
            print(f"{'ok  ' if not result.wrong else 'FAIL'} {case.scenario:50} {time.monotonic() - began:4.0f} s  {result}", flush=True)

        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(one, chosen))
        known = {case.scenario: base / f"{case.scenario}.json" for case in CASES}
        everything = {name: Result(**json.loads(path.read_text(encoding="utf-8"))) for name, path in known.items() if path.exists()}
    failed = sum(bool(one.wrong) for one in results.values())
    print(f"{len(results) - failed} of {len(results)} cured")
    if arguments.write:
        TABLE.write_text(table(everything), encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main())
