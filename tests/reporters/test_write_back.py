"""The verdict in the tracker of a run: what each library is given, that nothing of the user's changes, that it is never read back.

The libraries are fakes with the documented calls; where the real one is installed, the last test writes with it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sqlite3
import sys
import types
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import doctor
from doctor.cli.main import main
from doctor.reporters.trackers import note as notes
from doctor.reporters.trackers.note import Note
from tests.readers.test_formats import field, wandb_file, wandb_items

FIXTURES = Path(__file__).parents[2] / "fixtures"
DATA = Path(__file__).parents[1] / "readers" / "data"
MLFLOW_RUN = "3c40c093f3b94226b2a588406ae7d7c1"
SECRET = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"
Calls = list[tuple[Any, ...]]


def tensorboard(folder: Path) -> Path:
    """An event file of a real run."""
    return Path(shutil.copytree(FIXTURES / "healthy-sft-tensorboard", folder / "tensorboard"))


def mlflow(folder: Path) -> Path:
    """MLflow's file store of a real run."""
    return Path(shutil.copytree(FIXTURES / "lr_too_high-mlflow" / "mlruns", folder / "mlruns"))


def database(folder: Path, dump: str, name: str) -> Path:
    """A database as its library wrote it."""
    path = folder / name
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATA / dump).read_text(encoding="utf-8"))
    return path.parent


def mlflow_db(folder: Path) -> Path:
    """MLflow's database of the same run."""
    return database(folder, "mlflow.sql", "db/mlflow.db")


def trackio(folder: Path) -> Path:
    """Trackio's database of the same run."""
    return database(folder, "trackio.sql", "trackio/lfdoctor.db")


def wandb(folder: Path, name: str = "run-20261130_120000-abc") -> Path:
    """A run of W&B with its names: id, entity, project (fields 1 to 3 of RunRecord)."""
    run = field(17, field(1, b"abc") + field(2, b"team") + field(3, b"llms") + field(4, wandb_items({"learning_rate": 1e-4})))
    rows = [field(2, wandb_items({"train/loss": 3 - 0.01 * step, "train/global_step": step})) for step in range(1, 31)]
    path = folder / "wandb" / name / "run-abc.wandb"
    path.parent.mkdir(parents=True)
    path.write_bytes(wandb_file(field(1, 1), run, *rows))
    return folder / "wandb"


def swanlab(folder: Path) -> Path:
    """SwanLab's folder of a real run, `toy`, which a workspace of the user's holds."""
    return Path(shutil.copytree(FIXTURES / "healthy-swanlab" / "swanlog", folder / "swanlog"))


RUNS = {"tensorboard": tensorboard, "mlflow": mlflow, "mlflow.db": mlflow_db, "wandb": wandb, "swanlab": swanlab, "trackio": trackio}


class Fakes:
    """Modules of the trackers that note their calls."""

    def __init__(self) -> None:
        self.calls: Calls = []
        self.fails: set[str] = set()
        self.migrates = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put all of them where an import finds them."""
        for name, module in {**self._tensorboard(), **self._others()}.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setenv("TRACKIO_DIR", "elsewhere")

    def open(self, uri: str) -> None:
        """A newer MLflow adds its tables to a database that it opens."""
        if self.migrates:
            with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
                connection.execute("CREATE TABLE webhooks (id INTEGER)")

    def note(self, name: str, *values: Any) -> None:
        """A call; it raises where its tracker is to fail."""
        if name.partition(".")[0] in self.fails:
            raise OSError(f"401 for the key {SECRET}")
        self.calls.append((name, *values))

    def _tensorboard(self) -> dict[str, types.ModuleType]:
        text, proto, writer = (types.ModuleType(name) for name in ("text", "proto", "writer"))
        text.text_pb = lambda tag, data: (tag, data)
        proto.Event = lambda **values: values

        class EventFileWriter:
            def __init__(fake, logdir: str, filename_suffix: str) -> None:
                fake.path = Path(logdir) / f"events.out.tfevents.1796078288.node0.1.0{filename_suffix}"

            def add_event(fake, event: dict[str, Any]) -> None:
                self.note("tensorboard.event", fake.path.parent.name, event["step"], *event["summary"])
                fake.path.write_bytes(b"\x18" + bytes(40))

            def close(fake) -> None:
                pass

        writer.EventFileWriter = EventFileWriter
        return {
            "tensorboard.plugins.text.summary_v2": text,
            "tensorboard.compat.proto.event_pb2": proto,
            "tensorboard.summary.writer.event_file_writer": writer,
        }

    def _others(self) -> dict[str, types.ModuleType]:
        names = ("mlflow", "wandb", "swanlab", "trackio")
        mlflow, wandb, swanlab, trackio = modules = [types.ModuleType(name) for name in names]
        newest = types.SimpleNamespace(info=types.SimpleNamespace(run_id="newest"))
        mlflow.MlflowClient = lambda tracking_uri: types.SimpleNamespace(
            search_experiments=lambda max_results=1000: self.open(tracking_uri) or [types.SimpleNamespace(experiment_id="1")],
            search_runs=lambda ids, order_by, max_results: [newest] if ids == ["1"] and "start_time DESC" in order_by[0] else [],
            set_tag=lambda *words: self.note("mlflow.tag", tracking_uri.rpartition("/")[2], *words),
        )
        summary = type("Summary", (dict,), {"update": lambda fake: self.note("wandb.summary", dict(fake))})()
        wandb.Api = lambda: types.SimpleNamespace(run=lambda path: self.note("wandb.run", path) or types.SimpleNamespace(summary=summary))
        known = {"me/toy/rr7jpvdb": "gentle-tiger-132"}
        swanlab.Api = lambda: types.SimpleNamespace(username="me", run=lambda path: types.SimpleNamespace(name=known.get(path, "")))
        swanlab.init = lambda *, log_dir, **words: self.note("swanlab.init", words)
        swanlab.Text = lambda text, caption: (text, caption)
        swanlab.log = lambda data, step: self.note("swanlab.log", data, step)
        swanlab.finish = lambda: self.note("swanlab.finish")
        trackio.AlertLevel = types.SimpleNamespace(ERROR="error", WARN="warn", INFO="info")
        trackio.init = lambda project, name, resume, **_: self.note("trackio.init", project, name, resume)
        trackio.alert = lambda title, text, level: self.note("trackio.alert", title, text, level)
        trackio.finish = lambda: self.note("trackio.finish")
        return dict(zip(names, modules, strict=True))


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """All trackers' libraries, none of them real."""
    made = Fakes()
    made.install(monkeypatch)
    return made


def files(folder: Path) -> dict[Path, bytes]:
    """Every file with its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def judged(path: Path) -> dict[str, Any]:
    """The report without the list of what was passed over."""
    report = doctor.analyze(path).to_dict()
    report["run"].pop("skipped")
    return report


def write(path: Path, *more: str) -> int:
    """The exit code of `analyze PATH --write-back`."""
    return main(["analyze", str(path), "-q", "--exit-zero", "--write-back", *more])


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_written_unasked(name: str, fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --yes and without a terminal it says what would be written and where, and changes nothing."""
    path = RUNS[name](tmp_path)
    before = files(tmp_path)
    assert write(path) == 0
    assert fakes.calls == []
    assert files(tmp_path) == before
    assert "nothing was written; add --yes" in capsys.readouterr().err


def given(fakes: Fakes, path: Path) -> Calls:
    """What the libraries are given for a run."""
    assert write(path, "--yes") == 0
    return fakes.calls


def test_tensorboard(fakes: Fakes, tmp_path: Path) -> None:
    """A text of our own at the last step, in the folder of the run's events."""
    ((call, folder, step, tag, text),) = given(fakes, tensorboard(tmp_path))
    assert (call, folder, step, tag) == ("tensorboard.event", "Nov24_03-21-48_node0", 40, "lfdoctor/report")
    assert text.startswith("**lfdoctor: healthy**\n\n### ✅ No problem found.")


@pytest.mark.parametrize(("name", "uri", "run"), [("mlflow", "mlruns", MLFLOW_RUN), ("mlflow.db", "mlflow.db", "newest")])
def test_mlflow(name: str, uri: str, run: str, fakes: Fakes, tmp_path: Path) -> None:
    """Three tags of the run that was read: by its folder's name, or the newest of the database."""
    calls = given(fakes, RUNS[name](tmp_path))
    assert [call[:4] for call in calls] == [("mlflow.tag", uri, run, f"lfdoctor.{key}") for key in ("verdict", "cause", "report")]
    assert [call[4] for call in calls[:2]] == ["unhealthy", "lr_too_high"]
    assert "`learning_rate: 0.075 → " in calls[2][4]


def test_a_database_of_another_mlflow(fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the installed MLflow would change the tables, the database is left as it is; what to run first is told."""
    fakes.migrates = True
    path = mlflow_db(tmp_path)
    before = files(tmp_path)
    assert write(path, "--yes") == 2
    assert files(tmp_path) == before
    assert fakes.calls == []
    assert f"first: mlflow db upgrade sqlite:///{path}/mlflow.db" in capsys.readouterr().err


def test_wandb(fakes: Fakes, tmp_path: Path) -> None:
    """Entries of the run's summary, and nothing else of it."""
    (asked, (call, summary)) = given(fakes, wandb(tmp_path))
    assert asked == ("wandb.run", "team/llms/abc")
    assert call == "wandb.summary"
    assert summary.keys() == {"lfdoctor.verdict", "lfdoctor.cause", "lfdoctor.report"}


def test_a_run_of_wandb_that_was_not_sent(fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An offline run has no page: the command that sends it is told; once wandb has marked it as sent, it is written."""
    path = wandb(tmp_path, "offline-run-20261130_120000-abc")
    assert write(path, "--yes") == 2
    assert f"first: wandb sync {path}/offline-run-20261130_120000-abc" in capsys.readouterr().err
    assert fakes.calls == []
    (path / "offline-run-20261130_120000-abc" / "run-abc.wandb.synced").touch()
    assert [call[0] for call in given(fakes, path)] == ["wandb.run", "wandb.summary"]


def test_swanlab(fakes: Fakes, tmp_path: Path) -> None:
    """A text chart at the last step of the run, which must exist on the server."""
    started, (_, chart, step), ended = given(fakes, swanlab(tmp_path))
    where = {"workspace": "me", "project": "toy", "id": "rr7jpvdb", "resume": "must", "mode": "online"}
    assert (started, ended) == (("swanlab.init", where), ("swanlab.finish",))
    assert (chart.keys(), step) == ({"lfdoctor/report"}, 40)


def test_a_run_of_swanlab_that_is_on_no_server(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A local run is not created anew there."""
    nothing = types.SimpleNamespace(username="somebody", run=lambda path: types.SimpleNamespace(name=""))
    monkeypatch.setattr(sys.modules["swanlab"], "Api", lambda: nothing, raising=False)
    assert write(swanlab(tmp_path), "--yes") == 2
    assert "not on the server of SwanLab yet" in capsys.readouterr().err
    assert fakes.calls == []


def test_trackio(fakes: Fakes, tmp_path: Path) -> None:
    """An alert in the run, which is resumed for it and closed; it is sought where the database lies."""
    path = trackio(tmp_path)
    opened, (call, title, text, level), closed = given(fakes, path)
    assert (opened[:2], opened[3], closed) == (("trackio.init", "lfdoctor"), "must", ("trackio.finish",))
    assert (call, title, level) == ("trackio.alert", "lfdoctor: unhealthy, lr_too_high", "warn")
    assert "`learning_rate: 0.075 → " in text
    assert os.environ["TRACKIO_DIR"] == str(path)


def test_what_was_written_is_no_data_of_the_run(fakes: Fakes, tmp_path: Path) -> None:
    """An event file and tags of ours leave the report as it was, and the run's own files byte for byte."""
    events, store = tensorboard(tmp_path), mlflow(tmp_path)
    before, reports = files(tmp_path), [judged(events), judged(store)]
    given(fakes, events)
    for _, _, run, key, value in given(fakes, store)[1:]:
        next(store.rglob(run)).joinpath("tags").mkdir(exist_ok=True)
        next(store.rglob(run)).joinpath("tags", key).write_text(value, encoding="utf-8")
    added = files(tmp_path).keys() - before.keys()
    assert sorted(path.suffix for path in added) == [".cause", ".lfdoctor", ".report", ".verdict"]
    assert {path: data for path, data in files(tmp_path).items() if path in before} == before
    assert [judged(events), judged(store)] == reports


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The pip command is named, in the user's language; the exit code is 2."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert write(mlflow(tmp_path), "--yes", "--lang", "ko") == 2
    assert "mlflow 패키지가 필요합니다: pip install mlflow" in capsys.readouterr().err


def test_one_tracker_that_fails(fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other one is written all the same; what the server said is told with its secrets masked."""
    fakes.fails = {"tensorboard"}
    folder = tensorboard(tmp_path)
    mlflow(folder)
    assert write(folder, "--yes") == 2
    assert [call[0] for call in fakes.calls] == ["mlflow.tag"] * 3
    told = capsys.readouterr().err
    assert "not written: OSError: 401 for the key" in told
    assert SECRET not in told


def test_a_run_without_a_tracker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to write to: an error that says what is looked for."""
    shutil.copy(FIXTURES / "healthy-sft" / "run" / "trainer_log.jsonl", tmp_path)
    assert write(tmp_path, "--yes") == 2
    assert "none of TensorBoard, MLflow, W&B, SwanLab or Trackio" in capsys.readouterr().err


def test_a_note_is_short_and_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in the log is masked; folded parts are left out; a long text ends with a mark."""
    (tmp_path / "console.log").write_text(f"HF_TOKEN={SECRET}\nValueError: token {SECRET} is not valid for this model\n", encoding="utf-8")
    report = doctor.analyze(tmp_path)
    note = Note.of(report)
    assert (note.verdict, note.title) == (report.verdict, f"lfdoctor: {report.verdict}, {report.cause or 'none'}".removesuffix(", none"))
    assert SECRET not in note.text
    assert "is not valid for this model" in note.text
    assert "<details>" not in note.text
    monkeypatch.setattr(notes, "MAX_CHARS", 200)
    short = Note.of(report).text
    assert len(short) == 200
    assert short.endswith("\n\n[...]")


def real_mlflow(folder: Path) -> Path:
    """A database that the installed MLflow has written."""
    import mlflow as real

    path = folder / "db" / "mlflow.db"
    path.parent.mkdir()
    client = real.MlflowClient(tracking_uri=f"sqlite:///{path}")
    run = client.create_run(client.create_experiment("lf")).info.run_id
    for step in range(1, 31):
        client.log_metric(run, "loss", 3 - 0.05 * step, step=step)
    client.set_tag(run, "mlflow.note.content", "the user's own words")
    client.set_terminated(run)
    return path.parent


REAL = {"tensorboard": tensorboard, "mlflow": real_mlflow, "trackio": trackio}


@pytest.mark.filterwarnings("ignore")  # of libraries among themselves
@pytest.mark.parametrize("name", [name for name in REAL if importlib.util.find_spec(name)])
def test_the_real_library(name: str, tmp_path: Path) -> None:
    """Where it is installed: it takes the note, and the report stays as it was."""
    path = REAL[name](tmp_path)
    before = judged(path)
    assert write(path, "--yes") == 0
    after = judged(path)
    for source in (*before["run"]["sources"], *after["run"]["sources"]):
        source.pop("bytes")
    assert after == before
    written = b"".join(files(tmp_path).values())
    assert b"lfdoctor: " in written or b"lfdoctor.verdict" in written


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not importlib.util.find_spec("mlflow"), reason="MLflow is not installed")
def test_the_real_mlflow_leaves_an_older_database_alone(tmp_path: Path) -> None:
    """The tables that MLflow 3.17 needs and this database lacks are not made."""
    path = mlflow_db(tmp_path)
    before = files(tmp_path)
    assert write(path, "--yes") == 2
    assert files(tmp_path) == before
