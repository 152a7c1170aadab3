"""Who else hears of a run: notifications through apprise, a Prometheus endpoint, the training's own TensorBoard log."""

from __future__ import annotations

import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from doctor.errors import DoctorError
from doctor.live.trainer.tensorboard import Board, writer_of
from doctor.live.watch.alerts import Notifier
from doctor.live.watch.prometheus import Endpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of apprise's own imports


@pytest.fixture
def mailbox() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook on this machine, and what it received."""
    received: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_messages_are_masked_joined_and_said_once(mailbox):
    """What comes during the pause is one message, a sentence goes out once, and secrets do not leave the machine."""
    url, received = mailbox
    notifier = Notifier([url], "lfdoctor: run", pause=30)
    notifier.tell("error at step 3: the loss is NaN")
    for _ in range(100):
        if received:
            break
        time.sleep(0.05)
    for number in range(50):
        notifier.tell(f"warning {number % 25}: token=hf_abcdefghijklmnopqrstuvwxyz0123456789")
    notifier.close()
    assert [one["title"] for one in received] == ["lfdoctor: run"] * 2
    assert received[0]["message"] == "error at step 3: the loss is NaN"
    lines = received[1]["message"].splitlines()
    assert (len(lines), lines[-1]) == (21, "(+5)")
    assert "abcdefghijklmnop" not in received[1]["message"]


def test_a_service_that_is_away_costs_one_line():
    """Nobody listens: close comes back, and the complaint comes once."""
    complaints: list[str] = []
    notifier = Notifier(["json://127.0.0.1:9/none"], "t", pause=0.0, complain=complaints.append)
    notifier.tell("one")
    notifier.tell("two")
    notifier.close()
    assert complaints == ["a notification could not be delivered"]


def test_a_url_that_is_none_is_told_without_its_secret():
    """The scheme is named, the rest may be a password."""
    with pytest.raises(DoctorError, match=r"nonsense://\*\*\*"):
        Notifier(["nonsense://user:secret@host"], "t")


def scrape(endpoint: Endpoint) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics") as answer:
        rows = [line for line in answer.read().decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in (row.rsplit(" ", 1) for row in rows)}


def test_the_newest_figures_are_served():
    """Steps and samples are gauges, findings a counter; lines that are damaged or hostile change nothing."""
    endpoint = Endpoint(0)
    try:
        endpoint.line(b'{"type":"Step","step":7,"total":20,"metrics":{"loss":1.5,"rewards/accuracies":0.5,"note":"x"}}')
        endpoint.line(b'{"type":"Step","step":8,"total":20,"metrics":{"loss":"nan"}}')
        endpoint.line(b'{"type":"Sample","metrics":{"gpu.0.used_gib":20.5}}')
        for bad in (b"", b"{", b"[]", b'{"type":"Step","step":null,"metrics":[]}', b'{"type":"Crash","metrics":{"a":1}}'):
            endpoint.line(bad)
        endpoint.finding("error at step 8: The loss became NaN [stability/nonfinite]")
        endpoint.finding("the run ended with 1")
        told = scrape(endpoint)
    finally:
        endpoint.close()
    assert (told["lfdoctor_step"], told["lfdoctor_total"], told["lfdoctor_gpu_0_used_gib"]) == (8, 20, 20.5)
    assert told["lfdoctor_rewards_accuracies"] == 0.5
    assert str(told["lfdoctor_loss"]) == "nan"
    assert told['lfdoctor_findings_total{rule="stability/nonfinite",severity="error"}'] == 1
    assert "lfdoctor_a" not in told


def test_a_runaway_logger_does_not_fill_the_memory():
    """Of a metric name for each step the first 500 are served, and those go on being updated."""
    endpoint = Endpoint(0)
    try:
        for step in range(600):
            endpoint.line(b'{"type":"Step","metrics":{"loss_%d":1.0,"loss_0":%d}}' % (step, step))
        told = scrape(endpoint)
    finally:
        endpoint.close()
    assert len([name for name in told if name.startswith("lfdoctor_loss_")]) == 500
    assert told["lfdoctor_loss_0"] == 599


def test_a_port_in_use_is_a_plain_error():
    """Two endpoints on one port."""
    first = Endpoint(0)
    try:
        with pytest.raises(DoctorError, match="cannot serve metrics"):
            Endpoint(first.port)
    finally:
        first.close()


class Writer:
    """As much of a SummaryWriter as we use."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.texts: list[tuple[str, str, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))

    def add_text(self, tag: str, text: str, step: int) -> None:
        self.texts.append((tag, text, step))

    def flush(self) -> None:
        pass


def test_tensorboard_gets_our_figures_only():
    """What the trainer logs itself is not written twice; a writer that comes late is found."""
    callback = type("Callback", (), {"tb_writer": None})()
    trainer = type("Trainer", (), {"callback_handler": type("Handler", (), {"callbacks": [object(), callback]})()})()
    board = Board(lambda: writer_of(trainer))
    board.line(b'{"type":"Step","step":1,"metrics":{"loss":1.0,"step_seconds":0.5}}')
    callback.tb_writer = writer = Writer()
    board.line(b'{"type":"Step","step":2,"metrics":{"loss":1.0,"step_seconds":0.25}}')
    board.line(b'{"type":"Sample","metrics":{"gpu.0.used_gib":20.5,"host.total_gib":64.0}}')
    board.line(b'{"type":"Fact","name":"x","value":1}')
    board.finding("error: NaN")
    assert writer.scalars == [("lfdoctor/step_seconds", 0.25, 2), ("lfdoctor/gpu.0.used_gib", 20.5, 2)]
    assert writer.texts == [("lfdoctor/findings", "error: NaN", 2)]
