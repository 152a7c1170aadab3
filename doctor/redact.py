"""Text that may leave the machine: secrets masked, control characters gone, anything made JSON-able."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""ANSI sequences, C0 and C1 controls, and the bidirectional marks with which a text can pretend to be another one."""

_SHAPES = re.compile(
    r"""\b(?:
      (?P<hf>hf_)[A-Za-z0-9]{12,}                                # Hugging Face
    | (?P<sk>sk-)[A-Za-z0-9_-]{12,}                              # OpenAI and look-alikes
    | (?P<gh>gh[pousr]_|github_pat_|glpat-)[A-Za-z0-9_-]{16,}    # GitHub, GitLab
    | (?P<aws>AKIA|ASIA)[0-9A-Z]{16}\b                           # AWS access key id
    | (?P<google>AIza)[A-Za-z0-9_-]{30,}
    | (?P<slack>xox[abprs]-)[A-Za-z0-9-]{10,}
    | (?P<wandb>wandb_v1_)[A-Za-z0-9_]{12,}
    | (?P<jwt>eyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}
    )""",
    re.VERBOSE,
)
_BEARER = re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token)\s+)?|bearer\s+)[A-Za-z0-9._~+/=-]{8,}")
_HOOK = re.compile(r"((?:hooks\.slack\.com/services|/open-apis/bot/v2/hook|discord(?:app)?\.com/api/webhooks)/)[^\s\"'<>]+")
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]{1,15}://[^\s/@:]{1,100}:)[^\s/@]{1,200}(?=@)", re.IGNORECASE)
_NAMED = re.compile(
    r"""(?P<name>(?<![A-Za-z0-9])(?:[A-Za-z0-9]{1,40}[_-]){0,6}(?:api[_-]?key|secret[_-]?key|access[_-]?key|secret|token|passwd|password))
        (?P<between>["']?(?:\s*[:=]\s*|\s+)["']?)
        (?P<value>[^\s"',;&|<>{}()\[\]]{8,})""",
    re.VERBOSE | re.IGNORECASE,
)
_NAME = re.compile(r"(?i)(?:^|[_-])(?:api[_-]?key|secret[_-]?key|access[_-]?key|secret|token|passwd|password)$")
_HEX_AFTER_WANDB = re.compile(r"(?i)(wandb[^\n]{0,40}?\b)[0-9a-f]{40}\b")


def clean(text: str) -> str:
    """`text` without control characters (newlines stay, tabs become spaces), valid as UTF-8, its secrets masked."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\t", "    "))
    return mask(text.encode("utf-8", "replace").decode("utf-8"))


def mask(text: str) -> str:
    """`text` with tokens, keys and passwords replaced by `***`; the names beside them stay, so that one sees what was there."""
    text = _SHAPES.sub(lambda found: f"{next(filter(None, found.groups()))}{MASK}", text)
    text = _HOOK.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1{MASK}", _BEARER.sub(rf"\1{MASK}", text)))
    return _HEX_AFTER_WANDB.sub(rf"\1{MASK}", _NAMED.sub(_mask_named, text))


def plain(value: Any, name: str = "") -> Any:
    """`value` as JSON can hold it (cleaned texts, keys as text, odd types as their text); a value under a secret's name is masked."""
    if isinstance(value, bool | float) or value is None:
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, str):
        return MASK if value and _NAME.search(name) else clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): plain(one, str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, name) for one in value]
    return clean(str(value))


def _mask_named(found: re.Match[str]) -> str:
    """A value after a secret's name. After `token` or a blank it must look like a key (a digit, no dotted words): logs hold many tokens."""
    name, between, value = found["name"].lower(), found["between"], found["value"]
    if MASK in value or re.fullmatch(r"[\d.,]+|true|false|none|null|\$.*", value, re.IGNORECASE):
        return found[0]
    loose = name.endswith("token") or not re.search(r"[:=]", between)
    if loose and (_MODEL_TOKEN.search(name) or not (re.search(r"\d", value) and re.search(r"[A-Za-z]", value))):
        return found[0]
    if loose and len(value) < (8 if len(name) > 5 and name.endswith("token") else 16):
        return found[0]
    return f"{found['name']}{between}{MASK}"


_MODEL_TOKEN = re.compile(r"(?:pad|eos|bos|unk|sep|cls|mask|image|video|audio|vision|special|stop|think|added|extra|new)[_-]?token$")
"""Tokens of a tokenizer, not of a login."""
