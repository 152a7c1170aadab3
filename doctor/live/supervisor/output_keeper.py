"""A helper process that takes over a training's output if `lfdoctor run` is killed, so that the training does not die of a broken pipe.

It holds copies of the reading ends of the training's pipes or pseudo-terminals and sleeps until the alive pipe closes. If that happens
without a farewell byte, `lfdoctor run` was killed: the keeper then passes the output on to where it would have gone, and to console.log,
until the training ends. Run as a script by path, standard library only: 8 MB of memory.

Usage: output_keeper.py ALIVE_FD CONSOLE_LOG FROM:TO... (file descriptors; a TO of -1 drops the output).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

FAREWELL = b"."
"""Written to the alive pipe when a run ends in order."""
_CHUNK = 1 << 16
_FAREWELL_SECONDS = 10.0
"""More than a start of Python takes on a busy machine: a keeper that does not end by then is killed."""


class OutputKeeper:
    """A keeper for `streams` (reading end -> target descriptor or -1). Where no process can be started, the run goes on without."""

    def __init__(self, streams: Mapping[int, int], console: Path) -> None:
        alive, self._alive = os.pipe()
        targets = {source: os.dup(target) if target >= 0 else -1 for source, target in streams.items()}
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                [sys.executable, "-I", "-S", __file__, str(alive), str(console), *(f"{a}:{b}" for a, b in targets.items())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[alive, *targets, *(target for target in targets.values() if target >= 0)],
                start_new_session=True,  # signals to our group and a closed terminal are not meant for it
            )
        except OSError:
            pass
        finally:
            for fd in (alive, *(target for target in targets.values() if target >= 0)):
                os.close(fd)

    def hand_over(self) -> None:
        """The training goes on without us: the keeper takes its output."""
        os.close(self._alive)

    def farewell(self) -> None:
        """The run has ended in order: the keeper ends, too."""
        with contextlib.suppress(OSError):
            os.write(self._alive, FAREWELL)
        os.close(self._alive)
        if self._process is not None:
            try:
                self._process.wait(_FAREWELL_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def main(arguments: list[str]) -> None:
    """Wait, then take over if necessary."""
    for name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    if os.read(int(arguments[0]), 1) == FAREWELL:
        return
    pairs = (pair.split(":") for pair in arguments[2:])
    pass_on({int(source): int(target) for source, target in pairs}, arguments[1])


def pass_on(streams: dict[int, int], console: str) -> None:
    """Copy until all writers are gone. A target that cannot be written loses the output, never the training."""
    try:
        copy = os.open(console, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError:
        copy = -1
    selector = selectors.DefaultSelector()
    for source in streams:
        selector.register(source, selectors.EVENT_READ)
    while selector.get_map():
        for key, _ in selector.select():
            try:
                data = os.read(key.fd, _CHUNK)
            except OSError:  # the other end of a pseudo-terminal is closed
                data = b""
            if not data:
                selector.unregister(key.fd)
                continue
            for target in (streams[key.fd], copy):
                _write(target, data)


def _write(fd: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        while data and fd >= 0:
            data = data[os.write(fd, data) :]


if __name__ == "__main__":
    main(sys.argv[1:])
