"""Proves on LLaMA-Factory's own examples that `check` and the schema judge by version as each version's parser does.

    python tests/lab/versions_proof.py FOLDER ...

A FOLDER is a checkout or source distribution of a release (or of main). For each training config in its `examples/`:

- `check --llamafactory-version V` tells an error exactly where the parser of V refuses (`parser_oracle.py --source`), but for what only the
  environment decides: options that need USE_MCA=1 or USE_MEGATRON_BRIDGE=1 are told as notes, missing packages are the machine's matter,
  and options that the lab's transformers no longer has are left out of the question.
- the schema of V accepts every example that `check` accepts.

Run with the doctor's Python (jsonschema must be there); prints every disagreement and a line of figures; exit code 1 for any.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema

from doctor.config import knowledge, yaml_text
from doctor.config.options import table
from doctor.config.recognise import shape_of
from doctor.config.schema import schema
from doctor.config.versions import parse, versions_of
from doctor.diagnosis.check import check
from doctor.report.model import Report
from doctor.rulebook import loader

sys.path.insert(0, str(Path(__file__).parent))
from install import lab_bin, stack

ENVIRONMENT = re.compile(r"No module named|distribution was not found|is required for a normal functioning")
"""Errors of the parser that tell of the machine, not of the config."""

LAB = {"transformers": parse(stack().pinned("transformers"))}

BOOK = {rule.id: rule for rule in loader.load().rules}


def version_of(folder: Path) -> str:
    """The version that a checkout states, as `knowledge.releases` names it."""
    found = re.search(r'VERSION = "([^"]+)"', (folder / "src/llamafactory/extras/env.py").read_text(encoding="utf-8"))
    assert found is not None, folder
    return "main" if ".dev" in found[1] else found[1]


def configs(folder: Path) -> dict[Path, dict[str, Any]]:
    """Every LLaMA-Factory config among the examples."""
    out = {}
    for path in sorted((folder / "examples").rglob("*.yaml")):
        with contextlib.suppress(yaml_text.NotReadable):
            values = yaml_text.load(path.read_text(encoding="utf-8"))
            if shape_of(values) is not None:
                out[path] = values
    return out


def gone(version: str) -> set[str]:
    """Options of the transformers that a version goes with, which the lab's transformers lacks: the lab has one only."""
    packages = versions_of({"versions.llamafactory": version})
    return {name for name, option in table().items() if option.exists_in(packages) and not option.exists_in({**packages, **LAB})}


def answers(folder: Path, given: dict[Path, dict[str, Any]]) -> dict[str, str | None]:
    """The parser's error for each training config, None where it accepts."""
    questions, left_out = [], gone(version_of(folder))
    for path, values in given.items():
        if shape_of(values) == "v0" and {"do_train", "do_predict", "output_dir"} & values.keys():
            asked = {key: value for key, value in values.items() if key not in left_out}
            questions.append(json.dumps({"id": str(path), "config": {**asked, "output_dir": "saves/run"}}, default=str))
    command = [str(lab_bin() / "python"), str(Path(__file__).with_name("parser_oracle.py")), "--source", str(folder / "src")]
    told = subprocess.run(command, input="\n".join(questions) + "\n", capture_output=True, text=True, check=True).stdout
    return {answer["id"]: answer["error"] for answer in (json.loads(line) for line in told.splitlines() if line.startswith("{"))}


def refused(report: Report) -> list[str]:
    """The rules that say that the parser itself refuses."""
    errors = [finding.rule for finding in report.findings if finding.severity == "error"]
    return [rule for rule in errors if "fact.compute_dtype" in BOOK[rule].where]


def prove(folder: Path) -> int:
    """Print the disagreements of one version; return how many."""
    version, given = version_of(folder), configs(folder)
    told, judge = answers(folder, given), jsonschema.Draft7Validator(schema(version))
    wrong = environment = 0
    for path, values in given.items():
        report = check(path, folder=folder, llamafactory_version=version)
        said, error = refused(report), told.get(str(path))
        switched = any(finding.rule == "config/option-of-another-version" for finding in report.findings)
        if error is not None and not said and (switched or ENVIRONMENT.search(error)):
            environment += 1
        elif str(path) in told and bool(error) is not bool(said):
            wrong += 1
            print(f"  {path}: parser says {error or 'accepted'}; the rules say {said or 'nothing'}")
        problems = [problem.message for problem in judge.iter_errors(values)]
        if problems and not any(finding.severity == "error" for finding in report.findings):
            wrong += 1
            print(f"  {path}: the schema says {problems[0][:150]}")
    print(f"{knowledge.shown(version)}: {len(given)} examples, {len(told)} asked, {environment} need another environment, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(sum([prove(Path(word).resolve()) for word in sys.argv[1:]])))
