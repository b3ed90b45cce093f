"""A center on two servers: the second handles its requests in the order of the first, whatever is cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from explorer import Total, Violation
from servers_explorer import World

from distkeras.algorithms import DCASGD, DISCARD, DOWNPOUR, TAKE, Algorithm, DynSGD, FedBuff, LocalSGD
from distkeras.center import Center, CenterConfig
from distkeras.center.answers import Followed, LogEntry
from distkeras.center.follower import Follower
from distkeras.center.requests import Exchange, Join
from distkeras.events import RoundClosed, Window

RUNS = 400


@dataclass(frozen=True)
class Picky(Algorithm):
    """c <- c + d / (2 + tau), unless the staleness is 2: the order of messages decides what comes out."""

    def decide(self, commit):
        return DISCARD if commit.staleness == 2 else TAKE

    def apply(self, center, message, commit, state):
        center *= 1.25
        center += message / (2 + commit.staleness)
        return center


QUORUM, GRACE = {"quorum": 2}, {"quorum": 2, "grace": 1.0}


@pytest.mark.parametrize(
    ("algorithm", "rounds"),
    [(DOWNPOUR(), {}), (LocalSGD(), {}), (Total(), QUORUM), (Total(), GRACE)],
    ids=["DOWNPOUR", "LocalSGD", "quorum", "grace"],
)
def test_every_window_counts_once_at_both_servers_under_cuts_kills_and_restarts(algorithm, rounds):
    for seed in range(RUNS // 2 if rounds else RUNS):
        World(algorithm, seed, **rounds).run()


@pytest.mark.parametrize(
    ("algorithm", "rounds"),
    [
        *((rule, {}) for rule in (DynSGD(), DCASGD(), Picky(), FedBuff(buffer_size=2), LocalSGD())),
        (LocalSGD(), QUORUM),
        (LocalSGD(), GRACE),
    ],
)
def test_without_faults_both_servers_have_the_center_of_one(algorithm, rounds):
    """The messages of both are alike, so that their parts are too."""
    for seed in range(RUNS // 4):
        world = World(algorithm, seed, faults=0, **rounds)
        world.run()
        first, second = world.centers
        assert second.snapshot().tobytes() == first.snapshot().tobytes()
        assert (second.num_updates, second.num_commits) == (first.num_updates, first.num_commits)
        assert np.abs(first.snapshot()).max() > 0
        assert rounds_of(first) == rounds_of(second)


def rounds_of(center):
    """The workers of each round, in order."""
    events = center.event_log.read(0).events
    return [event.workers for event in events if isinstance(event, RoundClosed)]


def test_a_verdict_is_the_same_at_both_servers_whatever_is_cut():
    """A window that one server discards is in no part of the center."""
    for seed in range(RUNS):
        world = World(Picky(), seed, faults=4, kinds=("cut",))
        world.run()
        first, second = (facts_of(center) for center in world.centers)
        assert first == second


def facts_of(center):
    """What was decided about each window."""
    events = [event for event in center.event_log.read(0).events if isinstance(event, Window)]
    return {(w.worker, w.iteration): (w.number, w.verdict, w.staleness) for w in events}


def test_a_worker_whose_connection_is_cut_holds_up_nobody():
    follower = Follower(Center(CenterConfig(DOWNPOUR(), 2), np.zeros(1, np.float32), clock=lambda: 7.0))
    follower.follow(Followed("first", True, False, [], 0))
    for worker in (0, 1):
        assert follower.handle(Join(worker, call=1)) == []
    joined = follower.follow(Followed("first", False, False, [LogEntry(0, 1), LogEntry(1, 1)], 2))
    assert [worker for worker, _ in joined] == [0, 1]
    taken = [LogEntry(worker, 2, worker + 1, worker, 0, "take") for worker in (0, 1)]
    follower.follow(Followed("first", False, False, taken, 4))
    assert follower.handle(commit(1, 2)) == []  # The turn is that of worker 0.
    ((worker, reply),) = follower.cut(0)
    assert (worker, reply.staleness, reply.reply.tolist()) == (1, 1, [1.0])
    ((worker, reply),) = follower.handle(commit(0, 2))  # It comes late, with the decision of its turn.
    assert (worker, reply.staleness, reply.reply.tolist()) == (0, 0, [2.0])


def commit(worker, call):
    return Exchange(worker, 1, 1, 1, 0, 1, np.ones(1, np.float32), call=call)


class InOrderOfArrival(Follower):
    """Does not wait for the first server."""

    def handle(self, request):
        return self.center.handle(request)


class ForgetsWhatPassed(Follower):
    """Waits for an entry that it has had already."""

    def handle(self, request):
        self._passed.clear()
        return super().handle(request)


class KeepsWaitingAnew(Follower):
    """Leaves what waits, when entries may be lost."""

    def follow(self, page):
        with self._lock:
            if not page.anew:
                return super().follow(page)
            self.leader, self.next, self._entries = page.leader, page.next, []
            return []


class ClosesByItsOwnQuorum(Follower):
    """Leaves a round open that the first server has closed, until its own quorum is there."""

    def _close(self, entry):
        return []


class TellsNoGrace(Center):
    """Does not tell other servers that a grace was over."""

    def look(self):
        answers = super().look()
        if answers and self.request_log is not None:
            self.request_log._entries.pop()
            self.request_log._next -= 1
        return answers


@pytest.mark.parametrize("bug", [{"follower": ClosesByItsOwnQuorum}, {"center": TellsNoGrace}])
def test_a_planted_bug_of_the_grace_is_found(bug):
    def all_runs():
        for seed in range(RUNS):
            world = World(Total(), seed, faults=0, **GRACE, **bug)
            world.run()
            if rounds_of(world.centers[0]) != rounds_of(world.centers[1]):
                raise Violation("The rounds of one center are of different workers.")

    with pytest.raises(Violation):
        all_runs()


@pytest.mark.parametrize(
    ("bug", "algorithm", "faults"),
    [
        (InOrderOfArrival, Picky(), 0),
        (ForgetsWhatPassed, DOWNPOUR(), 3),
        (KeepsWaitingAnew, DOWNPOUR(), 3),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_planted_bug_is_found(bug, algorithm, faults):
    def all_runs():
        for seed in range(RUNS):
            world = World(algorithm, seed, faults=faults, follower=bug)
            world.run()
            first, second = world.centers
            if not faults and first.snapshot().tobytes() != second.snapshot().tobytes():
                raise Violation("The parts of one center are of different orders.")

    with pytest.raises(Violation):
        all_runs()
