"""Deep Learning with Elastic Averaging SGD, Zhang, Choromanska and LeCun, NeurIPS 2015 (1412.6651)."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.elastic import Elastic
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class EAMSGD(Elastic):
    """AEASGD whose workers take Nesterov steps: `E = alpha (x - c); x <- x - E; c <- c + E`.

    The worker takes the inner step: `v <- momentum v - eta grad f(x + momentum v); x <- x + v`. The velocity
    `v` stays with the worker: no exchange changes it. The replacement of a worker starts at the center with
    `v = 0`.

    The Keras optimizer takes the step `-eta grad f`: its learning rate is `eta`, and its schedule, clipping
    and weight decay apply too. The worker adds `momentum` around it, so `SGD(eta)` gives the paper's EAMSGD.
    An optimizer with momentum of its own (`SGD(momentum=...)`, Adam, Nadam, Lion, RMSprop with `momentum`,
    Muon) is refused, because momentum would apply twice. An optimizer without momentum (Adagrad, Adadelta,
    RMSprop) may replace SGD. For Adam and similar optimizers choose `AEASGD`; `momentum=0` is `AEASGD`.

    dist-keras looked ahead in the wrong direction and multiplied by the learning rate twice.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.
        rho: stiffness of the spring, another way to give `alpha = learning_rate * rho`.
        learning_rate: learning rate of the inner optimizer, for `rho` only.
        alpha: moving rate, in (0, 1]: the part of the distance between worker and center that an exchange
            moves each of them. Default: 0.9 over the number of workers, as in the paper's experiments.
        momentum: momentum of the inner Nesterov step, in [0, 1).

    Reference: Zhang et al. 2015, Deep Learning with Elastic Averaging SGD.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "momentum", "[0, 1)")

    @property
    def inner_momentum(self) -> float:
        return self.momentum
