"""Rows as LLaMA-Factory's converters make samples of them: LLaMA-Factory 0.9.5 data/converter.py, and which of them its processors keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from doctor.dataset.attributes import Attributes

USER, ASSISTANT, OBSERVATION, FUNCTION, SYSTEM = "user", "assistant", "observation", "function", "system"
_ODD, _EVEN = (USER, OBSERVATION), (ASSISTANT, FUNCTION)


class Turn(msgspec.Struct):
    """One message. The content is whatever the row holds: a text, if all is well."""

    role: str
    content: Any


class Sample(msgspec.Struct):
    """One sample in LLaMA-Factory's standard form.

    `fate`: "" (used), "dropped" (LLaMA-Factory leaves it out with a warning) or "crash" (it stops); `reason` names why (words/data.yaml,
    group kind), `detail` what it is about.
    """

    prompt: list[Turn] = []
    response: list[Turn] = []
    system: Any = ""
    tools: Any = ""
    images: Any = None
    videos: Any = None
    audios: Any = None
    fate: str = ""
    reason: str = ""
    detail: str = ""
    no_answer: tuple[str, str] = ("no_answer", "")

    def turns(self) -> list[Turn]:
        """All turns, the answer or answers last."""
        return [*self.prompt, *self.response]


class _Refused(Exception):
    """LLaMA-Factory raises an exception at this row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def convert(row: Mapping[str, Any], about: Attributes, stage: str) -> Sample:
    """The sample that LLaMA-Factory makes of a row at this stage (pt, sft, rm, dpo, kto, ppo). Missing columns are null, as in Arrow."""
    try:
        sample = _MAKERS[about.formatting](row, about)
    except _Refused as refused:
        return Sample(fate="crash", reason=refused.reason, detail=refused.detail)
    if not sample.fate:
        _judge(sample, stage)
    return sample


def _get(row: Mapping[str, Any], column: str | None, default: Any = None) -> Any:
    return row.get(column) if column else default


def _with_media(sample: Sample, row: Mapping[str, Any], about: Attributes) -> Sample:
    sample.images = _files(row.get(about.images)) if about.images else None
    sample.videos = _files(row.get(about.videos)) if about.videos else None
    sample.audios = _files(row.get(about.audios)) if about.audios else None
    return sample


def _files(found: Any) -> list[Any] | None:
    return [found] if found is not None and not isinstance(found, list) else found or None


def _alpaca(row: Mapping[str, Any], about: Attributes) -> Sample:
    prompt = _history(row.get(about.history)) if about.history else []
    query = [part for column in (about.prompt, about.query) if (part := _get(row, column))]
    if any(not isinstance(part, str) for part in query):
        raise _Refused("not_text", f"{about.prompt}: {_kind_of(query)}")
    prompt.append(Turn(USER, "\n".join(query)))
    sample = Sample(prompt, _alpaca_response(row, about), _get(row, about.system, ""), _get(row, about.tools, ""))
    answer = _get(row, about.response)
    if answer is not None and not isinstance(answer, str):
        sample.no_answer = ("answer_not_text", type(answer).__name__)
    return _with_media(sample, row, about)


def _kind_of(values: list[Any]) -> str:
    return next(type(value).__name__ for value in values if not isinstance(value, str))


def _history(value: Any) -> list[Turn]:
    turns = []
    for pair in value if isinstance(value, list) else ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _Refused("history_shape", str(pair)[:60])
        turns += [Turn(USER, pair[0]), Turn(ASSISTANT, pair[1])]
    return turns


def _alpaca_response(row: Mapping[str, Any], about: Attributes) -> list[Turn]:
    tag, answer = _get(row, about.kto_tag), _get(row, about.response)
    if isinstance(tag, bool):
        return _rated([Turn(ASSISTANT, answer)], tag)
    if about.ranking:
        pair = [_get(row, about.chosen), _get(row, about.rejected)]
        if all(isinstance(part, str) for part in pair):
            return [Turn(ASSISTANT, part) for part in pair]
    return [Turn(ASSISTANT, answer)] if isinstance(answer, str) else []


def _rated(response: list[Turn], good: bool) -> list[Turn]:
    """KTO: an empty turn after a good answer, before a bad one."""
    return [*response, Turn(ASSISTANT, "")] if good else [Turn(ASSISTANT, ""), *response]


def _roles(about: Attributes) -> dict[Any, str]:
    tags = (about.user_tag, about.assistant_tag, about.observation_tag, about.function_tag, about.system_tag)
    return dict(zip(tags, (USER, ASSISTANT, OBSERVATION, FUNCTION, SYSTEM), strict=True))


def _messages(row: Mapping[str, Any], about: Attributes) -> tuple[list[Mapping[str, Any]], Any]:
    """The messages without the system message, and the system message or None."""
    messages = _get(row, about.messages)
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise _Refused("messages_shape", f"{about.messages}: {type(messages).__name__}")
    if about.system_tag and messages and messages[0].get(about.role_tag or "") == about.system_tag:
        return messages[1:], Turn(SYSTEM, messages[0].get(about.content_tag or ""))
    return messages, None


def _sharegpt(row: Mapping[str, Any], about: Attributes) -> Sample:
    messages, system = _messages(row, about)
    roles = _roles(about)
    turns = []
    for number, message in enumerate(messages):
        tag = message.get(about.role_tag or "")
        allowed = (about.user_tag, about.observation_tag) if number % 2 == 0 else (about.assistant_tag, about.function_tag)
        if tag not in allowed:
            return Sample(fate="dropped", reason="role_order", detail=f"turn {number + 1}: {tag}"[:60])
        turns.append(Turn(roles[tag], message.get(about.content_tag or "")))
    told = system.content if system else _get(row, about.system, "")
    sample = _split(turns, row, about)
    sample.system, sample.tools = told, _get(row, about.tools, "")
    return _with_media(sample, row, about)


def _split(turns: list[Turn], row: Mapping[str, Any], about: Attributes) -> Sample:
    """Prompt and response of aligned turns."""
    if len(turns) % 2 != int(about.ranking):
        return Sample(fate="dropped", reason="turn_count", detail=str(len(turns)))
    tag = _get(row, about.kto_tag)
    if isinstance(tag, bool):
        return Sample(turns[:-1], _rated(turns[-1:], tag))
    pair = [_get(row, about.chosen), _get(row, about.rejected)]
    if about.ranking and all(isinstance(part, Mapping) for part in pair):
        return Sample(turns, [_answer(part, about) for part in pair])
    return Sample(turns[:-1], turns[-1:])


def _answer(message: Mapping[str, Any], about: Attributes) -> Turn:
    tag = message.get(about.role_tag or "")
    roles = _roles(about)
    if not isinstance(tag, str) or tag not in roles:
        raise _Refused("unknown_role", str(tag)[:60])
    return Turn(roles[tag], message.get(about.content_tag or ""))


def _openai(row: Mapping[str, Any], about: Attributes) -> Sample:
    messages, system = _messages(row, about)
    turns = _openai_turns(messages, about)
    for number, turn in enumerate(turns):
        if turn.role not in (_ODD if number % 2 == 0 else _EVEN):
            return Sample(fate="dropped", reason="role_order", detail=f"turn {number + 1}: {turn.role}")
    sample = _split(turns, row, about)
    tools = _get(row, about.tools, "") or ""
    sample.tools = json.dumps(tools, ensure_ascii=False) if isinstance(tools, dict | list) else tools
    told = system.content if system else _get(row, about.system, "")
    sample.system = _openai_system(told, bool(sample.tools))
    return _with_media(sample, row, about)


def _openai_turns(messages: list[Mapping[str, Any]], about: Attributes) -> list[Turn]:
    """Turns with the calls of tools written as JSON and neighbouring answers of tools joined. Answers at the very end are lost."""
    roles = _roles(about)
    turns: list[Turn] = []
    answers: list[Any] = []
    for message in messages:
        tag, content = message.get(about.role_tag or ""), message.get(about.content_tag or "")
        calls = message.get("tool_calls") if tag in (about.assistant_tag, about.function_tag) else None
        if calls:
            content, tag = _calls(calls), about.function_tag
        if tag == about.observation_tag:
            answers.append(content)
            continue
        if answers:
            turns.append(Turn(OBSERVATION, _joined(answers)))
            answers = []
        if not isinstance(tag, str) or tag not in roles:
            raise _Refused("unknown_role", str(tag)[:60])
        turns.append(Turn(roles[tag], content))
    return turns


def _calls(calls: Any) -> str:
    try:
        return json.dumps([call["function"] for call in calls], ensure_ascii=False)
    except (TypeError, KeyError):
        raise _Refused("tool_calls_shape", str(calls)[:60]) from None


def _joined(answers: list[Any]) -> str:
    if not all(isinstance(answer, str) for answer in answers):
        raise _Refused("not_text", _kind_of(answers))
    return "\n</tool_response>\n<tool_response>\n".join(answers)


def _openai_system(system: Any, tools: bool) -> Any:
    """The converter adds `detailed thinking off` (converter.py, OpenAIDatasetConverter)."""
    if not system:
        return system if tools else "detailed thinking off"
    if not isinstance(system, str):
        raise _Refused("not_text", f"system: {type(system).__name__}")
    if tools:
        return system + "\n"
    return system if "detailed thinking on" in system or "detailed thinking off" in system else system + "\ndetailed thinking off"


_MAKERS = {"alpaca": _alpaca, "sharegpt": _sharegpt, "openai": _openai}


def _judge(sample: Sample, stage: str) -> None:
    """Set the fate that the processor of the stage gives the sample (data/processor/*.py)."""
    answers = len(sample.response)
    if stage == "pt":
        if not sample.prompt:
            _set(sample, "crash", "no_messages")
        elif not isinstance(sample.prompt[0].content, str):
            _set(sample, "crash", "not_text", type(sample.prompt[0].content).__name__)
        return
    if len(sample.prompt) % 2 != 1:
        _set(sample, "dropped", "no_messages")
    elif stage in ("rm", "dpo") and answers < 2:
        _set(sample, "dropped", "no_pair")
    elif stage == "kto" and answers < 2:
        _set(sample, "dropped", "no_kto_tag")
    elif stage == "sft" and answers > 1:
        _set(sample, "dropped", "wrong_stage")
    elif stage == "sft" and answers == 0:
        _set(sample, "dropped", *sample.no_answer)
    else:
        _check_texts(sample, stage)


def _set(sample: Sample, fate: str, reason: str, detail: str = "") -> None:
    sample.fate, sample.reason, sample.detail = fate, reason, detail


def _check_texts(sample: Sample, stage: str) -> None:
    """Formatters take texts only: "Expected a string, got ..." (data/formatter.py). A good answer that is null is skipped by KTO."""
    skipped = stage == "kto" and sample.response[0].content is None
    turns = [*sample.prompt, *sample.response[int(skipped) :]]
    for turn in turns:
        if not isinstance(turn.content, str):
            _set(sample, "crash", "not_text", f"{turn.role}: {type(turn.content).__name__}")
            return
    if sample.system and not isinstance(sample.system, str):
        _set(sample, "crash", "not_text", f"system: {type(sample.system).__name__}")
    elif sample.tools:
        _check_json(sample, sample.tools, "tools_json")
    if not sample.fate:
        for turn in turns:
            if turn.role == FUNCTION and not sample.fate:
                _check_call(sample, turn.content)


def _check_json(sample: Sample, text: Any, reason: str) -> None:
    try:
        json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        _set(sample, "crash", reason, str(error)[:80])


def _check_call(sample: Sample, content: str) -> None:
    """A call must be JSON, but may have thoughts around it (FunctionFormatter): only what holds no mark of them is judged here."""
    if "<" not in content:
        _check_json(sample, content, "function_json")
