"""A contiguous part of the center, with its lock and its part of the algorithm's state."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distkeras.algorithms import DISCARD, TAKE, Commit, State, Vector
from distkeras.algorithms.mean import weighted_mean
from distkeras.center.bad_updates import is_finite
from distkeras.center.config import CenterConfig
from distkeras.center.layout import trainable_in
from distkeras.center.turns import Turns


class Shard:
    """One part of the center. Exchanges run in parallel on different shards, one at a time on each.

    Everything that reads or changes a shard for a worker does so in its turn, between `turns.begin` and
    `turns.end`. So all shards handle the messages in one order.

    Args:
        config: settings that decide the result. Elements that the algorithm does not update are statistics,
            averaged over workers.
        vector: the center vector, which is changed in place.
        low: index of the shard's first element.
        high: index after its last element.
    """

    def __init__(self, config: CenterConfig, vector: Vector, low: int, high: int) -> None:
        self.algorithm = config.algorithm
        num_trainable = trainable_in(low, high, config.trainable_of(vector.size))
        self._elements = slice(low, high)
        self.center = center = vector[low:high]
        self.turns = Turns()
        self._trainable = center[:num_trainable]
        self._statistics = center[num_trainable:]
        self._split, self._has_statistics = num_trainable, num_trainable < center.size
        self._read_only = self._trainable.view()
        self._read_only.flags.writeable = False
        self.state: State = self.algorithm.init_with(self._trainable, config.num_workers)
        # Some algorithms start with an infinity on purpose, such as the best loss so far.
        self._checked = frozenset(name for name, value in self.state.items() if _has_finite_numbers(value))
        self._needs_pulled = self.algorithm.needs_pulled
        self._windows_ahead = 2 if config.overlap is True else 1
        # By worker, for algorithms that need it: what it had received at the start of the next window that
        # it sends, and of later ones. Workers with the same center share one read-only copy.
        self._received: dict[int, deque[Vector]] = {}
        self._published: Vector | None = None

    def read(self, out: Vector) -> None:
        """Copy the shard to `out` for a reader that trains nothing."""
        out[:] = self.center

    def write(self, center: Vector) -> None:
        """Put the new `center` in place; the algorithm's state stays."""
        np.copyto(self.center, center)
        self._published = None

    def pull(self, out: Vector, worker: int) -> None:
        """Copy the shard to `out`, and keep what `worker` receives if the algorithm needs it."""
        np.copyto(out, self.center)
        if self.algorithm.needs_pulled:
            self._received[worker] = deque([self._sent_now()] * self._windows_ahead)

    def exchange(self, message: Vector, commit: Commit) -> None:
        """Apply one worker's `message` and overwrite it with the reply.

        Args:
            message: this shard's part: trainable elements, then the worker's statistics, unchanged.
            commit: facts for the algorithm, with its verdict.
        """
        if not self._needs_pulled:
            self._apply(message, commit, commit.num_workers, message)
            return
        received = self._received[commit.worker]
        commit = replace(commit, pulled=received.popleft())
        before = self._trainable.copy() if received else None
        self._apply(message, commit, commit.num_workers, message)
        if before is not None and commit.verdict is TAKE:
            for index in range(len(received)):  # The worker's current window already contains this one.
                received[index] = received[index] + (self._trainable - before)
        received.append(self._sent_now())

    def exchange_round(
        self,
        out: Vector,
        commit: Commit,
        messages: Sequence[Vector],
        weights: Vector,
        workers: Sequence[int],
    ) -> None:
        """Apply the whole `messages` of a round of `workers`, and write this shard's reply to `out`."""
        parts = [message[self._elements] for message in messages]
        # The statistics of a round are a mean already: a share of 1 takes them whole.
        self._apply(self._combined(parts, weights), commit, 1, out)
        if self.algorithm.needs_pulled:
            for worker in workers:
                received = self._received[worker]
                received.popleft()
                received.append(self._sent_now())

    def not_finite(self, center: Vector | None = None, state: State | None = None) -> str | None:
        """Return what is not finite in this shard, or in copies of `center` and `state`; `None` for nothing.

        Without copies, the shard is locked during the check.
        """
        if center is None or state is None:
            with self.turns.lock:
                return self.not_finite(self.center, self.state)
        if not is_finite(center):
            return "the center holds NaN or infinity"
        for name in sorted(self._checked & state.keys()):
            if not _has_finite_numbers(state[name]):
                return f"the algorithm's {name!r} holds NaN or infinity, so the center no longer moves"
        return None

    def forget(self, worker: int) -> None:
        """Drop the record of a worker that has left."""
        with self.turns.lock:
            self._received.pop(worker, None)

    def _combined(self, messages: Sequence[Vector], weights: Vector) -> Vector:
        """Return the mean message of a round, in the place of the first one."""
        split = self._trainable.size
        governed = [message[:split] for message in messages]
        mean = self.algorithm.combine(governed, weights)
        if getattr(mean, "shape", None) != (split,):
            raise TypeError(
                f"Expected {self.algorithm.name}.combine to return the mean message, of shape ({split},). "
                f"Received: {mean if mean is None else np.shape(mean)}"
            )
        if mean is not governed[0]:
            governed[0][:] = mean
        if self._statistics.size:
            weighted_mean([message[split:] for message in messages], weights)
        return messages[0]

    def _apply(self, message: Vector, commit: Commit, share: int, out: Vector) -> None:
        """Handle `message` as its verdict says, and write the reply to `out`, which may be `message`."""
        verdict, split, in_place = commit.verdict, self._split, out is message
        if verdict is DISCARD:
            out[:] = self.center
            return
        if self._has_statistics:
            if verdict is TAKE and share == 1:  # Adding the difference would round.
                self._statistics[:] = message[split:]
            elif verdict is TAKE:
                self._statistics += (message[split:] - self._statistics) / share
            out[split:] = self._statistics
            message, answer = message[:split], out[:split]
        else:
            answer = out
        center = self._trainable if verdict is TAKE else self._read_only
        reply = self.algorithm.apply(center, message, commit, self.state)
        if reply is None:
            raise TypeError(
                f"Expected {self.algorithm.name}.apply to return the reply: the center, or what the worker's "
                "`adopt` needs. To discard a message, return DISCARD from `decide(commit)`. Received: None"
            )
        if reply is not message or not in_place:
            answer[:] = reply
        if verdict is TAKE:
            self._published = None

    def _sent_now(self) -> Vector:
        """Return a read-only copy of what a worker receives now."""
        if self._published is None:
            self._published = self._trainable.copy()
            self._published.flags.writeable = False
        return self._published


def _has_finite_numbers(value: object) -> bool:
    array = np.asarray(value)
    return not array.dtype.hasobject and bool(np.isfinite(array).all())
