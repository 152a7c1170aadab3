"""How an exception that no rule lists is told: its place in words, the facts of its texts, where to search and whom to ask."""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

from doctor.diagnosis.unlisted import messages
from doctor.diagnosis.unlisted.features import ExceptionFeatures, bases_of
from doctor.diagnosis.unlisted.places import REMOTE_CODE, SCRIPT, Place
from doctor.rulebook.model import Remedy
from doctor.support.texts import Text
from doctor.words import catalogue

_TRACKERS = {
    "llamafactory": "hiyouga/LLaMA-Factory", "transformers": "huggingface/transformers", "peft": "huggingface/peft",
    "trl": "huggingface/trl", "accelerate": "huggingface/accelerate", "datasets": "huggingface/datasets",
    "huggingface_hub": "huggingface/huggingface_hub", "deepspeed": "deepspeedai/DeepSpeed",
    "bitsandbytes": "bitsandbytes-foundation/bitsandbytes", "torch": "pytorch/pytorch", "vllm": "vllm-project/vllm",
    "ray": "ray-project/ray", "unsloth": "unslothai/unsloth", "flash_attn": "Dao-AILab/flash-attention",
    "liger_kernel": "linkedin/Liger-Kernel", "torch_npu": "Ascend/pytorch", "gptqmodel": "ModelCloud/GPTQModel",
    "modelscope": "modelscope/modelscope",
}  # fmt: skip
"""Packages -> where their failures are reported."""
_SEARCHED = 120
"""Characters of a message that a search takes."""


_NAMED = re.compile(
    r"(?:^|[\s(\[:：，。、；]|(?<=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]))(?P<full>(?:[A-Za-z_]\w*\.)*(?P<name>[A-Z]\w*(?:Error|Exception)|StopIteration|Exception))"
    r"(?:(?::\s+|：\s*)(?P<message>\S.*)|[\s。，.!！]*$)",
    re.ASCII,
)
"""An exception that a line names at its end: a traceback whose line breaks were lost in the paste, a logger's message."""
_OF_TRACEBACK = re.compile(r"Traceback \(most|,\s?line \d+\s?,|\braise [A-Z]\w*\(")
_BEGINNING = re.compile(r"(?>[\[(<|][^\])>|]{0,60}[\])>|]\s*+|[\d:.,/ -]++|(?:ERROR|CRITICAL|FATAL|E)\b[:\s]*+)*+\W{0,3}")
"""What may stand before an exception that a line is about: ranks, times, levels. After a sentence it is one that the program caught."""
_REPORTED = re.compile(
    r"(?:报错|报了|出现|提示|抛出|错误|异常|오류|에러|예외|\b(?:got|get|gets|throws|raises|with|error))\s*(?:是|为|가|는|이|:|：)?\s*$"
)
"""A person's words directly before an exception that ended their run."""
_NATIVE = re.compile(r"uncaught exception of type (?P<kind>[\w:]+): (?P<message>\S.*)|^\s*what\(\):\s+(?P<what>\S.*)")
"""What a C++ library prints when its exception ends the process (libc++abi, libstdc++)."""
_OWN_WORDS = (
    (re.compile(r"No module named '?\w"), "ModuleNotFoundError"),
    (re.compile(r"cannot import name '\w"), "ImportError"),
    (re.compile(r"(?:'\w+' object|module '[\w.]+'|type object '\w+') has no attribute '\w"), "AttributeError"),
    (re.compile(r"[\w.]+\(\) got an unexpected keyword argument '"), "TypeError"),
)
"""Messages of Python itself -> the class that has them, for a line that was pasted without it and begins with them."""


_LOWER = re.compile(r"\W{0,3}([A-Za-z]+error):\s+(\S.*)", re.IGNORECASE)
_ASSERTS = re.compile(r">?\s*assert [\w(].*[=<>(.]")
_BUILTIN = {name.lower(): name for name in dir(builtins) if name.endswith("Error")}
"""Python's own classes, for a line that was typed from memory in lower case."""
_LABEL = re.compile(r"[A-Za-z ]{0,24}\berror:\s", re.IGNORECASE)
"""A program's own word before the message of an exception that it caught and ended with: `import error: `."""


def _label(text: str) -> int:
    """Where the message begins."""
    found = _LABEL.match(text)
    return found.end() if found else 0


def features_of_line(text: str, config: Mapping[str, str]) -> ExceptionFeatures:
    """A line that is no part of a traceback, with the exception that it names or that has its words; else a message alone."""
    native = _NATIVE.search(text)
    full, message = _exception_in(text) if native is None else ("", native["message"] or native["what"])
    name = full.rpartition(".")[2]
    return ExceptionFeatures(
        exception=name,
        full_name=full,
        bases=bases_of(name) if name else (),
        message=message,
        errno=messages.error_number(name, text),
        options=messages.options(text),
        variables=messages.variables(text),
        packages=messages.packages(text),
        files=messages.files(text),
        quoted=messages.quoted(text),
        config=dict(config),
        native=native is not None,
        said=text,
    )


def _exception_in(text: str) -> tuple[str, str]:
    """Class and message of the exception that a line is about; an empty class and the whole line where it is about none.

    A source line that asserts says what did not hold.
    """
    if _ASSERTS.match(text):
        return "AssertionError", text.lstrip("> ")
    named = next(iter([*_NAMED.finditer(text)][-1:]), None)
    if named is not None and (_OF_TRACEBACK.search(text) or _is_told(text[: named.start("full")])):
        return named["full"], named["message"] or text[: named.start("full")].strip()
    lower = _LOWER.match(text)
    if lower is not None and lower[1].lower() in _BUILTIN:
        return _BUILTIN[lower[1].lower()], lower[2]
    return next((one for words, one in _OWN_WORDS if words.match(text, _label(text))), ""), text


def _is_told(before: str) -> bool:
    """Whether the text before an exception says that the line is about it."""
    return _BEGINNING.fullmatch(before) is not None or _REPORTED.search(before) is not None


def facts_of(features: ExceptionFeatures) -> dict[str, Any]:
    """The facts that texts may name; `message` is never empty."""
    innermost = features.place or (features.scripts[0] if features.scripts else features.raised)
    facts = {
        "exception": features.full_name or None,
        "message": _sentence(features.message)[:300] or _instead_of_message(features),
        "function": innermost.function if innermost else None,
        "package": (innermost.package if innermost else None) or None,
        "module": innermost.module if innermost else None,
        "script": f"{features.scripts[0].module}.py" if features.scripts else None,
        "phase": features.phase,
        "signal": features.signal,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _sentence(message: str) -> str:
    """The first line of a message; of pydantic's list of errors the first error too: its option and what it asks for."""
    lines = [line.strip() for line in message.strip().splitlines()] or [""]
    listed = re.match(r"\d+ validation errors? for \w+$", lines[0])
    return f"{lines[1]}: {lines[2].partition(' [type=')[0]}" if listed and len(lines) > 2 else lines[0]


def _instead_of_message(features: ExceptionFeatures) -> str:
    last = features.path[-1].code if features.path else ""
    return features.full_name or last or (f"signal {features.signal}" if features.signal else "-")


def opening(features: ExceptionFeatures) -> Text:
    """What was seen, in one or two sentences with placeholders for its facts, and that no rule lists it."""
    kind = "cut" if features.cut_off else "signal" if features.signal else "line" if not features.exception else "raised"
    if kind == "cut" and (features.place is None or not features.place.function):
        kind = "line"
    elif kind == "raised" and (features.place is None or not features.place.function):
        kind = "script" if features.scripts else "bare"
    return catalogue.text(f"report.say.unlisted_{kind}")


def whom_to_ask(features: ExceptionFeatures) -> Text:
    """Whose code raised it: the user's own script, the model's code from the hub, or a package with its tracker."""
    place = features.place or features.raised
    if place is None:
        return catalogue.text("report.say.unlisted_ask_nobody")
    own = _own_code(features)
    if own is not None:
        return catalogue.text("report.say.unlisted_ask_script", function=own.function, script=f"{own.module}.py")
    if place.package == REMOTE_CODE:
        return catalogue.text("report.say.unlisted_ask_model")
    return catalogue.text("report.say.unlisted_ask_package", tracker=_TRACKERS.get(place.package, place.package))


def _own_code(features: ExceptionFeatures) -> Place | None:
    """The user's own function that raised the exception; None where a package did, or where the log does not name it."""
    place = features.raised
    return place if place is not None and place.package == SCRIPT and place.module and place.function else None


def next_steps(features: ExceptionFeatures) -> list[Remedy]:
    """A search for the message, the versions, and the bundle to send along; of the user's own code the place in it."""
    own = _own_code(features)
    if own is not None:
        text = catalogue.text("report.say.unlisted_own_code", function=own.function, script=f"{own.module}.py")
        return [Remedy(id="own-code", text=text, effect="manual")]
    first = features.message.strip().partition("\n")[0][:_SEARCHED]
    words = f'"{features.exception}" {first}' if features.exception else first
    place = features.place
    repository = _TRACKERS.get(place.package) if place else None
    link = f"https://github.com/{repository or _TRACKERS['llamafactory']}/issues?q={quote_plus(words)}"
    steps = (
        [Remedy(id="search", text=catalogue.text("report.say.unlisted_search"), effect="manual", references=[link], check=True)]
        if words.strip()
        else []
    )
    return [
        *steps,
        Remedy(
            id="show-environment",
            text=catalogue.text("report.say.unlisted_versions"),
            effect="manual",
            command="llamafactory-cli env",
            check=True,
        ),
        Remedy(id="send", text=catalogue.text("report.say.unlisted_send"), effect="manual", check=True),
    ]
