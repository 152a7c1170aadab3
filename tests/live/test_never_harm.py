"""What lfdoctor must not do to a training: mix it with another run, break what it pickles, shadow its modules, take it down with itself."""

from __future__ import annotations

import contextlib
import copy
import errno
import io
import json
import os
import pickle
import stat
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from doctor import DoctorCallback
from doctor.cli import run as cli_run
from doctor.errors import DoctorError
from doctor.live.supervisor import console_copy
from doctor.live.supervisor.console_copy import ConsoleCopy
from doctor.live.supervisor.hang_detector import hung_after
from doctor.live.supervisor.run_folder import LOCK, RunFolder
from doctor.live.trainer import owner
from doctor.live.trainer.rank_work import RankWorkTimer
from tests.live.test_callback import Trainer
from tests.live.test_run import ROOT, environment, lfdoctor, start

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process groups, /proc")


def wait_for(condition, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


# ---- a folder belongs to one run


def test_a_reused_folder_holds_the_new_run_only(tmp_path):
    """A failed run, then a good one with the same -o: the report is the good one's, the old files lie beside, the user's stay."""
    folder = tmp_path / "d"
    assert start(folder, "print('first run'); raise MemoryError('no more')").returncode == 1
    (folder / "notes.txt").write_text("mine")
    (folder / "lfdoctor.jsonl").write_text('{"type":"Session"}\n{"type":"Fact","name":"stopped_by_doctor","value":"lost"}\n')
    done = start(folder, "print('second run')")
    assert done.returncode == 0
    assert b"held an earlier run" in done.stderr
    assert (folder / "console.log").read_text() == "second run\n"
    assert not (folder / "lfdoctor.jsonl").exists()
    assert "MemoryError" not in (folder / "report.json").read_text()
    assert (folder / "notes.txt").read_text() == "mine"
    assert "MemoryError" in (tmp_path / "d.1" / "report.json").read_text()
    assert "stopped_by_doctor" in (tmp_path / "d.1" / "lfdoctor.jsonl").read_text()


def test_healing_into_a_used_folder_starts_over(tmp_path):
    """Attempts of an earlier healing are not attempts of this one."""
    folder = tmp_path / "d"
    (folder / "attempt-1").mkdir(parents=True)
    (folder / "attempt-1" / "lfdoctor.jsonl").write_text('{"type":"Fact","name":"stopped_by_doctor","value":"lost"}\n')
    (tmp_path / "cfg.yaml").write_text(f"stage: sft\noutput_dir: {tmp_path / 'out'}\n")
    script = "import sys; sys.exit('never twice') if __import__('os').path.exists('ran') else open('ran', 'w').close()"
    command = [*lfdoctor(folder, script, "--heal", "3"), str(tmp_path / "cfg.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment(), timeout=120)
    assert done.returncode == 0
    report = json.loads((folder / "report.json").read_text())
    assert [attempt["outcome"] for attempt in report["attempts"]] == ["finished"]


def test_a_config_of_an_earlier_healing_is_not_moved_away(tmp_path):
    """The report's own command names attempt-2.yaml in the folder: it can be run there, and the checkpoint it resumes from stays."""
    folder = tmp_path / "d"
    (folder / "attempt-2").mkdir(parents=True)
    (folder / "resume-2").mkdir()
    config = folder / "attempt-2.yaml"
    config.write_text("stage: sft\n")
    with RunFolder(folder, ["llamafactory-cli", "train", str(config)]):
        assert config.exists()
        assert (folder / "resume-2").exists()
        assert not (folder / "attempt-2").exists()


def test_a_folder_in_use_is_refused(tmp_path):
    """Two runs at once into one folder: the second says who is there and starts nothing; the first is not disturbed."""
    first = subprocess.Popen(
        lfdoctor(tmp_path / "d", "print('ready', flush=True); input(); print('done')"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    assert first.stdout is not None
    assert first.stdin is not None
    assert first.stdout.readline() == b"ready\n"
    second = start(tmp_path / "d", "print('never')")
    first.stdin.write(b"\n")
    first.stdin.close()
    assert first.stdout.read() == b"done\n"
    assert first.wait(30) == 0
    first.stdout.close()
    assert (second.returncode, second.stdout) == (2, b"")
    assert f"in use by another lfdoctor run (process {first.pid})".encode() in second.stderr
    assert start(tmp_path / "d", "print('third')").stdout == b"third\n"


def test_jobs_that_start_in_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    """Without -o the folder's name is the time; a name that is taken gets a number."""
    monkeypatch.chdir(tmp_path)
    names = [cli_run._new_folder(Path("lfdoctor-20260101-000000")).name for _ in range(3)]
    assert names == ["lfdoctor-20260101-000000", "lfdoctor-20260101-000000_2", "lfdoctor-20260101-000000_3"]
    assert all((tmp_path / name).is_dir() for name in names)


# ---- the training survives us


def test_killing_lfdoctor_leaves_the_training_alive(tmp_path):
    """SIGKILL to lfdoctor: the training prints on and ends well, its output still arrives, and its folder is refused until then."""
    script = """
import os, sys, time
print("pid", os.getpid(), flush=True)
for number in range(400):
    if os.path.exists(sys.argv[1]): break
    time.sleep(0.05)
for number in range(3000): print("line", number, "x" * 60)
print("warning", file=sys.stderr, flush=True)
time.sleep(0.5)
open(sys.argv[1] + ".done", "w").close()
"""
    gate = tmp_path / "go"
    process = subprocess.Popen(
        [*lfdoctor(tmp_path / "d", script), str(gate)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    assert process.stderr is not None
    training = int(process.stdout.readline().split()[1])
    process.kill()
    process.wait()
    refused = start(tmp_path / "d", "print('never')")
    assert refused.returncode == 2
    assert f"process {training}".encode() in refused.stderr
    gate.touch()
    assert process.stdout.read().splitlines()[-1].startswith(b"line 2999 ")
    assert process.stderr.read() == b"warning\n"
    wait_for((tmp_path / "go.done").exists)
    process.stdout.close()
    process.stderr.close()
    console = (tmp_path / "d" / "console.log").read_bytes()
    assert b"line 0 x" in console
    assert console.count(b"\n") >= 3001  # the first line may have been on its way when lfdoctor was killed


def test_a_terminal_stays_when_lfdoctor_is_killed(tmp_path):
    """The training's pseudo-terminal is not hung up, and what it prints still reaches the real one."""
    import pty

    ours, theirs = pty.openpty()
    script = "import os, sys, time; print('pid', flush=True); time.sleep(2); print('still', sys.stdout.isatty(), flush=True)"
    process = subprocess.Popen(lfdoctor(tmp_path, script), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment())
    os.close(theirs)
    seen = os.read(ours, 4096)
    process.kill()
    process.wait()
    with contextlib.suppress(OSError):
        while b"still True" not in seen and b"still False" not in seen and (data := os.read(ours, 4096)):
            seen += data
    os.close(ours)
    assert b"still True" in seen


def test_no_helper_is_left_over(tmp_path):
    """After a run in order no process of ours goes on, even if the training left one behind that holds its output open."""
    leaves = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'], start_new_session=True)"
    start(tmp_path / "d", leaves)
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert not any(b"output_keeper" in command and bytes(tmp_path) in command for command in commands)


# ---- a full disk


class FullDisk(io.RawIOBase):
    """Takes `room` bytes, then refuses until there is room again."""

    def __init__(self, room: int) -> None:
        self.room, self.data = room, bytearray()

    def write(self, data) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = bytes(data)[: self.room]
        self.data += taken
        self.room -= len(taken)
        return len(taken)


def test_output_waits_for_room_on_the_disk(tmp_path, monkeypatch, capsys):
    """What a full disk refuses is written, in order, once checkpoints were deleted; the reason is told once."""
    monkeypatch.setattr(console_copy, "RETRY_SECONDS", 0.05)
    disk = FullDisk(10)
    monkeypatch.setattr(Path, "open", lambda *_, **__: disk)
    with ConsoleCopy(tmp_path / "console.log") as copied:
        for number in range(5):
            copied.write(b"line %d\n" % number)
        wait_for(lambda: disk.room == 0)
        time.sleep(0.2)
        disk.room = 1000
    assert bytes(disk.data) == b"".join(b"line %d\n" % number for number in range(5))
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_a_report_that_cannot_be_saved_is_told_all_the_same(tmp_path):
    """report.json cannot be written: the finding is on standard error, and the exit code is the training's."""
    script = f"import os; os.makedirs({str(tmp_path / 'd' / 'report.json' / 'x')!r}); os.kill(os.getpid(), 9)"
    done = start(tmp_path / "d", script)
    assert done.returncode == 137
    assert b"the report cannot be saved" in done.stderr
    assert b"SIGKILL" in done.stderr.partition(b"the report cannot be saved")[2]


def test_a_report_that_cannot_be_saved_does_not_end_healing(tmp_path):
    """The attempt's report.json cannot be written: the next attempt is started all the same, and finishes."""
    (tmp_path / "cfg.yaml").write_text(f"stage: sft\noutput_dir: {tmp_path / 'out'}\n")
    script = """
import os
if os.path.exists("ran"): raise SystemExit(0)
os.makedirs("ran")
os.makedirs("d/attempt-1/report.json/x")
os.makedirs("d/report.json/x")
os.kill(os.getpid(), 9)
"""
    command = [*lfdoctor(Path("d"), script, "--heal", "2"), "cfg.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment(), timeout=120)
    assert done.returncode == 0
    assert done.stderr.count(b"the report cannot be saved") == 3
    assert b"attempt 2:" in done.stderr


def test_disk_space_is_set_aside_for_the_end(tmp_path):
    """While the training runs 4 MiB are reserved; they are free when console, journal and report are written."""
    reserve = tmp_path / "d" / ".lfdoctor-reserve.lock"
    done = start(tmp_path / "d", f"import os; print(os.stat({str(reserve)!r}).st_size)")
    assert done.stdout == b"4194304\n"
    assert not reserve.exists()


# ---- what the training pickles


class Module:
    """As much of a torch module as takes hooks."""

    training = True

    def __init__(self) -> None:
        self.hooks: dict[int, object] = {}

    def _add(self, hook):
        key = len(self.hooks)
        self.hooks[key] = hook
        return types.SimpleNamespace(remove=lambda: self.hooks.pop(key))

    register_forward_pre_hook = register_forward_hook = _add


def test_hooked_modules_can_be_pickled_and_copied(monkeypatch):
    """The hooks on a DDP model survive pickle and deepcopy; a copy's hooks change nothing, measure nothing, and need no lfdoctor."""
    outer, inner = Module(), Module()
    timer = RankWorkTimer(outer, inner)
    timer.step_begins(time.perf_counter())
    data = pickle.dumps((outer, inner))
    copies = [*pickle.loads(data), *copy.deepcopy((outer, inner))]
    for module in copies:
        for hook in module.hooks.values():
            assert hook(module, (1, 2)) is None
            assert hook(module, (1, 2), "output") is None
    assert timer.take() == 0.0
    assert b"doctor" not in pickle.dumps(list(inner.hooks.values()))
    for hook in [*outer.hooks.values(), *inner.hooks.values()]:
        assert hook(outer, ()) is None
    assert timer.take() > 0.0
    timer.close()
    assert not outer.hooks
    assert not inner.hooks


def test_a_copy_of_the_callback_does_not_record(tmp_path, monkeypatch):
    """A deep copy beside the original in one training: every step is in the journal once."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before, owner.OWNERS[:] = list(owner.OWNERS), []
    try:
        ours = DoctorCallback(warn=False)
        Trainer([ours, copy.deepcopy(ours)], tmp_path, [2.0, 1.0]).train()
    finally:
        owner.OWNERS[:] = before
    lines = [json.loads(line) for line in (tmp_path / "lfdoctor.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["type"] == "Step"] == [1, 2]


# ---- the user's own modules

LIBRARY = """
class Trainer:
    def train(self):
        import doctor.clinic
        assert doctor.WHOSE == "the user's" and doctor.clinic.BEDS == 3
        class State: global_step, max_steps, is_world_process_zero = 0, 3, True
        class Args: output_dir, world_size = "out", 1
        for callback in DEFAULT_CALLBACKS: callback.on_train_begin(Args, State, None, model=None)
        for step in range(1, 4):
            State.global_step = step
            for callback in DEFAULT_CALLBACKS: callback.on_step_begin(Args, State, None); callback.on_step_end(Args, State, None)
            for callback in DEFAULT_CALLBACKS: callback.on_log(Args, State, None, logs={"loss": 3.0 / step})
        import pickle
        copies = pickle.loads(pickle.dumps(DEFAULT_CALLBACKS))
        print(type(DEFAULT_CALLBACKS[0]).__module__, [type(one).__name__ for one in copies])
        import doctor
        print(doctor.WHOSE, doctor.__file__ == DOCTOR)
DEFAULT_CALLBACKS = []
"""


@pytest.mark.parametrize("imported", ["before", "after"])
def test_a_module_named_doctor_is_the_users(tmp_path, imported):
    """A user's own package `doctor`, imported before or after the hook: it is theirs, and the training is watched all the same."""
    (tmp_path / "doctor").mkdir()
    (tmp_path / "doctor" / "__init__.py").write_text('WHOSE = "the user\'s"\n')
    (tmp_path / "doctor" / "clinic.py").write_text("BEDS = 3\n")
    library = tmp_path / "transformers"
    library.mkdir()
    (library / "__init__.py").write_text("")
    (library / "trainer_callback.py").write_text("class TrainerCallback: pass\n")
    (library / "trainer.py").write_text(f"from . import trainer_callback\nDOCTOR = {str(tmp_path / 'doctor' / '__init__.py')!r}\n{LIBRARY}")
    first = "import doctor; " if imported == "before" else ""
    command = lfdoctor(tmp_path / "d", f"{first}from transformers.trainer import Trainer; Trainer().train()", "--stop-on-divergence")
    command[2] = f"import sys; sys.path.insert(0, {str(ROOT)!r}); " + command[2]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "_lfdoctor.live.trainer.callback ['TrainerCallback']\nthe user's True\n"
    assert json.loads((tmp_path / "d" / "report.json").read_text())["run"]["steps"]["last"] == 3
    assert "cannot stop" not in done.stderr


# ---- what counts as a sign of life


@pytest.mark.parametrize(("silence", "limit"), [(None, 1800.0), (300.0, 1800.0), (1.0, 1800.0), (900.0, 5400.0), (0.0, None)])
def test_the_limit_moves_with_silence(silence, limit):
    """--silence 900 ends a run after 90 minutes; 0 never; a shorter one does not end runs sooner than 30 minutes."""
    assert hung_after(silence) == limit


WATCHER = """
import sys
from pathlib import Path
from doctor.live.supervisor import hang_detector, patience, supervise
hang_detector.TERMINATE_GRACE_SECONDS, hang_detector.LOOK_SECONDS, patience.WORK_CHECK_SECONDS = 0.5, 0.2, 0.2
folder = Path(sys.argv[2])
child = supervise.Supervised([sys.executable, "-c", sys.argv[1], str(folder)], folder, {}, dump_after=0, kill_after=2.0)
print(child.run())
"""
EVALUATES = """
import sys, time, types
from pathlib import Path
from doctor.live.trainer import callback
callback.ALIVE_SECONDS = 0.3
ours = callback.DoctorCallback(Path(sys.argv[1]), warn=False)
state = types.SimpleNamespace(global_step=5, max_steps=10, is_world_process_zero=True)
args = types.SimpleNamespace(output_dir=".", world_size=1, to_dict=dict)
ours.on_train_begin(args, state, None, model=None)
for _ in range(60):
    time.sleep(0.1)
    if IS_ALIVE: ours.on_prediction_step(args, state, None)
"""
SAVES = """
import sys, time
for number in range(12):
    time.sleep(0.5)
    with open(sys.argv[1] + "/weights", "wb") as file: file.write(bytes(SIZE))
"""


@pytest.mark.parametrize(
    ("training", "code"),
    [
        (EVALUATES.replace("IS_ALIVE", "True"), 0),
        (EVALUATES.replace("IS_ALIVE", "False"), -15),
        (SAVES.replace("SIZE", "20 << 20"), 0),
        (SAVES.replace("SIZE", "1000"), -15),
    ],
    ids=["evaluates", "hangs", "saves", "writes a little"],
)
def test_a_silent_evaluation_or_save_is_no_hang(tmp_path, training, code):
    """Six seconds without a word or a step, under a limit of two: ended only if nothing is evaluated and nothing much is written."""
    done = subprocess.run([sys.executable, "-c", WATCHER, training, str(tmp_path)], capture_output=True, env=environment(), timeout=60)
    assert done.stdout == b"%d\n" % code, done.stderr


def test_an_error_when_the_folder_cannot_be_made(tmp_path):
    """A file where the folder should be: one plain error, nothing is started."""
    (tmp_path / "d").write_text("")
    with pytest.raises(DoctorError, match="cannot write"), RunFolder(tmp_path / "d"):
        pass


def test_the_next_attempt_can_take_the_lock(tmp_path):
    """Its file is the user's to read and write, and nobody's to run: a run without root's rights must open it again."""
    before = os.umask(0o022)
    try:
        with RunFolder(tmp_path / "d"):
            pass
    finally:
        os.umask(before)
    assert oct(stat.S_IMODE((tmp_path / "d" / LOCK).stat().st_mode)) == "0o644"
