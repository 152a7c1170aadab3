"""Analyze many damaged run folders: does every promise of the documentation hold for each?

    python benchmarks/fuzz_folders.py [--count 20000] [--first 0] [--seconds 10] [--processes 1] [--keep DIR] [SEED ...]

Each seed makes one folder (tests/fuzz/folders.py: recorded runs and files of every format, cut, joined, reordered, with flipped bytes,
other encodings, odd numbers, bombs, pipes, links, odd names, ...) and asks `analyze`, `show` and, by turns, `check --fix`, `bundle` and
`watch` about it. Counted as wrong (tests/fuzz/oracle.py): an exception, an answer that takes more than --seconds of processor time or waits
for something, an exit code that is not documented or does not fit the report's verdict. Printed per seed; exit code 1 if there is any.
Named SEEDs are done alone; --keep leaves the folders of wrong ones. Linux. As root, permissions are made to apply with setpriv.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hostile_scan import without_rights

BLOCK = 250
"""Seeds that one process does before it is replaced."""
MEMORY = 4 << 30
"""Bytes of address space that one process may take."""

PATIENCE = 3
"""A folder that takes this much longer than it may is stopped, to see where it stands."""
WAIT = 900.0
"""Seconds after which a folder is stopped that waits for something, on however busy a machine."""


def one(seed: int, work: Path, keep: Path | None) -> tuple[list[str], float]:
    """What is wrong with the answers about a seed's folder, and the seconds of processor time they took."""
    from tests.fuzz import folders, oracle

    folder = work / f"run-{seed}"
    target = folders.make(folder, seed)
    begin = time.process_time()
    try:
        wrong = oracle.judge(target, seed)
    except Exception as error:  # an exception is what is looked for
        frames = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        wrong = [f"{type(error).__name__}: {str(error)[:200]} in {' '.join(frames[-4:])}"]
    seconds = time.process_time() - begin
    if keep is not None and wrong:
        folders.remove(keep / folder.name)
        folders.make(keep / folder.name, seed)
    folders.remove(folder)
    return wrong, seconds


def worker(seeds: Sequence[int], seconds: float, keep: Path | None) -> None:
    """A line of JSON a seed on standard output. Ends with a stack on standard error if one takes `PATIENCE` times its time."""
    import resource

    faulthandler.register(signal.SIGXCPU, chain=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as temporary:
        from tests.fuzz.oracle import somewhere_else

        (Path(temporary) / "here").mkdir()
        with somewhere_else(Path(temporary) / "here"):
            for seed in seeds:
                faulthandler.dump_traceback_later(WAIT, exit=True)
                resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + PATIENCE * seconds), -1))
                wrong, taken = one(seed, Path(temporary), keep)
                faulthandler.cancel_dump_traceback_later()
                print(json.dumps({"seed": seed, "wrong": wrong, "seconds": round(taken, 2)}), flush=True)
                gc.collect()


def block(seeds: list[int], given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The results of some seeds in processes of their own: one that dies costs the seed that it was at."""
    while seeds:
        command = [*without_rights(), sys.executable, __file__, "--worker", "--seconds", str(given.seconds), *map(str, seeds)]
        command += ["--keep", str(given.keep)] if given.keep else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        results = [json.loads(line) for line in done.stdout.splitlines()]
        yield from results
        seeds = seeds[len(results) :]
        if seeds:
            stack = " < ".join(line.strip() for line in done.stderr.splitlines() if line.startswith("  File"))
            yield {
                "seed": seeds[0],
                "wrong": [f"no answer (code {done.returncode}): {(stack or done.stderr)[:900]}"],
                "seconds": PATIENCE * given.seconds,
            }
            seeds = seeds[1:]


def main() -> int:
    """Print what is wrong and a summary; exit code 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="*", type=int)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.seeds, given.seconds, given.keep)
        return 0
    seeds = given.seeds or list(range(given.first, given.first + given.count))
    if given.keep:
        given.keep.mkdir(exist_ok=True)
        given.keep = given.keep.resolve()
    blocks = [seeds[at : at + BLOCK] for at in range(0, len(seeds), BLOCK)]
    begin, count, wrong, slowest = time.monotonic(), 0, 0, 0.0
    with ThreadPoolExecutor(given.processes) as pool:
        for result in (one for results in pool.map(lambda part: list(block(part, given)), blocks) for one in results):
            lines = result["wrong"] + ([f"took {result['seconds']} s"] if result["seconds"] > given.seconds else [])
            count, wrong, slowest = count + 1, wrong + bool(lines), max(slowest, result["seconds"])
            for line in lines:
                print(f"{result['seed']}: {line}", flush=True)
    print(f"{count} folders, {wrong} wrong; slowest answer {slowest:.1f} s; {time.monotonic() - begin:.0f} s in all")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
