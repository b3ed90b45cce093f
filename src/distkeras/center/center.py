"""The center variable: takes requests, gives answers, decides. No socket, no thread, no clock of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center.layout import shard_bounds
from distkeras.center.ledger import Journal, Line, Place
from distkeras.center.messages import (
    DRIVER,
    Answer,
    Done,
    Exchange,
    Exchanged,
    Fail,
    Join,
    Joined,
    Leave,
    Poll,
    Pull,
    Pulled,
    Refused,
    Rejoin,
    Request,
)
from distkeras.center.shard import Shard
from distkeras.center.snapshot import CenterState, SnapshotError
from distkeras.events import Window, WorkerFailed, WorkerJoined, WorkerLeft


class ProtocolError(Exception):
    """No worker of this job sends such a request: unknown worker, wrong sequence or size."""


class Center:
    """The server's mind: deterministic, so that the simulator and the tests drive what production runs.

    `handle` may be called from several threads, one a worker. A synchronous rule answers a worker when the
    round is complete: then the call that completes it returns the answers of all.

    Args:
        algorithm: the rule.
        initial: the first center, shape (size,); copied.
        num_workers: workers of the job, numbered from 0.
        num_trainable: leading elements that the rule governs; the rest are averaged. Default: all.
        num_shards: parts of the center; default by size.
        quorum: messages that complete a synchronous round; default: one of every live worker. A message that
            comes after its round counts in the next.
        first_worker: index of the first of its workers.
        overlap: workers train a window while the one before is exchanged.
        clock: seconds since the epoch, for the events' timestamps.

    Raises:
        ValueError: a quorum for an asynchronous rule or not in 1..num_workers.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        initial: Vector,
        num_workers: int,
        *,
        clock: Callable[[], float],
        num_trainable: int | None = None,
        num_shards: int | None = None,
        quorum: int | None = None,
        first_worker: int = 0,
        overlap: bool = False,
    ) -> None:
        check_quorum(algorithm, num_workers, quorum)
        self.algorithm = algorithm.for_workers(num_workers)
        self.num_workers = num_workers
        self.quorum = quorum
        self._first_worker = first_worker
        self.journal = Journal(clock)
        self._center = np.array(initial, np.float32)
        trainable = self._center.size if num_trainable is None else num_trainable
        self._bounds = shard_bounds(self._center.size, num_shards)
        self.shards = [
            Shard(
                self.algorithm,
                self._center[low:high],
                min(max(trainable - low, 0), high - low),
                overlap=overlap,
            )
            for low, high in self._bounds
        ]
        # A synchronous round moves all its workers at once, so they share one lock.
        shared = threading.RLock()
        self._places = [
            Place(shared if algorithm.synchronous else threading.RLock()) for _ in range(num_workers)
        ]
        self._round: dict[int, Exchange] = {}

    @property
    def size(self) -> int:
        """Elements of the center."""
        return self._center.size

    @property
    def members(self) -> list[Center]:
        """Itself: the one center of a job that is no ensemble."""
        return [self]

    @property
    def num_updates(self) -> int:
        """Commits applied so far; a synchronous round counts once."""
        return self.journal.num_updates

    def snapshot(self) -> Vector:
        """Return a copy of the center."""
        copy = np.empty_like(self._center)
        for shard, (low, high) in zip(self.shards, self._bounds, strict=True):
            shard.read(copy[low:high])
        return copy

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Keep every commit out for the time of a `with` block: center and ledger agree in it."""
        with contextlib.ExitStack() as stack:
            for place in self._places:
                stack.enter_context(place.lock)
            yield

    def state(self) -> CenterState:
        """Return a copy of all that counts. What workers hold, and an open round, do not: they join anew."""
        with self.still():
            return CenterState(
                center=self._center.copy(),
                rule=[
                    {name: np.array(value) for name, value in shard.state.items()} for shard in self.shards
                ],
                versions=[shard.version for shard in self.shards],
                lines=[place.line for place in self._places],
            )

    def restore(self, state: CenterState) -> None:
        """Go on from `state`, before the first request; every worker has to join again.

        Raises:
            SnapshotError: it is that of a center of another size, rule or number of workers.
        """
        own = [sorted(shard.state) for shard in self.shards]
        theirs = [sorted(saved) for saved in state.rule]
        found = (state.center.shape, len(state.lines), theirs)
        if found != (self._center.shape, self.num_workers, own):
            raise SnapshotError(
                f"Expected a snapshot of {self.size} elements, {self.num_workers} workers and the rule's "
                f"state {own}. Received: shape {state.center.shape}, {len(state.lines)} workers, {theirs}"
            )
        self._center[:] = state.center
        for shard, saved, version in zip(self.shards, state.rule, state.versions, strict=True):
            shard.state, shard.version = dict(saved), version
        for place, line in zip(self._places, state.lines, strict=True):
            place.line = line

    def handle(self, request: Request) -> list[Answer]:
        """Take one request; return who is to be told what (for a synchronous rule perhaps nobody yet).

        Raises:
            ProtocolError: the request is not one that a worker of this job sends. The center is untouched.
        """
        match request:
            case Exchange():
                return self._exchange(request)
            case Join():
                return self._join(request)
            case Leave():
                return self._leave(request)
            case Fail():
                self._place(request.worker)
                self.journal.add(WorkerFailed(request.worker, request.error, self.journal.clock()))
                return [(request.worker, Done())]
            case Pull():
                return [(DRIVER, Pulled(self.snapshot(), self.num_updates))]
            case Poll():
                return [(DRIVER, self.journal.read(request.since))]

    def _place(self, worker: int) -> Place:
        index = worker - self._first_worker
        if not 0 <= index < self.num_workers:
            last = self._first_worker + self.num_workers - 1
            raise ProtocolError(
                f"Expected a worker in {self._first_worker}..{last}. Received: worker={worker}"
            )
        return self._places[index]

    def _join(self, request: Join) -> list[Answer]:
        worker, place = request.worker, self._place(request.worker)
        with place.lock:
            # What a predecessor had in an open round was never answered: its replacement trains it again.
            self._round.pop(worker, None)
            place.joined, place.line = True, replace(place.line, left=False)
            line = place.line
            center = np.empty_like(self._center)
            self._pull(worker, center)
            self.journal.add(
                WorkerJoined(worker, request.attempt, line.epoch, line.step, self.journal.clock())
            )
            return [(worker, Joined(center, line.sequence, line.epoch, line.step))]

    def _leave(self, request: Leave) -> list[Answer]:
        place = self._place(request.worker)
        with place.lock:
            if not place.line.left:
                if not place.joined:  # It joined a server that was killed since, and may have to train again.
                    return [(request.worker, Rejoin())]
                place.joined, place.line = False, replace(place.line, left=True)
                self._round.pop(request.worker, None)
                for shard in self.shards:
                    shard.forget(request.worker)
                self.journal.add(WorkerLeft(request.worker, self.journal.clock()))
            return [(request.worker, Done()), *self._close_round()]

    def _exchange(self, request: Exchange) -> list[Answer]:
        worker, place = request.worker, self._place(request.worker)
        if request.message.shape != self._center.shape:
            raise ProtocolError(f"Expected {self.size} elements. Received: {request.message.shape}")
        if request.num_steps < 1 or request.num_samples < 0:
            raise ProtocolError(
                "Expected a window of at least one step. "
                f"Received: num_steps={request.num_steps}, num_samples={request.num_samples}"
            )
        with place.lock:
            if not place.joined:
                return [(worker, Rejoin())]
            last = place.line.sequence
            if request.sequence == last and request.sequence > 0:
                self._pull(worker, request.message)
                return [(worker, Exchanged(request.message, 0, restart=True))]
            if request.sequence != last + 1:
                raise ProtocolError(
                    f"Expected commit {last + 1} of worker {worker}. Received: {request.sequence}"
                )
            if not _finite(request.message):
                return [(worker, Refused("the message holds NaN or infinity"))]
            if self.algorithm.synchronous:
                self._round[worker] = request
                return self._close_round()
            staleness = 0
            for shard, (low, high) in zip(self.shards, self._bounds, strict=True):
                part = request.message[low:high]
                behind = shard.exchange(
                    part, worker, request.num_steps, request.num_samples, self.num_workers
                )
                staleness = max(staleness, behind)
            self.journal.add(self._advance(request, staleness), updates=1)
            return [(worker, Exchanged(request.message, staleness))]

    def _close_round(self) -> list[Answer]:
        """Apply the open round if it is complete, and answer its workers."""
        live = sum(not place.line.left for place in self._places)
        if not self._round or len(self._round) < min(self.quorum or live, live):
            return []
        # By worker, not by arrival: the sum of floats depends on the order.
        messages = [self._round[worker] for worker in sorted(self._round)]
        self._round = {}
        workers = [message.worker for message in messages]
        behind = [max(shard.staleness_of(worker) for shard in self.shards) for worker in workers]
        mean = _mean(messages, self.algorithm.weighted)
        num_steps = max(message.num_steps for message in messages)
        num_samples = sum(message.num_samples for message in messages)
        for shard, (low, high) in zip(self.shards, self._bounds, strict=True):
            shard.exchange_round(mean[low:high], workers, num_steps, num_samples)
        mean.flags.writeable = False
        windows = [self._advance(*pair) for pair in zip(messages, behind, strict=True)]
        self.journal.add(*windows, updates=1)
        return [
            (worker, Exchanged(mean, staleness)) for worker, staleness in zip(workers, behind, strict=True)
        ]

    def _pull(self, worker: int, out: Vector) -> None:
        for shard, (low, high) in zip(self.shards, self._bounds, strict=True):
            shard.pull(worker, out[low:high])

    def _advance(self, request: Exchange, staleness: int) -> Window:
        place = self._place(request.worker)
        samples = place.line.samples + request.num_samples
        place.line = Line(request.sequence, request.epoch, request.step, samples)
        return Window(
            worker=request.worker,
            epoch=request.window_epoch,
            iteration=request.sequence - 1,
            steps=request.num_steps,
            samples=request.num_samples,
            metrics=request.metrics,
            staleness=staleness,
            timestamp=self.journal.clock(),
        )


def check_quorum(algorithm: Algorithm, num_workers: int, quorum: int | None) -> None:
    """Raise ValueError unless `quorum` is None, or lies in 1..num_workers for a synchronous rule."""
    if quorum is not None and not (algorithm.synchronous and 1 <= quorum <= num_workers):
        raise ValueError(
            "`quorum` must lie between 1 and `num_workers`, and belongs to synchronous rules alone. "
            f"Received: quorum={quorum}, num_workers={num_workers}, algorithm={algorithm!r}"
        )


def _finite(message: Vector) -> bool:
    """Whether no element is NaN or infinite: one pass, no temporary (a NaN or infinity stays in the sum)."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(message.sum()))


def _mean(messages: list[Exchange], weighted: bool) -> Vector:
    if len(messages) == 1:
        return messages[0].message.copy()
    weights = np.array([message.num_samples if weighted else 1 for message in messages], np.float32)
    if not weights.any():  # no samples to weigh by
        weights[:] = 1
    weights /= weights.sum()
    mean: Vector = messages[0].message * weights[0]
    for message, weight in zip(messages[1:], weights[1:], strict=True):
        mean += message.message * weight
    return mean
