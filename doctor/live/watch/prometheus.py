"""A Prometheus endpoint for one run (`pip install lfdoctor[metrics]`): the latest figures of the journal as gauges."""

from __future__ import annotations

import json
import re
from typing import Any

from doctor.errors import DoctorError
from doctor.support.optional import need

_WARNING = re.compile(r"(error|warning) .*\[([\w/-]+)\]$", re.DOTALL)
MAX_GAUGES = 500
"""A training logs 10 to 100 metrics; a runaway logger must not fill the memory."""


class Endpoint:
    """Serves http://127.0.0.1:PORT/metrics; `line` takes the journal's lines as they come. Raises DoctorError if it cannot."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self._client = need("prometheus_client", "metrics", "the metrics endpoint")
        self._registry = self._client.CollectorRegistry()
        self._gauges: dict[str, Any] = {}
        self._findings = self._client.Counter("lfdoctor_findings", "Findings so far", ["severity", "rule"], registry=self._registry)
        try:
            self._server, self._thread = self._client.start_http_server(port, addr=address, registry=self._registry)
        except OSError as error:
            raise DoctorError(f"cannot serve metrics on {address}:{port}: {error.strerror or error}") from error

    @property
    def port(self) -> int:
        """The port that is served (for 0 the system chooses one)."""
        return int(self._server.server_port)

    def line(self, raw: bytes) -> None:
        """One line of the journal; anything but figures is ignored."""
        try:
            event = json.loads(raw)
        except ValueError:
            return
        if not isinstance(event, dict) or event.get("type") not in ("Step", "Sample"):
            return
        metrics = event.get("metrics")
        values = dict(metrics) if isinstance(metrics, dict) else {}
        values |= {name: event[name] for name in ("step", "total") if name in event}
        for name, value in values.items():
            self._set(str(name), value)

    def finding(self, text: str) -> None:
        """A warning in the monitor's form: `error at step 5: … [family/rule]`."""
        if match := _WARNING.match(text):
            self._findings.labels(match[1], match[2]).inc()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def _set(self, name: str, value: Any) -> None:
        try:
            figure = float(value)
        except (TypeError, ValueError):
            return
        key = "lfdoctor_" + re.sub(r"\W+", "_", name)
        if key not in self._gauges:
            if len(self._gauges) >= MAX_GAUGES:
                return
            self._gauges[key] = self._client.Gauge(key, f"{name} as the training logged it last", registry=self._registry)
        self._gauges[key].set(figure)
