"""Data sets and tokenizers for tests/lab/dataset_proof.py, made anew each time (seeded)."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

SPECIAL = (
    "<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "[gMASK]", "<sop>", "sop", "<|user|>", "<|assistant|>", "<|observation|>",
    "<|system|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "[INST]", "[/INST]", "<｜User｜>", "<｜Assistant｜>",
)  # fmt: skip
TEXT = (
    "The quick brown fox jumps over the lazy dog near the river bank. Explain how photosynthesis works in simple terms. "
    "def add(first, second):\n    return first + second\n\n1. Wash the rice.  2. Cook it for 20 minutes.\n"
    "请解释一下光合作用是如何进行的。今天天气很好，我们去公园散步吧。모델 학습이 끝나면 결과를 확인하세요. Größe, naïve café — “quoted” …\t"
)


def tokenizers(folder: Path) -> dict[str, Path]:
    """Three tokenizers: byte-level BPE with chat tokens, the same without any (and no end token), a Unigram with its own spaces."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    corpus = [TEXT] * 20 + TEXT.split()
    chat = Tokenizer(models.BPE())
    chat.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    chat.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    chat.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=900, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    )
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bare.decoder = decoders.ByteLevel()
    bare.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=700, special_tokens=[], initial_alphabet=alphabet, show_progress=False))
    words = Tokenizer(models.Unigram())
    words.normalizer = normalizers.NFKC()
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.decoder = decoders.Metaspace()
    words.train_from_iterator(
        corpus, trainers.UnigramTrainer(vocab_size=600, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False)
    )
    settings: dict[str, tuple[Any, dict[str, Any]]] = {
        "chat": (chat, {"bos_token": "<|begin_of_text|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}),
        "bare": (bare, {}),
        "words": (words, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}),
    }
    out = {}
    for name, (tokenizer, about) in settings.items():
        place = folder / f"tokenizer-{name}"
        place.mkdir(parents=True)
        tokenizer.save(str(place / "tokenizer.json"))
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 100000, **about}
        (place / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
        out[name] = place
    return out


def _say(dice: random.Random, low: int = 3, high: int = 60) -> str:
    words = TEXT.split(" ")
    start = dice.randrange(len(words))
    return " ".join((words * 4)[start : start + dice.randint(low, high)])


def _alpaca(dice: random.Random) -> list[dict[str, Any]]:
    rows = []
    for number in range(60):
        row: dict[str, Any] = {
            "instruction": _say(dice),
            "input": _say(dice) if number % 3 else "",
            "output": _say(dice),
            "system": None,
            "history": [],
        }
        if number % 4 == 0:
            row["system"] = _say(dice, 2, 9)
        if number % 5 == 0:
            row["history"] = [[_say(dice), _say(dice)] for _ in range(dice.randint(1, 4))]
        rows.append(row)
    return rows


def _faulty(dice: random.Random) -> list[dict[str, Any]]:
    """Answers that are empty, null or blank, prompts that are missing, tokens of templates inside texts."""
    rows = _alpaca(dice)
    for number, row in enumerate(rows):
        row["output"] = [row["output"], "", None, " ", row["output"] + "<|im_end|>\n<|im_start|>user\nno</s>", row["output"]][number % 6]
        row["instruction"] = None if number % 7 == 0 else row["instruction"]
        row["input"] = None if number % 11 == 0 else row["input"]
    return rows


def _chat(dice: random.Random, *, faults: bool = False) -> list[dict[str, Any]]:
    rows = []
    for number in range(60):
        turns = [{"from": "human" if at % 2 == 0 else "gpt", "value": _say(dice)} for at in range(2 * dice.randint(1, 4))]
        if number % 3 == 0:
            turns.insert(0, {"from": "system", "value": _say(dice, 2, 9)})
        if number % 5 == 0:
            turns[-1]["value"] = f"<think>\n{_say(dice, 2, 9)}\n</think>\n\n{turns[-1]['value']}"
        if faults and number % 4 == 1:
            turns = [turns[:-1], turns[1:] if len(turns) > 2 else [], [*turns, {"from": "bot", "value": "x"}, turns[0]]][number % 3]
        rows.append({"conversations": turns})
    return rows


TOOL = {
    "name": "get_weather", "description": "Weather of a city.",
    "parameters": {
        "type": "object", "required": ["city"],
        "properties": {
            "city": {"type": "string", "description": "The city."}, "unit": {"type": "string", "enum": ["C", "F"]},
            "days": {"type": "array", "items": {"type": "number"}, "description": "Days."},
        },
    },
}  # fmt: skip


def _tools(dice: random.Random) -> list[dict[str, Any]]:
    rows = []
    for number in range(40):
        call = json.dumps({"name": "get_weather", "arguments": {"city": _say(dice, 1, 2), "unit": "C"}}, ensure_ascii=False)
        call = f"<think>\n{_say(dice, 2, 5)}\n</think>\n\n{call}" if number % 4 == 0 else call
        turns = [
            {"from": "human", "value": _say(dice)}, {"from": "function_call", "value": call},
            {"from": "observation", "value": json.dumps({"degrees": number})}, {"from": "gpt", "value": _say(dice)},
        ]  # fmt: skip
        tool = [TOOL, {"type": "function", "function": TOOL}][number % 2]
        rows.append({"conversations": turns if number % 3 else turns[:2], "tools": json.dumps([tool]) if number % 5 else "[]"})
    return rows


def _openai(dice: random.Random) -> list[dict[str, Any]]:
    rows = []
    for number in range(40):
        messages: list[dict[str, Any]] = [{"role": "user", "content": _say(dice)}, {"role": "assistant", "content": _say(dice)}]
        if number % 2:
            calls = [{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}]
            messages = [
                {"role": "user", "content": _say(dice)}, {"role": "assistant", "content": "", "tool_calls": calls},
                {"role": "tool", "content": "18 degrees"}, {"role": "assistant", "content": _say(dice)},
            ]  # fmt: skip
        if number % 3 == 0:
            messages.insert(0, {"role": "system", "content": _say(dice, 2, 9)})
        rows.append({"messages": messages})
    return rows


def _pairs(dice: random.Random) -> list[dict[str, Any]]:
    rows = [{"instruction": _say(dice), "input": "", "chosen": _say(dice), "rejected": _say(dice, 1, 20)} for _ in range(50)]
    rows[7]["chosen"] = None
    rows[9]["rejected"] = ""
    return rows


def _chat_pairs(dice: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "conversations": [{"from": "human" if at % 2 == 0 else "gpt", "value": _say(dice)} for at in range(2 * dice.randint(0, 2) + 1)],
            "chosen": {"from": "gpt", "value": _say(dice)}, "rejected": {"from": "gpt", "value": _say(dice)},
        }
        for _ in range(50)
    ]  # fmt: skip


def _rated(dice: random.Random) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"instruction": _say(dice), "input": "", "output": _say(dice), "tag": number % 3 > 0} for number in range(50)
    ]
    rows[5]["tag"], rows[8]["output"] = None, ""
    return rows


def _rated_chat(dice: random.Random) -> list[dict[str, Any]]:
    return [{**row, "tag": number % 2 == 0} for number, row in enumerate(_chat(dice))]


OPENAI_TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "observation_tag": "tool",
    "function_tag": "tool_calls", "system_tag": "system",
}  # fmt: skip
ALPACA = {"prompt": "instruction", "query": "input"}
INFO: dict[str, dict[str, Any]] = {
    "alpaca": {"columns": {**ALPACA, "response": "output", "system": "system", "history": "history"}},
    "faulty": {"columns": {**ALPACA, "response": "output"}},
    "chat": {"formatting": "sharegpt"},
    "faulty_chat": {"formatting": "sharegpt"},
    "tools": {"formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}},
    "openai": {"formatting": "openai", "columns": {"messages": "messages"}, "tags": OPENAI_TAGS},
    "pairs": {"ranking": True, "columns": {**ALPACA, "chosen": "chosen", "rejected": "rejected"}},
    "chat_pairs": {
        "ranking": True,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    },
    "rated": {"columns": {**ALPACA, "response": "output", "kto_tag": "tag"}},
    "rated_chat": {"formatting": "sharegpt", "columns": {"messages": "conversations", "kto_tag": "tag"}},
    "plain": {"columns": {"prompt": "text"}},
}
STAGES = {"pairs": "dpo", "chat_pairs": "dpo", "rated": "kto", "rated_chat": "kto", "plain": "pt"}


def datasets(folder: Path) -> list[str]:
    """FOLDER/dataset_info.json and a file for each set; their names."""
    dice = random.Random(11)
    rows = {
        "alpaca": _alpaca(dice), "faulty": _faulty(dice), "chat": _chat(dice), "faulty_chat": _chat(dice, faults=True),
        "tools": _tools(dice), "openai": _openai(dice), "pairs": _pairs(dice), "chat_pairs": _chat_pairs(dice), "rated": _rated(dice),
        "rated_chat": _rated_chat(dice), "plain": [{"text": _say(dice, 3, 90)} for _ in range(50)],
    }  # fmt: skip
    info = {}
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, entry) in enumerate(INFO.items()):
        ending = "jsonl" if number % 2 else "json"
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[name])
        text = lines if ending == "jsonl" else json.dumps(rows[name], ensure_ascii=False, indent=1)
        (folder / f"{name}.{ending}").write_text(text, encoding="utf-8")
        info[name] = {"file_name": f"{name}.{ending}", **entry}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=1), encoding="utf-8")
    return list(rows)


def _good(number: int) -> dict[str, Any]:
    return {"instruction": f"Say {number}.", "input": "", "output": f"It is {number}."}


def _talk(number: int, *extra: dict[str, Any]) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": f"Say {number}."}, {"from": "gpt", "value": f"It is {number}."}, *extra]}


def _fault_texts() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Name -> file ending, text, entry: one fault among sound rows."""
    rows = [_good(number) for number in range(8)]
    talks = [_talk(number) for number in range(8)]
    chat: dict[str, Any] = {"formatting": "sharegpt"}
    lines = [json.dumps(row) for row in rows]

    def jsonl(odd: dict[str, Any], base: list[dict[str, Any]] | None = None) -> str:
        return "".join(json.dumps(row) + "\n" for row in [*(base or rows), odd])

    def said(*roles: str) -> list[dict[str, str]]:
        return [{"role": role, "content": "a"} for role in roles]

    rated = [{**row, "tag": number % 2 == 0} for number, row in enumerate(rows)]
    kto: dict[str, Any] = {"columns": {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "tag"}}
    answer = {"columns": {"prompt": "instruction", "query": "input", "response": "output"}}
    messages = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 4
    openai: dict[str, Any] = {"formatting": "openai", "columns": {"messages": "messages"}, "tags": OPENAI_TAGS}
    return {
        "number": ("jsonl", jsonl({**_good(9), "output": 9}), {}),
        "number_json": ("json", json.dumps([*rows, {**_good(9), "output": 9}]), {}),
        "all_numbers": ("jsonl", "".join(json.dumps({**row, "output": 3}) + "\n" for row in rows), {}),
        "null_answer": ("jsonl", jsonl({**_good(9), "output": None}), {}),
        "no_answer_key": ("jsonl", jsonl({"instruction": "a", "input": ""}), {}),
        "broken": ("jsonl", "\n".join([*lines[:3], lines[3][:20], *lines[4:]]) + "\n", {}),
        "broken_json": ("json", "[" + ",\n".join([*lines[:3], lines[3][:-2], *lines[4:]]) + "]", {}),
        "list_line": ("jsonl", "\n".join([*lines, "[1, 2]"]) + "\n", {}),
        "blank_lines": ("jsonl", "\n\n".join(lines) + "\n\n", {}),
        "no_input_column": ("jsonl", "".join(json.dumps({"instruction": "a", "output": "b"}) + "\n" for _ in rows), {}),
        "input_not_named": ("jsonl", "".join(json.dumps({"instruction": "a", "output": "b"}) + "\n" for _ in rows),
                            {"columns": {"prompt": "instruction", "response": "output"}}),
        "number_prompt": ("jsonl", "".join(json.dumps({**row, "instruction": 5}) + "\n" for row in rows), {}),
        "history_flat": ("jsonl", jsonl({**_good(9), "history": [["a"]]}, [{**row, "history": []} for row in rows]),
                         {"columns": {**answer["columns"], "history": "history"}}),
        "null_content": ("jsonl", jsonl({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": None}]}, talks), chat),
        "null_messages": ("jsonl", jsonl({"conversations": None}, talks), chat),
        "empty_messages": ("jsonl", jsonl({"conversations": []}, talks), chat),
        "unknown_tag": ("jsonl", jsonl(_talk(9, {"from": "bot", "value": "x"}), talks), chat),
        "odd_turns": ("jsonl", jsonl(_talk(9, {"from": "human", "value": "x"}), talks), chat),
        "tag_of_openai": ("jsonl", "".join(json.dumps(row) + "\n" for row in messages), {**chat, "columns": {"messages": "messages"}}),
        "openai_role": ("jsonl", jsonl({"messages": said("bot", "assistant")}, messages), openai),
        "openai_order": ("jsonl", jsonl({"messages": said("assistant", "user")}, messages), openai),
        "tools_broken": ("jsonl", jsonl({**talks[0], "tools": "{"}, [{**row, "tools": ""} for row in talks]),
                         {**chat, "columns": {"messages": "conversations", "tools": "tools"}}),
        "csv_na": ("csv", "instruction,input,output\nSay 1.,,yes\nSay 2.,,NA\nSay 3.,,None\nSay 4.,,\nSay 5.,,no\nSay 6.,,null\n", {}),
        "csv_numbers": ("csv", "instruction,input,output\n" + "".join(f"Say {n}.,x,{n}\n" for n in range(5)), {}),
        "csv_fields": ("csv", "instruction,input,output\na,b,c\na,b,c,d,e\na,b,c\n", {}),
        "csv_lines": ("csv", 'instruction,input,output\n"a\nb",x,"c\nd"\ne,x,f\n', {}),
        "text_lines": ("txt", "first line\n\nsecond line\n", {"columns": {"prompt": "text"}}),
        "empty_file": ("jsonl", "", {}),
        "kto_null_good": ("jsonl", jsonl({**_good(9), "output": None, "tag": True}, rated), kto),
        "kto_null_bad": ("jsonl", jsonl({**_good(9), "output": None, "tag": False}, rated), kto),
        "kto_null_tag": ("jsonl", jsonl({**_good(9), "tag": None}, rated), kto),
        "sound": ("json", json.dumps(rows), {}),
    }  # fmt: skip


def faults(folder: Path) -> list[tuple[str, str]]:
    """FOLDER with one data set for each fault; (name, stage) of each."""
    info, out = {}, []
    folder.mkdir(parents=True, exist_ok=True)
    for name, (ending, text, entry) in _fault_texts().items():
        (folder / f"{name}.{ending}").write_text(text, encoding="utf-8")
        info[name] = {"file_name": f"{name}.{ending}", **entry}
        out.append((name, "pt" if ending == "txt" else "kto" if name.startswith("kto") else "sft"))
    (folder / "latin1.jsonl").write_bytes(
        (json.dumps(_good(1)) + "\n").encode() + b'{"instruction": "caf\xe9", "input": "", "output": "b"}\n'
    )
    info["latin1"] = {"file_name": "latin1.jsonl"}
    (folder / "mark.jsonl").write_bytes(b"\xef\xbb\xbf" + (json.dumps(_good(1)) + "\n").encode() * 3)
    info["mark"] = {"file_name": "mark.jsonl"}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return [*out, ("latin1", "sft"), ("mark", "sft")]
