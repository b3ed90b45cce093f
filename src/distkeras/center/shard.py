"""A contiguous part of the center, with its lock, its version and its part of the algorithm's state."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from distkeras.algorithms import Commit, State, Vector
from distkeras.center.bad_updates import is_finite
from distkeras.center.config import CenterConfig
from distkeras.center.messages import DRIVER


@dataclass(slots=True)
class Received:
    """What a worker received: the version, and a read-only copy of the center if the algorithm needs it."""

    version: int
    center: Vector | None


class Shard:
    """One part of the center. Exchanges run in parallel on different shards, one at a time on each.

    Args:
        config: settings that decide the result. Elements that the algorithm does not update are statistics,
            averaged over workers.
        center: this shard's part of the center vector, a view that is changed in place.
    """

    def __init__(self, config: CenterConfig, center: Vector) -> None:
        self.algorithm = config.algorithm
        num_trainable = config.trainable_of(center.size)
        self.center = center
        self.version = 0
        self.lock = threading.Lock()
        self._trainable = center[:num_trainable]
        self._statistics = center[num_trainable:]
        self.state: State = self.algorithm.init(self._trainable)
        # Some algorithms start with an infinity on purpose, such as the best loss so far.
        self._checked = frozenset(name for name, value in self.state.items() if _has_finite_numbers(value))
        # If exchanges overlap, a worker's message is based on the center of one exchange earlier, and on its
        # own last window, which it did not have to receive.
        self._windows_ahead = 2 if config.overlap else 1
        # By worker: what it had received at the start of the next window that it sends, and of later ones.
        self._received: dict[int, deque[Received]] = {}
        self._published: Received | None = None

    def pull(self, worker: int, out: Vector) -> None:
        """Copy the shard to `out`, and record that `worker` holds this version."""
        with self.lock:
            np.copyto(out, self.center)
            self._received[worker] = deque(self._sent_now() for _ in range(self._windows_ahead))

    def read(self, out: Vector) -> None:
        """Copy the shard to `out` for a reader that trains nothing."""
        with self.lock:
            np.copyto(out, self.center)

    def exchange(
        self, message: Vector, worker: int, num_steps: int, num_samples: int, num_workers: int
    ) -> int:
        """Apply one worker's `message` and overwrite it with the reply.

        Args:
            message: this shard's part: trainable elements, then the worker's statistics, unchanged.
            worker: its index; it must have pulled.
            num_steps: minibatch steps in the window.
            num_samples: rows in the window.
            num_workers: workers of the job.

        Returns:
            The staleness of the message: others' commits applied here since the center that it is based on.
        """
        with self.lock:
            received = self._received[worker]
            pull = received.popleft()
            staleness = self.version - pull.version
            before = self._trainable.copy() if received and self.algorithm.needs_pulled else None
            commit = Commit(worker, staleness, num_steps, num_samples, num_workers, pull.center)
            applied = self._apply(message, commit, num_workers)
            for pending in received:
                # The worker's current window already contains this one.
                pending.version += applied
                if pending.center is not None and before is not None:
                    pending.center = pending.center + (self._trainable - before)
            received.append(self._sent_now())
        return staleness

    def exchange_round(self, message: Vector, workers: list[int], num_steps: int, num_samples: int) -> None:
        """Apply the mean `message` of a round of `workers` and overwrite it with their common reply."""
        with self.lock:
            # The statistics of a round are a mean already: a share of 1 takes them whole.
            self._apply(message, Commit(DRIVER, 0, num_steps, num_samples, len(workers)), 1)
            for worker in workers:
                received = self._received[worker]
                received.popleft()
                received.append(self._sent_now())

    def staleness_of(self, worker: int) -> int:
        """Return the commits applied here since the center that the next message of `worker` is based on."""
        return self.version - self._received[worker][0].version

    def not_finite(self, center: Vector | None = None, state: State | None = None) -> str | None:
        """Return what is not finite in this shard, or in copies of `center` and `state`; `None` for nothing.

        Without copies, the shard is locked during the check.
        """
        if center is None or state is None:
            with self.lock:
                return self.not_finite(self.center, self.state)
        if not is_finite(center):
            return "the center holds NaN or infinity"
        for name in sorted(self._checked & state.keys()):
            if not _has_finite_numbers(state[name]):
                return f"the algorithm's {name!r} holds NaN or infinity, so the center no longer moves"
        return None

    def forget(self, worker: int) -> None:
        """Drop the record of a worker that has left."""
        with self.lock:
            self._received.pop(worker, None)

    def _apply(self, message: Vector, commit: Commit, share: int) -> bool:
        """Apply `message` and overwrite it with the reply; return whether the algorithm accepted it."""
        split = self._trainable.size
        if self._statistics.size:
            if share == 1:  # Adding the difference would round.
                self._statistics[:] = message[split:]
            else:
                self._statistics += (message[split:] - self._statistics) / share
                message[split:] = self._statistics
        governed = message[:split]
        reply = self.algorithm.apply(self._trainable, governed, commit, self.state)
        if reply is None:
            governed[:] = self._trainable
            return False
        if reply is not governed:
            governed[:] = reply
        self.version += 1
        return True

    def _sent_now(self) -> Received:
        """Return what a worker receives now; workers with the same version share one read-only copy."""
        if not self.algorithm.needs_pulled:
            return Received(self.version, None)
        if self._published is None or self._published.version != self.version:
            copy = self._trainable.copy()
            copy.flags.writeable = False
            self._published = Received(self.version, copy)
        return replace(self._published)


def _has_finite_numbers(value: object) -> bool:
    array = np.asarray(value)
    return not array.dtype.hasobject and bool(np.isfinite(array).all())
