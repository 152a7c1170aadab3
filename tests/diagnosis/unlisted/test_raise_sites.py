"""What benchmarks/raise_sites.py finds in a source: the forms in which libraries raise, each with the message that Python would print."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from raise_sites import parts, sites


def found(source: str) -> list[tuple[str, str, str]]:
    """Function, exception and template (with `{}`) of every site, in order."""
    return [
        (site.function, site.exception, "".join("{}" if piece is None else piece for piece in site.pieces))
        for site in sites(dedent(source).encode()) or []
    ]


@pytest.mark.parametrize(
    ("raised", "exception", "template"),
    [
        ('raise ValueError("a fixed text")', "ValueError", "a fixed text"),
        ('raise ValueError(f"no {name!r} in {a.b:>3}")', "ValueError", "no {} in {}"),
        ('raise OSError("no %s in %-5.2f, 100%%" % (a, b))', "OSError", "no {} in {}, 100%"),
        ('raise OSError("no {} in {0.x!r:>3}, {{}}".format(a, b))', "OSError", "no {} in {}, {}"),
        ('raise KeyError("one " "two " + str(n) + " three")', "KeyError", "one two {} three"),
        ('raise lib.errors.BadError("of a library")', "BadError", "of a library"),
        ('assert x > 0, f"{x} is not positive"', "AssertionError", "{} is not positive"),
        ('assert x > 0, ("in", "a tuple")', "AssertionError", "{}"),
        ('torch._check(x > 0, lambda: f"x is {x}")', "RuntimeError", "x is {}"),
        ('raise ValueError(" ".join(["one", "two"]))', "ValueError", "one two"),
        ('raise ValueError(textwrap.dedent("""over\\ntwo lines"""))', "ValueError", "over\ntwo lines"),
        ('raise HubError("refused", response=r, code=4)', "HubError", "refused"),
        ('raise OSError(2, "missing", path)', "OSError", "{}missing{}"),
        ('self._throw(RuntimeError, "thrown by a helper")', "RuntimeError", "thrown by a helper"),
    ],
)
def test_forms_of_raising(raised: str, exception: str, template: str) -> None:
    """One statement, one site, one template."""
    assert ("load", exception, template) in found(f"def load():\n    {raised}\n")


def test_a_message_built_before_it_is_raised() -> None:
    """The texts assigned to the variable, and unknown text after them where more is appended."""
    source = """
        def load(path):
            message = f"cannot read {path}."
            if hint:
                message += " Try again."
            raise OSError(message)
    """
    assert found(source) == [("load", "OSError", "cannot read {}.{}")]


def test_a_message_that_is_built_from_itself() -> None:
    """What a variable held before is unknown inside its own assignment."""
    source = """
        def load(path):
            text = f"cannot read {path}"
            text = text + " at all"
            raise OSError(text)
    """
    assert ("load", "OSError", "{} at all") in found(source)
    assert not any("at all at all" in template for _, _, template in found(source))


def test_alternatives_are_templates_of_their_own() -> None:
    """`a if x else b` and a variable with two texts."""
    source = """
        def load(x):
            text = "first text"
            if x:
                text = "second text"
            raise ValueError(text + (" up" if x else " down"))
    """
    assert sorted(template for _, _, template in found(source)) == [
        "first text down",
        "first text up",
        "second text down",
        "second text up",
    ]


def test_names_of_functions_have_their_classes() -> None:
    """Methods, nested functions, and code of the module itself."""
    source = """
        raise ImportError("at the top")
        class Trainer:
            def train(self):
                def step():
                    raise ValueError("inside")
                try:
                    pass
                except OSError:
                    raise RuntimeError("handled")
    """
    assert found(source) == [
        ("", "ImportError", "at the top"),
        ("Trainer.train.step", "ValueError", "inside"),
        ("Trainer.train", "RuntimeError", "handled"),
    ]


def test_texts_that_are_raised_elsewhere() -> None:
    """Constants named as messages, texts of exception classes, and exceptions that a helper returns."""
    source = """
        TORCH_IMPORT_ERROR = "{0} requires torch: pip install torch"
        class TooLong(ValueError):
            def __init__(self, n):
                super().__init__(f"{n} is too long")
        def failure(name):
            return KeyError(f"no {name}")
    """
    assert found(source) == [
        ("", "", "{} requires torch: pip install torch"),
        ("TooLong", "TooLong", "{} is too long"),
        ("failure", "KeyError", "no {}"),
    ]


def test_raising_again_has_no_message_of_its_own() -> None:
    """`raise`, `raise error` and `raise ValueError` say nothing that could be found again."""
    assert found("def f():\n    raise\n    raise error\n    raise ValueError\n    raise ValueError()\n") == []


def test_a_broken_source_has_no_sites() -> None:
    """None tells the caller to parse the whole file."""
    assert sites(b"def f(:\n") is None


def test_the_parts_of_a_file_have_all_its_sites() -> None:
    """Methods, functions and constants are cut out without losing classes or constants that they name."""
    source = dedent('''
        """Raises nothing: raise ValueError("in a docstring") is text."""
        HINT = "see the docs"
        class Loader(Base):
            """Docs."""
            size = 3

            def quiet(self):
                return 1

            @property
            def loud(self):
                raise ValueError(f"loud: {HINT}")

        def helper():
            raise OSError("helper")
    ''').encode()
    whole = set(sites(source) or [])
    assert {site.function for site in whole} == {"Loader.loud", "helper"}
    assert {site for part in parts(source) for site in sites(part) or []} == whole
    assert not any(b"quiet" in part for part in parts(source))
