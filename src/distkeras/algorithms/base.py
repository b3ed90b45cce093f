"""The interface of a distributed optimizer: four pure methods over flat float32 arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from distkeras.algorithms.mean import weighted_mean

Vector = npt.NDArray[np.float32]
"""A flat float32 array: the weights of a model, or one shard of them."""

State = dict[str, npt.NDArray[Any]]
"""Arrays by name: an algorithm's state on the server besides the center, or the memory of a worker."""


Memory = dict[str, Any]
"""Plain JSON by name: what an algorithm's decisions remember."""


class Verdict(StrEnum):
    """What an algorithm decides to do with a message.

    Attributes:
        TAKE: `apply` changes the center. The message counts as an update, and other messages become staler.
        BUFFER: `apply` keeps the message in the algorithm's state. The center stays as it is.
        DISCARD: `apply` is not called, and nothing changes.
    """

    TAKE = "take"
    BUFFER = "buffer"
    DISCARD = "discard"


TAKE = Verdict.TAKE
"""What `decide` returns for a message that changes the center."""

BUFFER = Verdict.BUFFER
"""What `decide` returns for a message that waits in the algorithm's state."""

DISCARD = Verdict.DISCARD
"""What `decide` returns for a message that counts for nothing."""


# Not frozen, as `center.requests.Exchange`: it is made once a message.
@dataclass(slots=True)
class Commit:
    """Facts about one message. They are the same for every shard of the center and every server: read-only.

    Attributes:
        worker: index of the worker; -1 for the mean of a synchronous round.
        staleness: messages taken between this worker's last pull and this commit, without its own.
        num_steps: minibatch steps behind the message; for a synchronous round, the largest of its workers.
        num_samples: rows behind the message; for a synchronous round, those of all its workers.
        num_workers: workers of the job; for a synchronous round, the number of messages in it.
        pulled: the center that this worker last received, read-only. `None` unless the algorithm sets
            `needs_pulled`.
        number: number of this commit in the job, from 1; a synchronous round counts once.
        buffered: messages buffered since the last one that was taken.
        verdict: what `decide` returned; `TAKE` while it decides.
    """

    worker: int
    staleness: int
    num_steps: int
    num_samples: int
    num_workers: int
    pulled: Vector | None = None
    number: int = 1
    buffered: int = 0
    verdict: Verdict = Verdict.TAKE

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
    the server calls `decide` once, then `apply` once per shard, in the order of the decisions; in a
    synchronous round, `apply` gets what `combine` makes of the messages. All arrays are flat: float32, or
    float64 if the model needs it. Every method must act elementwise, so that shards do not change the result;
    with `needs_tensors`, `combine` and `apply` may take the elements of a tensor together.

    A worker that fails between two commits loses only its current window. Its replacement starts at the
    center, without `adopt`.

    Args:
        communication_window: minibatch steps between two exchanges of one worker. `None` means one epoch.
    """

    communication_window: int | None = 1

    synchronous: ClassVar[bool] = False
    """Collect a message from every live worker (or `quorum`), combine, apply once, answer all workers."""

    weighted: ClassVar[bool] = True
    """A synchronous round weighs each message by its samples; `False` for equal weights."""

    needs_pulled: ClassVar[bool] = False
    """Pass the center that the worker last received to `apply`, as `commit.pulled`."""

    needs_tensors: ClassVar[bool] = False
    """Make each trainable tensor of the model one shard, so that `combine` and `apply` see it whole."""

    fair: ClassVar[bool] = False
    """An asynchronous algorithm by which workers of unequal speed have an equal part in the center."""

    anchor_at_reply: ClassVar[bool] = False
    """The worker's next anchor is the reply; `False` for what `adopt` returns."""

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
    def stops(self) -> bool:
        """Whether a worker drops its window as soon as its message would be discarded. Default: `False`.

        The center calls `decide` for a worker that still trains, with the staleness that its message would
        have. The worker continues from the center with the same rows. Not for synchronous algorithms.
        """
        return False

    @property
    def inner_momentum(self) -> float:
        """Nesterov momentum that every worker adds to its Keras optimizer; 0 (default) for none.

        If it is not 0, optimizers with momentum of their own are refused.
        """
        return 0.0

    @property
    def inner_averaging(self) -> tuple[float, float] | None:
        """Primal averaging around every worker's Keras optimizer, as `mu_x` and `mu_y`; `None` for none."""
        return None

    @property
    def residual_decay(self) -> float:
        """Factor in [0, 1] of what compression dropped of earlier messages, before the next one adds to it.

        1 (default) loses nothing. No effect without compression, and none on elastic algorithms.
        """
        return 1.0

    @property
    def fragments(self) -> int | None:
        """Number of fragments of the weights; 1 (default) for all weights at once, `None` by the layers.

        The fragments are exchanged in turn, each once a window. A fragment consists of whole layers, and has
        its own staleness, rounds and state: the methods see one fragment at a time. With `None` there is one
        for every three layers.
        """
        return 1

    @property
    def fragment_pattern(self) -> str:
        """How layers are assigned to fragments: "strided" (default: in turn) or "sequential" (in blocks)."""
        return "strided"

    def for_workers(self, num_workers: int) -> Algorithm:
        """Return the algorithm with all defaults that depend on the number of workers. Default: itself.

        The workers and the center each call this once: they must agree.
        """
        return self

    def init(self, center: Vector) -> State:
        """Return the server's state for a shard that starts at `center`. Default: no state."""
        return {}

    def init_with(self, center: Vector, num_workers: int) -> State:
        """As `init`, with the number of workers, for state with a row per worker. Default: `init`."""
        return self.init(center)

    def commit(self, local: Vector, anchor: Vector, num_steps: int) -> Vector:
        """Return a worker's message after `num_steps` steps, as a new array, which the wire may overwrite.

        Must not change its arguments. Default: the delta `local - anchor`.
        """
        return local - anchor

    def commit_with(self, local: Vector, anchor: Vector, num_steps: int, memory: State) -> Vector:
        """As `commit`, with the worker's `memory`, which the method may change. Default: `commit`.

        A memory is empty when its worker joins, and holds arrays by name from then on. It is lost with the
        worker's process, and emptied where the worker has to start again: after a restart of the server and
        after a window that the server skipped.
        """
        return self.commit(local, anchor, num_steps)

    def decide(self, commit: Commit) -> Verdict:
        """Return what to do with a message: `TAKE` (default), `BUFFER` or `DISCARD`.

        The server calls this once per message, whatever the number of shards, before it looks at the message.
        A worker whose message was not taken continues from the center.
        """
        return Verdict.TAKE

    def decide_with(self, commit: Commit, memory: Memory, training: Collection[int]) -> Verdict:
        """As `decide`, with a memory for decisions, which the method may change. Default: `decide`.

        Args:
            commit: as for `decide`.
            memory: empty at first; plain JSON by name, which snapshots hold.
            training: the workers that have not left.
        """
        return self.decide(commit)

    def weight(self, num_samples: int, num_steps: int) -> float:
        """Return the weight of a message in a synchronous round: its samples, or 1 if not `weighted`."""
        return num_samples if self.weighted else 1

    def combine(self, messages: Sequence[Vector], weights: Vector) -> Vector:
        """Return the mean message of a synchronous round, which goes to `apply`. Once per shard.

        The method may overwrite the messages and return one of them. Default: `sum_i weights_i messages_i`.

        Args:
            messages: one or more, in the order of the workers' indices.
            weights: one per message, in proportion to `weight`; their sum is 1.
        """
        return weighted_mean(messages, weights)

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        """Change `center` in place by `message` and return the reply, which may be `center` itself.

        If `commit.verdict` is `BUFFER`, `center` is read-only. The method may overwrite `message` and the
        arrays of `state`.
        """
        raise NotImplementedError(
            f"{self.name} has no update: define apply(self, center, message, commit, state)."
        )

    def adopt(self, local: Vector, message: Vector, reply: Vector) -> Vector:
        """Return the worker's new weights: a new array, or `local` or `reply` itself.

        Must not change its arguments. Default: the reply.
        """
        return reply

    def adopt_with(self, local: Vector, message: Vector, reply: Vector, memory: State) -> Vector:
        """As `adopt`, with the worker's `memory`, which the method may change. Default: `adopt`."""
        return self.adopt(local, message, reply)

    def window(self, worker: int, speeds: Mapping[int, float]) -> int | None:
        """Return the minibatch steps of the next window of `worker`. Default: `communication_window`.

        The server calls this for each answer to a worker. `None` leaves `communication_window` as it is.

        Args:
            worker: index of the worker.
            speeds: minibatch steps a second by worker, averaged over the recent windows, of the workers that
                train and whose speed is known. A worker's first window tells no speed: it compiles the step.
        """
        return self.communication_window
