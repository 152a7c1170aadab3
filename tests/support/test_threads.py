"""The doctor in other people's processes: a notebook or a server calls it from several threads, which may all begin at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FIXTURES = Path(__file__).parents[2] / "fixtures"
CALLERS = """
import sys, threading
from pathlib import Path
import doctor

sys.setswitchinterval(1e-6)
together, said = threading.Barrier(3), {}

def call(folder: str) -> None:
    together.wait()
    said[folder] = doctor.analyze(Path(folder)).cause or "healthy"

threads = [threading.Thread(target=call, args=(folder,)) for folder in sys.argv[1:]]
for one in threads: one.start()
for one in threads: one.join()
print(*(said[folder] for folder in sys.argv[1:]))
"""


def test_threads_that_begin_at_once_all_get_their_reports() -> None:
    """Where each learns msgspec's types for itself, about every second of these processes dies of a segmentation fault."""
    folders = [str(FIXTURES / name) for name in ("healthy-sft", "gpu_oom_activations-forward", "config-batch-zero")]
    for _ in range(4):
        done = subprocess.run([sys.executable, "-c", CALLERS, *folders], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == ["healthy", "gpu_oom_activations", "config_invalid_value"]
