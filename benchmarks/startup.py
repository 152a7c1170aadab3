"""Start-up cost of lfdoctor against `python -c "import typer, rich"`: processor time, medians of N runs in turn.

python benchmarks/startup.py [N]
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
FIXTURE = ROOT / "fixtures" / (ROOT / "fixtures" / "DEMO").read_text(encoding="utf-8").strip()
"""The run that is analyzed."""

COMMANDS = {
    "typer, rich": ["-c", "import typer, rich"],
    "typer, rich, yaml": ["-c", "import typer, rich, yaml"],
    "--help": ["-m", "doctor", "--help"],
    "analyze (fixture)": ["-m", "doctor", "analyze", str(FIXTURE), "--format", "json"],
    "check (config)": ["-m", "doctor", "check", str(FIXTURE / "train.yaml"), "--format", "json"],
}
"""Name in the table -> arguments of the Python interpreter."""


def processor_seconds(arguments: list[str]) -> float:
    """User and system time of a child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rules_milliseconds() -> float:
    """Milliseconds to load all rules in a warm process with a filled cache."""
    from doctor.rulebook import loader

    loader.load()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        loader.load()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    """Print the table, then the same as a line of JSON."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            times[name].append(processor_seconds(arguments))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name:20s} {1000 * seconds:7.0f} ms processor time   {seconds / medians['typer, rich']:5.1f} x typer, rich")
    rules = rules_milliseconds()
    print(f"{'all rules':20s} {rules:7.1f} ms (median of 20, cache filled)")
    print(json.dumps({"seconds": medians, "rules_ms": rules}))


if __name__ == "__main__":
    main()
