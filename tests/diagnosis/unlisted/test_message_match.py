"""A message fits a template if the template's literal pieces stand in it in order; what it may lack is said by the grade."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.diagnosis.unlisted.message_match import MAX_MESSAGE, Fit, fit, normalised, whole_words

LITERAL = st.text(st.sampled_from("abcdefgh ()'`.,:=-<>0123"), min_size=1, max_size=12)
FILLED = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)


def template(text: str) -> str:
    """A template written with `{}` for what is unknown, in the form of the index."""
    return normalised(text.replace("{}", "\1")).replace("\1", "\0")


@pytest.mark.parametrize(
    ("written", "message", "grade"),
    [
        ("Template {} does not exist.", "Template qwen9 does not exist.", "whole"),
        ("Template {} does not exist.", "Template qwen9 does not exist", "whole"),  # a copy without the full stop
        ("no {} in {}", "no model.safetensors in /data/a in b", "whole"),
        ("{} is not a zero checkpoint", "global_step5 is not a zero checkpoint", "whole"),
        ("saved\n\tin {}", "saved in\n  /tmp", "whole"),  # wrapped by the log
        ("Template {} does not exist.", "ray::train() Template qwen9 does not exist. (pid=4)", "part"),
        ("Found {} of them, but needed {}, so nothing was done", "Found 3 of them, but nee", "cut"),
        ("Found {} of them, but needed {}, so nothing was done", "Found 3 of ...", "cut"),
        ("it is twice{}twice", "it is twice", "cut"),  # one piece cannot serve for two
        ("The two strategies must match, but found\n- Evaluation: {}", "The two strategies must match, but found", "cut"),
    ],
)
def test_how_messages_fit(written: str, message: str, grade: str) -> None:
    """Filled in, with more around it, or cut off."""
    found = fit(template(written), normalised(message))
    assert found is not None
    assert found.grade == grade


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("Template {} does not exist.", "Tokenizer qwen9 does not exist."),
        ("no {} in {}", "in /data there is no file"),  # the pieces stand in the other order
        ("exactly this", "exactly that"),
        ("needs a GPU, but {}", "a GPU is what it needs"),
    ],
)
def test_what_does_not_fit(written: str, message: str) -> None:
    """Other words, or the words in another order."""
    assert fit(template(written), normalised(message)) is None


def test_how_much_of_a_cut_template_is_shown() -> None:
    """`abcd ` and ` efg` are 9 of the 12 known characters of `abcd {} efghij`."""
    found = fit(template("abcd {} efghij"), "abcd 1 efg")
    assert found == Fit("cut", 9 / 12)


@given(st.lists(LITERAL, min_size=2, max_size=5), st.lists(FILLED, min_size=5, max_size=5))
def test_a_filled_in_template_fits(pieces: list[str], values: list[str]) -> None:
    """Whatever stands for the unknown parts, the message fits; it can only be more than the template where white space was lost."""
    text = "".join(piece + value for piece, value in zip(pieces, [*values[: len(pieces) - 1], ""], strict=True))
    written = template("{}".join(pieces))
    if not written.replace("\0", "").strip(" .:!"):
        return
    found = fit(written, normalised(f"<{text}>")[1:-1].strip(" ").rstrip(" .:!"))
    assert found is not None
    assert found.share > 0


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_two_texts_can_be_compared(written: str, message: str) -> None:
    """A share lies between 0 and 1, and only a whole template has all of it."""
    found = fit(template(written), normalised(message))
    assert found is None or (0 < found.share <= 1)


def test_a_text_is_cut_before_it_is_compared() -> None:
    """A message of a megabyte costs no more than its first 8,000 characters."""
    assert len(normalised("word " * 200_000)) <= MAX_MESSAGE


def test_words_that_touch_unknown_text_do_not_count() -> None:
    """`{}model` may be printed as `submodel`."""
    assert whole_words(template("{}model of {} files{} and rank")) == ["and", "rank"]
