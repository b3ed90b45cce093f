"""A model of the commit protocol: workers, cuts, a server that is killed, time; and all orders of events.

The server's side is the real `Center` with real snapshots. A worker is what `worker.loop` and `wire.client`
make of it, as a state of few values: it sends its request again until it is answered. Each window is an
element of the center: its first commit makes it one, and whatever is lost or counted twice shows. With
fragments, it is an element of each fragment: one commit of a fragment may bring several windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from distkeras.algorithms import Algorithm
from distkeras.center import Center, CenterConfig, Fragments, Snapshot, restore_snapshot, take_snapshot
from distkeras.center.answers import Answer, Done, Exchanged, Joined, Rejoin, Reply
from distkeras.center.fragmented import Fragmented
from distkeras.center.requests import DRIVER, Exchange, Join, Leave, Poll, Request
from distkeras.events import ServerRestored, Window


@dataclass(frozen=True)
class Total(Algorithm):
    """c <- c + sum(d), a synchronous rule: every message counts whole, in whatever round it comes."""

    communication_window: int | None = 3
    synchronous = True

    def combine(self, messages: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
        return np.sum(messages, axis=0, dtype=np.float32)

    def apply(self, center, message, commit, state):
        center += message
        return center


class Clock:
    """The time of one world."""

    def __init__(self, now: float = 7.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Violation(AssertionError):
    """The protocol lost a window, or counted one twice; the message has the steps that lead there."""


@dataclass(frozen=True)
class Worker:
    """What a worker's process knows. Without a process (`alive` is False) it has left for good.

    `exchanged` counts, by fragment, the windows that it had trained at the last exchange.
    """

    joined: bool = False
    sequence: int = 0
    waiting: bool = False  # Its message is in an open round.
    alive: bool = True
    attempt: int = 0
    exchanged: tuple[int, ...] = ()


@dataclass(frozen=True)
class Model:
    """What is explored.

    Attributes:
        algorithm: adds up (the mean of) messages.
        num_workers: of the job.
        num_windows: that each has to commit.
        faults: cuts, kills and duplicates in one run.
        driver: whether the driver reads events, at any time.
        take: makes a snapshot; replaced to plant a bug.
        snapshot_on_leave: as the server does; not to plant a bug.
        center: the class; replaced to plant a bug.
        fragments: which the workers exchange in turn; the class is then `Fragmented`.
        quorum: of the rounds.
        grace: of the rounds, in seconds; one step lets it pass, and another looks at the center.
    """

    algorithm: Algorithm
    num_workers: int = 2
    num_windows: int = 2
    faults: int = 3
    driver: bool = False
    take: Callable[[Center, dict], Snapshot] = take_snapshot
    snapshot_on_leave: bool = True
    center: type[Center] | type[Fragmented] = Center
    fragments: int = 1
    quorum: int | None = None
    grace: float = 0.0

    @property
    def num_commits(self) -> int:
        """Commits of each worker: at the end it exchanges every other fragment once more."""
        return self.num_windows + self.fragments - 1

    def trained(self, sequence: int) -> int:
        """Windows that are trained before commit `sequence`."""
        return min(sequence, self.num_windows)

    def new_center(self) -> Center | Fragmented:
        size = self.num_workers * self.num_windows
        parts = tuple(((size * index, size * (index + 1)),) for index in range(self.fragments))
        fragments = Fragments(parts) if self.fragments > 1 else None
        rounds = {"quorum": self.quorum, "grace": self.grace}
        config = CenterConfig(self.algorithm, self.num_workers, fragments=fragments, **rounds)
        initial = np.zeros(size * self.fragments, np.float32)
        return self.center(config, initial, clock=Clock(), num_shards=1)


@dataclass
class World:
    """One state, and the steps that led to it."""

    model: Model
    center: Center | Fragmented
    snapshot: Snapshot
    workers: tuple[Worker, ...]
    faults: int
    since: int = 0
    history: frozenset[tuple[int, int]] = frozenset()
    steps: tuple[str, ...] = field(default=(), compare=False)

    def key(self) -> object:
        """What two worlds have in common that go on alike."""
        driver = (self.since - self.center.event_log.next, self.history) if self.model.driver else None
        return (_known(self.center), _saved(self.snapshot), self.workers, self.faults, driver)

    def copy(self) -> World:
        return replace(self, center=_copy(self.center, self.model))


def explore(model: Model) -> int:
    """Visit every state; return how many there are.

    Raises:
        Violation: in one of them something is lost or counted twice, or nothing can go on.
    """
    center = model.new_center()
    first = World(model, center, take_snapshot(center, {}), (Worker(),) * model.num_workers, model.faults)
    seen, stack = {first.key()}, [first]
    while stack:
        world = stack.pop()
        _check(world)
        following = list(_following(world))
        alive = [worker for worker in world.workers if worker.alive]
        if not alive:
            _check_end(world)
        elif all(worker.waiting for worker in alive) and world.center.due is None:
            raise Violation(f"Everybody waits after {world.steps}")
        for step in following:
            key = step.key()
            if key not in seen:
                seen.add(key)
                stack.append(step)
    return len(seen)


def _following(world: World) -> Iterator[World]:
    """Every state that one step leads to."""
    for index, worker in enumerate(world.workers):
        if worker.alive and not worker.waiting:
            yield _send(world, index, "is answered")
        if world.faults and worker.alive:
            yield from _faults_of(world, index, worker)
    yield _step(world, "a snapshot is taken", snapshot=world.model.take(world.center, {}))
    if world.faults:
        yield _restart(world)
    if world.model.driver:
        yield _poll(world)
    if any(_is_over(member) is False for member in world.center.members):
        yield _pass_time(world)
    if any(map(_is_over, world.center.members)):
        yield _look(world)


def _is_over(center: Center) -> bool | None:
    """Return whether the grace of the open round is over; `None` if none has begun."""
    return None if center.due is None else center.clock() >= center.due


def _pass_time(world: World) -> World:
    world = world.copy()
    for member in world.center.members:
        member.clock.now += world.model.grace
    return _step(world, "a grace is over")


def _look(world: World) -> World:
    world = world.copy()
    answers = world.center.look()
    if not answers:
        raise Violation(f"A grace is over, and nobody is answered: {world.steps}")
    return _step(_answered(world, answers), "the server looks at the round")


def _faults_of(world: World, index: int, worker: Worker) -> Iterator[World]:
    poorer = replace(world, faults=world.faults - 1)
    if worker.waiting:
        yield _with_worker(poorer, index, replace(worker, waiting=False), "is cut off while it waits")
    else:
        yield _send(poorer, index, "loses the reply")
        yield _send(_send(poorer, index, "loses the reply"), index, "sends it twice; is answered")
    yield _with_worker(poorer, index, Worker(attempt=worker.attempt + 1), "is killed and replaced")


def _step(world: World, what: str, **changes: object) -> World:
    return replace(world, steps=(*world.steps, what), **changes)


def _with_worker(world: World, index: int, worker: Worker, what: str = "") -> World:
    workers = (*world.workers[:index], worker, *world.workers[index + 1 :])
    return _step(world, f"worker {index} {what}", workers=workers)


def _request(world: World, index: int) -> Request:
    worker, model = world.workers[index], world.model
    if not worker.joined:
        return Join(index, worker.attempt)
    sequence = worker.sequence + 1
    fragment = worker.sequence % model.fragments
    before, now = worker.exchanged[fragment], model.trained(sequence)
    if before == now:  # All windows are trained, and this fragment has them.
        return Leave(index)
    message = np.zeros(world.center.size // model.fragments, np.float32)
    message[index * model.num_windows + before : index * model.num_windows + now] = 1
    return Exchange(index, sequence, now - before, 1, 0, now, message, fragment=fragment)


def _send(world: World, index: int, what: str) -> World:
    """Worker `index` sends its request, which is handled; who is answered hears it, but it may not."""
    world, request = world.copy(), _request(world, index)
    answers = world.center.handle(request)
    name = type(request).__name__
    if isinstance(request, Leave) and world.model.snapshot_on_leave:
        world.snapshot = world.model.take(world.center, {})
    own = [reply for receiver, reply in answers if receiver == index]
    worker = world.workers[index]
    if not own:  # It waits for the others, if it is still connected.
        world = _answered(world, answers)  # Their grace was over.
        return _with_worker(world, index, replace(worker, waiting=what == "is answered"), f"sends {name}")
    world = _answered(world, [answer for answer in answers if answer[0] != index])
    if what != "loses the reply":
        worker = _hear(worker, own[0], world.model)
    return _with_worker(world, index, worker, f"sends {name} and {what}")


def _answered(world: World, answers: list[Answer]) -> World:
    """Let those who wait hear of their round."""
    for receiver, reply in answers:
        if world.workers[receiver].waiting:
            heard = _hear(world.workers[receiver], reply, world.model)
            world = _with_worker(world, receiver, heard, "hears of its round")
    return world


def _hear(worker: Worker, reply: Reply, model: Model) -> Worker:
    match reply:
        case Joined():
            exchanged = (model.trained(reply.sequence),) * model.fragments
            return replace(worker, joined=True, sequence=reply.sequence, exchanged=exchanged)
        case Exchanged():
            sequence, fragment = worker.sequence + 1, worker.sequence % model.fragments
            rest = worker.exchanged[:fragment], worker.exchanged[fragment + 1 :]
            exchanged = (*rest[0], model.trained(sequence), *rest[1])
            return replace(worker, sequence=sequence, waiting=False, exchanged=exchanged)
        case Rejoin():
            return replace(worker, joined=False)
        case Done():
            return replace(worker, alive=False)
    raise Violation(f"Nobody expects {reply!r}")


def _restart(world: World) -> World:
    center = world.model.new_center()
    restore_snapshot(center, world.snapshot, world.since)
    workers = tuple(replace(worker, waiting=False) for worker in world.workers)
    return _step(
        world,
        "the server is killed and started again",
        center=center,
        workers=workers,
        faults=world.faults - 1,
    )


def _poll(world: World) -> World:
    world = world.copy()
    ((receiver, polled),) = world.center.handle(Poll(world.since))
    if receiver != DRIVER:
        raise Violation(f"The driver's answer went to {receiver}")
    history = world.history
    for event in polled.events:
        match event:
            case Window():
                if (event.worker, event.iteration) in history:
                    raise Violation(f"The history has {event} twice: {world.steps}")
                history |= {(event.worker, event.iteration)}
            case ServerRestored():
                history = frozenset(w for w in history if w[1] < event.commits[w[0]])
    return _step(world, "the driver polls", since=polled.next, history=history)


def _check(world: World) -> None:
    """The center has each window that the ledger has, once, and no other."""
    windows = world.model.num_windows
    mean = world.model.algorithm.synchronous and not isinstance(world.model.algorithm, Total)
    share = 1 / world.model.num_workers if mean else 1.0
    for member in world.center.members:
        expected = np.zeros(member.size, np.float32)
        for worker, record in enumerate(member._records):
            trained = world.model.trained(record.sequence)
            expected[worker * windows : worker * windows + trained] = share
        if not np.array_equal(member.snapshot(), expected):
            raise Violation(f"Expected {expected}. Received: {member.snapshot()} after {world.steps}")


def _check_end(world: World) -> None:
    """All workers have left: whatever happens now, no window is missing."""
    model = world.model
    sequences = {record.sequence for member in world.center.members for record in member._records}
    if min(sequences) < model.num_windows or max(sequences) != model.num_commits:
        raise Violation(f"Windows are lost after {world.steps}")
    if model.driver:
        history = _poll(world).history
        if len(history) != model.num_commits * model.num_workers:
            raise Violation(f"Received: history {sorted(history)} after {world.steps}")


def _copy(center: Center | Fragmented, model: Model) -> Center | Fragmented:
    """A copy that goes on like `center`, with the events that nobody has read."""
    copy = model.new_center()
    for mine, theirs in zip(copy.members, center.members, strict=True):
        _copy_member(mine, theirs)
    copy.event_log.restore(center.event_log.unread(), center.event_log._first)
    return copy


def _copy_member(copy: Center, center: Center) -> None:
    copy.clock.now, copy._rounds.due = center.clock.now, center._rounds.due
    copy._vector.restore(*center._vector.state())
    copy._decisions.restore(center._decisions.counts)
    copy._decisions._held = {worker: held.copy() for worker, held in center._decisions._held.items()}
    for mine, theirs in zip(copy._records, center._records, strict=True):
        mine.restore(theirs.saved())
        mine.joined, mine.missed = theirs.joined, theirs.missed
    for mine, theirs in zip(copy.shards, center.shards, strict=True):
        mine._received = {worker: held.copy() for worker, held in theirs._received.items()}
    copy._rounds.messages = {
        worker: replace(r, message=r.message.copy()) for worker, r in center._rounds.messages.items()
    }


def _known(center: Center | Fragmented) -> object:
    return tuple(map(_known_of_member, center.members))


def _known_of_member(center: Center) -> object:
    stale = tuple(sorted(center.held().items()))
    records = tuple((*record.saved().values(), record.joined) for record in center._records)
    round_ = tuple(sorted(center._rounds.messages)), _is_over(center)
    return (center.snapshot().tobytes(), records, round_, stale)


def _saved(snapshot: Snapshot) -> object:
    return tuple(
        (member.center.tobytes(), tuple(tuple(worker.values()) for worker in member.workers))
        for member in snapshot.members
    )
