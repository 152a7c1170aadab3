"""lfdoctor data: formats, languages, exit codes, the cleaned copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doctor.cli.main import main
from doctor.dataset import advice
from doctor.dataset.findings import SEVERITY
from doctor.words import catalogue
from tests.dataset.sets import good, lines, put


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose data set has one empty and one null answer."""
    put(tmp_path, "one.jsonl", lines(good(1), good(2, output=""), good(3, output=None)))
    path = tmp_path / "train.yaml"
    path.write_text("stage: sft\ndo_train: true\nmodel_name_or_path: nobody/none\ntemplate: qwen\ndataset: one\noutput_dir: out\n")
    return path


def run(config: Path, *more: str) -> int:
    return main(["data", str(config), "--folder", str(config.parent), "--no-near", *more])


def test_the_page_names_lines_effects_and_what_to_do(config, capsys):
    """A person finds the line, what LLaMA-Factory does, and what to do."""
    assert run(config) == 0
    page = capsys.readouterr().out
    assert "one (training): 3 rows, 2 used, 1 left out" in page
    assert "⚠ The answer is empty: 1 in one (33.3%)\n    data/one.jsonl:2\n" in page
    assert "⚠ No answer: 1 in one (33.3%)\n    data/one.jsonl:3\n  LLaMA-Factory leaves these samples out with a warning." in page
    assert "Lengths not known: " in page


@pytest.mark.parametrize(("given", "code"), [((), 0), (("--fail-on", "warning"), 1), (("--fail-on", "never"), 0)])
def test_exit_codes_are_those_of_check(config, given, code):
    """Warnings count only where they are asked for."""
    assert run(config, *given) == code


def test_an_error_gives_one(config):
    """A broken line stops the training."""
    put(config.parent, "one.jsonl", lines(good(1), "{"))
    assert run(config) == 1


def test_json_has_every_place_and_the_words_of_the_language(config, capsys):
    """Machine-readable, with titles in Korean."""
    assert run(config, "-f", "json", "--lang", "ko") == 0
    data = json.loads(capsys.readouterr().out)
    assert [(one["kind"], one["effect"], one["places"][0]["line"]) for one in data["findings"]] == [
        ("no_answer", "dropped", 3),
        ("empty_answer", "empty", 2),
    ]
    assert data["findings"][0]["title"] == "답변이 없습니다"
    assert data["numbers"] is None
    assert data["unknown"] in ("no_library", "no_tokenizer")


def test_markdown_goes_to_a_file(config, tmp_path, capsys):
    """-o writes it; nothing on standard output."""
    target = tmp_path / "report.md"
    assert run(config, "-f", "markdown", "-o", str(target), "--lang", "zh") == 0
    text = target.read_text(encoding="utf-8")
    assert "## ⚠ 回答为空" in text
    assert "- `data/one.jsonl:2`" in text
    assert capsys.readouterr().out == ""


def test_the_cleaned_copy(config, capsys):
    """--fix-data writes a new folder and says how many rows it left out; a second time it refuses."""
    out = config.parent / "clean"
    assert run(config, "--fix-data", str(out)) == 0
    assert "1 rows kept, 2 dropped" in capsys.readouterr().err
    assert (out / "one.jsonl").read_text() == lines(good(1))
    assert run(config, "--fix-data", str(out)) == 2


def test_quiet_shows_no_notes(config, capsys):
    """Only what is above a note, no lengths."""
    put(config.parent, "one.jsonl", lines(good(1), good(1)))
    assert run(config, "-q") == 0
    page = capsys.readouterr().out
    assert "Exact duplicates" not in page
    assert "Nothing to report." in page
    assert "Lengths" not in page


@pytest.mark.parametrize("kind", sorted(SEVERITY))
def test_every_kind_has_a_title_an_effect_and_something_to_do(kind):
    """Keys of the catalogue, in every language."""
    for name in (f"data.kind.{kind}", f"data.effect.{advice.effect_of(kind)}", f"data.todo.{advice.todo_of(kind)}"):
        assert all(catalogue.text(name).get(lang) for lang in ("en", "ko", "zh"))


def test_check_data_adds_the_page_and_its_exit_code(config, capsys):
    """A broken line is an error of `check --data`, and of plain `check` none: it never opens the data."""
    put(config.parent, "one.jsonl", lines(good(1), "{"))
    given = ["check", str(config), "--folder", str(config.parent), "--fail-on", "error"]
    plain = main(given)
    capsys.readouterr()
    assert main([*given, "--data"]) == 1
    page = capsys.readouterr().out
    assert "✗ Not valid JSON: 1 in one (50.0%)\n    data/one.jsonl:2" in page
    assert "Not valid JSON" not in (main(given), capsys.readouterr().out)[1]
    assert plain in (0, 1)


def test_check_data_is_for_the_terminal(config, capsys):
    """For JSON there is `lfdoctor data`."""
    assert main(["check", str(config), "--data", "-f", "json"]) == 2
    assert "lfdoctor data CONFIG -f json" in capsys.readouterr().err


def test_an_estimate_takes_the_longest_sample(config, capsys):
    """Without a tokenizer it says that lengths are not known and assumes cutoff_len as before."""
    config.write_text(config.read_text().replace("nobody/none", "meta-llama/Llama-3.1-8B"))
    given = ["estimate", str(config), "-f", "json"]
    assert main(given) == 0
    before = json.loads(capsys.readouterr().out)["allocated_gib"]
    assert main([*given, "--data", "--folder", str(config.parent)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["allocated_gib"] == before
    assert "Lengths not known" in err


def test_an_estimate_with_short_samples_is_smaller(config, capsys):
    """Ten tokens instead of 2,048."""
    library = pytest.importorskip("tokenizers")
    place = config.parent / "model"
    place.mkdir()
    library.Tokenizer(library.models.WordLevel({"[UNK]": 0, "</s>": 1}, unk_token="[UNK]")).save(str(place / "tokenizer.json"))
    (place / "tokenizer_config.json").write_text('{"eos_token": "</s>", "unk_token": "[UNK]"}')
    sizes = {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "architectures": ["LlamaForCausalLM"],
    }  # fmt: skip
    (place / "config.json").write_text(json.dumps(sizes))
    config.write_text(config.read_text().replace("nobody/none", str(place)))
    peaks = []
    for more in ([], ["--data", "--folder", str(config.parent)]):
        assert main(["estimate", str(config), "-f", "json", *more]) == 0
        peaks.append(json.loads(capsys.readouterr().out)["allocated_gib"])
    assert peaks[1] < peaks[0] - 0.5


def test_a_web_page_marks_cutoff_len_in_the_lengths(config, capsys):
    """Bars, the line of cutoff_len, findings with their lines; a hostile file name is text."""
    library = pytest.importorskip("tokenizers")
    place = config.parent / "model"
    place.mkdir()
    library.Tokenizer(library.models.WordLevel({"[UNK]": 0, "</s>": 1}, unk_token="[UNK]")).save(str(place / "tokenizer.json"))
    put(config.parent, "<b>.jsonl", lines(good(1), good(2, output=""), good(3, output="<script>alert(1)</script>")))
    text = config.read_text().replace("nobody/none", str(place)).replace("dataset: one", "dataset: <b>")
    config.write_text(text + "cutoff_len: 5\n")
    target = config.parent / "page.html"
    assert run(config, "-f", "html", "-o", str(target), "--lang", "zh") == 0
    page = target.read_text(encoding="utf-8")
    assert page.count("<rect ") >= 1
    assert '<line class="cut"' in page
    assert "cutoff_len 5" in page
    assert "<code>data/&lt;b&gt;.jsonl:2</code>" in page
    assert "回答为空" in page
    assert "<b>" not in page
    assert "<script" not in page


def test_a_web_page_without_lengths_says_why(config, capsys):
    """No bars."""
    assert run(config, "-f", "html") == 0
    page = capsys.readouterr().out
    assert "Lengths not known: " in page
    assert "<svg" not in page


def test_the_samples_of_a_step_have_no_page(config, capsys):
    """One line, exit code 2."""
    assert run(config, "--step", "1", "-f", "html") == 2
    assert "--step has no web page" in capsys.readouterr().err
