"""Stability of algorithms on quadratics: closed-form limits, transition matrices and a warning.

On `f = h x^2 / 2` a step of gradient descent multiplies the distance to the optimum by `1 - rate`, with
`rate = learning_rate * curvature` (the papers' eta h). An algorithm is then a linear map of the center and
the workers' weights. It is stable if no eigenvalue of that map exceeds 1 in magnitude.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from distkeras.algorithms.adag import ADAG
from distkeras.algorithms.adaptive_dcasgd import AdaptiveDCASGD
from distkeras.algorithms.base import Algorithm
from distkeras.algorithms.dcasgd import DCASGD
from distkeras.algorithms.downpour import DOWNPOUR
from distkeras.algorithms.dynsgd import DynSGD
from distkeras.algorithms.easgd import EASGD
from distkeras.algorithms.gap_aware import GapAware
from distkeras.algorithms.rescaled_asgd import RescaledASGD
from distkeras.algorithms.ringmaster import Ringmaster

Matrix = npt.NDArray[np.float64]


def window_decay(rate: float, num_steps: int | None) -> float:
    """Return the part of the distance to the optimum left by a window: `(1 - rate)^num_steps`; epoch: 0."""
    return 0.0 if num_steps is None else (1 - rate) ** num_steps


def commit_gain(
    algorithm: Algorithm, num_workers: int, rate: float, overlap: bool | int = False
) -> float | None:
    """Return the share of the distance to the optimum that one commit adds when workers commit in turn.

    `k = 1 - (1 - rate)^H` for DOWNPOUR and those that are DOWNPOUR at worst or at equal speeds (Ringmaster,
    DCASGD, AdaptiveDCASGD, GapAware, RescaledASGD); `k / H` for ADAG; `k / (D + 1)` for DynSGD, with the
    delay D; `None` for other algorithms.

    A rule that chooses windows by worker is taken by its worst: `communication_window` is its longest one,
    and the shortest has one step, by which ADAG adds most.
    """
    window = algorithm.communication_window
    chooses = type(algorithm).window is not Algorithm.window
    gain = 1 - window_decay(rate, window)
    match algorithm:
        case DOWNPOUR() | Ringmaster() | DCASGD() | AdaptiveDCASGD() | GapAware() | RescaledASGD():
            return gain
        case ADAG():
            return rate if chooses else 0.0 if window is None else gain / window
        case DynSGD():
            return gain / (round_robin_delay(algorithm, num_workers, overlap) + 1)
    return None


def round_robin_delay(algorithm: Algorithm, num_workers: int, overlap: bool | int = False) -> int:
    """Return the staleness of workers that commit in turn.

    `N - 1`; `2 N - 2` if whole windows overlap, so that a message is based on the center of one exchange
    earlier. Ringmaster takes nothing as stale as its threshold.
    """
    delay = 2 * num_workers - 2 if overlap is True else num_workers - 1
    if isinstance(algorithm, Ringmaster):
        return int(min(delay, algorithm.threshold(num_workers) - 1))
    return delay


def delay_limit(delay: int) -> float:
    """Return the gain above which commits of staleness `delay` diverge: `2 sin(pi / (2 (2 delay + 1)))`."""
    return 2 * math.sin(math.pi / (2 * (2 * delay + 1)))


def round_robin_limit(num_workers: int) -> float:
    """Return the gain above which workers that commit in turn diverge: `2 sin(pi / (2 (2 N - 1)))`."""
    return delay_limit(num_workers - 1)


def easgd_limit(num_workers: int, rate: float) -> float:
    """Return the alpha at which the paper's synchronous EASGD diverges, for `0 < rate < 2`.

    `(4 - 2 rate) / (2 (N + 1) - N rate)`. In the paper, a worker's gradient and its elastic force are both
    computed at the weights before the step (Zhang et al. 2015, supplement).
    """
    return (4 - 2 * rate) / (2 * (num_workers + 1) - num_workers * rate)


def easgd_window_limit(num_workers: int, decay: float) -> float:
    """Return the alpha at which EASGD diverges when the elastic force is computed after a window, as here.

    `2 (1 + a) / (N (1 + a) + 2 a)` with the window's decay `a`, by Jury's criterion for the map of the center
    and the workers' mean; if `a` is negative, at most `(1 - a) / (-a (N + 1))`.
    """
    slope = num_workers * (1 + decay) + 2 * decay
    limit = 2 * (1 + decay) / slope if slope > 0 else math.inf
    return limit if decay >= 0 else min(limit, (decay - 1) / (decay * (num_workers + 1)))


def aeasgd_limit(rate: float) -> float:
    """Return the largest stable alpha of atomic round-robin AEASGD for any number of workers.

    `(4 - 2 rate) / (4 - rate)` for `0 <= rate <= 2`, with gradient and force computed at the same weights. If
    the force is computed after the window, as here, every alpha in [0, 1] is stable: both maps contract.
    """
    return (4 - 2 * rate) / (4 - rate)


def round_robin_matrix(num_workers: int, gain: float) -> Matrix:
    """Return the map of (c_t, ..., c_(t-N+1)) over one commit: `c_(t+1) = c_t - gain c_(t-N+1)`."""
    matrix = np.eye(num_workers, k=-1)
    matrix[0, 0] += 1
    matrix[0, -1] -= gain
    return matrix


def easgd_matrix(num_workers: int, rate: float, alpha: float) -> Matrix:
    """Return the map of (c, x_1, ..., x_N) over one round of the paper's synchronous EASGD."""
    matrix = np.diag(np.full(num_workers + 1, 1 - rate - alpha))
    matrix[0, :] = matrix[:, 0] = alpha
    matrix[0, 0] = 1 - num_workers * alpha
    return matrix


def aeasgd_matrix(num_workers: int, rate: float, alpha: float) -> Matrix:
    """Return the map of (c, x_1, ..., x_N) over one turn of each worker of the paper's AEASGD."""
    matrix = np.eye(num_workers + 1)
    for worker in range(1, num_workers + 1):
        turn = np.eye(num_workers + 1)
        turn[0, 0], turn[0, worker] = 1 - alpha, alpha
        turn[worker, 0], turn[worker, worker] = alpha, 1 - rate - alpha
        matrix = turn @ matrix
    return matrix


def spectral_radius(matrix: Matrix) -> float:
    """Return the magnitude of the largest eigenvalue: the map converges below 1 and diverges above."""
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def warn_if_unstable(
    algorithm: Algorithm,
    num_workers: int,
    learning_rate: float,
    curvature: float = 1.0,
    overlap: bool | int = False,
) -> str | None:
    """Return a message if the algorithm is known to diverge; `None` if it is stable or nothing is known.

    Only `learning_rate * curvature` matters. The curvature is the largest eigenvalue of the loss's Hessian.
    It is not known in advance; 1 is typical of well-scaled problems: normalized inputs, plain SGD at 0.1.
    Adam's learning rate is a step length, not a rate: for Adam the result is only a rule of thumb, and at the
    usual 0.001 the message comes only for very long windows on many workers.

    Args:
        algorithm: the algorithm.
        num_workers: workers of the job.
        learning_rate: learning rate of the inner optimizer, above 0.
        curvature: the largest expected curvature of the loss.
        overlap: whether whole windows overlap, which doubles the staleness; steps of a window change nothing.
    """
    rate = learning_rate * curvature
    if rate >= 2:
        return (
            f"Even one worker diverges: learning_rate * curvature = {rate:.3g} is not below 2. "
            f"Use a learning rate below {2 / curvature:.3g}."
        )
    if isinstance(algorithm, EASGD):
        return _warn_of_elastic(algorithm, num_workers, rate)
    gain = commit_gain(algorithm, num_workers, rate, overlap)
    limit = delay_limit(round_robin_delay(algorithm, num_workers, overlap))
    if gain is None or gain <= limit:
        return None
    overlapping = " that overlap their windows" if overlap is True else ""
    return (
        f"{algorithm!r} is unstable with {num_workers} workers at learning_rate * curvature = {rate:.3g}: "
        f"a commit adds {gain:.3g} of the distance to the optimum, {gain / limit:.2f} times the limit for "
        f"workers that commit in turn{overlapping} ({limit:.3g}). "
        f"Use {_stable_choices(algorithm, num_workers, rate, overlap)}."
    )


def _warn_of_elastic(algorithm: EASGD, num_workers: int, rate: float) -> str | None:
    alpha = algorithm.for_workers(num_workers).alpha
    limit = easgd_window_limit(num_workers, window_decay(rate, algorithm.communication_window))
    if alpha is None or alpha <= limit:
        return None
    return (
        f"{algorithm!r} is unstable with {num_workers} workers at learning_rate * curvature = {rate:.3g}: "
        f"`alpha` must stay below {limit:.3g}. Use alpha={0.9 / num_workers:.3g}, which is the default."
    )


def _stable_choices(algorithm: Algorithm, num_workers: int, rate: float, overlap: bool | int) -> str:
    """Return the algorithms and the number of workers that are stable where `algorithm` is not."""
    window = algorithm.communication_window

    def of_limit(rule: Algorithm, workers: int, overlap: bool | int = overlap) -> float:
        gain = commit_gain(rule, workers, rate, overlap)
        return math.inf if gain is None else gain / delay_limit(round_robin_delay(rule, workers, overlap))

    choices = ["AEASGD (stable with any number of workers)"]
    if overlap is True and of_limit(algorithm, num_workers, False) <= 1:
        choices.append("`overlap=False`")
    others = ((rule.name, of_limit(rule, num_workers)) for rule in (DynSGD(window), ADAG(window)))
    choices += [f"{name} ({times:.2f} times)" for name, times in others if times <= 1]
    for fewer in range(num_workers - 1, 0, -1):
        if of_limit(algorithm, fewer) <= 1:
            choices.append(f"at most {fewer} {'worker' if fewer == 1 else 'workers'}")
            break
    return ", ".join([*choices, "or a lower learning rate"])
