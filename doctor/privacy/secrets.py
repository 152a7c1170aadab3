"""Text that may leave the machine: secrets masked, control characters gone, anything made JSON-able."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

MASK = "***"

_CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""ANSI sequences, C0 and C1 controls, and the bidirectional marks with which a text can pretend to be another one."""

_SHAPES = re.compile(
    r"""\b(?:
      (?P<hf>hf_|api_org_)[A-Za-z0-9]{12,}                       # Hugging Face
    | (?P<sk>sk-|[sr]k_(?:live|test)_|pk_live_)[A-Za-z0-9_-]{12,}  # OpenAI, Anthropic and look-alikes; Stripe
    | (?P<gh>gh[pousr]_|github_pat_|glpat-)[A-Za-z0-9_-]{16,}    # GitHub, GitLab
    | (?P<aws>AKIA|ASIA)[0-9A-Z]{16}\b                           # AWS access key id
    | (?P<cloud>LTAI|AKID)[A-Za-z0-9]{16,}                       # Alibaba Cloud, Tencent Cloud
    | (?P<google>AIza)[A-Za-z0-9_-]{30,}
    | (?P<oauth>ya29\.)[A-Za-z0-9_-]{20,}                        # Google OAuth
    | (?P<slack>xox[abeprs]-)[A-Za-z0-9-]{10,}
    | (?P<wandb>wandb_v1_)[A-Za-z0-9_]{12,}
    | (?P<package>npm_|pypi-|dckr_pat_|dop_v1_|dapi|ms-)(?=[A-Za-z0-9_-]{0,40}\d)[A-Za-z0-9_-]{28,}  # registries, Databricks, ModelScope
    | (?P<mail>SG\.)[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}       # SendGrid
    | (?P<telegram>bot)?\d{8,10}:AA[A-Za-z0-9_-]{30,}            # Telegram
    | (?P<jwt>eyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}
    )""",
    re.VERBOSE,
)
_PEM = re.compile(r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----).*?(?:(?=-----END )|\Z)", re.DOTALL)
_MAIL = re.compile(r"\b(?!git@)[A-Za-z0-9][\w.+%-]{0,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")
_SIGNED = re.compile(
    r"([?&](?:X-Amz-(?:Signature|Credential|Security-Token)|Signature|sig|sign|access_token|key|code|auth)=)[^\s&\"'<>]{6,}", re.IGNORECASE
)
_COOKIE = re.compile(r"(?i)(\b(?:set-)?cookie[\"']?\s*[:=]\s*)[^\n]{6,}")
_RANDOM = re.compile(r"(?<![\w/+.=%$@-])[A-Za-z0-9+/_-]{24,512}={0,2}(?![\w/+])")
"""Candidates for keys without a name; `_random` decides."""
_BEARER = re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token)\s+)?|bearer\s+)[A-Za-z0-9._~+/=-]{8,}")
_HOOK = re.compile(r"((?:hooks\.slack\.com/services|/open-apis/bot/v2/hook|discord(?:app)?\.com/api/webhooks)/)[^\s\"'<>]+")
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]{1,15}://[^\s/@:]{1,100}:)[^\s/@]{1,200}(?=@)", re.IGNORECASE)
_NAMED = re.compile(
    r"""(?P<name>(?<![A-Za-z0-9])(?:[A-Za-z0-9]{1,40}[_-]){0,6}(?:api[_-]?key|secret[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key|secret|token|passwd|password|passphrase|credentials?))
        (?P<between>["']?(?:\s*[:=]\s*|\s+)["']?)
        (?P<value>[^\s"',;&|<>{}()\[\]]{8,})""",
    re.VERBOSE | re.IGNORECASE,
)
_NAME = re.compile(
    r"(?i)(?:^|[_-])(?:api[_-]?key|secret[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key|secret|token|passwd|password|passphrase|credentials?)$"
)
_HEX_AFTER_WANDB = re.compile(r"(?i)(wandb[^\n]{0,40}?\b)[0-9a-f]{40}\b")


@lru_cache(maxsize=1024)
def clean(text: str) -> str:
    """`text` without control characters (newlines stay, tabs become spaces), valid as UTF-8, its secrets masked."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\t", "    "))
    return mask(text.encode("utf-8", "replace").decode("utf-8"))


_ESCAPED = re.compile(r"(\\[nrt])")


def mask(text: str) -> str:
    """`text` with tokens, keys, passwords and mail addresses replaced by `***`; the names beside them stay: one sees what was there."""
    if len(text) < 6:
        return text
    text = _PEM.sub(rf"\1{MASK}", text) if "-----BEGIN" in text else text
    if "\\" in text and len(pieces := _ESCAPED.split(text)) > 1:  # JSON within: its line breaks end words as ours do
        return "".join(piece if _ESCAPED.fullmatch(piece) else mask(piece) for piece in pieces)
    text = _SHAPES.sub(lambda found: f"{next(filter(None, found.groups()), '')}{MASK}", text)
    text = _HOOK.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1{MASK}", _BEARER.sub(rf"\1{MASK}", text)))
    text = _SIGNED.sub(rf"\1{MASK}", _COOKIE.sub(rf"\1{MASK}", text))
    text = _MAIL.sub(MASK, text) if "@" in text else text
    text = _HEX_AFTER_WANDB.sub(rf"\1{MASK}", _NAMED.sub(_mask_named, text))
    return _RANDOM.sub(_mask_random, text)


def _mask_random(found: re.Match[str]) -> str:
    return MASK if _random(found[0]) else found[0]


def _random(text: str) -> bool:
    """Whether this is a key and no name: a long unbroken piece of mixed case and digits whose kinds of letter change all the time.

    Words, paths, model names and mangled symbols change kind seldom; of random base64 two neighbours in three differ in kind. Hex is
    left: a digest looks the same as a key, and digests are what logs are full of.
    """
    if text.startswith("_Z") or not _mixed(text):
        return False
    piece = max(re.split(r"[-_/+=]", text), key=len)
    whole = piece if len(piece) >= 20 else text if re.search(r"[+/=]", text) is None and text.count("-") + text.count("_") <= 2 else piece
    if len(whole) < 20 or not _mixed(whole):
        return False
    kinds = ["d" if one.isdigit() else "u" if one.isupper() else "l" for one in whole]
    changes = sum(one != other for one, other in pairwise(kinds))
    return changes >= 0.4 * len(whole) and len(set(whole)) >= 0.4 * min(len(whole), 40)


def _mixed(text: str) -> bool:
    return bool(re.search(r"[a-z]", text) and re.search(r"[A-Z]", text) and len(re.findall(r"\d", text)) >= 2)


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
