"""A data set of the hub is read from the caches of this machine, and only where it is certain which files they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.dataset.sets import good, lines, put, seen

HUB = "datasets--owner--name"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and a data set that names the hub."""
    place = tmp_path / "hf"
    monkeypatch.setenv("HF_HOME", str(place))
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "USE_MODELSCOPE_HUB", "USE_OPENMIND_HUB"):
        monkeypatch.delenv(name, raising=False)
    put(tmp_path, "unused.jsonl", lines(good(1)))
    entry(tmp_path, hf_hub_url="owner/name")
    return place


def entry(folder: Path, **given: str) -> None:
    (folder / "data" / "dataset_info.json").write_text(json.dumps({"one": given}))


def snapshot(home: Path, **files: str) -> Path:
    """A repository with these files at `main`, as huggingface_hub lays it out."""
    base = home / "hub" / HUB
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text("abc123")
    place = base / "snapshots" / "abc123"
    for name, text in files.items():
        file = place / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return place


def arrow(home: Path, place: str, answers: list[str], time: int = 1) -> None:
    library = pytest.importorskip("pyarrow")
    file = home / "datasets" / "owner___name" / place
    file.parent.mkdir(parents=True, exist_ok=True)
    table = library.table(
        {"instruction": [f"q{number}" for number in range(len(answers))], "input": [""] * len(answers), "output": answers}
    )
    with library.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (file.parent / "dataset_info.json").write_text("{}")
    os.utime(file.parent / "dataset_info.json", (time, time))


def read(folder: Path, **config: str) -> tuple[str, int]:
    (one,) = seen(folder, **config).datasets
    return one.problem, one.rows


def test_nothing_in_the_cache_is_not_on_this_machine(tmp_path, home):
    """No download."""
    assert read(tmp_path) == ("on_a_hub", 0)


def test_the_arrow_files_of_the_last_load_are_read(tmp_path, home):
    """Of two versions the later one; both parts of a split; another split is not taken."""
    arrow(home, "default/0.0.0/old/name-train.arrow", ["a"], time=1)
    arrow(home, "default/0.0.0/new/name-train-00000-of-00002.arrow", ["a", ""], time=2)
    arrow(home, "default/0.0.0/new/name-train-00001-of-00002.arrow", ["c"], time=2)
    arrow(home, "default/0.0.0/new/name-test.arrow", ["d"] * 9, time=2)
    report = seen(tmp_path)
    assert [(one.problem, one.rows) for one in report.datasets] == [("", 3)]
    (empty,) = [finding for finding in report.findings if finding.kind == "empty_answer"]
    assert (Path(empty.places[0].file).name, empty.places[0].row) == ("name-train-00000-of-00002.arrow", 2)


def test_a_part_that_is_missing_is_not_read(tmp_path, home):
    """One of two parts."""
    arrow(home, "default/0.0.0/new/name-train-00000-of-00002.arrow", ["a"])
    assert read(tmp_path) == ("on_a_hub", 0)


def test_of_several_subsets_only_the_named_one_is_read(tmp_path, home):
    """Without a name it is not certain which one."""
    arrow(home, "en/0.0.0/x/name-train.arrow", ["a"])
    arrow(home, "ko/0.0.0/x/name-train.arrow", ["a", "b"])
    assert read(tmp_path) == ("on_a_hub", 0)
    entry(tmp_path, hf_hub_url="owner/name", subset="ko")
    assert read(tmp_path) == ("", 2)


def test_the_files_of_the_repository_are_read(tmp_path, home):
    """Those of the split, where names tell splits apart."""
    snapshot(
        home, data__train_dot_jsonl=lines(good(1), good(2)), data__test_dot_jsonl=lines(good(3)), README_dot_md="---\nlicense: mit\n---\n"
    )
    assert read(tmp_path) == ("", 2)


@pytest.mark.parametrize("card", ["---\nconfigs:\n- config_name: a\n---\n", "---\nlicense: mit\ndataset_info:\n  features: []\n---\n"])
def test_a_card_that_names_configurations_leaves_it_open(tmp_path, home, card):
    """They name other files."""
    snapshot(home, a_dot_jsonl=lines(good(1)), README_dot_md=card)
    assert read(tmp_path) == ("on_a_hub", 0)


def test_files_of_several_types_leave_it_open(tmp_path, home):
    """load_dataset takes the most frequent type."""
    snapshot(home, a_dot_jsonl=lines(good(1)), b_dot_csv="instruction,input,output\na,b,c\n")
    assert read(tmp_path) == ("on_a_hub", 0)


@pytest.mark.parametrize("name", ["../../etc/x", "owner/..", "name", "a/b/c", "owner/na me"])
def test_a_name_that_is_none_is_not_followed(tmp_path, home, name):
    """No path out of the cache."""
    snapshot(home, a_dot_jsonl=lines(good(1)))
    entry(tmp_path, hf_hub_url=name)
    assert read(tmp_path) == ("on_a_hub", 0)


def test_a_commit_that_leads_out_is_not_followed(tmp_path, home):
    """refs/main of a hostile cache."""
    place = snapshot(home, a_dot_jsonl=lines(good(1)))
    (place.parents[1] / "refs" / "main").write_text("../../../elsewhere")
    assert read(tmp_path) == ("on_a_hub", 0)


def scope(root: Path, place: str, **files: str) -> None:
    """A repository with these files in ModelScope's cache."""
    for name, text in files.items():
        file = root / "datasets" / place / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_the_hub_that_llamafactory_asks(tmp_path, home, monkeypatch):
    """data/parser.py: Hugging Face where the entry names it, ModelScope where it is alone or asked for by its variable."""
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    snapshot(home, a_dot_jsonl=lines(good(1)))
    scope(tmp_path / "ms", "other/na___me", data__train_dot_jsonl=lines(good(1), good(2)), dataset_infos_dot_json="{}")
    entry(tmp_path, hf_hub_url="owner/name", ms_hub_url="other/na.me")
    assert read(tmp_path) == ("", 1)
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    assert read(tmp_path) == ("", 2)
    entry(tmp_path, hf_hub_url="owner/name")
    assert read(tmp_path) == ("", 1)
    assert read(tmp_path, dataset_dir="ONLINE", dataset="owner/name") == ("on_a_hub", 0)
    assert read(tmp_path, dataset_dir="ONLINE", dataset="other/na.me") == ("", 2)
    monkeypatch.delenv("USE_MODELSCOPE_HUB")
    entry(tmp_path, ms_hub_url="other/na.me")
    assert read(tmp_path) == ("", 2)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("root", "place"),
    [
        (".cache/modelscope/hub", "owner/name"),
        (".cache/modelscope", "owner--name/snapshots/master"),
        (".cache/modelscope", "owner/name"),
        ("given", "owner--name/snapshots/main"),
    ],
)
def test_where_modelscope_keeps_repositories(tmp_path, monkeypatch, root, place):
    """Old and new layout, without a variable below the home; `given` is the option cache_dir."""
    monkeypatch.delenv("MODELSCOPE_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    scope(tmp_path / root, place, train_dot_jsonl=lines(good(1)))
    entry(tmp_path, ms_hub_url="owner/name")
    assert read(tmp_path, **({"cache_dir": str(tmp_path / root / "datasets")} if root == "given" else {})) == ("", 1)


@pytest.mark.usefixtures("home")
def test_modelscope_writes_arrow_files_as_datasets_does(tmp_path, monkeypatch):
    """MsDataset.load calls load_dataset with its own cache; what it wrote stands before files downloaded by hand."""
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    arrow(tmp_path / "ms", "default/0.0.0/x/name-train.arrow", ["a", "b", "c"])
    scope(tmp_path / "ms", "owner/name", train_dot_jsonl=lines(good(1)))
    entry(tmp_path, ms_hub_url="owner/name")
    assert read(tmp_path) == ("", 3)


@pytest.mark.usefixtures("home")
def test_openmind_is_not_looked_for(tmp_path, monkeypatch):
    """Its cache is not known here; a card that names configurations leaves ModelScope's files open too."""
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    scope(tmp_path / "ms", "owner/name", a_dot_jsonl=lines(good(1)), README_dot_md="---\nconfigs:\n- config_name: a\n---\n")
    entry(tmp_path, om_hub_url="owner/name")
    assert read(tmp_path) == ("on_a_hub", 0)
    entry(tmp_path, ms_hub_url="owner/name")
    assert read(tmp_path) == ("on_a_hub", 0)


def test_online_names_are_repositories(tmp_path, home):
    """dataset_dir: ONLINE."""
    snapshot(home, a_dot_jsonl=lines(good(1), good(2)))
    assert read(tmp_path, dataset_dir="ONLINE", dataset="owner/name") == ("", 2)
