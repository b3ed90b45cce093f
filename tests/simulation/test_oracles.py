"""Numbers that the papers derive, reproduced by running the simulator; and faults that must break them."""

import itertools

import numpy as np
import pytest

from distkeras.algorithms import ADAG, AEASGD, DOWNPOUR, EASGD, DynSGD
from distkeras.simulation import Constant, Exponential, Gamma, Heterogeneous, Network, Quadratic, simulate

# --- A. Asynchrony begets momentum (Mitliagkas 2016) ------------------------------------------------------

CURVATURE, RATE = 2.0, 0.15  # eta h = 0.3, with neither factor 1
COMMITS, RUNS = 16, 1500


class SignTurned(DOWNPOUR):
    def commit(self, local, anchor, num_steps):
        return anchor - local


class StaleByOneMore(DOWNPOUR):
    def apply(self, center, message, commit, state):
        before = center.copy()
        center += message
        return before


class HalfCounted(DOWNPOUR):
    def apply(self, center, message, commit, state):
        center += message / 2
        return center


class LongerWindow(Quadratic):
    def train(self, weights, num_steps, replica):
        return super().train(weights, num_steps + 1, replica)


class FirstWindowShort(Quadratic):
    """The window is tested before training: the first commit is one step short."""

    def train(self, weights, num_steps, replica):
        first = not replica.memory
        replica.memory["begun"] = True
        return super().train(weights, num_steps - first, replica)


def implicit_momentum(num_workers):
    """E[w_t] for t = 0 .. COMMITS."""
    momentum = 1 - 1 / num_workers
    expected = [1.0, 1 - RATE * CURVATURE]
    for _ in range(COMMITS - 1):
        last, before = expected[-1], expected[-2]
        expected.append(last + momentum * (last - before) - (1 - momentum) * RATE * CURVATURE * last)
    return np.array(expected)


def distance_from_oracle(num_workers, rule=DOWNPOUR, problem=Quadratic, runs=RUNS, step_time=Exponential):
    """The largest distance of the mean center from the oracle, absolute and in standard errors."""
    centers = np.array(
        [
            simulate(
                rule(communication_window=1),
                problem(curvature=CURVATURE),
                num_workers=num_workers,
                num_commits=COMMITS,
                learning_rate=RATE,
                step_time=step_time(),
                seed=seed,
            ).centers[:, 0]
            for seed in range(runs)
        ],
        np.float64,
    )
    distance = np.abs(centers.mean(0) - implicit_momentum(num_workers))
    error = centers.std(0) / runs**0.5 + 1e-6
    return distance.max(), (distance / error).max()


@pytest.mark.parametrize("num_workers", [4, 8])
def test_asynchrony_gives_the_momentum_of_the_paper(num_workers):
    absolute, errors = distance_from_oracle(num_workers)
    assert absolute < 0.015
    assert errors < 4


@pytest.mark.parametrize(
    "fault",
    [
        {"rule": SignTurned},
        {"rule": StaleByOneMore},
        {"rule": HalfCounted},
        {"problem": LongerWindow},
        {"problem": FirstWindowShort},
        {"step_time": Constant},
        {"step_time": Gamma},
    ],
    ids=str,
)
def test_a_planted_fault_breaks_the_momentum_oracle(fault):
    absolute, errors = distance_from_oracle(4, runs=400, **fault)
    assert absolute > 0.045
    assert errors > 6


@pytest.mark.parametrize("num_workers", [1, 2, 7, 30])
@pytest.mark.parametrize("step_time", [Constant(), Exponential(), Gamma(), Heterogeneous()], ids=repr)
@pytest.mark.parametrize("network", [Network(), Network(latency=2.0, service=0.01)], ids=repr)
def test_mean_staleness_is_one_less_than_the_workers(num_workers, step_time, network):
    result = simulate(
        DOWNPOUR(communication_window=2),
        Quadratic(),
        num_workers=num_workers,
        num_commits=100 * num_workers,
        learning_rate=0.0,
        step_time=step_time,
        network=network,
    )
    # Each worker's staleness + 1 sums to the version of its last commit.
    last = [np.flatnonzero(result.workers == worker).max() + 1 for worker in np.unique(result.workers)]
    assert (result.staleness + 1).sum() == sum(last)
    assert result.staleness.mean() == pytest.approx(num_workers - 1, abs=0.12 * num_workers)


# --- B. Round-robin stability -----------------------------------------------------------------------------

SHARES = {  # of a delta that a commit adds, given its staleness
    DOWNPOUR: lambda staleness, window: 1,
    ADAG: lambda staleness, window: 1 / window,
    DynSGD: lambda staleness, window: 1 / (staleness + 1),
}
TABLE = {  # gain over its limit at eta h = 0.1
    (10, 1): {DOWNPOUR: 0.61, ADAG: 0.61, DynSGD: 0.06},
    (10, 5): {DOWNPOUR: 2.48, ADAG: 0.50, DynSGD: 0.25},
    (20, 5): {DOWNPOUR: 5.09, ADAG: 1.02, DynSGD: 0.25},
    (20, 10): {DOWNPOUR: 8.09, ADAG: 0.81, DynSGD: 0.40},
}


def round_robin(share, num_workers, window, gain, num_commits):
    """The center by the recursion `c_(t+1) = c_t - share gain c_(t-staleness)`, in double precision."""
    centers = [1.0]
    for commit in range(num_commits):
        staleness = min(commit, num_workers - 1)
        centers.append(centers[-1] - share(staleness, window) * gain * centers[commit - staleness])
    return np.array(centers)


@pytest.mark.parametrize("rule", SHARES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize(("num_workers", "window"), TABLE)
def test_round_robin_contracts_or_diverges_as_the_spectral_bound_says(rule, num_workers, window):
    gain = SHARES[rule](num_workers - 1, window) * (1 - 0.9**window)
    limit = 2 * np.sin(np.pi / (2 * (2 * num_workers - 1)))
    assert gain / limit == pytest.approx(TABLE[num_workers, window][rule], abs=0.006)
    radius = np.abs(np.roots([1, -1, *[0] * (num_workers - 2), gain])).max()
    assert (radius > 1) == (gain > limit)
    result = simulate(
        rule(communication_window=window),
        Quadratic(),
        num_workers=num_workers,
        num_commits=4000 if abs(radius - 1) < 0.002 else 1000,
        learning_rate=0.1,
        step_time=Constant(),
    )
    distance = np.abs(result.centers[:, 0])
    assert (distance[-300:].max() > distance[150:450].max()) == (gain > limit)
    expected = round_robin(SHARES[rule], num_workers, window, 1 - 0.9**window, 400)
    np.testing.assert_allclose(
        result.centers[:401, 0], expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max()
    )


def test_divergence_ends_the_run_at_its_last_finite_commit():
    result = simulate(
        DOWNPOUR(communication_window=10),
        Quadratic(),
        num_workers=20,
        num_commits=5000,
        learning_rate=0.1,
        step_time=Constant(),
    )
    assert result.diverged
    assert 100 < result.num_commits < 5000
    assert result.centers.shape == (result.num_commits + 1, 1)
    assert np.abs(result.centers[-200]) > 1e6


# --- C, D. Elastic averaging (Zhang 2015) -----------------------------------------------------------------


class PaperEASGD(EASGD):
    """Gradient and elastic force both at the old weights, as the paper analyses it."""

    def commit(self, local, anchor, num_steps):
        return anchor.copy()

    def adopt(self, local, message, reply):
        return local - self.alpha * (message - reply)


class PaperAEASGD(AEASGD):
    """Gradient and elastic force both at the old weights, as the paper analyses it."""

    def commit(self, local, anchor, num_steps):
        return anchor.copy()


def contracts(rule, num_workers, rate, num_commits):
    result = simulate(
        rule,
        Quadratic(),
        num_workers=num_workers,
        num_commits=num_commits,
        learning_rate=rate,
        step_time=Constant(),
    )
    distance = np.abs(result.centers[:, 0])
    sixth = num_commits // 6
    return not result.diverged and bool(distance[-sixth:].max() < 0.5 * distance[:sixth].max())


def synchronous_bound(num_workers, rate):
    return (4 - 2 * rate) / (2 * (num_workers + 1) - num_workers * rate)


@pytest.mark.parametrize("num_workers", [2, 4, 12])
@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_synchronous_easgd_is_stable_up_to_the_papers_bound(num_workers, rate):
    papers = (4 - 2 * rate) / (2 * (num_workers + 1) - num_workers * rate)
    # Training first and exchanging then, as every rule here does, has room beyond it.
    ours = (4 - 2 * rate) / (2 * (num_workers + 1) - (num_workers + 2) * rate)
    assert papers < ours
    for kind, bound in ((PaperEASGD, papers), (EASGD, ours)):
        for alpha in (0.97 * bound, 1.03 * bound):
            if alpha < 1:
                rule = kind(communication_window=1, alpha=alpha)
                assert contracts(rule, num_workers, rate, num_commits=400) == (alpha < bound)


@pytest.mark.parametrize(("num_workers", "rate", "alpha"), [(4, 0.2, 0.1), (10, 0.5, 0.09)])
def test_synchronous_easgd_has_the_mean_and_variance_of_the_closed_form(num_workers, rate, alpha):
    noise, rounds, samples = 0.5, 30, 20_000
    result = simulate(
        PaperEASGD(communication_window=1, alpha=alpha),
        Quadratic(np.ones(samples), noise=noise),
        num_workers=num_workers,
        num_commits=rounds,
        learning_rate=rate,
    )
    # (mean of the workers, center) is a linear process; Zhang 2015, section 5, at p workers and h = 1.
    step = np.array([[1 - rate - alpha, alpha], [num_workers * alpha, 1 - num_workers * alpha]])
    mean, covariance = np.ones(2), np.zeros((2, 2))
    drive = np.diag([(rate * noise) ** 2 / num_workers, 0.0])
    for center in result.centers[1:]:
        mean, covariance = step @ mean, step @ covariance @ step.T + drive
        error = (covariance[1, 1] / samples) ** 0.5
        assert center.mean(dtype=np.float64) == pytest.approx(mean[1], abs=4 * error + 1e-5)
        assert center.var(dtype=np.float64) == pytest.approx(covariance[1, 1], rel=5 * (2 / samples) ** 0.5)


@pytest.mark.parametrize("num_workers", [1, 3, 12])
@pytest.mark.parametrize("rate", [0.3, 1.0, 1.6])
def test_atomic_round_robin_aeasgd_is_stable_up_to_the_papers_bound_for_any_workers(num_workers, rate):
    bound = (4 - 2 * rate) / (4 - rate)
    num_commits = 300 * num_workers

    def rule(kind, alpha):
        return kind(communication_window=1, rho=1.0, learning_rate=alpha)

    assert contracts(rule(PaperAEASGD, 0.97 * bound), num_workers, rate, num_commits)
    assert not contracts(rule(PaperAEASGD, 1.03 * bound), num_workers, rate, num_commits)
    # Training first and exchanging then is stable for every alpha that the rule allows.
    for alpha in (0.05, bound, 0.99):
        assert contracts(rule(AEASGD, alpha), num_workers, rate, num_commits)
    assert not contracts(rule(PaperAEASGD, 0.01), num_workers, 2.1, num_commits)


def test_an_elastic_exchange_conserves_the_sum_of_worker_and_center():
    result = simulate(
        AEASGD(rho=1.0, learning_rate=0.3),
        Quadratic(start=2.0),
        num_workers=5,
        num_commits=200,
        learning_rate=0.0,
    )
    assert all(center == start for center, start in itertools.pairwise(result.centers[:, 0]))
