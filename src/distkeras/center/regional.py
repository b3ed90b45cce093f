"""Servers in two levels: regions of workers, whose centers are the workers of a global center."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from distkeras.algorithms import Algorithm, State, Vector
from distkeras.center.answers import Answer, Done, Exchanged, Joined, Pulled, Refused
from distkeras.center.center import Center
from distkeras.center.checks import ProtocolError
from distkeras.center.config import CenterConfig
from distkeras.center.epochs import Epochs
from distkeras.center.event_log import EventLog
from distkeras.center.kept import Kept
from distkeras.center.outer import Outer
from distkeras.center.requests import (
    DRIVER,
    Dismiss,
    Exchange,
    Follow,
    Join,
    Keep,
    Leave,
    Order,
    Poll,
    Pull,
    Request,
    Write,
)
from distkeras.center.snapshot import CenterState, SnapshotError
from distkeras.center.worker_side import WorkerSide
from distkeras.events import CenterFailed, CenterKept

_ANCHOR, _MEMORY = "anchor", "memory/"
"""Names of a region's arrays in a snapshot, beside the states of the global center's shards."""


@dataclass
class _Link:
    """What a region keeps as a worker of the global center.

    Attributes:
        anchor: the weights from which the rule counts its progress.
        sequence: number of its last commit.
        commits: commits of its workers that the global center has.
        samples: their rows.
        memory: what the rule keeps in the worker.
    """

    anchor: Vector
    sequence: int
    commits: int
    samples: int
    memory: State


class Regional(Outer):
    """Passes every request to the center of the worker's region; the global center is that of the training.

    After each window of commits a region exchanges with the global center, while its own workers' commits
    wait. It does so once more when its last worker has left, so that no row is lost. All centers are in one
    process, and no message goes between them: a region's exchange and the commit before it are one step,
    which a snapshot has whole or not at all.

    Epochs and the copies at their ends count the rows of all regions; a copy is one of the global center.

    Args:
        config: settings that decide the result, with `regions`.
        initial: the first center, shape (size,); copied.
        clock: seconds since the epoch, for the events' timestamps.
        num_shards: number of shards of each center; chosen by size by default.

    Attributes:
        config: the settings.
        top: the global center.
    """

    def __init__(
        self,
        config: CenterConfig,
        initial: Vector,
        *,
        clock: Callable[[], float],
        num_shards: int | None = None,
    ) -> None:
        if config.regions is None:
            raise ValueError("Expected settings with `regions`. Received: regions=None")
        self.config, self._window = config, config.regions.window
        region, above = config.region(), config.above()
        event_log = EventLog(clock)
        self._epochs = Epochs(config, clock, others_train=lambda: not self._all_left)
        members = [
            Center(
                region,
                initial,
                clock=clock,
                num_shards=num_shards,
                first_worker=index * region.num_workers,
                event_log=event_log,
                epochs=self._epochs,
            )
            for index in range(config.regions.num_regions)
        ]
        super().__init__(members, members[0].size)
        # Nobody reads the events of the global center: those of the workers tell of all windows.
        self._own_events = EventLog(clock, windows=False)
        self.top = Center(above, initial, clock=clock, num_shards=num_shards, event_log=self._own_events)
        self._side = WorkerSide(above.algorithm, above.trainable_of(self.size), None)
        self._links = [_Link(self._joined(index).center, 0, 0, 0, {}) for index in range(len(members))]
        self._kept = Kept()

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of the workers."""
        return self.config.algorithm

    @property
    def num_workers(self) -> int:
        """Number of workers, of all regions together."""
        return self.config.num_workers

    @property
    def num_commits(self) -> int:
        """Number of messages of workers decided so far, of all regions."""
        return sum(member.num_commits for member in self.members)

    def snapshot(self) -> Vector:
        """Return a copy of the global center."""
        return self.top.snapshot()

    def handle(self, request: Request | Dismiss) -> list[Answer]:
        """Handle one request and return the answers, by worker.

        Raises:
            ProtocolError: as for `Center.handle`, or the request needs one level of servers.
        """
        match request:
            case Exchange() | Leave():
                return self._commit(request)
            case Poll():
                return [(DRIVER, self.event_log.read(request.since))]
            case Pull():
                return [(DRIVER, self._pull(request.kept))]
            case Keep():
                self._kept.want(request.samples)
                self._keep_what_is_due()
                return [(DRIVER, Done())]
            case Order():
                if request.orders.until is not None:
                    raise ProtocolError("Expected no `until` for servers in two levels.")
                for member in self.members:
                    member.handle(request)
                return [(DRIVER, Done())]
            case Follow() | Dismiss() | Write():
                raise ProtocolError(f"Expected one level of servers for a {type(request).__name__}.")
            case _:
                return self.members[self._region_of(request.worker)].handle(request)

    def mark_lost(self, worker: int, silence: float) -> list[Answer]:
        """As for `Center.mark_lost`."""
        return self.members[self._region_of(worker)].mark_lost(worker, silence)

    def seconds_left(self) -> None:
        """Return `None`: there are no rounds."""

    def look(self) -> list[Answer]:
        """Do nothing, and return no answers."""
        return []

    def state_above(self) -> CenterState:
        """Return a copy of the global center, and of what the regions keep as its workers.

        The caller has paused all regions.

        Raises:
            SnapshotError: as for `Center.state`, or the global center is not finite.
        """
        state = self.top.state()
        if (problem := self.top.finite.check(self.event_log, state)) is not None:
            raise SnapshotError(problem)
        return replace(state, states=[*state.states, *(_saved(link) for link in self._links)])

    def restore_above(self, state: CenterState | None) -> None:
        """Continue from `state_above`, after the regions were restored and before the first request.

        Raises:
            SnapshotError: `state` is of another training.
        """
        shards = len(self.top.shards)
        if state is None or len(state.states) != shards + len(self._links):
            found = "none" if state is None else f"{len(state.states)} states"
            raise SnapshotError(
                f"Expected a snapshot of a global center with {shards} shards and {len(self._links)} "
                f"regions. Received: {found}"
            )
        self.top.restore(replace(state, states=state.states[:shards]))
        saved = zip(state.workers, state.states[shards:], strict=True)
        self._links = [
            _Link(
                arrays[_ANCHOR],
                record["sequence"],
                record["step"],
                record["samples"],
                {name.removeprefix(_MEMORY): array for name, array in arrays.items() if name != _ANCHOR},
            )
            for record, arrays in saved
        ]
        for region in range(len(self._links)):
            self._joined(region)

    @property
    def _all_left(self) -> bool:
        return all(member.all_left for member in self.members)

    def _region_of(self, worker: int) -> int:
        if not 0 <= worker < self.num_workers:
            raise ProtocolError(f"Expected a worker in 0..{self.num_workers - 1}. Received: {worker}")
        return worker // (self.num_workers // len(self.members))

    def _commit(self, request: Exchange | Leave) -> list[Answer]:
        """Handle a request after which the worker's region may have to exchange with the global center."""
        region = self._region_of(request.worker)
        member, link = self.members[region], self._links[region]
        with member.paused():
            answers = member.handle(request)
            behind = member.num_commits - link.commits
            if (behind >= self._window or (behind and member.all_left)) and (
                refused := self._pass_up(region)
            ):
                return [(request.worker, refused)]
        self._keep_what_is_due()
        return answers

    def _pass_up(self, region: int) -> Refused | None:
        """Exchange with the global center as its worker; return why it has refused, if it has."""
        member, link = self.members[region], self._links[region]
        local, commits, samples = member.snapshot(), member.num_commits, member.num_samples
        steps, rows = commits - link.commits, samples - link.samples
        message = self._side.message(local, link.anchor, steps, 0, link.memory)
        # The place of a worker in its data is, for a region, the number of its commits.
        request = Exchange(region, link.sequence + 1, steps, rows, 0, commits, message.copy())
        [(_, answer)] = self.top.handle(request)
        if not isinstance(answer, Exchanged):
            reason = answer.reason if isinstance(answer, Refused) else f"unexpectedly: {answer!r}"
            reason = f"The global server has refused what region {region} sent: {reason}."
            self.event_log.add(CenterFailed(reason, self.event_log.clock()))
            return Refused(reason)
        weights = self._side.adopted(local, message, answer, 0, link.memory)
        link.anchor = self._side.anchor(weights, answer)
        link.sequence, link.commits, link.samples = request.sequence, commits, samples
        member.put(weights)
        self._own_events.read(self._own_events.next)  # Drops what nobody reads.
        return None

    def _joined(self, region: int) -> Joined:
        [(_, joined)] = self.top.handle(Join(region))
        if not isinstance(joined, Joined):
            raise TypeError(f"Expected Joined. Received: {joined!r}")
        return joined

    def _pull(self, kept: int) -> Pulled | Refused:
        return self._kept.pulled(kept) if kept else Pulled(self.snapshot(), self.event_log.num_updates)

    def _keep_what_is_due(self) -> None:
        """Copy the global center for the numbers of rows that all regions together have reached."""
        numbers = self._kept.reached(sum(member.num_samples for member in self.members))
        if not numbers:
            return
        updates = self.event_log.num_updates
        self._kept.make_room()
        self._kept.add(numbers, self.snapshot(), updates)
        now = self.event_log.clock()
        self.event_log.add(*(CenterKept(samples, self.num_commits, updates, now) for samples in numbers))


def _saved(link: _Link) -> State:
    """Return what a region keeps, as arrays that a snapshot holds."""
    memory = {f"{_MEMORY}{name}": array.copy() for name, array in link.memory.items()}
    return {_ANCHOR: link.anchor.copy(), **memory}
