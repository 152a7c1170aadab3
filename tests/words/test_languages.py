"""Every text is there in every language, in its script, with the same facts in the same form."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from doctor.support.languages import LANGUAGES
from doctor.support.package_files import rules_folder
from doctor.support.texts import Text
from doctor.words import catalogue, planner_reasons

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


@pytest.mark.parametrize("file", FILES)
def test_a_rule_file_says_the_same_in_every_language(file: str) -> None:
    """Rules, shared remedies, the guide and the known failures."""
    texts = list(said(yaml.load((rules_folder() / file).read_text(encoding="utf-8"), yaml.CSafeLoader)))
    assert texts or file in ("lists.yaml", "models.yaml", "options.yaml", "options_newer.yaml", "synonyms.yaml")
    for text in texts:
        check(text, LANGUAGES)


def test_each_language_has_its_words_and_its_field() -> None:
    """One constant rules: a file of fixed words and a field of every text for each of its names, and for no other."""
    assert {path.stem for path in Path(catalogue.__file__).parent.glob("*.yaml")} == set(LANGUAGES)
    assert {field.name for field in msgspec.structs.fields(Text)} == set(LANGUAGES)


@pytest.mark.parametrize("lang", LANGUAGES[1:])
def test_all_fixed_words_are_there(lang: str) -> None:
    """Under every name a sentence with the English one's placeholders."""
    en, other = (msgspec.to_builtins(catalogue.load(one)) for one in ("en", lang))
    for group in (name for name in en if name != "lang"):
        assert en[group].keys() == other[group].keys()
        for name, text in en[group].items():
            assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", other[group][name])), name


def given_reasons() -> Iterator[Text]:
    """Every reason of the planner, those that need values with some."""
    samples = {"str": "<given>", "int": 37, "float": 1.5, "Text": Text("wall", "벽", "墙"), "Sequence[Text]": [Text("wall", "벽", "墙")]}
    for name, value in vars(planner_reasons).items():
        if isinstance(value, Text) and name != "EMPTY":
            yield value
        elif inspect.isfunction(value) and value.__module__ == planner_reasons.__name__:
            yield value(*(samples[str(one.annotation)] for one in inspect.signature(value).parameters.values()))


def test_the_planners_reasons_are_told_in_every_language() -> None:
    """Each is in its own script, and what is put in stands in all."""
    texts = [msgspec.to_builtins(text) for text in given_reasons()]
    assert len(texts) > 25
    for text in texts:
        check(text)
        assert re.findall(r"<given>|37|1\.5", text["en"]) == re.findall(r"<given>|37|1\.5", text["zh"]), text


def test_scans_and_comparisons_speak_every_language() -> None:
    """Their words are in each, and every one that a page asks for is there."""
    from doctor.fleet.output import page
    from doctor.words import fleet

    texts = [*fleet.STATES.values(), *fleet.VERDICTS.values(), *fleet.SAY.values()]
    for text in texts:
        check(msgspec.to_builtins(text))
    asked = {name for path in page.TEMPLATES.glob("*.html") for name in re.findall(r'say\("(\w+)"', path.read_text(encoding="utf-8"))}
    assert asked | set(page.COLUMNS) <= fleet.SAY.keys()
