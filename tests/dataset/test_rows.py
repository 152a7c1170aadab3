"""Rows come with their lines, whatever the file; hostile files end in one plain row, in bounded time and memory."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from doctor.dataset import json_rows, records, table_rows
from doctor.dataset.records import Row
from doctor.dataset.rows import read_rows
from tests.dataset.sets import good, lines

VALUES = some.dictionaries(
    some.text(max_size=5), some.none() | some.text(max_size=40) | some.lists(some.integers(), max_size=3), max_size=3
)


def read(path: Path, text: str | bytes, kind: str = "json") -> list[Row]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_rows((path,), kind))


def problems(read: list[Row]) -> list[tuple[int, str]]:
    return [(row.line, row.problem) for row in read if row.value is None]


@given(some.lists(VALUES, max_size=8), some.sampled_from([None, 1, 4]), some.booleans(), some.sampled_from([7, 64, 1 << 18]))
def test_an_array_is_read_as_json_reads_it_however_it_is_cut(tmp_path_factory, values, indent, ascii_only, chunk):
    """Values and the line on which each begins, for every indent and every size of the pieces read."""
    path = tmp_path_factory.mktemp("rows") / "a.json"
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    path.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "_CHUNK", chunk)
        got = list(json_rows.read(path))
    assert [row.value for row in got] == values
    if indent == 1 and values:
        starts = [number for number, line in enumerate(text.split("\n"), start=1) if line.startswith(" {")]
        assert [row.line for row in got] == starts


@given(some.lists(VALUES, max_size=8))
def test_lines_are_read_as_json_reads_them(tmp_path_factory, values):
    """One object a line; blank lines count as lines but not as rows."""
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_text("\n\n".join(json.dumps(value) for value in values), encoding="utf-8")
    got = list(json_rows.read(path))
    assert [row.value for row in got] == values
    assert [row.line for row in got] == [1 + 2 * number for number in range(len(values))]


def test_a_broken_line_is_named_and_the_rest_is_read(tmp_path):
    """A cut line, a list, a word and bytes that are no UTF-8: four problems on their lines, the sound rows are there."""
    text = lines(good(1), '{"instruction": "a', good(2), "[1, 2]", "7").encode() + b'{"a": "\xe9"}\n' + lines(good(3)).encode()
    got = read(tmp_path / "a.jsonl", text)
    assert problems(got) == [(2, "broken_json"), (4, "not_an_object"), (5, "not_an_object"), (6, "not_utf8")]
    assert [row.value["output"] for row in got if row.value] == ["It is 1.", "It is 2.", "It is 3."]


def test_a_broken_array_ends_at_the_line_of_the_error(tmp_path):
    """The element before is read; the error is named on its own line."""
    got = read(tmp_path / "a.json", '[\n{"a": "1"},\n{"a": "2"\n "b": 3},\n{"a": "3"}]')
    assert [row.value for row in got] == [{"a": "1"}, None]
    assert problems(got) == [(4, "broken_json")]


@pytest.mark.parametrize("text", ['[{"a": 1}] {"a": 2}', "[]\n{}", '[{"a": 1}', '[{"a": 1},', '[{"a": 1} {"a": 2}]', '[{"a": 1}, {"a"'])
def test_an_array_that_does_not_end_is_broken(tmp_path, text):
    """Cut files are noticed."""
    assert problems(read(tmp_path / "a.json", text))[0][1] == "broken_json"


def test_a_byte_order_mark_is_no_fault(tmp_path):
    """In lines and in arrays."""
    assert read(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + lines(good(1)).encode())[0].value == good(1)
    assert read(tmp_path / "b.json", b"\xef\xbb\xbf[" + json.dumps(good(1)).encode() + b"]")[0].value == good(1)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_deep_nesting_is_a_word_not_a_crash(tmp_path, name):
    """A hundred thousand brackets."""
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert problems(read(tmp_path / name, deep + "\n" if name.endswith("l") else f"[{deep}]")) == [(1, "nested")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_line_that_is_too_long_is_not_held_in_memory(tmp_path, name, monkeypatch):
    """A line of 40 times the limit costs a few times the limit; the lines after it are read where that is possible."""
    monkeypatch.setattr(records, "MAX_ROW_BYTES", 1 << 20)
    path = tmp_path / name
    long = '{"a": "' + "x" * (40 << 20) + '"}'
    path.write_text(f"{long}\n" + lines(good(1)) if name.endswith("l") else f"[{long}, {json.dumps(good(1))}]")
    tracemalloc.start()
    got = [(row.line, row.problem) for row in json_rows.read(path)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got == ([(1, "row_too_long"), (2, "")] if name.endswith("l") else [(1, "row_too_long")])
    assert peak < 16 << 20


def test_a_compressed_file_is_named_and_not_unpacked(tmp_path):
    """A gzip file under the name .jsonl."""
    assert problems(read(tmp_path / "a.jsonl", gzip.compress(b"\0" * 10_000_000))) == [(1, "compressed")]


def test_csv_rows_have_lines_and_the_types_of_pandas(tmp_path):
    """A quoted line end counts; NA and None are missing; a column of numbers holds numbers, one with a word texts."""
    text = 'instruction,input,output\n"a\nb",1,x\nc,2,NA\nd,3,None\n'
    got = read(tmp_path / "a.csv", text, "csv")
    assert [(row.line, row.value) for row in got] == [
        (2, {"instruction": "a\nb", "input": 1.0, "output": "x"}),
        (4, {"instruction": "c", "input": 2.0, "output": None}),
        (5, {"instruction": "d", "input": 3.0, "output": None}),
    ]


def test_a_csv_row_with_too_many_fields_is_named(tmp_path):
    """pandas refuses the file there."""
    assert problems(read(tmp_path / "a.csv", "a,b\n1,2\n1,2,3\n", "csv")) == [(3, "csv_fields")]


def test_each_line_of_a_text_file_is_a_row(tmp_path):
    """Also an empty line between others."""
    assert [(row.line, row.value) for row in read(tmp_path / "a.txt", "x\ny\n", "text")] == [(1, {"text": "x"}), (2, {"text": "y"})]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_columnar_files_give_numbered_rows(tmp_path, kind):
    """Rows without lines, in order; a damaged file is one plain row."""
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"instruction": [f"q{number}" for number in range(600)], "output": ["a"] * 600})
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        __import__("pyarrow.parquet").parquet.write_table(table, path)
    else:
        with arrow.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    got = list(read_rows((path,), kind))
    assert [(row.line, row.index, row.value["instruction"]) for row in got] == [(0, number, f"q{number}") for number in range(600)]
    path.write_bytes(path.read_bytes()[:200])
    assert [row.problem for row in read_rows((path,), kind)] == ["unreadable_file"]


def test_what_pandas_takes_for_missing_is_listed():
    """The list is pandas' own."""
    pandas = pytest.importorskip("pandas")
    from pandas._libs.parsers import STR_NA_VALUES

    assert pandas
    assert set(STR_NA_VALUES) == table_rows.NO_VALUE


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("a.jsonl", "json", lines(*[good(number) for number in range(2500)])),
        ("a.json", "json", json.dumps([good(number, output="x" * 300) for number in range(2500)])),
        ("a.csv", "csv", "instruction,output\n" + "a,b\n" * 2500),
        ("a.txt", "text", "line\n" * 2500),
    ],
)
def test_the_reading_tells_how_far_it_is(tmp_path, name, kind, text):
    """Steps forward through the file, of its size; together no more than the file."""
    path = tmp_path / name
    path.write_text(text)
    told: list[tuple[str, int, int]] = []
    assert len(list(read_rows((path,), kind, lambda *step: told.append(step)))) == 2500
    assert len(told) >= 2
    assert {(file, whole) for file, _, whole in told} == {(str(path), len(text))}
    assert 0 < sum(step for _, step, _ in told) <= len(text)


@pytest.mark.parametrize(("encoding", "told"), [("utf-16", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32", "UTF-32")])
@pytest.mark.parametrize(("name", "kind"), [("a.jsonl", "json"), ("a.json", "json"), ("a.csv", "csv"), ("a.txt", "text")])
def test_a_file_in_another_encoding_is_one_plain_row(tmp_path, encoding, told, name, kind):
    """As a spreadsheet or a Windows shell writes it: not a broken row for every line."""
    text = lines(good(1), good(2)) if name == "a.jsonl" else json.dumps([good(1)]) if name == "a.json" else "instruction,output\na,b\n"
    data = (b"\xfe\xff" if encoding == "utf-16-be" else b"") + text.encode(encoding)
    got = read(tmp_path / name, data, kind)
    assert [(row.line, row.problem, row.detail) for row in got] == [(1, "not_utf8", told)]


def test_archives_are_named_and_not_unpacked(tmp_path):
    """A zip that would unpack to 100 MB, xz, bzip2 and zstandard by their first bytes."""
    import bz2
    import io
    import lzma
    import zipfile

    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", b"\0" * 100_000_000)
    packed = {"zip": held.getvalue(), "xz": lzma.compress(b"{}"), "bzip2": bz2.compress(b"{}"), "zstandard": b"\x28\xb5\x2f\xfd\x04\x00"}
    for name, data in packed.items():
        got = read(tmp_path / "a.jsonl", data)
        assert [(row.problem, row.detail) for row in got] == [("compressed", name)]


def test_a_line_of_a_gibibyte_is_passed_over(tmp_path):
    """A sparse file: nothing of it is kept, the line after it is read."""
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.seek(1 << 30)
        file.write(b"\n" + lines(good(1)).encode())
    tracemalloc.start()
    got = [(row.line, row.problem) for row in read_rows((path,), "json")]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got == [(1, "row_too_long"), (2, "")]
    assert peak < 200 << 20


def test_long_fields_and_lines_of_tables_end_in_a_word(tmp_path, monkeypatch):
    """A csv file ends there, for a quote may be open in the line; a text file goes on. Neither is cut into rows that nobody wrote."""
    monkeypatch.setattr(records, "MAX_ROW_BYTES", 1000)
    got = read(tmp_path / "a.csv", "a,b\n1,2\n" + "x" * 5000 + ",y\n3,4\n", "csv")
    assert [(row.line, row.index, row.problem) for row in got] == [(2, 0, ""), (3, 1, "row_too_long")]
    got = read(tmp_path / "a.txt", "x" * 5000 + "\nend\n", "text")
    assert [(row.line, row.problem) for row in got] == [(1, "row_too_long"), (2, "")]
