"""lfdoctor estimate: predict peak GPU memory and what fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doctor.cli.common import one_of, screen, write_out

if TYPE_CHECKING:
    from doctor.memory import Estimate
    from doctor.memory.fit import Fit


def estimate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A training YAML file.")],
    gpu_memory: Annotated[float | None, typer.Option("--gpu-memory", help="Memory of one GPU in GiB.", min=1, metavar="GIB")] = None,
    num_gpus: Annotated[int | None, typer.Option("--num-gpus", help="Number of GPUs.", min=1, metavar="N")] = None,
    length: Annotated[
        int | None, typer.Option("--length", help="Tokens of the longest sample, if shorter than cutoff_len.", min=1, metavar="N")
    ] = None,
    model_config: Annotated[
        Path | None,
        typer.Option("--model-config", help="The model's config.json, if the model is not a known one.", metavar="FILE"),
    ] = None,
    kind: Annotated[str, typer.Option("--format", "-f", help="terminal or json.", metavar="FORMAT")] = "terminal",
    data: Annotated[
        bool, typer.Option("--data", help="Take the length of the longest sample from the data sets, where it is known.")
    ] = False,
    folder: Annotated[Path, typer.Option("--folder", help="With --data: the folder in which the training will be started.")] = Path(),
    fit: Annotated[bool, typer.Option("--fit", help="Also search for the longest cutoff_len and the largest batch that fit.")] = False,
) -> int:
    """Predict the peak memory of one GPU, part by part; with --fit also what would fit."""
    from doctor.memory import estimate as predict
    from doctor.memory.estimate import read_config
    from doctor.memory.fit import fit as search
    from doctor.memory.model_config import from_config
    from doctor.memory.names import read_json

    one_of(kind, ("terminal", "json"), "--format")
    facts: dict[str, Any] = {"config.folder": str(config.parent)}
    given = {"gpu.total_gib": gpu_memory, "world_size": num_gpus, "length": length}
    facts.update({name: value for name, value in given.items() if value is not None})
    values = read_config(config)
    if data and length is None and (longest := _longest(values, folder)) is not None:
        facts["length"] = longest
    if model_config is not None:
        facts["model.config"] = read_json(model_config)
        from_config(facts["model.config"])  # raises if sizes are missing
    predicted = predict(values, facts=facts)
    found = search(values, facts=facts) if fit else None
    write_out(_json(predicted, found) if kind == "json" else _table(predicted, found), encoding=None if kind == "terminal" else "utf-8")
    return 0


def _longest(values: Mapping[str, Any], folder: Path) -> int | None:
    """Tokens of the longest training sequence; None, said on stderr, where not every length is known."""
    from doctor.dataset.inspect import Look, inspect
    from doctor.words.catalogue import say

    report = inspect(values, folder, Look(near=False))
    longest = report.longest_sequence
    if longest is None:
        reason = report.unknown or next(iter(report.numbers.unknown if report.numbers else ()), "no_samples")
        typer.echo(f"lfdoctor: {say('data.say.lengths_unknown', 'en', reason=say(f'data.unknown.{reason}', 'en'))}", err=True)
    return longest


def _json(estimate: Estimate, found: Fit | None) -> str:
    import json

    return json.dumps({**estimate.to_dict(), **({"fit": found.to_dict()} if found else {})}, indent=2, ensure_ascii=False) + "\n"


VERDICTS = {
    "fits": "fits",
    "tight": "tight: the peak is close to the usable memory",
    "no": "does not fit",
    "unknown": "Add --gpu-memory 24 to see if it fits.",
}
"""Verdict -> text in the table."""


def _table(peak: Estimate, found: Fit | None) -> str:
    """The estimate as text: the verdict, the terms, the assumptions."""
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    look = screen()
    console = Console(file=StringIO(), width=look.width, force_terminal=look.color, no_color=not look.color, highlight=False)
    console.print(
        Text(
            f"{peak.model}: {peak.allocated_gib:.1f} GiB at the peak ({peak.low_gib:.1f} to {peak.high_gib:.1f})",
            style="bold",
        )
    )
    if peak.capacity_gib is None:
        console.print(VERDICTS["unknown"])
    else:
        console.print(f"{VERDICTS[peak.verdict]}; usable {peak.capacity_gib:.1f} GiB, margin {peak.margin_gib or 0:+.1f} GiB")
    console.print(f"{peak.device_gib:.1f} GiB must be free on the GPU; nvidia-smi may show up to {peak.may_show_gib:.1f} GiB")
    console.print(
        f"peak in {peak.peak_phase}, next {peak.runner_up} at {peak.phases.get(peak.runner_up or '', 0):.1f} GiB; interval: {peak.regime}"
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in sorted(peak.terms.items(), key=lambda item: -item[1]):
        table.add_row("  " + name.replace("_", " "), f"{value:8.2f} GiB")
    console.print("parts (not all present at the same time):")
    console.print(table)
    rest = {name: value for name, value in peak.assumed.items() if value is not None and not name.startswith("length")}
    console.print(Text(f"assumed length: {peak.assumed['length']} tokens ({peak.assumed['length_source']})"))
    console.print(Text("assumed: " + ", ".join(f"{name.replace('_', ' ')} {_yaml(value)}" for name, value in rest.items())))
    for note in peak.notes:
        console.print(Text(f"note: {note}"))
    for line in _fit_lines(found) if found else ():
        console.print(Text(line))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO given above
    return text


def _fit_lines(found: Fit) -> list[str]:
    lines = [
        f"longest cutoff_len at this batch: {found.cutoff_len or 'none fits'}",
        f"largest per_device_train_batch_size at this length: {found.batch or 'none fits'}",
    ]
    if found.changes is None:
        return [*lines, "no combination of up to three known changes makes it fit"]
    if not found.changes:
        return [*lines, "it fits as it is"]
    changes = {key: value for step in found.changes for key, value in step.options.items()}
    kept = "same training" if all(step.neutral for step in found.changes) else "changes the training"
    settings = ", ".join(f"{key}: {_yaml(value)}" for key, value in changes.items())
    return [*lines, f"cheapest change that fits ({found.after.allocated_gib:.1f} GiB; {kept}): {settings}"]


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
