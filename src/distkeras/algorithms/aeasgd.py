"""Deep Learning with Elastic Averaging SGD, Zhang, Choromanska and LeCun, NeurIPS 2015 (1412.6651)."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.elastic import Elastic


@dataclass(frozen=True)
class AEASGD(Elastic):
    """Asynchronous elastic averaging: `E = alpha (x - c); x <- x - E; c <- c + E`.

    The moving rate is `alpha = learning_rate * rho`. Workers explore around the center instead of jumping to
    it, so long windows and many workers are possible. The replacement of a worker starts at the center: what
    its predecessor had explored since its last exchange is lost.

    dist-keras pulled and committed in two steps, which is unstable at alpha 0.5 if commits arrive together.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.
        rho: stiffness of the spring; smaller explores more.
        learning_rate: learning rate of the inner optimizer. `learning_rate * rho` must lie in (0, 1].

    Reference: Zhang et al. 2015, Deep Learning with Elastic Averaging SGD.
    """
