"""Every text is there in every language, in its script, with the same facts in the same form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from doctor.report import figures
from doctor.support.languages import LANGUAGES
from doctor.support.package_files import rules_folder
from doctor.support.texts import Text
from doctor.words import catalogue

PLACEHOLDER = re.compile(r"(?<!\{)\{[a-z_][\w.]*(?::[^{}]*)?\}(?!\})")
CODE = re.compile(r"`[^`]*`")
HANGUL, HAN = re.compile(r"[가-힣]"), re.compile(r"[\u3400-\u9fff]")
FILES = sorted(path.relative_to(rules_folder()).as_posix() for path in rules_folder().rglob("*.yaml"))


def said(data: Any) -> Iterator[dict[str, str]]:
    """Every text of a rule file: a mapping from languages to sentences."""
    if isinstance(data, dict) and isinstance(data.get("en"), str):
        yield data
    else:
        for part in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
            yield from said(part)


def check(text: dict[str, str], languages: tuple[str, ...] = LANGUAGES) -> None:
    """All languages, the script of each, and in all of them the placeholders (with their formats) and the code of the English."""
    assert set(languages) <= text.keys(), text["en"]
    assert not re.search(f"{HANGUL.pattern}|{HAN.pattern}", text["en"]), text["en"]
    assert HANGUL.search(text["ko"]), text["ko"]
    if "zh" in languages:
        assert HAN.search(text["zh"]), text["zh"]
        assert not HANGUL.search(text["zh"]), text["zh"]
        assert not re.search(r"[\u3400-\u9fff][,;:?!.]", text["zh"]), f"a full-width mark is due: {text['zh']}"
        assert sorted(CODE.findall(text["zh"])) == sorted(CODE.findall(text["en"])), text["zh"]
    for lang in languages:
        assert set(PLACEHOLDER.findall(text[lang])) == set(PLACEHOLDER.findall(text["en"])), text[lang]


WORDLESS = (
    "descriptions.yaml",
    "elsewhere.yaml",
    "torch_stack.yaml",
    "lists.yaml",
    "models.yaml",
    "options.yaml",
    "option_help.yaml",
    "origin_causes.yaml",
    "reliability.yaml",
    "versions.yaml",
)
"""Files of the rules folder without a text for users."""


@pytest.mark.parametrize("file", FILES)
def test_a_rule_file_says_the_same_in_every_language(file: str) -> None:
    """Rules, shared remedies, the guide and the known failures."""
    texts = list(said(yaml.load((rules_folder() / file).read_text(encoding="utf-8"), yaml.CSafeLoader)))
    assert texts or file in WORDLESS
    for text in texts:
        check(text, LANGUAGES)


def test_every_text_has_one_field_per_language() -> None:
    """LANGUAGES is the only list: a text has a field for each of its names, and no other."""
    assert {field.name for field in msgspec.structs.fields(Text)} == set(LANGUAGES)


def catalogue_texts() -> Iterator[tuple[str, dict[str, str]]]:
    """Every text of the catalogue with its full name, read from the YAML files themselves."""
    for path in sorted(Path(catalogue.__file__).parent.glob("*.yaml")):
        data = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
        for name, value in data.items():
            if "en" in value:
                yield f"{path.stem}.{name}", value
            else:
                yield from ((f"{path.stem}.{name}.{key}", text) for key, text in value.items())


EVERY = dict(catalogue_texts())
NEUTRAL = re.compile(
    r"report\.say\.(?:written_by|label|similar_issue|attempt|source|comma|semicolon|gap|at_steps|memory_before|memory_interval)|live\.alert_at_\w+"
)
"""Texts of placeholders and punctuation only: they have no script."""
UNTRANSLATED = {"zh": {"report.say.rank", "report.say.ranks"}}
"""Terms that the language takes from English."""


def test_the_catalogue_is_one_folder_of_yaml() -> None:
    """Each file is in FILES, and the catalogue has not lost its texts."""
    assert {path.stem for path in Path(catalogue.__file__).parent.glob("*.yaml")} == set(catalogue.FILES)
    assert len(EVERY) >= 340


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_text_says_the_same_in_every_language(name: str) -> None:
    """All three languages, each in its script, with the same placeholders."""
    text = EVERY[name]
    assert set(text) == set(LANGUAGES)
    if NEUTRAL.fullmatch(name):
        assert len({frozenset(PLACEHOLDER.findall(text[lang])) for lang in LANGUAGES}) == 1
        return
    written = {lang: text["zh"] if lang == "zh" else text[lang] for lang in LANGUAGES}
    if name in UNTRANSLATED["zh"]:
        assert set(PLACEHOLDER.findall(text["zh"])) == set(PLACEHOLDER.findall(text["en"]))
        del written["zh"]
        check(written, ("en", "ko"))
        return
    check(written)


@pytest.mark.parametrize("name", sorted(EVERY))
def test_korean_particles_after_a_placeholder_are_pairs(name: str) -> None:
    """What is filled in decides the particle: `{value}(으)로`, never `{value}로`; and the guide's terms are used."""
    korean = EVERY[name]["ko"]
    assert not re.search(r"\}(?:을|를|이|가|은|는|과|와|으로|로)(?![가-힣(])(?!\()", korean), korean
    assert not re.search(r"\((?:이|을|은|와)\)(?:가|를|는|과)", korean), korean  # nothing resolves this order
    assert not re.search(r"에폭|유효 배치|카드|그래디언트 어큐뮬레이션", korean), korean


@pytest.mark.parametrize(
    ("before", "after"),
    [("6.563", "6.563으로"), ("2.64", "2.64로"), ("8", "8로"), ("1", "1로"), ("10", "10으로"), ("a_rank", "a_rank(으)로")],
)
def test_the_particle_follows_the_number(before: str, after: str) -> None:
    """Numbers are read by their Korean names: 삼으로, 사로, 팔로, 일로, 영으로; a Latin word keeps both forms."""
    assert after in catalogue.say("planner.batch_changes", "ko", before="3", after=before)


def test_no_text_of_the_old_voice_is_left() -> None:
    """Sentences that a reader stumbled over."""
    old = ("rules looked", "already so", "not here", "What followed", "by hand", "cure", "vain", "beside", "so many", "anew", "a step ")
    for name, text in EVERY.items():
        if not name.startswith("evidence."):
            assert not [phrase for phrase in old if phrase in text["en"]], (name, text["en"])


def test_the_pages_of_scans_ask_only_for_texts_that_exist() -> None:
    """Every name in a template and every column has its text."""
    from doctor.fleet.output import page

    asked = {name for path in page.TEMPLATES.glob("*.html") for name in re.findall(r'say\("(\w+)"', path.read_text(encoding="utf-8"))}
    assert asked | set(page.COLUMNS) <= catalogue.texts("fleet.say").keys()


def test_every_name_in_the_code_is_in_the_catalogue() -> None:
    """`catalogue.text("planner.x")` and `catalogue.say("live.x", ...)` name texts that exist."""
    code = Path(catalogue.__file__).parents[1]
    pattern = re.compile(r"catalogue\.(?:text|say)\(\s*\"([\w.]+)\"")
    asked = {name for path in code.rglob("*.py") for name in pattern.findall(path.read_text(encoding="utf-8"))}
    assert len(asked) > 40
    assert asked <= EVERY.keys()


def test_evidence_made_from_figures_is_translated_and_quotes_are_not() -> None:
    """Every form of evidence.yaml is recognised by its English sentence; a log line stays as it was printed."""
    for name, text in catalogue.texts("evidence").items():
        sentence = PLACEHOLDER.sub("3.5", text.en)
        for lang in ("ko", "zh"):
            assert figures.in_language(sentence, catalogue.load(lang)) == catalogue.say(
                f"evidence.{name}", lang, **dict.fromkeys(re.findall(r"\{(\w+)\}", text.en), "3.5")
            )
        assert figures.in_language(sentence, catalogue.load("en")) == sentence
    line = "RuntimeError: loss 3 where 2 was usual and more"
    assert figures.in_language(line, catalogue.load("ko")) == line
