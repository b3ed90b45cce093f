"""Deep Learning with Elastic Averaging SGD, Zhang, Choromanska and LeCun, NeurIPS 2015 (1412.6651)."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.elastic import Elastic
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class EAMSGD(Elastic):
    """AEASGD whose workers take Nesterov steps: `E = alpha (x - c); x <- x - E; c <- c + E`.

    The inner step is the worker's part: `v <- momentum v - eta grad f(x + momentum v); x <- x + v`. The
    velocity `v` stays with the worker: no exchange touches it, and a worker that is replaced starts at the
    center with `v = 0`.

    The Keras optimizer takes the step `-eta grad f`: its learning rate is `eta`, and its schedule, clipping
    and weight decay are at work too. The worker adds `momentum` around it, so `SGD(eta)` is the paper's
    EAMSGD, and an optimizer with momentum of its own (`SGD(momentum=...)`, Adam, Nadam, Lion, RMSprop with
    `momentum`, Muon) is refused: it would be applied twice. One that has none (Adagrad, Adadelta, RMSprop)
    may stand in for SGD. For Adam and its kin choose `AEASGD`; `momentum=0` is `AEASGD`.

    dist-keras looked ahead the wrong way and multiplied by the learning rate twice.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.
        rho: stiffness of the spring; smaller explores more.
        learning_rate: makes the moving rate `alpha = learning_rate * rho`, which must lie in (0, 1], and
            nothing else. The paper's is the inner optimizer's `eta`: give both the same number.
        momentum: of the inner Nesterov step, in [0, 1).

    Reference: Zhang et al. 2015, Deep Learning with Elastic Averaging SGD.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "momentum", "[0, 1)")

    @property
    def inner_momentum(self) -> float:
        return self.momentum
