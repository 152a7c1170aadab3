"""An estimate as a small HTML table for notebooks: no script, no style sheet, everything escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from doctor.words import catalogue

if TYPE_CHECKING:
    from doctor.memory.estimate import Estimate

_CELL = "text-align:left;padding:1px 12px 1px 0"
_COLOURS = {"fits": "#2e7d32", "tight": "#b26a00", "no": "#c62828"}


def estimate_html(peak: Estimate) -> str:
    """The peak with its interval, whether it fits, the parts of the memory as bars, the length that was assumed.

    In the language of LFDOCTOR_LANG, as an estimate is no report and has none of its own.
    """
    lang = catalogue.user_language()
    head = _say("peak", lang, model=peak.model, gib=peak.allocated_gib, low=peak.low_gib, high=peak.high_gib)
    out = [f"<div><b>{escape(head)}</b></div>"]
    if peak.capacity_gib is not None:
        verdict = _say(peak.verdict, lang)
        said = _say("verdict", lang, verdict=verdict, usable=peak.capacity_gib, margin=peak.margin_gib or 0)
        out.append(f'<div style="color:{_COLOURS.get(peak.verdict, "inherit")}">{escape(said)}</div>')
    out.append(f"<div>{escape(_say('parts', lang))}</div><table>{''.join(_rows(peak))}</table>")
    source = peak.assumed["length_source"].get(lang)
    out.append(f"<div>{escape(_say('length', lang, tokens=peak.assumed['length'], source=source))}</div>")
    out += [f"<div>{escape(_say('note', lang, note=note.get(lang)))}</div>" for note in peak.notes]
    return f'<div lang="{lang}">{"".join(out)}</div>'


def _rows(peak: Estimate) -> list[str]:
    """A row for each part of at least 0.01 GiB, the largest first; the bar is its share of the largest."""
    terms = sorted(((name, gib) for name, gib in peak.terms.items() if gib >= 0.01), key=lambda item: -item[1])
    largest = max((gib for _, gib in terms), default=1.0)
    return [
        f'<tr><td style="{_CELL}">{escape(name.replace("_", " "))}</td><td style="{_CELL};text-align:right">{gib:.2f} GiB</td>'
        f'<td style="{_CELL};width:240px"><div style="background:#3b76c4;height:10px;width:{100 * gib / largest:.0f}%"></div></td></tr>'
        for name, gib in terms
    ]


def _say(name: str, lang: str, /, **values: object) -> str:
    return catalogue.say(f"estimate.say.{name}", lang, **values)
