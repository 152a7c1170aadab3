"""lfdoctor estimate: predict peak GPU memory and what fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from doctor.cli.common import Lang, one_language, one_of, screen, write_out
from doctor.cli.progress import shown_progress

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
        bool | None,
        typer.Option("--data/--no-data", help="Take the longest sample from the data sets; by default where they are small and here."),
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="The folder in which the training will be started.")] = Path(),
    fit: Annotated[bool, typer.Option("--fit", help="Also search for the longest cutoff_len and the largest batch that fit.")] = False,
    lang: Lang = "en",
) -> int:
    """Predict the peak memory of one GPU, part by part; with --fit also what would fit."""
    from doctor.memory import estimate as predict
    from doctor.memory.estimate import read_config
    from doctor.memory.fit import fit as search
    from doctor.memory.model_config import from_config
    from doctor.memory.names import read_json

    one_language(lang)
    one_of(kind, ("terminal", "json"), "--format")
    facts: dict[str, Any] = {"config.folder": str(config.parent)}
    given = {"gpu.total_gib": gpu_memory, "world_size": num_gpus, "length": length}
    facts.update({name: value for name, value in given.items() if value is not None})
    values = read_config(config)
    if data is not False and length is None:
        facts |= _longest(values, folder, num_gpus or 1, lang, asked=bool(data))
    if model_config is not None:
        facts["model.config"] = read_json(model_config)
        from_config(facts["model.config"])  # raises if sizes are missing
    predicted = predict(values, facts=facts)
    found = search(values, facts=facts) if fit else None
    write_out(
        _json(predicted, found) if kind == "json" else _table(predicted, found, lang), encoding=None if kind == "terminal" else "utf-8"
    )
    return 0


def _longest(values: Mapping[str, Any], folder: Path, world: int, lang: str, *, asked: bool) -> dict[str, Any]:
    """The longest sequence of the data sets as facts; where it is not known none, which is said on stderr if it was asked for."""
    from doctor.dataset.longest import SMALL_BYTES, longest
    from doctor.words.catalogue import say

    with shown_progress() as progress:
        found = longest(values, folder, world=world, most_bytes=None if asked else SMALL_BYTES, progress=progress)
    if asked and found.unknown:
        reason = say(f"data.unknown.{found.unknown}", lang)
        typer.echo(f"lfdoctor: {say('data.say.lengths_unknown', lang, reason=reason)}", err=True)
    return found.facts()


def _json(estimate: Estimate, found: Fit | None) -> str:
    import json

    return json.dumps({**estimate.to_dict(), **({"fit": found.to_dict()} if found else {})}, indent=2, ensure_ascii=False) + "\n"


def _table(peak: Estimate, found: Fit | None, lang: str) -> str:
    """The estimate as text: the verdict, the terms, the assumptions."""
    from io import StringIO

    from rich.console import Console
    from rich.text import Text

    look = screen()
    console = Console(file=StringIO(), width=look.width, force_terminal=look.color, no_color=not look.color, highlight=False)
    for line, style in (*_verdict_lines(peak, lang), *_part_lines(peak, lang), *_fit_lines(found, lang)):
        console.print(Text(line, style=style))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO given above
    return text


def _verdict_lines(peak: Estimate, lang: str) -> Iterator[tuple[str, str]]:
    """(line, style) of the peak and of whether it fits."""
    yield _say("peak", lang, model=peak.model, gib=peak.allocated_gib, low=peak.low_gib, high=peak.high_gib), "bold"
    if peak.capacity_gib is None:
        yield _say("unknown", lang), ""
    else:
        verdict = _say(peak.verdict, lang)
        yield _say("verdict", lang, verdict=verdict, usable=peak.capacity_gib, margin=peak.margin_gib or 0), ""
    yield _say("device", lang, free=peak.device_gib, shown=peak.may_show_gib), ""
    second = peak.phases.get(peak.runner_up or "", 0)
    yield _say("phases", lang, phase=peak.peak_phase, next=peak.runner_up, gib=second, regime=peak.regime), ""


def _part_lines(peak: Estimate, lang: str) -> Iterator[tuple[str, str]]:
    """(line, style) of the terms under LLaMA-Factory's and PyTorch's names, the assumptions and the notes."""
    yield _say("parts", lang), ""
    terms = sorted(peak.terms.items(), key=lambda item: -item[1])
    width = max((len(name) for name, _ in terms), default=0)
    yield from ((f"  {name.replace('_', ' '):<{width}}  {value:8.2f} GiB", "") for name, value in terms)
    source = peak.assumed["length_source"].get(lang)
    yield _say("length", lang, tokens=peak.assumed["length"], source=source), ""
    rest = {name: value for name, value in peak.assumed.items() if value is not None and not name.startswith("length")}
    values = ", ".join(f"{name.replace('_', ' ')} {_yaml(value)}" for name, value in rest.items())
    yield _say("assumed", lang, values=values), ""
    yield from ((_say("note", lang, note=note.get(lang)), "") for note in peak.notes)


def _fit_lines(found: Fit | None, lang: str) -> Iterator[tuple[str, str]]:
    if found is None:
        return
    nothing = _say("none_fits", lang)
    yield _say("longest_cutoff", lang, value=found.cutoff_len or nothing), ""
    yield _say("largest_batch", lang, value=found.batch or nothing), ""
    if not found.changes:
        yield _say("no_combination" if found.changes is None else "fits_already", lang), ""
        return
    changes = {key: value for step in found.changes for key, value in step.options.items()}
    kept = _say("same_training" if all(step.neutral for step in found.changes) else "other_training", lang)
    settings = ", ".join(f"{key}: {_yaml(value)}" for key, value in changes.items())
    yield _say("cheapest", lang, gib=found.after.allocated_gib, kept=kept, settings=settings), ""


def _say(name: str, lang: str, /, **values: object) -> str:
    from doctor.words import catalogue

    return catalogue.say(f"estimate.say.{name}", lang, **values)


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
