"""`lfdoctor explain OPTION`: what it does, the guide's word, values by version, rules; for every option there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from doctor.cli.explain_option import OptionPage, is_option
from doctor.cli.main import main
from doctor.config.option_facts import guide_sections, guide_words, names
from doctor.rulebook import loader
from doctor.support.languages import LANGUAGES
from doctor.words import catalogue

BOOK = loader.load()


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The page, on one line."""
    assert main(["explain", *words]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_learning_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """The guide's ranges in the right order, the default, the v1 trainer's other default, a rule."""
    page = said(capsys, "learning_rate")
    assert "LoRA 1e-4 to 5e-4, QLoRA 1e-4 to 2e-4" in page
    assert "From transformers 4.40.2 on: float, default 5e-05" in page
    assert "With USE_V1=1 From LLaMA-Factory 0.9.4 on: float, default 0.0001" in page
    assert "stability/loss-flat-lr-too-low" in page


def test_a_default_that_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """cutoff_len was 1024 up to 0.9.0."""
    page = said(capsys, "cutoff_len", "--lang", "ko")
    assert "LLaMA-Factory 0.7.0부터: int, 기본값 1024" in page
    assert "LLaMA-Factory 0.9.1부터: int, 기본값 2048" in page


def test_values_that_came_and_went(capsys: pytest.CaptureFixture[str]) -> None:
    """A later version lists only the difference: sglang came with 0.9.3, ktransformers stood in 0.9.4 alone (extras/constants.py)."""
    page = said(capsys, "infer_backend")
    assert 'From LLaMA-Factory 0.9.3 on: str, default "huggingface", also sglang From' in page
    assert 'From LLaMA-Factory 0.9.4 on: str, default "huggingface", also ktransformers From' in page
    assert 'From LLaMA-Factory 0.9.5 on: str, default "huggingface", no longer ktransformers' in page


def test_an_option_that_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    """Since when, and what to use."""
    page = said(capsys, "evaluation_strategy")
    assert "Use `eval_strategy`." in page
    assert "From transformers 4.52.4 on: gone" in page


def test_an_option_of_another_trainer(capsys: pytest.CaptureFixture[str]) -> None:
    """What starts it."""
    assert "With USE_MCA=1 From LLaMA-Factory 0.9.4 on" in said(capsys, "expert_tensor_parallel_size")


def test_a_misspelt_name_gets_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """Options among them."""
    assert main(["explain", "lora_rnak"]) == 2
    assert "lora_rank" in capsys.readouterr().err


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_option_has_a_page(lang: str) -> None:
    """More than its heading: at least the versions that have it, or the guide's word, or today's name."""
    words = catalogue.load(lang)
    assert len(names()) > 400
    for name in names():
        assert len(OptionPage(name, BOOK, words).blocks()) > 1, name


def test_the_guides_words_are_of_its_sections_and_of_real_options() -> None:
    """Each names a section of the guide; its name is an option, or today's word says that it is none."""
    gone = ("quant_type", "gptq_bits", "gptq_group_size", "gptq_desc_act", "awq_bits", "awq_group_size")
    raw = yaml.safe_load((Path(__file__).parents[2] / "rules" / "options.yaml").read_text(encoding="utf-8"))
    for name, word in guide_words().items():
        assert word.section in guide_sections(), name
        assert is_option(name)
        assert (name in raw) is (name not in gone)
        for told in re.findall(r"`([a-z]\w+): ", word.today.en if word.today else ""):
            assert told in raw, told
