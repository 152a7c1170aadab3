"""The record of what was measured on material of others, benchmarks/data/accuracy.yaml: read, checked, and added to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).resolve().parent / "data"
RECORD = DATA / "accuracy.yaml"
WORDS = DATA / "accuracy_words.yaml"
RUNS = ("first", "later", "tuned")
"""Nothing was mended on the material; a later version, still not mended on it; mended on it."""
NOT_SHARES = frozenset({"median_error", "p90_error", "worst_error"})
"""Measures in percent that are no share of the cases."""
FIELDS = frozenset({"id", "section", "date", "told", "commit", "script", "blind", "title", "material", "headline", "figures", "misses"})
OPTIONAL = frozenset({"told", "commit", "headline", "misses"})
Z95 = 1.959964
"""The normal distribution's 97.5 % point."""


class RecordError(ValueError):
    """An entry that is not as benchmarks/README.md says; the text names the entry."""


@dataclass(frozen=True)
class Figure:
    """One measure of one part in one run: a count, or the rounded percentage where only that was kept."""

    part: str
    run: str
    of: int | None
    measure: str
    count: int | None
    percent: float
    """0 to 100; of `NOT_SHARES` it may be more."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval in percent; None where the number of cases is unknown or the figure is no share."""
        if self.of is None or self.measure in NOT_SHARES:
            return None
        return wilson(self.percent / 100 * self.of if self.count is None else self.count, self.of)


@dataclass(frozen=True)
class Entry:
    """One collection."""

    id: str
    section: str
    date: str
    script: str | None
    blind: bool | None
    title: Mapping[str, str]
    material: Mapping[str, str]
    figures: list[Figure]
    told: str | None = None
    commit: str | None = None
    headline: str | None = None
    misses: list[Mapping[str, Any]] = field(default_factory=list)


def wilson(count: float, of: int) -> tuple[float, float]:
    """Wilson's 95 % score interval (JASA 1927) of `count` of `of`, in percent."""
    if of <= 0:
        raise ValueError("no cases")
    share, square = count / of, Z95 * Z95
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = Z95 / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def words() -> dict[str, dict[str, Any]]:
    """The catalogue of the page."""
    return dict(yaml.safe_load(WORDS.read_text(encoding="utf-8")))


def entries(path: Path = RECORD) -> list[Entry]:
    """All entries in the record's order; RecordError where one is not well formed."""
    known, found = words(), yaml.safe_load(path.read_text(encoding="utf-8")) or []
    out = [entry(raw, known) for raw in found]
    if len({one.id for one in out}) < len(out):
        raise RecordError(f"{path.name}: an id stands there twice")
    return out


def entry(raw: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> Entry:
    """One entry, each of its words known to the catalogue."""
    name = raw.get("id", "an entry without id")
    if raw.keys() - FIELDS or FIELDS - OPTIONAL - raw.keys():
        raise RecordError(f"{name}: fields unknown {sorted(raw.keys() - FIELDS)}, missing {sorted(FIELDS - OPTIONAL - raw.keys())}")
    if raw["section"] not in known["sections"]:
        raise RecordError(f"{name}: no section is called {raw['section']}")
    for miss in raw.get("misses", ()):
        if miss["kind"] not in known["misses"] or miss["state"] not in known["states"]:
            raise RecordError(f"{name}: accuracy_words.yaml lacks the miss {miss['kind']} or its state {miss['state']}")
    found = [one for line in raw["figures"] for one in _figures(name, line, known)]
    plain = {key: value for key, value in raw.items() if key not in ("figures", "date")}
    return Entry(**plain, date=str(raw["date"]), figures=found)


def _figures(name: str, line: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """The measures of a line {part, run, of, MEASURE: count or "75 %"}."""
    part, run, of = line["part"], line["run"], line["of"]
    values = {key: value for key, value in line.items() if key not in ("part", "run", "of")}
    unknown = [key for key in values if key not in known["measures"]] + ([part] if part not in known["parts"] else [])
    if unknown or run not in RUNS:
        raise RecordError(f"{name}: accuracy_words.yaml lacks {unknown}, or the run is none of {RUNS}: {run}")
    out = []
    for measure, value in values.items():
        count = value if isinstance(value, int) else None
        if count is not None and (of is None or not 0 <= count <= of):
            raise RecordError(f"{name}: {measure} of {part} is {count} of {of}")
        percent = 100 * count / of if count is not None else float(str(value).removesuffix(" %"))
        if measure not in NOT_SHARES and not 0 <= percent <= 100:
            raise RecordError(f"{name}: {measure} of {part} is {value}")
        out.append(Figure(part, run, of, measure, count, percent))
    return out


def add(path: Path, score: Mapping[str, Any], about: Mapping[str, Any], run: str) -> None:
    """Add a score to the entry `about["id"]`, which `about` makes where there is none; RecordError where that run is recorded already.

    `score` is {script, commit, blind?, parts: {PART: {of, MEASURE: count}}}, as benchmarks/judge_threads.py writes it.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    known = words()
    lines = [{"part": part, "run": run, **figures} for part, figures in score["parts"].items()]
    there = next((one for one in yaml.safe_load(text) or [] if one["id"] == about["id"]), None)
    if there is None:
        made = {**about, "script": score["script"], "commit": score["commit"], "figures": lines}
        entry(made, known)
        path.write_text(text + _listed(made), encoding="utf-8", newline="\n")
        return
    taken = {(line["part"], line["run"]) for line in there["figures"]}
    if run == "first" or taken & {(line["part"], run) for line in lines}:
        raise RecordError(f"{about['id']}: its {run} run stands in the record already, and is not written over")
    entry({**there, "figures": [*there["figures"], *lines]}, known)
    path.write_text(_extended(text, about["id"], lines), encoding="utf-8", newline="\n")


def _listed(made: Mapping[str, Any]) -> str:
    """An entry in the record's form: one line a figure."""
    out = []
    for key, value in made.items():
        if key in ("figures", "misses"):
            out += [f"  {key}:", *(f"    - {_flow(line)}" for line in value)]
        else:
            out.append(f"  {key}: {_flow(value)}")
    return "- " + "\n".join(out).removeprefix("  ") + "\n"


def _extended(text: str, name: str, lines: list[dict[str, Any]]) -> str:
    """The record's text with more lines behind the last figure of an entry; everything else, comments too, stays as it is."""
    before, mark, rest = text.partition(f"- id: {_flow(name)}\n")
    head, figures, tail = rest.partition("  figures:\n")
    rows = tail.splitlines(keepends=True)
    end = next((place for place, row in enumerate(rows) if not row.startswith("    ")), len(rows))
    rows[end:end] = [f"    - {_flow(line)}\n" for line in lines]
    return before + mark + head + figures + "".join(rows)


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")
