"""Every order of commits, cuts, duplicates, replaced workers, snapshots and restarts of the server."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from explorer import Model, Total, Violation, explore

from distkeras.algorithms import DOWNPOUR, Algorithm
from distkeras.center import Center, ProtocolError, take_snapshot
from distkeras.center.requests import Join


@dataclass(frozen=True)
class Sum(Algorithm):
    """c <- c + mean(d), a synchronous rule."""

    synchronous = True

    def apply(self, center, message, commit, state):
        center += message
        return center


GRACE = Model(Total(), num_workers=3, num_windows=1, faults=1, quorum=2, grace=1.0)


@pytest.mark.parametrize(
    ("model", "at_least"),
    [
        (Model(DOWNPOUR(), num_workers=2, num_windows=2, faults=2), 3000),
        (Model(Sum(), num_workers=2, num_windows=2, faults=3), 2000),
        (Model(DOWNPOUR(), num_workers=1, num_windows=3, faults=3, driver=True), 3000),
        (Model(Total(), num_workers=2, num_windows=2, faults=1, quorum=1), 1000),
        (GRACE, 1500),
    ],
    ids=["asynchronous", "synchronous", "history", "quorum", "grace"],
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

    def _in_order(self, request):
        if isinstance(request, Join):
            self._rounds.messages.clear()
        return super()._in_order(request)


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


class TellsOnlyTheSender(Center):
    """Closes a round whose grace is over when a later message comes, and answers only the sender of that."""

    def _exchange(self, request, record):
        answers = super()._exchange(request, record)
        return [answer for answer in answers if answer[0] == request.worker]


class LeavesTheRoundOpen(Center):
    """Applies a round whose grace is over, and keeps its messages for the next one."""

    def look(self):
        messages = dict(self._rounds.messages)
        answers = super().look()
        self._rounds.messages |= messages
        return answers


class GoesOnWithTheGrace(Center):
    """Lets a grace go on for a round whose worker was killed, though the quorum is gone."""

    def _in_order(self, request):
        due = self._rounds.due
        answers = super()._in_order(request)
        if isinstance(request, Join):
            self._rounds.due = due
        return answers


@pytest.mark.parametrize("center", [TellsOnlyTheSender, LeavesTheRoundOpen, GoesOnWithTheGrace])
def test_a_planted_bug_of_the_grace_is_found(center):
    with pytest.raises((Violation, ProtocolError)):
        explore(replace(GRACE, center=center))
