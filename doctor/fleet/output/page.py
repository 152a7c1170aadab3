"""Web pages of scans and comparisons: one file each, nothing loaded from the network, all values escaped (jinja2 autoescape)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor.errors import DoctorError
from doctor.fleet.output import explanations
from doctor.fleet.output.summary import Summary
from doctor.fleet.scan.options import Options, report_name
from doctor.fleet.scan.records import RunRecord
from doctor.fleet.scan.store import Store
from doctor.words import catalogue

TEMPLATES = Path(__file__).parent / "templates"
MAX_ROWS = 5_000
"""Runs in the page (2 MB), failed ones first: what a browser sorts and filters without delay. The table holds all."""
COLUMNS = ("path", "state", "cause", "evidence", "steps", "loss", "ended", "job", "size")
_ORDER = "CASE state WHEN 'failed' THEN 0 WHEN 'sound' THEN 2 ELSE 1 END, ended DESC, path"


def pieces(template: str, lang: str, **values: Any) -> Iterator[str]:
    """A page in one language, in pieces of its text."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    script = (TEMPLATES / "scan.js").read_text(encoding="utf-8") if template == "scan.html" else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    stream = environment.get_template(template).stream(
        lang=lang,
        title=catalogue.say("fleet.say.title" if script else "fleet.say.differences", lang),
        script=script,
        policy=f"'sha256-{digest}'" if script else "'none'",
        say=lambda name, **filled: catalogue.say(f"fleet.say.{name}", lang, **filled),
        states={name: text.get(lang) for name, text in catalogue.texts("fleet.state").items()},
        verdicts={name: text.get(lang) for name, text in catalogue.texts("fleet.verdict").items()},
        suspect=explanations.candidate,
        verdict=explanations.verdict,
        **values,
    )
    stream.enable_buffering(200)
    yield from stream


def write(store: Store, summary: Summary, options: Options) -> None:
    """Write the page of a scan, row by row from the store. Raises DoctorError if it cannot be written."""
    folder, target = options.sibling(".reports").name + "/", options.sibling(".html")
    values = {"roots": options.roots, "summary": summary, "reports": folder, "columns": COLUMNS, "shown": min(MAX_ROWS, summary.runs)}
    try:
        with target.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(pieces("scan.html", options.lang, rows=_rows(store, summary, options), **values))
    except OSError as error:
        raise DoctorError(f"cannot write {target}: {error.strerror or error}") from error


def _rows(store: Store, summary: Summary, options: Options) -> Iterator[list[Any]]:
    """The rows, failed runs first; SQLite sorts paths only, records are loaded one at a time."""
    cluster_of = {name: cluster.id for cluster in summary.clusters for name in cluster.fingerprints}
    query = f"SELECT path FROM runs WHERE here = 1 AND done = 1 AND state != '' ORDER BY {_ORDER} LIMIT ?"  # noqa: S608 (no word of a user)
    for (path,) in store.rows(query, (MAX_ROWS,)):
        record = next(store.records("path = ?", (path,)))
        there = options.report is not None and record.outcome == "analyzed"
        yield _row(record, report_name(path, options.suffix) if there else None, cluster_of.get(record.fingerprint or ""))


def _row(record: RunRecord, report: str | None, cluster: str | None) -> list[Any]:
    """The values of a row in the order of COLUMNS, then the report and the cluster (found by the filter)."""
    state = record.outcome if record.outcome != "analyzed" else {True: "failed", False: "sound", None: "unclear"}[record.failed]
    said = record.error or record.evidence or record.title or ""
    loss = float(f"{record.loss:.4g}") if record.loss is not None else None
    ended = round(record.ended) if record.ended else None
    return [record.path, state, record.cause, said[:160], record.last_step, loss, ended, record.job, record.size, report, cluster]
