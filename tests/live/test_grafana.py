"""docs/grafana.json asks only for what the Prometheus endpoint serves."""

from __future__ import annotations

import json
import re
from pathlib import Path

from doctor.live.trainer.nvml import Gpus
from doctor.live.trainer.snapshot import _ALLOCATOR
from doctor.live.watch.prometheus import Endpoint
from tests.live.test_alerts import scrape
from tests.live.test_gpus import FakeNvml, fake

__all__ = ["fake"]
ROOT = Path(__file__).parents[2]
BOARD = json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))
EXPRESSIONS = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]


def served() -> set[str]:
    """What the endpoint serves after the journals of three real runs, a reading of the cards, and an evaluation."""
    endpoint = Endpoint(0)
    try:
        for journal in sorted(ROOT.glob("fixtures/*/watched/lfdoctor.jsonl")):
            for line in journal.read_bytes().splitlines():
                endpoint.line(line)
        readings = Gpus().read() | dict.fromkeys(_ALLOCATOR, 1.0)
        endpoint.line(json.dumps({"type": "Sample", "metrics": readings}).encode())
        endpoint.line(b'{"type":"Step","step":8,"total":20,"metrics":{"eval_loss":1.0}}')
        endpoint.finding("error at step 8: The loss became NaN [stability/nonfinite]")
        return {name.partition("{")[0] for name in scrape(endpoint)}
    finally:
        endpoint.close()


def test_every_metric_of_the_board_is_served(fake: FakeNvml) -> None:
    """Each name, and each pattern of names, in an expression is that of a figure; every panel has one."""
    known = served()
    patterns = [pattern for text in EXPRESSIONS for pattern in re.findall(r'__name__=~"([^"]+)"', text)]
    names = {name for text in EXPRESSIONS for name in re.findall(r"\blfdoctor_\w+(?=\{)", text)}
    assert len(names) >= 12
    assert names - known == set()
    assert len(patterns) == 3
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in known)] == []
    assert all(panel["targets"] for panel in BOARD["panels"])


def test_the_panels_do_not_overlap() -> None:
    """They lie on Grafana's 24 columns, each with an id of its own."""
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in BOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
