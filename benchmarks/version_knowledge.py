"""What one version of LLaMA-Factory knows, by its sources: options of each trainer, templates, start checks, v1 plugins, pins."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from version_fields import Classes, Entry, messages
from version_sources import Source

Knowledge = dict[str, dict[str, Any]]
"""Section -> name -> what is known of it. Sections of options: v0, megatron_bridge, eval, infer, v1; of other products: options."""

V0 = {
    "ModelArguments": "model",
    "DataArguments": "data",
    "TrainingArguments": "training",
    "FinetuningArguments": "finetuning",
    "GeneratingArguments": "generating",
}
"""Dataclass of hparams -> group of options; hparams/parser.py _TRAIN_ARGS."""

OTHERS = {"MegatronBridgeArguments": "megatron_bridge", "EvaluationArguments": "eval", "_KTransformersRuntimeArguments": "infer"}
V1 = ("ModelArguments", "DataArguments", "TrainingArguments", "SampleArguments")

CHOICES = {"flash_attn": "AttentionFunction", "infer_backend": "EngineName", "rope_scaling": "RopeScaling"}
"""Options whose type is a text in some version, though only an enumeration's values work (extras/constants.py)."""

PLUGINS = {
    "InitPlugin": "init_config",
    "PeftPlugin": "peft_config",
    "KernelPlugin": "kernel_config",
    "QuantizationPlugin": "quant_config",
    "DistributedPlugin": "dist_config",
    "OptimizerPlugin": "optim_config",
    "LRSchedulerPlugin": "lr_scheduler_config",
}
"""Family of v1 plugins -> the option that configures it (v1/core: PluginName(self.args.OPTION.name))."""

PINNED = ("torch", "transformers", "datasets", "accelerate", "peft", "trl", "deepspeed")


def of(source: Source) -> Knowledge:
    """Everything that the sources of a version tell."""
    files = source.files
    if source.product != "llamafactory":
        return _training_arguments(Classes(text for path, text in files.items() if path.endswith(".py")))
    found: Knowledge = {"templates": dict.fromkeys(sorted(_templates(files)), True)}
    hparams = {path: text for path, text in files.items() if path.startswith("hparams/")}
    constants = [files[path] for path in ("extras/constants.py",) if path in files]
    found |= _v0(Classes([*hparams.values(), *constants]))
    v1 = {path: text for path, text in files.items() if path.startswith("v1/")}
    if v1:
        config = [text for path, text in v1.items() if path.startswith("v1/config/")]
        classes = Classes([*config, v1.get("v1/utils/types.py", "")])
        found["v1"] = {name: entry for group in V1 for name, entry in classes.fields(group).items() if entry is not None}
        found["v1_plugins"] = _plugins({path: text for path, text in v1.items() if path.startswith("v1/plugins/")})
    checked = hparams | {path: text for path, text in v1.items() if path.startswith("v1/config/")}
    found["checks"] = dict.fromkeys(sorted(set(messages(checked))), True)
    found["pins"] = dict(_pins(files))
    found["log_lines"] = dict(_log_lines(files.get("hparams/parser.py", "")))
    return {section: names for section, names in found.items() if names}


def _training_arguments(classes: Classes) -> Knowledge:
    """The options of transformers' or mcore_adapter's trainer."""
    fields = classes.fields("Seq2SeqTrainingArguments")
    return {"options": {name: entry for name, entry in fields.items() if not name.startswith("_")}}


def _v0(classes: Classes) -> Knowledge:
    options: dict[str, Entry] = {}
    for name, group in V0.items():
        for option, entry in classes.fields(name).items():
            options.setdefault(option, {"group": group, **entry})
    for option, name in CHOICES.items():
        legal = list(classes.members(name).values())
        if option in options and legal:
            options[option] = {**options[option], "choices": legal}
    return {"v0": options} | {section: classes.fields(name) for name, section in OTHERS.items() if classes.fields(name)}


def _templates(files: Mapping[str, str]) -> Iterator[str]:
    """Names that data/template.py registers."""
    for node in ast.walk(ast.parse(files.get("data/template.py", ""))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("register_template", "_register_template"):
            named = [word.value for word in node.keywords if word.arg == "name"] + node.args[:1]
            yield from (part.value for part in named if isinstance(part, ast.Constant) and isinstance(part.value, str))


def _plugins(files: Mapping[str, str]) -> dict[str, Any]:
    """`OPTION/NAME` -> its settings: name -> entry of a strict plugin; `{"loose": [names]}` of one that ignores what it
    does not read, with no names where it is not known what it reads."""
    found: dict[str, Any] = {}
    for text in files.values():
        classes = Classes([text])
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                for family, name in _registered(node):
                    settings = _settings(node, classes)
                    found.setdefault(f"{PLUGINS[family]}/{name}", settings)
    return found


def _registered(node: ast.ClassDef | ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """(family, name) of the decorators `@Family("name").register()`, without those for one method only."""
    for decorator in node.decorator_list:
        found = re.fullmatch(r"(\w+Plugin)\('([\w-]+)'\)\.register(?:\(\))?", ast.unparse(decorator))
        if found and found[1] in PLUGINS:
            yield found[1], found[2]


def _settings(node: ast.AST, classes: Classes) -> dict[str, Any]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".parse_params") and len(call.args) == 2:
            return {name: entry for name, entry in classes.fields(ast.unparse(call.args[1])).items() if name != "name"}
    return {"loose": sorted(set(_names_read(node)) - {"name"}) if isinstance(node, ast.FunctionDef) and not _hands_on(node) else []}


def _hands_on(function: ast.FunctionDef) -> bool:
    """Whether the function gives its config as a whole to another one, which may read more of it."""
    for part in ast.walk(function):
        values = [*part.args, *(word.value for word in part.keywords)] if isinstance(part, ast.Call) else []
        if any(isinstance(value, ast.Name) and "config" in value.id for value in values):
            return True
    return False


def _names_read(node: ast.AST) -> Iterator[str]:
    """Keys that are read out of a config: `config.get("key")`, `config["key"]`."""
    for part in ast.walk(node):
        match part:
            case ast.Call(func=ast.Attribute(value=owner, attr="get"), args=[ast.Constant(value=str(key)), *_]):
                if "config" in ast.unparse(owner):
                    yield key
            case ast.Subscript(value=owner, slice=ast.Constant(value=str(key))):
                if "config" in ast.unparse(owner):
                    yield key


def _log_lines(parser: str) -> Iterator[tuple[str, int]]:
    """The line of hparams/parser.py that logs `Process rank: ...`: the log shows it, and no two releases share it."""
    for node in ast.walk(ast.parse(parser)):
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("logger.info(") and "Process rank:" in ast.unparse(node):
            yield "hparams.parser", node.lineno


def _pins(files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Package -> releases that LLaMA-Factory takes: its own start check (extras/misc.py), else what it asks pip for."""
    asked = "\n".join(files.get(name, "") for name in ("extras/misc.py", "requirements.txt", "setup.py", "pyproject.toml", "METADATA"))
    for package in PINNED:
        found = re.search(rf"""(?:^|["' ]){package}\s*\(?((?:[<>=!~]=?[\d.*]+\s*,?\s*)+)""", asked, re.M)
        if found:
            yield package, re.sub(r"\s", "", found[1]).strip(",")
