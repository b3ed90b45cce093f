"""A contiguous part of the center, with its lock, its version and the rule's state for it."""

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
    """What a worker received: the version, and the center itself for rules that ask for it, read-only."""

    version: int
    center: Vector | None


class Shard:
    """One part of the center. Exchanges on different shards run side by side, on one shard in turn.

    Args:
        config: what decides what becomes of it. Elements that the rule does not govern are statistics,
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
        # A rule may begin with an infinity of its own, such as the best loss so far.
        self._checked = frozenset(name for name, value in self.state.items() if _has_finite_numbers(value))
        # Where exchanges overlap, what a worker sends comes from the center of one exchange earlier, and from
        # its own last window, which it had not to receive.
        self._windows_ahead = 2 if config.overlap else 1
        # Of each worker, where the window that it sends next began, and those after it.
        self._received: dict[int, deque[Received]] = {}
        self._published: Received | None = None

    def pull(self, worker: int, out: Vector) -> None:
        """Copy the shard to `out`, and remember that `worker` holds this version."""
        with self.lock:
            np.copyto(out, self.center)
            self._received[worker] = deque(self._sent_now() for _ in range(self._windows_ahead))

    def read(self, out: Vector) -> None:
        """Copy the shard to `out` for someone who trains nothing."""
        with self.lock:
            np.copyto(out, self.center)

    def exchange(
        self, message: Vector, worker: int, num_steps: int, num_samples: int, num_workers: int
    ) -> int:
        """Apply the `message` of one worker and overwrite it with the reply.

        Args:
            message: this shard's part, trainable elements first, then statistics as the worker has them.
            worker: its index; it must have pulled.
            num_steps: minibatch steps behind the message.
            num_samples: rows behind the message.
            num_workers: workers of the job.

        Returns:
            The staleness of the message: commits of others applied here since the center that it comes from.
        """
        with self.lock:
            received = self._received[worker]
            pull = received.popleft()
            staleness = self.version - pull.version
            before = self._trainable.copy() if received and self.algorithm.needs_pulled else None
            commit = Commit(worker, staleness, num_steps, num_samples, num_workers, pull.center)
            applied = self._apply(message, commit, num_workers)
            for pending in received:
                # The window that the worker trains meanwhile has this one in it.
                pending.version += applied
                if pending.center is not None and before is not None:
                    pending.center = pending.center + (self._trainable - before)
            received.append(self._sent_now())
        return staleness

    def exchange_round(self, message: Vector, workers: list[int], num_steps: int, num_samples: int) -> None:
        """Apply the mean `message` of a round of `workers`; overwrite it with their common reply."""
        with self.lock:
            # The statistics of a round are a mean already: a share of one takes them whole.
            self._apply(message, Commit(DRIVER, 0, num_steps, num_samples, len(workers)), 1)
            for worker in workers:
                received = self._received[worker]
                received.popleft()
                received.append(self._sent_now())

    def staleness_of(self, worker: int) -> int:
        """Commits applied here since the center from which the window comes that `worker` sends."""
        return self.version - self._received[worker][0].version

    def not_finite(self, center: Vector | None = None, state: State | None = None) -> str | None:
        """Say what is not finite in this shard, or in a copy of its `center` and `state`; `None`: nothing.

        The copy is of a moment; the shard itself is looked at while no message is applied.
        """
        if center is None or state is None:
            with self.lock:
                return self.not_finite(self.center, self.state)
        if not is_finite(center):
            return "the center holds NaN or infinity"
        for name in sorted(self._checked & state.keys()):
            if not _has_finite_numbers(state[name]):
                return f"the rule's {name!r} holds NaN or infinity, so that the center moves no more"
        return None

    def forget(self, worker: int) -> None:
        """Drop what is kept for a worker that has left."""
        with self.lock:
            self._received.pop(worker, None)

    def _apply(self, message: Vector, commit: Commit, share: int) -> bool:
        """Apply `message`, and overwrite it with the reply; return whether the rule took it."""
        split = self._trainable.size
        if self._statistics.size:
            if share == 1:  # Not by the difference, which would round.
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
        """What a worker holds that receives the shard now; those of one version share one read-only copy."""
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
