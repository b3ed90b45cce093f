"""Every order of commits of fragments, cuts, duplicates, replaced workers, snapshots and restarts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from explorer import Model, Total, Violation, explore

from distkeras.algorithms import DOWNPOUR, Algorithm
from distkeras.center import Fragmented, ProtocolError
from distkeras.center.answers import Joined
from distkeras.center.requests import Exchange

GRACE = Model(Total(), num_workers=2, num_windows=1, faults=0, quorum=1, grace=1.0)
ASYNCHRONOUS = Model(DOWNPOUR(2), num_workers=1, num_windows=2, faults=2, driver=True)


@dataclass(frozen=True)
class Sum(Algorithm):
    """c <- c + mean(d), a synchronous rule."""

    communication_window: int = 3
    synchronous = True

    def apply(self, center, message, commit, state):
        center += message
        return center


@pytest.mark.parametrize(
    ("model", "at_least"),
    [
        (ASYNCHRONOUS, 2000),
        (Model(Sum(), num_workers=2, num_windows=2, faults=2), 2000),
    ],
    ids=["history", "synchronous"],
)
def test_no_order_of_faults_loses_a_window_of_a_fragment_or_counts_one_twice(model, at_least):
    assert explore(replace(model, fragments=2, center=Fragmented)) > at_least


def test_three_fragments_and_two_windows_end_with_all_of_them():
    model = Model(Sum(), num_workers=2, num_windows=2, faults=1, fragments=3, center=Fragmented)
    assert explore(model) > 500


def test_rounds_of_fragments_with_a_grace_end_with_all_windows():
    assert explore(replace(GRACE, fragments=2, center=Fragmented)) > 300


class GoesOnFromTheLatest(Fragmented):
    """A worker that joins goes on from the last commit of all fragments."""

    def _join(self, request):
        ((worker, joined),) = super()._join(request)
        latest = max(record["sequence"] for member in self.members for record in member.state().workers)
        return [(worker, replace(joined, sequence=latest) if isinstance(joined, Joined) else joined)]


class AppliesTwice(Fragmented):
    """Takes a repeated commit of a fragment for a new one."""

    def _exchange(self, request: Exchange):
        record = self.members[request.fragment]._records.of(request.worker)
        if record.joined and request.sequence == record.sequence:
            record.sequence = max(0, request.sequence - len(self.members))
        return super()._exchange(request)


@pytest.mark.parametrize("center", [GoesOnFromTheLatest, AppliesTwice])
def test_a_planted_bug_is_found(center):
    with pytest.raises((Violation, ProtocolError)):
        explore(replace(ASYNCHRONOUS, fragments=2, center=center))
