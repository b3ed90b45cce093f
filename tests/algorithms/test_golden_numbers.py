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
    REGISTRY,
    AdaptiveADAG,
    Averaging,
    DelayedNesterov,
    DiLoCo,
    DyLU,
    DynSGD,
    FedAdam,
    FedBuff,
    GapAware,
    LocalSGD,
    Ringmaster,
    Sequential,
    SlowMo,
    StreamingDiLoCo,
    TrimmedMean,
)

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
    # By the defaults, whatever D: 0.1 * 0.1 D / sqrt(0.01 D^2) = 0.1.
    check(job, 1.1)


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


def test_every_rule_has_its_golden_numbers():
    source = Path(__file__).read_text(encoding="utf-8")
    tests = source[source.index("def commit(") :]
    assert [name for name in REGISTRY if not re.search(rf"\b{name}\b", tests)] == []
