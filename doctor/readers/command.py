"""Read options and launch settings from command lines: shell scripts, or a command pasted above a log."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.config.option_names import written_out
from doctor.config.options import table
from doctor.core.events import ConfigSeen, Event, Fact
from doctor.readers.base import ReaderBase
from doctor.readers.file import File, Source
from doctor.readers.origins import OTHER_COMMANDS
from doctor.readers.values import option_value
from doctor.support.lazy_regex import lazy_compile

_HEAD = 256 << 10
"""Bytes at the start of a log searched for a pasted command."""

_MAX_COMMAND = 50_000
"""Maximum characters of a command with its continuation lines; longer text is no command."""

_TRAINERS = ("llamafactory-cli", "train_bash.py", "train.py", "llamafactory.launcher", "llamafactory.cli", "launcher.py", "cli_demo.py",
             "export_model", "lmf ", "train_sft.py", "src/train", "finetune", "swift ")  # fmt: skip
"""Parts of words that show a training command."""

_LAUNCHERS = (
    "torchrun",
    "deepspeed",
    "accelerate",
    "torch.distributed.run",
    "torch.distributed.launch",
    "llamafactory-cli",
    "python",
    "swift",
)
"""Commands before the training script."""

_LAUNCH_OPTIONS = {
    "nproc_per_node": "nproc_per_node", "nproc-per-node": "nproc_per_node", "num_gpus": "nproc_per_node", "num_processes": "num_processes",
    "nnodes": "nnodes", "num_nodes": "nnodes", "num_machines": "nnodes", "node_rank": "node_rank", "config_file": "accelerate.config",
    "include": "include", "master_port": "master_port", "rdzv_endpoint": "rdzv_endpoint",
}  # fmt: skip
"""Launcher option (torchrun, deepspeed, accelerate) -> fact. These are not training options."""

_ASSIGNED = lazy_compile(r"([A-Za-z_]\w*)=(.*)", re.S)
"""A variable set before a command; one in capitals is taken for an environment variable."""

_ENVIRONMENT = lazy_compile(r"[A-Z][A-Z0-9_]{2,}")

_VARIABLE = lazy_compile(r"\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})")
"""A word that is a variable: the shell splits its value into words."""

_MAKE_VARIABLE = lazy_compile(r"^([A-Za-z_]\w*)[ ]*[:?]?=[ ]*(.*?)[ ]*$", re.M)
"""A variable of a Makefile."""

_OVERRIDE = lazy_compile(r"[a-z_]\w*(?:\.\w+)*=.*", re.S)
"""`learning_rate=1e-5` or `kt_config.kt_mode=a` after the name of a YAML (OmegaConf.from_cli in hparams/parser.py)."""

SCRIPTS = (".sh", ".bash", ".slurm", ".sbatch", ".cmd", ".bat", ".mk")
"""Suffixes of launch scripts."""

_OPTION = lazy_compile(r"--([A-Za-z][\w-]*)(?:=(.*))?", re.S)
"""An option of a command."""

_KNOWN = lazy_compile(
    r"--(?:stage|do_train|model_name_or_path|finetuning_type|per_device_train_batch_size|learning_rate|dataset|template|output_dir|"
    r"lora_target|lora_rank|cutoff_len|quantization_bit|deepspeed|gradient_accumulation_steps|num_train_epochs|do_predict)\b"
)
"""Options only LLaMA-Factory has, or that identify a training in combination."""

_YAML_ARGUMENT = lazy_compile(r"\S+\.(?:ya?ml|json)$")
"""A config file given as argument."""

_PROMPT = lazy_compile(r"^\s*(?:\([\w.-]+\)\s*)?(?:[\w.-]+@[\w.-]+[:\s][^$#]{0,200}[$#]|[$>+]{1,4}|!|%)\s+(?=\S)")
"""A shell prompt, or the prefix of a notebook cell, before a pasted command."""


class Command(ReaderBase):
    """Parses commands without running them: splits words like a shell and replaces variables the script itself assigns."""

    kind = "command"

    def claims(self, path: Path, head: bytes) -> bool:
        return is_script(path) and (
            path.name == "command.sh"
            or any(word.encode() in head for word in _TRAINERS)
            or _KNOWN.search(head.decode("utf-8", "replace")) is not None
        )

    def configs(self, file: File) -> Iterator[Event]:
        script = file.source.kind == self.kind
        text = file.head(_HEAD)
        if not script and "--" not in text and "llamafactory-cli" not in text:
            return
        variables: dict[str, str] = {}
        if script and _is_makefile(file.path):
            variables |= dict(_MAKE_VARIABLE.findall(text))
            text = "\n".join(line.lstrip("\t@-") if line.startswith("\t") else "" for line in text.split("\n"))
        for number, line in _logical_lines(text):
            yield from self._line(line, number, file, variables, script)
        if script and not file.source.records:
            yield from self._other_spellings(text, file)

    def _line(self, line: str, number: int, file: File, variables: dict[str, str], script: bool) -> Iterator[Event]:
        if not script and not (_KNOWN.search(line) or "llamafactory-cli " in line):
            return
        line = _PROMPT.sub("", line)
        if line.lstrip().startswith(("#", "[INFO", "[WARN", "Traceback", "usage:")):
            return
        words = _without_shells(_words(line))
        where = file.where(number)
        environment, words = _environment(words, variables)
        if (other := _other_trainer(words)) is not None:
            yield Fact(where=where, name="framework", value=other)
            return
        is_training = script or any(any(trainer in word for trainer in _TRAINERS) for word in words) or len(_KNOWN.findall(line)) >= 2
        if not is_training:
            return
        for name, value in environment.items():
            yield Fact(where=where, name=f"env.{name}", value=value)
        values, facts = _split(words, variables)
        for name, fact in facts.items():
            yield Fact(where=where, name=name, value=fact)
        if values and (len(values) >= 2 or script):
            file.source.records += script * len(values)
            yield ConfigSeen(where=where, values=values, origin="command")

    def _other_spellings(self, text: str, file: File) -> Iterator[Event]:
        """Options as JSON or as `key: value` pairs, which a file named command.sh may contain."""
        values: dict[str, Any] = {}
        whole = option_value(text.strip()) if text.lstrip().startswith("{") else None
        if isinstance(whole, dict):
            values = {key: value for key, value in whole.items() if isinstance(key, str)}
        else:
            for name, value in re.findall(r"(?:^|[,;\n])\s*([a-z][a-z0-9_]{2,})\s*[:=]\s*([^,;\n(){}]+)", text):
                values[name] = option_value(value.strip())
        if values:
            file.source.records = len(values)
            yield ConfigSeen(where=file.where(1), values=values, origin="command")


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """(line number, command) with continuation lines joined: after a trailing `\\`, or starting with `--`."""
    command, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if command and not command.endswith("\\") and not stripped.startswith("--"):
            yield start, command
            command = ""
        start = start if command else number
        command = f"{command.removesuffix(chr(92))} {stripped}" if command else stripped
        if len(command) > _MAX_COMMAND:
            command = ""
    if command:
        yield start, command.removesuffix("\\")


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return line.split()


def _environment(words: list[str], variables: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """(variables assigned before a command or by `export`, words of the command)."""
    found: dict[str, str] = {}
    place = 0
    while place < len(words):
        word = words[place].rstrip(";")
        assigned = _ASSIGNED.fullmatch(word)
        if assigned:
            variables[assigned[1]] = _expand(assigned[2], variables)
            if _ENVIRONMENT.fullmatch(assigned[1]):
                found[assigned[1]] = variables[assigned[1]]
        elif word not in ("export", "env", "nohup", "sudo", "time", "&&", "exec", "srun", "set"):
            break
        place += 1
    return found, words[place:]


def _expand(text: str, variables: dict[str, str]) -> str:
    """Replace `$NAME`, `${NAME}` and a Makefile's `$(NAME)` by its value; unknown names stay."""
    return re.sub(r"\$[{(]?([A-Za-z_]\w*)[})]?", lambda found: variables.get(found[1], found[0]), text) if "$" in text else text


def _without_shells(words: list[str]) -> list[str]:
    """The words of `bash -c "..."` in place of its text."""
    for place in range(len(words) - 2):
        if words[place].rpartition("/")[2] in ("bash", "sh") and words[place + 1] in ("-c", "-lc"):
            return [*words[:place], *_words(words[place + 2]), *words[place + 3 :]]
    return words


def is_script(path: Path) -> bool:
    """Whether a file of this name can be a launch script: a shell's, Slurm's or make's."""
    return path.suffix.lower() in SCRIPTS or _is_makefile(path)


def named_config(path: Path, folder: Path) -> Path | None:
    """The training YAML that a launch script names, if it lies in `folder` or beside or above the script."""
    file = File(path, str(path), Source(str(path), Command.kind, 0))
    names = [str(event.value) for event in Command().configs(file) if isinstance(event, Fact) and event.name == "config.named"]
    places = (folder, *path.absolute().parents)
    return next((place / name for name in names for place in places if (place / name).is_file()), None)


def _is_makefile(path: Path) -> bool:
    return path.name.lower() in ("makefile", "gnumakefile") or path.suffix.lower() == ".mk"


def _split(words: list[str], variables: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(training options, facts about the launch) of a command's words."""
    values: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    name: str | None = None
    words = [part for word in words for part in _expanded(word, variables)]
    script = next((place for place, word in enumerate(words) if _is_trainer(word)), None)
    launching = True
    for place, word in enumerate(words):
        wrapping = script is not None and place < script  # docker, ray and srun have options of their own
        option = _OPTION.fullmatch(word)
        if option is not None:
            name = option[1] if option[1] in _LAUNCH_OPTIONS or not wrapping else None
            if name is not None:
                _set(values, facts, name, True if option[2] is None else option_value(option[2]), launching)
            name = name if option[2] is None else None
            continue
        if word in ("&", "&&", "|", ";", ">", "2>&1", "\\") or word.startswith((">", "2>", "(")):
            break
        if name is not None:
            _set(values, facts, name, option_value(word), launching)
            name = None
        elif wrapping and (assigned := _ASSIGNED.fullmatch(word)) is not None and _ENVIRONMENT.fullmatch(assigned[1]):
            facts[f"env.{assigned[1]}"] = assigned[2]  # set by a shell or `env` behind srun or docker
        elif any(word == launcher or word.endswith(f"/{launcher}") for launcher in _LAUNCHERS) and "launcher" not in facts:
            facts["launcher"] = Path(word).name if "python" not in word else "python"
        elif word in ("torch.distributed.run", "torch.distributed.launch"):
            facts["launcher"] = "torchrun"
        elif _is_trainer(word):
            launching = False
        elif (not launching or facts.get("launcher") == "llamafactory-cli") and _OVERRIDE.fullmatch(word):
            path, _, value = word.partition("=")
            if not _unresolved(path, value):
                _set_nested(values, path.split("."), option_value(value))
        elif _YAML_ARGUMENT.fullmatch(word):
            facts["config.named"] = word
    return values, facts


def _other_trainer(words: list[str]) -> str | None:
    """The program of another project that the command starts: by its name, or as a module (`-m axolotl.cli.train`)."""
    if not words:
        return None
    first = words[0].rpartition("/")[2]
    modules = (words[place + 1].partition(".")[0] for place, word in enumerate(words[:-1]) if word == "-m")
    return next((name for name in (first, *modules) if name in OTHER_COMMANDS), None)


def _expanded(word: str, variables: dict[str, str]) -> list[str]:
    """The word with its variables replaced; one that is a variable with several words becomes those."""
    text = _expand(word, variables)
    return _words(text) if " " in text and _VARIABLE.fullmatch(word) else [text]


def _unresolved(name: str, value: Any) -> bool:
    """Whether a value is a variable that the script does not set (a loop's, the environment's) where no text is legal."""
    option = table().get(name)
    return isinstance(value, str) and "$" in value and option is not None and not {"str", "any", "dict"} & set(option.type.split("|"))


def _is_trainer(word: str) -> bool:
    return word == "lmf" or (not word.startswith("--") and any(trainer.strip() in word for trainer in _TRAINERS if trainer != "lmf "))


def _set_nested(values: dict[str, Any], path: list[str], value: Any) -> None:
    """`kt_config.kt_mode=a` is {"kt_config": {"kt_mode": "a"}}."""
    for key in path[:-1]:
        inner = values.get(key)
        values[key] = inner if isinstance(inner, dict) else {}
        values = values[key]
    values[path[-1]] = value


def _set(values: dict[str, Any], facts: dict[str, Any], name: str, value: Any, launching: bool) -> None:
    fact = _LAUNCH_OPTIONS.get(name) if launching else None
    if fact is not None:
        facts[fact] = value
    else:
        key, negated = written_out(name.replace("-", "_"))
        if not _unresolved(key, value):
            values[key] = False if negated and value is True else value
