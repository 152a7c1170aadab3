"""Writes rules/options.yaml: LLaMA-Factory's options, read from the published wheels (older versions) and the installed one (newest).

    python tests/lab/make_options.py WHEELS > rules/options.yaml      (run with the lab's Python; WHEELS: a folder)

Fill WHEELS first: `pip download --no-deps -d WHEELS llamafactory==V` for V in LLAMAFACTORY below, `transformers==V` for V in
TRANSFORMERS (0.7.0 was published as llmtuner). Nothing of the older wheels is imported: their dataclasses are read as syntax trees.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import itertools
import json
import re
import sys
import types
import typing
import zipfile
from pathlib import Path
from typing import Any

LLAMAFACTORY = ("0.7.0", "0.8.0", "0.8.3", "0.9.0", "0.9.1", "0.9.2", "0.9.3", "0.9.4", "0.9.5")
TRANSFORMERS = ("4.40.2", "4.42.4", "4.45.0", "4.46.1", "4.49.0", "4.52.4", "4.55.0", "4.57.1", "5.0.0", "5.6.0")
UNKNOWN = object()
HIDDEN = {"compute_dtype", "device_map", "model_max_length", "block_diag_attn"}
EXTRA_CHOICES = {
    # fields whose type is a plain str although only these values work (extras/constants.py AttentionFunction, quantization.py)
    "flash_attn": ["auto", "disabled", "sdpa", "fa2", "fa3"],
    "train_sampling_strategy": ["random", "sequential", "group_by_length"],
    "fp8_backend": ["auto", "torchao", "te", "msamp"],
    "ddp_backend": ["nccl", "gloo", "mpi", "ccl", "hccl", "cncl", "mccl"],
}
# Values that another release takes, and no newer one: what is legal there is not called unknown.
CHOICES_ELSEWHERE = {"infer_backend": ["ktransformers"]}  # 0.9.4, extras/constants.py EngineName.KT
# What became of options that are gone; checked against the versions' own release notes and code.
USE_INSTEAD = {
    "evaluation_strategy": "eval_strategy",
    "group_by_length": "train_sampling_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "no_cuda": "use_cpu",
    "include_tokens_per_second": "include_num_input_tokens_seen",
    "dpo_beta": "pref_beta",
    "orpo_beta": "pref_beta",
    "dpo_loss": "pref_loss",
    "dpo_ftx": "pref_ftx",
    "num_layer_trainable": "freeze_trainable_layers",
    "name_module_trainable": "freeze_trainable_modules",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
}


def literal(node: ast.expr | None) -> Any:
    """The value of a default written in source, UNKNOWN where it is computed."""
    if node is None:
        return UNKNOWN
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "field":
        for word in node.keywords:
            if word.arg == "default":
                return literal(word.value)
        return UNKNOWN
    try:
        return ast.literal_eval(node)
    except ValueError:
        return UNKNOWN


def fields_of(sources: list[str]) -> dict[str, tuple[str, Any]]:
    """Annotated fields of every `*Argument(s)` dataclass in these sources: name -> (annotation as text, default)."""
    found: dict[str, tuple[str, Any]] = {}
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Arguments", "Argument")) and not node.name.startswith("Evaluation"):
                for item in node.body:
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                        no_init = isinstance(item.value, ast.Call) and any(
                            word.arg == "init" and literal(word.value) is False for word in item.value.keywords
                        )
                        if not no_init and not ast.unparse(item.annotation).startswith("ClassVar"):
                            found[item.target.id] = (ast.unparse(item.annotation), literal(item.value))
    return found


def from_wheel(folder: Path, name: str, version: str, wanted: typing.Callable[[str], bool]) -> dict[str, tuple[str, Any]]:
    """The fields in those modules of one wheel."""
    old = "llmtuner" if name == "llamafactory" and version < "0.8" else name  # the package's name up to 0.7
    wheel = next(folder.glob(f"{old}-{version}-*.whl"), None)
    if wheel is None:
        return {}
    with zipfile.ZipFile(wheel) as archive:
        return fields_of([archive.read(path).decode() for path in archive.namelist() if wanted(path)])


def is_hparams(path: str) -> bool:
    return "/hparams/" in path and path.endswith("_args.py")


def is_training_arguments(path: str) -> bool:
    return path in ("transformers/training_args.py", "transformers/training_args_seq2seq.py")


def describe(kind: Any) -> tuple[str, list[Any] | None]:
    """(type word, choices) of an annotation: `int`, `float|null`, `str|list`, ..."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        parts = [describe(part) for part in typing.get_args(kind)]
        choices = next((choice for _, choice in parts if choice), None)
        words = sorted({word for word, _ in parts}, key=lambda word: (word == "null", word))
        return "|".join(words), choices
    if typing.get_origin(kind) is typing.Literal:
        return "str", list(typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "str", [member.value for member in kind]
    if kind is type(None):
        return "null", None
    origin = typing.get_origin(kind) or kind
    return {"bool": "bool", "int": "int", "float": "float", "str": "str", "list": "list", "dict": "dict"}.get(
        getattr(origin, "__name__", ""), "any"
    ), None


def plain(annotation: str) -> str:
    """The type word of an annotation known only as text."""
    words = {word for word in ("bool", "int", "float", "str", "list", "dict") if re.search(rf"(?i)\b{word}\b", annotation)}
    words |= {"str"} if "Literal" in annotation or "Strategy" in annotation else set()
    words |= {"null"} if "Optional" in annotation or "None" in annotation else set()
    return "|".join(sorted(words, key=lambda word: (word == "null", word))) or "any"


def newest() -> dict[str, dict[str, Any]]:
    """The installed LLaMA-Factory's options with group, type, default and choices."""
    from llamafactory import hparams
    from llamafactory.data.template import TEMPLATES

    groups = {"model": "ModelArguments", "data": "DataArguments", "training": "TrainingArguments"}
    groups |= {"finetuning": "FinetuningArguments", "generating": "GeneratingArguments"}
    out: dict[str, dict[str, Any]] = {}
    for group, name in groups.items():
        kind = getattr(hparams, name)
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if not field.init or field.name in out or field.name in HIDDEN:
                continue
            word, choices = describe(hints[field.name])
            default = field.default
            if default is dataclasses.MISSING:
                default = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
            entry: dict[str, Any] = {"group": group, "type": word, "default": default.value if isinstance(default, enum.Enum) else default}
            choices = sorted(TEMPLATES) if field.name == "template" else choices or EXTRA_CHOICES.get(field.name)
            out[field.name] = entry | ({"choices": [*choices, *CHOICES_ELSEWHERE.get(field.name, [])]} if choices else {})
    return out


def lifetime(name: str, versions: list[tuple[str, dict[str, tuple[str, Any]]]], lives: bool) -> dict[str, Any]:
    """`since` / `until` (first and last version that has it, where not all do) and `was`: {last version: other default}."""
    having = [version for version, fields in versions if name in fields]
    out: dict[str, Any] = {}
    if having and having[0] != versions[0][0]:
        out["since"] = having[0]
    if not lives and having and having[-1] != versions[-1][0]:
        out["until"] = having[-1]
    defaults = [(version, fields[name][1]) for version, fields in versions if name in fields]
    was = {
        version: value
        for (version, value), (_, later) in itertools.pairwise(defaults)
        if UNKNOWN not in (value, later) and (value, type(value)) != (later, type(later))
    }
    return out | ({"was": was} if was else {})


def main(folder: Path) -> None:
    """Prints the file: JSON (which is YAML too, and loads 50 times faster), one option a line."""
    current = newest()
    import transformers.training_args
    import transformers.training_args_seq2seq
    from llamafactory import hparams as package

    here = [Path(path).read_text(encoding="utf-8") for path in Path(package.__file__).parent.glob("*_args.py")]
    theirs = [Path(m.__file__).read_text(encoding="utf-8") for m in (transformers.training_args, transformers.training_args_seq2seq)]
    factory = [(v, from_wheel(folder, "llamafactory", v, is_hparams)) for v in LLAMAFACTORY[:-1]]
    trainer = [(v, from_wheel(folder, "transformers", v, is_training_arguments)) for v in TRANSFORMERS[:-1]]
    factory = [(v, fields) for v, fields in [*factory, (LLAMAFACTORY[-1], fields_of(here))] if fields]
    trainer = [(v, fields) for v, fields in [*trainer, (TRANSFORMERS[-1], fields_of(theirs))] if fields]
    options: dict[str, dict[str, Any]] = {}
    for versions, of in ((factory, "llamafactory"), (trainer, "transformers")):
        for _, fields in versions:
            for name, (annotation, default) in fields.items():
                if name in HIDDEN or name.startswith("_") or (name in current and name not in fields):
                    continue
                old = {"group": "gone", "type": plain(annotation), "default": None if default is UNKNOWN else default}
                entry = dict(current.get(name, old))
                options[name] = entry | {"of": of} | lifetime(name, versions, name in current)
                if name not in current and name in USE_INSTEAD:
                    options[name]["use"] = USE_INSTEAD[name]
    for name, use in USE_INSTEAD.items():
        options.setdefault(name, {"group": "gone", "type": "any", "default": None, "of": "llamafactory", "until": "0.7.0", "use": use})
    lines = [f"{json.dumps(name)}: {json.dumps(options[name])}" for name in sorted(options)]
    about = f"LLaMA-Factory {factory[0][0]} to {factory[-1][0]} with transformers {trainer[0][0]} to {trainer[-1][0]}; " + (
        "written by tests/lab/make_options.py; JSON on purpose (it is YAML, and loads faster); since/until in versions of `of`"
    )
    print("{" + f'"_about": {json.dumps(about)},\n' + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
