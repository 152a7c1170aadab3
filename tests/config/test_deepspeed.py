"""One reading of `deepspeed:`: rules and the memory model see the same stage, offload and overlap in every form of the option."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctor.config import deepspeed
from doctor.config.options import effective
from doctor.memory import setup
from doctor.memory.shapes import Shape

SHAPE = Shape(type="llama", hidden=64, layers=2, heads=4, kv_heads=4, head_dim=16, intermediate=128, vocab=1000, tied=False)
DEVICES = st.sampled_from([{"device": "cpu"}, {"device": "nvme"}, {"device": "none"}, {}, None, "cpu"])
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "zero_optimization": st.fixed_dictionaries(
            {},
            optional={
                "stage": st.sampled_from([0, 1, 2, 3, "3", 2.0, None, "auto", True, 10**400]),
                "overlap_comm": st.sampled_from([True, False, "auto", None]),
                "offload_optimizer": DEVICES,
                "offload_param": DEVICES,
                "reduce_bucket_size": st.sampled_from([1e8, "auto", 10**400, float("nan")]),
            },
        )
        | st.sampled_from([None, [], "x"]),
        "train_batch_size": st.just("auto"),
    },
)
NAMES = st.sampled_from(["ds_z0_config.json", "ds_z2_config.json", "a/zero3.json", "ds_z3_offload_config.json", "stage-1.json", "my.json"])
FACTS = st.fixed_dictionaries({}, optional={"deepspeed.stage": st.sampled_from([0, 1, 2, 3]), "deepspeed.config": SETTINGS})


@given(SETTINGS, NAMES, FACTS, st.sampled_from(["mapping", "text", "file", "name", "broken"]))
def test_options_and_estimator_agree_on_every_form(tmp_path_factory, settings, name, facts, form):
    """Mapping, JSON text, file, missing file, broken text, with and without what the run told: one answer."""
    folder = tmp_path_factory.getbasetemp()
    values = {"mapping": settings, "text": json.dumps(settings), "file": "ds-property.json", "name": name, "broken": '{"zero'}
    if form == "file":
        (folder / "ds-property.json").write_text(json.dumps(settings), encoding="utf-8")
    config = {"deepspeed": values[form]}
    known = {**facts, "config.folder": str(folder)}
    options, plan = effective(config, known), setup.read(config, known, SHAPE)
    assert plan.zero.offload is options["zero_offload"]
    assert plan.zero.stage == (setup.ASSUMED_ZERO_STAGE if options["zero_stage"] is None else options["zero_stage"])
    assert plan.zero.overlap is (options["zero_overlap_comm"] is not False)
    if form in ("mapping", "text", "file") and settings and "deepspeed.config" not in facts:
        assert deepspeed.read(values[form], known) == deepspeed.read(settings, {})


@pytest.mark.parametrize(
    ("settings", "stage", "overlap"),
    [
        ({"zero_optimization": {"stage": 2}}, 2, False),
        ({"zero_optimization": {"stage": 3}}, 3, True),
        ({"zero_optimization": {"stage": 3, "overlap_comm": False}}, 3, False),
        ({"zero_optimization": {"stage": 2, "overlap_comm": True}}, 2, True),
        ({"zero_optimization": {"stage": 7}}, None, False),
        ({"zero_optimization": None}, 0, False),
        ({"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}, 0, False),
        ({"train_batch_size": "auto"}, 0, False),
    ],
)
def test_overlap_is_on_by_default_only_in_zero_3(settings, stage, overlap):
    """deepspeed/runtime/zero/config.py: overlap_comm None becomes `stage == 3`."""
    found = deepspeed.read(settings, {})
    assert (found.stage, found.overlap) == (stage, overlap)


def test_what_the_run_printed_wins_over_a_file_name():
    """A file called zero2 that cannot be read, in a run that printed stage 3, is stage 3."""
    assert deepspeed.read("zero2.json", {"deepspeed.stage": 3}).stage == 3
    assert deepspeed.read("zero2_offload.json", {}) == deepspeed.DeepSpeed(stage=2, offload_optimizer=True, overlap=None)


def test_a_changed_file_is_read_again(tmp_path):
    """The content is cached by its time stamp only."""
    path, facts = tmp_path / "ds.json", {"config.folder": str(tmp_path)}
    for stage in (2, 3):
        path.write_text(json.dumps({"zero_optimization": {"stage": stage}, "x": "y" * stage}), encoding="utf-8")
        assert deepspeed.read("ds.json", facts).stage == stage
