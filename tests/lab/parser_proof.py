"""Proves the config rules and the patches against the real parser of LLaMA-Factory.

    python tests/lab/parser_proof.py agreement [CASES.csv]      rules and parser must give the same verdict
    python tests/lab/parser_proof.py patches [CONFIGS ...]      what was accepted must be so after every remedy; what the check calls
                                                                fixable so after the fix (YAML files or folders beside the grid)

Run with the doctor's Python; the lab's is started for the parser (LFDOCTOR_LAB_VENV; DeepSpeed must be installed there).
LFDOCTOR_PROOF_STRIDE=4 asks for every fourth patched config only.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from doctor.config import yaml_edit
from doctor.core.events import ConfigSeen, Fact, Where
from doctor.diagnosis.causes import assign_roles
from doctor.diagnosis.engine import Engine
from doctor.planner import plan as planner
from doctor.planner.situation import Situation, advise
from doctor.planner.writing import patched_text
from doctor.rulebook import loader
from doctor.rulebook.findings import Finding
from doctor.rulebook.model import Remedy
from doctor.support.package_files import rules_folder

sys.path.insert(0, str(Path(__file__).parent))
from install import lab_bin, stack

Config = dict[str, Any]
BASE: Config = {"model_name_or_path": "m", "do_train": True, "dataset": "toy", "template": "llama3", "output_dir": "saves/run"}
STAGES: dict[str, Config] = {
    "pt": {},
    "sft": {},
    "rm": {},
    "dpo": {},
    "dpo-orpo": {"stage": "dpo", "pref_loss": "orpo"},
    "kto": {},
    "ppo": {"reward_model": "r"},
}
METHODS: dict[str, Config] = {
    "lora": {},
    "full": {},
    "freeze": {},
    "oft": {},
    "lora-4bit": {"finetuning_type": "lora", "quantization_bit": 4},
}
SHARDING: dict[str, Config] = {"": {}, "z2": {"deepspeed": "ds_z2_config.json"}, "z3": {"deepspeed": "ds_z3_config.json"}}
PRECISION: dict[str, Config] = {"": {}, "bf16": {"bf16": True}, "fp16": {"fp16": True}, "pure": {"pure_bf16": True}}
EXTRAS: Config = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 3,
    "lora_rank": 64,
    "lora_alpha": 128,
    "learning_rate": 2e-4,
    "disable_gradient_checkpointing": True,
    "flash_attn": "auto",
    "preprocessing_num_workers": 8,
    "max_grad_norm": 2.0,
}
ONE_GPU = {"world_size": 1, **stack().facts}
"""As the parser is asked: without torchrun."""
FACTS = {"world_size": 2, "gpu.count": 2, "phase": "train", **stack().facts}


def ask(configs: Iterable[tuple[str, Config]], bare: bool = False) -> dict[str, str | None]:
    """The parser's error for each config, None where it accepts; one process a core asks.

    Without `report_to`, transformers before 5 reports to every tracker that is installed here, which is not the config's matter.
    """
    questions = [json.dumps({"id": name, "config": {"report_to": "none", **config}}) + "\n" for name, config in configs]
    command = [str(lab_bin() / "python"), str(Path(__file__).with_name("parser_oracle.py")), *(["--bare"] if bare else [])]

    def answers(asked: list[str]) -> str:
        text = "".join(asked)
        return subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout

    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        told = "".join(pool.map(answers, (questions[core::cores] for core in range(cores))))
    return {answer["id"]: answer["error"] for answer in map(json.loads, told.splitlines())}


def findings(config: Config, facts: Mapping[str, Any]) -> list[Finding]:
    """What the rules on the config say before the run."""
    engine = Engine(rule for rule in BOOK.rules if rule.detector in ("config", "options"))
    where = Where("config")
    for name, value in facts.items():
        engine.feed(Fact(where=where, name=name, value=value))
    engine.feed(ConfigSeen(where=where, values=config))
    return engine.findings()


def refusals(config: Config, facts: Mapping[str, Any]) -> list[str]:
    """The rules that say the parser itself refuses (they ask whether the run got past it), not what fails later."""
    return [one.rule.id for one in findings(config, facts) if one.rule.severity == "error" and "fact.compute_dtype" in one.rule.where]


def agreement(cases: Path | None) -> int:
    """Prints every disagreement; returns how many."""
    asked: list[tuple[str, Config, Mapping[str, Any]]] = []
    for rule in (rule for rule in BOOK.rules if rule.detector in ("config", "options")):
        kinds = {"match": rule.examples.match, "no_match": rule.examples.no_match}
        for kind, place, example in ((kind, i, one) for kind, group in kinds.items() for i, one in enumerate(group)):
            if not example.given and not {"export_dir", "deepspeed"} & (example.config or {}).keys():
                missing = rule.id.endswith(("-missing", "without-dataset"))
                blank = {} if missing else BASE
                if missing and kind == "no_match":
                    continue
                asked.append((f"{rule.id}:{kind}{place}", {**blank, **(example.config or {})}, ONE_GPU))
    wrong = compare(asked, bare=False)
    if cases:
        wrong += compare(list(read_cases(cases)), bare=True)
    return wrong


def read_cases(path: Path) -> Iterator[tuple[str, Config, Mapping[str, Any]]]:
    """A CSV of single overrides (columns case, override) on a small base, parsed on a machine without a GPU."""
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            given = {**BASE, "stage": "sft", "finetuning_type": "lora", "use_cpu": True, **json.loads(row["override"])}
            yield f"case:{row['case']}", {key: value for key, value in given.items() if value is not None}, {"device": "cpu"}


def compare(asked: list[tuple[str, Config, Mapping[str, Any]]], bare: bool) -> int:
    """Verdict by verdict. A package that is not installed is the environment's matter: the rules can only note the need."""
    answers = ask(((name, config) for name, config, _ in asked), bare)
    wrong = 0
    for name, config, facts in asked:
        error = answers[name]
        said = refusals(config, facts)
        if error and "distribution was not found" in error:
            said = [one.rule.id for one in findings(config, facts) if one.rule.id == "config/packages-needed"]
        elif error and "keys are not used" in error:
            # a key of another release or trainer: told by its own rule, as a warning, since the version meant is not known
            said = said or [one.rule.id for one in findings(config, facts) if one.rule.id == "config/option-of-another-version"]
        if bool(error) is not bool(said):
            wrong += 1
            print(f"  {name}: parser says {error or 'accepted'}; the rules say {said or 'nothing'}")
    print(f"{len(asked) - wrong} of {len(asked)} verdicts agree")
    return wrong


def grid() -> Iterator[tuple[str, Config]]:
    """Stage x method x sharding x precision, with values that every remedy can move."""
    for stage, method, sharding, precision in itertools.product(STAGES, METHODS, SHARDING, PRECISION):
        if sharding and precision in ("", "fp16"):
            continue  # a process group a config is slow, and DeepSpeed cares for pure_bf16 only
        config = {**BASE, "stage": stage.split("-")[0], "finetuning_type": method.split("-")[0], **EXTRAS}
        config |= STAGES[stage] | METHODS[method] | SHARDING[sharding] | PRECISION[precision]
        if stage == "ppo" and method[:4] != "lora":
            config["reward_model_type"] = "full"
        yield f"{stage}/{method}/{sharding}/{precision}", config


def remedies() -> dict[str, Remedy]:
    """All shared remedies by name: the guide's steps and those beyond."""
    from doctor.rulebook import parsing

    folder = rules_folder()
    shared = parsing._shared_remedies(folder, parsing._load_guide(folder / "guide.yaml"))
    import msgspec

    return {name: msgspec.convert(body, Remedy) for name, body in shared.items()}


def patches(folders: list[Path]) -> int:
    """Every remedy on every accepted config of the grid and of these files, then the check's own fixes; prints what is refused."""
    given = dict(grid())
    texts = {str(path): path.read_text(encoding="utf-8", errors="replace") for folder in folders for path in yaml_files(folder)}
    for name, text in texts.items():
        try:
            given[name] = {**yaml_edit.load(text)}
        except yaml_edit.NotReadable:
            continue
    before = ask((name, {**config, "output_dir": "saves/run"}) for name, config in given.items())
    patched: dict[str, Config] = {}
    bytes_changed = 0
    for name, config in given.items():
        if before[name] is None:
            for remedy_name, after, changes in applied(config):
                key = f"{name} + {remedy_name}"
                patched[key] = after
                if name in texts:
                    bytes_changed += not untouched(texts[name], changes)
    fixed = {f"{name} + fix": fix for name, config in given.items() if before[name] is not None and (fix := fixes(config)) is not None}
    stride = int(os.environ.get("LFDOCTOR_PROOF_STRIDE", "1"))
    kept = [name for place, name in enumerate(patched) if place % stride == 0 or name.partition(" + ")[0] in texts]
    patched = {name: patched[name] for name in kept}
    after = ask((name, {**config, "output_dir": "saves/run"}) for name, config in {**patched, **fixed}.items())
    refused = {name: error for name, error in after.items() if error is not None}
    for name, error in refused.items():
        print(f"  {name}: {error}")
    accepted = sum(error is None for error in before.values())
    print(f"{len(given)} configs, {accepted} accepted; {len(patched)} patched, {sum(name in refused for name in patched)} of them refused")
    print(f"{len(fixed)} refused ones fixed, {sum(name in refused for name in fixed)} still refused")
    for name, error in before.items():
        if error is not None and name + " + fix" not in fixed:
            print(f"  no fix for {name}: {error}")
    print(f"{bytes_changed} patched files with other bytes changed than asked")
    return len(refused) + bytes_changed


def yaml_files(folder: Path) -> list[Path]:
    return [folder] if folder.is_file() else sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")])


def applied(config: Config) -> Iterator[tuple[str, Config, Any]]:
    """(remedy, patched config, changes) of every remedy that applies."""
    situation = Situation(config, FACTS, {})
    rules = [rule for rule in BOOK.rules if rule.detector == "config"]
    for name, remedy in REMEDIES.items():
        advice = advise(remedy, situation, {"number": 1e-4}, rules)
        if advice.status == "apply":
            yield name, dict(situation.after(advice.changes).config), advice.changes


def untouched(text: str, changes: Any) -> bool:
    """Whether the edited YAML differs from the old one only in lines of the changed keys (True where the edit is declined)."""
    out, _ = patched_text(planner.ConfigText("config.yaml", text), changes, {})
    if out is None:
        return True
    keys = {change.key for change in changes}

    def others(lines: list[str]) -> list[str]:
        return [line for line in lines if line.split(":")[0].strip(" \"'\ufeff") not in keys and not line.startswith("  ")]

    old, new = others(text.splitlines()), others(out.splitlines())
    return old == new


def fixes(config: Config) -> Config | None:
    """The config as `check` would mend it; None where it offers nothing, or says itself that more is wrong."""
    engine = Engine(rule for rule in BOOK.rules if rule.detector in ("config", "options"))
    for name, value in stack().facts.items():
        engine.feed(Fact(where=Where("config"), name=name, value=value))
    engine.feed(ConfigSeen(where=Where("config"), values=config))
    found = assign_roles(engine.findings())
    plan = planner.plan(found, engine.run, BOOK)
    if plan.patch is None:
        return None
    after = dict(Situation(config, stack().facts, {}).after(plan.patch.patch.changes).config)
    return None if refusals(after, stack().facts) else after


BOOK = loader.load()
REMEDIES = remedies() if "patches" in sys.argv else {}

if __name__ == "__main__":
    rest = [Path(word) for word in sys.argv[2:]]
    sys.exit(bool(agreement(rest[0] if rest else None) if sys.argv[1] == "agreement" else patches(rest)))
