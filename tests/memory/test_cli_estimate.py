"""lfdoctor estimate on the command line."""

from __future__ import annotations

import json

import pytest

from doctor.cli.main import main

CONFIG = """\
model_name_or_path: {model}
stage: sft
finetuning_type: lora
quantization_bit: 4
per_device_train_batch_size: 2
cutoff_len: 2048
bf16: true
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(CONFIG.format(model="Qwen/Qwen2.5-7B-Instruct"))
    return path


def test_the_table_says_whether_it_fits(config, capsys):
    """People read peak, verdict with margin, terms and what was assumed."""
    assert main(["estimate", str(config), "--gpu-memory", "24"]) == 0
    out = capsys.readouterr().out
    assert "13.2 GiB at the peak" in out
    assert "fits; usable 23.8 GiB" in out
    assert "logits" in out
    assert "cutoff_len" in out


@pytest.mark.parametrize(
    ("lang", "told"),
    [
        ("ko", ["들어갑니다. 사용 가능 23.8 GiB, 여유 +", "가정한 길이: 2048 토큰", "지금 설정 그대로 들어갑니다.", "참고: 페이지드"]),
        ("zh", ["放得下；可用 23.8 GiB，余量 +", "假定长度：2048 个 token", "现在的配置就放得下", "注意：未计入分页优化器状态"]),
    ],
)
def test_the_table_is_in_the_chosen_language(config, capsys, lang, told):
    """Verdict, assumptions, notes and the search; JSON stays English."""
    config.write_text(config.read_text() + "optim: paged_adamw_8bit\n")
    assert main(["estimate", str(config), "--gpu-memory", "24", "--fit", "--lang", lang]) == 0
    out = capsys.readouterr().out
    assert [line for line in told if line not in out] == []
    assert main(["estimate", str(config), "--gpu-memory", "24", "--format", "json", "--lang", lang]) == 0
    raw = json.loads(capsys.readouterr().out)
    assert raw["notes"][0].startswith("paged optimizer states are not counted")
    assert raw["assumed"]["length_source"] == "cutoff_len, an upper bound: most samples are shorter"


def test_json_holds_the_estimate_and_the_search(config, capsys):
    """--format json is one JSON object; --fit adds what would fit."""
    assert main(["estimate", str(config), "--gpu-memory", "24", "--num-gpus", "2", "--length", "512", "--format", "json", "--fit"]) == 0
    raw = json.loads(capsys.readouterr().out)
    assert raw["assumed"]["length"] == 512
    assert raw["assumed"]["gpus"] == 2
    assert raw["verdict"] == "fits"
    assert raw["fit"]["changes"] == {}
    assert raw["fit"]["largest_per_device_train_batch_size"] > 2


def test_an_unknown_model_needs_its_config(tmp_path, capsys):
    """Without a shape: exit code 2 and one line naming the model; with --model-config an estimate."""
    path = tmp_path / "train.yaml"
    path.write_text(CONFIG.format(model="acme/own-model"))
    assert main(["estimate", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "acme/own-model" in captured.err
    shape = {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16, "intermediate_size": 5504, "vocab_size": 32000}
    model = tmp_path / "config.json"
    model.write_text(json.dumps(shape, indent="\t"))
    assert main(["estimate", str(path), "--model-config", str(model)]) == 0
    model.write_text(json.dumps({"hidden_size": 2048}))
    assert main(["estimate", str(path), "--model-config", str(model)]) == 2
    assert "num_hidden_layers" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["none.yaml"], ["{config}", "--format", "xml"], ["{config}", "--fit"]])
def test_bad_usage_is_one_line(arguments, config, capsys):
    """A missing file, an unknown format, a search without a card: exit code 2, nothing on standard output."""
    assert main(["estimate", *[word.format(config=config) for word in arguments]]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
