"""The interface of a distributed optimizer: four pure methods over flat float32 arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""A flat float32 array: the weights of a model, or one shard of them."""

State = dict[str, npt.NDArray[Any]]
"""An algorithm's state on the server, by name, besides the center: only arrays, for the snapshots."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Facts about the message that the server applies.

    Attributes:
        worker: index of the worker; -1 for the mean of a synchronous round.
        staleness: commits applied to the center between this worker's last pull and this commit.
        num_steps: minibatch steps behind the message; for a synchronous round, the largest of its workers.
        num_samples: rows behind the message; for a synchronous round, those of all its workers.
        num_workers: workers of the job; for a synchronous round, the number of messages in it.
        pulled: the center that this worker last received, read-only. `None` unless the algorithm sets
            `needs_pulled`.
    """

    worker: int
    staleness: int
    num_steps: int
    num_samples: int
    num_workers: int
    pulled: Vector | None = None

    def movement(self, center: Vector) -> Vector:
        """Return `center - pulled` as a new array: the center's movement since this worker received it.

        Raises:
            ValueError: the algorithm does not set `needs_pulled`.
        """
        if self.pulled is None:
            raise ValueError(
                "The center this worker received was not kept: set `needs_pulled = True` on the algorithm. "
                f"Received: {self!r}"
            )
        return center - self.pulled


@dataclass(frozen=True)
class Algorithm:
    """A distributed optimizer. Subclass it as a frozen dataclass of hyperparameters.

    A worker trains `communication_window` minibatch steps from its *anchor* (the center it last received),
    sends `commit(local, anchor, num_steps)`, and continues from `adopt(local, message, reply)`. In between,
    the server calls `apply` once per shard, under the shard's lock. All arrays are flat: float32, or float64
    if the model needs it. Every method must act elementwise, so that shards do not change the result.

    A worker that fails between two commits loses only its current window. Its replacement starts at the
    center, without `adopt`.

    Args:
        communication_window: minibatch steps between two exchanges of one worker. `None` means one epoch.
    """

    communication_window: int | None = 1

    synchronous: ClassVar[bool] = False
    """Collect a message from every live worker (or `quorum`), average, apply once, answer all workers."""

    weighted: ClassVar[bool] = True
    """A synchronous round weighs each message by its samples; `False` for equal weights."""

    needs_pulled: ClassVar[bool] = False
    """Pass the center that the worker last received to `apply`, as `commit.pulled`."""

    def __post_init__(self) -> None:
        window = self.communication_window
        if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
            raise ValueError(
                "`communication_window` must be a positive integer (minibatch steps between two exchanges), "
                f"or None for one epoch. Received: communication_window={window!r}"
            )

    @property
    def name(self) -> str:
        """The class name, for tables and reports."""
        return type(self).__name__

    @property
    def inner_momentum(self) -> float:
        """Nesterov momentum that every worker adds to its Keras optimizer; 0 (default) for none.

        If it is not 0, optimizers with momentum of their own are refused.
        """
        return 0.0

    def for_workers(self, num_workers: int) -> Algorithm:
        """Return the algorithm with all defaults that depend on the number of workers. Default: itself.

        The workers and the center each call this once: they must agree.
        """
        return self

    def init(self, center: Vector) -> State:
        """Return the server's state for a shard that starts at `center`. Default: no state."""
        return {}

    def commit(self, local: Vector, anchor: Vector, num_steps: int) -> Vector:
        """Return a worker's message after `num_steps` steps, as a new array, which the wire may overwrite.

        Must not change its arguments. Default: the delta `local - anchor`.
        """
        return local - anchor

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector | None:
        """Change `center` in place by `message` and return the reply, which may be `center` itself.

        `None` discards the message: the reply is the center, and no worker's staleness increases. The method
        may overwrite `message` and the arrays of `state`.
        """
        raise NotImplementedError(
            f"{self.name} has no update: define apply(self, center, message, commit, state)."
        )

    def adopt(self, local: Vector, message: Vector, reply: Vector) -> Vector:
        """Return the worker's new weights: a new array, or `local` or `reply` itself.

        Must not change its arguments. Default: the reply.
        """
        return reply
