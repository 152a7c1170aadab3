"""The command line: one file per command; stdout holds the report alone, stderr everything else."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from copy import copy
from itertools import pairwise

import typer

from doctor.cli import agents, analyze, bundle, check, compare, data, estimate, explain, fix, last, rules, run, scan, schema, show, watch
from doctor.cli.examples import epilog
from doctor.cli.light import without_pydantic
from doctor.errors import BAD_USAGE, DoctorError

_USAGE: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""click's own, or that of the click inside newer typers."""

app = typer.Typer(
    name="lfdoctor",
    help="The doctor for LLaMA-Factory training runs: root cause, evidence, ordered remedies, and a patched config.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: typer's panels import rich.markdown, which triples the time of --help
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("analyze", epilog=epilog("analyze"), short_help="Find the root cause of a failed run and patch its config.")(analyze.analyze)
app.command("last", epilog=epilog("last"), short_help="The same for the newest run below a folder.")(last.last)
app.command("fix", epilog=epilog("fix"), short_help="Write the patched config of a failed run, and print or start its command.")(fix.fix)
app.command("check", epilog=epilog("check"), short_help="Check training configs before the run.")(check.check)
app.command("data", epilog=epilog("data"), short_help="Look at the data sets: what is broken, left out, cut or double.")(data.data)
app.command("estimate", epilog=epilog("estimate"), short_help="Predict the peak GPU memory of a config, term by term.")(estimate.estimate)
app.command(
    "run",
    epilog=epilog("run"),
    short_help="Run a training, warn early, analyze it when it ends.",
    context_settings={"allow_interspersed_args": False},
)(run.run)
app.command("scan", epilog=epilog("scan"), short_help="Analyze many runs: which failed, why, what repeats.")(scan.scan)
app.command("compare", epilog=epilog("compare"), short_help="Find the difference that explains why some runs failed.")(compare.compare)
app.command("watch", epilog=epilog("watch"), short_help="Follow a run live: curves, step time, memory, warnings.")(watch.watch)
app.command("explain", epilog=epilog("explain"), short_help="Show what a rule or an option means, and what helps.")(explain.explain)
app.command("schema", epilog=epilog("schema"), short_help="Print the JSON Schema of the training YAML, for editors.")(schema.schema)
app.command("show", epilog=epilog("show"), short_help="Render a saved JSON report in another format or language.")(show.show)
app.command("bundle", epilog=epilog("bundle"), short_help="Zip a run for a bug report, with secrets masked.")(bundle.bundle)
app.command("mcp", epilog=epilog("mcp"), short_help="Serve all this to coding agents (Model Context Protocol).")(agents.mcp)
app.add_typer(agents.skill, name="skill", epilog=epilog("skill"), short_help="Install the skill for coding agents.")
app.add_typer(rules.app, name="rules", short_help="List the rules, test a folder of them, print their schema.")


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True)) -> None:
    if version:
        from doctor import __version__

        typer.echo(f"lfdoctor {__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code (0 fine, 1 findings, 2 bad usage, 3 nothing to read, 130 interrupted)."""
    without_pydantic()
    gc.set_threshold(100_000, 20, 50)  # a short process creates few cycles: the default of 700 costs 10 % of the time
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = typer.main.get_command(_only(given[:1])).main(args=given, prog_name="lfdoctor", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except DoctorError as error:
        return _say(error.in_language(_language(given)), error.exit_code)
    except _USAGE as error:
        return _say(f"{getattr(error, 'format_message', error.__str__)()} (see lfdoctor --help)", BAD_USAGE)
    except (KeyboardInterrupt, typer.Abort):
        return _say(_text("errors.interrupted", given), 130)
    except BrokenPipeError:  # the reader (`head`, a pager) was closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # users get one line for any error
        if os.environ.get("LFDOCTOR_DEBUG"):
            raise
        return _say(_text("errors.unexpected", given, error=f"{type(error).__name__}: {error}"), BAD_USAGE)


def _only(names: Sequence[str]) -> typer.Typer:
    """The application with only the commands of these names (building all takes 10 % of the start-up time); all if none matches."""
    commands = [command for command in app.registered_commands if command.name in names]
    if not commands:
        return app
    reduced = copy(app)
    reduced.registered_commands, reduced.registered_groups = commands, []
    return reduced


def _language(given: Sequence[str]) -> str:
    """The language of an error, before the arguments are parsed: `--lang`, else LFDOCTOR_LANG, else English."""
    from doctor.support.languages import LANGUAGES
    from doctor.words import catalogue

    chosen = [word.removeprefix("--lang=") for word in given if word.startswith("--lang=")]
    chosen += [word for option, word in pairwise(given) if option == "--lang"]
    return chosen[-1] if chosen and chosen[-1] in LANGUAGES else catalogue.user_language()


def _text(name: str, given: Sequence[str], /, **values: object) -> str:
    from doctor.words import catalogue

    return catalogue.say(name, _language(given), **values)


def _say(message: str, code: int) -> int:
    """Print one plain line on stderr."""
    print(f"lfdoctor: {' '.join(message.split())}", file=sys.stderr)
    return code
