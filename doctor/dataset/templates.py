"""LLaMA-Factory's templates: which pieces of text and which tokens a conversation becomes (LLaMA-Factory 0.9.5, data/template.py)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from doctor.dataset import tools as tool_texts
from doctor.dataset.convert import FUNCTION, OBSERVATION, USER, Sample, Turn
from doctor.support.cache import load_yaml
from doctor.support.decoding import convert

Slot = str | dict[str, str]
Slots = tuple[Slot, ...]
Element = str | dict[str, str]
"""A text to encode, {"token": name} or {"special": "bos_token" | "eos_token"}."""


class Template(msgspec.Struct, frozen=True):
    """One template. Slots hold `{{content}}` where the message goes; what templates.yaml leaves out is register_template's default.

    `images_as`: how images become tokens (images.py; "" where that is not known); `image_marks`: the token before, of and behind an image.
    """

    kind: str = "plain"
    prefix: Slots = ()
    system: Slots = ("{{content}}",)
    user: Slots = ("{{content}}",)
    assistant: Slots = ("{{content}}", {"special": "eos_token"})
    function: Slots | None = None
    observation: Slots | None = None
    tools: str | None = "default"
    function_tools: str | None = "default"
    default_system: str = ""
    stop_words: tuple[str, ...] = ()
    thought_words: tuple[str, str] = ("<think>\n", "\n</think>\n\n")
    tool_call_words: tuple[str, str] = ("<tool_call>", "</tool_call>")
    efficient_eos: bool = False
    replace_eos: bool = False
    preserve_thinking: bool = False
    media: tuple[str, ...] = ()
    plugin: bool = False
    images_as: str = ""
    image_marks: tuple[str, str, str] = ("", "", "")
    enable_thinking: bool | None = True

    @property
    def reasoning(self) -> bool:
        """Whether empty thoughts are added to answers without them."""
        return self.kind.startswith("reasoning")

    def slots_of(self, role: str) -> Slots:
        """The slots of a role."""
        if role == FUNCTION:
            return self.assistant if self.function is None else self.function
        if role == OBSERVATION:
            return self.user if self.observation is None else self.observation
        return self.user if role == USER else self.assistant


@cache
def known_templates() -> dict[str, Template]:
    """Every template of LLaMA-Factory 0.9.5 by name."""
    return convert(load_yaml(Path(__file__).with_name("templates.yaml")), dict[str, Template])


def template_of(config: Mapping[str, Any]) -> Template | None:
    """The template that the configuration names, with its options applied; None if it names none that is known."""
    name = config.get("template")
    if name is None and config.get("stage") == "pt":
        name = "empty"  # pre-training uses no template
    found = known_templates().get(str(name))
    if found is None:
        return None
    changes: dict[str, Any] = {}
    if (form := config.get("tool_format")) is not None:
        slots: Slots = ("{{content}}",) if found.efficient_eos else ("{{content}}", {"special": "eos_token"})
        changes |= {"function": slots, "tools": form, "function_tools": form}
    if config.get("default_system") is not None:
        changes["default_system"] = str(config["default_system"])
    if found.reasoning:
        changes |= {
            "enable_thinking": config.get("enable_thinking", True),
            "preserve_thinking": bool(config.get("preserve_thinking", False)),
        }
    return msgspec.structs.replace(found, **changes)


_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|?>|<｜[^｜<>]{1,40}｜>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>|\[gMASK\]|<eos>|<bos>")
_WANTED = re.compile(r"think|tool|<image|<video|<audio|vision|observation")


def special_tokens(template: Template) -> set[str]:
    """Tokens that mark roles and ends; inside a text they are taken for marks. Those that belong into texts are left out."""
    slots = [*template.prefix, *template.system, *template.user, *template.assistant, *(template.observation or ())]
    texts = [slot if isinstance(slot, str) else slot.get("token", "") for slot in slots]
    found = {token for text in texts for token in _SPECIAL.findall(text)} | set(template.stop_words)
    return {token for token in found if not _WANTED.search(token)}


def elements(template: Template, turns: list[Turn], system: str, tools: str) -> list[list[Element]]:
    """What each turn becomes (Template._encode). Raises LengthUnknown, NotEncodable."""
    system = system or template.default_system
    tool_text = tool_texts.described(template.tools, tools) if tools else ""
    head = _fill(template.system, system + tool_text) if system or tools else []
    out = []
    for number, turn in enumerate(turns):
        content = _content(template, turn)
        parts: list[Element] = []
        if number == 0:
            parts += template.prefix
            if template.kind == "llama2":
                content = (str(head[0]) if head else "") + content  # Llama2Template: the system prompt inside the first user message
            else:
                parts += head
        out.append([*parts, *_fill(template.slots_of(turn.role), content, str(number // 2))])
    return out


def _content(template: Template, turn: Turn) -> str:
    if turn.role != FUNCTION:
        return str(turn.content)
    words = (template.thought_words, template.tool_call_words) if template.kind != "llama2" else (None, None)
    return tool_texts.called(template.function_tools, turn.content, *words)


def _fill(slots: Slots, content: str, index: str | None = None) -> list[Element]:
    """The slots with `{{content}}` (and `{{idx}}`) replaced, once in each slot (StringFormatter.apply)."""
    out: list[Element] = []
    for slot in slots:
        if isinstance(slot, str):
            slot = slot.replace("{{content}}", content, 1)
            slot = slot if index is None else slot.replace("{{idx}}", index, 1)
        out.append(slot)
    return out


def one_turn(template: Template, sample: Sample, answer: Turn) -> list[list[Element]]:
    """Elements of all turns for a single pair of prompt and answer (encode_oneturn): the last list is the answer's."""
    turns = [Turn(turn.role, turn.content) for turn in (*sample.prompt, answer)]
    if not template.reasoning:
        return elements(template, turns, sample.system or "", sample.tools or "")
    if not template.preserve_thinking:
        _forget(template, turns[1 : len(turns) - 2 : 2])
    if template.enable_thinking is False:
        _forget(template, turns[-1:])
    out = elements(template, turns, sample.system or "", sample.tools or "")
    _add_thought(template, out, turns[-1], len(turns) - 1)
    return out


def many_turns(template: Template, sample: Sample, *, mask_history: bool) -> list[list[Element]]:
    """Elements of all turns for training on each answer (encode_multiturn): prompts and answers take turns."""
    turns = [Turn(turn.role, turn.content) for turn in sample.turns()]
    if not template.reasoning:
        return elements(template, turns, sample.system or "", sample.tools or "")
    discard = mask_history and not template.preserve_thinking
    if template.enable_thinking is False:
        _forget(template, turns[1::2])
    if discard:
        _forget(template, turns[1 : len(turns) - 2 : 2])
    out = elements(template, turns, sample.system or "", sample.tools or "")
    for number in [len(turns) - 2] if discard else range(0, len(turns), 2):
        _add_thought(template, out, turns[number + 1], number + 1)
    return out


def _forget(template: Template, turns: list[Turn]) -> None:
    """Template.remove_thought."""
    first, last = map(re.escape, template.thought_words)
    for turn in turns:
        turn.content = re.sub(f"{first}(.*?){last}", "", turn.content, flags=re.DOTALL).lstrip("\n")


def _add_thought(template: Template, out: list[list[Element]], answer: Turn, number: int) -> None:
    """An empty thought for an answer without one: part of the answer when thinking is on, otherwise of the prompt."""
    if any(word.strip() in answer.content for word in template.thought_words):
        return
    words = template.thought_words
    thought = words[1] if template.kind == "reasoning_short" else words[0] + words[1]
    if template.enable_thinking:
        out[number].insert(0, thought)
    else:
        out[number - 1].append(thought)
