"""lfdoctor schema: the JSON Schema of LLaMA-Factory's training YAML, for editors."""

from __future__ import annotations

from typing import Annotated

import typer

from doctor.cli.common import Lang, LlamaFactoryVersion, Output, one_language, one_of, write_file, write_out
from doctor.errors import DoctorError


def schema(
    what: Annotated[str, typer.Argument(help="config: LLaMA-Factory's training YAML (that of the reports: lfdoctor show --schema).")],
    llamafactory_version: LlamaFactoryVersion = None,
    output: Output = None,
    lang: Lang = "en",
) -> None:
    """Print the JSON Schema of the training YAML of one LLaMA-Factory: options, values, ranges, what they do and what the guide advises."""
    one_of(what, ("config",), "WHAT")
    import json

    from doctor.config import knowledge
    from doctor.config.schema import schema as config_schema
    from doctor.words import catalogue

    version = llamafactory_version or knowledge.newest()
    if version not in knowledge.releases():
        raise DoctorError(catalogue.text("errors.no_schema", version=version, known=", ".join(knowledge.releases())))
    text = json.dumps(config_schema(version, one_language(lang)), ensure_ascii=False, indent=1) + "\n"
    write_out(text) if output is None else write_file(output, text)
