"""`make lab`'s second half: the watcher and the healer on the real LLaMA-Factory (10 to 15 minutes on two cores).

Healing of every fault; every stage on one and on two ranks, by callback and by hook, bit-equal with and without us, findings live =
afterwards; a hung rank named; every seventh hang and NaN; a doctor that breaks inside a training. `python -m tests.lab.live --all` runs
all of those, and adds the v1 trainer, PPO, more of TRL, what the callback costs, and 200 kills. On a stack that names its stages
(stacks.yaml) only these, and the doctor that breaks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from tests.lab.install import ROOT, lab_bin, stack
from tests.lab.live_stages import KINDS

STAGES = (*KINDS, *(f"{name}-2-ranks" for name in KINDS), "sft-diverges", "hang-2-ranks", "trl-sft")
Part = list[str]


def inside(*words: str) -> Part:
    """A command for the lab's own Python."""
    return [str(lab_bin() / "python"), *words]


def at_once(parts: list[Part]) -> list[Part]:
    """Runs the parts side by side; those that failed."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "LFDOCTOR_MSGSPEC": str(Path(msgspec.__file__).parent)}
    running = [(part, subprocess.Popen(part, cwd=ROOT, env=variables)) for part in parts]
    return [part for part, process in running if process.wait()]


def main() -> int:
    """How many parts failed."""
    whole = "--all" in sys.argv[1:]
    ours = [sys.executable, "-m"]
    every = [] if whole else ["--every", "7"]
    # the parts of one group leave each other enough of two cores; what is timed runs alone
    groups = [
        [[*ours, "tests.lab.healing"]],
        [[*ours, "tests.lab.live_stages", *(() if whole else STAGES)], inside("-m", "tests.lab.live_harmless")],
        [[*ours, "tests.lab.hangs", *every], [*ours, "tests.lab.nans", *every, "--jobs", "1"]],
        *([[inside("-m", "tests.lab.live_overhead")], [[*ours, "tests.live.kills"]]] if whole else []),
    ]
    if stack().stages and not whole:
        groups = [[[*ours, "tests.lab.live_stages", *stack().stages, "--jobs", "1"], inside("-m", "tests.lab.live_harmless")]]
    failed = [part for group in groups for part in at_once(group)]
    for part in failed:
        print(f"FAIL {' '.join(part)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
