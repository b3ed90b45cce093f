"""Validation as a conductor uses it: when it is due, and who judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from distkeras.algorithms import Vector
    from distkeras.lifecycle.around import Validation

Judged = dict[str, float]


@dataclass(frozen=True)
class Judge:
    """Validates a version of the center.

    Attributes:
        validation: when it is due.
        judge: returns loss and metrics by name, as `model.evaluate` would, from the weights, shape (size,),
            and the variables that are not among them, by path. It is called when no worker can evaluate.
        workers: number of workers that evaluate during the training, each its share of the rows; 0 if `judge`
            is always called.
        batches: returns the results up to and with each minibatch of the last call of `judge`; `None` if they
            are not known.
    """

    validation: Validation
    judge: Callable[[Vector, Mapping[str, npt.NDArray[Any]]], Judged]
    workers: int = 0
    batches: Callable[[], Sequence[Judged]] | None = None

    def is_due(self, epoch: int) -> bool:
        """Return whether the validation follows `epoch`, which counts from 0."""
        return self.validation.is_due(epoch)
