"""The examples at the end of each command's help; tests/cli/test_examples.py runs every one."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "analyze": (
        "lfdoctor analyze saves/my-run",
        "lfdoctor analyze console.log --config train.yaml --lang ko",
        "lfdoctor analyze saves/my-run --format html -o report.html",
        "lfdoctor analyze saves/my-run --patch new.yaml --exit-zero && llamafactory-cli train new.yaml",
    ),
    "last": ("lfdoctor last", "lfdoctor last saves -v"),
    "fix": ("lfdoctor fix saves/my-run", "lfdoctor fix saves/my-run -o train-fixed.yaml"),
    "check": (
        "lfdoctor check train.yaml --gpu-memory 24",
        "lfdoctor check configs/train.yaml --fix --diff",
        "lfdoctor check train.yaml --format github",
    ),
    "data": ("lfdoctor data train.yaml", "lfdoctor data train.yaml --fix-data cleaned"),
    "estimate": ("lfdoctor estimate train.yaml --gpu-memory 24", "lfdoctor estimate train.yaml --gpu-memory 80 --num-gpus 4 --fit"),
    "run": (
        "lfdoctor run -o watched -- llamafactory-cli train train.yaml",
        "lfdoctor run --heal 3 --dry-run -- llamafactory-cli train train.yaml",
    ),
    "scan": ("lfdoctor scan saves", "lfdoctor scan saves -o runs.parquet"),
    "compare": ("lfdoctor compare saves/good saves/bad",),
    "watch": ("lfdoctor watch saves/my-run --once",),
    "explain": ("lfdoctor explain memory/gpu-oom-activations", "lfdoctor explain lora_rank --lang zh"),
    "schema": ("lfdoctor schema config --llamafactory-version 0.9.4 -o train.schema.json",),
    "show": ("lfdoctor show report.json --format markdown", "lfdoctor show --schema"),
    "bundle": ("lfdoctor bundle saves/my-run -o bundle.zip",),
    "mcp": ("lfdoctor mcp --root saves", "lfdoctor mcp --root . --allow-write"),
    "skill": ("lfdoctor skill install", "lfdoctor skill install my-skills"),
}
"""Command -> lines to paste into a shell."""


def epilog(name: str) -> str:
    """The examples as the end of a help page; `\\b` keeps their line breaks."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in EXAMPLES[name])
