"""Deep Learning with Elastic Averaging SGD, Zhang, Choromanska and LeCun, NeurIPS 2015 (1412.6651)."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.elastic import Elastic


@dataclass(frozen=True)
class AEASGD(Elastic):
    """Asynchronous elastic averaging: `E = alpha (x - c); x <- x - E; c <- c + E`.

    An exchange leaves `1 - 2 alpha` of the distance between worker and center. Workers explore around the
    center instead of jumping to it, so long windows and many workers are possible. The replacement of a
    worker starts at the center: what its predecessor had explored since its last exchange is lost.

    The order is gradient first, force after: a worker trains its window, then exchanges. In the paper, both
    are computed at the weights before the step.

    dist-keras pulled and committed in two steps, which is unstable at alpha 0.5 if commits arrive together.
    Its defaults, `rho=5.0` and `learning_rate=0.1`, give alpha 0.5: every exchange puts the worker exactly
    on the center, so that nothing is left of the elasticity.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.
        rho: stiffness of the spring, another way to give `alpha = learning_rate * rho`.
        learning_rate: learning rate of the inner optimizer, for `rho` only.
        alpha: moving rate, in (0, 1]: the part of the distance between worker and center that an exchange
            moves each of them. Default: 0.9 over the number of workers, as in the paper's experiments.

    Reference: Zhang et al. 2015, Deep Learning with Elastic Averaging SGD; its `beta` is `alpha N`.
    """
