"""A few steps of every rule, worked out by hand. The worker's name stands at its commit, A = 0, B = 1."""

import re
from pathlib import Path

import numpy as np
import pytest
from driving import Job

from distkeras.algorithms import (
    ADAG,
    AEASGD,
    DCASGD,
    DOWNPOUR,
    EAMSGD,
    EASGD,
    GPA,
    REGISTRY,
    AdagradDOWNPOUR,
    AdaptiveADAG,
    AdaptiveDCASGD,
    Algorithm,
    Averaging,
    DecoupledDiLoCo,
    DelayedNesterov,
    DiLoCo,
    DyLU,
    DynSGD,
    EagerDiLoCo,
    FedAdam,
    FedBuff,
    GapAware,
    HALoS,
    LocalSGD,
    RescaledASGD,
    RingleaderASGD,
    Ringmaster,
    Sequential,
    SlowMo,
    SparseLoCo,
    StreamingDiLoCo,
    TrimmedMean,
)
from distkeras.simulation import Constant, Quadratic, simulate
from distkeras.wire.codecs import TopK
from distkeras.wire.compression import packing_of

A, B = 0, 1


def commit(job, worker, local, **counts):
    job.local[worker] = np.atleast_1d(np.float32(local))
    job.exchange(worker, **counts)


def check(job, center, **locals_):
    np.testing.assert_allclose(job.weights, np.atleast_1d(center), rtol=2e-6)
    for name, value in locals_.items():
        np.testing.assert_allclose(job.local["ab".index(name)], np.atleast_1d(value), rtol=2e-6)


def test_sequential():
    job = Job(Sequential(), [1.0])
    commit(job, A, 3.0)
    check(job, 3.0, a=3.0)


def test_downpour():
    job = Job(DOWNPOUR(), [1.0], 2)
    commit(job, A, 3.0)
    check(job, 1 + (3 - 1), a=3.0, b=1.0)
    commit(job, B, 0.5)
    check(job, 3 + (0.5 - 1), b=2.5)  # a delta from the old center lands on the new one
    commit(job, A, 4.0)
    check(job, 2.5 + (4 - 3), a=3.5)


def test_adag_divides_by_the_steps_really_taken():
    job = Job(ADAG(5), [1.0], 2)
    commit(job, A, 3.0, num_steps=5)
    check(job, 1 + 2 / 5, a=1.4)
    commit(job, B, 0.5, num_steps=2)
    check(job, 1.4 - 0.5 / 2, b=1.15)


def test_adaptive_adag_damps_where_the_center_moved():
    job = Job(AdaptiveADAG(2, gamma=0.01), [1.0, 1.0], 2)
    commit(job, A, [1.2, 1.0], num_steps=2)
    check(job, [1.1, 1.0])
    commit(job, B, [3.0, 3.0], num_steps=2)
    # u = 2 / 2 = 1; the first element moved by 0.1: 1 / (1 + 0.01 / 0.01) = 1 / 2; the second not at all.
    check(job, [1.1 + 0.5, 1.0 + 1.0], b=[1.6, 2.0])


def test_dynsgd_divides_by_staleness_plus_one():
    job = Job(DynSGD(), [0.0], 3)
    commit(job, 0, 1.0)
    check(job, 1 / 1)
    commit(job, 1, 1.0)
    check(job, 1 + 1 / 2)
    commit(job, 2, 1.0)
    check(job, 1.5 + 1 / 3)
    commit(job, 2, 11 / 6 + 1)  # it has just pulled: no staleness
    check(job, 11 / 6 + 1)
    commit(job, 0, 1.0 + 1.0)  # it holds 1.0, and three commits came since
    check(job, 17 / 6 + 1 / 4, a=37 / 12)


@pytest.mark.parametrize("rule", [AEASGD, EAMSGD])
def test_elastic_averaging_divides_nine_tenths_by_the_workers(rule):
    job = Job(rule(), [1.0], 3)
    commit(job, A, 3.0)
    check(job, 1.6, a=2.4)  # E = 0.3 (3 - 1)


@pytest.mark.parametrize("rule", [AEASGD, EAMSGD])
def test_asynchronous_elastic_averaging(rule):
    job = Job(rule(rho=2.0, learning_rate=0.1), [1.0], 2)
    commit(job, A, 3.0)
    check(job, 1 + 0.2 * 2, a=3 - 0.2 * 2)  # E = 0.2 (3 - 1) = 0.4
    commit(job, B, -1.0)
    check(job, 1.4 - 0.48, b=-1 + 0.48)  # E = 0.2 (-1 - 1.4) = -0.48
    commit(job, A, 2.92)
    check(job, 0.92 + 0.4, a=2.92 - 0.4)  # E = 0.2 (2.92 - 0.92) = 0.4


def test_synchronous_elastic_averaging_moves_all_from_the_old_values():
    job = Job(EASGD(alpha=0.25), [1.0], 2)
    commit(job, A, 3.0, num_samples=1)
    check(job, 1.0, a=3.0)
    commit(job, B, 2.0, num_samples=99)
    # c = 1 + 0.25 (2 + 1) = 1.75, a = 3 - 0.25 * 2, b = 2 - 0.25 * 1; samples do not weigh.
    check(job, 1.75, a=2.5, b=1.75)


def test_synchronous_elastic_averaging_divides_nine_tenths_by_the_workers():
    job = Job(EASGD(), [0.0], 3)
    for worker in (0, 1, 2):
        commit(job, worker, 1.0)
    check(job, 0.9, a=0.7, b=0.7)  # alpha = 0.3: c = 0 + 0.3 * 3, x = 1 - 0.3


@pytest.mark.parametrize("rule", [Averaging(), LocalSGD()], ids=lambda rule: rule.name)
def test_averages_weigh_by_samples(rule):
    job = Job(rule, [1.0], 2)
    commit(job, A, 3.0, num_samples=30)
    commit(job, B, 7.0, num_samples=10)
    check(job, (30 * 3 + 10 * 7) / 40, a=4.0, b=4.0)
    commit(job, A, 4.0, num_samples=10)
    commit(job, B, 8.0, num_samples=10)
    check(job, 6.0, a=6.0, b=6.0)  # the first mean leaves no trace in the second


def test_slowmo():
    job = Job(SlowMo(outer_learning_rate=0.5, outer_momentum=0.8), [1.0], 2)
    commit(job, A, 3.0)
    commit(job, B, 5.0)
    # With gamma = 1: mean delta 3, u = 0.8 * 0 - 3 = -3, c = 1 + 0.5 * 3.
    check(job, 2.5, a=2.5)
    commit(job, A, 3.5)
    commit(job, B, 2.5)
    # mean delta 0.5, u = -0.8 * 3 - 0.5 = -2.9, c = 2.5 + 0.5 * 2.9.
    check(job, 3.95, b=3.95)


def test_slowmo_does_not_depend_on_the_inner_learning_rate_of_the_paper():
    gamma, alpha, beta, u, c = 0.05, 0.5, 0.8, 0.0, 1.0
    job = Job(SlowMo(outer_learning_rate=alpha, outer_momentum=beta), [c])
    for delta in (3.0, -1.0, 0.25):
        u = beta * u - delta / gamma
        c -= alpha * gamma * u
        commit(job, A, job.anchor[A] + np.float32(delta))
        check(job, c)


def test_diloco():
    job = Job(DiLoCo(outer_learning_rate=0.5, outer_momentum=0.8), [1.0], 2)
    commit(job, A, 3.0)
    commit(job, B, 5.0)
    # g = -3, m = -3, c = 1 - 0.5 (0.8 * -3 - 3) = 1 + 0.5 * 5.4.
    check(job, 3.7, a=3.7)
    commit(job, A, 4.2)
    commit(job, B, 4.2)
    # g = -0.5, m = 0.8 * -3 - 0.5 = -2.9, c = 3.7 + 0.5 (0.8 * 2.9 + 0.5) = 3.7 + 0.5 * 2.82.
    check(job, 5.11, b=5.11)


def test_fedadam():
    rule = FedAdam(outer_learning_rate=0.1, beta_1=0.5, beta_2=0.75, epsilon=0.5)
    job = Job(rule, [1.0], 2)
    commit(job, A, 3.0)
    commit(job, B, 5.0)
    # D = 3, m = 0.5 * 3 = 1.5, v = 0.75 * 0.5^2 + 0.25 * 9 = 2.4375, c = 1 + 0.1 * 1.5 / (sqrt(v) + 0.5).
    first = 1 + 0.15 / (2.4375**0.5 + 0.5)
    check(job, first, a=first)
    commit(job, A, first + 1)
    commit(job, B, first + 1)
    # D = 1, m = 0.75 + 0.5 = 1.25, v = 0.75 * 2.4375 + 0.25 = 2.078125.
    check(job, first + 0.125 / (2.078125**0.5 + 0.5))


def test_fedadam_first_moves_by_one_tenth_over_the_root_of_one_hundredth():
    job = Job(FedAdam(), [1.0])
    commit(job, A, 3.0)
    # By the defaults, whatever D but for epsilon: 0.1 * 0.1 D / (sqrt(0.01 D^2) + 0.001), about 0.1.
    check(job, 1 + 0.02 / ((0.99e-6 + 0.04) ** 0.5 + 0.001))


def test_delayed_nesterov():
    job = Job(DelayedNesterov(outer_learning_rate=0.5, outer_momentum=0.8, activation=0.1), [1.0], 2)
    commit(job, A, 3.0)  # g = -2, m = 0: c = 1 + 0.5 (2 / 2)
    check(job, 1.5, a=1.5)
    commit(job, B, 5.0)  # g = -4, buffer -6, m = -3: c = 1.5 + 0.5 ((1 - 0.1 * 2 + 0.1) 0.8 * 3 + 4 / 2)
    check(job, 1.5 + 0.5 * (0.9 * 2.4 + 2), b=3.58)
    commit(job, B, 4.58)  # g = -1: c = 3.58 + 0.5 (0.1 * 0.8 * 3 + 1 / 2)
    check(job, 3.58 + 0.5 * 0.74, b=3.95)
    commit(job, A, 2.5)  # g = -1, buffer -2, m = -0.8 * 3 - 1 = -3.4: c += 0.5 (0.9 * 0.8 * 3.4 + 1 / 2)
    check(job, 3.95 + 0.5 * 2.948, a=5.424)


def test_gap_aware_divides_by_the_gap_in_steps_of_the_center():
    job = Job(GapAware(decay=0.5), [0.0], 2)
    commit(job, A, 2.0)  # no gap: c = 0 + 2, EMA = 0.5 * 2^2 = 2, corrected by 1 - 0.5: C = 2
    check(job, 2.0, a=2.0)
    commit(job, B, 3.0)  # gap 2 is one step: 3 / (1 + 2 / 2); EMA = 0.5 * 2 + 0.5 * 1.5^2 = 2.125
    check(job, 3.5, b=3.5)
    commit(job, A, 3.0)  # gap 1.5, C = sqrt(2.125 / 0.75) = 1.68325...: 1 / (1 + 0.891133...)
    check(job, 3.5 + 1 / (1 + 1.5 / (2.125 / 0.75) ** 0.5), a=4.0287837)


def test_dcasgd_compensates_by_the_square_of_the_gradient():
    job = Job(DCASGD(learning_rate=0.5, lambda_=0.1), [1.0], 2)
    commit(job, A, 3.0)  # the center has not moved: c = 1 + 2
    check(job, 3.0, a=3.0)
    commit(job, B, 0.0)  # g = 1 / 0.5 = 2: c = 3 - 0.5 (2 + 0.1 * 4 * (3 - 1)) = 3 - 1.4
    check(job, 1.6, b=1.6)


def test_ringmaster_discards_what_is_as_stale_as_its_threshold():
    job = Job(Ringmaster(delay_threshold=2), [1.0], 3)
    commit(job, 0, 3.0)
    commit(job, 1, 2.0)  # tau = 1
    check(job, 1 + 2 + 1, b=4.0)
    commit(job, 2, 100.0)  # tau = 2
    check(job, 4.0)
    np.testing.assert_array_equal(job.local[2], [4.0])
    commit(job, 2, 5.0)  # it has the center again
    check(job, 5.0)


def test_ringmaster_by_default_bears_a_staleness_below_twice_the_workers():
    job = Job(Ringmaster(), [0.0], 3)
    for _ in range(5):
        commit(job, A, job.anchor[A] + 1)
    commit(job, B, 1.0)  # tau = 5 < 6
    check(job, 6.0)
    for _ in range(6):
        commit(job, A, job.anchor[A] + 1)
    commit(job, B, 100.0)  # tau = 6
    check(job, 12.0, b=12.0)


def test_fedbuff_adds_the_mean_of_a_full_buffer_weighed_by_staleness():
    job = Job(FedBuff(buffer_size=2), [0.0], 2)
    commit(job, A, 1.0)
    check(job, 0.0, a=0.0)  # buffered: it continues from the center
    commit(job, B, 3.0)
    check(job, 2.0, b=2.0)
    commit(job, A, job.anchor[A] + 4)  # tau = 1
    check(job, 2.0)
    commit(job, B, job.anchor[B] + 2)  # tau = 0: 2 + (4 / sqrt 2 + 2) / 2
    check(job, 4.4142136, b=4.4142136)


def test_trimmed_mean_drops_the_largest_and_the_smallest_delta_of_each_coordinate():
    job = Job(TrimmedMean(beta=0.25), [1.0, 1.0], 4)
    for worker, (first, second) in enumerate([(1, 8), (2, -50), (6, 2), (-3, 4)]):
        commit(job, worker, [1.0 + first, 1.0 + second], num_samples=1 + worker)
    check(job, [1 + (1 + 2) / 2, 1 + (2 + 4) / 2], a=[2.5, 4.0])
    for worker, (first, second) in enumerate([(1, 1), (1, 1), (1, 1), (1e6, -1e6)]):
        commit(job, worker, [2.5 + first, 4.0 + second])
    check(job, [3.5, 5.0], b=[3.5, 5.0])


def test_dylu_is_delayed_nesterov_in_windows_by_speed():
    ours, theirs = Job(DyLU(50, period=2), [1.0], 2), Job(DelayedNesterov(50, period=2), [1.0], 2)
    for job in (ours, theirs):
        commit(job, A, 3.0, num_steps=50)
        commit(job, B, 2.0, num_steps=15)
        check(job, 1 + 0.7 * (2 / 2 + 1 / 2 + 0.9 * (2 + 1) / 2))
    speeds = {0: 10.0, 1: 5.0, 2: 3.0, 3: 1.0}
    assert [DyLU(50).window(worker, speeds) for worker in speeds] == [50, 25, 15, 5]


def test_streaming_diloco_mixes_the_center_into_what_the_worker_has_trained():
    rule = StreamingDiLoCo(6, outer_learning_rate=2.0, outer_momentum=0.5, alpha=0.25)
    job = Job(rule, [1.0], 2)
    commit(job, A, 3.0)
    commit(job, B, 2.0)
    # mean delta 1.5; m = 1.5; c = 1 + 2 (1.5 + 0.5 * 1.5); each keeps a quarter of its own weights.
    check(job, 5.5, a=0.25 * 3 + 0.75 * 5.5, b=0.25 * 2 + 0.75 * 5.5)
    commit(job, A, 6.5)
    commit(job, B, 5.5)
    # Deltas from the center, 1 and 0, not from where the workers began; m = 0.75 + 0.5.
    check(job, 5.5 + 2 * (0.5 + 0.5 * 1.25), a=0.25 * 6.5 + 0.75 * 7.75, b=0.25 * 5.5 + 0.75 * 7.75)


def test_adagrad_at_the_server_gives_every_weight_a_rate_that_falls():
    job = Job(AdagradDOWNPOUR(outer_learning_rate=0.5), [1.0, 1.0], 2)
    commit(job, A, [4.0, 1.0])  # S = (9, 0): 0.5 * 3 / 3; where nothing came, nothing moves
    check(job, [1.5, 1.0], a=[1.5, 1.0])
    commit(job, B, [5.0, 0.0])  # S = (9 + 16, 1): 0.5 * 4 / 5, 0.5 * -1 / 1
    check(job, [1.9, 0.5], b=[1.9, 0.5])


def test_adaptive_dcasgd_divides_the_compensation_by_the_usual_gradient():
    job = Job(AdaptiveDCASGD(learning_rate=0.5, lambda_0=0.1, decay=0.75), [1.0], 2)
    commit(job, A, 3.0)  # g = -4, M = 0.25 * 16 = 4; the center has not moved
    check(job, 3.0, a=3.0)
    commit(job, B, 0.0)  # g = 2, M = 0.75 * 4 + 0.25 * 4 = 4: lambda = 0.1 / 2, g + 0.05 * 4 * (3 - 1) = 2.4
    check(job, 3 - 0.5 * 2.4, b=1.8)


def test_rescaled_asgd_weighs_by_the_commits_from_one_of_a_worker_to_its_next():
    job = Job(RescaledASGD(), [0.0], 2)
    commit(job, A, 1.0)  # first commits: (tau + 1) / N
    check(job, 1 / 2)
    commit(job, A, job.anchor[A] + 1)  # 1 commit from one of A to the next: 1 / 2
    check(job, 1.0)
    commit(job, A, job.anchor[A] + 1)
    check(job, 1.5)
    commit(job, B, 1.0)  # tau = 3: 4 / 2
    check(job, 3.5)
    commit(job, A, job.anchor[A] + 1)  # number 5, its first 1, 3 of its commits before: 4 / 3 / 2
    check(job, 3.5 + 2 / 3)
    commit(job, B, job.anchor[B] + 3)  # number 6, its first 4: 2 / 1 / 2
    check(job, 3.5 + 2 / 3 + 3)


def test_rescaled_asgd_is_downpour_from_the_second_turn_on_if_workers_commit_in_turn():
    ours, theirs = Job(RescaledASGD(), [0.0], 3), Job(DOWNPOUR(1), [0.0], 3)
    moves = []
    for job in (ours, theirs):
        for turn in range(4):
            for worker in job.workers:
                before = job.weights
                commit(job, worker, job.anchor[worker] + turn + worker)
                moves.append(job.weights - before)
    np.testing.assert_allclose(moves[3:12], moves[15:24], rtol=1e-6)
    np.testing.assert_allclose(np.ravel(moves[:3]), [0, 1 * 2 / 3, 2], rtol=1e-6)


def test_ringleader_steps_by_the_mean_of_the_workers_means():
    job = Job(RingleaderASGD(), [0.0], 2)
    commit(job, A, 1.0)
    commit(job, A, job.anchor[A] + 3)
    check(job, 0.0, a=0.0)  # B has no entry yet
    commit(job, B, 2.0)
    check(job, (4 / 2 + 2 / 1) / 2, b=2.0)
    assert job.staleness[B] == 0
    commit(job, B, job.anchor[B] + 9)  # B has had its step: it goes into the next table
    check(job, 2.0, b=2.0)
    commit(job, A, job.anchor[A] + 5)  # enters the table before its step: ((1 + 3 + 5) / 3 + 2) / 2
    check(job, 4.5, a=4.5)
    assert job.staleness[A] == 1
    commit(job, B, job.anchor[B] + 1)  # the table has only B's 9 and 1
    check(job, 4.5)
    commit(job, A, job.anchor[A] + 1)
    check(job, 4.5 + ((9 + 1) / 2 + 1) / 2)


def test_sparseloco_sends_the_largest_and_lets_the_residual_fade():
    """With its codec, of one value in four, as in the worker's and the server's end of a connection."""
    rule = SparseLoCo(residual_decay=0.5)
    packing = packing_of(rule, TopK(density=0.25), 4, 4)
    residual, data = np.zeros(4, np.float32), np.empty(packing.num_bytes, np.uint8)
    job, sent = Job(rule, [0.0, 0.0, 0.0, 0.0]), []
    for delta in ([-4, -2, -1, 0], [-1, -1, -1, 0], [-1, -1, -1, -3]):
        message = np.array(delta, np.float32)
        packing.encode_with_feedback(message, residual, data)
        sent.append(message.tolist())
        commit(job, A, job.anchor[A] + message)
    assert sent == [[-4, 0, 0, 0], [0, -2, 0, 0], [0, 0, 0, -3]]
    np.testing.assert_array_equal(residual, [-1.5, -1, -1.75, 0])
    check(job, [-4.0, -2.0, 0.0, -3.0])


def test_sparseloco_adds_the_mean_times_its_rate():
    job = Job(SparseLoCo(outer_learning_rate=0.5), [1.0], 2)
    commit(job, A, 3.0)
    commit(job, B, 5.0)
    check(job, 1 + 0.5 * 3, a=2.5, b=2.5)


def averaged(messages, weights, rule=None):
    rule = DecoupledDiLoCo() if rule is None else rule
    weights = np.array(weights, np.float32) / np.sum(weights, dtype=np.float32)
    return rule.combine([np.array(message, np.float32) for message in messages], weights)


def check_radial_directional(rule):
    np.testing.assert_allclose(averaged([[2, 0], [0, 2]], [1, 1], rule), [2**0.5, 2**0.5], rtol=1e-6)
    mean = averaged([[3, 4], [0, 10]], [3, 1], rule)
    np.testing.assert_allclose(mean, [2.92430, 5.52367], rtol=1e-5)
    assert np.linalg.norm(mean) == pytest.approx((3 * 5 + 10) / 4)


def test_decoupled_diloco_averages_lengths_and_directions():
    check_radial_directional(DecoupledDiLoCo())
    np.testing.assert_allclose(averaged([[1, 2], [1, 2]], [1, 5]), [1, 2], rtol=1e-6)  # equal: the plain mean
    np.testing.assert_allclose(averaged([[3, 0], [-1, 0]], [1, 1]), [1, 0], rtol=1e-6)  # directions cancel
    np.testing.assert_allclose(
        averaged([[0, 0], [0, 4]], [1, 1]), [0, 2], rtol=1e-6
    )  # no direction: length 0
    np.testing.assert_array_equal(averaged([[0, 0], [0, 0]], [1, 1]), [0, 0])


class PlainMean(DecoupledDiLoCo):
    def combine(self, messages, weights):
        return Algorithm.combine(self, messages, weights)


class WithoutLength(DecoupledDiLoCo):
    """The mean direction times the length of the mean."""

    def combine(self, messages, weights):
        plain = np.linalg.norm(Algorithm.combine(self, [each.copy() for each in messages], weights))
        mean = super().combine(messages, weights)
        return mean * plain / np.linalg.norm(mean)


class EqualWeights(DecoupledDiLoCo):
    def combine(self, messages, weights):
        return super().combine(messages, np.full_like(weights, 1 / len(weights)))


@pytest.mark.parametrize("fault", [PlainMean, WithoutLength, EqualWeights])
def test_planted_fault_in_radial_directional_averaging_is_found(fault):
    with pytest.raises(AssertionError):
        check_radial_directional(fault())


def test_decoupled_diloco_weighs_by_rows_times_rows_a_step():
    assert DecoupledDiLoCo().weight(100, 10) == 1000
    rule = DecoupledDiLoCo(outer_learning_rate=1.0, outer_momentum=0.0)
    job = Job(rule, [0.0, 0.0], 2, tensors=(1, 1))
    commit(job, A, [4.0, 1.0], num_samples=30, num_steps=10)  # 90
    commit(job, B, [8.0, 1.0], num_samples=10, num_steps=10)  # 10
    check(job, [(90 * 4 + 10 * 8) / 100, 1.0])  # each tensor of its own


def test_eager_diloco_steps_by_the_round_before_with_its_own_fresh_part():
    job = Job(EagerDiLoCo(outer_learning_rate=1.0, outer_momentum=0.0), [0.0], 2)
    commit(job, A, 2.0)
    commit(job, B, 4.0)
    check(job, 3.0, a=1.0, b=2.0)  # before the first round: only the own part
    commit(job, A, job.anchor[A] + 6)
    commit(job, B, job.anchor[B] + 4)
    # The mean of (2, 4) with 6 in place of 2, from where A was: 1 + 3 + (6 - 2) / 2 = 1 + 5.
    check(job, 8.0, a=6.0, b=2.0 + 3.0)


def test_eager_diloco_has_the_steps_of_the_paper():
    """The outer optimizer of the paper, in each worker, on `mean d(t-1) + (d_i(t) - d_i(t-1)) / N`."""
    rule, (rate, beta) = EagerDiLoCo(), (0.7, 0.9)
    job, random = Job(rule, [1.0], 3), np.random.default_rng(5)
    weights, momenta, last = [1.0] * 3, [0.0] * 3, [0.0] * 3
    for _ in range(6):
        deltas = random.normal(size=3).tolist()
        for worker in job.workers:
            commit(job, worker, job.anchor[worker] + np.float32(deltas[worker]))
            gradient = sum(last) / 3 + (deltas[worker] - last[worker]) / 3
            momenta[worker] = beta * momenta[worker] + gradient
            weights[worker] += rate * (beta * momenta[worker] + gradient)
        last = deltas
        np.testing.assert_allclose([float(local[0]) for local in job.local], weights, rtol=1e-4, atol=1e-5)


def test_halos_merges_the_center_into_what_the_worker_has():
    job = Job(HALoS(outer_learning_rate=0.5, outer_momentum=0.8, period=2, alpha=0.25), [1.0], 2)
    commit(job, A, 3.0)  # g = -2: c = 1 + 0.5 (2 / 2), x = 0.75 * 3 + 0.25 * 1.5
    check(job, 1.5, a=2.625)
    commit(job, B, 5.0)  # buffer -6, m = -3: c = 1.5 + 0.5 (0.8 * 3 + 4 / 2), x = 0.75 * 5 + 0.25 * 3.7
    check(job, 3.7, b=4.675)
    commit(job, A, 3.625)  # what it has moved since the merge: c = 3.7 + 0.5 * 1 / 2
    check(job, 3.95, a=0.75 * 3.625 + 0.25 * 3.95)


def test_gpa_adds_the_mean_and_averages_in_the_worker():
    job = Job(GPA(), [1.0], 2)
    commit(job, A, 3.0)
    commit(job, B, 7.0)
    check(job, 5.0, a=5.0, b=5.0)
    options = {"num_workers": 1, "num_commits": 3, "learning_rate": 0.5, "step_time": Constant()}
    found = simulate(GPA(1, mu_x=0.5, mu_y=0.25), Quadratic(), **options).centers.ravel()
    # y = z = x = 1: z = 0.5, x = 0.75. y = 0.25 * 0.75 + 0.75 * 0.5 = 0.5625: z = 0.21875, x = 0.484375.
    # y = 0.25 * 0.484375 + 0.75 * 0.21875 = 0.28515625: z = 0.076171875, x = 0.2802734375.
    np.testing.assert_allclose(found, [1, 0.75, 0.484375, 0.2802734375], rtol=1e-6)


def test_gpa_with_sgd_is_nesterov_at_one_minus_mu_times_the_rate_and_sgd_without_mu_x():
    problem, options = Quadratic((0.5, 1.0)), {"num_workers": 1, "num_commits": 30, "step_time": Constant()}
    gpa = simulate(GPA(2, mu_x=0.8, mu_y=0.8), problem, learning_rate=0.5, **options)
    # An exchange of alpha 1 with one worker: the center takes its weights; its velocity stays.
    nesterov = simulate(Momentum(2), problem, learning_rate=0.1, **options)
    np.testing.assert_allclose(gpa.centers, nesterov.centers, rtol=1e-4, atol=1e-6)
    plain = simulate(LocalSGD(2), problem, learning_rate=0.1, **options)
    averaged = simulate(GPA(2, mu_x=0.0, mu_y=0.3), problem, learning_rate=0.1, **options)
    np.testing.assert_allclose(averaged.centers, plain.centers, rtol=1e-5)


class Momentum(LocalSGD):
    inner_momentum = 0.8


def test_every_rule_has_its_golden_numbers():
    source = Path(__file__).read_text(encoding="utf-8")
    tests = source[source.index("def commit(") :]
    assert [name for name in REGISTRY if not re.search(rf"\b{name}\b", tests)] == []
