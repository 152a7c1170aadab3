"""Speed of the readers relative to other tools: medians of wall and processor time over ROUNDS, all tools in turn.

    python benchmarks/readers_speed.py [PART ...] [--rounds 5] [--megabytes 1000] [--records 1000000] [--steps 100000] [--folder DIR]

Parts:

- console: `lfdoctor analyze` with and without the extra `fast` against ripgrep with the rules' literals, `wc -l`, and zcat for gzip.
  Inputs: a realistic large console, a hostile console, a tenth of the size with matches in half of the lines, loss records, and the kinds
  of `console_inputs.py`, of a third of the size. ripgrep with the rules' 1,700 regular expressions takes minutes for a few MB.
- small: each of these consoles cut to 3 MB, start included.
- trainer_log: reading, and a finished report, against polars and pandas.
- trainer_state: against json and pandas.
- events: against EventAccumulator and tbparse, with checksums.
- folder: processor time for a typical run folder against `python -c "import typer, rich, yaml"`.

Tools that are not installed are skipped and named. Inputs are made once in DIR (benchmarks/inputs.py). Peak memory is that of the
largest process, from rusage.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import console_inputs
import inputs

ROOT = Path(__file__).parent.parent
ANALYZE = [sys.executable, "-m", "doctor", "analyze", "--format", "json", "-o", os.devnull, "--fail-on", "never"]
"""Our command for a finished report."""

WITHOUT_FAST = (
    "import runpy, sys; sys.modules.update(hyperscan=None, numpy=None); sys.argv[0] = 'doctor'; "
    "runpy.run_module('doctor', run_name='__main__')"
)
"""Code of our command as it is without the extra `fast`."""

SMALL = 3_000_000
"""Bytes of a small console."""

READ = (
    "import sys; from doctor.readers import reading; "
    "print(sum(len(batch) if isinstance(batch, list) else 1 for batch in reading.read([sys.argv[1]]).batches()))"
)
"""Code that only reads, with our readers."""

POLARS = "import sys, polars; polars.read_ndjson(sys.argv[1])"
"""Code that reads JSON lines with polars."""

PANDAS = "import sys, pandas; pandas.read_json(sys.argv[1], lines=True)"
"""The same with pandas."""

JSON = "import sys, json; json.load(open(sys.argv[1]))"
"""Code that reads a JSON file."""

PANDAS_STATE = "import sys, json, pandas; pandas.DataFrame(json.load(open(sys.argv[1]))['log_history'])"
"""The same, into a pandas table."""

ACCUMULATOR = (
    "import sys; from tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E; "
    "E(sys.argv[1], size_guidance={'scalars': 0}).Reload()"
)
"""Code that reads event files with TensorBoard's EventAccumulator."""

TBPARSE = "import sys; from tbparse import SummaryReader; SummaryReader(sys.argv[1]).scalars"
"""The same with tbparse."""


class Took(NamedTuple):
    """Cost of a run of a command."""

    wall: float
    processor: float
    mib: float


def run(command: Sequence[str]) -> Took:
    """Run a command: wall and processor time in seconds, peak memory in MiB. Raises for exit codes other than 0 and 1."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise RuntimeError(f"exit code {process.returncode}: {' '.join(command)}")
    return Took(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def made(kind: str, size: int, path: Path) -> Path:
    """The input, made by another process: a parent's own peak memory counts in the rusage of its children."""
    if not path.exists():
        maker = console_inputs if kind in console_inputs.KINDS else inputs
        subprocess.run([sys.executable, str(Path(str(maker.__file__))), kind, str(size), str(path)], check=True, stdout=subprocess.DEVNULL)
    return path


def compare(title: str, commands: Mapping[str, Sequence[str] | None], rounds: int) -> None:
    """Run all in turn; print medians of wall and processor time, and the ratio of the first to each."""
    taken: dict[str, list[Took]] = {name: [] for name, command in commands.items() if command}
    for _ in range(rounds):
        for name, command in commands.items():
            if command:
                taken[name].append(run(command))
    medians = {name: [statistics.median(figures) for figures in zip(*runs, strict=True)] for name, runs in taken.items()}
    first = next(iter(medians.values()))
    print(f"{title}: wall, processor, first / this (wall, processor), peak memory", flush=True)
    for name, (wall, processor, _) in medians.items():
        ratios = f"{first[0] / wall:7.2f} x {first[1] / processor:7.2f} x"
        print(f"  {name:34} {wall:8.3f} s {processor:8.3f} s {ratios} {max(run.mib for run in taken[name]):6.0f} MiB", flush=True)
    for name in commands.keys() - medians.keys():
        print(f"  {name:34} not installed")


def python(code: str, path: Path, needs: str) -> list[str] | None:
    """A Python command on the file, if its library is installed."""
    found = subprocess.run([sys.executable, "-c", f"import {needs}"], capture_output=True, check=False)
    return [sys.executable, "-c", code, str(path)] if found.returncode == 0 else None


def tool(name: str, *arguments: str) -> list[str] | None:
    """A command, if it is installed."""
    found = shutil.which(name)
    return [found, *arguments] if found else None


def literals(folder: Path) -> Path:
    """A file with all literals of the rules, one per line."""
    from doctor.diagnosis.engine import Engine
    from doctor.rulebook import loader

    path = folder / "literals.txt"
    path.write_text("\n".join(sorted(Engine(loader.load().rules).literals)) + "\n", encoding="utf-8")
    return path


def consoles(options: argparse.Namespace) -> dict[str, tuple[Path, int]]:
    """All consoles of this run: kind -> file, megabytes."""
    sizes = {"bars": options.megabytes, "hostile": options.megabytes, "flood": options.megabytes // 10}
    sizes |= dict.fromkeys(console_inputs.KINDS, options.megabytes // 3)
    return {kind: (made(kind, size, options.folder / f"{kind}-{size}.log"), size) for kind, size in sizes.items()}


def without_fast(path: Path) -> list[str]:
    """Our command as it is without the extra `fast`."""
    return [sys.executable, "-c", WITHOUT_FAST, *ANALYZE[3:], str(path)]


def small(options: argparse.Namespace) -> None:
    """Consoles of a few megabytes."""
    for kind, (path, _) in consoles(options).items():
        start = path.with_name(f"{kind}-small.log")
        with path.open("rb") as whole:
            start.write_bytes(whole.read(SMALL))
        compare(
            f"{kind}, {SMALL / 1e6:g} MB", {"lfdoctor analyze": [*ANALYZE, str(start)], "without fast": without_fast(start)}, options.rounds
        )


def console(options: argparse.Namespace) -> None:
    """Consoles: a finished report against ripgrep."""
    wanted = literals(options.folder)
    for kind, (path, size) in consoles(options).items():
        commands = {
            "lfdoctor analyze": [*ANALYZE, str(path)],
            "without fast": without_fast(path),
            "rg -F -f literals": tool("rg", "-a", "-c", "-F", "-f", str(wanted), str(path)),
            "wc -l": tool("wc", "-l", str(path)),
        }
        compare(f"{kind}, {size} MB", commands, options.rounds)
    path = options.folder / f"bars-{options.megabytes}.log"
    packed = Path(f"{path}.gz")
    if not packed.exists():
        subprocess.run(["gzip", "-1", "-k", str(path)], check=True)
    compare("the same as gzip", {"lfdoctor analyze": [*ANALYZE, str(packed)], "zcat": tool("zcat", str(packed))}, options.rounds)
    path = made("records", options.records, options.folder / f"records-{options.records}.log")
    log = made("trainer_log", options.records, options.folder / f"trainer_log-{options.records}.jsonl")
    commands = {"lfdoctor analyze": [*ANALYZE, str(path)], "polars, trainer_log of as many": python(POLARS, log, "polars")}
    compare(f"console of {options.records} loss records", commands, options.rounds)


def trainer_log(options: argparse.Namespace) -> None:
    """trainer_log.jsonl against polars and pandas."""
    path = made("trainer_log", options.records, options.folder / f"trainer_log-{options.records}.jsonl")
    reading = {
        "reading and merging": python(READ, path, "doctor"),
        "polars.read_ndjson": python(POLARS, path, "polars"),
        "pandas.read_json": python(PANDAS, path, "pandas"),
    }
    compare(f"trainer_log of {options.records} records", reading, options.rounds)
    report = {"lfdoctor analyze": [*ANALYZE, str(path)], "polars.read_ndjson": python(POLARS, path, "polars")}
    compare("to a finished report", report, options.rounds)


def trainer_state(options: argparse.Namespace) -> None:
    """trainer_state.json against json and pandas."""
    path = made("trainer_state", options.records // 10, options.folder / f"trainer_state-{options.records // 10}.json")
    commands = {
        "reading and merging": python(READ, path, "doctor"),
        "json.load": python(JSON, path, "json"),
        "json.load and pandas": python(PANDAS_STATE, path, "pandas"),
    }
    compare(f"trainer_state of {options.records // 10} records", commands, options.rounds)


def events(options: argparse.Namespace) -> None:
    """Event files against TensorBoard's own reader; compares every value."""
    path = made("events", options.steps, options.folder / f"events-{options.steps}" / "events.out.tfevents.1.node")
    commands = {
        "reading and merging, checksums": python(READ, path, "doctor"),
        "EventAccumulator, all points": python(ACCUMULATOR, path, "tensorboard"),
        "tbparse": python(TBPARSE, path, "tbparse"),
    }
    compare(f"event file of {len(inputs.TAGS)} tags x {options.steps} steps", commands, options.rounds)
    if commands["EventAccumulator, all points"]:
        print(f"  values equal to the bit: {same_values(path)}")


def same_values(path: Path) -> bool:
    """Whether our points of every tag equal EventAccumulator's."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from doctor.readers.file import File, Source
    from doctor.readers.tensorboard.frames import frames
    from doctor.readers.tensorboard.message import parse

    theirs = EventAccumulator(str(path), size_guidance={"scalars": 0})
    theirs.Reload()
    ours: dict[str, list[tuple[float, int, float]]] = {}
    for event in map(parse, frames(File(path, str(path), Source(str(path), "", path.stat().st_size)))):
        for tag, value, _ in event.values:
            if value is not None:
                ours.setdefault(tag, []).append((event.time, event.step, value))
    tags = theirs.Tags()["scalars"]
    return set(ours) == set(tags) and all(
        ours[tag] == [(scalar.wall_time, scalar.step, scalar.value) for scalar in theirs.Scalars(tag)] for tag in tags
    )


def folder(options: argparse.Namespace) -> None:
    """A typical run folder, in processor time. Our modules are byte-compiled first, as an installer does."""
    compileall.compile_dir(ROOT / "doctor", quiet=1)
    path = made("run", 1000, options.folder / "run")
    commands = {"lfdoctor analyze": [*ANALYZE, str(path)], "import typer, rich, yaml": [sys.executable, "-c", "import typer, rich, yaml"]}
    run(commands["lfdoctor analyze"])
    compare("run folder, 3,000 lines and 1,000 records", commands, max(options.rounds, 7))


PARTS = {part.__name__: part for part in (console, small, trainer_log, trainer_state, events, folder)}
"""Name on the command line -> benchmark."""


def main() -> None:
    """Run the given parts; all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    options.folder.mkdir(parents=True, exist_ok=True)
    for part in options.parts or PARTS:
        PARTS[part](options)


if __name__ == "__main__":
    main()
