"""Small data sets on disk for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from doctor.dataset.findings import Finding
from doctor.dataset.inspect import DataReport, Look, inspect

QUIET = Look(near=False, lengths=False)


def put(folder: Path, name: str, text: str | bytes, **entry: Any) -> None:
    """A data set in FOLDER/data: file and entry."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    (data / name).write_bytes(text.encode() if isinstance(text, str) else text)
    info = data / "dataset_info.json"
    known = json.loads(info.read_text()) if info.exists() else {}
    info.write_text(json.dumps({**known, name.partition(".")[0]: {"file_name": name, **entry}}))


def lines(*rows: Any) -> str:
    """JSON lines; a text stands for itself."""
    return "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)


def good(number: int, **change: Any) -> dict[str, Any]:
    """A sound alpaca row."""
    return {"instruction": f"Say the number {number}.", "input": "", "output": f"It is {number}.", **change}


def talk(number: int, *turns: str) -> dict[str, Any]:
    """A sound sharegpt row, or one with these roles."""
    roles = turns or ("human", "gpt")
    return {"conversations": [{"from": role, "value": f"{role} says {number}"} for role in roles]}


def seen(folder: Path, look: Look = QUIET, **config: Any) -> DataReport:
    """The report on data set `one`, unless the configuration says another."""
    return inspect({"dataset": "one", "template": "qwen", **config}, folder, look)


def found(report: DataReport) -> dict[str, list[int]]:
    """Kind -> lines."""
    return {finding.kind: [place.line for place in finding.places] for finding in report.findings}


def the(report: DataReport, kind: str) -> Finding:
    """The finding of this kind."""
    (finding,) = [finding for finding in report.findings if finding.kind == kind]
    return finding
