"""MLflow and Trackio: the same run, written by each library itself, is read alike; what is damaged costs only itself.

`data/*.sql` are dumps (`sqlite3 FILE .dump`) of the tables that MLflow 3.17.2 and Trackio 0.43.0 wrote, with the figures of the fixture
lr_too_high-full-eval under the names of transformers' callbacks; the fixture lr_too_high-mlflow is MLflow's file store of the same run.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import doctor

FIXTURES = Path(__file__).parents[2] / "fixtures"
DATA = Path(__file__).parent / "data"
STORE = FIXTURES / "lr_too_high-mlflow" / "mlruns"
RUN = STORE / "955746964321175337" / "3c40c093f3b94226b2a588406ae7d7c1"


def database(dump: str, path: Path) -> Path:
    """A database as the library wrote it."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATA / dump).read_text(encoding="utf-8"))
    return path


@pytest.fixture(params=["store", "mlflow", "trackio"])
def tracked(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same run in each form."""
    if request.param == "store":
        return Path(shutil.copytree(STORE, tmp_path / "mlruns"))
    name = "mlflow.db" if request.param == "mlflow" else "lfdoctor.db"
    return database(f"{request.param}.sql", tmp_path / request.param / name).parent


def test_each_form_holds_the_run(tracked: Path) -> None:
    """Values, steps and options as the trainer logged them (read off the trainer_state.json of the run they were taken from)."""
    run = doctor.read(tracked)
    assert dict(run.series["loss"])[4] == pytest.approx(2.475, abs=1e-4)
    assert dict(run.series["eval_loss"])[60] == pytest.approx(1.8331, abs=1e-3)
    assert (len(run.series["loss"]), run.first_step, run.last_step) == (40, 4, 160)
    assert run.config["learning_rate"] == 0.075
    assert run.config["lr_scheduler_type"] == "constant_with_warmup"
    assert doctor.analyze(tracked).cause == "lr_too_high"


def test_nothing_is_written_beside_a_database(tracked: Path) -> None:
    """No journal, no lock, and the file itself stays as it is."""
    before = {path: path.read_bytes() for path in tracked.rglob("*") if path.is_file()}
    doctor.analyze(tracked)
    assert {path: path.read_bytes() for path in tracked.rglob("*") if path.is_file()} == before


def test_what_a_running_training_wrote_last_is_read(tmp_path: Path) -> None:
    """It is in the write-ahead log until SQLite moves it; the reader takes both."""
    path = database("trackio.sql", tmp_path / "trackio" / "lfdoctor.db")
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        logged = '{"train/loss": "NaN", "train/global_step": 164}'
        row = f"SELECT run_id, '2026-11-30T20:00:00+00:00', run_name, 99, '{logged}' FROM metrics LIMIT 1"
        writer.execute(f"INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) {row}")
        writer.commit()
        assert path.with_name("lfdoctor.db-wal").stat().st_size > 0
        loss = dict(doctor.read(path).series["loss"])
    assert loss[164] != loss[164]


def test_of_several_runs_the_newest_is_read_and_said(tmp_path: Path) -> None:
    """mlflow.sql holds an earlier run with a constant loss; of a file store the run that changed last is the report's."""
    report = doctor.analyze(database("mlflow.sql", tmp_path / "mlflow.db"))
    assert [source.problems for source in report.run.sources] == [["holds 2 runs: the newest, lr-0.075, was read"]]
    store = Path(shutil.copytree(STORE, tmp_path / "mlruns"))
    other = Path(shutil.copytree(RUN, store / "955746964321175337" / "other"))
    (other / "metrics" / "loss").write_text("1790000000000 7.5 3\n", encoding="utf-8")
    (other / "meta.yaml").touch()
    report = doctor.analyze(store)
    assert report.run.path.endswith("other")
    assert len(report.other_runs) == 1


def test_of_several_projects_the_newest_is_read_and_said(tmp_path: Path) -> None:
    """Trackio keeps a database for each project in one folder; they are not one run."""
    newest = database("trackio.sql", tmp_path / "trackio" / "a.db")
    other = database("trackio.sql", tmp_path / "trackio" / "b.db")
    os.utime(other, (1, 1))
    report = doctor.analyze(tmp_path / "trackio")
    assert [run.path for run in report.other_runs] == [str(other)]
    assert {source.path: len(source.problems) for source in report.run.sources} == {str(newest): 0, str(other): 1}


def test_the_values_of_a_run_are_no_files_of_their_own(tmp_path: Path) -> None:
    """A run of MLflow is one source: its parameters are not taken for logs."""
    assert [source.kind for source in doctor.analyze(Path(shutil.copytree(STORE, tmp_path / "mlruns"))).run.sources] == ["mlflow"]


@pytest.mark.parametrize("damage", ["cut", "noise", "other tables"])
@pytest.mark.parametrize("dump", ["mlflow", "trackio"])
def test_a_damaged_database_is_a_problem_of_its_file(damage: str, dump: str, tmp_path: Path) -> None:
    """The rest of the folder is read, and the report says what was not."""
    shutil.copy(FIXTURES / "template_missing_or_unknown-name" / "console.log", tmp_path / "console.log")
    path = tmp_path / "trackio" / "mlflow.db" if dump == "mlflow" else tmp_path / "trackio" / "p.db"
    data = bytearray(database(f"{dump}.sql", path).read_bytes())
    if damage == "other tables":
        path.unlink()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE books (title TEXT)")
    else:
        path.write_bytes(data[: len(data) // 3] if damage == "cut" else data[:100] + bytes(range(256)) * (len(data) // 256))
    report = doctor.analyze(tmp_path)
    assert report.cause == "template_missing_or_unknown"
    (source,) = [source for source in report.run.sources if source.path.endswith(".db")]
    assert source.problems
    assert all("not read" in problem or "damaged" in problem for problem in source.problems)


def test_a_line_that_is_no_point_costs_itself(tmp_path: Path) -> None:
    """A metric's file that was cut in the middle of a line."""
    store = Path(shutil.copytree(STORE, tmp_path / "mlruns"))
    loss = store / RUN.parent.name / RUN.name / "metrics" / "loss"
    loss.write_text(loss.read_text(encoding="utf-8") + "17900000", encoding="utf-8")
    report = doctor.analyze(store)
    assert report.cause == "lr_too_high"
    assert report.run.sources[0].problems == ["metrics/loss: a line that is no point was left out"]
