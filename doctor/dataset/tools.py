"""Descriptions and calls of tools as text, in the forms that are most used (LLaMA-Factory 0.9.5, data/tool_utils.py and formatter.py)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from doctor.support.cache import load_yaml


class LengthUnknown(Exception):
    """The length of a sample cannot be computed here; the message is a key of words/data.yaml, group unknown."""


class NotEncodable(Exception):
    """LLaMA-Factory stops at this sample; the message is a kind of finding."""


def _prompt(form: str) -> str:
    """The text around the descriptions, written by tests/lab/make_templates.py."""
    return str(load_yaml(Path(__file__).with_name("tool_prompts.yaml"))[form])


def described(form: str | None, tools: str) -> str:
    """The text that tells the model of its tools. Raises LengthUnknown for forms that are not modelled (llama3's holds today's date),
    NotEncodable for descriptions that LLaMA-Factory cannot use."""
    try:
        given = json.loads(tools)
        if not given:
            return ""
        if form == "default":
            return _default(given)
        if form == "qwen":
            return _prompt("qwen").format(tool_text="".join("\n" + _dumps(_wrapped(tool)) for tool in given))
        if form == "mistral":
            return "[AVAILABLE_TOOLS] " + _dumps([_wrapped(tool) for tool in given]) + "[/AVAILABLE_TOOLS]"
        if form == "glm4":
            return _prompt("glm4").format(tool_text="".join(map(_glm4, given)))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise NotEncodable("tools_json") from None
    raise LengthUnknown("tools")


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _bare(tool: dict[str, Any]) -> dict[str, Any]:
    return tool.get("function", "") if tool.get("type") == "function" else tool


def _wrapped(tool: dict[str, Any]) -> dict[str, Any]:
    return tool if tool.get("type") == "function" else {"type": "function", "function": tool}


def _glm4(tool: dict[str, Any]) -> str:
    tool = _bare(tool)
    body = json.dumps(tool, indent=4, ensure_ascii=False)
    return f"\n\n## {tool['name']}\n\n{body}\n在调用上述函数时，请使用 Json 格式表示调用的参数。"


def _default(tools: list[dict[str, Any]]) -> str:
    bare = [_bare(tool) for tool in tools]
    text = "".join(
        f"> Tool Name: {tool['name']}\nTool Description: {tool.get('description', '')}\nTool Args:\n{_arguments(tool['parameters'])}\n"
        for tool in bare
    )
    return _prompt("default").format(tool_text=text, tool_names=", ".join(tool["name"] for tool in bare))


def _arguments(parameters: dict[str, Any]) -> str:
    lines = []
    for name, about in parameters["properties"].items():
        needed = ", required" if name in parameters.get("required", []) else ""
        choices = f", should be one of [{', '.join(about['enum'])}]" if about.get("enum") else ""
        items = f", where each item should be {about['items'].get('type', '')}" if about.get("items") else ""
        lines.append(f"  - {name} ({about.get('type', '')}{needed}): {about.get('description', '')}{choices}{items}\n")
    return "".join(lines)


def called(form: str | None, content: str, thought_words: tuple[str, str] | None, call_words: tuple[str, str] | None) -> str:
    """The text of a call (FunctionFormatter.apply): thoughts around it stay. Raises LengthUnknown, NotEncodable."""
    before, body = "", content
    if call_words and (found := _between(call_words, content)):
        before, body = content.replace(found[0], ""), found[1]
    elif thought_words and (found := _between(thought_words, content)):
        before, body = found[0], content.replace(found[0], "")
    try:
        calls = json.loads(body)
        calls = [(call["name"], call["arguments"]) for call in (calls if isinstance(calls, list) else [calls])]
    except (KeyError, TypeError, ValueError):
        raise NotEncodable("function_json") from None
    return before + _calls(form, calls)


def _between(words: tuple[str, str], content: str) -> re.Match[str] | None:
    return re.search(f"{re.escape(words[0])}(.*?){re.escape(words[1])}", content, re.DOTALL)


def _calls(form: str | None, calls: list[tuple[str, Any]]) -> str:
    if form == "default":
        return "\n".join(f"Action: {name}\nAction Input: {_dumps(given)}" for name, given in calls)
    if form == "qwen":
        return "\n".join(f"<tool_call>\n{_dumps({'name': name, 'arguments': given})}\n</tool_call>" for name, given in calls)
    if form == "mistral":
        return _dumps([{"name": name, "arguments": given} for name, given in calls])
    if form == "llama3":
        objects = [{"name": name, "parameters": given} for name, given in calls]
        return _dumps(objects[0] if len(objects) == 1 else objects)
    if form == "glm4":
        if len(calls) > 1:  # "GLM-4 does not support parallel functions."
            raise NotEncodable("function_json")
        return f"{calls[0][0]}\n{_dumps(calls[0][1])}"
    raise LengthUnknown("tools")
