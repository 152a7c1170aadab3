"""Alerts to webhooks and chats through apprise (`pip install lfdoctor[notify]`): masked, rate-limited, never blocking."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from typing import Any

from doctor.errors import DoctorError
from doctor.privacy.secrets import clean
from doctor.support.optional import need

PAUSE_SECONDS = 60.0
"""Shortest time between two messages; lines that come in between are sent together."""
MAX_LINES = 20
"""Lines of one message; the rest is counted."""
MAX_TEXTS = 10_000
"""Different lines that are remembered and sent in one run."""
_CLOSE_SECONDS = 10.0
"""For the last message at the end of a run."""


class Notifier:
    """`tell` costs its caller an append to a queue. `urls` are apprise's (`slack://…`, `tgram://…`, `json://host`, …).

    Raises DoctorError if apprise is missing or a URL is wrong; the first later error goes to `complain`.
    """

    def __init__(self, urls: Sequence[str], title: str, *, pause: float = PAUSE_SECONDS, complain: Any = None) -> None:
        apprise = need("apprise", "notify", "sending notifications")
        self._target = apprise.Apprise()
        for url in urls:
            if not self._target.add(url):
                raise DoctorError(f"apprise does not understand this notification URL: {url.partition('://')[0]}://***")
        self._title, self._pause, self._complain = clean(title), pause, complain
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._complained = False
        self._sent: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="lfdoctor-notify", daemon=True)
        self._thread.start()

    def tell(self, text: str) -> None:
        """Queue a line; the same line is sent once."""
        if text not in self._sent and len(self._sent) < MAX_TEXTS:
            self._sent.add(text)
            self._queue.put(text)

    def close(self) -> None:
        """Send what is queued, for at most _CLOSE_SECONDS."""
        self._queue.put(None)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        ended = False
        while not ended:
            first = self._queue.get()
            if first is None:
                return
            lines = [first]
            ended = self._drain(lines)
            self._send(lines)
            ended = ended or self._rest(lines)

    def _rest(self, lines: list[str]) -> bool:
        """Wait for the pause and send what came in it; True if `close` was called meanwhile."""
        until = time.monotonic() + self._pause
        lines.clear()
        while (left := until - time.monotonic()) > 0:
            try:
                line = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                self._send(lines)
                return True
            lines.append(line)
        if lines:
            self._send(lines)
            return self._rest(lines)
        return False

    def _drain(self, lines: list[str]) -> bool:
        while not self._queue.empty():
            line = self._queue.get()
            if line is None:
                return True
            lines.append(line)
        return False

    def _send(self, lines: list[str]) -> None:
        if not lines:
            return
        more = [f"(+{len(lines) - MAX_LINES})"] if len(lines) > MAX_LINES else []
        try:
            sent = self._target.notify(title=self._title, body="\n".join([*map(clean, lines[:MAX_LINES]), *more]))
        except Exception:  # a service's code must not end the run
            sent = False
        if not sent and not self._complained and self._complain is not None:
            self._complained = True
            self._complain("a notification could not be delivered")
