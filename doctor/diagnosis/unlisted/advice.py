"""What an exception's message tells the user to do: options, environment variables, commands, packages; found, never carried out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from doctor.config.options import Option, table
from doctor.diagnosis.unlisted.messages import packages
from doctor.readers.values import option_value
from doctor.rulebook.findings import Says
from doctor.rulebook.model import Op, Remedy
from doctor.support.pasted_text import restored
from doctor.words import catalogue

MOST = 3
"""Pieces of advice that are kept of one message."""
_LONGEST = 300
"""Characters of a sentence that are quoted."""
_SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=[A-Z`'\"(])|\n+|(?<=\w)\s*;\s+")
_VARIABLE = re.compile(r"(?<![\w/.-])(?P<name>[A-Z][A-Z0-9]*_[A-Z0-9_]+)(?:\s*=\s*|\s+to\s+)[`'\"]?(?P<value>[\w.:/,+-]*\w)", re.ASCII)
_WANTS = re.compile(
    r"\b(?:needs?|requires?|set|setting|export|run|use|using|try|pass|passing|with|add|define|specify|enable|disable|via)\b", re.IGNORECASE
)
_COMMAND = re.compile(
    r"(?P<mark>[`'\"]?)\b(?P<command>"
    r"(?:(?:uv )?pip3?|conda|mamba|(?:sudo )?apt(?:-get)?|brew) install [^`'\"\n]{1,160}|"
    r"(?:huggingface-cli|hf|modelscope|wandb) (?:auth )?login|git lfs (?:install|pull)|python3? -m [\w.]+(?: [\w.=-]+)*|"
    r"accelerate config|ray (?:start|stop|status)[\w =.-]*|ulimit -n \d+|llamafactory-cli [\w-]+|ds_report|nvidia-smi)"
)
"""Commands that messages name; at least the program is one of these."""
_VERSION = r"(?:[<>=!~]=?\s*\d[\w.*]*(?:\s*,\s*)?)+"
_REQUIRED = re.compile(
    r"(?:requires?|needs?|install|upgrade(?: to)?|update(?: to)?)\s+"
    rf"[`'\"]?(?P<package>[A-Za-z][\w.-]*(?:\[[\w,]+\])?)\s*(?P<version>{_VERSION})|"
    rf"[`'\"]?(?P<package2>[A-Za-z][\w.-]*)\s*(?P<version2>{_VERSION})[`'\"]?[^\n]{{0,60}}?\b(?:is|are) required",
    re.I,
)
_INSTALL = re.compile(r"\b(?:install|upgrade|update)(?:ing)?\s+(?:the\s+|a newer version of\s+)?[`'\"]?(?P<package>[A-Za-z][\w.-]+)", re.I)
_ASSIGNED = re.compile(
    r"(?P<mark>[`'\"]?)(?<![\w.])(?:--)?(?P<name>[a-z][a-z0-9]*(?:_[a-z0-9]+)*)[`'\"]?\s*(?:=|:| to )\s*"
    r"(?P<value>True|False|true|false|None|[`'\"]?[\w.-]*\w[`'\"]?)"
)
_FLAG = re.compile(r"(?<!\w)--(?P<name>[a-z][\w-]+)(?![\w=-])")
_IMPERATIVE = re.compile(
    r"^\W{0,3}(?:please|try|consider|make sure|ensure|set|use|add|install|reinstall|upgrade|update|downgrade|check|run|pass|enable|disable|"
    r"remove|specify|provide|reduce|decrease|increase|lower|raise|choose|select|see|refer|re-?run|restart|load|convert|replace|delete|"
    r"clear|log ?in|you (?:should|must|need|can|may|have to)|if you)\b|"
    r"\b(?:please|try (?:to|setting|using|increasing|decreasing|reducing|installing)|consider (?:\w+ing|to)|make sure|"
    r"you (?:should|must|need to|can|may want to|have to)|(?:should|must) be set|needs? to be|instead)\b",
    re.IGNORECASE,
)
"""A sentence that asks the reader for something."""
_OBLIGES = re.compile(
    r"(?:\b[a-z]+(?:_[a-z]+)+\b|`[^`]{1,60}`|\bbatch size\b|\bnumber of \w+)[^.;]{0,60}?\b(?:must|has to|have to|should|needs? to) "
    r"(?:also )?(?:be|have|match|equal|divide)\b(?! (?:the same (?:dtype|device|shape)|on the same|implemented|overridden))|"
    r"\bneeds `\w+=\w+`"
)
"""A sentence that says what the value of something named must be; not what a kernel expects of its tensors."""
_LOOKS = re.compile(
    r"\b(?:check|see|refer|report|open an issue|file a|contact|documentation|docs|traceback|above|below|verify|look|make sure|ensure|rerun|"
    r"re-run|try again|debug)\b",
    re.IGNORECASE,
)
"""A sentence that asks to look at something, to tell somebody or to try once more."""
_REFUSES = re.compile(
    r"\b(?:incompatible|not (?:\w+ )?(?:compatible|supported|allowed|possible|valid)|cannot|can't|can ?not|(?:does|do|did)(?: not|n't)|"
    r"can only|only (?:be used|works?|supported)|unsupported|deprecated|removed|without|instead of|rather than|mutually exclusive)\b",
    re.IGNORECASE,
)
"""Words by which a sentence speaks against the options that it names, or says when they are possible."""
_ALIASES: dict[str, tuple[str, dict[Any, Any]]] = {
    "find_unused_parameters": ("ddp_find_unused_parameters", {}),
    "use_reentrant": ("use_reentrant_gc", {}),
    "attn_implementation": ("flash_attn", {"eager": "disabled", "sdpa": "sdpa", "flash_attention_2": "fa2"}),
    "max_length": ("cutoff_len", {}),
    "gpu_memory_utilization": ("vllm_gpu_util", {}),
    "max_model_len": ("vllm_maxlen", {}),
}
"""Arguments of the libraries below -> LLaMA-Factory's option that sets them, and its words for their values."""
_ONE_OF = re.compile(
    r"\bonly (?:use |specify |set |pass )?one of\b|mutually exclusive|not allowed with argument|"
    r"(?:cannot|can't|can not) be used (?:together|at the same time)",
    re.IGNORECASE,
)
"""A sentence by which the options that it names exclude each other."""
_UNSAFE = re.compile(r"[;&|<>$`\\\n(){}*?!#]")
"""Characters that a shell would act on: a command with one of them is quoted, never offered for pasting."""


def advice_in(message: str) -> list[Says]:
    """What the message advises: options, then variables, commands, packages, other imperatives; at most `MOST`, each with its sentence."""
    found: list[Says] = []
    for sentence in _SENTENCE.split("\n".join(map(restored, message.splitlines()))):
        text = sentence.strip()
        if text:
            found += _of_sentence(text, " ".join(text.split())[:_LONGEST])
    order = ("option", "variable", "command", "hint")
    unique: dict[tuple[str, str], Says] = {}
    for says in found:
        unique.setdefault((says.kind, says.name or says.command or says.quote), says)
    return sorted(unique.values(), key=lambda says: order.index(says.kind))[:MOST]


def remedy_of(says: Says) -> Remedy | None:
    """The remedy that sets the option the message names; None for other advice."""
    if says.kind != "option" or says.name is None:
        return None
    value = str(says.value).lower() if isinstance(says.value, bool) else str(says.value)
    return Remedy(
        id=f"message-says-{says.name.replace('_', '-')}",
        text=catalogue.text("report.say.message_option", option=says.name, value=value),
        patch=[Op(set={says.name: says.value})],
        done_if={f"config.{says.name}": says.value},
        effect="changes_training",
    )


def step_of(says: Sequence[Says], code: str = "") -> Remedy | None:
    """What the first advice that is no option asks for, as a step whose sentence is the fact `asks`; None without such advice.

    `code` is the source line that raised (the fact `asks_at`); empty where none was printed. A sentence that asks to look, to report or to
    read only shows more.
    """
    first = next((one for one in says if one.kind != "option"), None)
    if first is None:
        return None
    if _excluding(first):
        return Remedy(id="message-asks", text=catalogue.text("report.say.message_one_of"), effect="manual")
    looks = first.kind == "hint" and _LOOKS.search(first.quote) is not None
    text = catalogue.text("report.say.message_asks_at" if _tells(code) and first.kind == "hint" else "report.say.message_asks")
    return Remedy(id="message-asks", text=text, effect="manual", command=first.command, check=looks)


def asks(says: Sequence[Says], code: str = "") -> dict[str, str]:
    """The facts that the step of `step_of` names."""
    first = next((one for one in says if one.kind != "option"), None)
    if first is None:
        return {}
    names = _excluding(first)
    several = {"asks_one_of": ", ".join(f"`{name}`" for name in names)} if names else {}
    return {"asks": first.quote, **({"asks_at": code} if _tells(code) else {}), **several}


def _tells(code: str) -> bool:
    """Whether a source line shows what the message speaks of; the `raise` itself does not."""
    return bool(code) and not code.lstrip().startswith("raise")


def _excluding(says: Says) -> list[str]:
    """The options of a sentence of which only one may be given; [] for other sentences."""
    names = [f"--{found['name']}" for found in _FLAG.finditer(says.quote)] if _ONE_OF.search(says.quote) else []
    return names if len(names) > 1 else []


def _of_sentence(text: str, quote: str) -> list[Says]:
    """The advice of one sentence; a sentence that only asks for something in general is a hint."""
    found = [*_options(text, quote), *_variables(text, quote), *_commands(text, quote)]
    if not found and any(asking.search(text) for asking in (_IMPERATIVE, _ONE_OF, _OBLIGES)):
        found = [Says(kind="hint", quote=quote)]
    return found


def _options(text: str, quote: str) -> Iterator[Says]:
    if not (_WANTS.search(text) or _IMPERATIVE.search(text)) or _REFUSES.search(text):
        return
    for found in _ASSIGNED.finditer(text):
        name, words = _ALIASES.get(found["name"], (found["name"], {}))
        given = option_value(found["value"].strip("`'\""))
        value = words.get(given, given) if not words or given in words else None
        if "_" not in name and not found["mark"]:
            continue  # `model: x` in prose is no option
        option = table().get(name)
        if option is not None and value is not None and _is_legal(value, option):
            yield Says(kind="option", quote=quote, name=name, value=value)
    for found in _FLAG.finditer(text):
        name = found["name"].replace("-", "_")
        option = table().get(name)
        if option is not None and option.type.split("|")[0] == "bool" and option.group != "gone":
            yield Says(kind="option", quote=quote, name=name, value=True)


def _is_legal(value: Any, option: Option) -> bool:
    """Whether LLaMA-Factory's parser takes the value for this option."""
    kinds = {"bool": bool, "int": int, "float": (int, float), "str": str}
    allowed = [kinds[kind] for kind in option.type.split("|") if kind in kinds]
    if isinstance(value, bool) and "bool" not in option.type:
        return False
    fits = any(isinstance(value, kind) for kind in allowed) and option.group != "gone"  # type: ignore[arg-type]
    return fits and (not option.choices or value in option.choices)


def _variables(text: str, quote: str) -> Iterator[Says]:
    if not (_WANTS.search(text) or _IMPERATIVE.search(text)):
        return
    for found in _VARIABLE.finditer(text):
        command = f"export {found['name']}={shlex.quote(found['value'])}"
        yield Says(kind="variable", quote=quote, name=found["name"], value=found["value"], command=command)


def _commands(text: str, quote: str) -> Iterator[Says]:
    for found in _COMMAND.finditer(text):
        yield Says(kind="command", quote=quote, command=pasteable(_without_prose(found["command"], bool(found["mark"]))))
        return
    if (required := _REQUIRED.search(text)) is not None:
        name, version = required["package"] or required["package2"], required["version"] or required["version2"]
        wanted = re.sub(r"\s+", "", f"{name}{version}").rstrip(",.")
        yield Says(kind="command", quote=quote, name=name, command=shlex.join(["pip", "install", wanted]))
    elif (install := _INSTALL.search(text)) is not None and packages(f"'{install['package']}'"):
        name = install["package"].rstrip(".")
        upgrade = ["-U"] if install[0].lower().startswith("up") else []
        yield Says(kind="command", quote=quote, name=name, command=shlex.join(["pip", "install", *upgrade, name]))


def _without_prose(command: str, marked: bool) -> str:
    """An unmarked command ends where the sentence goes on."""
    if marked:
        return command
    return re.split(r"[.,]?\s+(?:to|and|or|for|if|in|with|before|first|then|from (?!git))\b|[.,;:)]+(?:\s|$)", command)[0]


def pasteable(command: str) -> str | None:
    """The command with its words quoted for a shell, on one line; None if a shell would do more than run one program."""
    if _UNSAFE.search(re.sub(r"[<>]=?\s?\d", "", command)):
        return None
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    return shlex.join(words) if words else None
