"""The accuracy page and its record: intervals, what an entry must hold, how a score is added, what the page says of both."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import accuracy
import accuracy_measured
import accuracy_page
import accuracy_record
import judge_threads
from accuracy_measured import Share

ROOT = Path(__file__).parents[2]

ABOUT = {
    "section": "cause",
    "date": "2026-12-01",
    "blind": True,
    "title": {"en": "Threads of December", "ko": "12월의 스레드"},
    "material": {"en": "40 public threads.", "ko": "공개 스레드 40개."},
    "misses": [{"kind": "platforms", "count": 4, "of": 11, "state": "open"}],
}
SCORE = {"script": "benchmarks/judge_threads.py", "commit": "abc1234", "parts": {"all": {"of": 40, "right": 30, "unknown": 6, "wrong": 4}}}


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(0, 10, 0.0, 27.8), (10, 10, 72.2, 100.0), (5, 10, 23.7, 76.3), (81, 263, 25.5, 36.6), (1, 29, 0.6, 17.2)],
)
def test_the_interval_is_wilsons(count: int, of: int, low: float, high: float) -> None:
    """81 of 263 and 1 of 29 are the examples of Newcombe (Stat. Med. 17, 1998, table I, method 3); no interval of nothing."""
    assert accuracy_record.wilson(count, of) == (pytest.approx(low, abs=0.06), pytest.approx(high, abs=0.06))
    with pytest.raises(ValueError, match="no cases"):
        accuracy_record.wilson(0, 0)


@pytest.fixture
def added(tmp_path: Path) -> Path:
    """A record with the first run of one collection, added from the command line."""
    (tmp_path / "about.yaml").write_text(yaml.safe_dump(ABOUT, allow_unicode=True), encoding="utf-8")
    (tmp_path / "record.yaml").write_text("# A comment that stays.\n", encoding="utf-8")
    assert record(tmp_path, SCORE, "first", "--about", str(tmp_path / "about.yaml")) == 0
    return tmp_path / "record.yaml"


def record(folder: Path, score: object, run: str, *more: str) -> int:
    """`accuracy.py record` on a score."""
    (folder / "score.json").write_text(json.dumps(score), encoding="utf-8")
    return accuracy.main(
        ["record", str(folder / "score.json"), "--id", "december", "--run", run, "--record", str(folder / "record.yaml"), *more]
    )


def test_a_score_becomes_an_entry_and_a_later_run_a_line_of_it(added: Path) -> None:
    """Counts, commit, script and misses are kept; comments and other entries stay; what stands there is not written over."""
    assert record(added.parent, {**SCORE, "parts": {"all": {"of": 40, "right": 34}}}, "tuned") == 0
    text = added.read_text(encoding="utf-8")
    assert text.startswith("# A comment that stays.\n- id: december\n")
    (entry,) = accuracy_record.entries(added)
    assert (entry.commit, entry.script, entry.date, entry.blind) == ("abc1234", "benchmarks/judge_threads.py", "2026-12-01", True)
    assert [(one.run, one.measure, one.count, one.of) for one in entry.figures] == [
        ("first", "right", 30, 40),
        ("first", "unknown", 6, 40),
        ("first", "wrong", 4, 40),
        ("tuned", "right", 34, 40),
    ]
    for run in ("first", "tuned"):
        assert record(added.parent, SCORE, run) == 1
    assert added.read_text(encoding="utf-8") == text


def test_a_first_run_cannot_be_added_afterwards(added: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part that was not in the first run is none of it later, whatever its name."""
    assert record(added.parent, {**SCORE, "parts": {"clusters": {"of": 3, "right": 3}}}, "first") == 1
    assert "december: its first run stands in the record already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"section": "luck"}, "december: no section is called luck"),
        ({"colour": "red"}, r"december: fields unknown \['colour'\]"),
        ({"misses": [{"kind": "bad_mood", "state": "open"}]}, "lacks the miss bad_mood"),
        ({"figures": [{"part": "all", "run": "first", "of": 4, "right": 5}]}, "right of all is 5 of 4"),
        ({"figures": [{"part": "all", "run": "first", "of": None, "right": 5}]}, "right of all is 5 of None"),
        ({"figures": [{"part": "all", "run": "best", "of": 4, "right": 4}]}, "the run is none of"),
        ({"figures": [{"part": "all", "run": "first", "of": 4, "pretty": 4}]}, "pretty"),
    ],
)
def test_an_entry_that_is_not_well_formed_is_refused(change: dict[str, object], said: str) -> None:
    """With the entry's name and what is wrong; without the change it is taken."""
    good = {"id": "december", **ABOUT, "script": None, "figures": [{"part": "all", "run": "first", "of": 4, "right": 3}]}
    assert accuracy_record.entry(good, accuracy_record.words()).figures[0].percent == 75.0
    with pytest.raises(accuracy_record.RecordError, match=said):
        accuracy_record.entry({**good, **change}, accuracy_record.words())


ENTRY = {
    "id": "december",
    **ABOUT,
    "script": "benchmarks/judge_threads.py",
    "commit": "abc1234",
    "headline": "right",
    "figures": [
        {"part": "all", "run": "first", "of": 40, "right": 20, "wrong": "9 %"},
        {"part": "all", "run": "later", "of": 40, "right": 24},
        {"part": "all", "run": "tuned", "of": 40, "right": 30},
        {"part": "clusters", "run": "first", "of": None, "right": "85 %"},
    ],
}


def page(lang: str) -> str:
    """The page of one entry and two measured shares."""
    entry = accuracy_record.entry(ENTRY, accuracy_record.words())
    return dict(accuracy_page.pages([entry], [Share("healthy_fixtures", 0, 16), Share("change", 17, 34, "point_x2")]))[lang]


def test_the_page_sets_first_runs_beside_mended_ones() -> None:
    """Counts with their interval, percentages marked as such, the gap from the newest unread version, misses with their count."""
    text = page("en")
    assert "| part | of | what | first run | later version, not mended on it | mended on it | gap |" in text
    assert "| all | 40 | right | 20, 50 % (35-65) | 24, 60 % (45-74) | 30, 75 % (60-86) | +15 |" in text
    assert "| all | 40 | wrong | 9 % (≈3-22) |  |  |  |" in text
    assert "| clusters | ? | right | 85 % |  |  |  |" in text
    assert "| Threads of December | all | 40 | right | 20, 50 % (35-65) | 24, 60 % (45-74) | 30, 75 % (60-86) | +15 |" in text
    assert (
        "(2026-12-01; labelled or graded without seeing the program; script `benchmarks/judge_threads.py`; measured at commit `abc1234`.)"
        in text
    )
    assert "| healthy fixtures: got a warning or error | 0 % | 0 / 16 | 0-19 |" in text
    assert re.search(r"is seen within 30 logs: one log at twice its level \| 50 % \| 17 / 34 \| 34-66 \|", text)
    assert "A third of their failures are not known. | 1 | 4 / 11 | open |" in text


def test_the_korean_page_has_the_same_figures() -> None:
    """Row by row the same numbers, no word of the English tables left."""
    rows = [re.findall(r"^\|.*\d.*$", page(lang), re.MULTILINE) for lang in ("en", "ko")]
    figures = [[re.findall(r"\d+(?:-\d+)?(?: %| /|(?= \|))", row) for row in found] for found in rows]
    assert figures[0] == figures[1]
    assert len(figures[0]) >= 7
    assert [row for row in rows[1] if not re.search("[가-힣]", row)] == []


def test_the_committed_pages_tell_the_whole_record() -> None:
    """What the record says stands on both pages as the script would write it; the measured part is held by `make docs` in CI."""
    entries = accuracy_record.entries()
    assert len(entries) >= 25
    for lang, path in accuracy.PLACES.items():
        written, made = path.read_text(encoding="utf-8"), accuracy_page.Page(lang)
        for part in (made.head(), made.short(entries), made.recorded(entries), made.wrong(entries)):
            assert "\n".join(part) in written, f"run `python benchmarks/accuracy.py page`: {part[0]}"


def test_first_runs_of_unseen_threads_are_not_prettier_than_they_were() -> None:
    """The figures that were told before there was a record, by hand."""
    known = {
        (entry.id, one.part, one.run, one.measure): (one.percent, one.of) for entry in accuracy_record.entries() for one in entry.figures
    }
    assert known["threads-1", "all", "first", "right"] == (75, 220)
    assert known["threads-2", "all", "first", "right"] == (54, 219)
    assert known["threads-2", "words_only", "first", "right"] == (25, 60)
    assert known["threads-3", "all", "first", "wrong"] == (13, 129)
    assert known["advice-1", "half_other", "first", "harmful"] == (pytest.approx(100 * 9 / 43), 43)
    assert known["advice-3", "reader_other", "later", "cures"] == (36, 50)
    assert known["runs-2", "healthy", "first", "alarms"] == (9, 112)
    assert known["simulated", "seed_1", "first", "bad"] == (12.5, 80)
    assert known["secrets", "draw_1", "first", "leaked"] == (pytest.approx(100 * 8 / 419), 419)


def test_what_needs_no_material_is_measured() -> None:
    """A patch with an unknown option or a value that the schema refuses is refused; a sound one is not; an old error is not the patch's."""
    before = "model_name_or_path: m\nstage: sft\ndo_train: true\nfinetuning_type: lora\ndataset: d\ntemplate: qwen\noutput_dir: o\n"
    assert accuracy_measured.accepted(before + "bf16: true\n", before, ROOT)
    assert not accuracy_measured.accepted(before + "no_such_option: 1\n", before, ROOT)
    assert not accuracy_measured.accepted(before.replace("lora", "qlora"), before, ROOT)
    assert accuracy_measured.accepted(before + "no_such_option: 1\nbf16: true\n", before + "no_such_option: 1\n", ROOT)


def test_the_lab_figure_is_the_labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the line that tests/lab/cures.py writes; a page without it is an error, not a figure."""
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(accuracy_measured, "ROOT", tmp_path)
    (tmp_path / "docs" / "cures.md").write_text("# Cures\n\n40 of 47 faults cured.\n", encoding="utf-8")
    assert accuracy_measured.of_lab() == Share("cures", 40, 47)
    (tmp_path / "docs" / "cures.md").write_text("# Cures\n", encoding="utf-8")
    with pytest.raises(ValueError, match="how many faults"):
        accuracy_measured.of_lab()


def texts(folder: Path) -> Path:
    """Labelled texts: named rightly, labelled otherwise, not known, sound, and one that decides nothing."""
    full = (ROOT / "fixtures" / "disk_full-checkpoint" / "console.log").read_text(encoding="utf-8")
    cases = [
        {"id": "right", "cause": "other:no_space", "also_accepted": ["disk_full"], "log": full},
        {"id": "wrong", "cause": "dataset_empty", "log": full},
        {"id": "unknown", "cause": "disk_full", "log": "hello"},
        {"id": "sound", "cause": "healthy", "log": "{'train_runtime': 12.1, 'train_loss': 1.2, 'epoch': 1.0}"},
        {"id": "open", "cause": "disk_full", "log": full, "decidable": False},
    ]
    for case in cases:
        (folder / f"{case['id']}.json").write_text(
            json.dumps({"decidable": True, "config": None, "also_accepted": [], "where": "a", **case})
        )
    return folder


def test_labelled_texts_are_judged(tmp_path: Path) -> None:
    """Each text by its label; the score has the record's form, the whole and by group."""
    judged = [judge_threads.judge(json.loads(path.read_text()), "where") for path in sorted(texts(tmp_path).glob("*.json"))]
    assert {one.id: one.outcome for one in judged} == {
        "open": "undecidable",
        "right": "right",
        "sound": "left_alone",
        "unknown": "unknown",
        "wrong": "wrong",
    }
    score = judge_threads.score(judged, "where")
    assert score["parts"] == {
        "all": {"of": 3, "right": 1, "unknown": 1, "wrong": 1},
        "no_failure": {"of": 1, "got_a_cause": 0},
        "a": {"of": 3, "right": 1, "unknown": 1, "wrong": 1},
    }
    assert score["misses"] == {"wrong": "disk_full"}
