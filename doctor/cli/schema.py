"""lfdoctor schema: JSON Schemas for editors and other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from doctor.cli.common import Lang, LlamaFactoryVersion, one_language, write_out
from doctor.errors import DoctorError

WHAT = ("config", "report")


def schema(
    what: Annotated[str, typer.Argument(help="config: LLaMA-Factory's training YAML; report: lfdoctor's JSON report.")],
    llamafactory_version: LlamaFactoryVersion = None,
    lang: Lang = "en",
) -> None:
    """Print a JSON Schema: of the training YAML of one LLaMA-Factory, with descriptions and values, or of lfdoctor's reports."""
    if what not in WHAT:
        raise DoctorError(f"lfdoctor schema prints {' or '.join(WHAT)}, not {what!r}")
    if what == "report":
        from doctor.reporters.json import schema as describe

        write_out(describe())
        return
    import json

    from doctor.config import knowledge
    from doctor.config.schema import schema as config_schema

    version = llamafactory_version or knowledge.newest()
    if version not in knowledge.releases():
        raise DoctorError(f"no schema for LLaMA-Factory {version}; known: {', '.join(knowledge.releases())}")
    write_out(json.dumps(config_schema(version, one_language(lang)), ensure_ascii=False, indent=1) + "\n")
