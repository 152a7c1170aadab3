"""What stands in the message of an exception: error numbers, quoted words, options, variables, packages, files."""

from __future__ import annotations

import re
from collections.abc import Iterable

from doctor.config.options import table
from doctor.diagnosis.unlisted.places import KNOWN

_ERRNO = {
    1: "EPERM", 2: "ENOENT", 5: "EIO", 11: "EAGAIN", 12: "ENOMEM", 13: "EACCES", 16: "EBUSY", 17: "EEXIST", 20: "ENOTDIR", 21: "EISDIR",
    22: "EINVAL", 23: "ENFILE", 24: "EMFILE", 26: "ETXTBSY", 27: "EFBIG", 28: "ENOSPC", 30: "EROFS", 32: "EPIPE", 36: "ENAMETOOLONG",
    39: "ENOTEMPTY", 70: "ECOMM", 98: "EADDRINUSE", 99: "EADDRNOTAVAIL", 101: "ENETUNREACH", 104: "ECONNRESET", 110: "ETIMEDOUT",
    111: "ECONNREFUSED", 113: "EHOSTUNREACH", 116: "ESTALE", 121: "EREMOTEIO", 122: "EDQUOT",
}  # fmt: skip
"""Linux numbers (asm-generic/errno.h): a log is read on any machine, so Python's own errno module would be the reader's."""
_WINERROR = {
    2: "ENOENT", 3: "ENOENT", 5: "EACCES", 8: "ENOMEM", 32: "EBUSY", 112: "ENOSPC", 126: "DLL", 127: "DLL", 182: "DLL", 193: "DLL",
    206: "ENAMETOOLONG", 1114: "DLL", 1314: "EPERM", 1455: "ENOMEM", 10013: "EACCES", 10048: "EADDRINUSE", 10049: "EADDRNOTAVAIL",
    10054: "ECONNRESET", 10060: "ETIMEDOUT", 10061: "ECONNREFUSED", 11001: "EHOSTUNREACH",
}  # fmt: skip
"""Numbers of Windows (winerror.h, winsock) under the names of Linux; `DLL`: a library or one that it needs cannot be loaded."""
_OF_CLASS = {
    "FileNotFoundError": "ENOENT", "PermissionError": "EACCES", "FileExistsError": "EEXIST", "NotADirectoryError": "ENOTDIR",
    "IsADirectoryError": "EISDIR", "ConnectionRefusedError": "ECONNREFUSED", "ConnectionResetError": "ECONNRESET",
    "BrokenPipeError": "EPIPE", "BlockingIOError": "EAGAIN", "MemoryError": "ENOMEM",
}  # fmt: skip
"""Python's subclasses of OSError stand for one number each (PEP 3151)."""
_NUMBER = re.compile(r"\[Errno (\d{1,5})\]|\(os error (\d{1,5})\)|\berrno[:= ]+(\d{1,3})\b", re.I)
_WIN_NUMBER = re.compile(r"\[WinError (\d{1,5})\]")
_PLAIN = re.compile(r"\b(E(?:ADDRINUSE|NOSPC|NOMEM|MFILE|CONNREFUSED|ACCES|DQUOT))\b")
_QUOTED = re.compile(r"(?<!\w)(?:'([^'\n]{1,200})'|\"([^\"\n]{1,200})\"|`{1,3}([^`\n]{1,200})`{1,3})(?!\w)")
_WORD = re.compile(r"--?[A-Za-z][\w-]*|[A-Za-z_]\w*")
_VARIABLE = re.compile(r"(?<![\w.'])([A-Z][A-Z0-9]*_[A-Z0-9_]{2,})(?![\w(])")
_FILE = re.compile(
    r"(?:[A-Za-z]:)?[\w.~@+-]*(?:[/\\][\w.~@+=-]+)+|\b[\w-]+\.(?:jsonl?|ya?ml|py|so|dll|parquet|arrow|csv|safetensors|bin|pt|cpp|cu|txt|model)\b"
)
_SPOKEN = {
    "flash-attn": "flash_attn", "flash attention": "flash_attn", "flashattention": "flash_attn", "flash_attention_2": "flash_attn",
    "huggingface-hub": "huggingface_hub", "pillow": "PIL", "auto-gptq": "auto_gptq", "autoawq": "awq", "liger-kernel": "liger_kernel",
    "qwen-vl-utils": "qwen_vl_utils", "pytorch": "torch", "scikit-learn": "sklearn", "pyav": "av", "torch-npu": "torch_npu",
}  # fmt: skip
"""Names that texts use for packages -> the name of the import."""
_NAMES = re.compile(r"(?<![\w/.-])(" + "|".join(map(re.escape, sorted({*KNOWN, *_SPOKEN}, key=len, reverse=True))) + r")(?![\w/-])", re.I)
_AMBIGUOUS = frozenset(
    {"swift", "evaluate", "ray", "fire", "av", "awq", "requests", "apex", "datasets", "yaml", "triton", "lightning", "accelerate", "hydra"}
)
"""Package names that are everyday words too: they count in quotes, or with a version."""
_NOT_OPTIONS = frozenset(
    {
        "data",
        "model",
        "stage",
        "template",
        "dataset",
        "debug",
        "seed",
        "project",
        "optim",
        "packing",
        "deepspeed",
        "export",
        "tokenizer",
        "top_k",
    }
)
"""Options that are everyday words too: they count in quotes or after `--` only."""
_MOST = 8
"""Names of one kind that are kept."""


def error_number(exception: str, message: str) -> str | None:
    """The operating system's error by its Linux name (ENOSPC), from the message or the class; `DLL` for a library of Windows."""
    if (found := _NUMBER.search(message)) is not None:
        return _ERRNO.get(int(next(filter(None, found.groups()))))
    if (windows := _WIN_NUMBER.search(message)) is not None:
        return _WINERROR.get(int(windows[1]))
    if (plain := _PLAIN.search(message)) is not None:
        return plain[1]
    return _OF_CLASS.get(exception)


def quoted(message: str) -> tuple[str, ...]:
    """Words in quotes or backticks, in their order."""
    return _kept(next(filter(None, found), "") for found in _QUOTED.findall(message))


def options(message: str) -> tuple[str, ...]:
    """LLaMA-Factory's options that the message names: with an underscore, in quotes, or after `--`."""
    known, marked = table(), {word.lstrip("-").replace("-", "_") for word in quoted(message)}
    out = []
    for word in _WORD.findall(message):
        name = word.lstrip("-").replace("-", "_")
        plain = "_" in name and name not in _NOT_OPTIONS
        if name in known and (plain or name in marked or word.startswith("--")):
            out.append(name)
    return _kept(out)


def variables(message: str) -> tuple[str, ...]:
    """Environment variables that the message names: capitals with an underscore (NCCL_P2P_DISABLE)."""
    return _kept(
        name
        for name in _VARIABLE.findall(message)
        if not name.startswith(("CUDA_ERROR", "CUBLAS_STATUS", "CUDNN_STATUS", "NCCL_ERROR", "DT_"))
    )


def packages(message: str) -> tuple[str, ...]:
    """Packages of training stacks that the message names, by the names of their imports."""
    out = []
    for found in _NAMES.finditer(message):
        name = _SPOKEN.get(found[1].lower(), found[1])
        name = name if name in KNOWN else name.lower()
        near = message[max(0, found.start() - 1) : found.end() + 2]
        if name in KNOWN and (name not in _AMBIGUOUS or re.search(r"['\"`]|[=<>!]=", near)):
            out.append(name)
    return _kept(out)


def files(message: str) -> tuple[str, ...]:
    """Paths and file names in the message."""
    return _kept(found for found in _FILE.findall(message) if len(found) > 3)


def _kept(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))[:_MOST]
