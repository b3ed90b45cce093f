"""The measures of `benchmarks/five_figures.py`, where their results are known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from papers.bandwidth import GIGABITS, METHODS, MODELS, PAPER, needed, utilization
from papers.momentum import RATE, momentum_of


def test_momentum_is_found_in_a_trajectory_that_has_it():
    weights, step = [1.0, 1.0 - RATE], -RATE
    for _ in range(40):
        step = 0.75 * step - 0.25 * RATE * weights[-1]
        weights.append(weights[-1] + step)
    assert momentum_of(weights) == pytest.approx(0.75)


def test_utilization_is_that_of_the_times_of_steps_and_bytes():
    model = MODELS["1B"]
    seconds = 2 * 16e9 / 8e9  # Two bytes a weight, in both directions.
    expected = 100 * model.seconds / (100 * model.seconds + seconds)
    assert utilization(METHODS["DiLoCo"], model, 8.0) == pytest.approx(expected, rel=1e-3)
    assert utilization(METHODS["and overlap"], model, 200.0) == pytest.approx(1.0)
    assert utilization(METHODS["Streaming DiLoCo"], model, 8.0) == pytest.approx(expected, rel=1e-2)


def test_the_bandwidth_for_a_level_lies_between_its_neighbours():
    shares = [0.1 if gigabits < 10 else 0.9 for gigabits in GIGABITS]
    assert GIGABITS[shares.index(0.9) - 1] < needed(shares, 0.5) < GIGABITS[shares.index(0.9)]
    assert needed(shares, 0.95) is None
    assert needed([1.0] * len(GIGABITS), 0.5) == GIGABITS[0]
    assert all(set(PAPER[model]) == set(METHODS) for model in MODELS)
