"""The state of a run on a terminal: progress, curves, memory, findings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from doctor.core.series import downsample, sparkline
from doctor.live.watch.state import State
from doctor.live.watch.view import MemoryGauge, RunState
from doctor.report.model import FindingView
from doctor.words import catalogue as wording

_COLOURS = {"error": "bright_red", "warning": "yellow"}
_STATE: dict[State, str] = {
    "stalled": "bright_red",
    "stopped_early": "yellow",
    "failed": "bright_red",
    "interrupted": "yellow",
    "unknown": "magenta",
}
"""Colours of the states that are not green."""
ROWS = 6
"""Height of a curve in lines."""
FINDINGS = 8
"""Most findings shown."""


def render(state: RunState, width: int, lang: str) -> RenderableType:
    """The state in at most `width` columns."""
    say = wording.load(lang)
    head = Text.assemble(
        (state.path, "bold"),
        f"  {state.attempt}  " if state.attempt else "  ",
        (say(f"watch_state_{state.state}"), _STATE.get(state.state, "green")),
        "  ",
        (say("watch_quiet", age=_span(state.quiet)) if round(state.quiet) else say("watch_now"), "dim"),
    )
    parts: list[RenderableType] = [head, _progress(state, width, say), _figures(state, say)]
    for name, (steps, values) in state.curves.items():
        if len(values) > 1:
            parts += [Text(), *curve(name, steps, values, width)]
    if state.memory:
        parts += [Text(), *(_bar(gauge, width) for gauge in state.memory)]
    parts += [Text(), *(_finding(finding, say) for finding in state.findings[:FINDINGS])]
    if not state.findings:
        parts.append(Text(say("watch_nothing"), "dim"))
    return Group(*parts)


def _progress(state: RunState, width: int, say: wording.Words) -> Text:
    if state.step is None:
        return Text(say("watch_no_step"), "dim")
    if not state.planned:
        return Text(say("step", step=state.step))
    share = min(1.0, state.step / state.planned)
    tail = f" {say('step_of', step=state.step, planned=state.planned)}  {share:.1%}"
    tail += f"  {say('watch_left', left=_span(state.left))}" if state.left is not None else ""
    room = max(10, width - len(tail) - 2)
    return Text.assemble(("━" * round(share * room), "green"), ("─" * (room - round(share * room)), "dim"), tail)


def _figures(state: RunState, say: wording.Words) -> Text:
    pieces = [
        say("watch_epoch", epoch=f"{state.epoch:.2f}") if state.epoch is not None else "",
        say("watch_step_time", seconds=f"{state.step_seconds:.3g}") if state.step_seconds is not None else "",
        say("watch_tokens", tokens=f"{state.tokens_per_second:,.0f}") if state.tokens_per_second is not None else "",
        f"learning_rate {state.learning_rate:.3g}" if state.learning_rate is not None else "",
    ]
    if state.vitals is not None:
        vitals = state.vitals
        if vitals.loss_first is not None and vitals.loss_last is not None:
            pieces.append(say("watch_loss", first=f"{vitals.loss_first:.4g}", last=f"{vitals.loss_last:.4g}"))
        pieces.append(say("watch_checkpoint", name=vitals.checkpoint) if vitals.checkpoint else "")
    return Text("  ".join(filter(None, pieces)), "cyan")


def curve(name: str, steps: Sequence[int], values: Sequence[float], width: int) -> list[Text]:
    """A series as rows of block characters, `x` for values that are not finite. The axis spans the 2nd to the 98th percentile: a spike
    touches the top and does not flatten the rest."""
    room = max(10, width - 12)
    shown_steps, shown = downsample(steps, values, room)
    finite = sorted(filter(math.isfinite, shown))
    if not finite:
        return [Text(f"{name}: nan", "bright_red")]
    low, high = finite[len(finite) // 50], finite[-1 - len(finite) // 50]
    lines = [Text.assemble((name, "bold"), (f"  {shown_steps[0]} - {shown_steps[-1]}", "dim"), f"  {values[-1]:.4g}")]
    for row, cells in enumerate(sparkline(shown, low, high, rows=ROWS)):
        label = high if row == 0 else low if row == ROWS - 1 else None
        lines.append(Text.assemble((f"{label:>9.4g} " if label is not None else " " * 10, "dim"), (cells, "cyan")))
    return lines


def _bar(memory: MemoryGauge, width: int) -> Text:
    of = f" / {memory.capacity:.1f}" if memory.capacity else ""
    tail = f" {memory.used:.1f}{of} GiB (max {memory.peak:.1f})"
    if not memory.capacity:
        return Text(f"{memory.name:>9} {tail}")
    room = max(10, width - len(tail) - 12)
    share = min(1.0, memory.used / memory.capacity)
    colour = "bright_red" if share > 0.95 else "yellow" if share > 0.85 else "green"
    return Text.assemble(f"{memory.name:>9} ", ("█" * round(share * room), colour), ("░" * (room - round(share * room)), "dim"), tail)


def _finding(finding: FindingView, say: wording.Words) -> RenderableType:
    where = ""
    if finding.steps:
        first, last = finding.steps[0], finding.steps[-1]
        where = say("step", step=first) if first == last else say("steps", first=first, last=last)
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        Text(say.severity[finding.severity], _COLOURS.get(finding.severity, "")),
        Text.assemble(finding.title, "  ", (f"{finding.rule}{'  ' + where if where else ''}", "dim")),
    )
    return grid


def _span(seconds: float | None) -> str:
    return "?" if seconds is None else str(timedelta(seconds=round(seconds)))
