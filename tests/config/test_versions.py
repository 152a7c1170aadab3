"""Knowledge by version: read from sources without running them, exact in any order; which version is meant; what follows for a config."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from doctor.cli.main import main
from doctor.config import knowledge, versions
from doctor.config.option_names import standing
from doctor.config.options import choices_of, effective, table
from doctor.diagnosis.check import check

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import version_history  # noqa: E402
import version_knowledge  # noqa: E402
import version_sources  # noqa: E402

ARGUMENTS = """
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Optional

class Backend(str, Enum):
    HF = "huggingface"
    VLLM = "vllm"

@dataclass
class Base:
    pixels: int = field(default=768 * 768, metadata={{"help": "Most pixels."}})
    place: str = field(default=somewhere())
    _own: int = 1
    made: int = field(init=False)

@dataclass
class ModelArguments(Base):
    backend: Backend = field(default=Backend.HF, metadata={{"help": "Backend."}})
    kind: Literal["a", "b"] | None = None
    names: Optional[list[str]] = field(default_factory=list)
    {extra}

    def __post_init__(self):
        if self.pixels < {least}:
            raise ValueError(f"`pixels` is {{self.pixels}}" + ", too few.")
        __import__("os").abort()
"""
PARSER = "logger.info(\n    f'Process rank: {{rank}}'\n)\n"


def checkout(folder: Path, version: str, extra: str = "", least: int = 1, templates: tuple[str, ...] = ("one",)) -> Path:
    """A LLaMA-Factory of two options and a template, whose code ends the process where it is run."""
    package = folder / version / "src" / "llamafactory"
    files = {
        "extras/env.py": f'VERSION = "{version}"\n',
        "hparams/model_args.py": ARGUMENTS.format(extra=extra or "pass", least=least),
        "hparams/parser.py": "\n" * least + PARSER,
        "data/template.py": "".join(f'register_template(\n    name="{name}",\n)\n' for name in templates),
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    (folder / version / "setup.py").write_text('install_requires=["transformers>=4.41.2,<=4.45.0"]\n', encoding="utf-8")
    return folder / version


def wheel(folder: Path, sources: Path, name: str) -> Path:
    """The same as a wheel."""
    path = folder / f"{name}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((sources / "src").rglob("*.py")):
            archive.write(file, file.relative_to(sources / "src"))
        archive.writestr(f"{name}.dist-info/METADATA", f"Name: {name}\nRequires-Dist: transformers<=4.45.0,>=4.41.2\n")
    return path


def known(place: Path) -> version_knowledge.Knowledge:
    found = version_knowledge.of(version_sources.read(str(place)))
    version_history.without_help(found)
    return found


def test_types_defaults_and_choices_are_read_and_nothing_runs(tmp_path: Path) -> None:
    """Bases, enumerations, products, factories; what is computed or set by the program is told as such or left out."""
    found = version_knowledge.of(version_sources.read(str(checkout(tmp_path, "0.9.1", "extra: float = 0.5"))))
    options = {name: entry for name, entry in found["v0"].items() if not name.startswith("_")}
    assert options == {
        "pixels": {"group": "model", "type": "int", "default": 589824, "help": "Most pixels."},
        "place": {"group": "model", "type": "str", "computed": True, "default": None},
        "backend": {"group": "model", "type": "str", "default": "huggingface", "choices": ["huggingface", "vllm"], "help": "Backend."},
        "kind": {"group": "model", "type": "str|null", "default": None, "choices": ["a", "b"]},
        "names": {"group": "model", "type": "list|null", "default": []},
        "extra": {"group": "model", "type": "float", "default": 0.5},
    }
    assert found["checks"] == {"`pixels` is {}, too few.": True}
    assert found["templates"] == {"one": True}
    assert found["pins"] == {"transformers": ">=4.41.2,<=4.45.0"}
    assert found["log_lines"] == {"hparams.parser": 2}


def test_a_wheel_tells_the_same_as_a_checkout(tmp_path: Path) -> None:
    """But for the order in which pip writes the bounds."""
    sources = checkout(tmp_path, "0.9.1")
    told, built = known(sources), known(wheel(tmp_path, sources, "llamafactory"))
    assert {**told, "pins": {}} == {**built, "pins": {}}
    assert built["pins"] == {"transformers": "<=4.45.0,>=4.41.2"}


def test_development_versions_and_the_fork_have_names_of_their_own(tmp_path: Path) -> None:
    """0.9.6.dev0 is main; the same of llamafactory-kt is kt; both come after every release."""
    sources = checkout(tmp_path, "0.9.6.dev0")
    assert version_sources.read(str(sources)).name == "main"
    assert version_sources.read(str(wheel(tmp_path, sources, "llamafactory-kt"))).name == "kt"
    assert sorted(["kt", "0.10.0", "main", "0.9.10"], key=version_history.order) == ["0.9.10", "0.10.0", "main", "kt"]


def test_versions_can_be_added_in_any_order_and_replaced(tmp_path: Path) -> None:
    """Every version is told back as it was read; the file does not depend on the order."""
    places = [
        checkout(tmp_path, "0.9.1"),
        checkout(tmp_path, "0.9.2", "extra: int = 1", 2),
        checkout(tmp_path, "0.9.6.dev0", least=3, templates=("one", "two")),
    ]
    texts = []
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0, 1]):
        data: version_history.Data = {"products": {}}
        for place in order:
            source = version_sources.read(str(places[place]))
            version_history.insert(data, source, known(places[place]))
        texts.append(version_history.text(data))
        for path in places:
            source = version_sources.read(str(path))
            assert version_history.at(data["products"]["llamafactory"], source.name) == known(path)
    assert len(set(texts)) == 1


def test_the_files_that_are_made_from_versions_yaml_are_current() -> None:
    """rules/options.yaml, rules/option_help.yaml and docs/versions.md."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "make_versions.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_the_constants_agree_with_the_data() -> None:
    """The newest release is the one that is assumed; main is its next patch."""
    assert versions.parse(knowledge.newest()) == versions.NEWEST["llamafactory"]
    assert versions.UNRELEASED["main"] == (*versions.NEWEST["llamafactory"][:2], versions.NEWEST["llamafactory"][2] + 1)
    assert set(versions.UNRELEASED) == set(knowledge.UNRELEASED) == set(knowledge.releases()[-2:])


@pytest.mark.parametrize(
    ("facts", "may", "assumed"),
    [
        ({}, ("0.9.3", "0.9.4", "0.9.5", "main", "kt"), "0.9.5"),
        ({"versions.llamafactory": "0.9.2"}, ("0.9.2",), "0.9.2"),
        ({"versions.llamafactory": "main"}, ("main",), "main"),
        ({"versions.llamafactory": "0.9.6.dev0"}, ("main", "kt"), "main"),
        ({"versions.llamafactory": "0.9.4.dev0"}, ("0.9.3", "0.9.4"), "0.9.4"),
        ({"llamafactory.parser_line": 384}, ("0.9.2",), "0.9.2"),
        ({"llamafactory.parser_line": 430}, ("0.9.3", "0.9.4"), "0.9.4"),
        ({"llamafactory.parser_line": 7}, ("0.9.3", "0.9.4", "0.9.5", "main", "kt"), "0.9.5"),
        ({"versions.transformers": "4.46.1"}, ("0.7.0", "0.7.1", "0.8.0", "0.8.1", "0.8.2", "0.8.3", "0.9.1"), "0.9.1"),
        ({"versions.transformers": "5.7.0"}, ("main", "kt"), "main"),
    ],
)
def test_which_versions_a_run_may_have(facts: dict[str, Any], may: tuple[str, ...], assumed: str) -> None:
    """By what it reports, by the parser's line in its log, by transformers; else those of the last year and a half."""
    assert versions.possible(facts) == may
    assert versions.assumed(facts) == assumed


def test_a_log_line_tells_the_release() -> None:
    """The default of cutoff_len is that of 0.9.0 there."""
    assert effective({}, {"llamafactory.parser_line": 355})["cutoff_len"] == 2048
    assert effective({}, {"versions.llamafactory": "0.9.0"})["cutoff_len"] == 1024


@pytest.mark.parametrize(
    ("name", "facts", "kind", "detail"),
    [
        ("lora_rank", {}, "known", {}),
        ("hyper_parallel_cp_size", {}, "elsewhere", {"since": "main"}),
        ("hyper_parallel_cp_size", {"versions.llamafactory": "0.9.5"}, "unknown", {}),
        ("hyper_parallel_cp_size", {"versions.llamafactory": "main"}, "known", {}),
        ("reasoning_effort", {}, "elsewhere", {"since": "llamafactory-kt 0.9.6.dev0"}),
        ("cpu_infer", {}, "elsewhere", {"since": "0.9.4", "until": "0.9.4"}),
        ("visual_inputs", {}, "unknown", {}),
        ("use_cache", {"versions.llamafactory": "0.9.3"}, "known", {}),
        ("use_cache", {"versions.llamafactory": "0.9.4"}, "unknown", {}),
        ("overwrite_output_dir", {"versions.llamafactory": "0.9.2"}, "known", {}),
        ("no_such_option", {}, "unknown", {}),
    ],
)
def test_what_an_option_is_to_the_versions(name: str, facts: dict[str, Any], kind: str, detail: dict[str, str]) -> None:
    """Known, only elsewhere, or refused by all that are possible."""
    found = standing(name, facts)
    told = {"since": found.since, "until": found.until, "switch": found.switch}
    assert (found.kind, {key: value for key, value in told.items() if value}) == (kind, detail)


def test_megatrons_options_need_their_switch() -> None:
    """They are told, not refused; with the switch they are known; before 0.9.4 nobody has them."""
    config = ("use_mca", "expert_tensor_parallel_size")
    assert standing(config[1], {}, config).switch == "USE_MCA=1"
    assert standing(config[1], {"env.USE_MCA": "1"}, config).kind == "known"
    assert standing(config[1], {"versions.llamafactory": "0.9.3"}, config).kind == "unknown"


def test_the_values_of_a_choice_are_those_of_the_version() -> None:
    """adamw_hf was an optimizer up to transformers 4.49; bitsandbytes was the name of a method up to 0.9.2."""
    older = {"llamafactory": (0, 9, 2), "transformers": (4, 45, 2)}
    assert "adamw_hf" in (choices_of("optim", older) or ())
    assert "adamw_hf" not in (choices_of("optim", versions.NEWEST) or ())
    assert "bitsandbytes" in (choices_of("quantization_method", older) or ())
    assert table()["quantization_method"].default == "bnb"


CONFIG = "model_name_or_path: m\nstage: sft\ndo_train: true\ntokenized_path: t\ndataset: a\noutput_dir: o\n"


@pytest.mark.parametrize(
    ("line", "version", "errors", "others"),
    [
        ("template: qwen_3", None, ["config/template-unknown"], []),
        ("template: moss_vl", None, [], ["config/option-of-another-version"]),
        ("template: moss_vl", "0.9.5", ["config/template-unknown"], []),
        ("template: moss_vl", "main", [], []),
        ("template: qwen3", "0.9.2", ["config/template-unknown"], []),
        ("hyper_parallel_cp_size: 2", None, [], ["config/option-of-another-version"]),
        ("hyper_parallel_cp_size: 2", "0.9.5", ["config/unknown-option"], []),
        ("cpu_infer: 2", None, [], ["config/option-of-another-version"]),
        ("cpu_infer: 2", "0.9.4", [], []),
        ("optim: adamw_hf", "0.9.1", [], []),
        ("optim: adamw_hf", "0.9.5", ["config/value-refused"], []),
    ],
)
def test_the_verdict_is_the_versions(line: str, version: str | None, errors: list[str], others: list[str], tmp_path: Path) -> None:
    """An error where every possible version refuses; else the reader is told which have it."""
    path = tmp_path / "train.yaml"
    path.write_text(f"{CONFIG}{line}\n", encoding="utf-8")
    found = check(path, folder=tmp_path, llamafactory_version=version).findings
    concerned = [finding for finding in found if not finding.rule.startswith("data/")]
    assert [finding.rule for finding in concerned if finding.severity == "error"] == errors
    assert [finding.rule for finding in concerned if finding.rule == "config/option-of-another-version"] == others


def test_the_command_line_takes_a_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 for a release that refuses, 0 for main; a text that is no version is told."""
    path = tmp_path / "train.yaml"
    path.write_text("model_name_or_path: m\nhyper_parallel_cp_size: 2\nlora_rank: 8\n", encoding="utf-8")
    assert main(["check", str(path), "--llamafactory-version", "0.9.5"]) == 1
    assert main(["check", str(path), "--llamafactory-version", "main"]) == 0
    capsys.readouterr()
    assert main(["check", str(path), "--llamafactory-version", "new"]) == 2
    assert "no version of LLaMA-Factory" in capsys.readouterr().err


def test_the_installed_llamafactory_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its template list decides where no version is named; what is named comes first."""
    path = tmp_path / "train.yaml"
    path.write_text("model_name_or_path: m\ntemplate: qwen3\nlora_rank: 8\n", encoding="utf-8")
    assert main(["check", str(path)]) == 0
    (tmp_path / "site" / "llamafactory-0.9.2.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert main(["check", str(path)]) == 1
    assert "Template qwen3 does not exist" in capsys.readouterr().out
    assert main(["check", str(path), "--llamafactory-version", "0.9.5"]) == 0
