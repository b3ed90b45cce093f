"""Windows of many workers trained together: the same trajectories as one window after another."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
import pytest

from distkeras.algorithms import ADAG, EAMSGD, GPA, DyLU, DynSGD, LocalSGD, StreamingDiLoCo
from distkeras.simulation import (
    Exponential,
    Failures,
    Heterogeneous,
    KerasProblem,
    Network,
    Outages,
    Quadratic,
    Replica,
    simulate,
)
from distkeras.simulation.vectorized import Stack, _sizes

UNEQUAL = Heterogeneous(machine_variation=0.3)
STORM = Failures(crash=0.05, straggle=0.1, lost_reply=0.05)
FIELDS = ("times", "samples", "workers", "staleness", "versions")


@dataclass(frozen=True)
class Together(Quadratic):
    """The quadratic of the papers, with windows trained together; it notes how many."""

    together: list[int] = field(default_factory=list)

    def train_many(self, weights, num_steps, replicas):
        self.together.append(len(weights))
        assert len({replica.worker for replica in replicas}) == len(replicas)
        return [self.train(*window) for window in zip(weights, num_steps, replicas, strict=True)]


@pytest.mark.parametrize(
    ("rule", "conditions"),
    [
        (DynSGD(communication_window=4), {}),
        (EAMSGD(communication_window=3), {"failures": STORM}),
        (DyLU(), {"failures": STORM}),
        (LocalSGD(communication_window=4), {"failures": STORM, "quorum": 5, "grace": 0.5}),
        (DynSGD(communication_window=4), {"overlap": True, "failures": STORM}),
        (DynSGD(communication_window=4), {"overlap": 2, "failures": STORM}),
        (StreamingDiLoCo(communication_window=6, fragments=2), {"overlap": 2, "failures": STORM}),
        (DynSGD(communication_window=4), {"outages": Outages(worker=60, server=40, job=80, cut=50)}),
        (DynSGD(communication_window=4), {"overlap": 2, "outages": Outages(server=30, cut=50)}),
        (LocalSGD(communication_window=4), {"outages": Outages(worker=150, together=True)}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else value.name,
)
def test_a_problem_that_trains_windows_together_has_the_same_trajectory_bit_for_bit(rule, conditions):
    settings = {"curvature": (0.5, 1.0, 0.2), "noise": 0.3, "start": 1.0}
    conditions = {"step_time": UNEQUAL, "network": Network(latency=0.3), **conditions}
    alone, together = Quadratic(**settings), Together(**settings)
    one_by_one, at_once = (
        simulate(rule, problem, num_workers=8, num_commits=120, learning_rate=0.05, seed=5, **conditions)
        for problem in (alone, together)
    )
    for name in (*FIELDS, "centers", "losses"):
        assert getattr(at_once, name).tobytes() == getattr(one_by_one, name).tobytes(), name
    if "failures" in conditions:
        assert at_once.num_crashes > 0
    assert max(together.together) >= 6
    if not conditions.get("outages") or not conditions.get("overlap"):
        assert np.mean(together.together) > 2


@functools.cache
def problem(optimizer, vectorize):
    """A model with dropout, statistics and a regularizer."""
    import keras

    random = np.random.default_rng(0)
    x = random.normal(size=(256, 6)).astype(np.float32)
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((6,)),
        # Before BatchNorm a bias has a gradient of zero: Adam would make steps of its rounding errors.
        keras.layers.Dense(8, kernel_regularizer=keras.regularizers.L2(0.01), use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.Activation("tanh"),
        keras.layers.Dropout(0.2 if optimizer is None else 0.0),  # Its random bits compile for long.
        keras.layers.Dense(3),
    ]
    return KerasProblem(
        keras.Sequential(layers),
        x,
        (x @ random.normal(size=(6, 3))).argmax(1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batch_size=8,
        optimizer=None if optimizer is None else keras.optimizers.Adam(0.01, epsilon=1e-3),
        vectorize=vectorize,
    )


@pytest.mark.parametrize(
    ("rule", "optimizer", "conditions"),
    [
        (DynSGD(communication_window=3), None, {"failures": STORM}),
        (LocalSGD(communication_window=3), None, {"step_time": Exponential()}),
        (DyLU(communication_window=4), None, {}),
        (DynSGD(communication_window=4), None, {"overlap": 2}),
        (EAMSGD(communication_window=3), None, {"failures": STORM}),
        (ADAG(communication_window=3), "adam", {"failures": STORM}),
        (GPA(communication_window=3, mu_x=0.8, mu_y=0.6), "adam", {"failures": STORM}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else getattr(value, "name", value),
)
def test_one_compiled_call_for_many_workers_gives_the_trajectory_of_one_after_another(
    rule, optimizer, conditions
):
    conditions = {"step_time": UNEQUAL, **conditions}
    one_by_one, at_once = (
        simulate(
            rule,
            problem(optimizer, vectorize),
            num_workers=7,
            num_commits=10 if rule.synchronous else 50,
            learning_rate=0.05,
            evaluate_every=10,
            **conditions,
        )
        for vectorize in (False, True)
    )
    for name in FIELDS:
        assert getattr(at_once, name).tolist() == getattr(one_by_one, name).tolist(), name
    if "failures" in conditions:
        assert at_once.num_crashes > 0
    first, last = one_by_one.centers[0], one_by_one.centers[-1]
    statistics = slice(problem(optimizer, True).num_trainable, None)
    # Rounding errors are far smaller, and a wrong state's far larger.
    for part in (slice(None), statistics):
        moved = np.abs(last[part] - first[part]).max()
        assert moved > 0.05
        assert np.abs(at_once.centers - one_by_one.centers)[:, part].max() < 1e-3 * moved


def test_windows_without_steps_and_of_unequal_length_are_trained_together():
    many = problem(None, True)
    replicas = [Replica(worker, 5, 0.05, 0.0, (1, worker)) for worker in range(5)]
    lengths = [0, 3, 1, 9, 2]
    together = list(many.train_many([many.initial] * 5, lengths, replicas))
    assert [rows for _, rows in together] == [8 * length for length in lengths]
    assert together[0][0].tobytes() == many.initial.tobytes()
    alone = problem(None, False)
    for worker, (weights, _) in enumerate(together):
        replica = Replica(worker, 5, 0.05, 0.0, (1, worker))
        expected, _ = alone.train(alone.initial, lengths[worker], replica)
        np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-4)


def test_a_subclass_that_trains_in_its_own_way_is_obeyed():
    class Backwards(KerasProblem):
        def train(self, weights, num_steps, replica):
            return weights + 1, num_steps

    given = problem(None, True)
    own = Backwards(given._model.model, given._x, given._y, loss="sparse_categorical_crossentropy")
    found = [each.train_many is None for each in (own, given, problem(None, False))]
    assert found == [True, False, True]
    result = simulate(DynSGD(communication_window=2), own, num_workers=2, num_commits=1)
    trainable = slice(own.num_trainable)  # Statistics are averaged over workers.
    assert result.center[trainable] == pytest.approx(own.initial[trainable] + 1)


def test_a_replicas_row_is_free_when_the_replica_is_gone():
    stack = Stack([np.zeros(2, np.float32), np.zeros((), np.int32)])
    replicas = [Replica(worker, 3, 0.1, 0.0, (worker,)) for worker in range(3)]
    rows = [stack.row_of(replica) for replica in replicas]
    assert sorted(rows) == [(1, True), (2, True), (3, True)]
    assert [stack.row_of(replica) for replica in replicas] == [(row, False) for row, _ in rows]
    before = [array.shape for array in stack.arrays]
    for attempt in range(20):
        replicas[1] = Replica(1, 3, 0.1, 0.0, (1, attempt))
        assert stack.row_of(replicas[1]) == (rows[1][0], True)
    assert [array.shape for array in stack.arrays] == before == [(4, 2), (4,)]


@pytest.mark.parametrize("largest", [1, 16, 1024])
def test_calls_have_few_sizes_and_are_at_least_half_full(largest):
    for number in range(1, 300):
        sizes = _sizes(number, largest)
        assert set(sizes) <= {1, 4, 16, 64, 256, 1024}
        assert max(sizes) <= largest
        assert sum(sizes[:-1]) < number <= sum(sizes)
        assert 2 * (number - sum(sizes[:-1])) >= sizes[-1]
