"""The center's vector, cut into shards that work in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from distkeras.algorithms import State, Vector
from distkeras.center.config import CenterConfig
from distkeras.center.decisions import Decision
from distkeras.center.layout import shard_bounds, tensor_bounds
from distkeras.center.norms import norm_of
from distkeras.center.shard import Shard
from distkeras.center.snapshot import SnapshotError


class Sharded:
    """All shards of a center.

    Args:
        config: settings that decide the result.
        initial: the first center, shape (size,); copied.
        num_shards: number of shards; chosen by size by default. An algorithm that needs tensors has one per
            tensor.

    Attributes:
        size: number of elements of the vector.
        dtype: data type of the vector.
        shards: the shards, in order.
    """

    def __init__(self, config: CenterConfig, initial: Vector, num_shards: int | None) -> None:
        # Filled, not copied: a copy of what was unpickled has a data type that equals float32 but is another
        # object, and NumPy compares objects first.
        self._vector = np.empty(np.shape(initial), config.dtype)
        self._vector[:] = initial
        if whole := config.whole_tensors(self._vector.size):
            self._bounds = tensor_bounds(self._vector.size, whole)
        else:
            self._bounds = shard_bounds(self._vector.size, num_shards, self._vector.itemsize)
        self._parts = [slice(low, high) for low, high in self._bounds]
        self._torn = False
        self.size, self.dtype = self._vector.size, self._vector.dtype
        self.shards = [Shard(config, self._vector, low, high) for low, high in self._bounds]

    def read(self, turn: int) -> Vector:
        """Return a copy of the vector for a reader that trains nothing."""
        copy = np.empty(self.size, self.dtype)
        self._in_turn(turn, Shard.read, copy, None)
        return copy

    def write(self, turn: int, center: Vector) -> None:
        """Put the new `center` in place."""
        self._in_turn(turn, Shard.write, center, None)

    def pull(self, turn: int, worker: int, out: Vector) -> None:
        """Copy the vector to `out`; `worker` starts from it."""
        self._in_turn(turn, Shard.pull, out, None, worker)

    def forget(self, worker: int) -> None:
        """Drop the records of a worker that has left."""
        for shard in self.shards:
            shard.forget(worker)

    def exchange(self, message: Vector, decision: Decision) -> Vector | None:
        """Apply the `message` of one worker as decided, and overwrite it with the reply.

        Returns:
            A copy of the vector after it, if the decision asks for one.
        """
        copy = np.empty_like(self._vector) if decision.kept else None
        self._in_turn(decision.turn, Shard.exchange, message, copy, decision.commit)
        return copy

    def exchange_round(
        self, messages: Sequence[Vector], weights: Vector, workers: Sequence[int], decision: Decision
    ) -> tuple[Vector, Vector | None]:
        """Apply the messages of a round of `workers`, which may be overwritten.

        Returns:
            Their common reply, and a copy of the vector after it, if the decision asks for one.
        """
        reply = np.empty_like(self._vector)
        copy = np.empty_like(self._vector) if decision.kept else None
        args = decision.commit, messages, weights, workers
        self._in_turn(decision.turn, Shard.exchange_round, reply, copy, *args)
        return reply, copy

    def norm(self) -> float:
        """Return the Euclidean norm of the vector; its shards may change meanwhile."""
        return norm_of(self._vector)

    def not_finite(self) -> str | None:
        """Return what is not finite in the center or the algorithm's state; `None` if nothing is."""
        return next(filter(None, (shard.not_finite() for shard in self.shards)), None)

    def not_finite_in(self, vector: Vector, states: list[State]) -> str | None:
        """Return what is not finite in copies of the center and the algorithm's state; `None` for nothing."""
        parts = zip(self._with_parts(vector), states, strict=True)
        return next(filter(None, (shard.not_finite(part, state) for (shard, part), state in parts)), None)

    def state(self) -> tuple[Vector, list[State]]:
        """Return copies of the vector and of the algorithm's states, by shard.

        Raises:
            SnapshotError: the algorithm failed between two shards, so this center must not be restored.
        """
        if self._torn:
            raise SnapshotError("the algorithm failed after it had applied a part of a message")
        return self._vector.copy(), _copied(self._states())

    def restore(self, vector: Vector, states: list[State]) -> None:
        """Continue from a `state`.

        Raises:
            SnapshotError: `state` has another size or algorithm.
        """
        own, theirs = ([sorted(state) for state in each] for each in (self._states(), states))
        if (vector.shape, theirs) != (self._vector.shape, own):
            raise SnapshotError(
                f"Expected a snapshot of {self.size} elements and the algorithm's state {own}. "
                f"Received: shape {vector.shape}, {theirs}"
            )
        self._vector[:] = vector
        for shard, state in zip(self.shards, states, strict=True):
            shard.state = dict(state)

    def _in_turn(
        self, turn: int, act: Callable[..., None], vector: Vector, copy: Vector | None, *args: object
    ) -> None:
        """Call `act` with each shard, its part of `vector` and `args`, when it is this turn there.

        After that, the shard is copied to its part of `copy`. If one call fails, the rest of the shards are
        left alone, but their next turn may begin.
        """
        if len(self.shards) == 1:  # A small model: the loop would take longer than the arithmetic.
            shard = self.shards[0]
            shard.turns.begin(turn)
            try:
                act(shard, vector, *args)
                if copy is not None:
                    shard.read(copy)
            except BaseException:
                self._fail(act)
                raise
            finally:
                shard.turns.end()
            return
        failure: BaseException | None = None
        for shard, part in zip(self.shards, self._parts, strict=True):
            turns = shard.turns
            turns.begin(turn)
            try:
                if failure is None:
                    act(shard, vector[part], *args)
                    if copy is not None:
                        shard.read(copy[part])
            except BaseException as error:
                failure = error
            finally:
                turns.end()
        if failure is not None:
            self._fail(act)
            raise failure

    def _fail(self, act: Callable[..., None]) -> None:
        """Remember that `act` has failed, unless it only reads the center."""
        self._torn |= act not in (Shard.read, Shard.pull)

    def _states(self) -> list[State]:
        return [shard.state for shard in self.shards]

    def _with_parts(self, vector: Vector) -> Iterator[tuple[Shard, Vector]]:
        for shard, (low, high) in zip(self.shards, self._bounds, strict=True):
            yield shard, vector[low:high]


def _copied(states: list[State]) -> list[State]:
    """Return copies of all arrays in one contiguous block of memory.

    The system gives a large block large pages: that makes copying 20 arrays of 4 MiB six times as fast.
    """
    arrays = [{name: np.asarray(value) for name, value in state.items()} for state in states]
    memory = np.empty(sum(_room(array) for state in arrays for array in state.values()), np.uint8)
    copies: list[State] = [{} for _ in states]
    offset = 0
    for copy, state in zip(copies, arrays, strict=True):
        for name, array in state.items():
            if array.dtype.hasobject:  # No snapshot can hold it; writing raises the error.
                copy[name] = array.copy()
                continue
            piece = memory[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
            np.copyto(piece, array)
            copy[name] = piece
            offset += _room(array)
    return copies


def _room(array: np.ndarray) -> int:
    """Return the bytes reserved for a copy, so that the next one is aligned for any type."""
    return -(-array.nbytes // 64) * 64
