"""Communication Efficient LLM Pre-training with SparseLoCo, Sarfi et al., 2025 (2508.15706)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class SparseLoCo(Algorithm):
    """Local SGD with sparse messages, whose residual stands for momentum: `c <- c + alpha mean_i m_i`.

    In the worker, as part of compression: `e <- beta e + d; m = Q(TopK(e)); e <- e - m`. The trainer's
    `compression=` is the codec Q(TopK): give `"chunktopk"`, 128 of each 4096 values in 2 bits, or
    `ChunkTopK(density=0.02)`. Without compression nothing is dropped, `m = d`, and it is LocalSGD: a
    trainer warns.

    Made for an adaptive inner optimizer (AdamW). The replacement of a worker starts with `e = 0`. A value in
    2 bits is a sign and the mean of the larger or of the smaller half of the values that are sent: these
    levels are our choice.

    Args:
        communication_window: minibatch steps between two rounds; 15 to 250 in the paper.
        outer_learning_rate: `alpha`, above 0; 1 in the paper.
        residual_decay: `beta`, in [0, 1]: the part of the residual that is left after a window. 1 loses
            nothing, as with every other algorithm.

    Reference: Sarfi et al. 2025, algorithm 1. The default of `beta` is not in the parts that we could read.
    """

    communication_window: int | None = 50
    outer_learning_rate: float = 1.0
    residual_decay: float = 0.95

    synchronous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "outer_learning_rate", "(0, inf)")
        check_interval(self, "residual_decay", "[0, 1]")

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        if self.outer_learning_rate != 1:
            message *= self.outer_learning_rate
        center += message
        return center
