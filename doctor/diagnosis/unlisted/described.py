"""A person's words instead of a log: which symptom they name, in which phase and context, and what it may mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from doctor.readers.console.line_head import level
from doctor.rulebook.descriptions import Reading, descriptions, expression

LONGEST = 40
"""Lines of a text that may be a description; a longer one is a log or a whole thread."""
_OUTPUT = re.compile(
    r"^\W*(?:Traceback \(|File \"|\d+%\||[\w./-]+:\d+[:\s]|[$#>]\s?\w|--?\w+[ =]|\w+=\S|(?:export|pip|cd|git|(?:python\d?|torchrun|deepspeed|"
    r"accelerate|llamafactory-cli|swift|bash|sh) (?:-|\S+\.(?:py|sh|ya?ml)|train|launch|sft|rlhf|export|chat|-m))\b|\[?\d{4}-\d\d-\d\d|[\w.]+\s?[:=]\s?\S+$|[{}\[\]]|import |from \w+ import )"
    r"|\d+%\|.*\||\bit/s\b|s/it\b|(?<![\w.])(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Warning)\b"
)
"""Lines that a program or a shell wrote, or a person for one: frames, bars, times, options, assignments, exceptions, imports."""
_ADVISING = re.compile(
    r"\b(?:can|may|might|could|will|would|should) (?:\w+ )?(?:cause|lead|result|be|hang|run out)|recommended|deprecat|please (?:consider|set|use|note)|"
    r"if you|consider\b|可能会(?:导致)?|建议",
    re.IGNORECASE,
)
"""What programs say of things that did not happen (yet)."""
_SENTENCE = re.compile(r"[。！？!?；;\n]|\.(?=\s|$)")
_DENIED = re.compile(r"(?:\b(?:no|not|without|never|any)|n.t|没有?|不会|不|未|无|并未)\s*(?:\w+ )?$|(?:没有?(?:任何|什么)?|不会再?|without any|no) ?$", re.IGNORECASE)
_DENIED_AFTER = re.compile(r"^\W{0,2}(?:지 ?않|은 없|는 없|이 없|가 없|없이)")
_MARKS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class Described(msgspec.Struct, frozen=True):
    """What a description says: the line that names the symptom, the words found (as they stand there), and what they may mean."""

    line: int
    text: str
    found: tuple[str, ...]
    reading: Reading


def read(lines: Sequence[str], config: Mapping[str, str]) -> Described | None:
    """What the text describes; None where it is no description, or names no known symptom. `config` as in `ExceptionFeatures`.

    What the text itself says comes before what only the config says.
    """
    told = [(place, line.strip()) for place, line in enumerate(lines) if is_told(line)]
    filled = sum(1 for line in lines if line.strip())
    if not told or filled > LONGEST or 2 * len(told) < filled:
        return None
    text = "\n".join(line for _, line in told)
    context = {name for name in _of_kind("context") if expression(name).search(text)}
    by_config = {name for name in _of_kind("context") if _configured(name, config)}
    sentences = [(place, part) for place, line in told for part in _SENTENCE.split(line) if part.strip()]
    said = [(place, part, _said_in(part, alone=len(told) == filled)) for place, part in sentences]
    return _first(said, context, specific=bool(by_config - context)) or _first(said, context | by_config, specific=False)


def _first(said: Sequence[tuple[int, str, Mapping[str, str]]], context: set[str], *, specific: bool) -> Described | None:
    """The first row that a sentence with the context holds; with `specific` only one that asks for more than a symptom."""
    for row in descriptions().rows:
        if specific and len(row.said) == 1:
            continue
        for place, part, words in said:
            if all(name in words or name in context for name in row.said) and row.said[0] in words:
                found = tuple(dict.fromkeys(words[name] for name in row.said if name in words))
                return Described(place, part.strip(), found, row)
    return None


def _said_in(sentence: str, *, alone: bool) -> dict[str, str]:
    """The symptoms and phases of a sentence, with the words that say so; `alone`: no line of the text is a program's."""
    out = {}
    for name, word in descriptions().words.items():
        if word.of_programs and not alone:
            continue
        found = next(_affirmed(name, sentence), None) if word.kind == "symptom" else expression(name).search(sentence)
        if found is not None:
            out[name] = found[0].strip()
    if "host_memory" in out and not re.search(r"显存|gpu|cuda|vram", sentence, re.IGNORECASE):
        out.pop("gpu_memory", None)
    return out


def _affirmed(name: str, sentence: str) -> Iterator[re.Match[str]]:
    """The places that name a symptom and do not deny it."""
    for found in expression(name).finditer(sentence):
        if not _DENIED.search(sentence[: found.start()]) and not _DENIED_AFTER.match(sentence[found.end() :]):
            yield found


def is_told(line: str) -> bool:
    """Whether a person rather than a program wrote the line: words of a language, no form that output has."""
    text = line.strip()
    if not text or len(text) > 600 or level(text) or _OUTPUT.search(text) or _ADVISING.search(text):
        return False
    return len(_MARKS.findall(text)) + len(re.findall(r"[A-Za-z]{2,}", text)) >= 2


def _of_kind(kind: str) -> Iterator[str]:
    return (name for name, word in descriptions().words.items() if word.kind == kind)


def _configured(name: str, config: Mapping[str, str]) -> bool:
    wanted = descriptions().words[name].config
    return any(option in config and re.fullmatch(pattern, config[option]) for option, pattern in wanted.items())
