"""lfdoctor mcp and lfdoctor skill: for coding agents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from doctor.cli.common import Lang, one_language, write_file
from doctor.errors import DoctorError

skill = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def mcp(
    root: Annotated[
        list[Path] | None,
        typer.Option("--root", help="A folder that agents may read; may be given more than once. Default: .", metavar="DIR"),
    ] = None,
    allow_write: Annotated[bool, typer.Option("--allow-write", help="Let apply_patch write new YAML files below the roots.")] = False,
    lang: Lang = "en",
) -> None:
    """Serve diagnosis, check, estimate and patches to coding agents over the Model Context Protocol (standard input and output).

    Read-only unless --allow-write; files outside the roots are refused. Needs pip install 'lfdoctor[mcp]'.
    """
    one_language(lang)
    roots = root or [Path()]
    for folder in roots:
        if not folder.is_dir():
            raise DoctorError(f"--root {folder}: no such folder")
    from doctor.agents.server import serve

    serve(roots, allow_write=allow_write, lang=lang)


@skill.command("install")
def install(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder of skills.")] = Path(".claude/skills"),
) -> None:
    """Put the agent skill into DIR/lfdoctor/SKILL.md (default: .claude/skills, where LLaMA-Factory keeps its own)."""
    target = folder / "lfdoctor" / "SKILL.md"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DoctorError(f"cannot create {target.parent}: {error.strerror or error}") from error
    write_file(target, text())
    typer.echo(f"lfdoctor: skill written to {target}", err=True)


@skill.command("show")
def show() -> None:
    """Print the skill."""
    typer.echo(text(), nl=False)


def text() -> str:
    """The skill as installed with this version."""
    from doctor import agents

    return (Path(agents.__path__[0]) / "skill" / "SKILL.md").read_text(encoding="utf-8")
