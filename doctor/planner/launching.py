"""The command that starts the training again: the user's own launcher, variables and overrides, on the patched config."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Any

import msgspec

from doctor.config import yaml_edit
from doctor.config.options import is_own, table
from doctor.config.patch import Change
from doctor.core.run import Run
from doctor.support import shell

_LAUNCHERS = ("llamafactory-cli", "torchrun", "deepspeed", "accelerate", "python", "python3", "lmf", "srun", "lfdoctor")
"""Programs that a training's command begins with."""
_TRAINERS = ("llamafactory-cli", "lmf", "launcher.py", "train_bash.py", "train.py", "src/train")
"""Words that start LLaMA-Factory."""
_OWN_LAUNCH = ("llamafactory-cli", "lmf")
"""These start torchrun themselves where it is needed."""
_LONGEST = 1 << 17
"""Characters of a line that can be a command: what Linux takes as one argument."""
_CONFIG = (".yaml", ".yml", ".json")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*=.*", re.DOTALL)
_END = re.compile(r"[12&]?>|[<>|&;()]+$")
"""What ends the words of a command: a redirection, a pipe, another command."""
_REDIRECTION = re.compile(r"[<>]")
_REFERENCE = re.compile(r"\$(?:\w+|\{\w+\})")
_WRAPPERS = ("env", "nohup", "time", "exec", "sudo")
"""Words before a command that do not change what it trains."""


class Launch(msgspec.Struct, frozen=True):
    """How a run was started: variables before the command, and the command's words."""

    env: dict[str, str]
    words: list[str]

    @classmethod
    def parse(cls, line: str) -> Launch | None:
        """A line of a script or of a terminal; None if it starts no LLaMA-Factory training."""
        words, env = list(_command_words(line)), dict[str, str]()
        while words and (words[0] in _WRAPPERS or _ASSIGNMENT.fullmatch(words[0]) or PurePath(words[0]).name == "lfdoctor"):
            name, equals, value = words[0].partition("=")
            env |= {name: value} if equals else {}
            watched = PurePath(name).name == "lfdoctor" and "--" in words
            words = words[words.index("--") + 1 if watched else 1 :]
        starts = any(word.endswith(_TRAINERS) or PurePath(word).name in _TRAINERS for word in words)
        return cls(env, words) if words and starts else None

    @property
    def config_place(self) -> int | None:
        """Where the training YAML stands among the words; an option's value (accelerate's `--config_file x.yaml`) is another file."""
        for place, word in enumerate(self.words):
            if word.endswith(_CONFIG) and not (place and self.words[place - 1].startswith("-") and "=" not in self.words[place - 1]):
                return place
        return None

    @property
    def has_options(self) -> bool:
        """Whether the training got its options as `--key value` words instead of a YAML."""
        starts = [place for place, word in enumerate(self.words) if word.endswith(_TRAINERS)]
        return self.config_place is None and any(word.startswith("--") for word in self.words[starts[0] + 1 :] if starts)


def is_llamafactory(run: Run, launch: Launch | None) -> bool:
    """Whether the run is one of LLaMA-Factory's: its own fact, version or launcher, or an option that only LLaMA-Factory has."""
    framework = run.facts.get("framework")
    if framework not in (None, "llamafactory"):
        return False
    own = run.facts.get("launcher") == "llamafactory-cli" or "versions.llamafactory" in run.facts
    return bool(framework or own or launch) or any(map(is_own, run.config))


def next_command(
    launch: Launch | None, changes: Sequence[Change], config: Mapping[str, Any], given: str | None, patched: str | None
) -> str:
    """The command to run next, on one line.

    `given` is the run's YAML, `patched` the name of its patched copy; without one the changes are written behind the command.
    """
    launch = launch or Launch({}, ["llamafactory-cli", "train", given or "your-config.yaml"])
    place = launch.config_place
    if patched and place is None:
        launch = Launch(launch.env, ["llamafactory-cli", "train", patched])
        place = launch.config_place
    words = list(launch.words)
    behind = [change for change in changes if change.target == "command" or (change.target == "config" and not patched)]
    if place is not None:
        words[place] = patched or words[place]
        words = [*words[: place + 1], *_overridden(words[place + 1 :], changes, behind)]
    else:
        words = _with_flags(words, behind)
    env = {**launch.env, **{change.key: str(change.new) for change in changes if change.target == "env"}}
    if config.get("deepspeed") and PurePath(words[0]).name in _OWN_LAUNCH and "FORCE_TORCHRUN" not in env:
        env = {"FORCE_TORCHRUN": "1", **env}  # hparams/parser.py: DeepSpeed without torchrun is an error
    return " ".join([*(f"{name}={_quoted(value)}" for name, value in env.items()), *map(_quoted, words)])


def overrides(changes: Iterable[Change]) -> tuple[str, ...]:
    """`key=value` words behind the YAML on the command line (LLaMA-Factory 0.9.3 on); a removed key gets its default."""
    new = {change.key: change for change in changes if change.target in ("config", "command")}
    return tuple(f"{key}={_value(change)}" for key, change in new.items())


def _overridden(words: Sequence[str], changes: Sequence[Change], behind: Sequence[Change]) -> list[str]:
    """The words behind the YAML: those that a change replaces are dropped, for they would win over the file."""
    changed = {change.key for change in changes if change.target in ("config", "command")}
    return [*(word for word in words if word.partition("=")[0] not in changed), *overrides(behind)]


def _with_flags(words: Sequence[str], behind: Sequence[Change]) -> list[str]:
    """A command with `--key value` options: changed ones get their new value in place, others follow."""
    new = {change.key: _value(change) for change in behind}
    out: list[str] = []
    place = 0
    while place < len(words):
        name = words[place].removeprefix("--").partition("=")[0].replace("-", "_") if words[place].startswith("--") else ""
        follows = "=" not in words[place] and place + 1 < len(words) and not words[place + 1].startswith("--")
        if name in new:
            out += [f"--{name}", new.pop(name)]
            place += 2 if follows else 1
        else:
            out.append(words[place])
            place += 1
    return [*out, *(word for name, value in new.items() for word in (f"--{name}", value))]


def _value(change: Change) -> str:
    option = table().get(change.key)
    return yaml_edit.dump(change.new if change.op == "set" else option.default if option else None)


def _command_words(line: str) -> Iterator[str]:
    """The words of the command, from its first variable or launcher (a prompt stands before) to a redirection, pipe or `;`."""
    words = _shell_words(line)
    starts = [at for at, word in enumerate(words) if _VARIABLE.fullmatch(word) or PurePath(word).name in _LAUNCHERS]
    for word, following in pairwise([*words[starts[0] :], ""]) if starts else ():
        if _END.match(word) or (word.isdecimal() and _REDIRECTION.match(following)):
            return
        yield word


def _shell_words(line: str) -> list[str]:
    """The words and operators of a line as a shell divides it; a word with a command substitution is left out: its value is not known."""
    if len(line) > _LONGEST:
        return []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return line.split()
    out: list[str] = []
    depth = 0
    for word in words:
        if set(word) <= {"(", ")"} and (depth or (out and out[-1].endswith("$"))):
            if not depth:
                out.pop()
            depth += word.count("(") - word.count(")")
        elif not depth:
            out.append(word)
    return out


def _quoted(word: str) -> str:
    """Quoted for a shell; a reference to a variable keeps its meaning, a command substitution does not."""
    if _REFERENCE.search(word) and "$(" not in word and not re.search(r"[`\"\\!\n]", word):
        return f'"{word}"'
    name, equals, value = word.partition("=")
    return f"{name}={shell.word(value)}" if equals and re.fullmatch(r"[\w.-]+", name) else shell.word(word)
