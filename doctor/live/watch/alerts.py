"""Alerts to webhooks and chats through apprise (`pip install lfdoctor[notify]`): masked, rate-limited, never in the way."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from typing import Any

from doctor.errors import DoctorError
from doctor.privacy.secrets import clean
from doctor.support.optional import need

PAUSE = 60.0
"""Seconds between two messages at least; what comes meanwhile goes out together."""
LINES = 20
"""Lines of one message; more are counted."""
_CLOSING = 10.0


class Notifier:
    """`tell` costs its caller an append to a queue. `urls` are apprise's (`slack://…`, `tgram://…`, `json://host`, …).

    Raises DoctorError where apprise is missing or understands no URL; later errors are told once, through `complain`.
    """

    def __init__(self, urls: Sequence[str], title: str, *, pause: float = PAUSE, complain: Any = None) -> None:
        apprise = need("apprise", "notify", "sending notifications")
        self._target = apprise.Apprise()
        for url in urls:
            if not self._target.add(url):
                raise DoctorError(f"apprise does not understand this notification URL: {url.partition('://')[0]}://***")
        self._title, self._pause, self._complain = clean(title), pause, complain
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._complained = False
        self._said: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="lfdoctor-notify", daemon=True)
        self._thread.start()

    def tell(self, text: str) -> None:
        """A line to send; the same line is sent once."""
        if text not in self._said and len(self._said) < 10_000:
            self._said.add(text)
            self._queue.put(text)

    def close(self) -> None:
        """Sends what waits, at once, and gives that ten seconds."""
        self._queue.put(None)
        self._thread.join(_CLOSING)

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
        """The pause; whether we were closed meanwhile (then what came is sent at once)."""
        until = time.monotonic() + self._pause
        lines.clear()
        while (left := until - time.monotonic()) > 0:
            try:
                one = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if one is None:
                self._send(lines)
                return True
            lines.append(one)
        if lines:
            self._send(lines)
            return self._rest(lines)
        return False

    def _drain(self, lines: list[str]) -> bool:
        while not self._queue.empty():
            one = self._queue.get()
            if one is None:
                return True
            lines.append(one)
        return False

    def _send(self, lines: list[str]) -> None:
        if not lines:
            return
        more = [f"(+{len(lines) - LINES})"] if len(lines) > LINES else []
        try:
            sent = self._target.notify(title=self._title, body="\n".join([*map(clean, lines[:LINES]), *more]))
        except Exception:  # whatever a service's code does, the run goes on
            sent = False
        if not sent and not self._complained and self._complain is not None:
            self._complained = True
            self._complain("a notification could not be delivered")
