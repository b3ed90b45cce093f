"""The contract of a distributed optimizer: four pure methods over flat float32 arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""A flat float32 array: the weights of a model, or the part of them that one shard holds."""

State = dict[str, npt.NDArray[Any]]
"""What a rule keeps on the server beside the center, by name: arrays only, so that a snapshot can hold it."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What the server knows about the message it applies.

    Attributes:
        worker: index of the worker; -1 for the mean of a synchronous round.
        staleness: commits applied to the center between this worker's last pull and this commit.
        num_steps: minibatch steps behind the message (a synchronous round: the most that one worker took).
        num_samples: rows behind the message (a synchronous round: of all its workers).
        num_workers: workers of the job; for a synchronous round, the number of messages in it.
        pulled: the center as this worker last received it, read-only. `None` unless the rule sets
            `needs_pulled`.
    """

    worker: int
    staleness: int
    num_steps: int
    num_samples: int
    num_workers: int
    pulled: Vector | None = None

    def movement(self, center: Vector) -> Vector:
        """Return `center - pulled`, a new array: how far the center moved since this worker received it."""
        if self.pulled is None:
            raise ValueError(
                "The center this worker received was not kept: set `needs_pulled = True` on the rule. "
                f"Received: {self!r}"
            )
        return center - self.pulled


@dataclass(frozen=True)
class Algorithm:
    """A distributed optimizer. Subclass it as a frozen dataclass of hyper-parameters.

    A worker trains `communication_window` minibatch steps from its *anchor* (the center it last received),
    sends `commit(local, anchor, num_steps)`, and continues from `adopt(local, message, reply)`. The server
    calls `apply` in between, once a shard, under the shard's lock. All arrays are flat: float32, or float64
    where the model has it. A method must act elementwise, so that shards do not change the result.

    A worker that dies between two commits loses only the window it was in; the one that replaces it starts at
    the center, with `adopt` not called.

    Args:
        communication_window: minibatch steps between two exchanges of one worker. `None` means one epoch.
    """

    communication_window: int | None = 1

    synchronous: ClassVar[bool] = False
    """Gather one message of every live worker (or of `quorum`), average, apply once, answer all."""

    weighted: ClassVar[bool] = True
    """A synchronous round weighs each message by its samples; `False`: all messages alike."""

    needs_pulled: ClassVar[bool] = False
    """Hand `apply` the center that the worker last received as `commit.pulled`."""

    def __post_init__(self) -> None:
        window = self.communication_window
        if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
            raise ValueError(
                "`communication_window` must be a positive integer (minibatch steps between two exchanges), "
                f"or None for one epoch. Received: communication_window={window!r}"
            )

    @property
    def name(self) -> str:
        """The class name, as it stands in tables and reports."""
        return type(self).__name__

    @property
    def inner_momentum(self) -> float:
        """Nesterov momentum that every worker adds to its Keras optimizer. Default: 0, none.

        Optimizers that have momentum of their own are refused where it is not 0.
        """
        return 0.0

    def for_workers(self, num_workers: int) -> Algorithm:
        """Return the rule with the defaults that depend on the number of workers filled in. Default: itself.

        Whoever runs a rule calls this once, on both sides: workers and center must agree.
        """
        return self

    def init(self, center: Vector) -> State:
        """Return the server's state for a shard that starts at `center`. Default: none."""
        return {}

    def commit(self, local: Vector, anchor: Vector, num_steps: int) -> Vector:
        """Return the message a worker sends after `num_steps` steps, as a new array: it may be overwritten.

        Must not change its arguments. Default: the delta `local - anchor`.
        """
        return local - anchor

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector | None:
        """Change `center` in place by `message` and return the reply, which may be `center` itself.

        `None` discards the message: the reply is the center, and no worker's staleness grows by it.
        `message` may be overwritten, and so may the arrays of `state`.
        """
        raise NotImplementedError(
            f"{self.name} has no rule: define apply(self, center, message, commit, state)."
        )

    def adopt(self, local: Vector, message: Vector, reply: Vector) -> Vector:
        """Return the worker's new weights: a new array, or `local` or `reply` as they are.

        Must not change its arguments. Default: the reply.
        """
        return reply
