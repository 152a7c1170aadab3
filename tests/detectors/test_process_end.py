"""Ended processes, logs that stop, and places in tracebacks: the words of many reporters, and nobody else's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.core.events import Crash, Fact, Frame, LogLine, ProcessEnd, Step, Where
from doctor.core.run import Run
from doctor.detectors.process_end import ProcessEnds, signal_of, signal_of_code
from doctor.detectors.stops_after import StopsAfter
from doctor.detectors.traceback_place import TracebackPlace

SAID = [
    ("Killed", 9),
    ("run.sh: line 12:  4242 Killed                  llamafactory-cli train sft.yaml", 9),
    ("[1]  + 4242 killed     llamafactory-cli train sft.yaml", 9),
    ("Loading checkpoint shards:  20%|##  | 3/15 [00:34<02:05, 10.50s/it]Killed", 9),
    ("ERROR:torch.distributed.elastic.multiprocessing.api:failed (exitcode: -9) local_rank: 4 (pid: 36459) of binary: python", 9),
    ("  exitcode  : -11 (pid: 3449)", 11),
    ("  traceback : Signal 7 (SIGBUS) received by PID 3449", 7),
    ("torch.distributed.elastic.multiprocessing.api.SignalException: Process 4242 got signal: 15", 15),
    ("[ERROR] [launch.py:321:sigkill_handler] ['python', 'train.py'] exits with return code = -9", 9),
    ("subprocess.CalledProcessError: Command '['python']' died with <Signals.SIGSEGV: 11>.", 11),
    ("Command '['python']' returned non-zero exit status 137.", 9),
    ("command terminated with exit code 137", 9),
    ("Process finished with exit code -1073741819 (0xC0000005)", 11),
    ("Process exited, return code: 3221225477", 11),
    ("Segmentation fault (core dumped)", 11),
    ("Aborted (core dumped)", 6),
    ("Fatal Python error: Bus error", 7),
    ("Windows fatal exception: access violation", 11),
    ("slurmstepd: error: Detected 1 oom_kill event in StepId=4242.0.", 9),
    ("    reason: OOMKilled", 9),
    ("[node1:4242] Signal: Segmentation fault (11)", 11),
]
UNSAID = [
    "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed.",
    "RuntimeError: One of the subprocesses has abruptly died during map operation.",
    "Killed samples are dropped from the data",
    "failed (exitcode: 1) local_rank: 1 (pid: 3449) of binary: python",
    "command terminated with exit code 1",
    "returned non-zero exit status 2.",
    "Sending process 3448 closing signal SIGTERM",
    "the learning rate was terminated early",
]


@pytest.mark.parametrize(("text", "signal"), SAID)
def test_the_signal_in_every_reporters_words(text: str, signal: int):
    """Shells, torchrun of every age, DeepSpeed, Slurm, Kubernetes, Windows."""
    assert signal_of(text) == signal


@pytest.mark.parametrize("text", UNSAID)
def test_other_ends_are_no_signal(text: str):
    """A worker's end, an exit code of an error, and prose are not the end of the run's process by a signal."""
    assert signal_of(text) is None


@pytest.mark.parametrize(
    ("code", "signal"), [(-9, 9), (137, 9), (139, 11), (0, None), (1, None), (255, None), (None, None), (3221225477, 11)]
)
def test_exit_codes(code: int | None, signal: int | None):
    """Python's, the shell's and Windows' way to say a signal by a number."""
    assert signal_of_code(code) == signal


@given(st.text(max_size=300))
def test_no_line_breaks_it(text: str):
    """Any text is either a signal with a name or nothing."""
    assert signal_of(text) in (None, 1, 2, 4, 6, 7, 8, 9, 11, 15)


def fed(detector: Any, *events: Any) -> list[Any]:
    run, found = Run(), []
    for event in events:
        run.apply(event)
        if isinstance(event, detector.reads):
            found += list(detector.feed(event, run))
    return [*found, *detector.finish(run)]


def line(text: str, number: int = 1, **more: Any) -> LogLine:
    return LogLine(where=Where("log", number), text=text, **more)


def test_the_phase_is_the_ends_own_or_the_last_one_told():
    """Killed while loading: told by the reader of the end itself, else by the lines before it."""
    end = ProcessEnd(where=Where("log", 3), code=-9)
    assert fed(ProcessEnds([9]), line("...", phase="load"), end)[0].facts["phase"] == "load"
    own = ProcessEnd(where=Where("log", 3), code=-9, phase="train")
    assert fed(ProcessEnds([9]), line("...", phase="load"), own)[0].facts["phase"] == "train"


def test_the_kernel_confirms():
    """Once the kernel or the scheduler has said that memory ran out, the kill is confirmed; before, it is not."""
    said = line("Out of memory: Killed process 42 (python)")
    assert [match.facts["confirmed"] for match in fed(ProcessEnds([9]), line("Killed"), said, line("Killed", 3))] == [False, True, True]


def test_a_rank_that_would_not_stop_is_no_failure_of_its_own():
    """SIGKILL after the launcher's patience ended counts only for the process that failed first."""
    forced = line("[WARNING] Unable to shutdown process 264 via Signals.SIGTERM, forcefully exiting via Signals.SIGKILL")
    late, first = ProcessEnd(where=Where("log", 2), code=-9), ProcessEnd(where=Where("log", 3), code=-9, first=True)
    assert len(fed(ProcessEnds([9]), late)) == 1
    assert fed(ProcessEnds([9]), forced, late, line("  exitcode  : -9 (pid: 264)", 2)) == []
    assert len(fed(ProcessEnds([9]), forced, late, first)) == 1


def test_what_deepspeed_was_making():
    """Once it says that it makes the optimizer's states, a kill carries that fact."""
    said = line("[INFO] [utils.py:781:see_memory_usage] After creating fp16 partitions: 2")
    assert [match.facts["states"] for match in fed(ProcessEnds([9]), line("Killed"), said, line("Killed", 3))] == [False, True]


def test_exits_are_the_first_to_fail_only():
    """`exits` tells the process that the launcher names as first, if it ended by itself."""
    first = ProcessEnd(where=Where("log", 1), code=3, first=True, rank=1)
    assert [match.facts["code"] for match in fed(ProcessEnds(exits=True), first)] == [3]
    assert fed(ProcessEnds(exits=True), ProcessEnd(where=Where("log", 1), code=3)) == []
    assert fed(ProcessEnds(exits=True), ProcessEnd(where=Where("log", 1), code=-9, first=True)) == []


@pytest.mark.parametrize("params", [{}, {"signals": [9], "exits": True}, {"signals": [99]}, {"signals": "9"}])
def test_impossible_parameters_are_refused(params: dict[str, Any]):
    """A rule that asks for nothing, for both, or for no signal is told so when it is loaded."""
    with pytest.raises(ValueError, match="signals"):
        ProcessEnds(**params)


def waiting() -> StopsAfter:
    return StopsAfter(last=[r"rank (?P<rank>\d) is there"], later=["Loading"], contains=["is there"])


def test_a_log_that_stops_at_the_point():
    """Nothing came after the point: the last sight of it is told, with its facts."""
    assert [match.facts for match in fed(waiting(), line("rank 0 is there"), line("rank 1 is there", 2))] == [{"rank": "1"}]


def test_anything_later_ends_the_wait():
    """A later marker, a traceback, an ended process, a first step or a completed run: the log did not stop there."""
    point = line("rank 0 is there")
    frame = (Frame("a.py", 1, "f", "x"),)
    for later in (
        line("Loading dataset", 2),
        Crash(where=Where("log", 2), exception="KeyError", frames=frame),
        ProcessEnd(where=Where("log", 2), code=1),
        Step(where=Where("log", 2), step=1, metrics={"loss": 1.0}),
        Fact(where=Where("log", 2), name="run.completed", value=True),
    ):
        assert fed(waiting(), point, later) == []
    assert len(fed(waiting(), point, line("something else", 2))) == 1


def crash(exception: str, *functions: str, message: str = "") -> Crash:
    frames = tuple(Frame("trainer.py", 1, name, f"{name}()") for name in functions)
    return Crash(where=Where("log", 1), exception=exception, message=message, frames=frames)


def test_every_pattern_must_find_its_frame():
    """All of `frames` must be there, none of `none_of`, and the exception must fit."""
    place = TracebackPlace(frames=[":save:", ":gather:"], none_of=["retry"], exception="Runtime")
    assert len(fed(place, crash("RuntimeError", "save", "gather"))) == 1
    assert fed(place, crash("RuntimeError", "save")) == []
    assert fed(place, crash("KeyError", "save", "gather")) == []
    assert fed(place, crash("RuntimeError", "save", "retry", "gather")) == []
    assert fed(place, crash("RuntimeError", "save", "gather", message="will retry")) == []


def test_cut_tracebacks_are_told_apart():
    """`cut_off` true takes tracebacks without their last line, false only whole ones, unset both."""
    cut, whole = crash("", "save"), crash("KeyError", "save")
    for wanted, expected in ((True, [""]), (False, ["KeyError"]), (None, ["", "KeyError"])):
        assert [match.facts["exception"] for match in fed(TracebackPlace(frames=[":save:"], cut_off=wanted), cut, whole)] == expected
