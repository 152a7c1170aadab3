"""What is no secret but nobody else's business in the text of a log: who (user names), where (hosts), and on which training samples."""

from __future__ import annotations

import re
from collections.abc import Sequence

from doctor.privacy.secrets import MASK
from doctor.support.lazy_regex import lazy_compile

_HOME = lazy_compile(r"((?:/(?:home|Users)/|\b[A-Za-z]:\\{1,2}Users\\{1,2})(?:[\w.-]+/(?=home/))?)([^/\\\s\"':,;()<>|*]{1,64})")
_ANYBODY = frozenset(
    ("user", "users", "ubuntu", "root", "runner", "jovyan", "ec2-user", "admin", "shared", "public", "default", "app", "me", "***", "~")
)
"""Names of accounts that name nobody."""
_HOST = lazy_compile(
    r"""(?P<before>(?i:\b(?:host(?:name)?|node(?:name)?|master_addr|rdzv[_-]endpoint|server|machine)\b["']?\s*[:=]\s*["']?))
        (?P<host>[A-Za-z0-9][\w.-]{2,80})
      | (?P<nccl>\b[A-Za-z][\w.-]{1,60})(?=:\d+:\d+\s\[\d+\]\sNCCL)
      | (?P<fqdn>\b[A-Za-z0-9][\w-]{0,60}(?:\.[\w-]{1,60}){0,5}\.(?:local|internal|lan|corp|intra|cluster|svc|home|localdomain)\b)
      | (?P<ec2>\bip-\d{1,3}-\d{1,3}-\d{1,3}-\d{1,3}\b)
      | (?P<ip>(?<![\w.-])(?<!==)(?!127\.|0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}(?![\w.-]))""",
    re.VERBOSE,
)
_NO_HOST = lazy_compile(
    r"(?:localhost|none|null|true|false|unknown|error|auto|\d+|cpu|cuda\d*|rank\d*|0\.0\.0\.0|127\.[\d.]+)(?::\d+)?", re.IGNORECASE
)
_SAMPLE_KEYS = (
    "instruction|input|output|content|value|prompt|completion|chosen|rejected|query|response|text|system|history|question|answer|"
    "messages|conversations|sample|example|utterance|document"
)
_SAMPLE = lazy_compile(
    rf"""(?P<key>(?P<quote>["'])(?:{_SAMPLE_KEYS})(?P=quote)\s*:\s*)(?P<open>["'])(?:\\.|(?!(?P=open))[^\\\n]){{4,}}(?:(?P=open)|$)""",
    re.VERBOSE | re.MULTILINE,
)
_TOLD_SAMPLE = lazy_compile(rf"(?i)(\b(?:{_SAMPLE_KEYS}|row|record)s?\b(?:\s+\d+)?\s*[:=]\s+)(?=(?:\S+\s+){{3,}}\S)[^\n]{{20,}}")
_RAISED = lazy_compile(r"^(?:\[?rank\d+\]?:?\s*)?(?:[\w.]*(?:Error|Exception|Warning|Interrupt)\b)|^\{\"type\":\"Crash\"")
"""How a line with an exception begins: in a console, and in our own journal."""
_BLOCK = lazy_compile(r"(?:chosen_|rejected_|kl_)?(?:inputs|labels|input_ids|label_ids)\s*:\s*")
_ENDS_BLOCK = lazy_compile(
    r"\[?(?:INFO|WARNING|ERROR|rank\d)|\[\d{4}-|\d{4}-\d\d-\d\d|Traceback|\s*\d{1,3}%\||\{'loss'|\*{4,}|[A-Z]\w+(?:Error|Exception)\b"
)


def private(text: str, *, raised: bool = False) -> str:
    """`text` of a log without user names in paths, host names, addresses, and what an exception quotes of training samples.

    `raised`: the text is an exception's message, without its type before it.
    """
    return "\n".join(_private_line(line, raised) for line in text.split("\n"))


def _private_line(line: str, raised: bool) -> str:
    if raised or _RAISED.match(line):
        line = _TOLD_SAMPLE.sub(rf"\1{MASK}", line)
    line = _SAMPLE.sub(lambda found: f"{found['key']}{found['open']}{MASK}{found['open']}", line)
    line = _HOME.sub(lambda found: found[0] if found[2].lower() in _ANYBODY else f"{found[1]}{MASK}", line)
    return _HOST.sub(_mask_host, line)


def _mask_host(found: re.Match[str]) -> str:
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
"""Words that a log is full of: an account of such a name is masked in paths only, or nothing could be read any more."""


def names_in(text: str) -> set[str]:
    """User and host names that a text tells: accounts of home folders and prompts, hosts of launchers and NCCL."""
    users = {found[2] for found in _HOME.finditer(text)} | {found[1] or found[2] for found in _ACCOUNT.finditer(text)}
    hosts: set[str] = set()
    for found in _HOST.finditer(text):
        name = found["host"] or found["nccl"] or found["fqdn"] or ""
        if name and _mask_host(found) != found[0]:
            hosts |= {name, name.partition(".")[0]} if re.search(r"\d", name.partition(".")[0]) else {name}
    told = {one.strip(".-") for one in users | hosts}
    return {one for one in told if len(one) >= 3 and not one.isdecimal() and one.lower() not in _ANYBODY | _WORDS and MASK not in one}


def without_names(text: str, names: set[str]) -> str:
    """`text` with every whole word that is one of `names` masked."""
    if not names:
        return text
    longest_first = sorted(names, key=lambda one: (-len(one), one))
    return re.sub(rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, longest_first))})(?![A-Za-z0-9])", MASK, text)
