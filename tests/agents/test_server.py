"""The MCP server through the official SDK's client: what the tools answer, what they refuse, how long answers are."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp.server.mcpserver", reason="the extra mcp")
from mcp import Client, StdioServerParameters

from doctor.agents.budget import DETAIL_TOKENS, VERDICT_TOKENS, tokens
from doctor.agents.server import build
from doctor.agents.tools import READING, WRITING, Agent
from doctor.cli.main import main
from doctor.support.languages import LANGUAGES

FIXTURES = Path(__file__).parents[2] / "fixtures"
FAILED = "lr_too_high-lora"
MEASURED = (FAILED, "gpu_oom_reference_model-dpo-full", "data-error-rank1", "healthy-sft-eval", "overfitting-tiny-set")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A root with a copy of a failed run, and a secret beside the root."""
    root = tmp_path / "root"
    shutil.copytree(FIXTURES / FAILED, root / "run")
    (tmp_path / "secret.yaml").write_text("model_name_or_path: secret-model\nstage: sft\n", encoding="utf-8")
    return root


def call(root: Path, name: str, /, *, allow_write: bool = False, lang: str = "en", **arguments: Any) -> tuple[bool, str]:
    """(Whether the tool refused, its text) of one call through the SDK's client, in this process."""

    async def ask() -> tuple[bool, str]:
        async with Client(build(Agent([root], allow_write=allow_write, lang=lang))) as client:
            result = await client.call_tool(name, arguments)
            return bool(result.is_error), "".join(part.text for part in result.content)

    return asyncio.run(ask())


def answer(root: Path, name: str, /, **arguments: Any) -> dict[str, Any]:
    refused, text = call(root, name, **arguments)
    assert not refused, text
    data: dict[str, Any] = json.loads(text)
    return data


def test_a_session_over_standard_streams(place: Path) -> None:
    """The real program: tools with hints, a diagnosis, a patch that is planned, then written, then named in the command."""

    async def session() -> list[Any]:
        program = StdioServerParameters(
            command=sys.executable, args=["-m", "doctor", "mcp", "--root", str(place), "--allow-write"], env=dict(os.environ)
        )
        async with Client(program) as client:
            tools = (await client.list_tools()).tools
            calls = [("diagnose", {"path": "run"}), ("plan_patch", {"path": "run"}), ("apply_patch", {"path": "run", "output": "new.yaml"})]
            results = [await client.call_tool(name, arguments) for name, arguments in calls]
            return [{tool.name: tool.annotations.read_only_hint for tool in tools}, *(json.loads(one.content[0].text) for one in results)]

    tools, diagnosis, plan, written = asyncio.run(session())
    assert tools == {**dict.fromkeys(READING, True), **dict.fromkeys(WRITING, False)}
    assert next(iter(diagnosis)) == "verdict"
    assert (diagnosis["verdict"], diagnosis["cause"]) == ("unhealthy", "lr_too_high")
    assert diagnosis["do"][0]["old_new"] == {"learning_rate": [0.3, 0.0001]}
    assert {change["key"] for change in plan["changes"]} == {"learning_rate", "output_dir"}
    assert written["command"] == f"llamafactory-cli train {place}/new.yaml"
    assert "learning_rate: 0.0001" in (place / "new.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(
    "name", [FAILED, "gpu_oom_reference_model-dpo-full", "data-error-rank1", "healthy-sft-eval", "overfitting-tiny-set"]
)
def test_answers_keep_to_their_budget_and_begin_with_the_verdict(name: str, lang: str) -> None:
    """Verdict at most 800 tokens, with evidence and patch at most 3,000, by a bound that is above real tokenizers; in every language."""
    for tool, arguments, limit in (
        ("diagnose", {"path": name}, VERDICT_TOKENS),
        ("diagnose", {"path": name, "detail": "evidence"}, DETAIL_TOKENS),
        ("plan_patch", {"path": name}, DETAIL_TOKENS),
        ("watch", {"path": name}, VERDICT_TOKENS),
    ):
        refused, text = call(FIXTURES, tool, lang=lang, **arguments)
        assert not refused
        assert tokens(text) <= limit
        if tool == "diagnose":
            assert text.startswith('{"verdict": "')
            assert {"title", "why", "run"} <= json.loads(text).keys()


def test_the_other_tools_answer() -> None:
    """check, estimate, explain and compare: each says what the command of the same name says."""
    checked = answer(FIXTURES, "check", config="config-unknown-key/train.yaml")
    assert checked["do"][0]["old_new"] == {"learning_rates": [0.0001, "(remove)"]}
    assert answer(FIXTURES, "explain", rule="gpu_oom_activations")["rules"][0]["rule"] == "memory/gpu-oom-activations"
    assert answer(FIXTURES, "compare", paths=["healthy-sft", FAILED])["differences"]["learning_rate"] == [0.0005, 0.3]


def test_the_estimate_is_that_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same figures and the same search for what fits."""
    config = tmp_path / "train.yaml"
    config.write_text(
        "model_name_or_path: Qwen/Qwen2.5-7B-Instruct\nstage: sft\nfinetuning_type: lora\nbf16: true\ncutoff_len: 2048\n", encoding="utf-8"
    )
    assert main(["estimate", str(config), "--gpu-memory", "24", "--fit", "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    told = answer(tmp_path, "estimate", config="train.yaml", gpu_memory_gib=24, fit=True)
    assert told["allocated_gib"] == printed["allocated_gib"]
    assert told["fit"] == printed["fit"]


def test_nothing_is_written_without_the_flag_and_nothing_is_overwritten(place: Path) -> None:
    """The refusal says how the user allows it; an existing file stays as it is."""
    refused, text = call(place, "apply_patch", path="run", output="new.yaml")
    assert refused
    assert "--allow-write" in text
    assert not (place / "new.yaml").exists()
    before = (place / "run" / "train.yaml").read_bytes()
    refused, text = call(place, "apply_patch", allow_write=True, path="run", output="run/train.yaml")
    assert refused
    assert "exists already" in text
    assert (place / "run" / "train.yaml").read_bytes() == before


def test_a_cause_without_an_option_writes_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    """apply_patch tells that no file was written, and the remedies by hand."""
    shutil.copytree(FIXTURES / "data-error-rank1", tmp_path / "run")
    told = answer(tmp_path, "apply_patch", allow_write=True, path="run", output="new.yaml")
    assert told["written"] is None
    assert told["patch"] == "none"
    assert {remedy["status"] for remedy in told["instead"]} == {"by_hand"}
    assert not (tmp_path / "new.yaml").exists()


OUTSIDE = (
    "/etc/passwd", "..", "../secret.yaml", "run/../../secret.yaml", "-", "", "s3://bucket/run", "file:///etc/passwd", "a\0b", "x" * 5000,
    "~", "loop", "outside", "linked", "/proc/self/environ",
)  # fmt: skip
NOT_TO_WRITE = ("/tmp/lfdoctor-outside.yaml", "../new.yaml", "outside/new.yaml", "run/none/new.yaml", "dangling.yaml", "")


@pytest.mark.parametrize("path", OUTSIDE, ids=range(len(OUTSIDE)))
def test_paths_outside_the_roots_are_refused(place: Path, path: str) -> None:
    """For every tool that reads: absolute, relative, by a link, by a link inside the run, a URL, standard input, a loop."""
    (place / "loop").symlink_to(place / "loop")
    (place / "outside").symlink_to(place.parent)
    shutil.copytree(place / "run", place / "linked")
    (place / "linked" / "more.yaml").symlink_to(place.parent / "secret.yaml")
    for name, arguments in (
        ("diagnose", {"path": path}),
        ("diagnose", {"path": "run", "config": path or "-"}),
        ("check", {"config": path}),
        ("estimate", {"config": path}),
        ("plan_patch", {"path": path}),
        ("watch", {"path": path}),
        ("compare", {"paths": ["run", path]}),
    ):
        refused, text = call(place, name, **arguments)
        assert refused, (name, text)
        assert "secret-model" not in text
        assert "root:" not in text


@pytest.mark.parametrize(
    "output", ["/tmp/lfdoctor-outside.yaml", "../new.yaml", "outside/new.yaml", "run/none/new.yaml", "dangling.yaml", ""]
)
def test_patches_are_not_written_outside_the_roots(place: Path, output: str) -> None:
    """Nor through a link, nor into a folder that does not exist."""
    (place / "outside").symlink_to(place.parent)
    (place / "dangling.yaml").symlink_to(place.parent / "made.yaml")
    refused, _ = call(place, "apply_patch", allow_write=True, path="run", output=output)
    assert refused
    assert not Path("/tmp/lfdoctor-outside.yaml").exists()
    assert sorted(one.name for one in place.parent.iterdir()) == ["root", "secret.yaml"]


def test_a_config_outside_that_a_script_of_the_run_names_is_not_told(place: Path) -> None:
    """The run's own files may name any file; nothing of it is read into the answer."""
    (place / "run" / "train.yaml").unlink()
    (place / "run" / "run.sh").write_text(f"llamafactory-cli train {place.parent}/secret.yaml\n", encoding="utf-8")
    _, text = call(place, "plan_patch", path="run")
    assert "secret-model" not in text
    assert '"source"' not in text


def test_without_the_sdk_the_command_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2."""
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    assert main(["mcp"]) == 2
    assert "pip install 'lfdoctor[mcp]'" in capsys.readouterr().err
    assert main(["mcp", "--root", "/there/is/no/folder"]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """A root with a configuration, its data set of 200 faulty rows, and a data set beside the root."""
    root = tmp_path / "root"
    (root / "data").mkdir(parents=True)
    rows = [{"instruction": f"secret text {number}", "input": "", "output": "" if number % 2 else None} for number in range(200)]
    (root / "data" / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "outside.jsonl").write_text(json.dumps(rows[0]) + "\n")
    info = {"one": {"file_name": "one.jsonl"}, "out": {"file_name": "../../outside.jsonl"}}
    (root / "data" / "dataset_info.json").write_text(json.dumps(info))
    for name in info:
        (root / f"{name}.yaml").write_text(f"stage: sft\ndataset: {name}\nmodel_name_or_path: a/b\ntemplate: qwen\noutput_dir: o\n")
    return root


def test_the_data_tool_names_lines_and_no_text(data_root: Path) -> None:
    """The worst first, places without what stands there, within the budget."""
    refused, text = call(data_root, "data", config="one.yaml")
    assert not refused
    assert "secret text" not in text
    assert tokens(text) <= DETAIL_TOKENS
    told = json.loads(text)
    assert told["worst"] == "warning"
    assert told["data_sets"] == [{"name": "one", "role": "train", "rows": 200, "used": 100, "left_out": 100, "whole": True}]
    assert {one["kind"]: (one["count"], one["first"][0]) for one in told["findings"]} == {
        "no_answer": (100, "data/one.jsonl:1"),
        "empty_answer": (100, "data/one.jsonl:2"),
    }


def test_data_outside_the_roots_is_refused(data_root: Path) -> None:
    """By the data tool; the estimate does without it."""
    refused, text = call(data_root, "data", config="out.yaml")
    assert refused
    assert "lies outside" in text
