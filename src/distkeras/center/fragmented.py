"""A center in fragments: each is a center of its own, with its ledger, staleness, rounds and state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center.answers import Answer, Joined, Place, Pulled, Refused, Rejoin, Reply, Skipped
from distkeras.center.center import Center
from distkeras.center.checks import ProtocolError
from distkeras.center.config import CenterConfig
from distkeras.center.epochs import Epochs
from distkeras.center.event_log import EventLog
from distkeras.center.layout import shard_bounds
from distkeras.center.outer import Outer
from distkeras.center.reports import Reports
from distkeras.center.requests import (
    DRIVER,
    Beat,
    Dismiss,
    Exchange,
    Join,
    Keep,
    Leave,
    MayJoin,
    Order,
    Poll,
    Pull,
    Request,
)
from distkeras.events import WorkerJoined


class Fragmented(Outer):
    """Passes every commit to the center of its fragment; all centers share one event log.

    There is no request log: fragments are for one server.

    Commit k of a worker, from 1, is for fragment (k - 1) mod P. A worker that joins receives all fragments
    and continues from the earliest place that one of them names: those that are ahead answer the repeated
    commits without applying them. So every fragment counts every minibatch once.

    Args:
        config: settings that decide the result, with `fragments`.
        initial: the first center, shape (size,); copied.
        clock: seconds since the epoch, for the events' timestamps.
        num_shards: number of shards of each fragment; chosen by the largest by default.

    Attributes:
        config: the settings.
    """

    def __init__(
        self,
        config: CenterConfig,
        initial: Vector,
        *,
        clock: Callable[[], float],
        num_shards: int | None = None,
    ) -> None:
        if config.fragments is None:
            raise ValueError("Expected settings with `fragments`. Received: fragments=None")
        self.config, self.fragments = config, config.fragments
        event_log = EventLog(clock)
        epochs, reports = Epochs(config, clock), Reports()
        largest = max(self.fragments.sizes) * np.dtype(config.dtype).itemsize
        num_shards = num_shards or len(shard_bounds(largest, item_bytes=1))
        members = [
            Center(
                config.fragment(fragment),
                self.fragments.gather(initial, fragment),
                clock=clock,
                num_shards=num_shards,
                event_log=event_log,
                epochs=epochs,
                reports=reports,
                fragment=fragment,
                num_fragments=len(self.fragments),
            )
            for fragment in range(len(self.fragments))
        ]
        super().__init__(members, initial.size)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that applies the messages."""
        return self.config.algorithm

    @property
    def num_workers(self) -> int:
        """Number of workers."""
        return self.config.num_workers

    @property
    def num_commits(self) -> int:
        """Number of messages decided so far, of all fragments."""
        return sum(member.num_commits for member in self.members)

    def snapshot(self) -> Vector:
        """Return a copy of the center; each fragment is between two of its messages."""
        return self.fragments.whole([member.snapshot() for member in self.members])

    def handle(self, request: Request | Dismiss) -> list[Answer]:
        """Handle one request and return the answers, by worker.

        Raises:
            ProtocolError: as for `Center.handle`, or there is no such fragment.
        """
        match request:
            case Exchange():
                return self._exchange(request)
            case Join():
                return self._join(request)
            case Leave() | Beat():
                return self._ask_all(request)
            case MayJoin():
                replies = [reply for member in self.members for _, reply in member.handle(request)]
                places = [reply for reply in replies if isinstance(reply, Place)]
                earliest = min(places, key=lambda place: (place.left, place.epoch, place.step))
                return [(request.worker, earliest)]
            case Pull():
                return [(DRIVER, Pulled(self.snapshot(), self.event_log.num_updates))]
            case Order():
                answers = [member.handle(request) for member in self.members]
                return answers[0]
            case Keep():
                raise ProtocolError(
                    "Expected a center without fragments: its fragments are never from the same moment."
                )
            case Poll():
                return [(DRIVER, self.event_log.read(request.since))]
            case _:
                return self.members[0].handle(request)

    @property
    def due(self) -> float | None:
        """Time at which the first grace of an open round is over; `None` if none has begun."""
        return min((member.due for member in self.members if member.due is not None), default=None)

    def seconds_left(self) -> float | None:
        """As for `Center.seconds_left`, over all fragments."""
        left = [member.seconds_left() for member in self.members]
        return min((seconds for seconds in left if seconds is not None), default=None)

    def look(self) -> list[Answer]:
        """As for `Center.look`."""
        return [answer for member in self.members for answer in member.look()]

    def mark_lost(self, worker: int, silence: float) -> list[Answer]:
        """As for `Center.mark_lost`."""
        return [answer for member in self.members for answer in member.mark_lost(worker, silence)]

    def _exchange(self, request: Exchange) -> list[Answer]:
        worker, fragment = request.worker, request.fragment
        if not 0 <= fragment < len(self.members):
            raise ProtocolError(f"Expected a fragment in 0..{len(self.members) - 1}. Received: {fragment}")
        if any(member.misses(worker) for member in self.members):
            self._ask(Beat(worker))  # All fragments hear that it is back, not only this one.
        answers = self.members[fragment].handle(request)
        return [
            (receiver, self._whole(receiver, reply, fragment) if isinstance(reply, Skipped) else reply)
            for receiver, reply in answers
        ]

    def _whole(self, worker: int, skipped: Skipped, fragment: int) -> Skipped:
        """Return the whole center: not only this fragment of the worker's weights may be bad."""
        parts = [
            skipped.center if member.fragment == fragment else member.pull(worker) for member in self.members
        ]
        return replace(skipped, center=self.fragments.whole(parts))

    def _join(self, request: Join) -> list[Answer]:
        own, others = self._ask(request)
        joined = [reply for reply in own if isinstance(reply, Joined)]
        if len(joined) < len(own):
            return [(request.worker, own[0]), *others]  # All refuse the same layout.
        place = _earliest(joined)
        now = self.event_log.clock()
        joined_at = request.worker, request.attempt, place.epoch, place.step, now
        self.event_log.add(WorkerJoined(*joined_at, request.about))
        center = self.fragments.whole([reply.center for reply in joined])
        return [(request.worker, replace(place, center=center)), *others]

    def _ask_all(self, request: Leave | Beat) -> list[Answer]:
        """Pass `request` to all fragments; return one answer to its worker, and those to others."""
        own, others = self._ask(request)
        worst = max(own, key=lambda reply: (isinstance(reply, Refused), isinstance(reply, Rejoin)))
        return [(request.worker, worst), *others]

    def _ask(self, request: Join | Leave | Beat) -> tuple[list[Reply], list[Answer]]:
        """Pass `request` to all fragments; return their replies to its worker, and the answers to others."""
        answers = [answer for member in self.members for answer in member.handle(request)]
        own = [reply for worker, reply in answers if worker == request.worker]
        return own, [answer for answer in answers if answer[0] != request.worker]


def _earliest(joined: Sequence[Joined]) -> Joined:
    """Return the answer with the earliest place, and of several at that place the last commit.

    At its end, or at an order to stop, a worker exchanges all fragments at one place. Where it goes on from
    there, for more epochs, those commits must not be repeated: they would have other minibatches.
    """
    first = min(joined, key=lambda reply: reply.sequence)
    there = [reply for reply in joined if (reply.epoch, reply.step) == (first.epoch, first.step)]
    return max(there, key=lambda reply: reply.sequence)
