"""The size of an answer in tokens: an upper bound that needs no tokenizer, and cutting to a budget."""

from __future__ import annotations

import json
from typing import Any

VERDICT_TOKENS = 800
"""Of an answer that holds the verdict and what to do."""
DETAIL_TOKENS = 3000
"""Of an answer with evidence and patch, and of every other one."""
CHARS_PER_TOKEN = 2.3
TOKENS_PER_CHAR = 2.2
"""ASCII characters of a token, tokens of another character. Measured with Llama 2's vocabulary of 32,000, the smallest in use by far, on
answers about every sixth fixture in three languages: at most 1.03 times the bound (Korean), so 737 tokens of 800 and 2,673 of 3,000."""


def tokens(text: str) -> int:
    """An upper bound of the tokens of a text."""
    ascii_chars = sum(sign.isascii() for sign in text)
    return round(ascii_chars / CHARS_PER_TOKEN + (len(text) - ascii_chars) * TOKENS_PER_CHAR)


def written(answer: dict[str, Any]) -> str:
    """An answer as the JSON that a client gets."""
    return json.dumps(answer, ensure_ascii=False)


def size(answer: dict[str, Any]) -> int:
    """Tokens of an answer as it is written."""
    return tokens(written(answer))


def fitted(answer: dict[str, Any], limit: int) -> dict[str, Any]:
    """The answer within `limit` tokens: its later parts are shortened first, and `cut` names those parts.

    Lists lose their last items, long texts their end, small parts that still do not fit go. The first part always stays.
    """
    out = dict(answer)
    cut: list[str] = []
    for name in reversed(list(answer)[1:]):
        while size({**out, "cut": cut}) > limit and name in out:
            if name not in cut:
                cut.append(name)
            shorter = _shorter(out[name])
            if shorter is None:
                del out[name]
            else:
                out[name] = shorter
    return {**out, "cut": cut} if cut else out


def _shorter(value: Any) -> Any:
    """A shorter form of a part; None if there is none."""
    if isinstance(value, list) and len(value) > 1:
        return value[:-1]
    if isinstance(value, str) and len(value) > 200:
        return value[: len(value) * 3 // 4] + " [...]"
    if isinstance(value, dict) and len(value) > 1:
        return dict(list(value.items())[:-1])
    return None
