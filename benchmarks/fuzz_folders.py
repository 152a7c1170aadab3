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
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def worker(seeds: Sequence[int], seconds: float, work: Path, keep: Path | None) -> None:
    """A line of JSON a seed on standard output. Ends with a stack on standard error if one takes `PATIENCE` times its time."""
    import resource

    faulthandler.register(signal.SIGXCPU, chain=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    (work / "here").mkdir()
    os.chdir(work / "here")
    for seed in seeds:
        faulthandler.dump_traceback_later(WAIT, exit=True)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + PATIENCE * seconds), -1))
        wrong, taken = one(seed, work, keep)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps({"seed": seed, "wrong": wrong, "seconds": round(taken, 2)}), flush=True)
        gc.collect()


class Tally:
    """What was found so far; a line is printed for everything that is wrong."""

    def __init__(self, seconds: float) -> None:
        self.count = self.wrong = 0
        self.slowest = 0.0
        self._seconds, self._lock = seconds, threading.Lock()

    def add(self, seed: int, wrong: list[str], seconds: float) -> None:
        """Count the folder of a seed."""
        lines = wrong + ([f"took {seconds} s"] if seconds > self._seconds else [])
        with self._lock:
            self.count, self.wrong, self.slowest = self.count + 1, self.wrong + bool(lines), max(self.slowest, seconds)
            for line in lines:
                print(f"{seed}: {' '.join(line.split())}", flush=True)


def block(seeds: list[int], given: argparse.Namespace, tally: Tally) -> None:
    """Do some seeds in processes of their own: one that dies costs the seed that it was at."""
    command = [*without_rights(), sys.executable, __file__, "--worker", "--seconds", str(given.seconds)]
    command += ["--keep", str(given.keep)] if given.keep else []
    while seeds:
        with tempfile.TemporaryDirectory() as work, tempfile.TemporaryFile("w+") as said:
            words = [*command, "--work", work, *map(str, seeds)]
            with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True) as process:
                for line in process.stdout or ():
                    tally.add(**json.loads(line))
                    seeds = seeds[1:]
            said.seek(0)
            stack = [line.strip() for line in said if line.startswith("  File")]
        if seeds:
            tally.add(seeds[0], [f"no answer (code {process.returncode}): {' < '.join(stack)[:900]}"], PATIENCE * given.seconds)
            seeds = seeds[1:]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="*", type=int)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Print what is wrong and a summary; exit code 1 if anything is."""
    given = arguments()
    if given.worker:
        worker(given.seeds, given.seconds, given.work, given.keep)
        return 0
    seeds = given.seeds or list(range(given.first, given.first + given.count))
    if given.keep:
        given.keep.mkdir(exist_ok=True)
        given.keep = given.keep.resolve()
    begin, tally = time.monotonic(), Tally(given.seconds)
    with ThreadPoolExecutor(given.processes) as pool:
        list(pool.map(lambda at: block(seeds[at : at + BLOCK], given, tally), range(0, len(seeds), BLOCK)))
    print(f"{tally.count} folders, {tally.wrong} wrong; slowest {tally.slowest:.1f} s; {time.monotonic() - begin:.0f} s in all")
    return int(tally.wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
