"""What `check` and `estimate` print on standard error is in the language of the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.cli.main import main
from doctor.errors import DoctorError
from doctor.support.texts import Text

CONFIG = """\
model_name_or_path: acme/own-model
stage: sft
do_train: true
finetuning_type: lora
dataset: x
dataset_dir: ONLINE
template: qwen
output_dir: o
bf16: true
learning_rate: 1.0e-4
"""

MISSPELT = "max_seq_length: 512\nstagee: sft\nwandb_project: p\n"
LEFT = {
    "ko": [
        "`stagee`은(는) 없는 옵션입니다. 혹시 `stage`인가요?",
        "`wandb_project`은(는) 없는 옵션입니다: 옵션이 없습니다. 환경 변수 WANDB_PROJECT를 설정하세요",
        "1개 수정, 2개 남음(원본: t.yaml.orig)",
    ],
    "zh": [
        "未知配置项 `stagee`；是不是 `stage`？",
        "未知配置项 `wandb_project`：没有此配置项；请设置环境变量 WANDB_PROJECT",
        "已修正 1 处，剩余 2 处（原文件：t.yaml.orig）",
    ],
}


@pytest.mark.parametrize("lang", LEFT)
def test_keys_that_are_left_are_told_in_the_chosen_language(tmp_path: Path, capsys: pytest.CaptureFixture[str], lang: str) -> None:
    """The unknown keys and the count after --fix."""
    path = tmp_path / "t.yaml"
    path.write_text(CONFIG + MISSPELT, encoding="utf-8")
    assert main(["check", str(path), "--folder", str(tmp_path), "--fix", "-f", "json", "--lang", lang]) == 1
    assert capsys.readouterr().err.splitlines() == [f"lfdoctor: {path}: {line}" for line in LEFT[lang]]


@pytest.mark.parametrize(
    ("arguments", "lang", "told"),
    [
        (["check", "{compose}", "--lang=ko"], "en", "LLaMA-Factory 학습 설정이 아닙니다(최상위 키 1개 중 LLaMA-Factory 옵션은 0개)"),
        (["check", "{compose}"], "zh", "不是 LLaMA-Factory 训练配置（1 个顶层键中有 0 个是它的配置项）"),
        (["check", "{compose}", "{config}", "-o", "out.txt", "--lang", "ko"], "en", "파일을 하나씩 검사하세요"),
        (["check", "{none}", "--lang", "zh"], "en", "无法读取此配置：No such file or directory"),
        (["check", "{folder}", "--lang", "ko"], "en", "파일이 아니라 폴더입니다"),
        (["check", "{config}", "--fail-on", "all", "--lang", "zh"], "en", "--fail-on 只能是 error, warning, never 之一，不能是 'all'"),
        (["estimate", "{config}"], "ko", "모델 'acme/own-model'의 구조를 알 수 없습니다"),
        (["estimate", "{config}"], "en", "the shape of model 'acme/own-model' is not known"),
        (["estimate", "{none}"], "zh", "无法读取此配置"),
        (["estimate", "{config}", "--model-config", "{compose}"], "ko", "JSON으로 읽을 수 없습니다"),
        (["check", "{compose}", "--lang", "xx"], "ko", "--lang 값은 en, ko, zh 중 하나여야 합니다"),
    ],
)
def test_an_error_is_told_in_the_chosen_language(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], lang: str, told: str
) -> None:
    """--lang decides, then LFDOCTOR_LANG; one line, and exit code 2."""
    monkeypatch.setenv("LFDOCTOR_LANG", lang)
    (tmp_path / "t.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "compose.yaml").write_text("services: {web: {image: x}}\n", encoding="utf-8")
    places = {"config": tmp_path / "t.yaml", "compose": tmp_path / "compose.yaml", "none": tmp_path / "none.yaml", "folder": tmp_path}
    assert main([word.format(**places) for word in arguments]) == 2
    out = capsys.readouterr()
    assert told in out.err
    assert (out.out, out.err.count("\n")) == ("", 1)


def test_an_error_is_english_as_a_string() -> None:
    """From Python, `str(error)` is English; a message without translation is the same in every language."""
    error = DoctorError(Text("no", "아니요", "不"))
    assert (str(error), error.in_language("ko"), error.in_language("zh")) == ("no", "아니요", "不")
    assert (str(DoctorError("no")), DoctorError("no").in_language("ko")) == ("no", "no")
