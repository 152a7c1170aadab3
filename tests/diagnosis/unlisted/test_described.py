"""What a person's words say (rules/descriptions.yaml): the vocabulary, the readings, and when words count at all."""

from __future__ import annotations

from pathlib import Path

import pytest

import doctor
from doctor.diagnosis.unlisted.described import is_told, read
from doctor.report.model import Report
from doctor.rulebook.cause_notes import cause_notes
from doctor.rulebook.descriptions import Reading, descriptions, expression
from doctor.rulebook.exceptions import POSSIBLE
from doctor.support.languages import LANGUAGES

BOOK = descriptions()
EXAMPLES = [pytest.param(name, text, id=f"{name}-{text}") for name, word in BOOK.words.items() for text in word.examples]


def analysed(text: str, folder: Path, config: str | None = None, lang: str = "en") -> Report:
    (folder / "console.log").write_text(text + "\n", encoding="utf-8")
    if config is not None:
        (folder / "train.yaml").write_text(config, encoding="utf-8")
    return doctor.analyze(folder, lang=lang)


@pytest.mark.parametrize(("name", "text"), EXAMPLES)
def test_a_word_is_found_in_its_examples(name: str, text: str) -> None:
    """In each language that it has an example of."""
    assert expression(name).search(text)


@pytest.mark.parametrize("row", [pytest.param(row, id="-".join(row.said)) for row in BOOK.rows])
def test_a_row_reads_its_example(row: Reading) -> None:
    """No earlier row takes it, all its words and causes are known, and its first word is a symptom."""
    found = read([row.example], {})
    assert found is not None
    assert found.reading == row
    assert BOOK.words[row.said[0]].kind == "symptom"
    assert set(row.said) <= BOOK.words.keys()
    assert row.causes
    assert set(row.causes) <= cause_notes().keys()


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("as soon as the validation starts, the card is full: OOM", "gpu_oom_eval_or_predict"),
        ("만약 검증을 켜면 GPU 메모리가 부족해집니다", "gpu_oom_eval_or_predict"),
        ("每次写入checkpoint时进程被杀", "host_ram_oom_checkpoint_save"),
        ("훈련 데이터 전처리에서 멈춰 있습니다", "preprocessing_worker_hang"),
        ("Mixtral with ZeRO-3 is stuck at the first step", "moe_zero3_deadlock"),
        ("两台机器训练时卡住", "distributed_init_hang"),
    ],
)
def test_words_that_no_row_was_written_for(text: str, cause: str) -> None:
    """The same notions in other words, in three languages."""
    found = read([text], {})
    assert found is not None
    assert found.reading.cause == cause


@pytest.mark.parametrize(
    "text",
    [
        "the training runs without any OOM",
        "没有卡住，训练正常",
        "학습이 멈추지 않습니다",
        "loss goes from 2.1 to 0.8, is that normal?",
        "How much memory does DPO need?",
        "请问支持多机训练吗",
        "Detected kernel version 4.18.0, which is below the recommended minimum of 5.5.0; this can cause the process to hang.",
        "how do I merge the adapter after training?",
    ],
)
def test_what_names_no_trouble(text: str) -> None:
    """Denied, asked, or a program's warning of what may happen."""
    assert read([text], {}) is None


def test_a_phase_that_went_well_is_not_the_place() -> None:
    """The phase of the trouble is the other one."""
    found = read(["加载模型没问题，一到评估就OOM"], {})
    assert found is not None
    assert found.found == ("OOM", "评估")


@pytest.mark.parametrize(
    "line",
    ["step 3: loss 1.2, out of memory soon? 12%|█▏ | 3/20 [00:10<01:00, 1.0s/it]", "--deepspeed ds_z3.json", "[INFO|x.py:1] it hangs"],
)
def test_a_program_or_a_command_tells_nothing(line: str) -> None:
    """Bars, options and logged lines are no person's words."""
    assert not is_told(line)


@pytest.mark.parametrize(
    ("text", "cause"), [("OOM again", "gpu_oom_reference_model"), ("OOM during evaluation", "gpu_oom_eval_or_predict")]
)
def test_the_config_gives_the_context_that_the_text_leaves_out(text: str, cause: str) -> None:
    """But not against what the text says itself."""
    found = read([text], {"stage": "dpo"})
    assert found is not None
    assert found.reading.cause == cause


def test_a_broken_off_traceback_gives_the_phase() -> None:
    """The words name the symptom, the frames where it was."""
    found = read(["it runs out of memory:"], {}, ["save"])
    assert found is not None
    assert found.reading.cause == "gpu_oom_checkpoint_save"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_description_is_told_as_possible_and_asks_for_the_output(lang: str, tmp_path: Path) -> None:
    """The words are quoted, the confidence is that of a possibility, and the last step says which file to give."""
    root = analysed("OOM as soon as the evaluation begins", tmp_path, lang=lang).findings[0]
    assert (root.cause, root.confidence, root.rule) == ("gpu_oom_eval_or_predict", POSSIBLE, "memory/described")
    assert '"OOM", "evaluation"' in root.text
    assert ["trainer_log.jsonl" in one.text for one in root.remedies if one.id == "give-output"] == [True]


def test_words_that_fit_several_causes_name_none(tmp_path: Path) -> None:
    """The candidates are shown instead."""
    root = analysed("训练一段时间后卡住，没有任何报错", tmp_path).findings[0]
    assert root.cause is None
    assert [one.cause for one in root.candidates] == ["nccl_timeout_rank_desync", "process_hang"]


def test_words_beside_an_output_without_a_cause(tmp_path: Path) -> None:
    """A traceback that breaks off says less than the person who pasted it; a complete one says more."""
    head = 'PPO 训练爆显存\nTraceback (most recent call last):\n  File "/home/me/train.py", line 14, in <module>\n    main()'
    assert analysed(head, tmp_path).findings[0].cause == "gpu_oom_reference_model"
    assert analysed(head + "\nWeighError: the balance is off", tmp_path).findings[0].rule == "environment/unknown-exception"


def test_a_programs_words_count_only_where_no_program_speaks(tmp_path: Path) -> None:
    """A line of a model's loader is none of a person's; Chinese and Korean are."""
    line = "This is not supported for all models."
    output = "[2024-02-02 01:35:48,326] [INFO] [a.py:161:f] started"
    assert analysed(f"{line}\n{output}", tmp_path).findings == []
    assert analysed(f"磁盘空间不足\n{output}", tmp_path).findings[0].cause == "disk_full"
