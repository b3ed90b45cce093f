"""Rules whose workers remember: momentum correction, error feedback of the rule's own, eager updates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from driving import Job, wander

from distkeras.algorithms import DOWNPOUR, REGISTRY, Algorithm, DiLoCo, EagerDiLoCo
from distkeras.simulation import Constant, Failures, Quadratic, simulate


@dataclass(frozen=True)
class MomentumCorrection(Algorithm):
    """Each worker sends its momentum (Lin et al. 2018, Deep Gradient Compression): `u <- m u + d`."""

    communication_window: int | None = 1
    momentum: float = 0.5

    def commit_with(self, local, anchor, num_steps, memory):
        velocity = memory.get("velocity", np.zeros_like(local))
        memory["velocity"] = self.momentum * velocity + (local - anchor)
        return memory["velocity"].copy()

    def apply(self, center, message, commit, state):
        center += message
        return center


@dataclass(frozen=True)
class EF21(Algorithm):
    """Workers send the largest element of what the server lacks (Richtarik et al. 2021, 2106.05203)."""

    communication_window: int | None = 1
    synchronous: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    def init(self, center):
        return {"delta": np.zeros_like(center)}

    def commit_with(self, local, anchor, num_steps, memory):
        known = memory.setdefault("known", np.zeros_like(local))
        missing = local - anchor - known
        message = np.where(np.abs(missing) == np.abs(missing).max(), missing, 0).astype(missing.dtype)
        known += message
        return message

    def apply(self, center, message, commit, state):
        state["delta"] += message
        center += state["delta"]
        return center


@dataclass(frozen=True)
class Eager(Algorithm):
    """DiLoCo whose workers step by the mean of the round before, with their own fresh part (2502.12996).

    `g_m(t) = mean D(t-1) + (D_m(t) - D_m(t-1)) / N`. The server answers with the mean of the round before.
    """

    communication_window: int | None = 1
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9
    num_workers: int = 1
    synchronous: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    def for_workers(self, num_workers):
        return replace(self, num_workers=num_workers)

    def init(self, center):
        return {"last": np.zeros_like(center), "momentum": np.zeros_like(center)}

    def apply(self, center, message, commit, state):
        last, state["last"] = state["last"], message.copy()
        center += self._step(message, state)
        return last

    def adopt_with(self, local, message, reply, memory):
        eager = reply + (message - memory.get("last", 0)) / self.num_workers
        memory["last"], memory["eager"] = message.copy(), eager
        return local - message + self._step(eager, memory)

    def _step(self, delta, state):
        state["momentum"] = self.outer_momentum * state.get("momentum", 0) + delta
        return self.outer_learning_rate * (self.outer_momentum * state["momentum"] + delta)


def commit(job, worker, delta):
    job.local[worker] = job.anchor[worker] + np.float32(delta)
    job.exchange(worker)


def test_momentum_correction_sends_the_momentum_of_its_worker():
    job = Job(MomentumCorrection(), [0.0], 2)
    commit(job, 0, [4.0])
    assert job.weights == [4.0]
    commit(job, 0, [1.0])  # u = 0.5 * 4 + 1
    assert job.weights == [7.0]
    commit(job, 1, [1.0])  # the other worker's own
    assert job.weights == [8.0]
    job.join(0)  # a replacement begins without
    commit(job, 0, [1.0])
    assert job.weights == [9.0]


def test_without_momentum_it_is_downpour_bit_for_bit():
    start = np.linspace(-3, 3, 7)
    rules = MomentumCorrection(1, 0.0), DOWNPOUR()
    ours, theirs = (wander(Job(rule, start, 3)) for rule in rules)
    assert ours.weights.tobytes() == theirs.weights.tobytes()


def test_ef21_sends_what_the_server_lacks_until_it_lacks_nothing():
    job, sent = Job(EF21(), [0.0, 0.0, 0.0]), []
    for _ in range(5):
        commit(job, 0, [4.0, 2.0, 1.0])
        sent.append(job.sent[0].tolist())
    assert sent == [[4, 0, 0], [0, 2, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert job.weights.tolist() == [20.0, 8.0, 3.0]


def test_an_eager_worker_has_its_own_fresh_part_in_the_mean_of_the_round_before():
    job = Job(Eager(), [0.0], 2)
    commit(job, 0, [2.0])
    commit(job, 1, [4.0])
    commit(job, 0, [6.0])
    commit(job, 1, [4.0])
    # The mean of (2, 4) is 3, and (6 - 2) / 2 the fresh part: 5 for one worker, 3 for the other.
    assert [memory["eager"].tolist() for memory in job.memory] == [[5.0], [3.0]]


def test_one_eager_worker_is_diloco():
    eager = Job(Eager(), [1.0, -2.0])
    diloco = Job(DiLoCo(1), [1.0, -2.0])
    for turn in range(12):
        for job in (eager, diloco):
            job.train(0, 2, optimum=turn % 3)
            job.exchange(0, 2)
        np.testing.assert_allclose(eager.local[0], diloco.local[0], rtol=1e-5)
        np.testing.assert_allclose(eager.weights, diloco.weights, rtol=1e-5)


FORGETFUL = [rule() for rule in REGISTRY.values() if rule is not EagerDiLoCo]


@pytest.mark.parametrize("rule", FORGETFUL, ids=lambda rule: rule.name)
def test_rules_of_the_library_but_one_remember_nothing(rule):
    local, anchor, memory = np.float32([2, 3]), np.float32([1, 5]), {}
    fitted = rule.for_workers(2)
    assert fitted.commit_with(local, anchor, 3, memory).tobytes() == fitted.commit(local, anchor, 3).tobytes()
    adopted = fitted.adopt_with(local, anchor, anchor, memory)
    assert adopted.tobytes() == fitted.adopt(local, anchor, anchor).tobytes()
    assert memory == {}


def test_simulated_workers_remember_and_lose_their_memory_when_they_crash():
    options = {"num_workers": 1, "num_commits": 6, "learning_rate": 0.5, "step_time": Constant()}
    steady = simulate(MomentumCorrection(), Quadratic(), **options)
    x, velocity, expected = 1.0, 0.0, [1.0]
    for _ in range(6):
        velocity = 0.5 * velocity - 0.5 * x
        x += velocity
        expected.append(x)
    np.testing.assert_allclose(steady.centers.ravel(), expected, rtol=1e-6)
    crashing = simulate(MomentumCorrection(), Quadratic(), failures=Failures(crash=0.5), seed=1, **options)
    assert crashing.num_crashes
    assert crashing.centers[1] == steady.centers[1]
    assert crashing.centers.tobytes() != steady.centers.tobytes()
