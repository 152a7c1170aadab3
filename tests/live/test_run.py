"""lfdoctor run: the training does not notice, its user gets the same output, signals and exit code, and a report."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from doctor.core.events import LogLine, ProcessEnd
from doctor.live.supervisor import console_tail
from doctor.live.supervisor.console_tail import ConsoleTail
from doctor.live.supervisor.supervise import INJECT, exit_code
from doctor.readers.reading import read
from tests.live.kills import kill

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups and terminals")
ROOT = Path(__file__).parents[2]


def lfdoctor(folder: Path, script: str, *options: str) -> list[str]:
    run = "import sys; sys.argv[0] = 'lfdoctor'; from doctor.cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", run, "run", *options, "-o", str(folder), "--", sys.executable, "-c", script]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def start(folder: Path, script: str, *options: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(lfdoctor(folder, script, *options), capture_output=True, env=environment(**more), timeout=60)


def test_output_is_the_same_byte_for_byte(tmp_path):
    """Both streams arrive apart and unchanged, bars with carriage returns and bytes that are no text included; the copy holds them all."""
    script = r"""
import sys
for number in range(200):
    sys.stdout.buffer.write(b"line %d \xff\x00\n" % number); sys.stdout.flush()
    sys.stderr.buffer.write(b"\r%d%%|##  |" % number); sys.stderr.flush()
sys.stderr.write("\nno newline at the end")
"""
    alone = subprocess.run([sys.executable, "-c", script], capture_output=True)
    watched = start(tmp_path / "d", script)
    assert watched.stdout == alone.stdout
    assert watched.stderr.startswith(alone.stderr)
    copy = (tmp_path / "d" / "console.log").read_bytes()
    assert len(copy) == len(alone.stdout) + len(alone.stderr)
    assert all(line in copy for line in alone.stdout.splitlines())
    assert alone.stderr.rpartition(b"\n")[2] in copy


@pytest.mark.parametrize(("script", "code"), [("pass", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_exit_code(tmp_path, script, code):
    """The exit code is the training's own; a signal is told as shells do, and noted for the report."""
    assert start(tmp_path, script).returncode == code
    ends = [event for event in read([tmp_path]).events() if isinstance(event, ProcessEnd)]
    assert [exit_code(-one.signal if one.signal else one.code or 0) for one in ends] == [code]


def test_a_killed_run_is_called_killed(tmp_path):
    """A process that vanishes without a word still gets a report that names the signal."""
    done = start(tmp_path, "import os; print('***** Running training *****', flush=True); os.kill(os.getpid(), 9)")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["run"]["status"] == "failed"
    assert any(finding["symptom"] == "killed" for finding in report["findings"])
    assert b"SIGKILL" in done.stderr


def test_the_traceback_is_explained(tmp_path):
    """The report is on standard error, and standard output holds the training's alone."""
    done = start(tmp_path, "print('hello'); raise MemoryError('no more')")
    assert done.stdout == b"hello\n"
    assert b"MemoryError" in done.stderr
    assert json.loads((tmp_path / "report.json").read_text())["healthy"] is False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_the_training(tmp_path, number):
    """A signal sent to lfdoctor is handled by the training, which may finish its own way.

    The training says "ready" through lfdoctor, so the handlers of both are installed by then; it waits for the signal, not for a time.
    """
    script = f"""
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])
print("ready", flush=True)
signal.sigwait([{int(number)}])
print("caught", flush=True)
sys.exit(5)
"""
    process = subprocess.Popen(
        lfdoctor(tmp_path, script),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # a shell's background job ignores SIGINT, and hands that on
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.stdout.read() == b"caught\n"
    assert process.wait() == 5
    process.stdout.close()


def test_a_terminal_stays_a_terminal(tmp_path):
    """Run from a terminal, the training sees one of the same size (so bars are drawn), and its bytes are not changed."""
    ours, theirs = pty.openpty()
    script = "import os, sys; print(sys.stdout.isatty(), sys.stderr.isatty(), *os.get_terminal_size(1), flush=True)"
    variables = environment(COLUMNS="97", LINES="33")
    process = subprocess.Popen(lfdoctor(tmp_path, script), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=variables)
    os.close(theirs)
    try:
        while os.read(ours, 4096):
            pass
    except OSError:
        pass
    os.close(ours)
    assert process.wait(20) == 0
    assert (tmp_path / "console.log").read_bytes() == b"True True 97 33\n"


def test_a_command_that_does_not_exist(tmp_path):
    """One plain line and the code for bad usage."""
    run = [*lfdoctor(tmp_path, "")[:-3], "no-such-program"]
    done = subprocess.run(run, capture_output=True, env=environment(), timeout=60)
    assert done.returncode == 2
    assert b"cannot start no-such-program" in done.stderr


def test_a_daemon_left_behind_does_not_hold_us(tmp_path):
    """A grandchild that keeps the pipe open is not waited for."""
    began = time.monotonic()
    script = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(25)'], start_new_session=True)"
    assert start(tmp_path, script).returncode == 0
    assert time.monotonic() - began < 20


def test_injection_leaves_other_programs_alone(tmp_path):
    """A Python that imports no trainer loads nothing of ours, and somebody's own sitecustomize still runs."""
    (tmp_path / "sitecustomize.py").write_text("import builtins; builtins.theirs = 1\n")
    path = os.pathsep.join([str(INJECT), str(tmp_path)])
    script = (
        "import sys, builtins; print(builtins.theirs, sorted(name for name in sys.modules if name.split('.')[0] in ('doctor', 'json')))"
    )
    variables = {**os.environ, "PYTHONPATH": path, "LFDOCTOR_DIR": str(tmp_path / "d")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=variables)
    assert (done.stdout, done.stderr) == ("1 []\n", "")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("seed", range(1000, 1004))
def test_kill_9_at_a_random_moment(tmp_path, seed):
    """The journal parses, nothing flushed is lost, the report names the kill and the last step (200 of them: tests/live/kills.py)."""
    kill(seed, tmp_path / "d")


FAKE_TRAINER = """
class Trainer:
    def train(self):
        class State: global_step, max_steps, is_world_process_zero = 0, 5, True
        class Args: output_dir, world_size = "out", 1
        for one in DEFAULT_CALLBACKS: one.on_train_begin(Args, State, None, model=None)
        for step in range(1, 6):
            State.global_step = step
            for one in DEFAULT_CALLBACKS: one.on_step_begin(Args, State, None); one.on_step_end(Args, State, None)
            for one in DEFAULT_CALLBACKS: one.on_log(Args, State, None, logs={"loss": 3.0 / step})
            if step == 4: raise ValueError("boom")
DEFAULT_CALLBACKS = []
"""


def test_a_trainer_is_hooked_without_any_change(tmp_path):
    """Whoever imports transformers.trainer is watched: steps and the exception are in the journal, from an unmodified program."""
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").write_text("")
    (tmp_path / "transformers" / "trainer.py").write_text(FAKE_TRAINER)
    script = "from transformers.trainer import Trainer; Trainer().train()"
    done = start(tmp_path / "d", script, PYTHONPATH=os.pathsep.join([str(ROOT), str(tmp_path)]))
    assert done.returncode == 1
    report = json.loads((tmp_path / "d" / "report.json").read_text())
    assert report["run"]["steps"] == {"first": 1, "last": 4, "planned": 5}
    assert report["run"]["status"] == "failed"
    kinds = {one["kind"] for one in report["run"]["sources"]}
    assert {"console", "journal"} <= kinds


def test_what_the_kernel_says_comes_first(tmp_path, monkeypatch):
    """The container's memory counter rose during the run: the kill is told as one for lack of memory."""
    from doctor.live.supervisor import evidence, watched_run

    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    monkeypatch.setattr(evidence, "cgroup_folder", lambda: tmp_path)
    monkeypatch.setattr(evidence, "_kernel_log", lambda: None)
    proof = evidence.KillEvidence()
    assert proof.lines() == []
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 3\n")
    folder = tmp_path / "d"
    watched_run._note_end(folder, -9, proof.lines())
    (folder / "console.log").write_text("***** Running training *****\n")
    seen = [event for event in read([folder]).events() if isinstance(event, LogLine | ProcessEnd)]
    texts = [one.text for one in seen if isinstance(one, LogLine) and "oom_kill went from 2 to 3" in one.text]
    assert len(texts) == 1


def test_what_the_kernel_log_says(tmp_path, monkeypatch):
    """A kill that the kernel has logged since the start is quoted in its own words; other messages are not, and it is read once."""
    from doctor.live.supervisor import evidence

    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    monkeypatch.setattr(evidence, "cgroup_folder", lambda: tmp_path)
    monkeypatch.setattr(evidence, "_kernel_log", lambda: ours)
    proof = evidence.KillEvidence()
    said = "Out of memory: Killed process 4242 (python) total-vm:93454812kB, anon-rss:61203844kB"
    os.write(theirs, f"3,1,2,-;{said}\n SUBSYSTEM=memory\n".encode())
    os.close(theirs)
    assert proof.lines() == [said]
    assert proof.lines() == []


def test_a_run_that_ended_well_was_not_killed(tmp_path, monkeypatch):
    """Somebody else on the machine ran out of memory meanwhile: no word of it in the report of a training that finished."""
    from doctor.live.supervisor import evidence, watched_run

    monkeypatch.setattr(evidence.KillEvidence, "lines", lambda _: ["Out of memory: Killed process 4242 (python)"])
    outcome = watched_run.run([sys.executable, "-c", "print('fine')"], tmp_path / "d")
    assert outcome.code == 0
    assert "4242" not in (tmp_path / "d" / "lfdoctor-run.jsonl").read_text()


def test_a_disk_that_hangs_does_not_hold_the_training(tmp_path):
    """The copy goes to a pipe that nobody reads: far more output than fits arrives all the same, and the run ends."""
    os.mkfifo(tmp_path / "console.log")
    watcher = """
import sys
from pathlib import Path
from doctor.live.supervisor import console_copy, supervise
console_copy.CLOSE_SECONDS = 0.2
code = supervise.Supervised([sys.executable, "-c", "print('x' * 3_000_000)"], Path(sys.argv[1]), {}).run()
sys.stdout.flush()
import os
os._exit(code)
"""
    done = subprocess.run([sys.executable, "-c", watcher, str(tmp_path)], capture_output=True, env=environment(), timeout=30)
    assert (done.returncode, len(done.stdout)) == (0, 3_000_001)


@pytest.mark.parametrize(
    ("torch", "given", "expected"),
    [
        ("2.13.0+cpu", {}, {"TORCH_FR_BUFFER_SIZE": "2000", "TORCH_FR_DUMP_TEMP_FILE": "DIR/lfdoctor-nccl-rank"}),
        ("2.4.1", {}, {"TORCH_NCCL_TRACE_BUFFER_SIZE": "2000", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": "DIR/lfdoctor-nccl-rank"}),
        ("2.13.0", {"TORCH_NCCL_TRACE_BUFFER_SIZE": "0"}, {"TORCH_NCCL_TRACE_BUFFER_SIZE": "0"}),
        ("2.13.0", {"WORLD_SIZE": "1"}, {}),
    ],
)
def test_the_flight_recorder_is_switched_on_where_nobody_did(tmp_path, torch, given, expected):
    """A rank among several gets the variables under the names of its torch, pointing into our folder; what is set stays as it is."""
    (tmp_path / "torch.py").write_text(f"__version__ = {torch!r}\n")
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").write_text("import torch\n")
    (tmp_path / "transformers" / "trainer.py").write_text("class Trainer:\n    def train(self): pass\nDEFAULT_CALLBACKS = []\n")
    script = """
import json, os, transformers.trainer
print(json.dumps({name: value for name, value in os.environ.items() if name.startswith(("TORCH_FR_", "TORCH_NCCL_"))}))
"""
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = start(tmp_path / "d", script, **{"PYTHONPATH": path, "RANK": "1", "WORLD_SIZE": "2", **given})
    told = json.loads(done.stdout)
    if len(expected) == 2:
        assert told.pop("TORCH_NCCL_DUMP_ON_TIMEOUT") == "1"
    assert told == {name: value.replace("DIR", str(tmp_path / "d")) for name, value in expected.items()}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="real-time signals, /proc")
@pytest.mark.parametrize(("word", "asked"), [("train", True), ("webui", False)])
def test_an_idle_server_is_not_asked(tmp_path, word, asked):
    """A training that is silent is asked where it stands and goes on; LlamaBoard that waits for its users is left in peace."""
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").write_text("")
    (tmp_path / "transformers" / "trainer.py").write_text("class Trainer:\n    def train(self): pass\nDEFAULT_CALLBACKS = []\n")
    script = "import time, transformers.trainer; time.sleep(3); print('still here')"
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    command = [*lfdoctor(tmp_path / "d", script, "--silence", "1"), word]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(PYTHONPATH=path), timeout=60)
    assert (done.returncode, done.stdout) == (0, "still here\n")
    assert ("The training hangs [environment/process-stands-still]" in done.stderr) is asked
    assert ("lfdoctor asks" in (tmp_path / "d" / "lfdoctor-stacks-rank0.txt").read_text()) is asked


def test_a_hung_run_is_ended_and_said_to_have_hung(tmp_path):
    """With a limit for silence a training that says nothing more is ended (killed, if it does not listen); steps in a journal are life."""
    training = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for step in range(12):
    with open(sys.argv[1], "a") as file:
        file.write(json.dumps({"type": "Step", "time": time.time(), "step": step}, separators=(",", ":")) + "\\n")
    time.sleep(0.25)
print("last words", flush=True)
time.sleep(60)
"""
    watcher = """
import sys
from pathlib import Path
from doctor.live.supervisor import hang_detector, supervise
hang_detector.TERMINATE_GRACE_SECONDS = 0.5
folder = Path(sys.argv[2])
child = supervise.Supervised([sys.executable, "-c", sys.argv[1], str(folder / "lfdoctor.jsonl")], folder, {}, dump_after=0, kill_after=1.5)
print(child.run(), child.summary)
"""
    command = [sys.executable, "-c", watcher, training, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60)
    assert done.stdout.startswith("last words\n-9 ['no output and no step for ")
    assert "hung" in done.stdout


HUNG_TRAINER = """
import re, signal, sys, time
class Trainer:
    def train(self):
        class State: global_step, max_steps, is_world_process_zero = 0, 5, RANK == 0
        class Args: output_dir, world_size = "out", 2
        for one in DEFAULT_CALLBACKS: one.on_train_begin(Args, State, None, model=None)
        for step in range(1, 4):
            for one in DEFAULT_CALLBACKS: one.on_step_begin(Args, State, None)
            State.global_step = step
            for one in DEFAULT_CALLBACKS: one.on_step_end(Args, State, None); one.on_log(Args, State, None, logs={"loss": 3.0 / step})
        DEFAULT_CALLBACKS[0].recorder.flush()
        all_reduce() if RANK == 0 else never_ends()
def never_ends():
    re.match("(a+)+$", "a" * 60 + "b")  # in C, without letting go of the interpreter's lock
DEFAULT_CALLBACKS = []
import os
RANK = int(os.environ["RANK"])
from torch.distributed import all_reduce
"""
RANKS = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); from transformers.trainer import Trainer; Trainer().train()"
ranks = [subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "RANK": str(n), "WORLD_SIZE": "2"}, start_new_session=True)
         for n in range(2)]
print("pids", *[one.pid for one in ranks], flush=True)
sys.exit(max(one.wait() for one in ranks))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="real-time signals, /proc")
def test_the_hung_rank_and_its_place_are_named(tmp_path):
    """Two ranks in sessions of their own, one hangs inside C code: the report names it and its place, and no process is left over."""
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").write_text("")
    (tmp_path / "transformers" / "trainer.py").write_text(HUNG_TRAINER)
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("__version__ = '2.13.0+cpu'\n")
    (tmp_path / "torch" / "distributed").mkdir()
    (tmp_path / "torch" / "distributed" / "__init__.py").write_text("import time\ndef all_reduce(): time.sleep(100)\n")
    watcher = """
import sys
from pathlib import Path
from doctor.live.supervisor import hang_detector, watched_run
hang_detector.TERMINATE_GRACE_SECONDS = 0.5
print(watched_run.run([sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]), dump_after=1.5, kill_after=4.0).code)
"""
    command = [sys.executable, "-c", watcher, RANKS, str(tmp_path / "d")]
    variables = environment(PYTHONPATH=os.pathsep.join([str(ROOT), str(tmp_path)]))
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60)
    assert done.stdout.splitlines()[-1] == "-9"
    told = "lfdoctor: error at step 3: One rank stands still, and the others wait for it [distributed/rank-stands-still]"
    assert told in done.stderr
    report = json.loads((tmp_path / "d" / "report.json").read_text())
    (finding,) = [one for one in report["findings"] if one["role"] == "root"]
    assert (finding["rule"], finding["ranks"]) == ("distributed/rank-stands-still", [1])
    assert "in never_ends" in finding["text"]
    assert "in all_reduce" in finding["text"]
    pids = done.stdout.split("pids ")[1].split("\n")[0].split()
    assert not any((Path("/proc") / pid / "stat").exists() and " Z " not in (Path("/proc") / pid / "stat").read_text() for pid in pids)


def test_a_notification_url_that_is_none(tmp_path):
    """--notify with a URL that apprise does not know is refused before anything starts."""
    done = start(tmp_path / "d", "print('never')", "--notify", "nonsense://user:secret@host")
    assert done.returncode == 2
    assert b"secret" not in done.stderr
    assert done.stdout == b""


OUT_OF_MEMORY = r"""
import sys
sys.stderr.write('''Traceback (most recent call last):
  File "/x/site-packages/transformers/trainer.py", line 3736, in training_step
    self.accelerator.backward(loss, **kwargs)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has a total capacity of 23.69 GiB of which 1.17 GiB is free.
''')
sys.exit(1)
"""
TRAINING = "stage: sft\ndo_train: true\nmodel_name_or_path: m\nfinetuning_type: lora\noutput_dir: saves/x\nper_device_train_batch_size: 8\n"


def fake_llamafactory(folder: Path) -> dict[str, str]:
    """The variables with which `llamafactory-cli` runs out of GPU memory."""
    program = folder / "bin" / "llamafactory-cli"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{OUT_OF_MEMORY}")
    program.chmod(0o755)
    (folder / "train.yaml").write_text(TRAINING)
    return environment(PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def in_folder(folder: Path, env: dict[str, str], *words: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'lfdoctor'; from doctor.cli.main import main; sys.exit(main())", *words]
    return subprocess.run(command, capture_output=True, env=env, cwd=folder, timeout=60)


def test_the_patch_is_written_at_the_end(tmp_path):
    """Into the run's folder, told, named by the next command; neither it nor the report is read as the run's afterwards."""
    env = fake_llamafactory(tmp_path)
    done = in_folder(tmp_path, env, "run", "-o", "D", "--", "llamafactory-cli", "train", "train.yaml")
    assert b"patched config written to D/patched.yaml" in done.stderr
    assert "per_device_train_batch_size: 4" in (tmp_path / "D" / "patched.yaml").read_text()
    report = json.loads((tmp_path / "D" / "report.json").read_text())
    assert report["patch"]["command"].endswith("llamafactory-cli train D/patched.yaml")
    again = in_folder(tmp_path, env, "analyze", "D", "--patch", "p.yaml", "-v")
    assert b"unexpected" not in again.stderr
    assert (tmp_path / "p.yaml").read_text() == (tmp_path / "D" / "patched.yaml").read_text()
    assert b"what lfdoctor wrote itself: 2" in again.stdout


def test_a_second_patch_leaves_the_first(tmp_path):
    """The patched file that the next run trains with is not overwritten by the patch that this run gets."""
    env = fake_llamafactory(tmp_path)
    in_folder(tmp_path, env, "run", "-o", "D", "--", "llamafactory-cli", "train", "train.yaml")
    first = (tmp_path / "D" / "patched.yaml").read_text()
    done = in_folder(tmp_path, env, "run", "-o", "D", "--", "llamafactory-cli", "train", "D/patched.yaml")
    assert b"patched config written to D/patched-2.yaml" in done.stderr
    assert (tmp_path / "D" / "patched.yaml").read_text() == first


def test_the_language_reaches_the_alerts(tmp_path):
    """`--lang` counts for what is said while the run lasts, in this process and in the training's."""
    script = "import os; print(os.environ['LFDOCTOR_LANG'])"
    assert start(tmp_path, script, "--lang", "zh").stdout == b"zh\n"


MEGATRON = """
import sys, time
print("[WARNING|2026-03-02 10:00:00] llamafactory.train.megatron_bridge.workflow:127 >> Megatron Bridge does not support Trainer "
      "callbacks yet; ignoring provided callbacks.", flush=True)
for step in range(1, 60):
    loss = "lm loss: %.6E | " % (2.0 if step < 40 else 1e4)
    print(" [2026-03-02 10:00:%02d] iteration %8d/%8d | consumed samples: %12d | elapsed time per iteration (ms): 1000.0 | learning rate: "
          "1.000000E-05 | global batch size:    16 | %sloss scale: 1.0 | grad norm: 1.200 | number of skipped iterations:   0 | "
          "number of nan iterations:   0 |" % (step, step, 60, step * 16, "" if step > 50 else loss), flush=True)
time.sleep(1.5)
"""


def test_a_training_without_callbacks_is_read_from_its_output(tmp_path):
    """Megatron Bridge ignores callbacks: told once; the printed steps are watched while it runs, and its NaN is the cause."""
    done = start(tmp_path, MEGATRON)
    told = [line for line in done.stderr.decode().splitlines() if line.startswith("lfdoctor: ")]
    assert sum("calls no callbacks" in line for line in told) == 1, told
    assert any("error at step 51:" in line for line in told), told
    report = json.loads((tmp_path / "report.json").read_text())
    assert [one["rule"] for one in report["findings"] if one["role"] == "root"] == ["stability/nonfinite"]


def test_the_output_is_not_read_where_callbacks_are_called(tmp_path):
    """A step in the journal ends it, and a few printed steps alone prove nothing: the journal may only be late."""
    console = tmp_path / "console.log"
    console.write_bytes(b"")
    began = []
    tail = ConsoleTail(console, lambda: began.append(1))
    console.write_text("".join(f"step:{step}/300, avg_train_loss:2.38 step_avg:34ms\n" for step in range(1, 9)))
    assert tail.lines() == []
    tail.not_needed()
    with console.open("a") as file:
        file.write("Megatron Bridge does not support Trainer callbacks yet; ignoring provided callbacks.\nstep:9/300, avg_train_loss:2.3\n")
    assert (tail.lines(), began) == ([], [])


def test_a_loop_that_never_calls_back_is_read_after_a_while(tmp_path, monkeypatch):
    """Eight printed steps and none in the journal: after the waiting time all of them are given, and the beginning is told once."""
    console = tmp_path / "console.log"
    console.write_bytes(b"")
    began = []
    tail = ConsoleTail(console, lambda: began.append(1))
    console.write_text("".join(f"step:{step}/300, avg_train_loss:2.38 step_avg:34ms\n" for step in range(1, 9)))
    assert tail.lines() == []
    monkeypatch.setattr(console_tail, "WAIT_SECONDS", 0.0)
    assert [json.loads(line)["step"] for line in tail.lines()] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (tail.lines(), began) == ([], [1])
