"""Scans: the same rows whatever engine did the work and whoever killed its workers; bad runs are told, not fatal; the cache is right."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from doctor.cli.main import main
from doctor.fleet.output.tables import FINDINGS, RUNS
from doctor.fleet.scan import engines, records, worker
from doctor.fleet.scan.coordinator import scan
from doctor.fleet.scan.options import Options, report_name

from .conftest import SOME, copy

REPORT = "doctor.reporters.registry:REPORTERS:markdown"


def options(root, out, **given):
    return Options(roots=[str(root)], output=Path(out), **{"engine": engines.Choice(jobs=2), **given})


def table(path):
    """Rows of a table of runs, by the run's name."""
    return {row["path"].rpartition("/")[2]: row for row in parquet.read_table(path).to_pylist()}


def findings(path):
    return parquet.read_table(str(path).replace(".parquet", ".findings.parquet"))


class Heard:
    """Collects what a scan tells."""

    def __init__(self):
        self.analyzed_runs, self.notes, self.work = [], [], 0

    def found(self, total, unchanged):
        self.total, self.unchanged = total, unchanged

    def planned(self, work):
        self.work = work

    def analyzed(self, record):
        self.analyzed_runs.append(record)

    def note(self, text):
        self.notes.append(text)


def test_a_scan_tells_what_analyze_tells(runs, tmp_path):
    """Status, cause, steps and findings of every run are those of its own report; columns are as documented."""
    import doctor

    out = tmp_path / "out" / "runs.parquet"
    summary = scan(options(runs, out))
    rows, found = table(out), findings(out).to_pylist()
    assert sorted(rows) == sorted(SOME)
    for name, row in rows.items():
        report = doctor.analyze(runs / name)
        assert (row["cause"], row["status"], row["last_step"]) == (report.cause, report.run.status, report.run.steps.last)
        assert [one["rule"] for one in found if one["path"] == row["path"]] == [one.rule for one in report.findings]
    assert list(parquet.read_schema(out).names) == list(RUNS)
    assert findings(out).column_names == list(FINDINGS)
    assert summary.runs == len(SOME)
    assert summary.states["sound"] == 3
    assert rows["lr_too_high-lora"]["failed"] is True
    assert rows["interrupted-ctrl-c"]["failed"] is None


def test_the_columns_are_documented():
    """docs/scale.md names every column of both tables."""
    text = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    assert not [name for name in {*RUNS, *FINDINGS} if f"`{name}`" not in text]


def test_only_what_changed_is_analyzed_again(runs, tmp_path):
    """An untouched run comes from the cache; a touched one, a new one and a removed one are noticed; the tables follow."""
    out = tmp_path / "runs.parquet"
    scan(options(runs, out))
    first = parquet.read_table(out)
    heard = Heard()
    scan(options(runs, out), heard)
    assert (heard.unchanged, heard.analyzed_runs) == (len(SOME), [])
    assert parquet.read_table(out).equals(first)
    with (runs / "healthy-sft" / "console.log").open("a") as file:
        file.write("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n")
    copy("healthy-kto", runs / "new")
    (runs / "healthy-dpo").rename(tmp_path / "gone")
    heard = Heard()
    scan(options(runs, out), heard)
    assert sorted(one.path.rpartition("/")[2] for one in heard.analyzed_runs) == ["healthy-sft", "new"]
    assert sorted(table(out)) == sorted({*SOME, "new"} - {"healthy-dpo"})
    assert table(out)["healthy-sft"]["cause"] is not None


def test_outputs_of_unchanged_runs_stay_as_they_are(runs, tmp_path):
    """Nothing is written again where nothing changed; an output that somebody removed or changed is."""
    out = tmp_path / "runs.parquet"
    beside = [tmp_path / f"runs{ending}" for ending in (".parquet", ".findings.parquet", ".html", ".summary.json")]

    def written():
        return [path.stat().st_mtime_ns for path in beside]

    first = scan(options(runs, out))
    before, page = written(), beside[2].read_text("utf-8")
    assert (scan(options(runs, out)), written()) == (first, before)
    beside[2].unlink()
    beside[0].write_bytes(b"")
    assert scan(options(runs, out)) == first
    assert beside[2].read_text("utf-8") == page
    assert sorted(table(out)) == sorted(SOME)
    before = written()
    (runs / "healthy-dpo").rename(tmp_path / "gone")
    assert scan(options(runs, out)).runs == len(SOME) - 1
    assert all(now > then for now, then in zip(written(), before, strict=True))


def test_an_interrupted_scan_goes_on(runs, tmp_path):
    """What was analyzed before the interruption is not analyzed again, and the tables are as if nothing had happened."""

    class Impatient(Heard):
        def analyzed(self, record):
            super().analyzed(record)
            if len(self.analyzed_runs) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(options(runs, tmp_path / "a.parquet"), Impatient())
    heard = Heard()
    scan(options(runs, tmp_path / "a.parquet"), heard)
    scan(options(runs, tmp_path / "b.parquet"))
    assert 0 < len(heard.analyzed_runs) <= len(SOME) - 3
    assert parquet.read_table(tmp_path / "a.parquet").equals(parquet.read_table(tmp_path / "b.parquet"))


def test_a_damaged_cache_is_begun_anew(runs, tmp_path):
    (tmp_path / "runs.cache").write_bytes(b"this is no database" * 1000)
    assert scan(options(runs, tmp_path / "runs.parquet")).runs == len(SOME)


def kill_some(pattern, stop, begun, killed, kills=2):
    """Kills processes below this one whose command line holds `pattern`, once they have begun to work."""
    begun.wait()
    while len(killed) < kills and not stop.wait(0.3):
        for pid in below(os.getpid()):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if pattern in line and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                break


def below(pid):
    """All processes below one."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(one) for one in path.read_text().split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from below(child)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the workers")
@pytest.mark.parametrize(("engine", "pattern"), [("local", "doctor.fleet.scan.worker_process"), ("dask", "multiprocessing.spawn")])
@pytest.mark.filterwarnings("ignore")
def test_killed_workers_leave_no_trace_in_the_tables(tmp_path, engine, pattern):
    """Worker processes die while they work; dask has a real scheduler and two worker processes. The rows are those of a quiet scan."""
    for i in range(4):
        for name in SOME:
            copy(name, tmp_path / "runs" / f"{name}-{i}")
    scan(options(tmp_path / "runs", tmp_path / "quiet.parquet"))
    stop, begun, killed = threading.Event(), threading.Event(), []

    class Signalling(Heard):
        def analyzed(self, record):
            begun.set()

    thread = threading.Thread(target=kill_some, args=(pattern, stop, begun, killed))
    thread.start()
    try:
        scan(options(tmp_path / "runs", tmp_path / "killed.parquet", engine=engines.Choice(engine, jobs=2)), Signalling())
    finally:
        begun.set()
        stop.set()
        thread.join()
    assert killed
    assert parquet.read_table(tmp_path / "killed.parquet").equals(parquet.read_table(tmp_path / "quiet.parquet"))
    assert findings(tmp_path / "killed.parquet").equals(findings(tmp_path / "quiet.parquet"))


@pytest.mark.filterwarnings("ignore")
def test_ray_says_the_same(runs, tmp_path):
    pytest.importorskip("ray")
    scan(options(runs, tmp_path / "local.parquet"))
    scan(options(runs, tmp_path / "ray.parquet", engine=engines.Choice("ray", jobs=2)))
    assert parquet.read_table(tmp_path / "ray.parquet").equals(parquet.read_table(tmp_path / "local.parquet"))


def test_an_engine_that_loses_a_worker_is_asked_again_for_what_is_missing(runs, tmp_path, monkeypatch):
    """Whatever an engine raises in mid-scan; one that never gets anything done is given up with its own words."""
    broken = []

    def engine(choice):
        import contextlib

        def results(tasks):
            for number, task in enumerate(tasks):
                if number == 0 and len(broken) < 2:
                    yield worker.work(task[:1])
                    broken.append(task)
                    raise RuntimeError("worker lost")
                yield worker.work(task)

        return contextlib.nullcontext(results)

    monkeypatch.setattr(engines, "started", engine)
    heard = Heard()
    scan(options(runs, tmp_path / "a.parquet"), heard)
    assert len(heard.notes) == 2
    assert len(heard.analyzed_runs) == len(SOME)
    monkeypatch.setattr(engines, "started", lambda choice: __import__("contextlib").nullcontext(lambda tasks: 1 / 0))
    with pytest.raises(Exception, match="broke down 6 times"):
        scan(options(runs, tmp_path / "b.parquet"))


def hostile(root):
    """A run that blows memory, a corrupt one, a pipe, a loop, one that may not be read, an empty log."""
    copy("healthy-sft", root / "good")
    for name in ("blows", "corrupt", "pipe", "loop", "forbidden", "empty"):
        (root / name).mkdir(parents=True)
    (root / "blows" / "trainer_state.json").write_bytes(b'{"log_history": [' + b"[]," * 6_000_000 + b"[]]}")
    (root / "corrupt" / "trainer_state.json").write_bytes(os.urandom(4096))
    (root / "corrupt" / "trainer_log.jsonl").write_bytes(b'{"current_steps": 1, "loss": \xff\xfe\n' + os.urandom(4096))
    os.mkfifo(root / "pipe" / "console.log")
    (root / "loop" / "trainer_log.jsonl").write_text('{"current_steps": 1, "total_steps": 1, "loss": 1.0}\n', encoding="utf-8")
    (root / "loop" / "again").symlink_to(root / "loop")
    (root / "forbidden" / "trainer_log.jsonl").write_text("{}", encoding="utf-8")
    (root / "forbidden" / "trainer_log.jsonl").chmod(0)
    (root / "empty" / "console.log").write_bytes(b"")


@pytest.mark.skipif(os.name == "nt", reason="pipes and permissions of POSIX")
def test_bad_runs_are_told_and_do_not_stop_the_scan(tmp_path):
    """Each in its own row with the reason; what was cut off is so again only under other limits."""
    hostile(tmp_path / "runs")
    out, limits = tmp_path / "runs.parquet", records.Limits(60.0, 0.3)
    scan(options(tmp_path / "runs", out, limits=limits))
    rows = table(out)
    outcomes = {name: row["outcome"] for name, row in rows.items()}
    assert outcomes["good"] == "analyzed"
    assert outcomes["blows"] == "too_large"
    assert outcomes["pipe"] == "unreadable"
    assert "pipe" in rows["pipe"]["error"]
    assert any("again" in problem for problem in rows["loop"]["problems"])
    assert rows["corrupt"]["problems"] or rows["corrupt"]["error"]
    assert "forbidden" in rows
    heard = Heard()
    scan(options(tmp_path / "runs", out, limits=limits), heard)
    assert heard.analyzed_runs == []
    scan(options(tmp_path / "runs", out, limits=records.Limits(60.0, 8.0)), heard)
    assert [one.path.rpartition("/")[2] for one in heard.analyzed_runs] == ["blows"]
    assert table(out)["blows"]["outcome"] != "too_large"


def test_a_run_that_takes_too_long_is_cut_off(tmp_path):
    """40 GiB of log (of nothing, which takes no room on the disk) are not read to their end; the run beside it is analyzed."""
    copy("healthy-sft", tmp_path / "runs" / "good")
    (tmp_path / "runs" / "hangs").mkdir()
    with (tmp_path / "runs" / "hangs" / "console.log").open("wb") as file:
        file.write(b"***** Running training *****\n" + b"x" * 8192)
        file.truncate(40 << 30)
    scan(options(tmp_path / "runs", tmp_path / "runs.parquet", limits=records.Limits(3.0, 8.0)))
    rows = table(tmp_path / "runs.parquet")
    assert (rows["hangs"]["outcome"], rows["hangs"]["error"]) == ("too_slow", "cut off after 3 s")
    assert rows["hangs"]["size"] == 40 << 30
    assert rows["good"]["status"] == "completed"


def test_logs_of_other_programs_are_no_runs(runs, tmp_path):
    (runs / "apt").mkdir()
    (runs / "apt" / "history.log").write_text("Start-Date: 2024-01-01\nCommandline: apt-get install vim\n", encoding="utf-8")
    assert scan(options(runs, tmp_path / "runs.parquet")).runs == len(SOME)


def test_a_remote_root_gives_the_same_answers(runs, tmp_path):
    """Files are copied to where the worker is, and no name of a copy shows."""
    scan(options(runs, tmp_path / "local.parquet"))
    scan(options(f"file://{runs}", tmp_path / "remote.parquet"))
    local, remote = table(tmp_path / "local.parquet"), table(tmp_path / "remote.parquet")
    keys = ("status", "cause", "fingerprint", "last_step", "loss", "failed", "evidence")
    assert {name: [row[key] for key in keys] for name, row in remote.items()} == {n: [r[k] for k in keys] for n, r in local.items()}
    sources = [one["source"] for one in findings(tmp_path / "remote.parquet").to_pylist() if one["source"]]
    assert sources
    assert not [source for source in sources if not source.startswith(f"file://{runs}/")]


def test_reports_lie_beside_the_page_which_links_them(runs, tmp_path):
    """One report a run in the wanted format, and the page's data name each."""
    out = tmp_path / "runs.parquet"
    scan(options(runs, out, report=REPORT, suffix=".md.txt"))
    page = (tmp_path / "runs.html").read_text(encoding="utf-8")
    for name in SOME:
        report = report_name(str(runs / name), ".md.txt")
        assert report in page
        assert name in (tmp_path / "runs.reports" / report).read_text(encoding="utf-8")


def test_the_page_loads_nothing_and_escapes_everything(runs, tmp_path):
    """A log line with markup stays text, in the table's data and in the clusters; no address is loaded from."""
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    (runs / "evil").mkdir()
    (runs / "evil" / "console.log").write_text(
        f'***** Running training *****\nTraceback (most recent call last):\n  File "/a/b.py", line 1, in f\n    g()\nKeyError: "{evil}"\n',
        encoding="utf-8",
    )
    scan(options(runs, tmp_path / "runs.parquet"))
    page = (tmp_path / "runs.html").read_text(encoding="utf-8")
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert not re.search(r"(?:src|href)=[\"']?https?:", page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert {row[0].rpartition("/")[2] for row in data["rows"]} == {*SOME, "evil"}


def test_secrets_of_a_config_do_not_travel(runs, tmp_path):
    """Not into the tables, the page, the summary or the cache."""
    secret = "hf_" + "a1B2" * 8
    path = runs / "healthy-sft" / "train.yaml"
    path.write_text(path.read_text(encoding="utf-8") + f"\nhf_hub_token: {secret}\nrun_name: {secret}\n", encoding="utf-8")
    scan(options(runs, tmp_path / "out" / "runs.parquet", report=REPORT))
    written = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(written) > 5
    assert "hf_hub_token" in table(tmp_path / "out" / "runs.parquet")["healthy-sft"]["config"]
    assert not [file for file in written if secret.encode() in file.read_bytes()]


def test_the_command_prints_failures_and_says_so_by_its_exit_code(runs, tmp_path, capsys):
    out = str(tmp_path / "runs.parquet")
    assert main(["scan", str(runs), "-o", out, "-j", "2"]) == 1
    said = capsys.readouterr().out
    assert "dataset_not_registered-name" in said
    assert "healthy-sft" not in said
    assert re.search(r"^\s*\d+  dataset_not_registered +The dataset name is not registered", said, re.MULTILINE), said
    assert main(["scan", str(runs), "-o", out, "--fail-on", "never", "--lang", "ko"]) == 0
    assert "실패" in capsys.readouterr().out
    assert main(["scan", str(tmp_path / "nowhere"), "-o", out]) == 3
    assert main(["scan", str(runs), "-o", out, "--engine", "spark"]) == 2
    (tmp_path / "void").mkdir()
    assert main(["scan", str(tmp_path / "void"), "-o", out]) == 3


def test_a_missing_package_is_named(monkeypatch, runs, tmp_path):
    """The error says what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(Exception, match=r"pip install 'lfdoctor\[fleet\]'"):
        scan(options(runs, tmp_path / "runs.parquet"))


def test_an_analyst_ends_with_its_worker(runs):
    """A worker's thread that ends leaves no process behind."""
    pids = []

    def once():
        found = next(iter(__import__("doctor.fleet.scan.discovery", fromlist=["discover"]).discover([str(runs)])))
        worker.work([__import__("msgspec").msgpack.encode(records.ScanTask(found, records.Limits()))])
        pids.append(worker._of_thread.process.process.pid)

    thread = threading.Thread(target=once)
    thread.start()
    thread.join()
    for _ in range(100):
        if not Path(f"/proc/{pids[0]}").exists():
            break
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_nothing_is_imported_from_the_folder_that_a_scan_starts_in(runs, tmp_path):
    """A folder of runs may hold anybody's modules: neither the workers nor their analysts look there for ours."""
    import doctor

    for name in ("msgspec", "joblib", "numpy", "yaml", "sitecustomize"):
        (runs / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\nraise ImportError({name!r})\n")
    (runs / "doctor").mkdir()
    (runs / "doctor" / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write('doctor')\n")
    out, script = tmp_path / "out" / "runs.parquet", tmp_path / "lfdoctor"
    script.write_text("import sys\nfrom doctor.cli.main import main\nsys.exit(main())\n")  # as pip writes it
    done = subprocess.run(
        [sys.executable, str(script), "scan", ".", "--jobs", "2", "-o", str(out)],
        cwd=runs, env={**os.environ, "PYTHONPATH": str(Path(doctor.__file__).parents[1])}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()
    assert sorted(table(out)) == sorted(SOME), done.stderr
