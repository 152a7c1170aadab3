"""Faults put into generated data sets: does `lfdoctor data` find each, and on the right line?

    python benchmarks/data_faults.py [--sets 20] [--first-seed 101] [--verbose]

20 sets (alpaca, sharegpt, openai; json, jsonl, csv; English, Chinese, Korean), 17 kinds of faults; every case is a fresh file with
faults of one kind in one to three rows. A case counts when each of its rows is named, with the right kind, on the right line. Each
set is also looked at without a fault: anything above a note there is a false alarm.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from doctor.dataset.inspect import Look, inspect

Rows = list[dict[str, Any]]
TEXT = {
    "en": """
        river stone garden winter market bridge paper signal engine harbor letter mountain silver window planet coffee
        method forest teacher ocean village music camera summer doctor circle number office kitchen travel thunder
        bottle carpet dragon eagle feather ginger hammer island jacket kernel ladder mirror needle orange pepper
        quarter ribbon saddle temple umbrella velvet walnut yellow
    """,
    "zh": """
        天空 大海 学校 老师 电脑 城市 火车 春天 苹果 音乐 历史 数学 医生 朋友 山谷 河流 书店 市场 星期
        问题 方法 语言 机器 数据 颜色 图片 故事 窗户 花园 桥梁 银行 公园 商店 厨房 饭店 机场 邮局 地图
        照片 电影
    """,
    "ko": """
        하늘 바다 학교 선생님 컴퓨터 도시 기차 봄날 사과 음악 역사 수학 의사 친구 계곡 강물 서점 시장 주말
        질문 방법 언어 기계 자료 색깔 그림 이야기 창문 정원 다리 은행 공원 상점 부엌 식당 공항 우체국 지도
        사진 영화
    """,
}
WORDS = {lang: text.split() for lang, text in TEXT.items()}
TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}


class Set(NamedTuple):
    """One generated set. `form`: alpaca, sharegpt, openai; `ending`: json, jsonl, csv."""

    seed: int
    form: str
    ending: str
    lang: str
    rows: int


def text(dice: random.Random, lang: str, low: int, high: int) -> str:
    """A sentence of random words, with a number so that no two are alike."""
    words = dice.choices(WORDS[lang], k=dice.randint(low, high))
    return ("" if lang == "zh" else " ").join([*words, str(dice.randint(0, 999_999))]) + ("。" if lang == "zh" else ".")


def make(one: Set, stage: str) -> Rows:
    """The sound rows of a set for a stage."""
    dice = random.Random(one.seed * 7 + len(stage))
    return [_row(dice, one, stage, number) for number in range(one.rows)]


def _row(dice: random.Random, one: Set, stage: str, number: int) -> dict[str, Any]:
    prompt, answer, other = text(dice, one.lang, 6, 20), text(dice, one.lang, 12, 60), text(dice, one.lang, 12, 60)
    user, assistant, role, content = (
        ("human", "gpt", "from", "value") if one.form == "sharegpt" else ("user", "assistant", "role", "content")
    )
    if one.form == "alpaca":
        row: dict[str, Any] = {"instruction": prompt, "input": ""}
        row |= {"chosen": answer, "rejected": other} if stage == "dpo" else {"output": answer}
    else:
        turns = [{role: user, content: prompt}]
        more = [{role: assistant, content: other}, {role: user, content: text(dice, one.lang, 4, 9)}] if number % 3 == 0 else []
        final = {role: assistant, content: answer}
        if stage == "dpo":
            row = {"conversations": turns + more, "chosen": final, "rejected": {role: assistant, content: other}}
        else:
            row = {"conversations": [*turns, *more, final]}
    if stage == "kto":
        row["tag"] = number % 2 == 0
    if stage == "media":
        row["images"] = ["1.jpg"]
        if one.form == "alpaca":
            row["instruction"] = "<image>" + row["instruction"]
        else:
            row["conversations"][0][content] = "<image>" + row["conversations"][0][content]
    return row


def answer_place(row: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Where the answer of a row stands."""
    if "output" in row:
        return row, "output"
    if isinstance(row.get("chosen"), str):
        return row, "chosen"
    turn = row["chosen"] if "chosen" in row else row["conversations"][-1]
    return turn, "value" if "value" in turn else "content"


def change_answer(change: Callable[[str, random.Random], Any]) -> Callable[[Rows, int, random.Random], int]:
    """A fault that changes the answer of a row in place."""

    def fault(rows: Rows, at: int, dice: random.Random) -> int:
        holder, key = answer_place(rows[at])
        holder[key] = change(holder[key], dice)
        return at

    return fault


def copied(change: Callable[[dict[str, Any], random.Random], None]) -> Callable[[Rows, int, random.Random], int]:
    """A fault that puts a changed copy of the row at the end; the copy is the row to be named."""

    def fault(rows: Rows, at: int, dice: random.Random) -> int:
        copy = json.loads(json.dumps(rows[at]))
        change(copy, dice)
        rows.append(copy)
        return len(rows) - 1

    return fault


def _reword(row: dict[str, Any], dice: random.Random) -> None:
    holder, key = answer_place(row)
    words = dice.choices(WORDS["en"], k=12)
    long = " ".join(dice.choices(WORDS["en"], k=80))
    holder[key] = f"{long} {words[0]}"


def _other_answer(row: dict[str, Any], dice: random.Random) -> None:
    if "tag" in row:
        row["tag"] = not row["tag"]
    elif "rejected" in row:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    else:
        holder, key = answer_place(row)
        holder[key] = "no. " + " ".join(dice.choices(WORDS["en"], k=9))


def near_copy(rows: Rows, at: int, dice: random.Random) -> int:
    """The row becomes long; a copy at the end differs in its last word."""
    _reword(rows[at], dice)
    copy = json.loads(json.dumps(rows[at]))
    holder, key = answer_place(copy)
    holder[key] = holder[key].rsplit(" ", 1)[0] + " changed"
    rows.append(copy)
    return len(rows) - 1


def equal_pair(rows: Rows, at: int, _dice: random.Random) -> int:
    """chosen == rejected."""
    rows[at]["rejected"] = json.loads(json.dumps(rows[at]["chosen"]))
    return at


def wrong_roles(rows: Rows, at: int, dice: random.Random) -> int:
    """Two turns of the user in a row, or a role that no tag names."""
    turns = rows[at]["conversations"]
    role = "from" if "from" in turns[0] else "role"
    turns[-1][role] = turns[0][role] if dice.random() < 0.5 or role == "role" else "bot"
    return at


def one_turn_less(rows: Rows, at: int, _dice: random.Random) -> int:
    """The answer is missing."""
    if "output" in rows[at]:
        rows[at]["output"] = None
    else:
        rows[at]["conversations"].pop()
    return at


def wrong_media(rows: Rows, at: int, dice: random.Random) -> int:
    """A picture too many, or one that is not there."""
    rows[at]["images"] = ["1.jpg", "1.jpg"] if dice.random() < 0.5 else ["gone.jpg"]
    return at


def one_side(rows: Rows, _at: int, _dice: random.Random) -> int:
    """All ratings are the same."""
    for row in rows:
        row["tag"] = True
    return -1


SECRETS = (
    "hf_" + "aZ3kQ9xLmN7pR2tVwY5b",
    "sk-" + "proj4f9A8b7C6d5E4f3G2h1",
    "ghp_" + "9aB8cD7eF6gH5iJ4kL3mN2oP1qR0sT5uVwXy",
    "AKIA" + "Q3EGXR7ZP2LMNO4T",
)
MARKS = ("<|im_end|>", "<|im_start|>user\n")
ACCENTS = ("café – it’s", "naïve “quote”", "中文", "한국어", "Größe")
FAULTS: dict[str, tuple[str, set[str], Callable[[Rows, int, random.Random], int]]] = {
    "empty answer": ("sft", {"empty_answer"}, change_answer(lambda _old, dice: dice.choice(("", " ", "\n")))),
    "missing answer": ("sft", {"no_answer", "turn_count"}, one_turn_less),
    "number as answer": ("sft", {"mixed_types", "not_text"}, change_answer(lambda _old, dice: dice.randint(0, 9))),
    "broken line": ("sft", {"broken_json", "csv_fields"}, lambda _rows, at, _dice: at),
    "duplicate": ("sft", {"duplicate"}, copied(lambda _row, _dice: None)),
    "near duplicate": ("sft", {"near_duplicate"}, near_copy),
    "contradiction (sft)": ("sft", {"several_answers", "contradiction"}, copied(_other_answer)),
    "contradiction (kto, dpo)": ("kto|dpo", {"contradiction"}, copied(_other_answer)),
    "train sample in eval": ("eval", {"overlap"}, lambda _rows, at, _dice: at),
    "equal pair": ("dpo", {"same_pair"}, equal_pair),
    "one-sided kto": ("kto", {"kto_one_sided"}, one_side),
    "mojibake": ("sft", {"mojibake"}, change_answer(lambda old, dice: f"{old} {dice.choice(ACCENTS).encode().decode('latin-1')}")),
    "control character": ("sft", {"control_chars"}, change_answer(lambda old, dice: old[:5] + dice.choice("\0\x08\x1b\x02") + old[5:])),
    "special token": ("sft", {"special_tokens"}, change_answer(lambda old, dice: f"{old}{dice.choice(MARKS)}ok")),
    "secret": ("sft", {"secret"}, change_answer(lambda old, dice: f"{old} {dice.choice(SECRETS)}")),
    "wrong roles": ("sft", {"role_order"}, wrong_roles),
    "wrong media": ("media", {"media_count", "media_missing"}, wrong_media),
}  # fmt: skip
"""Name -> stage, kinds that count as found, and the fault: it changes the rows and returns the index of the row to be named (-1: none)."""


def write(path: Path, rows: Rows, broken: set[int]) -> list[int]:
    """Write the rows; the line on which each begins, from 1. Rows in `broken` are damaged."""
    if path.suffix == ".csv":
        return _write_csv(path, rows, broken)
    lines, out, line = [], "" if path.suffix == ".jsonl" else "[\n", 1 if path.suffix == ".jsonl" else 2
    for number, row in enumerate(rows):
        data = json.dumps(row, ensure_ascii=number % 2 == 0, indent=None if path.suffix == ".jsonl" else 1 + number % 3)
        if number in broken:
            data = data[:-3].rstrip() + " }" if path.suffix == ".json" else data[: len(data) // 2]
        lines.append(line)
        out += data + ("\n" if path.suffix == ".jsonl" else ",\n" if number + 1 < len(rows) else "\n")
        line += data.count("\n") + 1
    path.write_text(out + ("" if path.suffix == ".jsonl" else "]\n"), encoding="utf-8")
    return lines


def _write_csv(path: Path, rows: Rows, broken: set[int]) -> list[int]:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0])
    lines = []
    for number, row in enumerate(rows):
        lines.append(out.getvalue().count("\n") + 1)
        writer.writerow([*row.values(), *(["too", "many"] if number in broken else [])])
    path.write_text(out.getvalue(), encoding="utf-8")
    return lines


def case(one: Set, name: str, folder: Path) -> tuple[dict[str, Any], list[int], set[str], list[int]]:
    """Write the case; returns the configuration, the lines to be named, the kinds that count, and the line on which each row begins."""
    stage, kinds, fault = FAULTS[name] if name else ("sft", set(), lambda _rows, at, _dice: at)
    dice = random.Random(f"{one.seed} {name}")
    stage = dice.choice(stage.split("|"))
    rows = make(one, stage)
    chosen = sorted(dice.sample(range(2, len(rows) - 2), 1 if name == "broken line" else dice.randint(1, 3))) if name else []
    evaluated = [json.loads(json.dumps(rows[at])) for at in chosen] if stage == "eval" else []
    named = [fault(rows, at, dice) for at in chosen]
    lines = write(folder / f"set.{one.ending}", rows, set(chosen) if name == "broken line" else set())
    config: dict[str, Any] = {
        "stage": stage if stage in ("dpo", "kto") else "sft",
        "template": "qwen2_vl" if stage == "media" else "qwen",
        "dataset": "set",
    }
    info = {"set": _entry(one, stage, f"set.{one.ending}")}
    if stage == "eval":
        others = make(one._replace(seed=one.seed + 5000), "sft")[:20]
        named = [dice.randrange(20) + shift for shift, _ in enumerate(chosen)]
        for at, row in zip(named, evaluated, strict=True):
            others.insert(at, row)
        named = [others.index(row) for row in evaluated]
        lines = write(folder / f"eval.{one.ending}", others, set())
        config["eval_dataset"], info["held"] = "held", _entry(one, stage, f"eval.{one.ending}")
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return config, [lines[at] for at in named if at >= 0], kinds, lines


def _entry(one: Set, stage: str, file: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"file_name": file, "formatting": one.form, "ranking": stage == "dpo"}
    columns = {"prompt": "instruction", "query": "input"} if one.form == "alpaca" else {"messages": "conversations"}
    if one.form == "alpaca" and stage != "dpo":
        columns["response"] = "output"
    extra = {"dpo": ("chosen", "rejected"), "kto": ("tag",), "media": ("images",)}.get(stage, ())
    columns |= {"kto_tag" if name == "tag" else name: name for name in extra}
    tags = {"tags": TAGS} if one.form == "openai" else {}
    return {**entry, "columns": columns, **tags}


def fits(one: Set, name: str) -> bool:
    """Whether the set's form can have the fault."""
    stage = FAULTS[name][0]
    if one.ending == "csv" and ((stage != "sft" and stage != "eval") or name == "number as answer"):
        return False
    return one.form != "alpaca" if name == "wrong roles" else True


def found(one: Set, name: str, verbose: bool) -> tuple[bool, list[str]]:
    """Whether every row of the case is named with a right kind; and the kinds above a note that do not belong to the fault."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        folder.mkdir()
        (folder / "1.jpg").write_bytes(b"\xff\xd8")
        config, wanted, kinds, lines = case(one, name, folder)
        report = inspect(config, Path(place), Look())
    named = {
        (place.file.rsplit("/")[-1].split(".")[0], place.line)
        for finding in report.findings
        if finding.kind in kinds
        for place in finding.places
    }
    file = "eval" if name == "train sample in eval" else "set"
    if name == "broken line":  # an error inside an element is named on its own line
        ends = [next((after for after in lines if after > line), line + 40) for line in wanted]
        placed = [any(where == file and line <= at < end for where, at in named) for line, end in zip(wanted, ends, strict=True)]
    else:
        placed = [(file, line) in named for line in wanted]
    ok = all(placed) and any(finding.kind in kinds for finding in report.findings) if name else True
    others = [finding.kind for finding in report.findings if finding.severity != "note" and finding.kind not in kinds]
    if verbose and (not ok or (others and not name)):
        print(f"  set {one.seed} ({one.form} {one.ending} {one.lang}) {name}: wanted {wanted}, got {sorted(named)}; others {others}")
    return ok, others


def sets(count: int, first: int) -> list[Set]:
    """The sets, by their seeds."""
    out = []
    for seed in range(first, first + count):
        dice = random.Random(seed)
        form = dice.choice(("alpaca", "sharegpt", "openai"))
        ending = dice.choice(("json", "jsonl", "csv") if form == "alpaca" else ("json", "jsonl"))
        out.append(Set(seed, form, ending, dice.choice(tuple(WORDS)), dice.randint(60, 240)))
    return out


def main() -> None:
    """Print found / cases by kind and in all, and the false alarms on sound sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=101)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    chosen = sets(given.sets, given.first_seed)
    good = total = 0
    for name in FAULTS:
        results = [found(one, name, given.verbose)[0] for one in chosen if fits(one, name)]
        good, total = good + sum(results), total + len(results)
        print(f"{name:26} {sum(results):3} of {len(results)}")
    alarms = [kind for one in chosen for kind in found(one, "", given.verbose)[1]]
    print(f"{'all':26} {good:3} of {total} ({good / total:.1%}); false alarms on {len(chosen)} sound sets: {len(alarms)}")


if __name__ == "__main__":
    main()
