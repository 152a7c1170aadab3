"""From inside the training: notices that no event has come for long and writes where every thread stands."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path

from doctor.live.trainer.recorder import log_stderr
from doctor.live.trainer.stacks import StackFile
from doctor.live.trainer.step_timer import StepTimer

SUPERVISED_SECONDS, SUPERVISED_FACTOR = 300.0, 4.0
"""Under `lfdoctor run`, which asks by itself: no event for longer than both 300 s and four times what was expected, should it be gone."""


class HangCheck:
    """`look` runs once a second on the recorder's thread; `stack_file` is shared with the signal handler of `lfdoctor run`."""

    def __init__(self, rank: int, *, warn: bool) -> None:
        self.rank, self.warn = rank, warn
        self.stack_file: StackFile | None = None
        self.last_step = 0
        self.training_thread = threading.get_ident()
        self._silent = False

    def look(self, timer: StepTimer, folder: Path | None, *, training: bool) -> None:
        """Dump the stacks once per hang; a file that cannot be written costs the stacks only."""
        pause = timer.pause
        expected = timer.expected if self.warn else max(SUPERVISED_SECONDS, SUPERVISED_FACTOR * timer.expected)
        silent = training and pause > expected
        if silent and not self._silent and folder is not None:
            with contextlib.suppress(Exception):  # the journal goes on
                self.dump(pause, folder)
        self._silent = silent

    def dump(self, pause: float, folder: Path) -> None:
        """Write all stacks to a file next to the journal; print the training thread's place unless `lfdoctor run` does."""
        self.stack_file = self.stack_file or StackFile(folder, self.rank)
        self.stack_file.write(self.last_step, pause, self.training_thread)
        if self.warn:
            frame = sys._current_frames().get(self.training_thread)
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" if frame is not None else "an unknown place"
            text = f"rank {self.rank}: no event of the training for {pause:.0f} s after step {self.last_step}; it is at {place}"
            log_stderr(f"{text} ({self.stack_file.path})")
