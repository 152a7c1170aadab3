"""The order of samples: shards, steps and epochs with a drawn order given; what is not known is refused. Against training: tests/lab."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from doctor.cli.main import main
from doctor.dataset import order, step_rows
from doctor.dataset.findings import Place
from doctor.dataset.order import VERSIONS, Schedule, Unknown, batches_of, schedule_of, total_steps, train_rows
from doctor.dataset.step_output import to_json, to_text
from doctor.dataset.step_rows import Asked, StepReport, rows_of_steps
from tests.dataset.sets import good, lines, put


@pytest.fixture(autouse=True)
def backwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In place of torch's permutation the samples from the last to the first; the seeds that were asked for."""
    seeds: list[int] = []

    def permutation(count: int, seed: int) -> list[int]:
        seeds.append(seed)
        return list(range(count))[::-1]

    monkeypatch.setattr(order, "permutation", permutation)
    return seeds


def drawn(step: int, samples: int, **options: Any) -> list[tuple[int, int, list[int]]]:
    return [(one.rank, one.number, one.samples) for one in batches_of(step, samples, Schedule(**options))]


def test_a_step_takes_the_next_samples_of_the_order():
    """One process, two samples a batch: the last step of an epoch has what is left."""
    assert drawn(1, 5, batch=2) == [(0, 1, [4, 3])]
    assert drawn(3, 5, batch=2) == [(0, 1, [0])]


def test_each_epoch_draws_with_the_next_seed(backwards):
    """Step 4 of 3 a epoch is the first of the second epoch; data_seed replaces seed."""
    assert drawn(4, 5, batch=2, shuffle_seed=7) == [(0, 1, [4, 3])]
    assert backwards == [8]
    assert schedule_of({"seed": 3, "data_seed": 5}, 1).shuffle_seed == 5
    assert schedule_of({"seed": 3}, 1).shuffle_seed == 3


def test_accumulation_takes_several_batches_and_fewer_at_the_end_of_an_epoch():
    """Seven samples, two a batch, three batches a step: three and one."""
    assert drawn(1, 7, batch=2, accumulation=3) == [(0, 1, [6, 5]), (0, 2, [4, 3]), (0, 3, [2, 1])]
    assert drawn(2, 7, batch=2, accumulation=3) == [(0, 1, [0])]


def test_ranks_take_batches_in_turn_and_the_last_round_is_filled_from_the_beginning():
    """Five samples for two processes of two: the second round lacks three."""
    assert drawn(1, 5, batch=2, world=2) == [(0, 1, [4, 3]), (1, 1, [2, 1])]
    assert drawn(2, 5, batch=2, world=2) == [(0, 1, [0, 4]), (1, 1, [3, 2])]
    assert drawn(1, 1, batch=2, world=2) == [(0, 1, [0, 0]), (1, 1, [0, 0])]


def test_drop_last_leaves_out_what_fills_no_round():
    """Five samples for two processes: one round; with one process two batches."""
    assert total_steps(5, Schedule(batch=2, world=2, drop_last=True, epochs=1)) == 1
    assert drawn(2, 5, batch=2, drop_last=True) == [(0, 1, [2, 1])]
    with pytest.raises(Unknown, match="empty"):
        drawn(1, 3, batch=2, world=2, drop_last=True)


def test_without_shuffling_the_order_is_that_of_the_file(backwards):
    """disable_shuffling asks no permutation."""
    assert drawn(2, 5, batch=2, shuffled=False) == [(0, 1, [2, 3])]
    assert backwards == []


@pytest.mark.parametrize(("options", "last"), [({}, 9), ({"epochs": 1.5}, 5), ({"max_steps": 20}, 20), ({"accumulation": 2}, 6)])
def test_a_step_after_the_last_is_refused(options, last):
    """Three steps an epoch, three epochs unless the options say otherwise."""
    assert drawn(last, 5, batch=2, **options)
    with pytest.raises(Unknown) as refused:
        drawn(last + 1, 5, batch=2, **options)
    assert (refused.value.reason, refused.value.detail) == ("no_step", str(last))


def test_the_evaluation_takes_the_first_of_numpys_permutation():
    """Written down from numpy: default_rng(42).permutation(10) is [5 6 0 7 3 2 4 9 1 8]; a share is rounded up."""
    assert train_rows(10, Schedule(val_size=0.11)) == [0, 7, 3, 2, 4, 9, 1, 8]
    assert train_rows(10, Schedule(val_size=7)) == [9, 1, 8]
    assert list(train_rows(3, Schedule())) == [0, 1, 2]


CONFIG = {"dataset": "one", "stage": "sft", "per_device_train_batch_size": 2, "template": "qwen", "disable_shuffling": True}


def places(folder: Path, steps: Iterable[int] = (1, 1), world: int = 1, **change: Any) -> list[tuple[int, int, str, int]]:
    first, last = steps
    report = rows_of_steps({**CONFIG, **change}, folder, Asked(first, last, world), installed=VERSIONS)
    return [(row.step, row.rank, row.dataset, row.place.line) for row in report.rows]


def test_left_out_rows_do_not_count(tmp_path):
    """A row without an answer is in no batch, and max_samples counts it all the same."""
    put(tmp_path, "one.jsonl", lines(good(1), good(2, output=None), good(3), good(4), good(5)))
    assert places(tmp_path, (1, 2)) == [(1, 0, "one", 1), (1, 0, "one", 3), (2, 0, "one", 4), (2, 0, "one", 5)]
    assert places(tmp_path, (2, 2), max_samples=4) == [(2, 0, "one", 4)]


def test_sets_follow_each_other(tmp_path):
    """max_samples holds for each set; the second process has the second batch."""
    put(tmp_path, "one.jsonl", lines(good(1), good(2), good(3), good(4)))
    put(tmp_path, "two.jsonl", lines(good(5), good(6)))
    found = places(tmp_path, (1, 1), 2, dataset="two,one", max_samples=3)
    assert found == [(1, 0, "two", 1), (1, 0, "two", 2), (1, 1, "one", 1), (1, 1, "one", 2)]


@pytest.mark.parametrize(
    "change",
    [
        {"streaming": True}, {"packing": True}, {"neat_packing": True}, {"stage": "pt"}, {"stage": "ppo"}, {"group_by_length": True},
        {"train_sampling_strategy": "group_by_length"}, {"tokenized_path": "x"}, {"mix_strategy": "interleave_under"},
        {"deepspeed": {"tensor_parallel": {"autotp_size": 2}}}, {"deepspeed": '{"sequence_parallel_size": 4}'},
        {"deepspeed": {"curriculum_learning": {"enabled": True}}}, {"fsdp": "full_shard", "fsdp_config": {"xla": True}},
        {"ignore_data_skip": True}, {"val_size": 1}, {"seed": "a"}, {"per_device_train_batch_size": 0}, {"val_size": 9},
    ],
    ids=str,
)  # fmt: skip
def test_what_was_not_proven_is_refused(tmp_path, change):
    """No row is named where the order was never compared."""
    put(tmp_path, "one.jsonl", lines(good(1), good(2), good(3)))
    put(tmp_path, "two.jsonl", lines(good(4)))
    with pytest.raises(Unknown) as refused:
        places(tmp_path, dataset="one,two", **change)
    assert refused.value.reason == "option"


@pytest.mark.parametrize(
    "change",
    [
        {"deepspeed": {"zero_optimization": {"stage": 3}, "tensor_parallel": {"autotp_size": 1}}},
        {"deepspeed": {"curriculum_learning": {"enabled": False}}},
        {"fsdp": "full_shard auto_wrap", "fsdp_config": {"fsdp_version": 2, "xla": False}},
        {"fsdp": "full_shard", "fsdp_config": "fsdp.json"},
        {"deepspeed": "ds.json"},
    ],
    ids=str,
)
def test_sharding_leaves_the_order_as_it_is(tmp_path, change):
    """DeepSpeed and FSDP, written into the configuration or into a file: the second process has the second batch."""
    put(tmp_path, "one.jsonl", lines(good(1), good(2), good(3), good(4)))
    for name in ("ds.json", "fsdp.json"):
        (tmp_path / name).write_text('{"zero_optimization": {"stage": 2}}')
    assert places(tmp_path, (1, 1), 2, **change) == [(1, 0, "one", 1), (1, 0, "one", 2), (1, 1, "one", 3), (1, 1, "one", 4)]


@pytest.mark.parametrize("written", [None, "{", "[]", "\xff\xfe"])
@pytest.mark.parametrize("option", ["deepspeed", "fsdp_config"])
def test_a_sharding_file_that_cannot_be_read_leaves_the_order_unknown(tmp_path, option, written):
    """It may set tensor parallelism: missing, broken, no object."""
    put(tmp_path, "one.jsonl", lines(good(1)))
    if written is not None:
        (tmp_path / "ds.json").write_bytes(written.encode("latin-1"))
    with pytest.raises(Unknown) as refused:
        places(tmp_path, **{option: "ds.json"})
    assert (refused.value.reason, refused.value.detail) == ("no_file", f"{option}: ds.json")


@pytest.mark.parametrize("package", VERSIONS)
@pytest.mark.parametrize("release", ["0.0.1", None])
def test_other_releases_are_refused(tmp_path, package, release):
    """Each of the four packages, another release or none."""
    put(tmp_path, "one.jsonl", lines(good(1)))
    with pytest.raises(Unknown, match="version"):
        rows_of_steps(CONFIG, tmp_path, Asked(1, 1), installed={**VERSIONS, package: release})


@pytest.mark.parametrize("bad", ["{", good(2, instruction=7)], ids=["broken", "no text"])
def test_data_on_which_the_training_stops_is_refused(tmp_path, bad):
    """The run cannot have had this data: its rows are not those of the run."""
    put(tmp_path, "one.jsonl", lines(good(1), bad))
    with pytest.raises(Unknown) as refused:
        places(tmp_path)
    assert (refused.value.reason, refused.value.detail) == ("would_stop", f"{tmp_path / 'data' / 'one.jsonl'}:2")


def test_samples_drawn_by_numpys_global_state_are_refused(tmp_path):
    """num_samples of dataset_info.json."""
    put(tmp_path, "one.jsonl", lines(good(1)), num_samples=1)
    with pytest.raises(Unknown, match="option"):
        places(tmp_path)


REPORT = StepReport(
    "train.yaml", (4, 5), 2,
    [step_rows.StepRow(4, 0, 1, 2, "one", Place("/w/data/one.jsonl", 12, 12), 900),
     step_rows.StepRow(5, 0, 0, 1, "one", Place("/w/data/one.parquet", 0, 3))],
    40, 5, 15, "no_tokenizer",
)  # fmt: skip


def test_the_page_tells_places_lengths_and_what_to_compare():
    """File and line, tokens where they are known, rank and batch, and the two figures of the run's log."""
    assert to_text(REPORT, "en", Path("/w")) == (
        "Samples of step 4-5 of train.yaml on 2 processes\n"
        "  step 4  data/one.jsonl:12  900 tokens  rank 1, batch 2\n"
        "  step 5  data/one.parquet row 3  rank 0, batch 1\n\n"
        "Lengths not known: tokenizer.json of the model is not on this machine.\n\n"
        "Right if the run's log says: Num examples = 40, Total optimization steps = 15; and if data and options are still the same.\n"
    )
    assert to_text(REPORT, "ko", Path("/w"), markdown=True).startswith(
        "# train.yaml의 4-5 스텝에서 쓴 샘플(프로세스 2개)\n\n* 4 스텝  data/one.jsonl:12"
    )
    assert '"total_steps": 15' in to_json(REPORT)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of three samples in an environment with the proven releases."""
    monkeypatch.setattr(order, "releases", lambda: dict(VERSIONS))
    put(tmp_path, "one.jsonl", lines(good(1), good(2), good(3)))
    path = tmp_path / "train.yaml"
    path.write_text("stage: sft\ndo_train: true\nmodel_name_or_path: nobody/none\ntemplate: qwen\ndataset: one\noutput_dir: out\n")
    return path


def test_the_command_prints_the_samples(config, capsys):
    """lfdoctor data --step: here the samples from the last to the first, all in one batch."""
    assert main(["data", str(config), "--folder", str(config.parent), "--step", "2"]) == 0
    page = capsys.readouterr().out
    assert [line.split()[0] for line in page.splitlines()[1:4]] == ["data/one.jsonl:3", "data/one.jsonl:2", "data/one.jsonl:1"]
    assert "Num examples = 3, Total optimization steps = 3" in page


@pytest.mark.parametrize("step", ["0", "4", "x", "3-1", "1-101", "1-", "-1"])
def test_the_command_refuses_other_steps(config, capsys, step):
    """One line on stderr, exit code 2, no row."""
    assert main(["data", str(config), "--folder", str(config.parent), f"--step={step}"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("lfdoctor: ")


def test_the_permutation_is_torchs(monkeypatch):
    """Written down from torch 2.13: randperm with the seeds 42, 43, 2**32 + 42 and one of five digits."""
    monkeypatch.undo()
    assert order.permutation(10, 42) == order.permutation(10, 2**32 + 42) == [2, 6, 1, 8, 4, 5, 0, 9, 3, 7]
    assert order.permutation(10, 43) == [8, 4, 9, 0, 5, 1, 6, 7, 2, 3]
    assert order.permutation(1, 0) == [0]
    assert order.permutation(1000, 65521)[-5:] == [513, 555, 569, 519, 852]
