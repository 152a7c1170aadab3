"""The door: what is found under a path, what is left alone, and what is said where there is nothing."""

from __future__ import annotations

import gzip
import io
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from doctor.core.events import ConfigSeen, Fact, LogLine, Step
from doctor.errors import DoctorError
from doctor.readers import reading
from tests.readers.helpers import Seen, jsonl, log_record

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00aa\nsize 12345\n"
YAML = "stage: sft\nmodel_name_or_path: some/model\noutput_dir: saves/one\nlearning_rate: 1.0e-4\n"


def test_a_run_folder_tells_config_then_facts_then_text_then_steps(tmp_path: Path):
    """All witnesses of a folder come in one stream: configuration before both lanes, no event of a private kind."""
    (tmp_path / "train.yaml").write_text(YAML)
    (tmp_path / "console.log").write_text("one line\n{'loss': 2.9, 'grad_norm': 1.5, 'learning_rate': 5e-05, 'epoch': 0.25}\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trainer_log.jsonl").write_text(jsonl(log_record(1)))
    seen = Seen(tmp_path)
    kinds = [type(event) for event in seen.events]
    assert kinds[0] is ConfigSeen
    assert kinds[-1] is Step
    assert set(kinds) <= {ConfigSeen, Fact, LogLine, Step}
    assert seen.steps[0].metrics["grad_norm"] == 1.5
    assert seen.reading.config_source == (str(tmp_path / "train.yaml"), YAML)
    assert {source.kind for source in seen.reading.sources} == {"config", "console", "trainer_log"}


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_bytes(b"")])
def test_nothing_to_read_is_exit_code_3(tmp_path: Path, make):
    """A missing path, an empty folder and an empty file are errors of their own, said in one sentence."""
    make(tmp_path / "x")
    with pytest.raises(DoctorError) as caught:
        reading.read([tmp_path / "x"])
    assert caught.value.exit_code == 3


def test_a_folder_of_other_things_is_nothing_to_read(tmp_path: Path):
    """Source code, data sets, another program's YAML and a plain README are no run."""
    others = {"a.py": "x = 1", "data.json": "[1]", "docker.yaml": "services:\n  a: b\n", "README.md": "# hello", "n.txt": "hi"}
    for name, text in others.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DoctorError) as caught:
        reading.read([tmp_path])
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("content", [None, "just words", "- a\n- list\n", ""])
def test_a_bad_given_config_is_exit_code_2(tmp_path: Path, content: str | None):
    """--config that is missing, or holds no options, is the user's mistake and is said before anything is read."""
    log, config = tmp_path / "console.log", tmp_path / "mine.yaml"
    log.write_text("line\n")
    if content is not None:
        config.write_text(content)
    with pytest.raises(DoctorError) as caught:
        reading.read([log], config=config)
    assert caught.value.exit_code == 2


def test_the_given_config_wins_over_one_in_the_folder(tmp_path: Path):
    """The user's word about the configuration stands; the other file is named as not used."""
    (tmp_path / "train.yaml").write_text(YAML)
    (tmp_path / "console.log").write_text("line\n")
    (tmp_path / "other").mkdir()
    mine = tmp_path / "other" / "mine.yaml"
    mine.write_text(YAML.replace("sft", "dpo"))
    seen = Seen(tmp_path / "console.log", config=mine)
    assert seen.config["stage"] == "dpo"
    seen = Seen(tmp_path, config=mine)
    assert seen.config["stage"] == "dpo"
    assert any("not used" in problem for problem in seen.problems)


def test_of_several_configs_the_one_of_this_run_is_taken(tmp_path: Path):
    """Beside many example configurations, the one whose output_dir is the run's folder is the run's."""
    (tmp_path / "a.yaml").write_text(YAML.replace("saves/one", "saves/elsewhere"))
    (tmp_path / "b.yaml").write_text(YAML.replace("saves/one", "saves/two").replace("sft", "kto"))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "trainer_log.jsonl").write_text(jsonl(log_record(1)))
    seen = Seen(tmp_path)
    assert seen.config["stage"] == "kto"
    assert seen.reading.config_source is not None
    assert Path(seen.reading.config_source[0]).name == "b.yaml"


def test_pointers_and_junk_are_problems_and_cost_nothing_else(tmp_path: Path):
    """A git-LFS pointer is named as such, binary junk is left, and the rest of the folder is read."""
    (tmp_path / "trainer_state.json").write_text(POINTER)
    (tmp_path / "train.log").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 10)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\0" * 10)
    (tmp_path / "trainer_log.jsonl").write_text(jsonl(log_record(1), log_record(2)))
    seen = Seen(tmp_path)
    assert len(seen.steps) == 2
    assert any("git-LFS pointer" in problem for problem in seen.problems)
    assert not any("safetensors" in source.path or "model.bin" in source.path for source in seen.reading.sources)


@pytest.mark.skipif(sys.platform == "win32", reason="needs links, pipes and sockets in the file system")
def test_loops_pipes_and_sockets_are_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A link to the folder itself, a named pipe and a socket neither hang the walk nor are opened."""
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.log").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.log")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock.log")
        (tmp_path / "console.log").write_text("line\n")
        seen = Seen(tmp_path)
    assert [Path(source.path).name for source in seen.reading.sources] == ["console.log"]


def test_a_data_set_beside_the_run_costs_nothing(tmp_path: Path):
    """Thousands of files that tell nothing are not opened one by one."""
    (tmp_path / "images").mkdir()
    for number in range(1500):
        (tmp_path / "images" / f"{number}").write_text("x")
    (tmp_path / "console.log").write_text("line\n")
    start = time.perf_counter()
    assert len(Seen(tmp_path).reading.sources) == 1
    assert time.perf_counter() - start < 5


def test_standard_input_is_read_whatever_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`-` takes a console or the lines of a trainer_log, and loses nothing of what was looked at to tell which."""
    for text, kind in ((jsonl(log_record(1), log_record(2)), "trainer_log"), ("first\n" + "x" * 9000 + "\nlast\n", "console")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        seen = Seen(Path("-"))
        assert seen.reading.sources[0].kind == kind
        assert len(seen.steps) + len(seen.lines) == text.count("\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gbk"])
def test_a_console_in_any_usual_encoding(tmp_path: Path, encoding: str):
    """PowerShell writes UTF-16, Chinese Windows GBK: the text comes out the same."""
    (tmp_path / "c.log").write_bytes(
        "训练开始，请稍候\r\nValueError: 显存不足\r\n\r\nmore plain text to tell the encoding by\r\n".encode(encoding)
    )
    seen = Seen(tmp_path / "c.log")
    assert seen.lines[0].text == "训练开始，请稍候"
    assert seen.crashes[0].message == "显存不足"


def test_gzip_is_read_and_its_damage_told(tmp_path: Path):
    """A compressed log reads like the plain one; a cut one gives what is whole, and a problem."""
    text = "".join(f"line {number} {os.urandom(20).hex()}\n" for number in range(3000))
    whole = gzip.compress(text.encode())
    (tmp_path / "a.log.gz").write_bytes(whole)
    (tmp_path / "b.log.gz").write_bytes(whole[: len(whole) // 2])
    assert len(Seen(tmp_path / "a.log.gz").lines) == 3000
    cut = Seen(tmp_path / "b.log.gz")
    assert 1000 < len(cut.lines) < 3000
    assert any("gzip" in problem for problem in cut.problems)


def test_literals_choose_the_lines_but_never_the_records(tmp_path: Path):
    """With literals only lines that may hold one of them come; records, crashes and facts come in any case."""
    text = "".join(
        [
            "boring line 1\n" * 50,
            "needle 137 here\n",
            "a needle without its number\n",
            "{'loss': 1.5, 'learning_rate': 1e-05, 'epoch': 0.1}\n",
            'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nValueError: bad\n',
            "  Num Epochs = 3\n",
        ]
    )
    (tmp_path / "c.log").write_text(text)
    seen = Seen(tmp_path / "c.log", literals=frozenset({"needle 137"}))
    assert "needle 137 here" in [line.text for line in seen.lines]
    assert not any("boring" in line.text or "without its number" in line.text for line in seen.lines)
    assert seen.series("loss") == [(1, 1.5)]
    assert seen.crashes[0].exception == "ValueError"
    assert seen.facts["epochs.planned"] == 3.0


def test_reading_imports_nothing_heavy(tmp_path: Path):
    """A plain run is read without numpy, pandas, torch or tensorboard."""
    import subprocess

    (tmp_path / "trainer_log.jsonl").write_text(jsonl(log_record(1)))
    code = (
        "import sys; from doctor.readers import reading; list(reading.read([sys.argv[1]]).events());"
        "print([name for name in ('numpy', 'pandas', 'torch', 'tensorboard', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
