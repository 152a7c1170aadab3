"""A training as a child process: same output, same signals, same exit code; its output is also copied to a file."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

import msgspec

from doctor.errors import DoctorError
from doctor.live.supervisor.console_copy import ConsoleCopy
from doctor.live.supervisor.hang_detector import HangDetector
from doctor.live.supervisor.output_keeper import OutputKeeper
from doctor.live.supervisor.run_folder import RunFolder
from doctor.support.package_files import PACKAGE

INJECT = PACKAGE / "live" / "trainer" / "inject"
"""The folder with our sitecustomize."""
ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
"""Signals whose sender wants the training to end."""
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGWINCH")
_CHUNK = 1 << 16
_MAX_LINE = 1 << 16
"""Bytes of an unfinished line that are held back before they go into the copy."""
_GRACE_SECONDS = 2.0
"""How long processes that the child left behind are listened to after its end."""


class Supervised:
    """One child. `run()` returns its exit code as subprocess does (negative: the signal).

    `dump_after`, `kill_after` and `report` are those of HangDetector; `summary` holds its sentence for the report afterwards. `held` is
    the run folder: it learns the child's process id, and its reserved disk space is freed when the child has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        extra: dict[str, str],
        *,
        dump_after: float | None = None,
        kill_after: float | None = None,
        report: Callable[[str], None] = lambda _: None,
        held: RunFolder | None = None,
    ) -> None:
        self.command, self.folder, self._held = list(command), folder, held
        self.stop_requested = False
        self.summary: list[str] = []
        self._dump_after, self._kill_after, self._report = dump_after, kill_after, report
        self.environment = environment(folder, extra)
        self.process: subprocess.Popen[bytes] | None = None
        self._streams: dict[int, tuple[IO[bytes], bytearray]] = {}

    def run(self) -> int:
        """Start the child in a session of its own and copy its output until it has ended. Raises DoctorError if it cannot be started."""
        console = self.folder / "console.log"
        with ConsoleCopy(console) as copy, contextlib.ExitStack() as stack:
            stdout, stderr = self._outputs(stack)
            keeper = OutputKeeper({fd: _descriptor(target) for fd, (target, _) in self._streams.items()}, console)
            stack.callback(self._release, keeper)
            try:
                self.process = subprocess.Popen(  # noqa: S603  running the user's own command is the purpose
                    self.command, env=self.environment, stdout=stdout, stderr=stderr, start_new_session=True
                )
            except OSError as error:
                raise DoctorError(f"cannot start {self.command[0]}: {error.strerror or error}") from error
            finally:
                for end in {stdout, stderr}:
                    os.close(end)
            return self._follow(self.process, copy)

    def _follow(self, process: subprocess.Popen[bytes], copy: ConsoleCopy) -> int:
        if self._held is not None:
            self._held.holds(process.pid)
        detector = HangDetector(process.pid, self.folder, dump_after=self._dump_after, kill_after=self._kill_after, report=self._report)
        with forwarding(process, [fd for fd in self._streams if os.isatty(fd)], self._received), detector:
            self._copy(copy, detector.on_output)
            code = process.wait()
        if self._held is not None:
            self._held.release_reserve()
        self.summary += detector.summary
        return code

    def _received(self, number: int) -> None:
        self.stop_requested = self.stop_requested or signal.Signals(number).name in ENDING

    def _release(self, keeper: OutputKeeper) -> None:
        """The keeper is needed only if the child is still running (this process is failing)."""
        if self.process is not None and self.process.poll() is None:
            keeper.hand_over()
        else:
            keeper.farewell()

    def _outputs(self, stack: contextlib.ExitStack) -> tuple[int, int]:
        """The child's ends for stdout and stderr. A terminal stays one (progress bars); streams that go to one place stay one stream."""
        ends: list[int] = []
        for stream in (sys.stdout, sys.stderr):
            if ends and _same(sys.stdout, sys.stderr):
                ends.append(os.dup(ends[0]))
                continue
            ours, theirs = _terminal() if stream.isatty() else os.pipe()
            stack.callback(os.close, ours)
            self._streams[ours] = (stream.buffer, bytearray())
            ends.append(theirs)
        return ends[0], ends[1]

    def _copy(self, copy: ConsoleCopy, on_output: Callable[[], None]) -> None:
        """Bytes are passed on at once; the copy gets whole lines, so that two streams do not cut each other's."""
        selector = selectors.DefaultSelector()
        for fd in self._streams:
            selector.register(fd, selectors.EVENT_READ)
        ended: float | None = None
        while selector.get_map():
            ready = selector.select(0.2)
            if ready:
                on_output()
            for key, _ in ready:
                data = _read(key.fd)
                if not data:
                    selector.unregister(key.fd)
                    continue
                target, held = self._streams[key.fd]
                _pass_on(target, data)
                held += data
                cut = len(held) if len(held) > _MAX_LINE else held.rfind(b"\n") + 1
                copy.write(bytes(held[:cut]))
                del held[:cut]
            if self.process is not None and self.process.poll() is not None:
                ended = ended or time.monotonic()
                if time.monotonic() - ended > _GRACE_SECONDS:  # a daemon it left behind holds the pipe
                    break
        for _, held in self._streams.values():
            copy.write(bytes(held))


def environment(folder: Path, extra: dict[str, str]) -> dict[str, str]:
    """The child's variables: ours, the injected folder first on PYTHONPATH, unbuffered output (a SIGKILL loses buffered lines)."""
    out = {**os.environ, "LFDOCTOR_DIR": str(folder), "LFDOCTOR_MSGSPEC": str(Path(msgspec.__file__).parent), **extra}
    out["PYTHONPATH"] = os.pathsep.join([str(INJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    out.setdefault("PYTHONUNBUFFERED", "1")
    return out


def exit_code(code: int) -> int:
    """As a shell reports it: 128 + the signal that ended the child."""
    return 128 - code if code < 0 else code


@contextlib.contextmanager
def forwarding(process: subprocess.Popen[bytes], terminals: Sequence[int], received: Callable[[int], None]) -> Iterator[None]:
    """While the child runs, signals sent to this process go to the child's whole group; `received` is called with each."""

    def forward(number: int, _: FrameType | None) -> None:
        received(number)
        if number == getattr(signal, "SIGWINCH", None):
            for terminal in terminals:
                _resize(terminal)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    before = {}
    for name in FORWARDED:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            before[number] = signal.signal(number, forward)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminal() -> tuple[int, int]:
    """A pseudo-terminal of the same size that changes no byte (the real terminal behind it translates line ends)."""
    import pty
    import termios

    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    _resize(ours)
    return ours, theirs


def _resize(terminal: int) -> None:
    import fcntl
    import struct
    import termios

    size = shutil.get_terminal_size()
    with contextlib.suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.lines, size.columns, 0, 0))


def _same(a: IO[str], b: IO[str]) -> bool:
    """Whether both go to the same file, pipe or terminal (`2>&1`)."""
    try:
        return os.path.sameopenfile(a.fileno(), b.fileno())
    except OSError:
        return False


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError:  # a pseudo-terminal whose other end is closed
        return b""


def _pass_on(target: IO[bytes] | None, data: bytes) -> None:
    """A reader that is gone, or a full disk, must not end the training: its output is dropped then."""
    if target is not None and data:
        with contextlib.suppress(OSError, ValueError):
            target.write(data)
            target.flush()


def _descriptor(target: IO[bytes]) -> int:
    """The file descriptor behind a stream, -1 if there is none (a notebook, a closed stream)."""
    try:
        return target.fileno()
    except (OSError, ValueError):
        return -1
