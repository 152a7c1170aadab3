"""The pages in Korean and Chinese stay in step with the English ones: same commands and code, same parts, links both ways."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, blocks, without_blocks

PAIRS = [
    ("README.md", "README.ko.md", "ko"),
    ("README.md", "README.zh.md", "zh"),
    *((f"docs/{page.name}", f"docs/ko/{page.name}", "ko") for page in sorted((ROOT / "docs" / "ko").glob("*.md"))),
]
LETTERS = {"ko": "[가-힣]", "zh": "[一-鿿]"}
pages = pytest.mark.parametrize(("english", "other", "lang"), PAIRS, ids=[other for _, other, _ in PAIRS])


def code(block: Block) -> tuple[str, str | None, list[str]]:
    """A block without its comments, which are translated."""
    return block.language, block.why, [re.split(r"\s+# |^# ", line)[0].rstrip() for line in block.text.splitlines()]


def test_the_main_pages_are_there() -> None:
    """README in Korean and Chinese; quick start, recipes and the live page in Korean."""
    assert {other for _, other, _ in PAIRS} >= {
        "README.ko.md",
        "README.zh.md",
        *(f"docs/ko/{name}.md" for name in ("index", "recipes", "live")),
    }


@pages
def test_the_blocks_are_the_same(english: str, other: str, lang: str) -> None:
    """Command by command, with the same marks of what is not run; the README's example is in the page's language."""
    ours, theirs = blocks(ROOT / english), blocks(ROOT / other)
    first = 1 if english == "README.md" else 0
    assert [code(block) for block in theirs[first:]] == [code(block) for block in ours[first:]]
    assert len(ours) >= 4 or english == "docs/accuracy.md"  # tables only


@pytest.mark.parametrize("lang", ["ko", "zh"])
def test_the_readmes_example_is_what_the_program_prints(
    lang: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the English README, without the line that counts the rules."""
    from doctor.cli.main import main

    monkeypatch.chdir(ROOT)
    demo = (ROOT / "fixtures" / "DEMO").read_text(encoding="utf-8").strip()
    assert main(["analyze", f"fixtures/{demo}", "--fail-on", "never", "--lang", lang]) == 0
    printed = capsys.readouterr().out
    assert blocks(ROOT / f"README.{lang}.md")[0].text == printed.rpartition("\n\n")[0] + "\n"
    text = (ROOT / f"README.{lang}.md").read_text(encoding="utf-8")
    assert [float(gib) for gib in re.findall(r"(\d+) GiB", text.partition("```")[0])] == [46, 19]


@pages
def test_the_parts_are_the_same(english: str, other: str, lang: str) -> None:
    """As many headings of each level; every command, option, extra and file that the English tables name is in the other's."""
    texts = [without_blocks(ROOT / name) for name in (english, other)]
    whole = other != "docs/ko/live.md"  # the English page goes into details that the other leaves to it
    if whole:
        levels = [re.findall(r"^(#+) ", text, re.MULTILINE) for text in texts]
        assert levels[0] == levels[1]
    first_cells = [re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for text in texts]
    names = [[re.findall(r"`([^`]+)`", cell) for cell in cells] for cells in first_cells]
    assert names[1] == (names[0] if whole else names[0][: len(names[1])])
    assert whole or len(names[1]) >= 10


@pages
def test_it_is_translated_and_linked(english: str, other: str, lang: str) -> None:
    """No paragraph is left in English, every local link leads somewhere, and each page names the other."""
    text = without_blocks(ROOT / other)
    paragraphs = [
        part
        for part in re.split(r"\n\n|\n(?=- |\| )", text)
        if len(re.findall("[a-z]", re.sub(r"`[^`]*`|\(.*?\)|https?\S+", "", part))) > 60
    ]
    assert [part for part in paragraphs if not re.search(LETTERS[lang], part)] == []
    for name, target in ((english, other), (other, english)):
        links = re.findall(r"\]\(([^)#\s]+)\)", (ROOT / name).read_text(encoding="utf-8"))
        found = {((ROOT / name).parent / link).resolve() for link in links if "://" not in link}
        assert (ROOT / target).resolve() in found
        assert [path for path in found if not path.exists()] == []


def test_links_stay_inside_the_checkout() -> None:
    """A link of a page in a folder of its own goes up as far as it must."""
    for _, other, _ in PAIRS:
        for link in re.findall(r"\]\(((?:\.\./)+[^)#\s]+)\)", (ROOT / other).read_text(encoding="utf-8")):
            assert ((ROOT / other).parent / link).resolve().is_relative_to(Path(ROOT).resolve())
