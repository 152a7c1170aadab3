"""What the documentation promises of any input whatever, asked of the command line in this process.

docs/reports.md and README.md: exit code 0 (nothing at or above --fail-on), 1 (findings, or the run failed), 2 (bad usage, unreadable
config), 3 (nothing to read, nothing judged); standard output holds the report alone, always valid JSON; standard error holds plain lines.
"""

from __future__ import annotations

import glob
import io
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from doctor.cli.main import main
from tests.fuzz.values import odd_json

SEVERITIES = {"error": {"error"}, "warning": {"error", "warning"}, "never": set()}
FORMATS = ("terminal", "markdown", "html", "sarif", "json")
LANGUAGES = ("en", "ko", "zh")


class Answer(NamedTuple):
    """An ended command."""

    code: int
    out: bytes
    err: str


class _Failed(ValueError):
    pass


def run(*arguments: str, stdin: Path | None = None) -> Answer:
    """The command line in this process; an exception that it would call unexpected is raised."""
    old = sys.stdin, sys.stdout, sys.stderr
    out, err = io.BytesIO(), io.BytesIO()
    os.environ["LFDOCTOR_DEBUG"] = "1"
    with (stdin or Path(os.devnull)).open("rb") as given:
        streams = (
            io.TextIOWrapper(given),
            *(io.TextIOWrapper(raw, "utf-8", errors, write_through=True) for raw, errors in ((out, "strict"), (err, "backslashreplace"))),
        )
        sys.stdin, sys.stdout, sys.stderr = streams
        try:
            code = main(arguments)
        finally:
            sys.stdin, sys.stdout, sys.stderr = old
        for stream in streams[1:]:
            stream.detach()
    return Answer(code, out.getvalue(), err.getvalue().decode("utf-8", "replace"))


def judge(target: Path, seed: int) -> list[str]:
    """What is wrong with the answers about `target`: a line each; nothing where all promises are kept. Exceptions pass."""
    dice = random.Random(f"judge {seed}")
    folder = target if target.is_dir() else target.parent
    fail_on = dice.choice(("error", "error", "warning", "never"))
    configs = [path for path in _texts(folder) if path.suffix in (".yaml", ".yml", ".json")]
    given = ["--config", str(dice.choice(configs))] if configs and dice.random() < 0.1 else []
    piped = target if target.is_file() and not given and dice.random() < 0.3 else None
    named = "-" if piped else _argument(target)
    answer = run("analyze", named, "--format", "json", "--fail-on", fail_on, *given, stdin=piped)
    wrong = [f"analyze: {line}" for line in _analyzed(answer, fail_on, configured=bool(given))]
    saved = folder.with_name(f"{folder.name}.report")
    if answer.out:
        saved.write_bytes(answer.out)
        wrong += _shown(saved, dice)
        if dice.random() < 0.2:
            wrong += _shown_damaged(saved, dice)
        saved.unlink()
    extra = dice.random()
    if configs and extra < 0.35:
        wrong += _checked(dice.choice(configs), dice)
    elif extra < 0.42:
        wrong += _bundled(target, folder)
    elif extra < 0.49:
        once = run("watch", _argument(target), "--once")
        wrong += [f"watch: exit code {once.code}"] if once.code not in (0, 1, 3) else []
    return wrong


def _argument(path: Path) -> str:
    return str(path) if not path.name.startswith("-") else f"{path.parent}/{path.name}"


def _texts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml", ".json"))


def _analyzed(answer: Answer, fail_on: str, *, configured: bool) -> Iterator[str]:
    """Exit code, standard output and standard error of `analyze --format json` against each other."""
    if not answer.out:
        if answer.code != 3 and not (answer.code == 2 and configured):
            yield f"exit code {answer.code} without a report: {answer.err[:300]}"
        if not answer.err.startswith("lfdoctor: ") or answer.err.count("\n") != 1:
            yield f"standard error is not one plain line: {answer.err[:300]!r}"
        return
    try:
        report = json.loads(answer.out.decode("utf-8"), parse_constant=_refuse)
    except ValueError as error:
        yield f"no valid JSON: {error}"
        return
    yield from _consistent(report)
    expected = _code(report, SEVERITIES[fail_on])
    if answer.code != expected:
        yield f"exit code {answer.code}, but verdict {report['verdict']} with --fail-on {fail_on} means {expected}"
    if "\x1b" in answer.err or "Traceback" in answer.err:
        yield f"standard error: {answer.err[:300]!r}"


def _refuse(name: str) -> None:
    raise _Failed(f"{name} is no JSON")


def _consistent(report: dict[str, Any]) -> Iterator[str]:
    """The parts of a report, by what docs/reports.md says of them."""
    verdict, status = report["verdict"], report["run"]["status"]
    above_a_note = [finding["rule"] for finding in report["findings"] if finding["severity"] != "note"]
    roots = [finding for finding in report["findings"] if finding["role"] == "root"]
    if report["problems"]:
        yield f"problems of our own: {report['problems']}"
    if report["healthy"] is not (verdict == "healthy"):
        yield f"healthy is {report['healthy']}, verdict {verdict}"
    if (status == "failed") is not (verdict == "failed"):
        yield f"verdict {verdict}, status {status}"
    if verdict in ("healthy", "undecided") and (above_a_note or status == "interrupted"):
        yield f"verdict {verdict} with status {status} and {above_a_note[:3]}"
    if verdict == "unhealthy" and not above_a_note and status != "interrupted":
        yield "unhealthy, but nothing above a note and not interrupted"
    if verdict == "healthy" and status not in ("completed", "ended_early", "running"):
        yield f"healthy without an end: {status}"
    if len(roots) > 1 or (report["cause"] and not roots):
        yield f"{len(roots)} root causes, cause {report['cause']}"
    if report["patch"] and verdict == "healthy" and not roots:
        yield "a patch for a healthy run, and no note that it is about"


def _code(report: dict[str, Any], severities: set[str]) -> int:
    """The exit code that the table of verdicts gives."""
    if any(finding["severity"] in severities for finding in report["findings"]) or (severities and report["verdict"] == "failed"):
        return 1
    return 3 if report["verdict"] == "undecided" and report["run"]["steps"]["last"] is None else 0


def _shown(saved: Path, dice: random.Random) -> Iterator[str]:
    """The report in another format and language: exit code 0, and text without control characters."""
    kind, lang = dice.choice(FORMATS), dice.choice(LANGUAGES)
    answer = run("show", str(saved), "--format", kind, "--lang", lang)
    if answer.code != 0:
        yield f"show {kind} {lang}: exit code {answer.code}: {answer.err[:300]}"
    text = answer.out.decode("utf-8", "strict")
    odd = {character for character in text if (ord(character) < 32 and character != "\n") or 0x7F <= ord(character) < 0xA0}
    if odd and kind != "html":  # a page holds the library that draws
        yield f"show {kind} {lang}: control characters {odd}"
    if kind in ("json", "sarif"):
        json.loads(text, parse_constant=_refuse)


def _shown_damaged(saved: Path, dice: random.Random) -> Iterator[str]:
    """The report with odd values in it, as another program or release may have written it: shown, or refused with exit code 2."""
    saved.write_bytes(odd_json(saved.read_bytes(), dice))
    answer = run("show", str(saved), "--format", dice.choice(FORMATS), "--lang", dice.choice(LANGUAGES))
    if answer.code not in (0, 2) or (answer.code == 0) is not bool(answer.out):
        yield f"show of a damaged report: exit code {answer.code}: {answer.err[:300]}"


def _checked(path: Path, dice: random.Random) -> Iterator[str]:
    """check, and check --fix on the same file: codes, nothing lost, a second --fix changes nothing."""
    if not path.is_file() or path.is_symlink() or not os.access(path, os.R_OK | os.W_OK):
        answer = run("check", _argument(path))
        if answer.code not in (0, 1, 2):
            yield f"check: exit code {answer.code}"
        return
    before = path.read_bytes()
    answer = run("check", _argument(path), "--format", "json")
    if answer.code not in ((0, 1) if answer.out else (2,)):
        yield f"check: exit code {answer.code} {'with' if answer.out else 'without'} a report: {answer.err[:200]}"
    if answer.out:
        report = json.loads(answer.out, parse_constant=_refuse)
        yield from (f"check: {line}" for line in _consistent(report) if not line.startswith("healthy without an end"))
        if any(finding["severity"] == "error" for finding in report["findings"]) and answer.code != 1:
            yield f"check: exit code {answer.code} with an error"
    if path.read_bytes() != before:
        yield "check without --fix changed the file"
    unsafe = ["--unsafe-fixes"] if dice.random() < 0.3 else []
    fixed = run("check", _argument(path), "--fix", *unsafe)
    after = path.read_bytes()
    if fixed.code not in ((0, 1) if fixed.out else (2,)) or (not fixed.out and after != before):
        yield f"check --fix: exit code {fixed.code}, file {'changed' if after != before else 'unchanged'}: {fixed.err[:200]}"
    if after != before:
        if before not in [kept.read_bytes() for kept in path.parent.glob(f"{glob.escape(path.name)}.orig*") if kept.is_file()]:
            yield "check --fix: the backup is not the file before"
        run("check", _argument(path), "--fix", *unsafe)
        if path.read_bytes() != after and not (unsafe and fixed.code):  # a patch may bring to light what the report then tells as left
            yield "check --fix: a second time changes more"


def _bundled(target: Path, folder: Path) -> Iterator[str]:
    archive = folder.with_name(f"{folder.name}.bundle.zip")
    answer = run("bundle", _argument(target), "-o", str(archive))
    if answer.code not in (0, 3):
        yield f"bundle: exit code {answer.code}: {answer.err[:300]}"
    archive.unlink(missing_ok=True)
