"""A config before it is run, through the Python door and the command line."""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import doctor
from doctor.cli.main import main
from doctor.config.patch import Change, Patch
from doctor.planner.config_fixes import fixed_by
from doctor.planner.types import ConfigText
from doctor.reporters.advice import next_commands
from doctor.reporters.registry import REPORTERS

GUIDE_QUICK = Path(__file__).parents[2] / "fixtures" / "config-guide-quick" / "train.yaml"
GOOD = {
    "model_name_or_path": "Qwen/Qwen2.5-7B-Instruct",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "dataset": "x",
    "dataset_dir": "ONLINE",
    "template": "qwen",
    "output_dir": "saves/x",
    "bf16": True,
    "learning_rate": 1e-4,
}


def above_notes(report: doctor.Report) -> list[str]:
    return [finding.rule for finding in report.findings if finding.severity != "note"]


def test_a_sound_config_is_clean(tmp_path):
    """Nothing above a note, no patch, and the report says that nothing ran."""
    report = doctor.check(GOOD, folder=tmp_path)
    assert above_notes(report) == []
    assert report.patch is None
    assert (report.kind, report.run.status) == ("check", "unknown")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"finetuning_type": "qlora"}, "config/finetuning-type-unknown"),
        ({"stage": "orpo"}, "config/stage-unknown"),
        ({"flash_attn": True}, "config/attention-unknown"),
        ({"learning_rate": "5e-5"}, "config/number-in-quotes"),
        ({"do_eval": True}, "config/evaluation-without-data"),
        ({"finetuning_type": "full", "quantization_bit": 4}, "config/quantised-full-or-freeze"),
        ({"quant_type": "nf4"}, "config/unknown-option"),
        ({"quantization_bit": 4, "quantization_method": "bitsandbytes"}, "config/quantisation-method-silent"),
    ],
)
def test_what_llamafactory_refuses_or_dies_of_is_told_before(tmp_path, change, rule):
    """Each classic slip is the root finding, and nothing else is made of it."""
    assert above_notes(doctor.check({**GOOD, **change}, folder=tmp_path))[:1] == [rule]


def test_a_finding_stands_at_its_line_of_the_config():
    """The evidence and SARIF's location name the line on which the option stands."""
    report = doctor.check(GUIDE_QUICK)
    line = GUIDE_QUICK.read_text(encoding="utf-8").splitlines().index("finetuning_type: qlora") + 1
    assert (report.findings[0].evidence[0].source, report.findings[0].evidence[0].line) == (str(GUIDE_QUICK), line)
    sarif = json.loads(REPORTERS["sarif"](report))["runs"][0]
    place = sarif["results"][0]["locations"][0]["physicalLocation"]
    assert place["region"]["startLine"] == line
    assert sarif["tool"]["driver"]["rules"][sarif["results"][0]["ruleIndex"]]["id"] == report.findings[0].rule


def test_fix_corrects_the_file_in_place_and_then_it_is_clean(tmp_path, capsys):
    """--fix changes the wrong option and nothing else; a second check finds no error; comments stay."""
    path = tmp_path / "train.yaml"
    path.write_bytes(GUIDE_QUICK.read_bytes())
    assert main(["check", str(path), "--folder", str(tmp_path), "--fix"]) == 0
    assert "1 fixed, 1 left (before: train.yaml.orig)" in capsys.readouterr().err
    assert (tmp_path / "train.yaml.orig").read_bytes() == GUIDE_QUICK.read_bytes()
    old, new = GUIDE_QUICK.read_text(encoding="utf-8"), path.read_text(encoding="utf-8")
    assert new.replace("finetuning_type: lora", "finetuning_type: qlora") == old
    assert main(["check", str(path), "--folder", str(tmp_path)]) == 0


def test_an_unreadable_config_is_one_plain_line(tmp_path, capsys):
    """Missing file and a list instead of a mapping: exit code 2, one line on stderr, nothing on stdout."""
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n", encoding="utf-8")
    for name in ("missing.yaml", "list.yaml"):
        assert main(["check", str(tmp_path / name)]) == 2
        out = capsys.readouterr()
        assert out.out == ""
        assert name in out.err
        assert out.err.count("\n") == 1


def write(path: Path, values: dict[str, object], more: str = "") -> Path:
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()) + more, encoding="utf-8")
    return path


def test_after_a_fix_the_report_is_of_the_fixed_file(tmp_path, capsys):
    """A wrong name and a slip: one is fixed, the other left; the report, the count and the exit code are those of what is left."""
    path = write(tmp_path / "t.yaml", GOOD, "max_seq_length: 512  # short\nstagee: sft\n")
    old = path.read_text(encoding="utf-8")
    assert main(["check", str(path), "--folder", str(tmp_path), "--fix", "-f", "json"]) == 1
    out = capsys.readouterr()
    told = [finding["rule"] for finding in json.loads(out.out)["findings"] if finding["severity"] == "error"]
    assert told == ["config/unknown-option"]
    assert "stagee" in out.out
    assert "1 fixed, 1 left (before: t.yaml.orig)" in out.err
    assert "Unknown option `stagee`; did you mean `stage`?" in out.err
    assert path.read_text(encoding="utf-8") == old.replace("max_seq_length", "cutoff_len")
    assert (tmp_path / "t.yaml.orig").read_text(encoding="utf-8") == old


def test_a_second_fix_keeps_the_first_backup(tmp_path):
    """The backup is the file as its writer left it, not the last state before ours."""
    path = write(tmp_path / "t.yaml", GOOD, "lora_r: 8\n")
    old = path.read_bytes()
    main(["check", str(path), "--fix"])
    path.write_bytes(path.read_bytes().replace(b"lora_rank", b"r"))
    main(["check", str(path), "--fix"])
    assert (tmp_path / "t.yaml.orig").read_bytes() == old
    assert path.read_bytes() == old.replace(b"lora_r", b"lora_rank")


def test_diff_shows_the_fix_and_writes_nothing(tmp_path, capsys):
    """--diff: exit code 1 where something would change, 0 where nothing would."""
    path = write(tmp_path / "t.yaml", GOOD, "lora_r: 8\n")
    old = path.read_bytes()
    assert main(["check", str(path), "--diff"]) == 1
    told = capsys.readouterr()
    assert "-lora_r: 8\n+lora_rank: 8\n" in told.out
    assert f"{path}: 1 would be fixed" in told.err
    assert path.read_bytes() == old
    assert [one.name for one in tmp_path.iterdir()] == ["t.yaml"]
    assert main(["check", str(write(path, GOOD)), "--diff", "--folder", str(tmp_path)]) == 0


def test_keys_are_removed_only_if_asked_for(tmp_path):
    """An unknown key is removed with --unsafe-fixes only; an option of main or of older releases, and a value that is only similar to
    a legal one, stay."""
    path = write(tmp_path / "t.yaml", GOOD, "pref_loss: sigmod\nfoo_bar: 1\nkt_config: {kt_num_threads: 8}\nvisual_inputs: true\n")
    old = path.read_text(encoding="utf-8")
    main(["check", str(path), "--fix"])
    assert path.read_text(encoding="utf-8") == old
    main(["check", str(path), "--fix", "--unsafe-fixes"])
    assert path.read_text(encoding="utf-8") == old.replace("foo_bar: 1\n", "")


@pytest.mark.parametrize("kind", ["json", "sarif"])
def test_several_files_are_one_document(tmp_path, capsys, kind):
    """A JSON array of reports, one SARIF run with the findings of all files; a file that cannot be read does not spoil it."""
    paths = [write(tmp_path / f"{name}.yaml", GOOD, f"{name}: 1\n") for name in ("foo_bar", "quant_type")]
    paths.append(tmp_path / "missing.yaml")
    assert main(["check", *map(str, paths), "--folder", str(tmp_path), "-f", kind]) == 2
    out = capsys.readouterr()
    assert "missing.yaml" in out.err
    document = json.loads(out.out)
    if kind == "json":
        assert [report["run"]["path"] for report in document] == [str(path) for path in paths[:2]]
        return
    (run,) = document["runs"]
    places = [
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in run["results"] if result["level"] == "error"
    ]
    assert places == [path.as_uri() for path in paths[:2]]
    ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(ids) == len(set(ids))
    assert all(ids[result["ruleIndex"]] == result["ruleId"] for result in run["results"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
        ("단계: sft\n".encode("euc-kr"), "is not UTF-8 text (byte 0xb4 at offset 0)"),
        (b"stage: sft\nmodel_name_or_path: [a\nlora_rank: 8\n", "line 3: "),
        (b"stage: sft\n\tlora_rank: 8\n", "line 2: "),
        (b"services: {web: {image: x}}\n", "not a LLaMA-Factory training configuration (0 of 1 top-level keys are its options)"),
        (b"a" * (2 << 20), "2 MiB are too much"),
        (b"stage: sft\ndataset: x\ncutoff_len: " + b"9" * 5000, "not valid YAML"),
    ],
    ids=["0 bytes", "blank", "EUC-KR", "broken YAML", "tab", "compose", "2 MiB", "5,000 digits"],
)
def test_what_cannot_be_checked_is_one_line_and_exit_code_2(tmp_path, capsys, content, told):
    """The reason, with the line where there is one; the file stays as it is."""
    path = tmp_path / "t.yaml"
    path.write_bytes(content)
    assert main(["check", str(path), "--fix"]) == 2
    out = capsys.readouterr()
    assert told in out.err
    assert (out.out, out.err.count("\n")) == ("", 1)
    assert path.read_bytes() == content


def test_a_pipe_or_a_folder_does_not_block(tmp_path, capsys):
    """Neither is opened: a FIFO without a writer would wait for ever."""
    os.mkfifo(tmp_path / "pipe.yaml")
    assert main(["check", str(tmp_path / "pipe.yaml")]) == 2
    assert "is a pipe, not a file" in capsys.readouterr().err
    assert main(["check", str(tmp_path)]) == 2
    assert "is a directory, not a file" in capsys.readouterr().err


UNKNOWN_MODEL = {
    "en": "no estimate for model my/own-model (`lfdoctor estimate` says what is missing)",
    "ko": "모델 my/own-model의 메모리를 추정할 수 없음(`lfdoctor estimate`에서 이유를 볼 수 있음)",
    "zh": "无法估计模型 my/own-model 的显存（用 `lfdoctor estimate` 查看原因）",
}
NO_MODEL = {"en": "the config names no model", "ko": "설정에 모델이 없음", "zh": "配置中没有写模型"}
NO_GPU = {
    "en": "the GPU's size is not known (add `--gpu-memory 24` to see if it fits)",
    "ko": "GPU 메모리 크기를 모름(`--gpu-memory 24`를 지정하면 들어가는지 확인함)",
    "zh": "但不知道 GPU 显存大小（加上 `--gpu-memory 24` 可检查是否放得下）",
}
NOT_CHECKED = {"en": "Memory was not checked: ", "ko": "메모리는 확인하지 않았습니다: ", "zh": "没有检查显存："}


def squeezed(text: str) -> str:
    """Without line breaks and markup, so that a sentence is found however a format writes it."""
    plain = html.unescape(re.sub(r"</?code>|\\(?=[_*#])", "", text))
    return re.sub(r"\s+", "", plain.replace("`", ""))


@pytest.mark.parametrize("lang", ["en", "ko", "zh"])
@pytest.mark.parametrize(
    ("model", "gpu_memory", "why"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", None, NO_GPU),
        ("my/own-model", None, UNKNOWN_MODEL),
        ("my/own-model", 24.0, UNKNOWN_MODEL),
        (None, 24.0, NO_MODEL),
    ],
    ids=["no GPU", "unknown model", "unknown model and a GPU", "no model"],
)
def test_memory_that_was_not_checked_is_part_of_the_report(tmp_path, lang, model, gpu_memory, why):
    """Every format says so with the reason, in the report's language: nobody takes silence for a fit."""
    config = {key: value for key, value in {**GOOD, "cutoff_len": 512, "model_name_or_path": model}.items() if value is not None}
    report = doctor.check(config, folder=tmp_path, gpu_memory_gib=gpu_memory, lang=lang)
    assert {one.rule for one in report.could_not_look} == {"memory/forecast-does-not-fit", "memory/forecast-tight"}
    for kind in ("terminal", "markdown", "html", "sarif"):
        assert squeezed(why[lang]) in squeezed(REPORTERS[kind](report)), kind
    if report.verdict == "healthy":
        for kind in ("terminal", "markdown", "html"):
            assert squeezed(NOT_CHECKED[lang]) in squeezed(REPORTERS[kind](report)), kind


def test_memory_that_was_checked_is_not_said_to_be_missing(tmp_path):
    """With a known model and a GPU the forecast rules ran; without, they are not among those that did."""
    known = doctor.check({**GOOD, "cutoff_len": 512}, folder=tmp_path, gpu_memory_gib=80)
    assert known.could_not_look == []
    assert "Memory was not checked" not in REPORTERS["terminal"](known)
    unknown = doctor.check({**GOOD, "cutoff_len": 512}, folder=tmp_path)
    assert unknown.rules_looked == known.rules_looked - 2
    assert known.rules_looked < 150  # the rules that ask about the config alone, not all


def test_the_joined_sarif_keeps_what_was_not_checked_of_every_file(tmp_path, capsys):
    """One notification for each file, with the file's address."""
    paths = [write(tmp_path / f"{name}.yaml", GOOD) for name in ("a", "b")]
    main(["check", *map(str, paths), "--folder", str(tmp_path), "-f", "sarif"])
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert [note["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for note in notes] == [path.as_uri() for path in paths]
    assert all("memory: about " in note["message"]["text"] for note in notes)


@pytest.mark.parametrize(
    ("more", "fixed_by", "options"),
    [
        ('cutoff_len: "512"\n', "safe", [["--fix"], ["train"]]),
        ("foo_bar: 1\n", "unsafe", [["--unsafe-fixes", "--diff"], ["--fix", "--unsafe-fixes"], ["train"]]),
        ("lora_r: 16\nfoo_bar: 1\n", "unsafe", [["--unsafe-fixes", "--diff"], ["--fix", "--unsafe-fixes"], ["train"]]),
        ("fp16: true\n", "unsafe", [["--unsafe-fixes", "--diff"], ["--fix", "--unsafe-fixes"], ["train"]]),
    ],
)
def test_do_next_names_the_option_that_writes_the_patch(tmp_path, capsys, more, fixed_by, options):
    """--fix where it is enough; else --unsafe-fixes, shown before it is written; and after these commands no error is left."""
    path = write(tmp_path / "t.yaml", GOOD, more)
    report = doctor.check(path, folder=tmp_path)
    assert report.patch is not None
    assert report.patch.fixed_by == fixed_by
    commands = [line.split() for line in next_commands(report)]
    assert [[word for word in words if word.startswith("--") or word == "train"] for words in commands] == options
    for words in commands[:-1]:
        main([*words[1:], "--folder", str(tmp_path)])
    capsys.readouterr()
    assert main(["check", str(path), "--folder", str(tmp_path)]) == 0


def test_a_patch_that_leaves_the_file_alone_needs_no_fix(tmp_path):
    """A change of the environment: nothing to write, the command that trains is all there is to do."""
    path = write(tmp_path / "t.yaml", GOOD, "foo_bar: 1\n")
    assert fixed_by(ConfigText(str(path), "stage: sft\n"), Patch((Change("env", "set", "FORCE_TORCHRUN", None, "1"),))) is None
    report = doctor.check(path, folder=tmp_path)
    assert report.patch is not None
    assert next_commands(msgspec.structs.replace(report, patch=msgspec.structs.replace(report.patch, fixed_by=None))) == [
        f"llamafactory-cli train {path}"
    ]


UNSET_FOO, UNSET_KT = Change("config", "unset", "foo_bar", 1, None), Change("config", "unset", "kt_config", {"a": 1}, None)


@pytest.mark.parametrize(
    ("changes", "reach"), [([UNSET_FOO], "unsafe"), ([UNSET_FOO, UNSET_KT], "partly"), ([UNSET_KT], "nothing"), ([], None)]
)
def test_an_option_of_a_newer_release_is_left_to_a_person(changes, reach):
    """It may be right for the release that is installed: no option of `check` removes it."""
    text = ConfigText("t.yaml", "stage: sft\nmodel_name_or_path: m\nfoo_bar: 1\nkt_config: {a: 1}\n")
    assert fixed_by(text, Patch(tuple(changes))) == reach


@pytest.mark.parametrize("reach", ["partly", "nothing"])
def test_no_command_trains_with_a_config_that_is_still_wrong(tmp_path, reach):
    """What a person has to edit comes first."""
    report = doctor.check(write(tmp_path / "t.yaml", GOOD, "foo_bar: 1\n"), folder=tmp_path)
    assert report.patch is not None
    commands = next_commands(msgspec.structs.replace(report, patch=msgspec.structs.replace(report.patch, fixed_by=reach)))
    assert len(commands) == (2 if reach == "partly" else 0)
    assert not any("train " in command for command in commands)


def test_a_json_config_is_an_error_of_its_own(tmp_path):
    """LLaMA-Factory 0.9.4 and later die of every JSON file; the same text as YAML is fine."""
    path = tmp_path / "t.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    assert above_notes(doctor.check(path, folder=tmp_path)) == ["config/check-json-config"]


@pytest.mark.parametrize(
    "value",
    [10**4200, float("nan"), float("inf"), -(10**400), "9" * 5000, 1 << 80],
    ids=["4,201 digits", "nan", "inf", "-1e400", "5,000 digits as text", "2**80"],
)
def test_absurd_numbers_break_no_output(tmp_path, value):
    """Every format can be written, and JSON read again, whatever number an option holds."""
    for key in ("per_device_train_batch_size", "learning_rate", "cutoff_len", "warmup_steps", "lora_rank", "image_max_pixels"):
        report = doctor.check({**GOOD, key: value}, folder=tmp_path, gpu_memory_gib=24)
        for name in ("json", "sarif", "terminal", "markdown"):
            assert REPORTERS[name](report)
        json.loads(REPORTERS["json"](report))


def test_foreign_files_can_be_passed_over(tmp_path, capsys):
    """As pre-commit needs it, which hands over every YAML file of a commit; a broken training config still fails."""
    good, compose = write(tmp_path / "t.yaml", GOOD), tmp_path / "compose.yaml"
    compose.write_text("services: {web: {image: x}}\n", encoding="utf-8")
    assert main(["check", str(good), str(compose), "--folder", str(tmp_path), "--skip-foreign"]) == 0
    assert "compose" not in capsys.readouterr().err
    assert main(["check", str(compose), "--skip-foreign", "-f", "json"]) == 0
    assert main(["check", str(good), str(compose), "--folder", str(tmp_path)]) == 2


def test_a_misspelt_key_of_a_v1_config_is_named(tmp_path, capsys):
    """The v1 trainer refuses unknown keys too."""
    v1 = {"model": "Qwen/Qwen3-4B", "train_dataset": "x", "output_dir": "o", "micro_batch_size": 1, "cutof_len": 512}
    assert main(["check", str(write(tmp_path / "t.yaml", v1))]) == 1
    told = capsys.readouterr().out
    assert "Unknown option cutof_len of the v1 trainer" in told
    assert "Did you mean `cutoff_len`?" in " ".join(told.split())
    assert main(["check", str(write(tmp_path / "t.yaml", {key: value for key, value in v1.items() if key != "cutof_len"}))]) == 0


@pytest.mark.parametrize(
    "config",
    [
        {"deepspeed": 10**5000},
        {"stage": "sft", "model_name_or_path": "Qwen/Qwen2.5-7B", "warmup_steps": 10**5000, "max_steps": -(10**5000)},
        {"learning_rate": [10**5000], "nested": {"key": 10**5000}},
        {10**5000: 1},
    ],
    ids=["deepspeed", "steps", "nested", "key"],
)
def test_numbers_that_python_refuses_to_print(config: dict[Any, Any]) -> None:
    """Python converts no integer of more than 4,300 digits to text, and none of more than 308 to a float."""
    report = doctor.check(config, gpu_memory_gib=24.0, num_gpus=2)
    assert report.kind == "check"
    assert json.loads(json.dumps(report.to_dict()))["kind"] == "check"
