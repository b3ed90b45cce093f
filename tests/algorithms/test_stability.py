"""The oracles: what theory says of a rule on quadratics, against the rule as it runs."""

import numpy as np
import pytest
from driving import Job, transition_matrix

from distkeras.algorithms import (
    ADAG,
    AEASGD,
    DCASGD,
    DOWNPOUR,
    EASGD,
    AdaptiveDCASGD,
    DynSGD,
    FedAdam,
    GapAware,
    RescaledASGD,
    Ringmaster,
    Sequential,
    get,
    window_by_speed,
)
from distkeras.algorithms.stability import (
    aeasgd_limit,
    aeasgd_matrix,
    commit_gain,
    delay_limit,
    easgd_limit,
    easgd_matrix,
    easgd_window_limit,
    round_robin_delay,
    round_robin_limit,
    round_robin_matrix,
    spectral_radius,
    warn_if_unstable,
    window_decay,
)
from distkeras.simulation import Constant, Quadratic, simulate


def unit(size):
    return np.eye(size, dtype=np.float32)[0]


# Oracle B: workers that commit in turn.


def round_robin_period(rule, num_workers, rate):
    """Return the map of (c, x_1, ..., x_N) over one commit of each worker, in turn."""
    job = Job(rule, unit(num_workers + 1), num_workers)
    job.round(rule.communication_window)  # nothing trained; from here on every commit is N - 1 commits stale

    def period(job):
        for worker in job.workers:
            job.train(worker, rule.communication_window, rate=rate)
            job.exchange(worker, rule.communication_window)

    return transition_matrix(job, period)


def check_round_robin(rule, num_workers, rate):
    """The rule as it runs grows, per commit, as theory's delayed recursion with theory's gain."""
    expected = spectral_radius(round_robin_matrix(num_workers, commit_gain(rule, num_workers, rate)))
    found = spectral_radius(round_robin_period(rule, num_workers, rate)) ** (1 / num_workers)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


ROUND_ROBIN = [
    (10, 1, {DOWNPOUR: 0.61, ADAG: 0.61, DynSGD: 0.06}),
    (10, 5, {DOWNPOUR: 2.48, ADAG: 0.50, DynSGD: 0.25}),
    (20, 5, {DOWNPOUR: 5.09, ADAG: 1.02, DynSGD: 0.25}),
    (20, 10, {DOWNPOUR: 8.09, ADAG: 0.81, DynSGD: 0.40}),
]


@pytest.mark.parametrize(("num_workers", "window", "ratios"), ROUND_ROBIN)
@pytest.mark.parametrize("rule", [DOWNPOUR, ADAG, DynSGD])
def test_gain_over_its_limit_when_workers_commit_in_turn(rule, num_workers, window, ratios):
    algorithm = rule(window)
    ratio = commit_gain(algorithm, num_workers, 0.1) / round_robin_limit(num_workers)
    assert round(ratio, 2) == ratios[rule]
    check_round_robin(algorithm, num_workers, 0.1)
    assert (spectral_radius(round_robin_period(algorithm, num_workers, 0.1)) > 1) == (ratio > 1)


@pytest.mark.parametrize("num_workers", [1, 2, 3, 8, 20])
def test_round_robin_limit_parts_stable_from_unstable(num_workers):
    limit = round_robin_limit(num_workers)
    for side, verdict in ((0.99, False), (1.01, True)):
        # One step of rate r has gain r, so the rule itself can be put on either side.
        found = spectral_radius(round_robin_period(DOWNPOUR(1), num_workers, side * limit))
        theory = spectral_radius(round_robin_matrix(num_workers, side * limit))
        assert (found > 1) == (theory > 1) == verdict


def test_round_robin_limit_of_one_worker_is_that_of_gradient_descent():
    assert round_robin_limit(1) == pytest.approx(2)
    assert commit_gain(DOWNPOUR(1), 1, 0.3) == pytest.approx(0.3)


class WrongSign(DOWNPOUR):
    def apply(self, center, message, commit, state):
        center -= message
        return center


class StalenessTooSmall(DynSGD):
    def apply(self, center, message, commit, state):
        center += message / max(commit.staleness, 1)
        return center


class StalenessTooLarge(DynSGD):
    def apply(self, center, message, commit, state):
        center += message / (commit.staleness + 2)
        return center


class StalenessForgotten(DynSGD):
    def apply(self, center, message, commit, state):
        center += message
        return center


class WindowTooShort(ADAG):
    def commit(self, local, anchor, num_steps):
        return (local - anchor) / np.float32(num_steps - 1)


class WindowForgotten(ADAG):
    def commit(self, local, anchor, num_steps):
        return local - anchor


class StaleReply(DOWNPOUR):
    def apply(self, center, message, commit, state):
        before = center.copy()
        center += message
        return before


@pytest.mark.parametrize(
    "fault",
    [
        WrongSign,
        StalenessTooSmall,
        StalenessTooLarge,
        StalenessForgotten,
        WindowTooShort,
        WindowForgotten,
        StaleReply,
    ],
)
@pytest.mark.parametrize("num_workers", [4, 10])
def test_planted_fault_in_a_delta_rule_is_found(fault, num_workers):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_round_robin(fault(5), num_workers, 0.1)


# Oracle C: synchronous EASGD.


def easgd_round(rule, num_workers, rate):
    """Return the map of (c, x_1, ..., x_N) over one round of the paper: gradient and force at the old x."""

    def period(job):
        before = [local.copy() for local in job.local]
        job.round()
        for worker in job.workers:
            job.local[worker] -= np.float32(rate) * before[worker]

    return transition_matrix(Job(rule, unit(num_workers + 1), num_workers), period)


def easgd_window_round(rule, num_workers, rate):
    """Return the map of (c, x_1, ..., x_N) over one window and its round, as production runs them."""

    def period(job):
        for worker in job.workers:
            job.train(worker, rule.communication_window, rate=rate)
        job.round(rule.communication_window)

    return transition_matrix(Job(rule, unit(num_workers + 1), num_workers), period)


def check_easgd(rule, num_workers, rate):
    np.testing.assert_allclose(
        easgd_round(rule, num_workers, rate), easgd_matrix(num_workers, rate, rule.alpha), atol=1e-6
    )


@pytest.mark.parametrize("num_workers", [1, 4, 16])
@pytest.mark.parametrize("rate", [0.1, 1.0, 1.9])
def test_synchronous_easgd_diverges_at_the_limit_of_the_paper(num_workers, rate):
    for side, verdict in ((0.99, False), (1.01, True)):
        alpha = side * easgd_limit(num_workers, rate)
        if alpha <= 1:
            check_easgd(EASGD(1, alpha), num_workers, rate)
            assert (spectral_radius(easgd_round(EASGD(1, alpha), num_workers, rate)) > 1) == verdict
        assert (spectral_radius(easgd_matrix(num_workers, rate, alpha)) > 1) == verdict


@pytest.mark.parametrize("num_workers", [3, 4, 16])
@pytest.mark.parametrize(("rate", "window"), [(0.1, 1), (0.1, 10), (0.9, 3), (1.5, 1), (1.9, 1), (1.9, 2)])
def test_synchronous_easgd_diverges_at_its_limit_after_a_window(num_workers, rate, window):
    limit = easgd_window_limit(num_workers, window_decay(rate, window))
    for side, verdict in ((0.99, False), (1.01, True)):
        rule = EASGD(window, side * limit)
        assert (spectral_radius(easgd_window_round(rule, num_workers, rate)) > 1) == verdict


@pytest.mark.parametrize("num_workers", [1, 3, 30])
@pytest.mark.parametrize("rate", [0.01, 0.1, 1.0, 1.9])
def test_default_alpha_of_easgd_is_stable(num_workers, rate):
    rule = EASGD()
    assert warn_if_unstable(rule, num_workers, rate) is None
    assert spectral_radius(easgd_window_round(rule, num_workers, rate)) < 1


def closed_form_of_the_center(t, start, num_workers, rate, alpha, noise):
    """Return mean and variance of the center after `t` rounds (Zhang et al. 2015, supplement).

    With a = rate + (N + 1) alpha, c^2 = rate N alpha, and gamma, phi = 1 - (a -+ sqrt(a^2 - 4 c^2)) / 2:
    mean = gamma^t c_0 + (gamma^t - phi^t) / (gamma - phi) alpha u_0,
    u_0 = sum_i (x_i - alpha / (1 - N alpha - phi) c_0),
    variance = (N alpha)^2 / (gamma - phi)^2 ((gamma^2 - gamma^2t) / (1 - gamma^2)
        + (phi^2 - phi^2t) / (1 - phi^2) - 2 (gamma phi - (gamma phi)^t) / (1 - gamma phi)) noise^2 / N.
    """
    a, c2 = rate + (num_workers + 1) * alpha, rate * num_workers * alpha
    root = np.sqrt(a**2 - 4 * c2)
    gamma, phi = 1 - (a - root) / 2, 1 - (a + root) / 2
    u_0 = sum(x - alpha / (1 - num_workers * alpha - phi) * start[0] for x in start[1:])
    mean = gamma**t * start[0] + (gamma**t - phi**t) / (gamma - phi) * alpha * u_0

    def tail(q):
        return (q - q**t) / (1 - q)

    spread = tail(gamma**2) + tail(phi**2) - 2 * tail(gamma * phi)
    variance = (num_workers * alpha / (gamma - phi)) ** 2 * spread * noise**2 / num_workers
    return mean, variance


def check_center_of_easgd(rule, num_workers, rate, noise=0.14):
    """Mean and variance of the center, from the rule's own map, with gradient noise on every worker."""
    matrix = easgd_round(rule, num_workers, rate)
    start = np.linspace(1.5, -2.0, num_workers + 1)
    mean, covariance = start, np.zeros_like(matrix)
    shake = noise**2 * np.diag([0.0] + [1.0] * num_workers)
    for t in range(1, 40):
        mean, covariance = matrix @ mean, matrix @ covariance @ matrix.T + shake
        expected = closed_form_of_the_center(t, start, num_workers, rate, rule.alpha, noise)
        np.testing.assert_allclose((mean[0], covariance[0, 0]), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_workers", [1, 4, 10])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_center_of_easgd_has_the_mean_and_variance_of_the_paper(num_workers, rate):
    check_center_of_easgd(EASGD(1, 0.9 / num_workers), num_workers, rate)


class MeanInsteadOfSum(EASGD):
    def apply(self, center, message, commit, state):
        before = center.copy()
        center += self.alpha * (message - center)
        return before


class ForceFromTheNewCenter(EASGD):
    def apply(self, center, message, commit, state):
        super().apply(center, message, commit, state)
        return center


class ForceOutward(EASGD):
    def adopt(self, local, message, reply):
        return local + self.alpha * (local - reply)


@pytest.mark.parametrize("fault", [MeanInsteadOfSum, ForceFromTheNewCenter, ForceOutward])
def test_planted_fault_in_easgd_is_found(fault):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_easgd(fault(1, 0.2), 4, 0.1)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_center_of_easgd(fault(1, 0.2), 4, 0.1)


# Oracle D: atomic AEASGD.


def aeasgd_period(rule, num_workers, rate):
    """Return the map of (c, x_1, ..., x_N) over one turn of each worker: gradient and force at the old x."""

    def period(job):
        for worker in job.workers:
            before = job.local[worker].copy()
            job.exchange(worker)
            job.local[worker] -= np.float32(rate) * before

    return transition_matrix(Job(rule, unit(num_workers + 1), num_workers), period)


def elastic(alpha, rule=AEASGD):
    return rule(1, rho=1.0, learning_rate=alpha)


def check_aeasgd(rule, num_workers, rate):
    np.testing.assert_allclose(
        aeasgd_period(rule, num_workers, rate), aeasgd_matrix(num_workers, rate, rule.alpha), atol=1e-6
    )


@pytest.mark.parametrize("num_workers", [1, 3, 10])
@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0, 1.5, 1.9])
def test_atomic_aeasgd_diverges_at_the_same_limit_whatever_the_workers(num_workers, rate):
    for side, verdict in ((0.99, False), (1.01, True)):
        rule = elastic(side * aeasgd_limit(rate))
        check_aeasgd(rule, num_workers, rate)
        assert (spectral_radius(aeasgd_period(rule, num_workers, rate)) > 1) == verdict


@pytest.mark.parametrize("num_workers", [1, 3, 10])
@pytest.mark.parametrize("rate", [0.1, 1.0, 1.9])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_aeasgd_that_pulls_after_its_window_is_stable_at_every_alpha(num_workers, rate, alpha):
    job = Job(elastic(alpha), unit(num_workers + 1), num_workers)

    def period(job):
        for worker in job.workers:
            job.train(worker, rate=rate)
            job.exchange(worker)

    assert spectral_radius(transition_matrix(job, period)) < 1


class TwoSteps(AEASGD):
    """As dist-keras: the force of the worker and that of the center are not the same."""

    def apply(self, center, message, commit, state):
        center += self.alpha * (message - center)
        return self.alpha * (message - center)


class AlphaTwice(AEASGD):
    def apply(self, center, message, commit, state):
        return super().apply(center, self.alpha * message, commit, state)


class ForceReversed(AEASGD):
    def adopt(self, local, message, reply):
        return local + reply


@pytest.mark.parametrize("fault", [TwoSteps, AlphaTwice, ForceReversed])
def test_planted_fault_in_aeasgd_is_found(fault):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_aeasgd(elastic(0.5, fault), 3, 0.1)


# Overlap, and rules that are DOWNPOUR at worst.


@pytest.mark.parametrize(("num_workers", "measured"), [(2, 0.9998), (4, 0.2778), (10, 0.0889)])
def test_workers_that_overlap_whole_windows_are_stable_below_the_limit_of_twice_the_delay(
    num_workers, measured
):
    def shrinks(rate):
        result = simulate(
            DOWNPOUR(1),
            Quadratic(),
            num_workers=num_workers,
            num_commits=150 * num_workers,
            learning_rate=rate,
            step_time=Constant(),
            overlap=True,
            evaluate_every=num_workers,
        )
        path = np.abs(result.centers.ravel())
        return not result.diverged and path[-40:].max() < path[40:80].max()

    safe = delay_limit(round_robin_delay(DOWNPOUR(1), num_workers, True))
    assert safe <= measured
    assert shrinks(0.97 * safe)
    assert shrinks(0.97 * measured)
    assert not shrinks(1.05 * measured)


@pytest.mark.parametrize("rule", [Ringmaster(5), DCASGD(5), AdaptiveDCASGD(5), GapAware(5), RescaledASGD(5)])
def test_rules_that_are_downpour_at_worst_have_its_gain(rule):
    assert commit_gain(rule, 10, 0.1) == commit_gain(DOWNPOUR(5), 10, 0.1)
    assert f"{rule.name}(" in warn_if_unstable(rule, 10, 0.1)


def test_ringmaster_is_as_stale_as_its_threshold_lets_it_be():
    assert round_robin_delay(Ringmaster(5), 10) == 9
    assert round_robin_delay(Ringmaster(5, delay_threshold=3), 10) == 2
    assert warn_if_unstable(Ringmaster(5, delay_threshold=3), 10, 0.1) is None


class ByWorker(ADAG):
    def window(self, worker, speeds):
        return window_by_speed(self.communication_window, worker, speeds)


def test_windows_by_worker_are_judged_by_the_worst_of_them():
    assert commit_gain(ByWorker(10), 20, 0.1) == pytest.approx(0.1)
    assert warn_if_unstable(ADAG(10), 20, 0.1) is None
    assert "ByWorker(" in warn_if_unstable(ByWorker(10), 20, 0.1)


def test_dynsgd_divides_by_the_delay_of_overlap():
    assert commit_gain(DynSGD(5), 10, 0.1, True) == pytest.approx(commit_gain(DOWNPOUR(5), 1, 0.1) / 19)


def test_warning_of_overlap_names_waiting_as_a_choice():
    assert warn_if_unstable(DOWNPOUR(5), 4, 0.1, overlap=3) is None
    message = warn_if_unstable(DOWNPOUR(5), 4, 0.1, overlap=True)
    assert "that overlap their windows (0.241)" in message
    assert "`overlap=False`" in message
    assert "at most 2 workers" in message


# The warning.


def test_warning_names_the_figures_and_what_to_choose_instead():
    message = warn_if_unstable(DOWNPOUR(5), 10, 0.1)
    assert "DOWNPOUR(communication_window=5) is unstable with 10 workers" in message
    assert "2.48 times" in message
    assert "(0.165)" in message
    assert "AEASGD" in message
    assert "DynSGD (0.25 times)" in message
    assert "ADAG (0.50 times)" in message
    assert "at most 4 workers" in message


def test_warning_recommends_only_what_is_stable():
    message = warn_if_unstable(ADAG(5), 20, 0.1)
    assert "1.02 times" in message
    assert "ADAG (" not in message
    assert "at most 19 workers" in message
    assert warn_if_unstable(ADAG(5), 19, 0.1) is None
    assert warn_if_unstable(DOWNPOUR(5), 4, 0.1) is None
    assert warn_if_unstable(DOWNPOUR(5), 5, 0.1) is not None


def test_warning_counts_the_curvature():
    assert warn_if_unstable(DOWNPOUR(5), 10, 0.01) is None
    assert warn_if_unstable(DOWNPOUR(5), 10, 0.01, curvature=10.0) == warn_if_unstable(DOWNPOUR(5), 10, 0.1)


def test_warning_of_a_window_of_one_epoch_takes_it_for_endless():
    assert "a commit adds 1 of the distance" in warn_if_unstable(DOWNPOUR(None), 3, 0.1)
    assert warn_if_unstable(ADAG(None), 30, 0.1) is None


def test_warning_of_easgd_names_the_bound_of_alpha():
    message = warn_if_unstable(EASGD(1, 0.5), 8, 0.1)
    assert "must stay below 0.224" in message
    assert "alpha=0.113" in message


@pytest.mark.parametrize("name", ["Sequential", "AEASGD", "FedAdam", "DOWNPOUR"])
def test_learning_rate_that_diverges_alone_is_warned_of_whatever_the_rule(name):
    assert "Use a learning rate below 0.2" in warn_if_unstable(get(name), 1, 0.25, curvature=10.0)
    assert warn_if_unstable(get(name), 1, 2.0) is not None
    assert warn_if_unstable(get(name), 1, 1.9) is None


def test_no_warning_where_nothing_is_known():
    for rule in (FedAdam(), Sequential(), AEASGD()):
        assert warn_if_unstable(rule, 100, 0.5) is None
