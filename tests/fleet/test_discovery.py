"""Which folders and logs are runs, what belongs to them, and when a run counts as changed."""

from __future__ import annotations

import os

import pytest

from doctor.errors import DoctorError
from doctor.fleet.scan.discovery import belongs, discover


def make(root, *paths):
    for path in paths:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{path}\n", encoding="utf-8")


def found(root):
    """Names of the runs below `root` -> the files that belong to them."""
    cut = len(str(root)) + 1
    return {one.path[cut:]: sorted(path[cut:] for path, _ in one.files) for one in discover([str(root)])}


def test_checkpoints_and_event_files_belong_to_their_run(tmp_path):
    """One run, however many trainer states and event folders it holds."""
    make(tmp_path, "a/trainer_log.jsonl", "a/checkpoint-10/trainer_state.json", "a/checkpoint-9/trainer_state.json")
    make(tmp_path, "a/runs/Nov1/events.out.tfevents.1.host.1")
    assert list(found(tmp_path)) == ["a"]
    assert len(found(tmp_path)["a"]) == 4


def test_a_console_beside_one_output_folder_is_the_same_run(tmp_path):
    """console.log, train.yaml and the output folder below them are one run, named after the folder that holds all."""
    make(tmp_path, "job/console.log", "job/train.yaml", "job/out/trainer_log.jsonl")
    assert found(tmp_path) == {"job": ["job/console.log", "job/out/trainer_log.jsonl", "job/train.yaml"]}


def test_runs_in_runs_are_told_apart(tmp_path):
    """An output folder inside another one is a run of its own, and the outer one does not read it."""
    make(tmp_path, "a/trainer_log.jsonl", "a/second/trainer_log.jsonl")
    outer = next(one for one in discover([str(tmp_path)]) if one.path.endswith("a"))
    assert list(found(tmp_path)) == ["a", "a/second"]
    assert outer.paths == [str(tmp_path / "a" / "trainer_log.jsonl")]


def test_consoles_go_to_the_run_whose_name_they_bear(tmp_path):
    """Beside several runs, and in a log folder beside them."""
    make(tmp_path, "lr1/trainer_log.jsonl", "lr2/trainer_log.jsonl", "lr1.log", "logs/lr2.err", "logs/lr2.out", "lost.log")
    assert found(tmp_path) == {
        "lr1": ["lr1.log", "lr1/trainer_log.jsonl"],
        "lr2": ["logs/lr2.err", "logs/lr2.out", "lr2/trainer_log.jsonl"],
        "lost": ["lost.log"],
    }


def test_a_folder_of_consoles_holds_one_run_a_job(tmp_path):
    """Standard output, standard error and ranks of one job are one run."""
    make(tmp_path, "slurm/job-1.out", "slurm/job-1.err", "slurm/job-2.out", "torch/rank0.log", "torch/rank1.log")
    assert sorted(found(tmp_path)) == ["slurm/job-1", "slurm/job-2", "torch"]


def test_what_cannot_be_looked_at_is_told(tmp_path):
    """A pipe in place of a console and a folder that links to itself are problems of their run, not the end of the walk."""
    make(tmp_path, "a/trainer_log.jsonl", "b/readme.txt")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "b" / "console.log")
    by_name = {one.path.rpartition("/")[2]: one for one in discover([str(tmp_path)])}
    assert "loop" in by_name["a"].problems[0]
    assert "console.log" in by_name["b"].problems[0]
    assert by_name["b"].paths == []


def test_the_signature_follows_size_time_and_both_ends(tmp_path):
    """Other bytes at an end of a file change it even where size and time of change are the same; the middle needs another time."""
    make(tmp_path, "a/trainer_log.jsonl")
    path = tmp_path / "a" / "trainer_log.jsonl"

    def signature(data, time):
        path.write_bytes(data)
        os.utime(path, ns=(time, time))
        return next(discover([str(tmp_path)])).signature

    body = b"x" * 20_000
    first = signature(b"a" + body, 10**18)
    assert signature(b"a" + body, 10**18) == first
    assert signature(b"b" + body, 10**18) != first
    assert signature(b"a" + body[:-1] + b"y", 10**18) != first
    assert signature(b"a" + body, 10**18 + 1) != first
    assert signature(b"a" + body + b"x", 10**18) != first


def test_any_storage_of_fsspec_is_walked(tmp_path):
    """The same runs, by URL."""
    make(tmp_path, "a/trainer_log.jsonl", "a/checkpoint-1/trainer_state.json", "b/console.log")
    names = sorted(one.path for one in discover([f"file://{tmp_path}"]))
    assert names == [f"file://{tmp_path}/a", f"file://{tmp_path}/b"]


def test_a_root_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DoctorError, match="no such"):
        list(discover([str(tmp_path / "nowhere")]))


def test_what_a_file_is_to_a_run_is_what_the_readers_say(tmp_path):
    """Every name that a reader of outputs claims makes its folder a run; a console does not, a dataset or a script neither."""
    names = ("trainer_log.jsonl.gz", "run-a1.wandb", "wandb-metadata.json", "all_results.json", "events.out.tfevents.1.host.1")
    assert {name: belongs(name) for name in names} == dict.fromkeys(names, "output")
    assert {belongs(name) for name in ("job-7.out", "std.err.2", "nohup.out", "train.log.gz", "running_log.txt", "train.txt")} == {
        "console"
    }
    assert {belongs(name) for name in ("train.yaml", "ds_z3_config.json", "run.sh", "README.md")} == {"settings"}
    assert {belongs(name) for name in ("model.safetensors", "alpaca.json", "train.py", "tokenizer.json", "notes.txt")} == {""}
    make(tmp_path, *(f"{number}/{name}" for number, name in enumerate(names)))
    assert sorted(found(tmp_path)) == sorted(map(str, range(len(names))))
