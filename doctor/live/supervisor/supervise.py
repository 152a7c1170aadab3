"""A training as a child process, unchanged by us: same output, same signals, same exit code; what it says is copied to a file."""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

import msgspec

from doctor.errors import DoctorError
from doctor.live.supervisor.hang_detector import SILENCE_BEFORE_DUMP_SECONDS, HangDetector
from doctor.live.trainer.recorder import log_stderr
from doctor.support.package_files import PACKAGE

INJECT = PACKAGE / "live" / "trainer" / "inject"
ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
"""Who sends one of these wants the training to end."""
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGWINCH")
_CHUNK = 1 << 16
_HELD = 1 << 16
"""Of a line that does not end, so much is held back before it goes into the copy."""
_GRACE = 2.0
"""After the child's end its own children may still write so many seconds."""
_LAST = 30.0
"""For the last bytes of the copy a slow disk gets so many seconds after the end."""


class Supervised:
    """One child. `run()` returns its exit code as subprocess tells it (negative: the signal).

    After `ask` seconds without output or step its ranks are asked where they stand, and `tell` hears of it (0: never); after `silence`
    seconds it is ended as hung, and `said` holds the words for the report.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        extra: dict[str, str],
        silence: float | None = None,
        *,
        ask: float = SILENCE_BEFORE_DUMP_SECONDS,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.command, self.folder = list(command), folder
        self.asked_to_stop = False
        self.said: list[str] = []
        self._silence, self._ask, self._tell = silence, ask, tell
        self.environment = environment(folder, extra)
        self.process: subprocess.Popen[bytes] | None = None
        self._streams: dict[int, tuple[IO[bytes], bytearray]] = {}

    def run(self) -> int:
        """Starts the child in a session of its own and copies until it has ended. Raises DoctorError if it cannot be started."""
        with Copy(self.folder / "console.log") as copy, contextlib.ExitStack() as stack:
            stdout, stderr = self._outputs(stack)
            try:
                self.process = subprocess.Popen(  # noqa: S603  running the user's own command is the purpose
                    self.command, env=self.environment, stdout=stdout, stderr=stderr, start_new_session=True
                )
            except OSError as error:
                raise DoctorError(f"cannot start {self.command[0]}: {error.strerror or error}") from error
            finally:
                for end in {stdout, stderr}:
                    os.close(end)
            watch = HangDetector(self.process.pid, self.folder, ask=self._ask, end=self._silence, tell=self._tell)
            with forwarding(self.process, [fd for fd in self._streams if os.isatty(fd)], self._received), watch:
                self._copy(copy, watch.heard)
                code = self.process.wait()
            self.said += watch.said
            return code

    def _received(self, number: int) -> None:
        self.asked_to_stop = self.asked_to_stop or signal.Signals(number).name in ENDING

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

    def _copy(self, copy: Copy, heard: Callable[[], None]) -> None:
        """Bytes go on at once; into the copy go whole lines, so that two streams do not cut each other's."""
        selector = selectors.DefaultSelector()
        for fd in self._streams:
            selector.register(fd, selectors.EVENT_READ)
        ended: float | None = None
        while selector.get_map():
            ready = selector.select(0.2)
            if ready:
                heard()
            for key, _ in ready:
                data = _read(key.fd)
                if not data:
                    selector.unregister(key.fd)
                    continue
                target, held = self._streams[key.fd]
                _pass_on(target, data)
                held += data
                cut = len(held) if len(held) > _HELD else held.rfind(b"\n") + 1
                copy.write(bytes(held[:cut]))
                del held[:cut]
            if self.process is not None and self.process.poll() is not None:
                ended = ended or time.monotonic()
                if time.monotonic() - ended > _GRACE:  # a daemon it left behind holds the pipe
                    break
        for _, held in self._streams.values():
            copy.write(bytes(held))


def environment(folder: Path, extra: dict[str, str]) -> dict[str, str]:
    """The child's variables: ours, the injected folder first on PYTHONPATH, unbuffered output (a SIGKILL takes no last words)."""
    out = {**os.environ, "LFDOCTOR_DIR": str(folder), "LFDOCTOR_MSGSPEC": str(Path(msgspec.__file__).parent), **extra}
    out["PYTHONPATH"] = os.pathsep.join([str(INJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    out.setdefault("PYTHONUNBUFFERED", "1")
    return out


def exit_code(code: int) -> int:
    """As a shell tells it: 128 + the signal that ended the child."""
    return 128 - code if code < 0 else code


@contextlib.contextmanager
def forwarding(process: subprocess.Popen[bytes], terminals: Sequence[int], received: Callable[[int], None]) -> Iterator[None]:
    """While the child runs, signals sent to us are its signals: the whole group gets them, and `received` is told."""

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
    """A pseudo-terminal of the same size that changes no byte (the real one behind it makes its own line ends)."""
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
    """Both go to the same file, pipe or terminal (`2>&1`)."""
    try:
        return os.path.sameopenfile(a.fileno(), b.fileno())
    except OSError:
        return False


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError:  # how a pseudo-terminal says that the other end is closed
        return b""


def _pass_on(target: IO[bytes] | None, data: bytes) -> None:
    """A reader that went away, or a full disk, must not end the training: it goes on unheard."""
    if target is not None and data:
        with contextlib.suppress(OSError, ValueError):
            target.write(data)
            target.flush()


class Copy:
    """The copy of the output in a file, written by a thread of its own: a disk that hangs or is full costs the copy, not the training.

    At most 64 MiB wait for such a disk; what is beyond that is left out, and the copy says how much.
    """

    HELD = 64 << 20

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._size = self._dropped = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="lfdoctor-copy", daemon=True)

    def __enter__(self) -> Copy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join(_LAST)

    def write(self, data: bytes) -> None:
        """Never blocks, never raises."""
        with self._lock:
            if self._size + len(data) > self.HELD:
                self._dropped += len(data)
                return
            data = self._gap() + data
            self._size += len(data)
        if data:
            self._waiting.put(data)

    def _gap(self) -> bytes:
        dropped, self._dropped = self._dropped, 0
        return b"\n[lfdoctor: %d bytes of output are missing here]\n" % dropped if dropped else b""

    def _run(self) -> None:
        told = False
        try:
            with self._path.open("ab", buffering=0) as file:
                while (data := self._waiting.get()) is not None:
                    written = 0
                    with contextlib.suppress(OSError):  # a full disk may have room again
                        while written < len(data):
                            written += file.write(data[written:]) or 0
                    with self._lock:
                        self._size -= len(data)
                        self._dropped += len(data) - written
                    if written < len(data) and not told:
                        told = True
                        log_stderr(f"the copy of the output is not complete: {self._path} cannot be written")
        except OSError as error:
            with self._lock:
                self._size = self.HELD  # nothing more is taken
            log_stderr(f"no copy of the output: {self._path}: {error.strerror or error}")
