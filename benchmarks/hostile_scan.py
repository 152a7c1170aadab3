"""Scan a hundred runs, six of them hostile: does the scan end in time, and does it report each hostile run?

    python benchmarks/hostile_scan.py [--runs 100] [--seconds 20] [--folder DIR]

The hostile runs: a corrupt run, JSON that unpacks to half a GiB, a link to its own folder, files without read permission (as root the
scan drops that capability with setpriv), pipes instead of logs, and a sparse log of 5 GB. The scan must end within the limits of all
hostile runs plus a minute and report each of them; otherwise exit code 1.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fleet_scan import SCAN, generate

ROOT = Path(__file__).resolve().parent.parent

HUGE = 5_000_000_000
"""Bytes of the sparse log."""

CORRUPT, UNPACKED, LOOP, FORBIDDEN, PIPE, LARGE = "corrupt", "unpacked", "loop", "forbidden", "pipe", "large"


def hostile(folder: Path) -> None:
    """Make the six hostile runs in `folder`."""
    for name in (CORRUPT, UNPACKED, LOOP, FORBIDDEN, PIPE, LARGE):
        (folder / name).mkdir(parents=True)
    log = b'{"current_steps": 1, "total_steps": 2, "loss": 1.0}\n'
    (folder / CORRUPT / "trainer_log.jsonl").write_bytes(log + os.urandom(200_000))
    (folder / CORRUPT / "training_args.bin").write_bytes(b"PK\x03\x04" + os.urandom(5_000))
    (folder / CORRUPT / "trainer_state.json").write_bytes(b'{"log_history": [' + b"[" * 100_000)
    with gzip.open(folder / UNPACKED / "trainer_state.json.gz", "wb", compresslevel=1) as file:
        file.write(b'{"log_history": [')
        for _ in range(512):
            file.write(b'{"loss": 1.0, "step": 1},' * 40_000)
        file.write(b"{}]}")
    (folder / LOOP / "trainer_log.jsonl").write_bytes(log)
    (folder / LOOP / "again").symlink_to(folder / LOOP)
    (folder / LOOP / "self").symlink_to("self")
    (folder / FORBIDDEN / "trainer_log.jsonl").write_bytes(log)
    (folder / FORBIDDEN / "trainer_log.jsonl").chmod(0)
    os.mkfifo(folder / PIPE / "console.log")
    os.mkfifo(folder / PIPE / "trainer_log.jsonl")
    with (folder / LARGE / "console.log").open("wb") as file:
        file.write(b"***** Running training *****\n" + b"{'loss': 1.0, 'epoch': 0.1}\n" * 1000)
        file.truncate(HUGE)
        file.seek(0, os.SEEK_END)
        file.write(b"\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n")


def without_rights() -> list[str]:
    """Command prefix that makes file permissions apply to root."""
    if os.geteuid() or shutil.which("setpriv") is None:
        return []
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]


def main() -> int:
    """Print the result for each hostile run; return 1 if the scan took too long or missed a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0, help="limit of one run")
    parser.add_argument("--folder", type=Path, help="where to make the runs (default: a temporary folder)")
    given = parser.parse_args()
    import pyarrow.parquet as parquet

    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        work = Path(temporary)
        generate(work / "runs", given.runs - 6)
        hostile(work / "runs" / "hostile")
        argument = json.dumps([[str(work / "runs")], str(work / "runs.parquet"), "local", "", given.seconds])
        begin = time.perf_counter()
        bound = 6 * given.seconds + 60
        done = subprocess.run([*without_rights(), sys.executable, "-c", SCAN, argument], cwd=ROOT, check=False, timeout=4 * bound)
        wall = time.perf_counter() - begin
        rows = parquet.read_table(work / "runs.parquet").to_pylist() if done.returncode == 0 else []
        rows_by_run = {row["path"].rpartition("/")[2]: row for row in rows if "/hostile/" in row["path"]}
        for name in (CORRUPT, UNPACKED, LOOP, FORBIDDEN, PIPE, LARGE):
            row = rows_by_run.get(name)
            said = row and (row["error"] or "; ".join(row["problems"][:2]) or row["evidence"] or row["status"])
            print(f"{name}: {row['outcome'] if row else 'MISSING'}: {str(said)[:160]}")
        print(f"{len(rows)} rows; ended after {wall:.0f} s (bound {bound:.0f} s)")
        silent = [name for name, row in rows_by_run.items() if row["outcome"] == "analyzed" and not (row["problems"] or row["cause"])]
        return 0 if len(rows_by_run) == 6 and wall <= bound and not silent else 1


if __name__ == "__main__":
    sys.exit(main())
