"""Promises of the reporters that hold for any report, whatever a log held."""

from __future__ import annotations

import html
import json
import math
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from doctor.config.patch import Change, Patch
from doctor.core.events import Where
from doctor.planner.plan import Plan, PlannedPatch
from doctor.report.model import Report, SeriesView
from doctor.reporters.advice import next_commands
from doctor.reporters.base import Screen, sparkline
from doctor.reporters.json import parse
from doctor.reporters.registry import REPORTERS
from doctor.rulebook.model import Rulebook
from doctor.support.languages import LANGUAGES
from doctor.words.catalogue import load
from tests.reporters import samples
from tests.reporters.samples import judged, rule, run_of, steps_of

TOLD = rule("data/told", "The log says {what}", "로그: {what}")
HOSTILE = st.text(max_size=60) | st.sampled_from(
    [
        "```\n</details>\n# gotcha",
        "\x1b[2J\x1b]0;title\x07",
        "[bold red]x[/]",
        "a|b\n|c",
        "@everyone #1",
        "가나다" * 30,
        "显存，（不足）" * 20,
        "<img src=x>",
        "\u202eevil",
        "`",
    ]
)


def told(what: str, lang: str = "en") -> Report:
    change = Change("env", "set", "KEY", None, what)
    planned = PlannedPatch(patch=Patch((change,)), source=what, yaml=None, diff=f" {what}\n", overrides=(what,), command=what)
    found = [judged(TOLD, "root", what or "-", Where(what or "log", 3), facts={"what": what, "metric": "loss"}, steps=(10, 30))]
    run = run_of(*steps_of([1.0, math.nan, math.inf, 2.0]))
    return samples.written(found, Plan(((),), planned), run, Rulebook((TOLD,)), lang, path=what, problems=[what])


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@given(HOSTILE, st.sampled_from(LANGUAGES), st.booleans(), st.sampled_from([40, 80, 120]))
@settings(max_examples=60, deadline=None)
def test_terminal_report_keeps_to_its_columns_and_cannot_be_steered(what: str, lang: str, unicode: bool, width: int) -> None:
    """No line is wider than the screen, no control character and no markup of the log takes effect."""
    report = told(what, lang)
    text = REPORTERS["terminal"](report, Screen(width=width, unicode=unicode))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    commands = {" ".join(line.split("\n")).strip() for line in (*next_commands(report), *(report.patch.overrides if report.patch else ()))}
    assert all(cell_len(line) <= width for line in text.split("\n") if line.strip() not in commands)


def test_a_command_is_one_line_on_any_screen_and_in_markdown() -> None:
    """What is pasted runs as it was meant: no line break inside a command, however narrow the terminal."""
    command = (
        "FORCE_TORCHRUN=1 llamafactory-cli train "
        + "a-long-folder-name/" * 12
        + "train-patched.yaml learning_rate=1e-4 output_dir=saves/x-fix1"
    )
    report = samples.oom()
    report = msgspec.structs.replace(report, patch=msgspec.structs.replace(report.patch, command=command, packages=["bitsandbytes"]))
    for text in (REPORTERS["terminal"](report, Screen(width=48)), REPORTERS["markdown"](report)):
        lines = [line.strip() for line in text.split("\n")]
        assert command in lines
        assert lines.index("pip install bitsandbytes") < lines.index(command)


@given(HOSTILE)
@settings(max_examples=60, deadline=None)
def test_markdown_stays_in_its_fences(what: str) -> None:
    """Outside code there is no raw HTML but our own, no live mention; every fence that opens closes."""
    text = REPORTERS["markdown"](told(what))
    outside, fence = [], ""
    for line in text.split("\n"):
        marks = re.match(r"`{3,}", line)
        if fence:
            fence = "" if line == fence else fence
        elif marks:
            fence = marks[0]
        else:
            outside.append(re.sub(r"(`+) ?.*?[^`] ?\1(?!`)", "", line))
    assert fence == ""
    rest = re.sub(r"</?(?:details|summary|sub)>|<br>|<!-- -->", " ", "\n".join(outside))
    assert not re.search(r"(?<!\\)<\w", rest)
    assert not re.search(r"@\w", rest)


@given(HOSTILE)
@settings(max_examples=60, deadline=None)
def test_json_report_is_valid_whatever_the_log_held(what: str) -> None:
    """Strict JSON without NaN, equal to the report after reading it back."""
    made = told(what)
    text = REPORTERS["json"](made)
    strict(text)
    assert REPORTERS["json"](parse(text)) == text


def test_json_report_has_the_keys_of_format_1() -> None:
    """Programs rely on these names; more may be added, none may go."""
    data = strict(REPORTERS["json"](samples.oom()))
    finding = data["findings"][0]
    assert data.keys() >= {"format", "tool", "healthy", "cause", "run", "findings", "patch", "could_not_look"}
    assert data["run"].keys() >= {
        "path",
        "framework",
        "version",
        "stage",
        "finetuning_type",
        "model",
        "world_size",
        "status",
        "steps",
        "sources",
    }
    assert data["run"]["sources"][0].keys() >= {"path", "kind", "bytes", "records", "problems"}
    assert data["run"]["steps"].keys() == {"first", "last", "planned"}
    assert finding.keys() >= {
        "rule", "cause", "symptom", "family", "severity", "role", "confidence", "title", "text", "steps", "ranks", "explained_by",
        "evidence", "remedies", "similar",
    }  # fmt: skip
    assert finding["evidence"][0].keys() >= {"source", "line", "step", "text"}
    assert finding["remedies"][0].keys() >= {"id", "guide", "status", "reason", "text", "cost", "effect", "changes"}
    assert finding["remedies"][0]["guide"].keys() >= {"section", "step"}
    assert finding["remedies"][2]["changes"][0].keys() == {"target", "op", "key", "old", "new"}
    assert data["patch"].keys() >= {"source", "changes", "diff", "yaml", "predicted"}
    assert data["patch"]["predicted"]["memory_gib"].keys() >= {"before", "after", "low", "high", "capacity"}
    assert data["patch"]["predicted"]["effective_batch"] == [32, 32]
    assert data["could_not_look"][0].keys() == {"rule", "missing"}


def test_a_saved_report_cannot_bring_control_characters_along() -> None:
    """`show` of a report from elsewhere is as safe as one of our own."""
    data = samples.oom().to_dict()
    data["findings"][0]["title"] = "gone\x1b[2J\u202e"
    text = REPORTERS["terminal"](parse(json.dumps(data)))
    assert text.startswith("✗ gone\n")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_remedies_come_in_the_plans_order(lang: str) -> None:
    """A fix before the guide's steps is called direct, one after them extra, and the sentence above says what comes first."""
    words = load(lang)
    made = samples.oom(lang)
    remedies = made.findings[0].remedies
    beyond = [msgspec.structs.replace(one, status="apply") for one in remedies if not one.guide][:1]
    guide = [one for one in remedies if one.guide]
    assert (len(beyond), len(guide)) == (1, 5)
    steps = [f"{words.section['memory']} {number}" for number in range(1, 6)]
    for order, labels, said in (
        ([*guide, *beyond], [*steps, words("beyond")], "guide_order"),
        ([*beyond, *guide], [words("direct"), *steps], "direct_guide_only"),
        ([*beyond, *guide, *beyond], [words("direct"), *steps, words("beyond")], "direct_guide_order"),
        (guide, steps, "guide_only"),
    ):
        root = msgspec.structs.replace(made.findings[0], remedies=order)
        report = msgspec.structs.replace(made, findings=[root, *made.findings[1:]])
        text = REPORTERS["terminal"](report, Screen(detail=1))
        table = text[text.index(words("helps")) :]
        places = [table.index(f"  {label}  ") for label in labels]
        assert places == sorted(places)
        told = words(said, titles=words.section_title["memory"])
        assert "".join(told.split()) in "".join(table.split())
        assert told in html.unescape(REPORTERS["html"](report))
        assert told in REPORTERS["markdown"](report)


def test_a_sparkline_shows_the_spike_above_its_mark() -> None:
    """The highest block stands where the caret is, also after thinning."""
    values = [1.0] * 500
    values[400] = 9.0
    series = SeriesView("loss", list(range(500)), values, [400, 400])
    _, blocks, marks = sparkline(series, 60, load("en"))
    assert len(blocks) == 60
    assert blocks.index("█") == marks.index("^")


@pytest.mark.parametrize("values", [[None, None, None, None], [2.0, 2.0, 2.0, 2.0]])
def test_a_sparkline_of_nothing_or_of_a_constant_is_drawn(values: list[float | None]) -> None:
    """No division by zero, no missing line."""
    series = SeriesView("loss", [1, 2, 3, 4], values, [2, 3])
    assert len(sparkline(series, 60, load("ko"))[1]) == 4
