"""Every order of commits, cuts, duplicates, replaced workers, snapshots and restarts of the server."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from explorer import Model, Violation, explore

from distkeras.algorithms import DOWNPOUR, Algorithm
from distkeras.center import Center, ProtocolError, take_snapshot


@dataclass(frozen=True)
class Sum(Algorithm):
    """c <- c + mean(d), a synchronous rule."""

    synchronous = True

    def apply(self, center, message, commit, state):
        center += message
        return center


@pytest.mark.parametrize(
    ("model", "at_least"),
    [
        (Model(DOWNPOUR(), num_workers=2, num_windows=2, faults=2), 3000),
        (Model(Sum(), num_workers=2, num_windows=2, faults=3), 2000),
        (Model(DOWNPOUR(), num_workers=1, num_windows=3, faults=3, driver=True), 3000),
    ],
    ids=["asynchronous", "synchronous", "history"],
)
def test_no_order_of_faults_loses_a_window_or_counts_one_twice(model, at_least):
    assert explore(model) > at_least


class AppliesTwice(Center):
    """Takes a repeated commit for a new one."""

    def _exchange(self, request, record):
        if record.joined and request.sequence == record.sequence:
            record.sequence = request.sequence - 1
        return super()._exchange(request, record)


class ForgetsTheRound(Center):
    """Answers a worker that joins anew in the middle of a round by throwing the round away."""

    def _join(self, request, record):
        self._rounds.messages.clear()
        return super()._join(request, record)


class BelievesEverybody(Center):
    """Does not ask workers to join again after a restart."""

    def restore(self, state):
        super().restore(state)
        for worker, place in enumerate(self._records):
            place.joined = True
            self.pull(worker)


def take_late(center, settings):
    """A snapshot whose ledger is read before the last commit, and its center after it."""
    snapshot = take_snapshot(center, settings)
    member = snapshot.members[0]
    workers = [worker | {"sequence": max(0, worker["sequence"] - 1)} for worker in member.workers]
    return replace(snapshot, members=[replace(member, workers=workers)])


@pytest.mark.parametrize(
    "bug",
    [
        {"center": AppliesTwice},
        {"center": BelievesEverybody},
        {"take": take_late},
        {"snapshot_on_leave": False},
    ],
    ids=["applies twice", "no rejoin", "torn snapshot", "leaves without a snapshot"],
)
def test_a_planted_bug_is_found(bug):
    with pytest.raises((Violation, ProtocolError)):
        explore(replace(Model(DOWNPOUR(), num_workers=2, num_windows=2, faults=2), **bug))


def test_a_round_that_is_thrown_away_leaves_workers_waiting_for_ever():
    with pytest.raises(Violation, match="Everybody waits"):
        explore(Model(Sum(), num_workers=2, num_windows=2, faults=2, center=ForgetsTheRound))
