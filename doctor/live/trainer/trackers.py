"""Findings as alerts in the experiment trackers that the training itself has initialised: W&B, SwanLab, MLflow, Trackio.

Only a tracker that the run reports to, whose library it has loaded and whose run is open, and only that library's documented calls:
`wandb.Run.alert`, `swanlab.log` of a `Text`, `MlflowClient.set_tag`, `trackio.alert`. Nothing is imported, opened or configured here.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import re
import threading
from collections.abc import Callable
from typing import Any

from doctor.support.optional import loaded

Send = Callable[[str, str, int], None]
"""Sends a text, with the name of its rule, at a step."""
ATTEMPTS = 20
"""Logs after which a tracker that has not opened a run will not open one."""
MAX_WAITING = 100
"""Alerts that wait for a server that does not answer; further ones are left out."""
_RULE = re.compile(r"\[([\w/-]+)\]$")


class Trackers:
    """`find` on the training's thread with its logs, `tell` on any: sending is done by a thread of its own, its errors are dropped."""

    def __init__(self, names: list[str]) -> None:
        self._missing = {name: _FINDERS[name] for name in names}
        self._found: list[Send] = []
        self._left = ATTEMPTS
        self._early: list[tuple[str, int]] = []
        self._queue: queue.Queue[tuple[str, int]] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self.step = 0

    @classmethod
    def of(cls, args: Any, trainer: Any) -> Trackers | None:
        """Of the trackers in `report_to` and of the trainer's callbacks (LLaMA-Factory adds SwanLab's by itself); None without one."""
        given = getattr(args, "report_to", None) or ()
        wanted = {given} if isinstance(given, str) else set(map(str, given))
        for callback in getattr(getattr(trainer, "callback_handler", None), "callbacks", ()):
            wanted.add(type(callback).__name__.lower().partition("callback")[0])
        names = [name for name in _FINDERS if name in wanted or "all" in wanted]
        return cls(names) if names else None

    def find(self, step: int) -> None:
        """Look for runs that were opened meanwhile: a look-up among the loaded modules, none once all were found."""
        self.step = step
        if not self._missing or self._left <= 0:
            return
        self._left -= 1
        for name, finder in list(self._missing.items()):
            with contextlib.suppress(Exception):  # somebody else's library
                send = finder()
                if send is not None:
                    self._found.append(send)
                    del self._missing[name]
        if self._found:
            for early in self._early:
                self._put(*early)
            self._early = []

    def tell(self, text: str) -> None:
        """Send a finding to every tracker found; one that comes before the first run was opened waits for it."""
        if self._found:
            self._put(text, self.step)
        elif len(self._early) < MAX_WAITING:
            self._early.append((text, self.step))

    def _put(self, text: str, step: int) -> None:
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait((text, step))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lfdoctor-trackers", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            text, step = self._queue.get()
            rule = _RULE.search(text)
            for send in self._found:
                with contextlib.suppress(Exception):  # no network, a run that was closed, another version's arguments
                    send(text, rule[1] if rule else "finding", step)


def _wandb() -> Send | None:
    """https://docs.wandb.ai/guides/runs/alert/; `wait_duration` 0: its default holds back a second alert of the same title."""
    run = getattr(loaded("wandb"), "run", None)
    if run is None:
        return None
    return lambda text, rule, step: run.alert(title=f"lfdoctor: {rule}", text=f"step {step}: {text}", wait_duration=0)


def _swanlab() -> Send | None:
    """https://docs.swanlab.cn/api/py-Text.html; one chart a rule, as a second text of a chart at the same step is dropped."""
    swanlab = loaded("swanlab")
    if swanlab is None or swanlab.get_run() is None:  # newer ones raise without a run
        return None
    return lambda text, rule, step: swanlab.log({f"lfdoctor/{rule.replace('/', '-')}": swanlab.Text(text)}, step=step)


def _mlflow() -> Send | None:
    """https://mlflow.org/docs/latest/api_reference/python_api/mlflow.client.html; the active run is known to the thread that opened it."""
    mlflow = loaded("mlflow")
    active = mlflow.active_run() if mlflow is not None else None
    if mlflow is None or active is None:
        return None
    run_id = active.info.run_id
    return lambda text, rule, step: mlflow.MlflowClient().set_tag(run_id, f"lfdoctor.{rule.replace('/', '.')}", f"step {step}: {text}")


def _trackio() -> Send | None:
    """https://huggingface.co/docs/trackio/alerts; the run is known in the context of the thread that opened it. It prints a line, too."""
    trackio = loaded("trackio")
    if trackio is None or trackio.context_vars.current_run.get() is None:
        return None
    context = contextvars.copy_context()
    return lambda text, rule, step: context.run(trackio.alert, title=f"lfdoctor: {rule}", text=f"step {step}: {text}")


_FINDERS: dict[str, Callable[[], Send | None]] = {"wandb": _wandb, "swanlab": _swanlab, "mlflow": _mlflow, "trackio": _trackio}
