"""What is shipped, what it declares to need, and what starting it costs."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "sklearn", "plotly", "pandas", "numpy", "tensorboard", "pynvml")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = {"jinja2", "msgspec", "pyyaml", "rich", "typer"}
OPTIONAL = {
    "apprise", "datasketch", "distributed", "fsspec", "google_crc32c", "hyperscan", "joblib", "mcp", "numpy", "pandas", "plotly",
    "prometheus_client", "psutil", "pyarrow", "pynvml", "ray", "scipy", "sklearn", "tokenizers", "zstandard",
}  # fmt: skip
"""Import names of the libraries that doctor/ may ask doctor/support/optional.py for."""
DISTRIBUTIONS = {
    "yaml": "pyyaml", "sklearn": "scikit-learn", "google_crc32c": "google-crc32c", "prometheus_client": "prometheus-client",
    "pynvml": "nvidia-ml-py",
}  # fmt: skip
"""Import name -> distribution, where they differ."""
TYPES_ONLY = {("doctor/core/run.py", "pandas")}
ASKED = {("doctor/dataset/oracle.py", "llamafactory")}
"""Runs only in a child process of `lfdoctor data --ask`, where the user has LLaMA-Factory."""
DOOR = ("need", "optional", "package_folder")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("lfdoctor-*-py3-none-any.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_is_pure_and_carries_every_rule_and_word(wheel):
    """A wheel built from this tree installs anywhere and holds all data files that the program reads."""
    names = set(wheel.namelist())
    rules = {f"doctor/rules/{path.relative_to(ROOT / 'rules').as_posix()}" for path in (ROOT / "rules").rglob("*.yaml")}
    words = {path.relative_to(ROOT).as_posix() for path in (ROOT / "doctor" / "words").glob("*.yaml")}
    assert rules
    assert words
    page = {f"doctor/reporters/html/{name}" for name in ("page.html", "page.js", "style.css")}
    tables = {"doctor/dataset/page.html", "doctor/dataset/templates.yaml", "doctor/dataset/tool_prompts.yaml"}
    indexes = {f"doctor/diagnosis/unlisted/{name}.msgpack" for name in ("origins", "api_index")}
    assert rules | words | page | tables | indexes | {"doctor/py.typed"} <= names
    assert not any(name.startswith(("tests/", "fixtures/")) for name in names)


def test_the_version_stands_in_one_file(wheel):
    """The metadata has the version of doctor/version.py, and no other file of the package or its build repeats it."""
    (version,) = re.findall(r'^__version__ = "([^"]+)"$', (ROOT / "doctor" / "version.py").read_text(encoding="utf-8"), re.MULTILINE)
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Version"] == version
    assert "version" not in PROJECT
    assert {name_of(one) for one in metadata.get_all("Requires-Dist") if "extra ==" not in one} == CORE


def name_of(requirement: str) -> str:
    """The distribution that a requirement names, normalised."""
    return re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def extra(name: str) -> set[str]:
    """The distributions of an extra, with those of the extras that it includes."""
    out: set[str] = set()
    for requirement in PROJECT["optional-dependencies"][name]:
        if included := re.fullmatch(r"lfdoctor\[([^\]]+)\]", requirement):
            out |= {one for part in included[1].split(",") for one in extra(part)}
        else:
            out.add(name_of(requirement))
    return out


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "doctor").rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_import_statements_name_core_dependencies_only():
    """Every third-party import statement in doctor/ is of a distribution that `pip install .` brings."""
    found = set()
    for path, tree in trees():
        for node in ast.walk(tree):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            found |= {(path, name.partition(".")[0]) for name in names}
    foreign = {(path, name) for path, name in found if name not in sys.stdlib_module_names and name != "doctor"} - TYPES_ONLY - ASKED
    assert {DISTRIBUTIONS.get(name, name) for _, name in foreign} == CORE


def door_calls() -> Iterator[tuple[str, list[ast.expr]]]:
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in DOOR:
                yield f"{path}:{node.lineno}", node.args


def test_each_optional_library_is_declared_by_the_extra_that_its_call_names():
    """need("zstandard", "zstd"): the extra `zstd` brings the distribution of that module; and no extra is declared without a use."""
    used: dict[str, set[str]] = {}
    for place, arguments in door_calls():
        texts = [one.value for one in arguments[:2] if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        assert len(texts) == 2, f"{place}: module and extra stand here as literals"
        module, name = texts[0].partition(".")[0], texts[1]
        assert module in OPTIONAL, place
        assert DISTRIBUTIONS.get(module, module) in extra(name), f"{place}: {module} is not in the extra {name}"
        used.setdefault(name, set()).add(module)
    assert used.keys() == PROJECT["optional-dependencies"].keys() - {"all", "test", "dev"}


def test_all_means_every_extra_but_ray_and_the_developers():
    """`all` brings what any other extra brings; Ray, half a gigabyte for clusters, has to be asked for."""
    everything = {one for name in PROJECT["optional-dependencies"].keys() - {"ray", "test", "dev"} for one in extra(name)}
    assert extra("all") == everything
    assert "ray" not in everything


def test_the_readme_names_every_extra():
    """The table in README.md is complete."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in PROJECT["optional-dependencies"].keys() - {"test", "dev"}:
        assert f"`{name}`" in text


def pins(file: str) -> dict[str, list[str]]:
    """Distribution -> its versions in a file of requirements (one for each marker)."""
    out: dict[str, list[str]] = {}
    for line in (ROOT / "requirements" / file).read_text(encoding="utf-8").splitlines():
        name, version = re.fullmatch(r"([\w.-]+)==(\S+)(?: ; .+)?", line).groups()
        out.setdefault(name_of(name), []).append(version)
    return out


def test_every_dependency_is_locked():
    """requirements/locked.txt has a version of everything that `make demo` and `make test` ask pip for."""
    assert not (CORE | extra("dev")) - pins("locked.txt").keys()


def test_the_lowest_releases_are_those_declared():
    """requirements/lowest.txt pins each direct dependency at the minimum in pyproject.toml, up to further zeros."""
    lowest = pins("lowest.txt")
    extras = PROJECT["optional-dependencies"]
    declared = [*PROJECT["dependencies"], *(one for name in extras.keys() - {"ray", "test", "dev", "all"} for one in extras[name])]
    minimums = [re.match(r"([\w.-]+)>=([\d.]+)", one).groups() for one in declared]
    assert {name_of(name) for name, _ in minimums} == CORE | extra("all")
    highest: dict[str, str] = {}
    for name, version in minimums:
        highest[name_of(name)] = max(highest.get(name_of(name), ""), version)
    assert {name: lowest[name] for name in highest if not f"{lowest[name][0]}.".startswith(f"{highest[name]}.")} == {}


WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(OPTIONAL)!r}))
from doctor.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def doctor(*arguments: str, here: Path, bare: bool = True) -> subprocess.CompletedProcess[str]:
    """The command, in an environment without any optional library unless told otherwise."""
    start = ["-c", WITHOUT] if bare else ["-m", "doctor"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LFDOCTOR_CACHE": str(here / "cache")}
    return subprocess.run(
        [sys.executable, *start, *arguments], cwd=here, env=environment, capture_output=True, text=True, encoding="utf-8", check=False,
        timeout=120,
    )  # fmt: skip


CONSOLE, EVENTS = ROOT / "fixtures" / "gpu_oom_activations-forward", ROOT / "fixtures" / "healthy-sft-tensorboard"


@pytest.mark.parametrize("fixture", [CONSOLE, EVENTS, ROOT / "fixtures" / "lr_too_high-full-eval"], ids=lambda path: path.name)
def test_a_report_is_the_same_without_optional_libraries(fixture, tmp_path):
    """Console, event files and trainer logs: they make it faster, never different."""
    bare, full = (
        doctor("analyze", str(fixture), "--format", "json", "--fail-on", "never", here=tmp_path, bare=one) for one in (True, False)
    )
    assert bare.returncode == full.returncode == 0, bare.stderr
    assert bare.stdout == full.stdout


@pytest.mark.parametrize("kind", ["terminal", "markdown", "html", "sarif"])
def test_every_format_is_written_without_optional_libraries(kind, tmp_path):
    """A report with curves, in each format."""
    out = tmp_path / "report"
    done = doctor("analyze", str(EVENTS), "--format", kind, "-o", str(out), "--fail-on", "never", here=tmp_path)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert len(text) > 100
    if kind == "html":
        assert "<polyline" in text
        assert "pip install &#39;lfdoctor[html]&#39;" in text
        assert 'id="plotly"' not in text


def test_every_core_command_works_without_optional_libraries(tmp_path):
    """check, estimate, run, watch, show, bundle, rules, explain: none of them ends in an error of the program."""
    config = str(CONSOLE / "train.yaml")
    model = tmp_path / "config.json"
    model.write_text(json.dumps({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 128,
    }))  # fmt: skip
    commands = (
        ("check", config, "--fail-on", "never"),
        ("estimate", config, "--gpu-memory", "24", "--model-config", str(model)),
        ("run", "-o", "out", "--", sys.executable, "-c", "print('done')"),
        ("watch", "--once", "out"),
        ("bundle", str(CONSOLE), "-o", "bundle.zip"),
        ("analyze", str(CONSOLE), "--format", "json", "-o", "report.json", "--fail-on", "never"),
        ("show", "report.json", "--format", "markdown"),
        ("rules", "list"),
        ("explain", "gpu-oom"),
    )
    for command in commands:
        done = doctor(*command, here=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        assert "lfdoctor[" not in done.stderr


@pytest.mark.parametrize(
    ("command", "library", "name"),
    [
        (("compare", str(CONSOLE), str(EVENTS)), "numpy", "fleet"),
        (("run", "--metrics", "0", "-o", "out", "--", sys.executable, "-c", ""), "prometheus_client", "metrics"),
        (("run", "--notify", "json://localhost", "-o", "out", "--", sys.executable, "-c", ""), "apprise", "notify"),
        (("analyze", "s3://bucket/run"), "fsspec", "remote"),
        (("analyze", "console.log.zst"), "zstandard", "zstd"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_needs_a_library_says_which_command_installs_it(command, library, name, tmp_path):
    """One line that names the library and the extra."""
    (tmp_path / "console.log.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(64))
    done = doctor(*command, here=tmp_path)
    assert done.returncode in (2, 3), done.stderr
    assert f"needs the package {library}: pip install 'lfdoctor[{name}]'" in done.stderr


def test_zstd_files_of_a_folder_are_not_passed_over_silently(tmp_path):
    """Beside readable files, the report says what was not read and why."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "train.yaml").write_bytes((CONSOLE / "train.yaml").read_bytes())
    (run / "console.log.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(64))
    report = json.loads(doctor("analyze", str(run), "--format", "json", "--fail-on", "never", here=tmp_path).stdout)
    problems = {one["path"].rpartition("/")[2]: one["problems"] for one in report["run"]["sources"]}
    assert problems["train.yaml"] == []
    assert problems["console.log.zst"] == ["not read: zstd needs the package zstandard: pip install 'lfdoctor[zstd]'"]


def test_public_names_are_listed_before_they_are_loaded():
    """What completion in a notebook shows; and listing them loads nothing."""
    code = "import sys, doctor; print(set(doctor.__all__) <= set(dir(doctor)), 'analyze' in dir(doctor), 'msgspec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


def test_analyzing_a_plain_run_imports_nothing_heavy():
    """`lfdoctor analyze` of a fixture leaves torch, transformers, scikit-learn, plotly and the table libraries alone."""
    fixture = (ROOT / "fixtures" / "DEMO").read_text(encoding="utf-8").strip()
    code = (
        "import sys; from doctor.cli.main import main\n"
        f"try: main(['analyze', {str(ROOT / 'fixtures' / fixture)!r}, '--format', 'json'])\n"
        f"except SystemExit: pass\nprint(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("{")
    assert done.stderr.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("path", "looked_at"),
    [
        ("examples/train_lora/llama3_lora_sft.yaml", True),
        ("configs/train.yml", True),
        ("qwen-dpo.yaml", True),
        ("finetune/stage1.yaml", True),
        ("docker-compose.yaml", False),
        ("training/docker-compose.yml", False),
        (".github/workflows/train.yaml", False),
        ("mkdocs.yml", False),
        ("deploy/llama.yaml", False),
        ("src/settings.yaml", False),
    ],
)
@pytest.mark.parametrize("place", [0, 1], ids=["check", "fix"])
def test_the_hooks_look_at_training_configs_only(place, path, looked_at):
    """Which files pre-commit hands over, by the expressions it searches for."""
    hook = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))[place]
    assert (bool(re.search(hook["files"], path)) and not re.search(hook["exclude"], path)) is looked_at
