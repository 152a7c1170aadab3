"""docs/accuracy.md and docs/ko/accuracy.md: the record and what was measured here, as Markdown in one language."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from accuracy_measured import Share
from accuracy_record import NOT_SHARES, RUNS, Entry, Figure, wilson, words

LANGUAGES = ("en", "ko")
EMPTY = ""
RULER = "---|"
"""What stands below a column's head."""


class Page:
    """The page in one language."""

    def __init__(self, lang: str) -> None:
        self.lang, self.known = lang, words()

    def text(self, group: str, name: str, **values: str) -> str:
        """A text of the catalogue."""
        found: str = self.known[group][name][self.lang]
        return found.format(**values) if values else found

    def head(self) -> list[str]:
        """Title, link to the other language, how to read it."""
        return [
            f"# {self.text('page', 'title')}",
            EMPTY,
            self.text("page", "other"),
            EMPTY,
            self.text("page", "written"),
            EMPTY,
            self.text("page", "interval"),
        ]

    def measured(self, shares: Sequence[Share]) -> list[str]:
        """What was measured with this checkout."""
        lines = [f"## {self.text('page', 'measured')}", EMPTY, self.text("page", "measured_text"), self.text("page", "patches_text"), EMPTY]
        lines += _table(self.text("page", "measured_head"))
        for share in shares:
            part = self.text("parts", share.part) if share.part else ""
            what = self.text("measured", share.text).replace("{part}", part)
            low, high = wilson(share.count, share.of)
            lines.append(f"| {what} | {_percent(100 * share.count / share.of)} | {share.count} / {share.of} | {low:.0f}-{high:.0f} |")
        return lines

    def recorded(self, entries: Sequence[Entry]) -> list[str]:
        """The record, by sections."""
        lines = [f"## {self.text('page', 'record')}", EMPTY, self.text("page", "record_text")]
        for section in self.known["sections"]:
            found = [one for one in entries if one.section == section]
            lines += [EMPTY, f"### {self.text('sections', section)}"] if found else []
            for one in found:
                lines += [EMPTY, *self.entry(one)]
        return lines

    def entry(self, one: Entry) -> list[str]:
        """A collection: what it was, where the figures come from, its table with the columns that it needs."""
        source = self.text("page", "script", script=one.script) if one.script else self.text("page", "no_script")
        blind = [] if one.blind is None else [self.text("page", "blind" if one.blind else "not_blind")]
        version = [self.text("page", name, **{name: at}) for name, at in (("told", one.told), ("commit", one.commit)) if at]
        about = "; ".join([one.date, *blind, source, *version])
        rows = [(key, runs) for key, runs in by_run(one.figures).items()]
        shown = [run for run in RUNS if any(run in runs for _, runs in rows)]
        gaps = any(_gap(runs) for _, runs in rows)
        lines = [f"**{one.title[self.lang]}.** {one.material[self.lang].strip()} ({about}.)", EMPTY]
        lines += self.columns("part", "of", "measure", *shown, *(["gap"] if gaps else []))
        for (part, of, measure), runs in rows:
            cells = [self.text("parts", part), "?" if of is None else str(of), self.text("measures", measure), *_cells(runs, shown)]
            lines.append(_row([*cells, *([_gap(runs)] if gaps else [])]))
        return lines

    def short(self, entries: Sequence[Entry]) -> list[str]:
        """The headline of each entry that has one."""
        lines = [f"## {self.text('page', 'short')}", EMPTY, self.text("page", "short_text"), EMPTY]
        lines += self.columns("collection", "part", "of", "measure", *RUNS, "gap")
        for one in entries:
            if one.headline is None:
                continue
            (part, of, measure), runs = next(item for item in by_run(one.figures).items() if item[0][2] == one.headline)
            what = [one.title[self.lang], self.text("parts", part), str(of), self.text("measures", measure)]
            lines.append(_row([*what, *_cells(runs, RUNS), _gap(runs)]))
        return lines

    def columns(self, *names: str) -> list[str]:
        """A table's head."""
        return _table(_row([self.text("columns", name) for name in names]))

    def wrong(self, entries: Sequence[Entry]) -> list[str]:
        """The kinds of misses, those seen in most collections first, mended ones last."""
        seen: dict[str, list[tuple[Entry, Mapping[str, Any]]]] = defaultdict(list)
        for one in entries:
            for miss in one.misses:
                seen[miss["kind"]].append((one, miss))
        lines = [
            f"## {self.text('page', 'wrong')}",
            EMPTY,
            self.text("page", "wrong_text"),
            EMPTY,
            *_table(self.text("page", "wrong_head")),
        ]
        for kind, found in sorted(seen.items(), key=lambda item: (item[1][-1][1]["state"] == "mended", -len(item[1]))):
            counted = [f"{miss['count']} / {miss['of']}" if "of" in miss else str(miss["count"]) for _, miss in found if "count" in miss]
            state = self.text("states", found[-1][1]["state"])
            lines.append(_row([self.text("misses", kind), str(len(found)), ", ".join(counted), state]))
        return lines


def by_run(figures: Sequence[Figure]) -> dict[tuple[str, int | None, str], dict[str, Figure]]:
    """(part, cases, measure) -> run -> figure, in the order of the record; runs over another number of cases have a line of their own."""
    out: dict[tuple[str, int | None, str], dict[str, Figure]] = defaultdict(dict)
    for one in figures:
        out[one.part, one.of, one.measure][one.run] = one
    return dict(out)


def pages(entries: Sequence[Entry], shares: Sequence[Share]) -> Iterator[tuple[str, str]]:
    """Language and text of each page."""
    for lang in LANGUAGES:
        page = Page(lang)
        parts = [page.head(), page.short(entries), page.measured(shares), page.recorded(entries), page.wrong(entries)]
        yield lang, "\n\n".join("\n".join(part) for part in parts) + "\n"


def _figure(one: Figure) -> str:
    """`118, 54 % (47-60)`: count where it was kept, share, interval."""
    if one.measure in NOT_SHARES:
        return f"{one.percent:g} %"
    told = _percent(one.percent) if one.count is None else f"{one.count}, {_percent(one.percent)}"
    if one.interval is None:
        return told
    return f"{told} ({'≈' if one.count is None else ''}{one.interval[0]:.0f}-{one.interval[1]:.0f})"


def _percent(value: float) -> str:
    return f"{value:.0f} %" if value == round(value) or value >= 1.5 else f"{value:.1f} %"


def _cells(runs: Mapping[str, Figure], shown: Sequence[str]) -> list[str]:
    return [_figure(runs[run]) if run in runs else EMPTY for run in shown]


def _gap(runs: Mapping[str, Figure]) -> str:
    """Mended on the material minus the newest version that was not, in points; empty where one of the two was not measured."""
    unread, tuned = runs.get("later", runs.get("first")), runs.get("tuned")
    if unread is None or tuned is None or tuned.measure in NOT_SHARES:
        return EMPTY
    points = round(tuned.percent - unread.percent)
    return f"{points:+d}" if points else "0"


def _table(head: str) -> list[str]:
    return [head, "|" + RULER * (head.count("|") - 1)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
