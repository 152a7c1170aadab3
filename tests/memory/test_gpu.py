"""Usable memory of cards."""

from __future__ import annotations

import pytest

from doctor.memory import capacity_gib


@pytest.mark.parametrize(
    ("card", "low", "high"),
    [
        ("NVIDIA A100-SXM4-80GB", 79, 79.3),
        ("NVIDIA A100-SXM4-40GB", 39, 39.6),
        ("A100-40G", 39, 39.6),
        ("NVIDIA GeForce RTX 4090", 23.4, 23.7),
        ("NVIDIA GeForce RTX 3090 Ti", 23.4, 23.7),
        ("NVIDIA A10G", 21.9, 22.1),
        ("Tesla V100-SXM2-32GB", 31, 32),
        ("Tesla V100-SXM2-16GB", 15, 16),
        ("Tesla T4", 14.5, 15),
        ("NVIDIA H100 80GB HBM3", 79, 79.3),
        ("NVIDIA L40S", 44, 45),
        ("Some Card 12GB", 11.5, 12),
        (24, 23.5, 24),
        (23.64, 23.64, 23.64),
    ],
)
def test_cards_give_what_torch_can_use(card, low, high):
    """Marketed sizes lose what drivers keep, reported totals are taken as they are, memory in the name picks the variant."""
    assert low <= capacity_gib(card) <= high


@pytest.mark.parametrize("card", ["", "unknown", "cpu"])
def test_an_unknown_card_has_no_capacity(card):
    """A name without a size is not guessed."""
    assert capacity_gib(card) is None
