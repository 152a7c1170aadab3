"""Each kind of fault is found on its line, with what LLaMA-Factory does; sound data gives nothing; hostile sources give a plain word."""

from __future__ import annotations

import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as some

from doctor.dataset.convert import Sample, Turn
from doctor.dataset.findings import SEVERITY
from doctor.dataset.inspect import Look
from doctor.dataset.text_checks import sound, special_pattern, text_problems
from tests.dataset.sets import QUIET, found, good, lines, put, seen, talk, the

CHAT = {"formatting": "sharegpt"}


def rows(*odd, count: int = 6):
    """Sound rows, then these."""
    return lines(*[good(number) for number in range(count)], *odd)


def test_sound_data_gives_no_finding(tmp_path):
    """Numbers of rows and samples are right."""
    put(tmp_path, "one.jsonl", rows())
    report = seen(tmp_path)
    assert found(report) == {}
    assert [(one.rows, one.used, one.dropped, one.complete) for one in report.datasets] == [(6, 6, 0, True)]


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        ('{"instruction": ', "broken_json"),
        ("[1]", "not_an_object"),
        (good(9, output=4), "mixed_types"),
        (good(9, output=None), "no_answer"),
        (good(9, output=" "), "empty_answer"),
        (good(9, instruction=""), "empty_prompt"),
        (good(3), "duplicate"),
        (good(3, output="It is something else."), "several_answers"),
        (good(9, output="It is a cafÃ© â€“ nice"), "mojibake"),
        (good(9, output="It is \ufffd."), "mojibake"),
        (good(9, output="It is \0."), "control_chars"),
        (good(9, output="9<|im_end|>\n"), "special_tokens"),
        (good(9, output="<p>9</p>"), "html"),
        (good(9, output="I am {{name}}."), "unfilled"),
        (good(9, output="Take hf_" + "aZ3kQ9xLmN7pR2tVwY5b now."), "secret"),
    ],
)
def test_a_fault_is_found_on_its_line(tmp_path, odd, kind):
    """One fault in the seventh line, and no finding beside it."""
    put(tmp_path, "one.jsonl", rows(odd))
    assert found(seen(tmp_path)) == {kind: [7]}


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        (talk(9, "human", "human"), "role_order"),
        (talk(9, "human", "gpt", "human"), "turn_count"),
        ({"conversations": []}, "no_messages"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": None}]}, "not_text"),
    ],
)
def test_a_fault_in_a_conversation_is_found_on_its_line(tmp_path, odd, kind):
    """The same for messages."""
    put(tmp_path, "one.jsonl", lines(*[talk(number) for number in range(6)], odd), **CHAT)
    assert found(seen(tmp_path)) == {kind: [7]}


def test_texts_that_only_look_damaged_are_left_alone(tmp_path):
    """Capitals before guillemets, French and Vietnamese, tabs, form feeds, comparison signs, thoughts and placeholders of media."""
    texts = ("«CAFÉ»", "déjà vu — naïve", "Ấn Độ Â", "a\tb\x0c", "1 < 2 and 3 > 2", "<think>so</think> yes", "É»", "Â 5", "sk-learn")
    put(tmp_path, "one.jsonl", rows(*[good(20 + number, output=text) for number, text in enumerate(texts)]))
    assert found(seen(tmp_path)) == {}


def test_a_secret_is_named_by_its_kind_and_never_shown(tmp_path):
    """Only the prefix is in the report."""
    secret = "hf_" + "aZ3kQ9xLmN7pR2tVwY5b"
    put(tmp_path, "one.jsonl", rows(good(9, output=f"Take {secret}")))
    (place,) = the(seen(tmp_path), "secret").places
    assert place.detail == "hf_***"


def test_a_missing_column_is_one_finding_not_one_for_each_row(tmp_path):
    """LLaMA-Factory stops with a KeyError at the first row."""
    put(tmp_path, "one.jsonl", lines(*[{"question": "a", "answer": "b"}] * 5))
    report = seen(tmp_path)
    assert found(report) == {"column_missing": [0]}
    assert the(report, "column_missing").places[0].detail == "instruction, input, output"


def test_answers_that_are_all_numbers_are_left_out(tmp_path):
    """A column of one type is no mix: every row is dropped, and nothing is left."""
    put(tmp_path, "one.jsonl", lines(*[good(number, output=number) for number in range(4)]))
    assert found(seen(tmp_path)) == {"all_dropped": [0], "answer_not_text": [1, 2, 3, 4]}


def test_the_rarer_type_is_the_odd_one(tmp_path):
    """Also when it comes first."""
    put(tmp_path, "one.jsonl", lines(good(1, output=1), *[good(number) for number in range(2, 6)]))
    assert found(seen(tmp_path)) == {"mixed_types": [1]}


def test_only_the_first_max_samples_rows_are_samples(tmp_path):
    """A null answer after them is never trained; a broken line breaks the file all the same."""
    put(tmp_path, "one.jsonl", rows(good(9, output=None), "{"))
    assert found(seen(tmp_path, max_samples=6)) == {"broken_json": [8]}


def test_train_samples_in_the_evaluation_set(tmp_path):
    """The eval line is named, with the train line as its detail."""
    put(tmp_path, "one.jsonl", rows())
    put(tmp_path, "two.jsonl", lines(good(50), good(4)))
    report = seen(tmp_path, eval_dataset="two")
    assert found(report) == {"overlap": [2]}
    assert the(report, "overlap").places[0].detail == "one.jsonl:5"


def test_pairs_that_are_equal_or_swapped(tmp_path):
    """Equal answers teach nothing; the swapped pair contradicts the first."""
    made = [{"q": f"q{number}", "c": f"good {number}", "r": f"bad {number}"} for number in range(4)]
    put(tmp_path, "one.jsonl", lines(*made, {"q": "x", "c": "same", "r": "same"}, {"q": "q2", "c": "bad 2", "r": "good 2"}),
        ranking=True, columns={"prompt": "q", "chosen": "c", "rejected": "r"})  # fmt: skip
    assert found(seen(tmp_path, stage="dpo")) == {"same_pair": [5], "contradiction": [6]}


def test_ratings_of_one_side_and_opposite_ratings(tmp_path):
    """KTO needs both; the same answer rated good and bad contradicts itself."""
    columns = {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "ok"}
    put(tmp_path, "one.jsonl", lines(*[good(number, ok=True) for number in range(3)]), columns=columns)
    assert found(seen(tmp_path, stage="kto")) == {"kto_one_sided": [0]}
    put(tmp_path, "one.jsonl", lines(*[good(number, ok=True) for number in range(3)], good(1, ok=False)), columns=columns)
    assert found(seen(tmp_path, stage="kto")) == {"contradiction": [4]}


def test_media_that_do_not_match(tmp_path):
    """A placeholder too few, a file that is missing, and a template without media."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").write_bytes(b"x")
    columns = {"prompt": "instruction", "query": "input", "response": "output", "images": "images"}
    made = [
        good(1, instruction="<image>one", images=["a.jpg"]),
        good(2, images=["a.jpg"]),
        good(3, instruction="<image>", images=["b.jpg"]),
    ]
    put(tmp_path, "one.jsonl", lines(*made), columns=columns)
    assert found(seen(tmp_path, template="qwen2_vl")) == {"media_count": [2], "media_missing": [3]}
    assert found(seen(tmp_path, template="qwen"))["media_unsupported"] == [1, 2, 3]


def test_samples_that_differ_only_in_their_video_are_no_duplicates(tmp_path):
    """The media belong to the prompt."""
    (tmp_path / "data").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "data" / name).write_bytes(b"x")
    columns = {"prompt": "instruction", "query": "input", "response": "output", "videos": "videos"}
    put(tmp_path, "one.jsonl", lines(*[good(1, instruction="<video>What?", videos=[name]) for name in ("a.mp4", "b.mp4")]), columns=columns)
    assert found(seen(tmp_path, template="qwen2_vl")) == {}


def test_near_duplicates_are_found_where_the_library_is_there(tmp_path):
    """One word of forty differs; other samples are not taken for it."""
    pytest.importorskip("datasketch")
    words = [f"word{number}" for number in range(80)]
    far = [f"other{number}" for number in range(80)]
    made = [good(1, output=" ".join(words)), good(2, output=" ".join(far)), good(1, output=" ".join([*words[:79], "end"]))]
    put(tmp_path, "one.jsonl", lines(*made))
    report = seen(tmp_path, Look(lengths=False))
    assert found(report) == {"several_answers": [3], "near_duplicate": [3]}
    assert (report.near_known, report.near_compared) == (True, 3)


def test_rows_beyond_the_limit_are_not_read_and_that_is_said(tmp_path):
    """`rows: 3` of six."""
    put(tmp_path, "one.jsonl", rows("{"))
    report = seen(tmp_path, Look(rows=3, near=False, lengths=False))
    assert [(one.rows, one.complete) for one in report.datasets] == [(3, False)]
    assert found(report) == {}


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"dataset": "none"}, "undefined"),
        ({"stage": "dpo"}, "no_ranking"),
        ({"dataset": "hub"}, "on_a_hub"),
        ({"dataset": "script"}, "not_a_file"),
        ({"dataset": "gone"}, "missing"),
        ({"dataset": "odd"}, "file_type"),
        ({"dataset": "form"}, "formatting"),
        ({"dataset_dir": "ONLINE"}, "on_a_hub"),
        ({"dataset_dir": "nowhere"}, "no_info"),
    ],
)
def test_a_data_set_that_cannot_be_looked_at_says_why(tmp_path, config, problem):
    """What stops LLaMA-Factory is an error; what is only elsewhere is a note."""
    put(tmp_path, "one.jsonl", rows())
    put(tmp_path, "odd.xlsx", b"x")
    info = json.loads((tmp_path / "data" / "dataset_info.json").read_text())
    info |= {
        "hub": {"hf_hub_url": "a/b"},
        "script": {"script_url": "x"},
        "gone": {"file_name": "gone.json"},
        "form": {"file_name": "one.jsonl", "formatting": "x"},
    }
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info))
    report = seen(tmp_path, **config)
    assert [one.problem for one in report.datasets] == [problem]
    here = problem in ("on_a_hub", "not_a_file")
    assert [finding.severity for finding in report.findings] == ["note" if here else "error"]


@pytest.mark.parametrize("kind", ["pipe", "socket", "loop", "outside", "folder of pipes", "device"])
def test_what_is_no_file_is_not_opened(tmp_path, kind, monkeypatch):
    """A pipe would wait for ever; a link out of the folder to a plain file is read, as LLaMA-Factory reads it."""
    put(tmp_path, "one.jsonl", rows())
    path = tmp_path / "data" / "one.jsonl"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path / "data")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("one.jsonl")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "outside":
        (tmp_path / "elsewhere.jsonl").write_text(rows())
        path.symlink_to(tmp_path / "elsewhere.jsonl")
    else:
        path.mkdir()
        os.mkfifo(path / "a.jsonl")
    expected = {"outside": "", "loop": "missing"}.get(kind, "not_regular")
    assert [one.problem for one in seen(tmp_path).datasets] == [expected]


def test_every_kind_has_a_severity_and_only_one():
    """error, warning or note."""
    from doctor.dataset.findings import ERRORS, NOTES, WARNINGS

    assert len(SEVERITY) == len(ERRORS) + len(WARNINGS) + len(NOTES)


def test_without_near_duplicates_the_library_is_not_asked(tmp_path):
    """`near=False` compares nothing."""
    put(tmp_path, "one.jsonl", rows())
    assert seen(tmp_path, QUIET).near_compared == 0


DAMAGE = some.sampled_from(
    ("Ã©", "â€™", "\ufffd", "\x07", "\x7f", "<br>", "&amp;", "{{name}}", "<|im_end|>", "hf_" + "a" * 30, "-----BEGIN RSA PRIVATE KEY-----",
     "모델",
     "é", "<image>", "word", " ", "\n", "\ud800", "1.5")
)  # fmt: skip


@given(some.lists(some.lists(DAMAGE, max_size=4).map("".join), min_size=2, max_size=4))
def test_a_text_that_is_passed_over_holds_no_problem(contents):
    """What the quick look calls sound, the careful one does too; and what holds a placeholder is never passed over."""
    special = special_pattern({"<|im_end|>"})
    turns = [Turn("user", content) for content in contents]
    made = Sample(turns[:-1], turns[-1:], system=contents[0])
    if sound(made, special):
        assert list(text_problems(made, special)) == []
        assert not any("<image>" in content for content in contents)


def test_plain_texts_are_passed_over():
    """Words, numbers, line ends, Korean and Chinese; not an accent, behind which damage may stand."""
    assert sound(Sample([Turn("user", "Say 1.5 times.\n\t모델 学习")], [Turn("assistant", "a" * 19)]), None)
    assert not sound(Sample([Turn("user", "café")], []), None)
    assert not sound(Sample([Turn("user", "a" * 20)], []), None)
