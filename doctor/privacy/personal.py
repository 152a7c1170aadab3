"""Personal data in the text of a log: user and host names, addresses, phone and identity numbers, training samples."""

from __future__ import annotations

import re
from collections.abc import Sequence

from doctor.privacy.secrets import MASK, unescaped
from doctor.support.lazy_regex import lazy_compile

_HOME = lazy_compile(r"((?:/(?:home|Users|users)/|\b[A-Za-z]:\\{1,2}Users\\{1,2})(?:[\w.-]+/(?=home/))?)([^/\\\s\"':,;()<>|*]{1,64})")
"""/home/NAME, C:\\Users\\NAME."""

_DATA = lazy_compile(r"(?<![\w./-])(/data\d?/)([a-z][a-z._-]{2,20}\d{0,4})(?=/)")
"""/data/NAME/, where machines without home folders keep them; `_COMMON` says which names are no account's."""

_COMMON = lazy_compile(
    r"data|model|ckpt|check|cache|huggingface|llama|qwen|train|save|out|tmp|temp|log|share|work|code|proj|exp|run|disk|corpus|raw|json"
    r"|image|video|user|team|conda|home|test|eval|sft|dpo|pretrain|public|common|storage|group|anaconda|python|docker|weights|hub|lora"
)

_ANYBODY = frozenset(
    ("user", "users", "ubuntu", "root", "runner", "jovyan", "ec2-user", "admin", "shared", "public", "default", "app", "me", "***", "~")
)
"""Names of accounts that name nobody."""

_HOST = lazy_compile(
    r"""(?P<before>(?i:\b(?:host(?:name)?|node(?:name)?|master_addr|rdzv[_-]endpoint|server|machine)\b["']?\s*[:=]\s*["']?))
        (?P<host>[A-Za-z0-9][\w.-]{2,80})
      | (?P<nccl>\b[A-Za-z][\w.-]{1,60})(?=:\d+:\d+\s\[\d+\]\sNCCL)
      | (?P<fqdn>\b[A-Za-z0-9][\w-]{0,60}(?:\.[\w-]{1,60}){0,5}\.(?:local|internal|lan|corp|intra|cluster|svc|home|localdomain)\b)
      | (?<![\w:.])(?P<colons>(?=[0-9A-Fa-f]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:]{6,39})(?![\w:])
      | (?P<ec2>\bip-\d{1,3}-\d{1,3}-\d{1,3}-\d{1,3}\b)
      | (?P<ip>(?<![\w.-])(?<!==)(?!127\.|0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}(?![\w.-]))""",
    re.VERBOSE,
)
_NO_HOST = lazy_compile(
    r"(?:localhost|none|null|true|false|unknown|error|auto|\d+|cpu|cuda\d*|rank\d*|0\.0\.0\.0|127\.[\d.]+)(?::\d+)?", re.IGNORECASE
)
"""Values after `host:` that are no host."""

_SAMPLE_KEYS = (
    "instruction|input|output|content|value|prompt|completion|chosen|rejected|query|response|text|system|history|question|answer|"
    "messages|conversations|sample|example|utterance|document"
)
_SAMPLE = lazy_compile(
    rf"""(?P<key>(?P<quote>["'])(?:{_SAMPLE_KEYS})(?P=quote)\s*:\s*)(?P<open>["'])(?:\\.|(?!(?P=open))[^\\\n]){{4,}}(?:(?P=open)|$)""",
    re.VERBOSE | re.MULTILINE,
)
_QUOTED_SAMPLE = lazy_compile(rf"(?i)(\b(?:{_SAMPLE_KEYS}|row|record)s?\b(?:\s+\d+)?\s*[:=]\s+)(?=(?:\S+\s+){{3,}}\S)[^\n]{{20,}}")
_RAISED = lazy_compile(r"^(?:\[?rank\d+\]?:?\s*)?(?:[\w.]*(?:Error|Exception|Warning|Interrupt)\b)|^\{\"type\":\"Crash\"")
"""How a line with an exception begins: in a console, and in our own journal."""
_BLOCK = lazy_compile(r"(?:chosen_|rejected_|kl_)?(?:inputs|labels|input_ids|label_ids)\s*:\s*")
_ENDS_BLOCK = lazy_compile(
    r"\[?(?:INFO|WARNING|ERROR|rank\d)|\[\d{4}-|\d{4}-\d\d-\d\d|Traceback|\s*\d{1,3}%\||\{'loss'|\*{4,}|[A-Z]\w+(?:Error|Exception)\b"
)


_ACCOUNT_VARIABLE = lazy_compile(
    r"((?<![A-Za-z0-9])(?:SLURM_JOB_USER|SLURM_JOB_ACCOUNT|PBS_O_LOGNAME|LSB_SUB_USER|JUPYTERHUB_USER|SUDO_USER|LOGNAME|USERNAME|USER)"
    r"[\"']?\s*[=:]\s*[\"']?)([A-Za-z][\w.-]{1,40})"
)
_PHONE = lazy_compile(
    r"""((?:手机|电话|联系方式|휴대폰|휴대전화|전화|연락처|携帯|(?i:\b(?:phone|mobile|cell|tel)))[^\d\n+]{0,12})\+?\d[\d -]{6,18}\d
      | (?<![\w.+-])()\+\d{1,3}[ -]?\(?\d{1,4}\)?(?:[ -]?\d{2,4}){2,4}(?![\w.])
      | (?<![\w.-])()01[016789]-\d{3,4}-\d{4}(?![\w-])""",
    re.VERBOSE,
)
"""With a word for it, with a country code, or as Korea writes it; a bare number of 11 digits is a count of parameters or bytes."""

_CHINESE_ID = lazy_compile(r"(?<![\w.])[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])\d{3}[\dXx](?!\w)")
_CHECK_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
"""GB 11643-1999: the 18th digit checks the others."""

_KOREAN_ID = lazy_compile(r"(?<![\w-])\d{2}(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])-[1-8]\d{6}(?![\w-])")


def private(text: str, *, raised: bool = False) -> str:
    """`text` of a log without user names in paths, host names, addresses, and what an exception quotes of training samples.

    `raised`: the text is an exception's message, without its type before it.
    """
    return "\n".join(_private_line(line, raised) for line in unescaped(text).split("\n"))


def _private_line(line: str, raised: bool) -> str:
    if raised or _RAISED.match(line):
        line = _QUOTED_SAMPLE.sub(rf"\1{MASK}", line)
    line = _SAMPLE.sub(lambda found: f"{found['key']}{found['open']}{MASK}{found['open']}", line)
    for pattern in (_HOME, _ACCOUNT_VARIABLE):
        line = pattern.sub(lambda found: found[0] if found[2].lower() in _ANYBODY else f"{found[1]}{MASK}", line)
    line = _DATA.sub(lambda found: found[0] if _is_common(found[2]) else f"{found[1]}{MASK}", line)
    line = _CHINESE_ID.sub(lambda found: MASK if _is_chinese_id(found[0]) else found[0], _KOREAN_ID.sub(MASK, line))
    line = _PHONE.sub(lambda found: f"{found[1] or ''}{MASK}", line)
    return _HOST.sub(_mask_host, line)


def _is_common(name: str) -> bool:
    return name.lower() in _ANYBODY | _WORDS or _COMMON.search(name) is not None


def _is_chinese_id(text: str) -> bool:
    total = sum(int(digit) * weight for digit, weight in zip(text[:17], _CHECK_WEIGHTS, strict=True))
    return "10X98765432"[total % 11] == text[17].upper()


def _is_address(text: str) -> bool:
    """A MAC or an IPv6 address; clock times and C++ names are none."""
    if re.fullmatch(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", text):
        return True
    import ipaddress  # rarely needed, 1 ms

    try:
        return not ipaddress.IPv6Address(text).is_loopback
    except ValueError:
        return False


def _mask_host(found: re.Match[str]) -> str:
    if found["colons"] is not None:
        return MASK if _is_address(found["colons"]) else found[0]
    host = found["host"]
    if host is not None:
        return found[0] if _NO_HOST.fullmatch(host) or not re.search(r"[\d.-]", host) else f"{found['before']}{MASK}"
    return MASK


def private_lines(lines: Sequence[str]) -> list[str]:
    """Lines of a log, each made `private`; of the training example that LLaMA-Factory prints (`inputs:`, `labels:`) only the names stay."""
    out, inside = [], False
    for line in lines:
        if _BLOCK.match(line):
            inside = True
            out.append(f"{_BLOCK.match(line)[0].rstrip()} {MASK}")  # type: ignore[index]
        elif inside and not _ENDS_BLOCK.match(line):
            out.append(MASK)
        else:
            inside = False
            out.append(private(line))
    return out


# --- names that were seen once are masked everywhere

_ACCOUNT = lazy_compile(
    r"""\b(?:USER|LOGNAME|USERNAME|SUDO_USER)["']?\s*[=:]\s*["']?([A-Za-z][\w.-]{2,40})|\b([a-z][\w.-]{2,40})@[A-Za-z][\w.-]{2,60}[:$#]"""
)
_WORDS = frozenset(
    (
        "data",
        "datasets",
        "model",
        "models",
        "train",
        "training",
        "work",
        "home",
        "test",
        "tests",
        "dev",
        "llm",
        "python",
        "torch",
        "project",
        "projects",
        "code",
        "src",
        "run",
        "runs",
        "log",
        "logs",
        "output",
        "outputs",
        "config",
        "none",
        "null",
        "true",
        "false",
        "node",
        "host",
        "server",
        "worker",
        "master",
        "local",
        "git",
        "conda",
        "docker",
        "slurm",
        "gpu",
        "cuda",
    )
)
"""Common words of logs: an account of such a name is masked in paths only, or the rest could not be read any more."""


def names_in(text: str) -> set[str]:
    """User and host names in a text: accounts of home folders, variables and prompts, hosts of launchers and NCCL."""
    users = (
        {found[2] for found in _HOME.finditer(text)}
        | {found[2] for found in _ACCOUNT_VARIABLE.finditer(text)}
        | {found[1] or found[2] for found in _ACCOUNT.finditer(text)}
    )
    hosts: set[str] = set()
    for found in _HOST.finditer(text):
        name = found["host"] or found["nccl"] or found["fqdn"] or ""
        if name and _mask_host(found) != found[0]:
            hosts |= {name, name.partition(".")[0]} if re.search(r"\d", name.partition(".")[0]) else {name}
    names = {name.strip(".-") for name in users | hosts}
    return {
        name for name in names if len(name) >= 3 and not name.isdecimal() and name.lower() not in _ANYBODY | _WORDS and MASK not in name
    }


def without_names(text: str, names: set[str]) -> str:
    """`text` with every whole word that is one of `names` masked."""
    if not names:
        return text
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.sub(rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, longest_first))})(?![A-Za-z0-9])", MASK, text)
