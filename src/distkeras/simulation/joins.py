"""Processes that join the center as workers of a simulation."""

from __future__ import annotations

from distkeras.algorithms import Vector
from distkeras.center.answers import Exchanged, Joined
from distkeras.center.fragments import Behind
from distkeras.center.requests import Join
from distkeras.simulation.links import Links
from distkeras.simulation.problem import Replica
from distkeras.simulation.server import Server
from distkeras.simulation.state import Inner, Worker


class Joins:
    """Starts workers. Those that join at the same version of the center share one copy of it.

    Args:
        server: the process of the server.
        links: the workers' connections.
        inner: settings of the workers' training.
        num_fragments: parts of the vector that are exchanged in turn.
    """

    def __init__(self, server: Server, links: Links, inner: Inner, num_fragments: int) -> None:
        self._server, self._links, self._inner = server, links, inner
        self._num_fragments = num_fragments
        self._shared: tuple[int, Vector] | None = None

    def start(self, worker: int, attempt: int = 0, again: bool = False) -> Worker:
        """Join the center as a new process of `worker`, or with a new connection of it (`again`)."""
        self._links.connect(worker, again)
        [(_, joined)] = self._server.handle(Join(worker, attempt))
        if not isinstance(joined, Joined):
            raise TypeError(f"Expected Joined. Received: {joined!r}")
        self._links.join(worker, joined)
        inner, center = self._inner, self._server.center
        if self._shared is None or self._shared[0] != center.num_commits:
            joined.center.flags.writeable = False
            self._shared = center.num_commits, joined.center
        replica = Replica(
            worker=worker,
            num_workers=center.num_workers,
            learning_rate=inner.learning_rate,
            momentum=inner.momentum,
            seed=(inner.seed, 2, worker, attempt),
            averaging=inner.averaging,
        )
        return Worker(
            *(self._shared[1],) * 3,
            replica,
            Behind(self._num_fragments),
            self.next_window(joined),
            [{} for _ in range(self._num_fragments)],
            sequence=joined.sequence,
            step=joined.step,
            attempt=attempt,
        )

    def next_window(self, answer: Joined | Exchanged) -> int:
        """Return the minibatch steps of the next window of the worker that gets `answer`."""
        orders = answer.orders
        return self._inner.window if orders is None else orders.window or self._inner.window

    def forget(self) -> None:
        """Forget the shared copy: the server has restarted, and will count the same versions again."""
        self._shared = None
