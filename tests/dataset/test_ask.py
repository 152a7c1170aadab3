"""LLaMA-Factory is asked in a child process: its answer, its noise, its crashes and its silence. A stand-in takes its place here."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from doctor.dataset.ask import ask
from doctor.dataset.inspect import Look
from tests.dataset.sets import found, good, lines, put, seen

FAKE = {
    "__init__.py": "print('noise on import')\n",
    "hparams.py": """
from types import SimpleNamespace as N
def get_train_args(config):
    assert "trust_remote_code" not in config and config["do_train"]
    return N(), N(**config), N(), N(stage=config["stage"]), N()
""",
    "model.py": "def load_tokenizer(model_args): return {'tokenizer': None, 'processor': None}\n",
    "data.py": """
import time
def get_template_and_fix_tokenizer(tokenizer, data_args): return None
def get_dataset(template, model_args, data_args, training_args, stage, **more):
    print("noise while loading")
    BEHAVIOUR
    made = [(4, 3), (30, 20)]
    cut = data_args.cutoff_len
    labels = [[-100] * min(cut, p) + [1] * max(0, min(cut - p, a)) for p, a in made]
    return {"train_dataset": [{"input_ids": [1] * len(row), "labels": row} for row in labels]}
""",
}


@pytest.fixture
def framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a stand-in for LLaMA-Factory on the path; called with a line of Python that it runs."""

    def install(behaviour: str = "pass") -> None:
        place = tmp_path / "site" / "llamafactory"
        place.mkdir(parents=True)
        for name, text in FAKE.items():
            (place / name).write_text(text.replace("BEHAVIOUR", behaviour))
        monkeypatch.setenv("PYTHONPATH", str(place.parent))

    return install


CONFIG = {"stage": "sft", "dataset": "one", "template": "qwen", "trust_remote_code": True}


def test_its_lengths_become_the_figures(tmp_path, framework):
    """Two samples of 7 and 50 tokens, cutoff_len 30: the second is cut by 20 and loses its whole answer."""
    framework()
    put(tmp_path, "one.jsonl", lines(good(1), good(2)))
    report = seen(tmp_path, Look(near=False, ask=True), stage="sft", cutoff_len=30)
    assert report.numbers is not None
    numbers = report.numbers
    assert (numbers.longest, numbers.p50, numbers.cut, numbers.cut_tokens, numbers.lost) == (50, 7, 1, 20, 1)
    assert (numbers.tokens_per_epoch, numbers.trained_per_epoch) == (37, 3)
    assert found(report) == {"answer_lost": [2], "cut": [2]}


def test_another_number_of_samples_is_said_and_not_shown(tmp_path, framework):
    """It keeps two samples where three were read: the lines would be wrong."""
    framework()
    put(tmp_path, "one.jsonl", lines(good(1), good(2), good(3)))
    report = seen(tmp_path, Look(near=False, ask=True), stage="sft")
    assert (report.numbers, report.unknown) == (None, "asked_otherwise")


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("raise ValueError('no such template')", "ValueError: no such template"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import os; os._exit(7)", "ended without an answer"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended without an answer"),
        ("bytearray(64 << 30)", "MemoryError"),
    ],
)
def test_its_failures_are_told(tmp_path, framework, behaviour, words):
    """An exception, an exit, a killed process, too much memory."""
    framework(behaviour)
    put(tmp_path, "one.jsonl", lines(good(1), good(2)))
    assert words in ask(CONFIG, tmp_path).error


def test_it_is_ended_when_its_time_is_over(tmp_path, framework):
    """A minute of sleep is cut short."""
    framework("time.sleep(60)")
    put(tmp_path, "one.jsonl", lines(good(1), good(2)))
    begun = time.monotonic()
    assert ask(CONFIG, tmp_path, seconds=3).error == "no answer within 3 seconds"
    assert time.monotonic() - begun < 30


def test_without_llamafactory_the_report_says_so(tmp_path, monkeypatch):
    """The lengths are unknown, and why."""
    (tmp_path / "llamafactory.py").write_text("raise ModuleNotFoundError(\"No module named 'llamafactory'\")\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    put(tmp_path, "one.jsonl", lines(good(1)))
    report = seen(tmp_path, Look(near=False, ask=True), stage="sft")
    assert (report.unknown, report.unknown_detail) == ("asked", "ModuleNotFoundError: No module named 'llamafactory'")
