"""Which remedies the cheapest sufficient set holds: prices, order, thresholds; told by hand, with savings that the test invents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from doctor.planner import search
from doctor.planner.prediction import EXPLAINED, Predictor
from doctor.planner.situation import Situation
from doctor.rulebook.model import Op, Remedy
from doctor.support.texts import Text

QWEN = {"model_name_or_path": "Qwen/Qwen2.5-7B-Instruct", "stage": "sft", "finetuning_type": "lora", "template": "qwen"}


class Savings:
    """A predictor: each key of the config saves its GiB from a peak of `before`; up to `enough` fits, up to a GiB more fits tightly."""

    def __init__(self, before: float, enough: float, saved: Mapping[str, float]) -> None:
        self.before, self.enough, self.saved = before, enough, saved
        self.tight = enough + 1.0

    def after(self, situation: Situation) -> float:
        return self.before - sum(gib for key, gib in self.saved.items() if key in situation.config)


def remedy(key: str, effect: Any = "neutral", *, requires: tuple[str, ...] = (), price: float | None = None) -> Remedy:
    """A remedy that sets one key."""
    patch = [Op(set={key: True})]
    return Remedy(
        id=key, text=Text(key, key), patch=patch, effect=effect, requires=list(requires), price=price, done_if={f"config.{key}": True}
    )


def chosen(remedies: list[Remedy], saved: Mapping[str, float], need: float) -> tuple[list[str], bool | None]:
    """The ids that the search takes to free `need` GiB of 20, and whether that is enough."""
    found = search.cheapest(remedies, Situation({}, {}, {}), {}, (), Savings(20.0, 20.0 - need, saved))  # type: ignore[arg-type]
    return ([step.id for step, _ in found.steps], found.enough) if found else ([], None)


@pytest.mark.parametrize(("neutral", "taken"), [(2, "neutral"), (4, "package")])
def test_two_neutral_remedies_cost_less_than_a_package_and_four_more(neutral: int, taken: str) -> None:
    """A remedy that needs a package costs as much as three neutral ones."""
    many = [remedy(f"n{number}") for number in range(neutral)]
    saved = {**{one.id: 1.0 for one in many}, "package": float(neutral)}
    ids, enough = chosen([*many, remedy("package", requires=("p",))], saved, float(neutral))
    assert enough
    assert ids == (["package"] if taken == "package" else [one.id for one in many])


@pytest.mark.parametrize(("neutral", "taken"), [(9, "neutral"), (11, "changing")])
def test_ten_neutral_remedies_weigh_as_much_as_a_change_of_the_training(neutral: int, taken: str) -> None:
    """Each of the neutral ones is needed, so that there is one way to take them."""
    saved = {"changing": float(neutral)}
    price = {f"n{number}": 1.0 for number in range(neutral)}
    ids, _ = chosen(
        [remedy("changing", "changes_training"), _bundle(neutral)], {**saved, "bundle": float(neutral), **price}, float(neutral)
    )
    assert ids == (["changing"] if taken == "changing" else ["bundle"])


def _bundle(count: int) -> Remedy:
    """Stands for that many neutral remedies: the same price at once."""
    return remedy("bundle", price=count * search.PRICE["neutral"])


def test_of_two_that_do_the_same_at_the_same_price_the_first_is_taken() -> None:
    """Equal prices: the guide's order decides."""
    assert chosen([remedy("first"), remedy("second")], {"first": 2.0, "second": 2.0}, 2.0)[0] == ["first"]


def test_the_place_in_the_guide_decides_only_between_equal_prices() -> None:
    """A neutral remedy at the guide's end goes before one that needs a package at its beginning."""
    idle = [remedy(f"idle{number}") for number in range(4)]
    remedies = [remedy("package", requires=("p",)), *idle, remedy("neutral")]
    assert chosen(remedies, {"package": 2.0, "neutral": 2.0}, 2.0)[0] == ["neutral"]


@pytest.mark.parametrize(("gib", "taken"), [(0.05, False), (0.15, True)])
def test_what_saves_less_than_a_tenth_of_a_gib_is_not_proposed(gib: float, taken: bool) -> None:
    """Not even where nothing else helps."""
    assert chosen([remedy("small")], {"small": gib}, 5.0) == ((["small"], False) if taken else ([], None))


@pytest.mark.parametrize(("gib", "taken"), [(2.05, "cheap"), (2.15, "dear")])
def test_a_dearer_remedy_must_free_a_tenth_of_a_gib_more(gib: float, taken: str) -> None:
    """Of two that exclude each other and do not suffice."""
    cheap, dear = (
        msgspec.structs.replace(one, only_if={f"config.{other}": None})
        for one, other in ((remedy("cheap"), "dear"), (remedy("dear", "changes_training"), "cheap"))
    )
    assert chosen([cheap, dear], {"cheap": 2.0, "dear": gib}, 5.0) == ([taken], False)


def test_a_direct_cure_goes_before_what_makes_room() -> None:
    """A price below a neutral one's names the cure of the cause."""
    remedies = [remedy("room"), remedy("cure", price=0.5)]
    assert [one.id for one in search.direct_first(remedies)] == ["cure", "room"]
    assert chosen(remedies, {"room": 2.0, "cure": 2.0}, 2.0)[0] == ["cure"]


def test_the_search_is_bounded() -> None:
    """Twelve remedies that never suffice have 4,096 combinations; it stops at its bound and returns the best that it met."""
    many = [remedy(f"n{number}") for number in range(12)]
    ids, enough = chosen(many, {one.id: 0.2 for one in many}, 19.0)
    assert enough is False
    assert 1 <= len(ids) <= 12


@pytest.mark.parametrize(("share", "predicts"), [(EXPLAINED + 0.05, True), (EXPLAINED - 0.05, False), (0.55, True), (0.45, False)])
def test_an_estimate_that_explains_less_than_half_of_what_was_held_predicts_nothing(share: float, predicts: bool) -> None:
    """What filled the GPU is then something that the model of the memory does not know."""
    base = Predictor.for_run(Situation(QWEN, {}, {}), {}, 80.0)
    assert base is not None
    held = base.base.allocated_gib / share
    facts = {"allocated_gib": held - 1.0, "wanted_gib": 1.0}
    assert (Predictor.for_run(Situation(QWEN, {}, {}), facts, 80.0) is not None) is predicts


def test_a_message_that_tells_half_of_what_was_held_says_nothing_of_the_estimate() -> None:
    """Without the size that was refused, or without what was held, there is nothing to compare with."""
    for facts in ({"allocated_gib": 1000.0}, {"wanted_gib": 1000.0}):
        assert Predictor.for_run(Situation(QWEN, {}, {}), facts, 20.0) is not None


def test_where_the_bound_is_reached_all_that_helps_is_taken_and_the_rest_left_out() -> None:
    """Nine neutral remedies and one that changes the training, needed together: far more sequences than the bound lets it see."""
    many = [remedy(f"n{number}") for number in range(9)]
    idle = [remedy(f"idle{number}") for number in range(9)]
    saved = {**{one.id: 1.0 for one in many}, **{one.id: 0.2 for one in idle}, "changing": 5.0, "other": 5.0}
    dear = [remedy("changing", "changes_training"), remedy("other", "changes_training")]
    ids, enough = chosen([*many, *dear, *idle], saved, 14.0)
    assert enough is True
    assert {one.id for one in many} < set(ids)
    assert len({"changing", "other"} & set(ids)) == 1
    assert not {one.id for one in idle} & set(ids)


def test_all_together_not_enough_is_told_as_not_enough() -> None:
    """Then the sequence is the one that needs least."""
    many = [remedy(f"n{number}") for number in range(18)]
    ids, enough = chosen(many, {one.id: 0.5 for one in many}, 19.0)
    assert enough is False
    assert len(ids) == 18


@pytest.mark.parametrize(("facts", "predicts"), [({}, False), ({"world_size": 8}, True), ({"gpu.count": 8}, True)])
def test_a_run_split_over_an_unknown_number_of_gpus_has_no_prediction(facts: dict[str, Any], predicts: bool) -> None:
    """On one GPU the estimate of a ZeRO-3 run would be eight times too high."""
    config = {**QWEN, "finetuning_type": "full", "deepspeed": {"zero_optimization": {"stage": 3}}}
    assert (Predictor.for_run(Situation(config, facts, {}), {}, 40.0) is not None) is predicts


def test_what_trained_before_it_failed_needs_less_than_the_longest_samples_would() -> None:
    """cutoff_len 131072 is a bound, not a length."""
    config = {**QWEN, "cutoff_len": 131072}
    fresh = Predictor.for_run(Situation(config, {}, {"last_step": None}), {}, 40.0)
    trained = Predictor.for_run(Situation(config, {}, {"last_step": 30}), {}, 40.0)
    assert fresh is not None
    assert trained is not None
    assert fresh.before > 80.0
    assert trained.before == pytest.approx(1.5 * trained.capacity)
    assert trained.capacity == pytest.approx(40.0, rel=0.02)


@pytest.mark.parametrize(
    ("saved", "scope", "taken"),
    [
        ({"neutral": 4.5, "lora": 9.0}, 15.0, ["neutral"]),
        ({"neutral": 3.0, "lora": 9.0}, 15.0, ["lora"]),
        ({"neutral": 4.5, "lora": 9.0}, 10.0, ["lora"]),
        ({"neutral": 3.0, "lora": 1.5}, 10.0, ["neutral"]),
        ({"lora": 1.5}, 10.0, []),
    ],
    ids=["tight, full tuning stays", "not even tight", "tight, but only 4 bits", "not enough: no change of scope", "only a change in vain"],
)
def test_the_scope_changes_only_where_that_is_predicted_to_fit(saved: Mapping[str, float], scope: float, taken: list[str]) -> None:
    """5 GiB must go. Full tuning does not end while the same training fits tightly; nothing is cut for a patch that would not do."""
    remedies = [remedy(key, "changes_training", price=scope) if key == "lora" else remedy(key) for key in saved]
    found = search.same_training_first(remedies, Situation({}, {}, {}), {}, (), Savings(20.0, 15.0, saved))  # type: ignore[arg-type]
    assert ([step.id for step, _ in found.steps] if found else []) == taken
