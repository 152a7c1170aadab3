"""What LLaMA-Factory does with each kind of finding, and what to do: keys of words/data.yaml, groups effect and todo."""

from __future__ import annotations

from doctor.dataset.findings import SEVERITY

_SPECIAL_EFFECT = {
    "empty_answer": "empty", "same_pair": "no_signal", "contradiction": "no_signal", "kto_one_sided": "no_signal", "overlap": "overlap",
    "special_tokens": "marks", "answer_lost": "lost", "cut": "cut", "duplicate": "repeated", "near_duplicate": "repeated",
    "compressed": "unseen", "row_too_long": "unseen", "not_here": "unseen",
}  # fmt: skip
_DROPPED = ("role_order", "turn_count", "no_messages", "no_answer", "answer_not_text", "no_pair", "no_kto_tag", "wrong_stage")
_TODO = {
    "not_utf8": "utf8", "mixed_types": "one_type", "column_missing": "columns", "messages_shape": "columns", "unknown_role": "tags",
    "role_order": "order", "turn_count": "order", "no_rows": "entry", "unreadable_file": "entry", "source_fatal": "entry",
    "all_dropped": "entry", "wrong_stage": "entry", "media_count": "media", "media_missing": "media", "media_unsupported": "template",
    "token_missing": "template",
    "kto_one_sided": "both_sides", "overlap": "hold_out", "secret": "rotate", "answer_lost": "longer", "cut": "longer", "unfilled": "fill",
    "compressed": "unpack", "row_too_long": "remove", "not_here": "nothing", "duplicate": "look", "near_duplicate": "look",
    "several_answers": "look", "empty_prompt": "look", "html": "look", "mojibake": "repair", "control_chars": "repair",
    "special_tokens": "repair",
}  # fmt: skip


def effect_of(kind: str) -> str:
    """What LLaMA-Factory does with it."""
    if SEVERITY[kind] == "error":
        return "crash"
    return "dropped" if kind in _DROPPED else _SPECIAL_EFFECT.get(kind, "trained")


def todo_of(kind: str) -> str:
    """What to do about it."""
    return _TODO.get(kind, "repair" if SEVERITY[kind] == "error" else "remove")
