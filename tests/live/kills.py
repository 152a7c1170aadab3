"""SIGKILL at random moments of a watched training: what the journal then holds, and what the report says.

`python -m tests.live.kills [COUNT] [--jobs 2]` (default 200); a few of them run with the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from doctor.core.events import Step
from doctor.readers.reading import read

ROOT = Path(__file__).parents[2]
RUN = "import sys; sys.argv[0] = 'lfdoctor'; from doctor.cli.main import main; sys.exit(main())"
TRAINING = """
import os, random, signal, sys, threading, time, types
sys.path.insert(0, sys.argv[1])
from doctor.live.trainer import recorder
recorder.PERIOD = 0.02  # twenty-five times as many writes to be hit in
from doctor import DoctorCallback
dice = random.Random(int(sys.argv[2]))
state = types.SimpleNamespace(global_step=0, max_steps=10**6, is_world_process_zero=True, num_input_tokens_seen=0)
args = types.SimpleNamespace(output_dir=".", world_size=1, to_dict=lambda: {"learning_rate": 1e-4})
ours = DoctorCallback(sys.argv[3], warn=False)
ours.on_train_begin(args, state, None, model=None)
print("***** Running training *****", flush=True)
threading.Timer(dice.random() * 0.5, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
while True:
    ours.on_step_begin(args, state, None)
    state.global_step += 1
    ours.on_step_end(args, state, None)
    ours.on_log(args, state, None, logs={"loss": 2.0 + dice.random() / 100, "note": "x" * dice.randrange(300), "grad_norm": dice.random()})
    if state.global_step % 40 == 0 and ours.recorder.flush():
        os.write(1, b"flushed %d\\n" % state.global_step)
    time.sleep(0.0003)
"""


def kill(seed: int, folder: Path) -> tuple[int, int]:
    """One killed training under `lfdoctor run`; the last flushed step, and the last one that the journal holds. Raises AssertionError."""
    training = [sys.executable, "-c", TRAINING, str(ROOT), str(seed), str(folder)]
    command = [sys.executable, "-c", RUN, "run", "-o", str(folder), "--", *training]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120)
    assert done.returncode == 137, f"seed {seed}: ended with {done.returncode}: {done.stderr[-500:]!r}"
    flushed = max((int(one) for one in re.findall(rb"flushed (\d+)", done.stdout)), default=0)
    journal = folder / "lfdoctor.jsonl"
    lines = journal.read_bytes().split(b"\n") if journal.exists() else [b""]
    for line in lines[:-1]:  # what follows the last newline was cut off by the kill
        json.loads(line)
    steps = [event.step for event in read([journal]).events() if isinstance(event, Step)] if lines[:-1] else []
    assert steps == list(range(1, len(steps) + 1)), f"seed {seed}: a step is missing in the middle"
    assert len(steps) >= flushed, f"seed {seed}: flushed {flushed}, kept {len(steps)}"
    report = json.loads((folder / "report.json").read_bytes())
    assert report["run"]["status"] == "failed", f"seed {seed}: {report['run']}"
    assert any(one["symptom"] == "killed" for one in report["findings"]), f"seed {seed}: {report['cause']}"
    assert report["run"]["steps"]["last"] == (len(steps) or None), f"seed {seed}: {report['run']['steps']}, journal {len(steps)}"
    return flushed, len(steps)


def main() -> int:
    """Prints what was lost; the number of broken promises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", nargs="?", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    bad = 0
    kept: list[tuple[int, int]] = []
    with tempfile.TemporaryDirectory(prefix="lfdoctor-kills-") as base, ThreadPoolExecutor(arguments.jobs) as pool:
        for future in [pool.submit(kill, seed, Path(base) / str(seed)) for seed in range(arguments.count)]:
            try:
                kept.append(future.result())
            except AssertionError as error:
                bad += 1
                print(f"FAIL {error}", flush=True)
    steps = [last for _, last in kept]
    print(f"{len(kept)} of {arguments.count} kills, after {min(steps)} to {max(steps)} steps: the journal parses, no flushed step is lost,")
    print("the report names the kill and the journal's last step")
    return bad


if __name__ == "__main__":
    sys.exit(main())
