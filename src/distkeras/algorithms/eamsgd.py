"""Deep Learning with Elastic Averaging SGD, Zhang, Choromanska and LeCun, NeurIPS 2015 (1412.6651)."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.elastic import Elastic
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class EAMSGD(Elastic):
    """AEASGD whose workers take Nesterov steps: `E = alpha (x - c); x <- x - E; c <- c + E`.

    The inner step is the worker's part: `v <- momentum v - eta grad f(x + momentum v); x <- x + v`, with
    `eta = learning_rate`. The velocity `v` stays with the worker: no exchange touches it, and a worker that
    is replaced starts at the center with `v = 0`.

    dist-keras looked ahead the wrong way and multiplied by the learning rate twice.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.
        rho: stiffness of the spring; smaller explores more.
        learning_rate: of the inner optimizer. `learning_rate * rho` must lie in (0, 1].
        momentum: of the inner Nesterov step, in [0, 1).

    Reference: Zhang et al. 2015, Deep Learning with Elastic Averaging SGD.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "momentum", "[0, 1)")
