"""Edits of YAML text touch the bytes of their own keys alone, and files are read as LLaMA-Factory reads them."""

from __future__ import annotations

import json
import string

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from doctor.config.yaml_edit import Edit, NotReadable, dump, duplicate_keys, edit, edit_json, load


@pytest.mark.parametrize(
    ("before", "edits", "after"),
    [
        pytest.param("a: 1\nb: 2  # why\n", [Edit("b", 3)], "a: 1\nb: 3  # why\n", id="a comment behind the value stays"),
        pytest.param("a: 1\nb: 2\n", [Edit("c", 5e-5, near=("a",), comment="r")], "a: 1\nc: 5.0e-05  # r\nb: 2\n", id="beside its kin"),
        pytest.param("a: 1\n", [Edit("b", True)], "a: 1\nb: true\n", id="a new key at the end"),
        pytest.param("a: 1", [Edit("b", 2)], "a: 1\nb: 2", id="no newline at the end"),
        pytest.param("a: 1\r\nb: 2\r\n", [Edit("a", 3), Edit("c", 4)], "a: 3\r\nb: 2\r\nc: 4\r\n", id="CRLF"),
        pytest.param("\ufeffa: 1\nb: 2\n", [Edit("a", 3)], "\ufeffa: 3\nb: 2\n", id="BOM"),
        pytest.param("\ufeffa: 1\nb: 2\n", [Edit("a", remove=True)], "\ufeffb: 2\n", id="BOM, first key removed"),
        pytest.param("a:\nb: 2\n", [Edit("a", "x y")], 'a: "x y"\nb: 2\n', id="an empty value"),
        pytest.param("a:  # none\nb: 2\n", [Edit("a", 1)], "a: 1  # none\nb: 2\n", id="an empty value with a comment"),
        pytest.param("a:\n  - 1\n  - 2\n# c\nb: 2\n", [Edit("a", [3])], "a: [3]\n# c\nb: 2\n", id="a block list"),
        pytest.param("a: |\n  x\n  y\n\n# c\nb: 2\n", [Edit("a", "z")], "a: z\n\n# c\nb: 2\n", id="a block text"),
        pytest.param("a: one\n  two\nb: 2\n", [Edit("a", 1)], "a: 1\nb: 2\n", id="a value over two lines"),
        pytest.param("a: &x 5\nb: *x\n", [Edit("b", 3)], "a: &x 5\nb: 3\n", id="an alias"),
        pytest.param("m: &m {lr: 1}\n<<: *m\nz: 1\n", [Edit("lr", 2)], "m: &m {lr: 1}\n<<: *m\nz: 1\nlr: 2\n", id="a merged key"),
        pytest.param("a: 1\nb: 2\na: 3\n", [Edit("a", 9)], "b: 2\na: 9\n", id="a key given twice"),
        pytest.param("a: 1\n# about b\nb: 2  # two\nc: 3\n", [Edit("b", remove=True)], "a: 1\n# about b\nc: 3\n", id="removed"),
        pytest.param('{"a": 1, "b": "x"}', [Edit("a", 2)], '{"a": 2, "b": "x"}', id="flow style"),
        pytest.param("'a': 1\n\"b\": 2\n", [Edit("b", 3)], "'a': 1\n\"b\": 3\n", id="quoted keys"),
        pytest.param("---\na: 1\n...\n", [Edit("b", 2)], "---\na: 1\nb: 2\n...\n", id="document marks"),
        pytest.param("  a: 1\n  b: 2\n", [Edit("c", 3)], "  a: 1\n  b: 2\n  c: 3\n", id="indented"),
        pytest.param("# only a comment\n", [Edit("a", 1)], "# only a comment\na: 1\n", id="no key yet"),
        pytest.param("데이터: 한글 # 주석\nb: 1\n", [Edit("b", "값")], '데이터: 한글 # 주석\nb: "값"\n', id="Korean"),
        pytest.param("a: x.json  # mine\nb: 1\n", [Edit("a", {"k": {"s": 3}})], "a:  # mine\n  k:\n    s: 3\nb: 1\n", id="settings"),
    ],
)
def test_only_the_keys_own_bytes_change(before, edits, after):
    """Comments, order, line ends, marks and styles of all else are as they were."""
    assert edit(before, edits) == after


@pytest.mark.parametrize(
    "text",
    ["a: &x 5\nb: *x\n", "{a: 1, b: 2}", "- 1\n", "a: [1\n", "a: 1\n---\nb: 2\n"],
    ids=["an anchor in use", "new key in flow style", "a list", "broken", "two documents"],
)
def test_what_cannot_be_edited_safely_is_declined(text):
    """None instead of a file that says something else."""
    assert edit(text, [Edit("a", 3), Edit("new", 1)]) is None


def test_an_edit_that_changes_another_value_is_declined():
    """An anchor name used twice: without `b: &x 2` the alias would mean the first one."""
    assert edit("a: &x 1\nb: &x 2\nc: *x\n", [Edit("b", 3)]) is None
    assert edit("a: &x 1\nb: &x 2\nc: *x\n", [Edit("b", remove=True)]) is None


def test_a_value_that_comes_to_light_is_noticed_when_the_result_is_read_back():
    """Without its own `lr` the file would take the merged one, and a renamed alias keeps the value that it had."""
    assert edit("m: &m {lr: 1}\n<<: *m\nlr: 2\n", [Edit("lr", remove=True)]) is None
    assert edit("a: &x 1\nc: *x\n", [Edit("a", "other", new_key="e")]) is None


def test_a_key_is_renamed_where_it_stands():
    """Name and value change; quotes, comments and order stay. A name that is taken, or given twice, is declined."""
    assert edit('"a" : 1  # x\nb: 2\n', [Edit("a", 1, new_key="c")]) == '"c" : 1  # x\nb: 2\n'
    assert edit("a: true  # x\nb: 2\n", [Edit("a", 4, new_key="c")]) == "c: 4  # x\nb: 2\n"
    assert edit("a: [x, y]\n", [Edit("a", "x,y", new_key="c")]) == 'c: "x,y"\n'
    assert edit("a: 1\nb: 2\n", [Edit("a", 1, new_key="b")]) is None
    assert edit("a: 1\na: 2\n", [Edit("a", 2, new_key="b")]) is None
    assert edit_json('{"a": 1,\n "b": 2}\n', [Edit("a", 1, new_key="c")]) == '{\n "c": 1,\n "b": 2\n}\n'


_NAMES = st.text(string.ascii_lowercase + "_", min_size=1, max_size=12).filter(
    lambda name: not isinstance(yaml.safe_load(name), bool | None)
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20),
    st.sampled_from(
        ["yes", "no", "null", "None", "1e-4", "5e-05", "0x1f", "12:30:45", "2024-01-01", "~", "# x", "a: b", "- a", "&a", "*a", "!x"]
    ),
)


@given(_SCALARS)
def test_a_written_value_reads_back_by_both_rules(value):
    """What is written means the same under PyYAML and under OmegaConf's rules, so every version of LLaMA-Factory reads it alike."""
    assert load(f"a: {dump(value)}") == {"a": value}
    assert yaml.safe_load(f"a: {dump(value)}") == {"a": value}


@given(st.dictionaries(_NAMES, _SCALARS, min_size=1, max_size=6), _NAMES, _SCALARS, st.booleans())
def test_an_edit_changes_one_key_of_any_file(values, key, value, remove):
    """For any mapping, in block style with comments, one key changes and every other line stays byte for byte."""
    lines = [f"{dump(name)}: {dump(one)}  # about {name}" for name, one in values.items()]
    out = edit("\n".join(lines) + "\n", [Edit(key, value, remove=remove)])
    assert out is not None
    expected = {**values, key: value} if not remove else {name: one for name, one in values.items() if name != key}
    assert load(out) == expected
    kept = [line for name, line in zip(values, lines, strict=True) if name != key]
    assert [line for line in out.splitlines() if line in kept] == kept


@example(text="?", key="seed")
@given(st.text(max_size=200), _NAMES)
def test_any_text_is_edited_rightly_or_declined(text, key):
    """Whatever the file holds: no exception, and a result that says exactly what was asked."""
    out = edit(text, [Edit(key, 7)])
    if out is not None:
        assert load(out)[key] == 7


def test_numbers_are_read_as_llamafactory_reads_them():
    """OmegaConf's rules: 5e-5 is a number, a date is a text, yes is true, None is a text."""
    text = "a: 5e-5\nb: 2024-01-01\nc: yes\nd: None\ne: 1_000\nf: '5e-5'\n"
    assert load(text) == {"a": 5e-05, "b": "2024-01-01", "c": True, "d": "None", "e": 1000, "f": "5e-5"}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 10)}]\n" for below, name in zip("abcde", "bcdef", strict=True)
)
"""A million values in six lines."""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: [1\n", "line"),
        ("- 1\n", "keys and values"),
        ("a: !!python/object/apply:os.system ['true']\n", "line 1"),
        ("a: &a [*a]\n", "line 1"),
        ("[" * 4000, "line"),
        (BOMB, "100000"),
    ],
    ids=["broken", "a list", "code", "an alias of itself", "deep", "a bomb of aliases"],
)  # fmt: skip
def test_what_is_no_config_is_told_with_its_line(text, told):
    """Hostile and broken files end in one sentence, never in code being run or memory being filled."""
    with pytest.raises(NotReadable, match=told):
        load(text)


def test_keys_given_twice_are_found():
    """LLaMA-Factory 0.9.4 and later refuse them; each is told with its last line."""
    assert duplicate_keys("a: 1\nb: 2\na: 3\n") == {"a": 3}


def test_a_json_config_keeps_its_indentation():
    """JSON is rewritten whole; what is no JSON object is declined."""
    text = '{\n    "a": 1,\n    "b": [1, 2]\n}\n'
    out = edit_json(text, [Edit("a", 2), Edit("c", "한글"), Edit("b", remove=True)])
    assert out == '{\n    "a": 2,\n    "c": "한글"\n}\n'
    assert json.loads(out) == {"a": 2, "c": "한글"}
    assert edit_json("[1]", [Edit("a", 2)]) is None
