"""Drives a rule through the very center that production runs, on quadratics small enough to check by hand."""

from __future__ import annotations

import numpy as np

from distkeras.algorithms import Algorithm, State, Vector
from distkeras.center import Center, CenterConfig
from distkeras.center.answers import Exchanged, Joined
from distkeras.center.requests import Exchange, Join


class Job:
    """Workers that hold their weights in the open, and the center between them.

    Args:
        algorithm: the rule.
        initial: the first center.
        num_workers: workers; all join at once, in order.
        options: passed on to `Center`.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        initial: object,
        num_workers: int = 1,
        num_shards: int | None = None,
        **options: object,
    ) -> None:
        config = CenterConfig(algorithm, num_workers, **options)
        self.center = Center(config, np.array(initial, np.float32), clock=lambda: 0.0, num_shards=num_shards)
        self.algorithm = self.center.algorithm
        self.split = options.get("num_trainable") or self.center.size
        self.local: list[Vector] = [np.empty(0)] * num_workers
        self.anchor: list[Vector] = [np.empty(0)] * num_workers
        self.sequence = [0] * num_workers
        self.sent: list[Vector] = [np.empty(0)] * num_workers
        self.staleness = [0] * num_workers
        self.memory: list[State] = [{} for _ in range(num_workers)]
        for worker in range(num_workers):
            self.join(worker)

    @property
    def weights(self) -> Vector:
        """The center, copied."""
        return self.center.snapshot()

    @property
    def workers(self) -> range:
        return range(len(self.local))

    def join(self, worker: int) -> None:
        ((_, joined),) = self.center.handle(Join(worker))
        assert isinstance(joined, Joined)
        self.memory[worker] = {}
        self._continue_from(worker, joined.center)

    def train(self, worker: int, num_steps: int = 1, *, rate: float = 0.1, optimum: object = 0.0) -> None:
        """Take `num_steps` steps of gradient descent on `|x - optimum|^2 / 2`."""
        local = self.local[worker].copy()
        for _ in range(num_steps):
            local -= np.float32(rate) * (local - np.float32(optimum))
        self.local[worker] = local

    def request(self, worker: int, num_steps: int = 1, num_samples: int = 1) -> Exchange:
        """Return the worker's next commit; it is not sent yet."""
        local, anchor, split = self.local[worker], self.anchor[worker], self.split
        memory = self.memory[worker]
        rule_message = self.algorithm.commit_with(local[:split], anchor[:split], num_steps, memory)
        message = np.concatenate([rule_message, local[split:]])
        self.sequence[worker] += 1
        self.sent[worker] = message.copy()
        return Exchange(worker, self.sequence[worker], num_steps, num_samples, 0, 0, message)

    def exchange(self, worker: int, num_steps: int = 1, num_samples: int = 1) -> list[int]:
        """Commit the worker's weights; return who was answered."""
        return self.hear(self.center.handle(self.request(worker, num_steps, num_samples)))

    def round(self, num_steps: int = 1, num_samples: int = 1) -> None:
        """Let every worker commit in turn."""
        for worker in self.workers:
            self.exchange(worker, num_steps, num_samples)

    def hear(self, answers: list) -> list[int]:
        """Let the workers adopt what they are answered; return which they are."""
        for worker, answer in answers:
            if isinstance(answer, Exchanged):
                split, reply = self.split, answer.reply
                self.staleness[worker] = answer.staleness
                adopted = self.algorithm.adopt_with(
                    self.local[worker][:split], self.sent[worker][:split], reply[:split], self.memory[worker]
                )
                self._continue_from(worker, np.concatenate([adopted, reply[split:]]))
                if self.algorithm.anchor_at_reply and not answer.restart:
                    self.anchor[worker] = reply.copy()
        return [worker for worker, _ in answers]

    def _continue_from(self, worker: int, weights: Vector) -> None:
        self.local[worker], self.anchor[worker] = weights.copy(), weights.copy()


def wander(job: Job, num_commits: int = 40, num_steps: int = 2, seed: int = 0) -> Job:
    """Let random workers train towards optima of their own and commit, so that staleness varies."""
    random = np.random.default_rng(seed)
    optima = random.normal(size=(len(job.local), job.center.size)).astype(np.float32)
    waiting: set[int] = set()
    for _ in range(num_commits):
        ready = [worker for worker in job.workers if worker not in waiting]
        worker = int(random.choice(ready))
        job.train(worker, num_steps, optimum=optima[worker])
        waiting.add(worker)
        waiting -= set(job.exchange(worker, num_steps, num_samples=1 + worker))
    return job


def transition_matrix(job: Job, period) -> np.ndarray:
    """Return the matrix of `period(job)`, a linear map of (c, x_1, ..., x_N), from the rule as it runs.

    The job's weights have N + 1 elements: element j follows the j-th unit vector of that state, and since
    rules act elementwise, one run gives every column.
    """
    basis = np.eye(job.center.size, dtype=np.float32)
    np.testing.assert_array_equal(job.weights, basis[0])
    for worker in job.workers:
        job.local[worker], job.anchor[worker] = basis[worker + 1].copy(), basis[worker + 1].copy()
    period(job)
    return np.stack([job.weights, *job.local]).astype(np.float64)
