"""A contiguous part of the center, with its lock, its version and the rule's state for it."""

from __future__ import annotations

import threading

import numpy as np

from distkeras.algorithms import Algorithm, Commit, State, Vector
from distkeras.center.messages import DRIVER


class Shard:
    """One part of the center. Exchanges on different shards run side by side, on one shard in turn.

    Args:
        algorithm: the rule.
        center: this shard's part of the center vector, a view that is changed in place.
        num_trainable: elements of it that the rule governs; the rest are statistics, averaged over workers.
    """

    def __init__(self, algorithm: Algorithm, center: Vector, num_trainable: int) -> None:
        self.algorithm = algorithm
        self.center = center
        self.version = 0
        self.lock = threading.Lock()
        self._trainable = center[:num_trainable]
        self._statistics = center[num_trainable:]
        self.state: State = algorithm.init(self._trainable)
        self._pulls: dict[int, tuple[int, Vector | None]] = {}
        self._published: tuple[int, Vector] | None = None

    def pull(self, worker: int, out: Vector) -> None:
        """Copy the shard to `out`, and remember that `worker` holds this version."""
        with self.lock:
            np.copyto(out, self.center)
            self._remember(worker)

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
            The staleness of the message: commits applied here since the worker last pulled.
        """
        with self.lock:
            pulled_version, pulled = self._pulls[worker]
            staleness = self.version - pulled_version
            commit = Commit(worker, staleness, num_steps, num_samples, num_workers, pulled)
            self._apply(message, commit, num_workers)
            self._remember(worker)
        return staleness

    def exchange_round(self, message: Vector, workers: list[int], num_steps: int, num_samples: int) -> None:
        """Apply the mean `message` of a round of `workers`; overwrite it with their common reply."""
        with self.lock:
            # The statistics of a round are a mean already: a share of one takes them whole.
            self._apply(message, Commit(DRIVER, 0, num_steps, num_samples, len(workers)), 1)
            for worker in workers:
                self._remember(worker)

    def staleness_of(self, worker: int) -> int:
        """Commits applied here since `worker` last pulled."""
        return self.version - self._pulls[worker][0]

    def forget(self, worker: int) -> None:
        """Drop what is kept for a worker that has left."""
        with self.lock:
            self._pulls.pop(worker, None)

    def _apply(self, message: Vector, commit: Commit, share: int) -> None:
        split = self._trainable.size
        if self._statistics.size:
            self._statistics += (message[split:] - self._statistics) / share
            message[split:] = self._statistics
        rule_message = message[:split]
        reply = self.algorithm.apply(self._trainable, rule_message, commit, self.state)
        if reply is None:
            rule_message[:] = self._trainable
            return
        if reply is not rule_message:
            rule_message[:] = reply
        self.version += 1

    def _remember(self, worker: int) -> None:
        """Note the version that `worker` now holds; workers of one version share one read-only copy."""
        pulled = None
        if self.algorithm.needs_pulled:
            if self._published is None or self._published[0] != self.version:
                copy = self._trainable.copy()
                copy.flags.writeable = False
                self._published = (self.version, copy)
            pulled = self._published[1]
        self._pulls[worker] = (self.version, pulled)
