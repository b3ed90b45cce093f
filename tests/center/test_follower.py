"""A center on two servers: the second handles its requests in the order of the first, whatever is cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from servers_explorer import Violation, World

from distkeras.algorithms import DCASGD, DISCARD, DOWNPOUR, TAKE, Algorithm, DynSGD, FedBuff, LocalSGD
from distkeras.center import Center, CenterConfig
from distkeras.center.follower import Follower
from distkeras.center.messages import Exchange, Followed, Join, LogEntry
from distkeras.events import Window

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


@pytest.mark.parametrize("algorithm", [DOWNPOUR(), LocalSGD()], ids=lambda rule: rule.name)
def test_every_window_counts_once_at_both_servers_under_cuts_kills_and_restarts(algorithm):
    for seed in range(RUNS):
        World(algorithm, seed).run()


@pytest.mark.parametrize("algorithm", [DynSGD(), DCASGD(), Picky(), FedBuff(buffer_size=2), LocalSGD()])
def test_without_faults_both_servers_have_the_center_of_one(algorithm):
    """The messages of both are alike, so that their parts are too."""
    for seed in range(RUNS // 4):
        world = World(algorithm, seed, faults=0)
        world.run()
        first, second = world.centers
        assert second.snapshot().tobytes() == first.snapshot().tobytes()
        assert (second.num_updates, second.num_commits) == (first.num_updates, first.num_commits)
        assert np.abs(first.snapshot()).max() > 0


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
