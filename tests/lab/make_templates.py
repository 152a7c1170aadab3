"""Writes doctor/dataset/templates.yaml and tool_prompts.yaml: the templates of the installed LLaMA-Factory as data.

python tests/lab/make_templates.py doctor/dataset      (run with the lab's Python)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = "# Written by tests/lab/make_templates.py from LLaMA-Factory {version}, data/template.py. Do not edit.\n"
KINDS = {"Template": "plain", "Llama2Template": "llama2", "ReasoningTemplate": "reasoning", "Glm47ReasoningTemplate": "reasoning_short"}
MEDIA = {"images": "image_token", "videos": "video_token", "audios": "audio_token"}
IMAGES = {"Qwen2VLPlugin": "qwen_vl", "Qwen3VLPlugin": "qwen_vl", "LlavaPlugin": "llava"}
"""What doctor/dataset/images.py knows."""
DEFAULTS = {
    "kind": "plain", "user": ["{{content}}"], "assistant": ["{{content}}", {"special": "eos_token"}], "system": ["{{content}}"],
    "prefix": [], "tools": "default", "function_tools": "default", "default_system": "", "stop_words": [],
    "thought_words": ["<think>\n", "\n</think>\n\n"], "tool_call_words": ["<tool_call>", "</tool_call>"], "efficient_eos": False,
    "replace_eos": False, "preserve_thinking": False, "media": [], "plugin": False, "images_as": "", "image_marks": ["", "", ""],
}  # fmt: skip
"""Left out where a template has them; doctor/dataset/templates.py fills them in."""


def slots(formatter: Any) -> list[Any]:
    """Texts as they are, a token as {token: ...}, bos and eos as {special: ...}."""
    return [
        slot if isinstance(slot, str) else dict(slot) if isinstance(slot, dict) else {"special": next(iter(slot))}
        for slot in formatter.slots
    ]


def described(template: Any) -> dict[str, Any]:
    """One template without what is the default."""
    plugin = template.mm_plugin
    data = {
        "kind": KINDS[type(template).__name__],
        **{
            name: slots(getattr(template, f"format_{name}"))
            for name in ("prefix", "system", "user", "assistant", "function", "observation")
        },
        "tools": template.format_tools.tool_format,
        "function_tools": template.format_function.tool_format,
        **{name: getattr(template, name) for name in ("default_system", "efficient_eos", "replace_eos", "preserve_thinking")},
        **{name: list(getattr(template, name)) for name in ("stop_words", "thought_words", "tool_call_words")},
        "media": [kind for kind, token in MEDIA.items() if getattr(plugin, token) is not None],
        "plugin": type(plugin).__name__ != "BasePlugin",
        "images_as": IMAGES.get(type(plugin).__name__, ""),
        "image_marks": ["", "", ""],
    }
    if data["images_as"]:
        data["image_marks"] = [getattr(plugin, name, "") for name in ("vision_bos_token", "image_token", "vision_eos_token")]
    if data["function"] == data["assistant"]:
        del data["function"]
    if data["observation"] == data["user"]:
        del data["observation"]
    return {name: value for name, value in data.items() if DEFAULTS.get(name, ...) != value}


def main(folder: Path) -> None:
    """Write both tables."""
    from importlib.metadata import version

    from llamafactory.data import tool_utils
    from llamafactory.data.template import TEMPLATES

    head = HEAD.format(version=version("llamafactory"))
    lines = [head]
    for name in sorted(TEMPLATES):
        lines.append(f"{name}:\n")
        # JSON is YAML: a value a line, letters as they are
        lines += [f"  {key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in described(TEMPLATES[name]).items()]
    (folder / "templates.yaml").write_text("".join(lines), encoding="utf-8")
    prompts = {form: getattr(tool_utils, f"{form.upper()}_TOOL_PROMPT") for form in ("default", "glm4", "qwen")}
    lines = [
        head.replace("template.py", "tool_utils.py"),
        *(f"{form}: {json.dumps(text, ensure_ascii=False)}\n" for form, text in prompts.items()),
    ]
    (folder / "tool_prompts.yaml").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
