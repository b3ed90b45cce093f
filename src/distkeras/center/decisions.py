"""Decides, once a message, its number, its staleness and what happens to it."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from distkeras.algorithms import BUFFER, DISCARD, TAKE, Algorithm, Commit, Memory, Vector, Verdict
from distkeras.center.answers import WAITS, LogEntry
from distkeras.center.config import CenterConfig
from distkeras.center.epochs import Epochs
from distkeras.center.kept import Kept
from distkeras.center.request_log import RequestLog, entry_of
from distkeras.center.requests import DRIVER, Exchange, Join, Leave, Write
from distkeras.events import CenterKept, EpochEnded


class Decision(NamedTuple):
    """What happens to one message, in all shards alike.

    Attributes:
        turn: place among everything that reads or changes the shards: they follow this order.
        commit: facts for the algorithm, with its verdict.
        staleness: staleness of each message: one, or those of a round.
        num_updates: updates of the center after this one.
        kept: numbers of rows for which the center is to be copied after this message.
        ended: the epochs that this message ends.
    """

    turn: int
    commit: Commit
    staleness: tuple[int, ...]
    num_updates: int = 0
    kept: tuple[int, ...] = ()
    ended: tuple[EpochEnded, ...] = ()


@dataclass(frozen=True)
class Counts:
    """Counts of the decisions so far, for snapshots.

    Attributes:
        commits: messages decided; a round counts once.
        updates: messages taken: the version of the center.
        buffered: messages buffered since the last one that was taken.
        samples: rows in all messages.
        memory: what the algorithm's decisions remember, plain JSON.
    """

    commits: int = 0
    updates: int = 0
    buffered: int = 0
    samples: int = 0
    memory: Memory = field(default_factory=dict)


class Decisions:
    """Gives every message its number, its staleness and its verdict, under one short lock.

    Args:
        config: settings of the center.
        epochs: adds up what the windows report.
        log: log of the requests, for other servers of the job; `None` if there are none.
        training: returns the number of workers, for the algorithm.
        present: returns the workers that have not left.

    Attributes:
        commits: messages decided so far; a round counts once.
        samples: rows in them.
        log: as in the arguments.
        obeys: whether the request that is handled now was handled by another server before.
        kept: copies of the center that are wanted, and those that have been made.
    """

    def __init__(
        self,
        config: CenterConfig,
        epochs: Epochs,
        log: RequestLog | None = None,
        training: Callable[[], int] | None = None,
        present: Callable[[], Collection[int]] | None = None,
    ) -> None:
        self.log = log
        self._epochs = epochs
        self.kept = Kept()
        self.obeys = False
        self._marks: tuple[int, ...] = ()
        self._given: LogEntry | None = None
        self._round: Commit | None = None  # The round that the current request has closed.
        self._algorithm = config.algorithm
        self._num_workers, self._training = config.num_workers, training
        self._present = present or (lambda: range(config.num_workers))
        kind = type(config.algorithm)
        self._remembers = kind.decide_with is not Algorithm.decide_with
        self._takes_all = kind.decide is Algorithm.decide and not self._remembers
        self._memory: Memory = {}
        # If exchanges overlap whole windows, a worker's message is based on the center of one exchange
        # earlier, and on its own last window, which it did not have to receive.
        self._windows_ahead = 2 if config.overlap is True else 1
        self._lock = threading.Lock()
        self._turns = 0
        self.commits = self._updates = self._buffered = self.samples = 0
        # By worker: the versions that it held at the start of the next window that it sends, and later ones.
        self._held: dict[int, deque[int]] = {}

    @property
    def counts(self) -> Counts:
        """The counts so far."""
        with self._lock:
            memory = copy.deepcopy(self._memory)
            return Counts(self.commits, self._updates, self._buffered, self.samples, memory)

    def restore(self, counts: Counts) -> None:
        """Continue from the `counts` in a snapshot."""
        with self._lock:
            self.commits, self._updates, self._buffered = counts.commits, counts.updates, counts.buffered
            self.samples, self._memory = counts.samples, copy.deepcopy(counts.memory)

    def read(self) -> int:
        """Return the turn of a read of the whole center."""
        with self._lock:
            return self._turn()

    @contextlib.contextmanager
    def obeying(self, given: LogEntry) -> Iterator[None]:
        """Decide the next message as another server has `given`, in a block that handles one request."""
        self.obeys, self._given = True, given if given.number else None
        try:
            yield
        finally:
            self.obeys, self._given = False, None

    def note(self, request: Exchange | Join | Leave | Write, waits: bool = False) -> None:
        """Log a request that has been handled, unless it was logged with a turn of its own.

        Args:
            request: the request.
            waits: whether it waits in an open round.
        """
        if self.log is not None and not (
            self._round is None and self.log.last_call(request.worker) == request.call
        ):
            self._note(request.worker, request.call, waits)

    def note_lost(self, worker: int) -> None:
        """Log that `worker` is lost."""
        if self.log is not None:
            self._note(worker, 0)

    def note_round(self) -> None:
        """Log that a round has been closed by no request."""
        if self.log is not None:
            self._note(DRIVER, 0)

    def _note(self, worker: int, call: int, waits: bool = False) -> None:
        # Only the thread that handles the request may have closed a round since.
        closed, self._round = self._round, None
        if self.log is None:
            return
        if waits:
            self.log.add(LogEntry(worker, call, verdict=WAITS))
        else:
            self.log.add(entry_of(worker, call, closed, self._marks if closed is not None else ()))

    def pull(self, request: Join | Exchange) -> int:
        """Return the turn in which the sender of `request` receives the center, to start from it."""
        with self._lock:
            self._held[request.worker] = deque([self._updates] * self._windows_ahead)
            self._log(request)
            return self._turn()

    def forget(self, worker: int) -> None:
        """Drop what is known of a worker that has left."""
        with self._lock:
            self._held.pop(worker, None)

    def commit(self, request: Exchange) -> Decision:
        """Decide on the message of one worker."""
        worker = request.worker
        with self._lock:
            held = self._held[worker]
            staleness = self._updates - held.popleft()
            num_workers = self._num_workers if self._training is None else self._training()
            commit = self._decide(worker, staleness, request.num_steps, request.num_samples, num_workers)
            behind = (commit.staleness,)
            if self.log is not None:
                self._log(request, commit)
            if held and commit.verdict is TAKE:
                for index in range(len(held)):
                    held[index] += 1  # The worker's current window already contains this one.
            held.append(self._updates)
            ended: tuple[EpochEnded, ...] = ()
            if self._epochs.counts:
                ended = self._epochs.add((request,), behind, commit.number, self._updates)
            self._turns += 1
            return Decision(self._turns, commit, behind, self._updates, self._marks, ended)

    def close_round(self, messages: Sequence[Exchange]) -> Decision:
        """Decide on the mean message of a round."""
        workers = [message.worker for message in messages]
        num_steps = max(message.num_steps for message in messages)
        num_samples = sum(message.num_samples for message in messages)
        with self._lock:
            staleness = tuple(self._updates - self._held[worker].popleft() for worker in workers)
            commit = self._round = self._decide(DRIVER, 0, num_steps, num_samples, len(workers))
            for worker in workers:
                self._held[worker].append(self._updates)
            ended = self._epochs.add(messages, staleness, commit.number, self._updates)
            return Decision(self._turn(), commit, staleness, self._updates, self._marks, ended)

    def boundaries(
        self, copy: Vector | None, decision: Decision, time: float
    ) -> list[CenterKept | EpochEnded]:
        """Keep a `copy` of the center after `decision`, if one was wanted.

        Returns:
            The events that tell of it, and those of the epochs that have ended.
        """
        if copy is not None:
            self.kept.add(decision.kept, copy, decision.num_updates)
        number = decision.commit.number
        kept = [CenterKept(samples, number, decision.num_updates, time) for samples in decision.kept]
        return [*kept, *decision.ended]

    def held(self) -> dict[int, tuple[int, ...]]:
        """Return the versions from which the workers train, as numbers of updates behind the center."""
        with self._lock:
            return {
                worker: tuple(self._updates - version for version in versions)
                for worker, versions in self._held.items()
            }

    def would_discard(self, worker: int) -> bool:
        """Return whether a message that `worker` sent now would be discarded, by its staleness alone."""
        with self._lock:
            held = self._held.get(worker)
            if not held:
                return False
            staleness, number = self._updates - held[0], self.commits + 1
        num_workers = self._num_workers if self._training is None else self._training()
        commit = Commit(worker, staleness, 1, 0, num_workers, None, number)
        return self._algorithm.decide(commit) is DISCARD

    def _decide(
        self, worker: int, staleness: int, num_steps: int, num_samples: int, num_workers: int
    ) -> Commit:
        commit = Commit(
            worker,
            staleness,
            num_steps,
            num_samples,
            num_workers,
            None,
            self.commits + 1,
            self._buffered,
        )
        given, self._given = self._given, None
        self.samples += num_samples
        marks = self._marks = self.kept.reached(self.samples) if given is None else tuple(given.kept)
        if marks:
            self.kept.make_room()
        if given is not None:
            commit = replace(
                commit,
                number=given.number,
                staleness=given.staleness,
                buffered=given.buffered,
                verdict=Verdict(given.verdict),
            )
        elif not self._takes_all:
            commit = self._judged(commit)
        self.commits = max(self.commits, commit.number)
        if commit.verdict is TAKE:
            self._updates += 1
            self._buffered = 0
        else:
            self._buffered = commit.buffered + (commit.verdict is BUFFER)
        return commit

    def _judged(self, commit: Commit) -> Commit:
        """Return `commit` with the algorithm's verdict."""
        if self._remembers:
            verdict = self._algorithm.decide_with(commit, self._memory, self._present())
        else:
            verdict = self._algorithm.decide(commit)
        return commit if verdict is TAKE else replace(commit, verdict=Verdict(verdict))

    def _log(self, request: Join | Exchange, commit: Commit | None = None) -> None:
        if self.log is not None:
            self.log.add(
                entry_of(request.worker, request.call, commit, () if commit is None else self._marks)
            )

    def _turn(self) -> int:
        self._turns += 1
        return self._turns
