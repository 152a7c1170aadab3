"""`process_end`: a signal ended a process of the run, as reported by torchrun, the shell, a launcher, the scheduler or the kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

from doctor.core.events import Crash, Event, LogLine, ProcessEnd
from doctor.core.run import Run
from doctor.detectors.base import DetectorBase
from doctor.rulebook.findings import Evidence, Match
from doctor.support.lazy_regex import lazy_compile

SIGNAL_NAMES = {1: "SIGHUP", 2: "SIGINT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
"""Linux signal numbers (signal(7)) that end a training process."""

SIGNAL_WORDS = {
    "killed": 9,
    "segmentation fault": 11,
    "access violation": 11,
    "bus error": 7,
    "aborted": 6,
    "illegal instruction": 4,
    "floating point exception": 8,
    "hangup": 1,
    "terminated": 15,
}
"""Words of bash, zsh and Python's faulthandler (strsignal(3)) -> signal number."""

WINDOWS_CODES = {3221225477: 11, -1073741819: 11, 3221225501: 4, 3221226505: 6, -1073740791: 6}
"""NTSTATUS of a Windows process, unsigned and signed -> the nearest signal: access violation, illegal instruction, fast fail
(STATUS_STACK_BUFFER_OVERRUN, used by abort)."""

NUMBERED_SIGNALS = tuple(
    lazy_compile(pattern)
    for pattern in (
        # torchrun, every version: "failed (exitcode: -9) local_rank: 0 (pid: 42)" and "  exitcode  : -9 (pid: 42)"
        r"exit ?code\s*[:=]\s*-(\d{1,9})\b",
        # torchrun's block: "traceback : Signal 9 (SIGKILL) received by PID 42"
        r"Signal (\d{1,9}) \(SIG\w+\) received",
        # torch.distributed.elastic SignalException: "Process 42 got signal: 1"
        r"got signal: (\d{1,9})",
        # DeepSpeed's launcher: "exits with return code = -9"; Popen wrappers: "returned -9"
        r"return(?:ed)? code (?:=|of|:)? ?-(\d{1,9})\b",
        # subprocess.CalledProcessError
        r"died with <Signals\.SIG\w+: (\d{1,9})>",
        # Open MPI, also for Python's faulthandler under mpirun: "Signal: Segmentation fault (11)"
        r"Signal: [A-Z][\w ]+ \((\d{1,9})\)",
    )
)
"""Messages with a signal number in their first group."""

SHELL_CODE = lazy_compile(
    r"(?i)exit(?:ed|s)?(?: with)?(?: an?)?(?: error)?(?: code| status)?[ :=]{1,3}(1[2-4]\d)\b|non-zero exit status (1[2-4]\d)\b"
)
"""A shell's exit code of a process killed by a signal: 128 + its number."""

WINDOWS_CODE = lazy_compile(r"(?i)exit ?(?:code|status)[\s:=]*(-?\d{10})\b|return code[ =:]*(-?\d{10})\b")
"""An NTSTATUS as exit code."""

_SHELL = (
    r"(Killed|killed|Segmentation fault|segmentation fault|Bus error|bus error|Aborted|aborted|abort|Illegal instruction|"
    r"Floating point exception|Hangup|Terminated)\s*(?:\(core dumped\)|$|\s{2,}\S)"
)
"""Words a shell or faulthandler prints for a signal."""

SHELL_WORDS = (
    # bash: a bare "Killed", also glued to a progress bar; "line 3: 4242 Killed   python ..."; "[1]+  4242 Killed"; zsh: "[1]  4242 killed"
    lazy_compile("^" + _SHELL),
    lazy_compile(r"[\]\d/:>%|] ?" + _SHELL),
    lazy_compile(r"^\[\d+\]\+?\s+(?:\d+ )?" + _SHELL),
    lazy_compile(r"Fatal Python error: (Segmentation fault|Bus error|Aborted|Illegal instruction|Floating point exception)"),
    lazy_compile(r"Windows fatal exception: (access violation)"),
)
"""Messages with such a word in their first group."""

OOM_KILLER = lazy_compile(
    # kernel log; cgroup v1/v2; Slurm; Kubernetes; Ray
    r"Out of memory: Kill(?:ed)? process|[Mm]emory cgroup out of memory|oom-kill:|oom_reaper|[Dd]etected \d+ oom[-_]kill event|"
    r"\bOOMKilled\b|OUT_OF_MEMORY|killed due to the node running low on memory|Worker killed due to memory pressure|"
    r"invoked oom-killer|Exceeded (?:job|step) memory limit"
)
"""Reports that the kernel, container or scheduler killed a process because memory ran out."""

OPTIMIZER_STATES = lazy_compile(
    # DeepSpeed while it allocates optimizer states: its CPU Adam, and see_memory_usage messages (runtime/zero/stage3.py)
    r"Time to load cpu_adam op|(?:Before|After) (?:creating|initializing) (?:fp16 partitions|fp32 partitions|optimizer states|optimizer)|"
    r"Creating (?:fp16|bfloat16) ZeRO"
)
"""DeepSpeed allocates optimizer states."""

FORCED_EXIT = "forcefully exiting via Signals.SIGKILL"
"""torch.distributed.elastic kills a rank that does not stop after SIGTERM; that SIGKILL is not a failure."""

LITERALS = (
    "xitcode", "xit code", "xit status", "eturn code", "Signal", "signal", "illed", "OOMKilled", "oom", "Out of memory", "out of memory",
    "OUT_OF_MEMORY", "memory limit", "exited", "egmentation fault", "access violation", "us error", "bort", "llegal instruction",
    "oating point exception", "cpu_adam", "creating fp", "optimizer states", "Creating ", "angup", "erminated",
)  # fmt: skip
"""At least one occurs in every line the expressions of this file match."""


_OF_A_CHILD = "CalledProcessError"
"""The exception of a launcher whose only child (accelerate's simple launcher) ended."""


class LineSignals(NamedTuple):
    """What a line says about the end of a process.

    - `signal`: number of the signal that ended a process.
    - `confirmed`: the kernel, container or scheduler reports that memory ran out.
    - `states`: DeepSpeed allocates optimizer states.
    - `forced`: torchrun kills a rank itself.
    """

    signal: int | None
    confirmed: bool
    states: bool
    forced: bool


class ProcessEnds(DetectorBase):
    """Parameters, one of:

    - `signals`: the signal numbers to report (9 SIGKILL, 11 SIGSEGV, 7 SIGBUS, 6 SIGABRT, 15 SIGTERM, ...).
    - `exits: true`: the process a launcher names as first failure, if it ended with an exit code.

    Workers of a DataLoader or a dataset are not processes of the run. Facts:

    - `signal`, `name` (SIGKILL), `code`, `local_rank`, `reporter` (torchrun, shell, text); `phase`: what the run was doing.
    - `confirmed`: the kernel, container or scheduler reported that memory ran out; such a line counts as signal 9.
    - `states`: DeepSpeed had started to allocate optimizer states.
    - `first`: the launcher's "first observed failure".
    """

    reads: ClassVar[tuple[type[Event], ...]] = (LogLine, Crash, ProcessEnd)
    needs: tuple[str, ...] = ("text",)
    facts: tuple[str, ...] = ("signal", "name", "code", "phase", "confirmed", "reporter", "local_rank", "first", "states")
    literals: tuple[str, ...] = LITERALS

    def __init__(self, signals: Sequence[int] = (), exits: bool = False) -> None:
        if bool(signals) is exits:
            raise ValueError("give one of signals and exits")
        unknown = [number for number in signals if number not in SIGNAL_NAMES]
        if unknown or isinstance(signals, str):
            raise ValueError(f"signals: unknown {unknown} (known: {', '.join(map(str, SIGNAL_NAMES))})")
        self.signals = frozenset(signals)
        self.exits = exits
        self._phase: str | None = None
        self._confirmed = self._states = self._forced = False

    def feed(self, event: LogLine | Crash | ProcessEnd, run: Run) -> Iterator[Match]:
        if isinstance(event, Crash) and not event.exception.endswith(_OF_A_CHILD):
            return
        if event.phase not in (None, "start"):  # `start` may also be a log that begins in the middle
            self._phase = event.phase
        if isinstance(event, ProcessEnd):
            signal = event.signal or signal_of_code(event.code)
            if signal == 9 and self._forced and not event.first:
                return
            if signal in self.signals or (self.exits and event.first and signal is None and (event.code or 0) > 0):
                text = f"{event.reporter}: " + (f"exit code {event.code}" if event.code is not None else f"signal {signal}")
                yield self._match(
                    run, event, signal, text, {"reporter": event.reporter, "code": event.code, "local_rank": event.local_rank}
                )
            return
        line = _line_signals(event.text)
        self._confirmed |= line.confirmed
        self._states |= line.states
        self._forced |= line.forced
        signal = line.signal
        if signal in self.signals and not (signal == 9 and self._forced):
            yield self._match(run, event, signal, event.text[:2000], {"reporter": "text"})

    def _last_phase(self, run: Run) -> str | None:
        """The phase at the end of the console: who tells of the end (`lfdoctor run`, the kernel's log) may not know it."""
        phase = run.facts.get("console.last_phase")
        return phase if phase != "start" else None

    def _match(self, run: Run, event: LogLine | Crash | ProcessEnd, signal: int | None, text: str, more: dict[str, Any]) -> Match:
        facts = {"signal": signal, "name": SIGNAL_NAMES.get(signal or 0), "phase": self._phase or self._last_phase(run), **more}
        facts = {name: value for name, value in facts.items() if value is not None}
        facts["confirmed"] = self._confirmed
        facts["states"] = self._states
        facts["first"] = isinstance(event, ProcessEnd) and event.first
        return Match(evidence=(Evidence(event.where, text),), facts=facts, rank=event.rank, attempt=event.attempt, time=event.time)


@lru_cache(maxsize=4)
def _line_signals(text: str) -> LineSignals:
    """Cached, as several rules check each line in turn."""
    return LineSignals(
        signal=signal_of(text),
        confirmed=OOM_KILLER.search(text) is not None,
        states=OPTIMIZER_STATES.search(text) is not None,
        forced=FORCED_EXIT in text,
    )


def signal_of(text: str) -> int | None:
    """The signal that ended a process of the run according to a line; None if there is none."""
    if "DataLoader worker" in text or ("subprocess" in text.lower() and "abruptly" in text):
        return None
    if OOM_KILLER.search(text):
        return 9
    for pattern in NUMBERED_SIGNALS:
        if found := pattern.search(text):
            return int(found[1]) if int(found[1]) in SIGNAL_NAMES else None
    if found := SHELL_CODE.search(text):
        return signal_of_code(int(found[1] or found[2]))
    if found := WINDOWS_CODE.search(text):
        return WINDOWS_CODES.get(int(found[1] or found[2]))
    for pattern in SHELL_WORDS:
        if found := pattern.search(text):
            return SIGNAL_WORDS["aborted" if found[1] == "abort" else found[1].lower()]
    return None


def signal_of_code(code: int | None) -> int | None:
    """The signal in an exit code: Python's -9, the shell's 137, Windows' NTSTATUS; None if there is none."""
    if code is None:
        return None
    if code in WINDOWS_CODES:
        return WINDOWS_CODES[code]
    signal = -code if code < 0 else code - 128
    return signal if signal in SIGNAL_NAMES else None
