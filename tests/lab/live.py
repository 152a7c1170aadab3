"""`make lab`'s second half: the watcher and the healer on the real LLaMA-Factory (4 to 6 minutes on two cores).

Healing of every fault; the stages named below bit-equal with and without us, findings live = afterwards; a doctor that breaks inside a
training. `python -m tests.lab.live --all` watches every stage and prints what the callback costs, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from tests.lab.install import ROOT, lab_bin

STAGES = ("sft", "dpo-2-ranks")


def inside(*words: str) -> list[str]:
    """A command for the lab's own Python."""
    return [str(lab_bin() / "python"), *words]


def main() -> int:
    """How many parts failed."""
    whole = "--all" in sys.argv[1:]
    ours = [sys.executable, "-m"]
    parts = [
        [*ours, "tests.lab.healing"],
        [*ours, "tests.lab.live_stages", *(() if whole else STAGES)],
        inside("-m", "tests.lab.live_harmless"),
        *([inside("-m", "tests.lab.live_overhead"), [*ours, "tests.live.kills"]] if whole else []),
    ]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "LFDOCTOR_MSGSPEC": str(Path(msgspec.__file__).parent)}
    failed = [part for part in parts if subprocess.run(part, cwd=ROOT, env=variables).returncode]
    for part in failed:
        print(f"FAIL {' '.join(part)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
