"""A log of one pasted line: what the line says by itself is told, and nothing beyond it."""

from __future__ import annotations

from pathlib import Path

import pytest

import doctor
from doctor.diagnosis.unlisted.telling import features_of_line
from doctor.report.model import Report
from doctor.support.languages import LANGUAGES
from doctor.words import catalogue


def analysed(text: str, folder: Path) -> Report:
    (folder / "console.log").write_text(text + "\n", encoding="utf-8")
    return doctor.analyze(folder)


@pytest.mark.parametrize(
    ("line", "exception", "message"),
    [
        ("[rank3]: RuntimeError: the balance is off", "RuntimeError", "the balance is off"),
        ("E   ValueError: rows and weights differ", "ValueError", "rows and weights differ"),
        ("训练时出现 RuntimeError：the balance is off", "RuntimeError", "the balance is off"),
        ("微调模型，报错StopIteration", "StopIteration", "微调模型，报错"),
        ("학습 중 오류 KeyError: 'weigh'", "KeyError", "'weigh'"),
        ("runtimeerror: the balance is off", "RuntimeError", "the balance is off"),
        ("it throws ValueError: the balance is off", "ValueError", "the balance is off"),
        # a program that goes on says so in other words
        ("Retrying after ConnectionError: the balance is off", "", "Retrying after ConnectionError: the balance is off"),
        ("balance: 3 errors", "", "balance: 3 errors"),
    ],
)
def test_the_exception_of_a_line(line: str, exception: str, message: str) -> None:
    """With prefixes, Chinese punctuation or in lower case; not one that a sentence tells of as caught."""
    found = features_of_line(line, {})
    assert (found.exception, found.message) == (exception, message)


def test_a_compiled_library_says_why_it_ended_the_process() -> None:
    """The C++ class says nothing, its text does."""
    found = features_of_line("libc++abi: terminating due to uncaught exception of type std::runtime_error: the balance is off", {})
    assert (found.native, found.exception, found.message) == (True, "", "the balance is off")


@pytest.mark.parametrize(
    ("line", "title", "meaning"),
    [
        ("AssertionError: the balance is off", "AssertionError: the balance is off", "A condition that the code takes for granted"),
        ("WeighError: the balance is off", "WeighError: the balance is off", "This line states an error."),
        ("ERROR weigh: the balance is off", "ERROR weigh: the balance is off", "This line states an error."),
        ("  what():  the balance is off", "the balance is off", "A compiled library stopped the process"),
    ],
)
def test_the_line_is_told(line: str, title: str, meaning: str, tmp_path: Path) -> None:
    """Its text is the title, its class is explained, no cause is claimed, and the lines that would decide are asked for."""
    report = analysed(line, tmp_path)
    root = report.findings[0]
    assert (root.cause, root.title) == (None, title)
    assert root.text.startswith(meaning)
    assert "no cause is claimed" in root.text
    assert any("Traceback (most recent call last)" in one.text or "50 lines" in one.text for one in root.remedies)
    assert report.verdict in ("failed", "unhealthy")


@pytest.mark.parametrize(
    "text",
    [
        "UserWarning: None of the inputs have requires_grad=True",
        "loading configuration file config.json",
        "WARNING: the balance could not be found",
        "Retrying after ConnectionError: the balance is off",
        "Some optimizations will not be enabled.\nError caught was: No module named 'triton'",
        "{'loss': 1.2, 'learning_rate': 1e-05, 'epoch': 0.1}\nERROR weigh: the balance is off\n"
        "{'loss': 1.1, 'learning_rate': 1e-05, 'epoch': 0.2}",
    ],
)
def test_what_states_no_error_of_the_run(text: str, tmp_path: Path) -> None:
    """Warnings without a known meaning, exceptions that were caught, and a line that the training went on after."""
    assert [one.rule for one in analysed(text, tmp_path).findings if one.severity == "error"] == []


def test_a_pasted_warning_with_a_known_meaning(tmp_path: Path) -> None:
    """Alone it is what somebody asks about; among the lines of a longer log it is one of many."""
    line = "CUDA SETUP: WARNING! libcuda.so not found! Do you have a CUDA driver installed?"
    assert analysed(line, tmp_path).findings[0].cause == "gpu_not_visible"
    assert analysed(line + "\nloading a part" * 9, tmp_path).findings == []


def test_every_class_is_explained_in_whole_sentences() -> None:
    """In each language, and `needed` holds a place for it."""
    for name, text in catalogue.texts("exceptions").items():
        for lang in LANGUAGES:
            assert text.get(lang).rstrip()[-1] in ".。", (name, lang)
            assert ("{meaning}" in text.get(lang)) is (name == "needed")


def test_a_source_line_that_asserts(tmp_path: Path) -> None:
    """It is all that was pasted of an assertion without a message."""
    root = analysed("assert len(weights) == len(rows)", tmp_path).findings[0]
    assert (root.cause, root.title) == (None, "AssertionError: assert len(weights) == len(rows)")


def test_a_nan_in_a_pasted_line(tmp_path: Path) -> None:
    """Alone it is told in two cases; where steps were read their numbers tell, not one line of them."""
    found = analysed("grad_norm:nan loss:0", tmp_path).findings[0]
    assert (found.cause, found.family) == ("nonfinite_cause_unknown", "stability")
    steps = "".join(f"{{'loss': 1.{step}, 'grad_norm': 2.0, 'learning_rate': 1e-05, 'epoch': 0.{step}}}\n" for step in range(1, 5))
    later = analysed(f"{steps}{{'loss': 1.2, 'grad_norm': nan, 'learning_rate': 1e-05, 'epoch': 0.5}}", tmp_path)
    assert "stability/nan-in-a-pasted-line" not in [one.rule for one in later.findings]


def test_a_librarys_last_words_beside_an_abort(tmp_path: Path) -> None:
    """The shell's line on the abort says nothing; what the library said before it does."""
    said = "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Insufficient Memory"
    text = f"{said}\n[1]    31148 abort      python x.py"
    found = analysed(text, tmp_path).findings[0]
    assert (found.rule, found.symptom) == ("memory/metal-out-of-memory", "out_of_memory")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("The kernel was built with use_libuv, this torch is without it", "rendezvous_failed"),
        ("WARNING: tokenization mismatch: 1 vs. 329. (ignored)", "all_labels_masked"),
        ("\n".join(f"WARNING: tokenization mismatch: {n} vs. {n + 1}. (ignored)" for n in range(40, 52)), "all_labels_masked"),
        ("Expected is_sm80 || is_sm90 to be true, but got false.", "gpu_arch_unsupported"),
    ],
)
def test_a_pasted_sentence_without_a_word_of_failure(text: str, cause: str, tmp_path: Path) -> None:
    """Few lines were chosen for what they say; one warning of many samples is one line."""
    assert analysed(text, tmp_path).findings[0].cause == cause


def test_a_pasted_command_states_nothing(tmp_path: Path) -> None:
    """Though it holds the word of a row of the table."""
    assert analysed("df -h /dev/shm for the node", tmp_path).findings == []


@pytest.mark.parametrize(
    ("rates", "told"),
    [(("1e-06", "2e-06"), True), (("1e-06", "1e-06"), False)],
)
def test_few_pasted_losses_with_a_gradient_that_is_no_number(rates: tuple[str, str], told: bool, tmp_path: Path) -> None:
    """The optimizer made those steps where the learning rate went on; a loss scaler that skips them keeps it."""
    lines = [f"{{'loss': 1.{n}, 'grad_norm': nan, 'learning_rate': {rate}, 'epoch': 0.0{n}}}" for n, rate in enumerate(rates, 1)]
    findings = analysed("\n".join(lines), tmp_path).findings
    assert [one.cause for one in findings] == (["nonfinite_cause_unknown"] if told else [])
