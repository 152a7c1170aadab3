"""A person's words instead of a log: which symptom they name, in which phase and context, and what it may mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from doctor.core.phases import Phase
from doctor.readers.console.line_head import level
from doctor.rulebook.descriptions import Reading, descriptions, expression

LONGEST = 60
"""Lines of a text in which a person's words count; a longer one is a log or a whole thread."""
_OUTPUT = re.compile(
    r"^\W*(?:Traceback \(|File \"|\d+%\||[\w./-]+:\d+[:\s]|\[?\d{4}-\d\d-\d\d)|\d+%\|.*\||\bit/s\b|s/it\b|"
    r"(?<![\w.])(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Warning)\b"
)
"""Lines that a program wrote: frames, bars, times, exceptions."""
_GIVEN = re.compile(
    r"^\W*(?:[$#>]\s?\w|--?\w+[ =]|\w+=\S|(?:export|pip|cd|git|(?:python\d?|torchrun|deepspeed|accelerate|llamafactory-cli|swift|bash|sh) "
    r"(?:-|\S+\.(?:py|sh|ya?ml)|train|launch|sft|rlhf|export|chat))\b|[\w.]+\s?[:=]\s?\S+$|[{\[]\s*[\"'\d{]|[}\]]|import |from \w+ import )"
)
"""Lines that a person wrote for a program: commands, options, assignments, JSON, imports."""
_ADVISING = re.compile(
    r"\b(?:can|may|might|could|will|would|should) (?:\w+ )?(?:cause|lead|result|be|hang|run out)|recommended|deprecat|"
    r"please (?:consider|set|use|note)|if you|consider\b|可能会(?:导致)?|建议",
    re.IGNORECASE,
)
"""What programs say of things that did not happen (yet)."""
_LONGEST_LINE = 600
"""Characters of a line that may be a sentence or two."""
_SENTENCE = re.compile(r"[。！？!?；;\n]|\.(?=\s|$)")
_DENIED = re.compile(
    r"(?:\b(?:no|not|without|never|any)|n.t|没有?|不会|不|未|无|并未)\s*(?:\w+ )?$|(?:没有?(?:任何|什么)?|不会再?|without any|no) ?$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(r"^\W{0,2}(?:지 ?않|은 없|는 없|이 없|가 없|없이)")
_FINE_AFTER = re.compile(
    r"^.{0,5}?(?:没有?(?:任何)?问题|正常|成功|完成|完|好[了后]|可以|没事)|"
    r"^[\w ]{0,12}\b(?:fine|ok|okay|works?|worked|succe\w+|normal(?:ly)?|finish\w*|complete\w*)\b|"
    r"^.{0,4}?(?:정상|문제 ?없|완료|성공)",
    re.IGNORECASE,
)
"""What follows a phase that went well."""
_MARKS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


_PHASES: dict[Phase, str] = {
    "tokenise": "preprocessing", "load": "loading", "eval": "evaluation", "predict": "evaluation", "save": "saving", "export": "merging",
}  # fmt: skip
"""The phase of a traceback -> the vocabulary's word for it."""


class Described(msgspec.Struct, frozen=True):
    """What a person's words say: the line that names the symptom, the words found (as they stand there), and what they may mean.

    `alone`: no line of the text is a program's.
    """

    line: int
    text: str
    found: tuple[str, ...]
    reading: Reading
    alone: bool


def read(lines: Sequence[str], config: Mapping[str, str], phases: Iterable[Phase] = ()) -> Described | None:
    """What a person's words in a short text say; None without any that name a symptom. `config` as in `ExceptionFeatures`.

    `phases` are those in which tracebacks of the text broke off. What the text itself says comes before what only the config says.
    """
    told = [(place, line.strip()) for place, line in enumerate(lines) if is_told(line)]
    filled = sum(1 for line in lines if line.strip())
    if not told or filled > LONGEST:
        return None
    text = "\n".join(line for _, line in told)
    context = {name for name in _of_kind("context") if expression(name).search(text)}
    context |= {_PHASES[phase] for phase in phases if phase in _PHASES}
    by_config = {name for name in _of_kind("context") if _configured(name, config)}
    sentences = [(place, part) for place, line in told for part in _SENTENCE.split(line) if part.strip()]
    alone = not any(_is_output(line) for line in lines)
    said = [_Said(place, part.strip(), _said_in(part, alone=alone)) for place, part in sentences]
    found = _first(said, context, specific=bool(by_config - context)) or _first(said, context | by_config, specific=False)
    return Described(found[0].line, found[0].text, found[1], found[2], alone) if found is not None else None


class _Said(msgspec.Struct, frozen=True):
    """A sentence with the symptoms and phases that it names, each with the words for it."""

    line: int
    text: str
    words: dict[str, str]


def _first(said: Sequence[_Said], context: set[str], *, specific: bool) -> tuple[_Said, tuple[str, ...], Reading] | None:
    """The first row that a sentence with the context holds, and its words; with `specific` only one that asks for more than a symptom."""
    for row in descriptions().rows:
        if specific and len(row.said) == 1:
            continue
        for one in said:
            if row.said[0] in one.words and all(name in one.words or name in context for name in row.said):
                return one, tuple(dict.fromkeys(one.words[name] for name in row.said if name in one.words)), row
    return None


def _said_in(sentence: str, *, alone: bool) -> dict[str, str]:
    """The symptoms and phases of a sentence, with the words that say so; `alone`: no line of the text is a program's."""
    out = {}
    for name, word in descriptions().words.items():
        if word.of_programs and not alone and not _MARKS.search(sentence):  # programs write English
            continue
        found = next(_affirmed(name, sentence, phase=word.kind == "phase"), None) if word.kind != "context" else None
        if found is not None:
            out[name] = found[0].strip()
    if "host_memory" in out and not re.search(r"显存|gpu|cuda|vram", sentence, re.IGNORECASE):
        out.pop("gpu_memory", None)
    return out


def _affirmed(name: str, sentence: str, *, phase: bool = False) -> Iterator[re.Match[str]]:
    """The places that name a symptom and do not deny it, or a phase that did not go well."""
    for found in expression(name).finditer(sentence):
        before, after = sentence[: found.start()], sentence[found.end() :]
        denied = _FINE_AFTER.match(after) if phase else _DENIED.search(before) or _DENIED_AFTER.match(after)
        if not denied:
            yield found


def is_told(line: str) -> bool:
    """Whether a person wrote the line for persons: words of a language, no form that output or input of a program has."""
    text = line.strip()
    if not text or len(text) > _LONGEST_LINE or _is_output(text) or _GIVEN.search(text) or _ADVISING.search(text):
        return False
    return len(_MARKS.findall(text)) + len(re.findall(r"[A-Za-z]{2,}", text)) >= 2


def _is_output(line: str) -> bool:
    return level(line) is not None or _OUTPUT.search(line) is not None


def _of_kind(kind: str) -> Iterator[str]:
    return (name for name, word in descriptions().words.items() if word.kind == kind)


def _configured(name: str, config: Mapping[str, str]) -> bool:
    wanted = descriptions().words[name].config
    return any(option in config and re.fullmatch(pattern, config[option]) for option, pattern in wanted.items())
