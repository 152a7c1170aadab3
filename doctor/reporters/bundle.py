"""What a maintainer needs in one zip, fit to be published: report, config, environment, log excerpts, series, all masked."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import msgspec

from doctor.privacy.personal import names_in, private_lines, without_names
from doctor.privacy.secrets import MASK, clean, mask
from doctor.report.model import Report, SourceView

HEAD, TAIL, AROUND = 150, 250, 60
"""Lines of a log in the bundle: from its beginning (versions, arguments), from its end, and around each piece of evidence."""
LINE_CHARS = 1000
LARGEST_BYTES = 256 << 20
SHOWN = 20
"""Masked lines of one file that the preview shows."""


class Masker:
    """Masks texts for publication. Counts the masks per file and keeps the masked lines for the preview."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.masked: dict[str, int] = Counter()
        self.lines: dict[str, list[str]] = {}

    def learn(self, text: str) -> None:
        """Collect the user and host names of a text; they are masked in every file."""
        self.names |= names_in(text)

    def text(self, text: str, name: str) -> str:
        """`text` without secrets, names, addresses and samples."""
        whole = clean(text)  # keys of several lines, cookies, mail addresses
        out = [without_names(line, self.names) for line in private_lines(whole.split("\n"))]
        for line, original in zip(out, text.split("\n"), strict=False):
            more = line.count(MASK) - original.count(MASK)
            if more > 0:
                self.masked[name] += more
                shown = self.lines.setdefault(name, [])
                if len(shown) < SHOWN:
                    shown.append(line[:200])
        return "\n".join(out)

    def data(self, value: Any, name: str) -> Any:
        """Plain data with every text in it masked."""
        if isinstance(value, str):
            return self.text(value, name)
        if isinstance(value, list):
            return [self.data(item, name) for item in value]
        if isinstance(value, dict):
            return {self.text(str(key), name): self.data(item, name) for key, item in value.items()}
        return value


class Bundle(msgspec.Struct, frozen=True):
    """The files of a bundle by name, and what was masked in each."""

    files: dict[str, str]
    masked: dict[str, int]
    lines: dict[str, list[str]]

    def preview(self) -> str:
        """The files, the number of masked places in each, and the masked lines."""
        out = ["# What was masked", ""]
        for name in self.files:
            out.append(f"- {name}: {self.masked.get(name, 0)} places")
        for name, lines in self.lines.items():
            out += ["", f"## {name}", "", *(f"    {line}" for line in lines)]
        return "\n".join(out) + "\n"

    def write(self, target: Path) -> None:
        """Writes the zip; the same bundle gives the same bytes. Raises OSError."""
        with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, text in {**self.files, "masked.md": self.preview()}.items():
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text.encode(), zipfile.ZIP_DEFLATED)


def make(report: Report) -> Bundle:
    """The bundle of an analyzed run: its report and excerpts of the files it was read from."""
    masker = Masker()
    lines = _evidence_lines(report)
    logs = {source.path: text for source in report.run.sources if (text := _excerpt(source, lines.get(source.path, set()))) is not None}
    masker.learn("\n".join([report.run.path, *(source.path for source in report.run.sources)]))
    for text in logs.values():
        masker.learn(text)
    files = dict(_report_files(report, masker))
    for number, (path, text) in enumerate(logs.items(), 1):
        name = f"files/{number:02d}-{_safe(masker.text(PurePath(path).name, 'names'))}.txt"
        files[name] = masker.text(text, name) + "\n"
    files["README.txt"] = _README
    return Bundle(files, dict(masker.masked), masker.lines)


def _report_files(report: Report, masker: Masker) -> Iterator[tuple[str, str]]:
    from doctor.reporters.json import parse
    from doctor.reporters.registry import REPORTERS

    data = masker.data(report.to_dict(), "report.json")
    shown = parse(msgspec.json.encode(data))
    yield "report.json", REPORTERS["json"](shown)
    yield "report.md", REPORTERS["markdown"](shown)
    yield "environment.json", json.dumps(shown.run.environment, indent=2, ensure_ascii=False) + "\n"
    yield "series.csv", _series(shown)


def _series(report: Report) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(("metric", "attempt", "over", "at", "value"))
    for curve in report.curves:
        table.writerows((curve.metric, curve.attempt, curve.over, *point) for point in zip(curve.at, curve.values, strict=True))
    return out.getvalue()


def _evidence_lines(report: Report) -> dict[str, set[int]]:
    out: dict[str, set[int]] = {}
    for finding in report.findings:
        for piece in finding.evidence:
            if piece.line is not None:
                out.setdefault(piece.source, set()).update(range(piece.line - AROUND, piece.line + AROUND + 1))
    return out


def _excerpt(source: SourceView, wanted: set[int]) -> str | None:
    """The excerpt of a text file; None if it is no text, missing, or too large."""
    path = Path(source.path)
    try:
        if path.suffix in (".bin", ".pt", ".gz", ".zst") or "tfevents" in path.name or path.stat().st_size > LARGEST_BYTES:
            return None
        with path.open("rb") as file:
            return "\n".join(_kept(file, wanted))
    except OSError:
        return None


def _kept(file: Iterable[bytes], wanted: set[int]) -> Iterator[str]:
    """Beginning, surroundings of the evidence and end, with a line for each gap."""
    tail: list[tuple[int, bytes]] = []
    last = 0
    for number, raw in enumerate(file, 1):
        if number <= HEAD or number in wanted:
            if number > last + 1:
                yield f"[... {number - last - 1} lines ...]"
            last = number
            yield _line(raw)
        tail.append((number, raw))
        if len(tail) > TAIL:
            del tail[0]
    for number, raw in (item for item in tail if item[0] not in wanted and item[0] > HEAD):
        if number > last + 1:
            yield f"[... {number - last - 1} lines ...]"
        last = max(last, number)
        yield _line(raw)


def _line(raw: bytes) -> str:
    """One line, a progress bar by its last state; masked before it is cut: half a key is not recognised."""
    states = [item for item in raw[: 1 << 16].decode("utf-8", "replace").rstrip("\r\n").split("\r") if item.strip()]
    text = mask(states[-1]) if states else ""
    return text if len(text) <= LINE_CHARS else f"{text[:LINE_CHARS]} [...]"


def _safe(name: str) -> str:
    return "".join(item if item.isalnum() or item in "._-" else "_" for item in name)[:80]


_README = """\
Made by `lfdoctor bundle`: what a maintainer needs to look into a LLaMA-Factory run.

report.md         the post-mortem; report.json the same for programs (`lfdoctor show report.json --format html`)
environment.json  versions, GPUs, settings
series.csv        what was logged: metric, attempt, steps or seconds, value (long runs keep the extremes)
files/            configuration and logs: beginning, end, and the lines around each piece of evidence
masked.md         where tokens, keys, mail addresses, user and host names and training samples were masked; read it before you send this
"""
