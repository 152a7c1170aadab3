"""Proves on whole folders of real configs that fixes and patches lose nothing that a release of LLaMA-Factory knows.

    python tests/lab/examples_proof.py FOLDER ...

A FOLDER with `src/llamafactory` is a checkout or source distribution of a release: its `examples/` are taken and its own parser is asked
(`parser_oracle.py --source`). Of any other FOLDER every YAML is taken, and the installed release is asked. For each config:

- `check --fix`, and with `--unsafe-fixes`: no key is gone that the parser of any of the releases, or transformers, has (read from their
  sources, not from our tables), but for older names whose successor stands there instead; a changed file is accepted by its own
  release's parser wherever it was accepted before, and where it was refused the reason is told.
- the patch of an out-of-memory and of a refused-keys log: no such key is unset, but for those that a remedy names itself.

Run with the doctor's Python; prints what is wrong and figures; exit code 1 for anything wrong.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import doctor
from doctor.cli.main import main as lfdoctor
from doctor.config.option_names import known_somewhere
from doctor.config.recognise import shape_of
from doctor.support.package_files import rules_folder

sys.path.insert(0, str(Path(__file__).parent))
from install import lab_bin

OOM = (
    "***** Running training *****\n"
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.57 GiB.\n"
)
REFUSED = (
    'Traceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: Some keys are not used by the HfArgumentParser: {}\n'
)
MODES = (("--fix",), ("--fix", "--unsafe-fixes"))


class Config(NamedTuple):
    """A config, and the release that it is of (None: unknown)."""

    path: Path
    text: str
    values: dict[str, Any]
    release: Path | None


def configs(folders: list[Path]) -> Iterator[Config]:
    """Every YAML mapping of the folders."""
    for folder in folders:
        release = folder if (folder / "src" / "llamafactory").is_dir() else None
        for path in sorted([*(folder / "examples" if release else folder).rglob("*.yaml"), *folder.rglob("*.yml")]):
            text = path.read_text(encoding="utf-8", errors="replace")
            with contextlib.suppress(yaml.YAMLError):
                values = yaml.safe_load(text)
                if isinstance(values, dict):
                    yield Config(path, text, values, release)


def names_of(releases: list[Path]) -> set[str]:
    """The options of these releases (hparams, the trainers of Megatron and v1) and of the lab's transformers, by their source."""
    found: set[str] = set()
    for release in releases:
        package = release / "src" / "llamafactory"
        for path in [*package.glob("hparams/*.py"), *package.glob("v1/config/*.py")]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    found |= {part.target.id for part in node.body if isinstance(part, ast.AnnAssign) and _is_option(part)}
    code = "import transformers, dataclasses; print(*(f.name for f in dataclasses.fields(transformers.Seq2SeqTrainingArguments)))"
    told = subprocess.run([str(lab_bin() / "python"), "-c", code], capture_output=True, text=True, check=True).stdout
    return found | set(told.split())


def _is_option(part: ast.AnnAssign) -> bool:
    """Whether a field of a dataclass can be given: not one that the parser sets itself (`init=False`)."""
    given = part.value.keywords if isinstance(part.value, ast.Call) else []
    return isinstance(part.target, ast.Name) and not any(word.arg == "init" for word in given)


def ask(questions: list[tuple[str, Config, Mapping[str, Any]]]) -> dict[str, str | None]:
    """The parser's error for each (id, config, values), None where it accepts; each release answers for its own."""
    answers: dict[str, str | None] = {}
    for release in {config.release for _, config, _ in questions}:
        lines = [
            json.dumps({"id": name, "config": dict(values)}, default=str) for name, config, values in questions if config.release == release
        ]
        command = [str(lab_bin() / "python"), str(Path(__file__).with_name("parser_oracle.py"))]
        command += ["--source", str(release / "src")] if release else []
        told = subprocess.run(
            command, input="\n".join(lines) + "\n", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
        )
        answers |= {
            answer["id"]: answer["error"] for answer in map(json.loads, filter(lambda line: line[:1] == "{", told.stdout.splitlines()))
        }
    return answers


def fixed(config: Config, mode: tuple[str, ...]) -> tuple[str, str]:
    """The text after the fix, and what was said on standard error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / config.path.name
        path.write_text(config.text, encoding="utf-8", newline="")
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            lfdoctor(["check", str(path), *mode, "--folder", folder])
        return path.read_text(encoding="utf-8"), said.getvalue()


def unset_by_patch(config: Config, log: str) -> set[str]:
    """The keys that the patch of a failed run with this config removes."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "train.yaml").write_text(config.text, encoding="utf-8", newline="")
        Path(folder, "console.log").write_text(log, encoding="utf-8")
        patch = doctor.analyze(folder).patch
        return {change.key for change in patch.changes if change.target == "config" and change.op == "unset"} if patch else set()


def named_by_remedies() -> set[str]:
    """Keys that a remedy removes by name."""
    found: set[str] = set()
    for path in rules_folder().rglob("*.yaml"):
        stack = [yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)] if path.name != "options.yaml" else []
        while stack:
            part = stack.pop()
            if isinstance(part, dict):
                found |= set(part["unset"]) if isinstance(part.get("unset"), list) else set()
                stack += part.values()
            elif isinstance(part, list):
                stack += part
    return found


def lost(config: Config, after: str, known: set[str]) -> list[str]:
    """Known keys that are gone, but for an older name whose successor came with its value."""
    values = yaml.safe_load(after)
    came = [values[key] for key in values if key not in config.values]
    return [key for key in config.values if key not in values and key in known and config.values[key] not in came]


def renamed(config: Config, after: str, known: set[str]) -> list[str]:
    """Known keys that stand there under another name."""
    return [key for key in config.values if key in known and key not in yaml.safe_load(after)]


def main(folders: list[Path]) -> int:
    """Print what is wrong; return whether anything is."""
    releases = [folder for folder in folders if (folder / "src" / "llamafactory").is_dir()]
    known, given = names_of(releases), list(configs(folders))
    print(f"{len(given)} configs of {len(folders)} folders, {len(releases)} of them releases; {len(known)} options in their sources")
    wrong = [f"our tables lack {name}" for name in sorted(known) if not known_somewhere(name) and not name.startswith("_")]
    changed: list[tuple[str, Config, str, str]] = []
    for config in given:
        for mode in MODES:
            after, said = fixed(config, mode)
            wrong += [f"{config.path} {mode[-1]}: lost {key}" for key in lost(config, after, known)]
            if after != config.text:
                changed.append((f"{config.path} {mode[-1]}", config, after, said))
    print(f"{sum(shape_of(config.values) is not None for config in given)} are LLaMA-Factory's; {len(changed)} fixes changed a file")
    print(
        "renamed:", ", ".join(sorted({key for _, config, after, _ in changed for key in renamed(config, after, known)})) or "nothing known"
    )
    wrong += refused(changed)
    wrong += patched(given, known, named_by_remedies())
    print(*wrong, sep="\n")
    return int(bool(wrong))


def refused(changed: list[tuple[str, Config, str, str]]) -> Iterator[str]:
    """Changed files that their parser does not accept, though it did before or nothing was told."""
    before = ask([(name, config, config.values) for name, config, _, _ in changed])
    after = ask([(name, config, yaml.safe_load(text)) for name, config, text, _ in changed])
    for name, _, _, said in changed:
        if after[name] is not None and (before[name] is None or " 0 left" in said):
            yield f"{name}: was {before[name] or 'accepted'}, is {after[name]}; told: {said.strip()[-200:]}"
    accepted = sum(error is None for error in after.values())
    print(f"{accepted} of {len(changed)} changed files accepted by their parser ({sum(error is None for error in before.values())} before)")
    for error in sorted({str(error)[:150] for error in after.values() if error is not None}):
        print(f"  still refused: {error}")


def patched(given: list[Config], known: set[str], named: set[str]) -> Iterator[str]:
    """Known keys that a patch removes although no remedy names them."""
    count = 0
    for config in given:
        foreign = [str(key) for key in config.values if key not in known]
        for log in (OOM, REFUSED.format(foreign or ["some_key"])):
            removed = unset_by_patch(config, log)
            count += bool(removed)
            yield from (f"{config.path}: the patch removes {key}" for key in removed & known - named)
    print(f"{count} of {2 * len(given)} patches remove a key")


if __name__ == "__main__":
    sys.exit(main([Path(word).resolve() for word in sys.argv[1:]]))
