"""A failure over a missing name is told with the releases that have it, and the first thing to do is a command with a number."""

from __future__ import annotations

from pathlib import Path

from doctor.diagnosis.pipeline import analyze
from doctor.report.model import FindingView

SITE = "/opt/env/lib/python3.11/site-packages/"
VERSIONS = """\
- `llamafactory` version: {llamafactory}
- Python version: 3.11.9
- Transformers version: {transformers}
"""


def told(folder: Path, last: str, file: str = "/home/me/start.py", code: str = "run()", before: str = "") -> FindingView:
    frames = f'Traceback (most recent call last):\n  File "{file}", line 8, in <module>\n    {code}\n'
    (folder / "console.log").write_text(before + frames + last + "\n", encoding="utf-8")
    return analyze(folder).findings[0]


def commands(finding: FindingView) -> list[str]:
    return [remedy.command for remedy in finding.remedies if remedy.command]


def test_a_package_that_asks_for_a_removed_name_is_updated_first(tmp_path: Path) -> None:
    """transformers 5.0 removed HybridCache, peft 0.18 no longer imports it (huggingface/peft#2828)."""
    last = f"ImportError: cannot import name 'HybridCache' from 'transformers' ({SITE}transformers/__init__.py)"
    found = told(
        tmp_path, last, SITE + "peft/peft_model.py", "from transformers import Cache, DynamicCache, EncoderDecoderCache, HybridCache"
    )
    assert "`HybridCache`" in found.text
    assert "peft asks for it" in found.text
    assert commands(found)[0] == 'pip install "peft>=0.18"'
    assert commands(found)[1].startswith('pip install "transformers')
    assert commands(found)[1].endswith('<5.0"')
    assert "LLaMA-Factory" not in found.text + "".join(remedy.text for remedy in found.remedies[:2])


def test_the_models_own_code_gets_the_releases_between(tmp_path: Path) -> None:
    """LlamaFlashAttention2 came in 4.34 and went in 4.48 (deepseek-ai/DeepSeek-OCR#302)."""
    last = "ImportError: cannot import name 'LlamaFlashAttention2' from 'transformers.models.llama.modeling_llama'"
    file = "/root/.cache/huggingface/modules/transformers_modules/ocr/modeling_deepseekv2.py"
    found = told(tmp_path, last, file, "from transformers.models.llama.modeling_llama import LlamaFlashAttention2")
    assert "The model's own code (modeling_deepseekv2.py) asks for it." in found.text
    assert commands(found)[0] == 'pip install "transformers>=4.34,<4.48"'


UNKNOWN_TYPE = (
    "ValueError: The checkpoint you are trying to load has model type `qwen3` but Transformers does not recognize this architecture."
)


def test_a_cure_beyond_the_pins_names_the_llamafactory_that_allows_it(tmp_path: Path) -> None:
    """qwen3 came with transformers 4.51; LLaMA-Factory 0.9.2 allows 4.49.0 at most, 0.9.3 allows 4.52.4."""
    before = VERSIONS.format(llamafactory="0.9.2", transformers="4.49.0")
    found = told(tmp_path, UNKNOWN_TYPE, before=before)
    assert "transformers has the model type `qwen3` only since 4.51. Installed is 4.49.0." in found.text
    assert commands(found)[0] == 'pip install "transformers>=4.51"'
    assert "Your LLaMA-Factory 0.9.2 allows transformers" in found.remedies[0].text
    assert "LLaMA-Factory 0.9.3 and newer allow it." in found.remedies[0].text


def test_a_cure_within_the_pins_is_bounded_by_them(tmp_path: Path) -> None:
    """LLaMA-Factory 0.9.3 allows transformers up to 4.52.4."""
    found = told(tmp_path, UNKNOWN_TYPE, before=VERSIONS.format(llamafactory="0.9.3", transformers="4.49.0"))
    assert commands(found)[0] == 'pip install "transformers>=4.51,<=4.52.4"'


def test_an_argument_names_the_release_before_its_removal(tmp_path: Path) -> None:
    """trl 0.13 removed SFTTrainer's max_seq_length (instructlab/instructlab#2840, cured with trl 0.12)."""
    found = told(tmp_path, "TypeError: SFTTrainer.__init__() got an unexpected keyword argument 'max_seq_length'")
    assert commands(found)[0] == 'pip install "trl<0.13"'
    assert "The script start.py asks for it." in found.text


def test_a_misspelt_class_gets_its_spelling_and_no_version(tmp_path: Path) -> None:
    """No release of transformers spells it LLaMAForCausalLM."""
    found = told(tmp_path, "ImportError: cannot import name 'LLaMAForCausalLM' from 'transformers' (/opt/env/transformers/__init__.py)")
    assert "it is spelt `LlamaForCausalLM`" in found.text
    assert not [command for command in commands(found) if "pip install" in command]


def test_a_class_of_the_models_own_code_is_none_of_transformers(tmp_path: Path) -> None:
    """Baichuan's tokenizer comes with the model: trust_remote_code is what is missing (baichuan-inc/Baichuan-13B#190)."""
    found = told(tmp_path, "ValueError: Tokenizer class BaichuanTokenizer does not exist or is not currently imported.")
    assert found.cause == "trust_remote_code_missing"
    assert "trust_remote_code" in found.remedies[0].text
    assert not [command for command in commands(found) if "pip install" in command]


def test_an_installed_release_that_has_the_name_is_not_to_blame(tmp_path: Path) -> None:
    """HybridCache is in 4.49: something else is broken, and no release is advised."""
    last = f"ImportError: cannot import name 'HybridCache' from 'transformers' ({SITE}transformers/__init__.py)"
    found = told(tmp_path, last, before="- Transformers version: 4.49.0\n")
    assert not [command for command in commands(found) if command.startswith('pip install "')]


def test_a_version_check_comes_with_its_own_requirement(tmp_path: Path) -> None:
    """As LLaMA-Factory and transformers print it."""
    last = "ImportError: transformers>=4.49.0,<=4.55.0 is required for a normal functioning of this module, but found transformers==4.56.1."
    found = told(tmp_path, last)
    assert commands(found)[0] == 'pip install "transformers>=4.49.0,<=4.55.0"'


def test_llamafactorys_own_check_names_the_release_that_allows_what_is_installed(tmp_path: Path) -> None:
    """0.9.2 of March 2025 refuses transformers 4.57.1, whose first LLaMA-Factory is 0.9.4 (their setup.py and pyproject.toml)."""
    pin = "transformers>=4.41.2,<=4.49.0,!=4.46.0,!=4.46.1,!=4.46.2,!=4.46.3,!=4.47.0,!=4.47.1,!=4.48.0"
    last = f"ImportError: {pin} is required for a normal functioning of this module, but found transformers==4.57.1."
    found = told(tmp_path, last, "/opt/LLaMA-Factory/src/llamafactory/extras/misc.py", "check_version(requirement)")
    assert commands(found)[:2] == ['pip install "llamafactory>=0.9.4"', f'pip install "{pin}"']
    assert "keep transformers 4.57.1" in found.remedies[0].text
    assert found.remedies[1].text.startswith("Or, if your model works with an older transformers")


def test_an_installed_package_older_than_the_range_is_brought_into_it(tmp_path: Path) -> None:
    """No newer LLaMA-Factory allows transformers 4.40 again."""
    pin = "transformers>=4.49.0,<=4.52.4,!=4.52.0"
    last = f"ImportError: {pin} is required for a normal functioning of this module, but found transformers==4.40.0."
    found = told(tmp_path, last, "/opt/LLaMA-Factory/src/llamafactory/extras/misc.py", "check_version(requirement)")
    assert commands(found)[0] == f'pip install "{pin}"'
    assert not any("llamafactory>=" in command for command in commands(found))


def test_another_programs_pin_says_nothing_of_llamafactory(tmp_path: Path) -> None:
    last = "ImportError: transformers>=4.30,<4.31 is required for a normal functioning of this module, but found transformers==4.57.1."
    assert not any("llamafactory" in command for command in commands(told(tmp_path, last))[:1])


def test_a_part_of_the_models_own_is_no_public_name(tmp_path: Path) -> None:
    """torch's `__getattr__` only answers: nobody is known to ask, and `lm_head` is as likely the model's own."""
    frames = f'  File "{SITE}torch/nn/modules/module.py", line 1614, in __getattr__\n    raise AttributeError("...")\n'
    last = "AttributeError: 'ChatGLMModel' object has no attribute 'lm_head'"
    (tmp_path / "console.log").write_text(f"{frames}{last}\n", encoding="utf-8")
    found = analyze(tmp_path).findings[0]
    assert "4.54" not in found.text
    assert not any("transformers" in command for command in commands(found))


def test_every_language_has_the_command(tmp_path: Path) -> None:
    """The command is the same, the sentence is the reader's."""
    last = "TypeError: SFTTrainer.__init__() got an unexpected keyword argument 'max_seq_length'"
    told(tmp_path, last)
    for lang, words in (("ko", "마지막으로 있던 릴리스는 0.12.2입니다."), ("zh", "最后一个包含它的版本是 0.12.2")):
        found = analyze(tmp_path, lang=lang).findings[0]
        assert words in found.text
        assert commands(found)[0] == 'pip install "trl<0.13"'


def test_a_class_of_the_models_own_is_older_than_a_new_attribute(tmp_path: Path) -> None:
    """transformers 5.0 brought all_tied_weights_keys; a class that lacks it was written before (OpenBMB/MiniCPM-V#1087: 4.51.0)."""
    found = told(
        tmp_path, "AttributeError: 'MiniCPMO' object has no attribute 'all_tied_weights_keys'", SITE + "transformers/modeling_utils.py"
    )
    assert commands(found)[0] == 'pip install "transformers<5.0"'
    assert "MiniCPMO is no class of transformers" in found.text


def test_code_that_asks_for_a_new_attribute_itself_is_newer(tmp_path: Path) -> None:
    """Here the model's own file asks, so the installed transformers is the older one."""
    file = "/root/.cache/huggingface/modules/transformers_modules/x/modeling_internlm2.py"
    found = told(tmp_path, "AttributeError: 'InternLM2ForCausalLM' object has no attribute 'all_tied_weights_keys'", file)
    assert commands(found)[0] == 'pip install "transformers>=5.0"'
