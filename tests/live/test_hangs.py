"""How long a training may be silent, which locks it waits for, and who is asked: with real processes, without a trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from doctor.live.supervisor import patience, stack_request
from doctor.live.supervisor.patience import Patience, Work
from doctor.live.trainer import lock_watch
from doctor.readers.file import File, Source
from doctor.readers.stacks import Stacks

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc, real-time signals")
ROOT = Path(__file__).parents[2]


def journal(folder: Path, rank: int, **event: object) -> None:
    """A journal whose last sign of life is this one."""
    name = "lfdoctor.jsonl" if rank == 0 else f"lfdoctor-rank{rank}.jsonl"
    lines = [{"type": "Session", "rank": rank}, event, {"type": "Sample", "metrics": {}}]
    (folder / name).write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))


def test_the_limit_is_what_the_ranks_expect(tmp_path):
    """Before the first step 45 s; then the longest that a rank expects, at least 30 s; a limit that the user gave stays."""
    limits = [Patience(os.getpid(), tmp_path, None).limit()]
    journal(tmp_path, 0, type="Step", time=time.time(), step=3, metrics={})
    limits.append(Patience(os.getpid(), tmp_path, None).limit())
    journal(tmp_path, 1, type="Alive", time=time.time(), expected=300.0)
    limits.append(Patience(os.getpid(), tmp_path, None).limit())
    journal(tmp_path, 0, type="Step", step=3, metrics={}, history=True)
    journal(tmp_path, 1, type="Alive", time=time.time(), expected="soon")
    limits.append(Patience(os.getpid(), tmp_path, None).limit())
    limits.append(Patience(os.getpid(), tmp_path, 7.0).limit())
    assert limits == [45.0, 30.0, 300.0, 30.0, 7.0]


@pytest.mark.parametrize(("code", "works"), [("while True: pass", True), ("import time; time.sleep(60)", False)], ids=["computes", "waits"])
def test_what_computes_is_not_silent_before_the_first_step(tmp_path, monkeypatch, code, works):
    """Tokenizing without a word is work; a step that was noted makes it a training, of which steps are expected."""
    monkeypatch.setattr(patience, "WORK_CHECK_SECONDS", 0.2)
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        ours = Patience(child.pid, tmp_path, None)
        began = time.monotonic()
        while time.monotonic() < began + 1.6:
            time.sleep(0.1)
            silence = ours.silence(time.monotonic())
        assert (silence < 1.0) is works
        journal(tmp_path, 0, type="Step", time=time.time() - 40, step=3, metrics={})
        assert ours.silence(time.monotonic()) >= 1.5
    finally:
        child.kill()
        child.wait()


def test_what_is_read_is_work(tmp_path, monkeypatch):
    """A model that is read from a slow disk: the processor rests, bytes move; only what is written counts as a save later on."""
    monkeypatch.setattr(patience, "WORK_CHECK_SECONDS", 0.1)
    code = "import time\nwhile True:\n  open('/dev/zero', 'rb').read(20 << 20); time.sleep(0.3)"
    child = subprocess.Popen([sys.executable, "-c", code])
    monkeypatch.setattr(patience, "BUSY", 100.0)
    monkeypatch.setattr(patience, "BUSY_OR_QUEUED", 100.0)
    try:
        work = Work(child.pid)
        began = time.monotonic()
        while time.monotonic() < began + 3 and work.last_busy == work.last_moved:
            time.sleep(0.1)
            work.look(time.monotonic())
        assert work.last_busy > work.last_moved
    finally:
        child.kill()
        child.wait()


BATON = "class FileBaton:\n  def __init__(self, path): self.lock_file_path = path\n  def wait(self):\n    yield\n"
LOCK = "class {name}:\n  def __init__(self, path): self.lock_file = path\n  def acquire(self):\n    yield\n"


@pytest.mark.parametrize(
    ("file", "source", "name", "expected"),
    [
        ("/v/site-packages/torch/utils/file_baton.py", BATON, "FileBaton", ("exists", "/locks/a b.lock")),
        ("/v/site-packages/filelock/_api.py", LOCK.format(name="UnixFileLock"), "UnixFileLock", ("flock", "/locks/a b.lock")),
        ("/v/site-packages/filelock/_soft.py", LOCK.format(name="SoftFileLock"), "SoftFileLock", ("exists", "/locks/a b.lock")),
        ("/home/me/file_baton.py", BATON, "FileBaton", None),
        ("/home/me/own.py", LOCK.format(name="UnixFileLock"), "UnixFileLock", None),
    ],
)
def test_the_lock_that_is_waited_for(file, source, name, expected):
    """By the library's own file and function, and its path as an absolute one; other code of that name is no lock."""
    scope: dict[str, object] = {}
    exec(compile(source, file, "exec"), scope)
    method = "wait" if name == "FileBaton" else "acquire"
    generator = getattr(scope[name]("/locks/a b.lock"), method)()
    next(generator)
    assert lock_watch.waited_for(generator.gi_frame) == expected


RANK = """
import fcntl, os, sys, time
from pathlib import Path
from doctor.live.trainer.stacks import StackFile
StackFile(Path(sys.argv[1]), 1).listen()
def fetch_image(): time.sleep(60)
if os.fork() == 0: fetch_image()
print("ready", flush=True)
def append_log():
    with open(sys.argv[2], "a") as file: fcntl.flock(file, fcntl.LOCK_EX)
append_log()
"""


def test_workers_and_locks_are_told(tmp_path):
    """A rank that the system makes wait for a lock which another process holds, and a fork of it that stands elsewhere."""
    import fcntl

    lock = tmp_path / "results 1.csv"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        child = subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path), str(lock)], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
        )
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(0.3)
            ranks = list(stack_request.listening(tmp_path, os.getpid()))
            assert [(one.rank, one.pid) for one in ranks] == [(1, child.pid)]
            stack_request.ask(ranks, 7, 31.0)
            path = ranks[0].path
            (fact,) = Stacks().configs(File(path, path.name, Source(str(path), "stacks", 0)))
        finally:
            for pid in stack_request.descendants(child.pid):
                os.kill(pid, 9)
            child.kill()
            child.communicate()
    assert fact.name == "stands.rank1"
    assert fact.value["frames"][0].endswith("append_log")
    assert (fact.value["step"], fact.value["silent_seconds"]) == (7, 31)
    assert [worker["frames"][0].rpartition(" ")[2] for worker in fact.value["workers"]] == ["fetch_image"]
    name = Path(f"/proc/{os.getpid()}/comm").read_text().strip().replace(" ", "_")
    assert fact.value["lock"] == {"path": str(lock), "age_seconds": 0, "holder": os.getpid(), "holder_name": name}


def test_a_lock_file_that_was_left_behind(tmp_path):
    """It is older than the process that waits until it is gone; a line of the lock's own thread in the midst of a stack costs no frame."""
    path = tmp_path / "lfdoctor-stacks-rank0.txt"
    path.write_text(
        "lfdoctor listens: rank 0 pid 50 signal 61 thread 0x7f01\n"
        "lfdoctor waits: rank 0 pid 50 exists age 7260 holder 0 - /cache/fused adam/lock\n"
        "\nlfdoctor asks: rank 0 pid 50 step 0 silent 46 time 1700000000 thread 0x7f01\n"
        "Current thread 0x7f01 (most recent call first):\n"
        '  File "/v/site-packages/torch/utils/file_baton.py", line 50 in wait\n'
        "lfdoctor lock: rank 0 pid 51 exists /elsewhere\n"
        '  File "/home/me/train.py", line 3 in main\n'
    )
    (fact,) = Stacks().configs(File(path, path.name, Source(str(path), "stacks", 0)))
    assert fact.value["frames"] == ["/v/site-packages/torch/utils/file_baton.py:50 wait", "/home/me/train.py:3 main"]
    assert fact.value["lock"] == {"path": "/cache/fused adam/lock", "age_seconds": 7260, "holder": 0}


def test_a_lock_that_was_got_meanwhile_is_no_lock(tmp_path):
    """The rank named it earlier; it stands elsewhere now."""
    path = tmp_path / "lfdoctor-stacks-rank0.txt"
    path.write_text(
        "lfdoctor listens: rank 0 pid 50 signal 61 thread 0x7f01\n"
        "lfdoctor lock: rank 0 pid 50 flock /cache/a.lock\n"
        "\nlfdoctor asks: rank 0 pid 50 step 4 silent 46 time 1700000000 thread 0x7f01\n"
        "Current thread 0x7f01 (most recent call first):\n"
        '  File "/home/me/train.py", line 3 in main\n'
    )
    (fact,) = Stacks().configs(File(path, path.name, Source(str(path), "stacks", 0)))
    assert "lock" not in fact.value
