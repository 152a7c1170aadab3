"""Cost of a scan compared with analyzing its runs one by one, memory of its coordinator, and results with killed workers.

    python benchmarks/fleet_scan.py [--runs 10000] [--folder DIR] [--kill 300] [--engines local,dask,ray] [--pretend 1000,100000]

Generates run folders from fixtures/ with other hosts, paths and seeds, analyzes a sample one by one in this process, scans all with two
jobs, scans again, and scans part of them while worker processes are killed. Processor time is more reliable than wall time, which other
processes disturb; with two free cores wall time is half of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SCAN = """
import json, resource, sys
from pathlib import Path
from doctor.fleet.scan import coordinator, engines, records
roots, output, engine, address, seconds = json.loads(sys.argv[1])
options = coordinator.Options(roots=roots, output=Path(output), engine=engines.Choice(engine, address, 2), limits=records.Limits(seconds))
class Said(coordinator._Silent):
    def note(self, text): print(text, file=sys.stderr)
if __name__ == "__main__":
    found = coordinator.scan(options, Said())
    print(json.dumps({"runs": found.runs, "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                      "coordinator_s": sum(resource.getrusage(resource.RUSAGE_SELF)[:2])}))
"""
"""Scans in a child process and prints its figures as JSON."""


PRETEND = """
import json, resource, sys, time
from pathlib import Path
import msgspec
from doctor.fleet.scan import coordinator, store
output, source, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
options = coordinator.Options(roots=["pretended"], output=Path(output))
source = store.Store(Path(source), coordinator._version(options))
known = list(source.rows("SELECT path, found, record FROM runs WHERE done = 1 AND state != ''"))
kept = store.Store(options.sibling(".cache"), coordinator._version(options))
for number in range(runs):
    path, found, record = known[number % len(known)]
    path = f"sweep{number // 100}/{number}{Path(path).name}"
    kept.found(msgspec.structs.replace(msgspec.msgpack.decode(found, type=coordinator.FoundRun), path=path))
    decoded = msgspec.msgpack.decode(record, type=coordinator.RunRecord)
    kept.put(path, msgspec.msgpack.encode(msgspec.structs.replace(decoded, path=path, job=path)))
begin = time.perf_counter()
coordinator._write(options, kept)
kept.close()
print(json.dumps({"rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "write_s": time.perf_counter() - begin}))
"""
"""Writes the outputs for repeated records of a real scan, without analyzing."""


def pretended(work: Path, runs: int) -> dict[str, Any]:
    """The coordinator's memory and the seconds to write its outputs, for `runs` runs."""
    if not (work / "few.parquet").exists():
        generate(work / "few", 110)
        scan([work / "few"], work / "few.parquet")
    arguments = [str(work / f"pretended{runs}.parquet"), str(work / "few.cache"), str(runs)]
    done = subprocess.run([sys.executable, "-c", PRETEND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def generate(folder: Path, runs: int) -> None:
    """Make `runs` run folders, a hundred per sweep."""
    fixtures = sorted(path for path in (ROOT / "fixtures").iterdir() if path.is_dir())
    chance = random.Random(7)
    for number in range(runs):
        source = fixtures[number % len(fixtures)]
        target = folder / f"sweep{number // 100:04d}" / f"{source.name}-{number}"
        if not target.exists():
            copy(source, target, number, chance)


def copy(source: Path, target: Path, number: int, chance: random.Random) -> None:
    """Copy a fixture as another run: text files varied, binary files unchanged."""
    host, seed = f"node{chance.randrange(1000)}", chance.randrange(10**6)
    for path in source.rglob("*"):
        if not path.is_file() or path.name in ("ORIGIN.md", "expected.yaml"):
            continue
        to = target / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        if path.suffix in (".log", ".yaml", ".json", ".jsonl", ".out", ".err", ".sh", ".txt"):
            data = re.sub(rb"saves/tiny-llama", b"saves/job%d" % number, data)
            data = re.sub(rb"\blocalhost\b", host.encode(), data)
            data = re.sub(rb"(?m)^seed: \d+", b"seed: %d" % seed, data)
        to.write_bytes(data)


def scan(roots: list[Path], output: Path, engine: str = "local", address: str = "", seconds: float = 120.0) -> dict[str, Any]:
    """Scan in a separate process; adds wall seconds and processor seconds (with its children's)."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    argument = json.dumps([[str(root) for root in roots], str(output), engine, address, seconds])
    done = subprocess.run([sys.executable, "-c", SCAN, argument], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {**figures, "wall_s": time.perf_counter() - begin, "cpu_s": cpu, "notes": done.stderr.count("a worker was lost")}


def one_by_one(folder: Path, runs: int, sample: int) -> tuple[float, float]:
    """Wall and processor seconds to analyze all runs in this process, extrapolated from a sample."""
    import doctor

    paths = sorted(path for sweep in folder.iterdir() for path in sweep.iterdir())
    chosen = [paths[i * len(paths) // sample] for i in range(sample)]
    for path in chosen[:5]:
        doctor.analyze(path)
    begin, cpu = time.perf_counter(), time.process_time()
    for path in chosen:
        doctor.analyze(path)
    scale = runs / len(chosen)
    return (time.perf_counter() - begin) * scale, (time.process_time() - cpu) * scale


def killer(pattern: str, kills: int, stop: threading.Event, log: list[int]) -> None:
    """Kill descendants whose command line contains `pattern`, at random times."""
    chance = random.Random(3)
    while not descendants(os.getpid(), PATTERNS["local"]) and not stop.wait(0.2):  # until the scan has started
        continue
    while kills and not stop.wait(chance.uniform(0.5, 2.5)):
        victims = descendants(os.getpid(), pattern)
        if victims:
            os.kill(chance.choice(victims), signal.SIGKILL)
            log.append(1)
            kills -= 1


def descendants(pid: int, pattern: str) -> list[int]:
    """Descendants of `pid` whose command line contains `pattern`."""
    out = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            try:
                line = Path(f"/proc/{child}/cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ")
            except OSError:
                continue
            out += [child] if pattern in line else []
            out += descendants(child, pattern)
    return out


PATTERNS = {"local": "doctor.fleet.scan.worker_process", "dask": "multiprocessing.spawn", "ray": "ray::PoolActor"}
"""Engine -> part of a worker process's command line."""


def rows(path: Path) -> Any:
    """Both output tables of a scan."""
    import pyarrow.parquet as parquet

    return parquet.read_table(path), parquet.read_table(path.with_name(path.stem + ".findings.parquet"))


def killed(folder: Path, runs: int, engine: str, work: Path) -> str:
    """Compare a scan during which workers are killed with an undisturbed scan."""
    roots = sorted(folder.iterdir())[: max(1, runs // 100)]
    plain, hit = work / f"{engine}-plain.parquet", work / f"{engine}-killed.parquet"
    scan(roots, plain, engine)
    stop = threading.Event()
    log: list[int] = []
    thread = threading.Thread(target=killer, args=(PATTERNS[engine], 4, stop, log), daemon=True)
    thread.start()
    try:
        figures = scan(roots, hit, engine)
    finally:
        stop.set()
    thread.join()
    same = all(a.equals(b) for a, b in zip(rows(plain), rows(hit), strict=True))
    local = all(a.equals(b) for a, b in zip(rows(plain), rows(work / "local-plain.parquet"), strict=True))
    return f"{engine}: {figures['runs']} runs, {len(log)} workers killed; same rows {same}; same rows as local {local}"


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--sample", type=int, default=220)
    parser.add_argument("--kill", type=int, default=300)
    parser.add_argument("--pretend", default="1000,10000,100000", help="numbers of runs for which outputs are made of repeated records")
    parser.add_argument("--engines", default="local,dask,ray")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = given.folder or work / "runs"
        generate(folder, given.runs or given.kill)
        if given.runs:
            wall, cpu = one_by_one(folder, given.runs, min(given.sample, given.runs))
            first = scan([folder], work / "all.parquet")
            second = scan([folder], work / "all.parquet")
            wall2, cpu2 = one_by_one(folder, given.runs, min(given.sample, given.runs))
            wall, cpu = (wall + wall2) / 2, (cpu + cpu2) / 2
            print(f"one by one: {cpu:.0f} s of processor, {wall:.0f} s of wall time ({1000 * cpu / given.runs:.1f} ms a run)")
            print(
                f"scan of {first['runs']}: processor {first['cpu_s']:.0f} s ({first['cpu_s'] / cpu:.2f}x), wall {first['wall_s']:.0f} s "
                f"({(first['wall_s'] - 5) / (wall / 2):.2f}x half of one by one, less 5 s); coordinator {first['coordinator_s']:.0f} s, "
                f"{first['rss_mib']:.0f} MiB"
            )
            print(
                f"again: processor {second['cpu_s'] / first['cpu_s']:.1%}, wall {second['wall_s'] / first['wall_s']:.1%} of the first; "
                f"coordinator {second['rss_mib']:.0f} MiB"
            )
            tenth = scan(sorted(folder.iterdir())[: max(1, given.runs // 1000)], work / "tenth.parquet")
            print(f"coordinator with {tenth['runs']} runs: {tenth['rss_mib']:.0f} MiB")
        for runs in filter(None, given.pretend.split(",")):
            figures = pretended(work, int(runs))
            print(f"outputs for {runs} runs: coordinator {figures['rss_mib']:.0f} MiB, {figures['write_s']:.1f} s")
        for engine in given.engines.split(",") if given.kill else ():
            if engine == "ray" and shutil.which("ray", path=str(Path(sys.executable).parent)) is None:
                print("ray: not installed")
                continue
            print(killed(folder, given.kill, engine, work))


if __name__ == "__main__":
    main()
