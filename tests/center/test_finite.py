"""Finite messages that would ruin the center, or do: refused, seen, and never in a snapshot."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from distkeras.algorithms import DCASGD, DOWNPOUR, REGISTRY, Algorithm, FedAdam, GapAware, LocalSGD
from distkeras.center import BadUpdates, Center, CenterConfig, SnapshotError, take_snapshot
from distkeras.center.answers import Exchanged, Refused, Skipped
from distkeras.center.bad_updates import note_errors_in_this_thread
from distkeras.center.requests import Exchange, Join, Leave, Poll
from distkeras.events import CenterFailed, UpdateRefused
from distkeras.wire.snapshot_writer import SnapshotWriter
from distkeras.wire.store import SnapshotOptions, Store


def start(algorithm, num_workers=2, **options):
    center = Center(
        CenterConfig(algorithm, num_workers, **options), np.zeros(4, np.float32), clock=lambda: 7.0
    )
    for worker in range(num_workers):
        center.handle(Join(worker))
    return center


def send(center, worker, sequence, *values):
    message = np.resize(np.array(values, np.float32), center.size)
    answers = center.handle(Exchange(worker, sequence, 1, 1, 0, sequence, message, {"loss": 1.0}))
    return [reply for _, reply in answers]


def events(center, kind):
    return [event for event in center.event_log.read(0).events if isinstance(event, kind)]


@pytest.mark.parametrize("size", [2e19, 3e38])
@pytest.mark.parametrize("rule", REGISTRY.values(), ids=lambda rule: rule.__name__)
def test_a_message_that_float32_cannot_square_is_skipped_by_every_rule_and_training_goes_on(rule, size):
    center = start(rule(), bad_updates=BadUpdates("skip"))
    for worker in (0, 1):
        (reply,) = send(center, worker, 1, size)
        assert isinstance(reply, Skipped)
        assert "its square exceeds the range of float32" in reply.reason
    replies = [reply for k in range(2, 12) for worker in (0, 1) for reply in send(center, worker, k, 0.01)]
    assert all(isinstance(reply, Exchanged) for reply in replies)
    assert np.isfinite(center.snapshot()).all()
    assert center.snapshot().any()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_message_that_float32_can_square_is_taken(sign):
    center = start(DOWNPOUR())
    (reply,) = send(center, 0, 1, sign * 9e18)
    assert isinstance(reply, Exchanged)


def ruin_dcasgd(center):
    """The compensation of a stale message grows with its cube."""
    send(center, 0, 1, 1e14)
    return send(center, 1, 1, 1e14)


@dataclass(frozen=True)
class Ratio(Algorithm):
    """Divides by the sum of all messages so far, which may be 0; does or does not tell NumPy."""

    silent: bool = False

    def init(self, center):
        return {"sum": np.zeros(1), "best": np.full(1, np.inf)}

    def apply(self, center, message, commit, state):
        state["sum"] += float(message.sum())
        with np.errstate(all="ignore" if self.silent else None):
            center += message / state["sum"].astype(np.float32)
        return center


@dataclass(frozen=True)
class Stuck(Algorithm):
    """Its center stays finite for ever, and where it is."""

    def init(self, center):
        return {"square": np.zeros_like(center)}

    def apply(self, center, message, commit, state):
        state["square"] += message**4
        center += message / np.sqrt(state["square"])
        return center


@dataclass(frozen=True)
class Mean(Stuck):
    synchronous: ClassVar[bool] = True


def ruin_ratio(center):
    return send(center, 0, 1, 1.0, -1.0)


def ruin_state(center):
    return send(center, 0, 1, 1e10)


RUINS = [(DCASGD(), ruin_dcasgd), (Ratio(), ruin_ratio), (Stuck(), ruin_state)]


@pytest.mark.parametrize("action", ["raise", "skip"])
@pytest.mark.parametrize(("rule", "ruin"), RUINS, ids=lambda value: getattr(value, "name", ""))
def test_a_finite_message_that_ruins_the_center_is_refused_and_nothing_is_taken_after_it(rule, ruin, action):
    center = start(rule, bad_updates=BadUpdates(action))
    told = []
    center.finite.on_failure = told.append
    (reply,) = ruin(center)
    assert isinstance(reply, Refused)
    assert "after a finite message" in reply.reason
    assert told == [reply.reason]
    assert [event.reason for event in events(center, UpdateRefused)] == told
    with pytest.raises(SnapshotError, match="after a finite message"):
        take_snapshot(center, {})
    assert isinstance(send(center, 0, 2, 0.01)[0], Refused)
    assert isinstance(center.handle(Leave(0))[0][1], Refused)
    assert told == [reply.reason]


def test_threads_that_note_errors_for_good_see_the_same_and_no_other_thread_does():
    found = []

    def handle():
        note_errors_in_this_thread()
        for _ in range(3):
            center = start(Ratio())
            found.append(send(center, 0, 1, 1.0)[0])
            found.append(send(center, 0, 2, -1.0)[0])  # It divides by 0.

    thread = threading.Thread(target=handle)
    thread.start()
    thread.join(20)
    assert [type(reply) for reply in found] == [Exchanged, Refused] * 3
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        np.ones(1) / np.zeros(1)


def test_all_of_a_round_that_ruins_the_center_are_told():
    center = start(Mean())
    assert send(center, 0, 1, 1e10) == []
    replies = send(center, 1, 1, 1e10)
    assert [type(reply) for reply in replies] == [Refused, Refused]
    assert [event.worker for event in events(center, UpdateRefused)] == [0, 1]


def silently_ruined():
    center = start(Ratio(silent=True))
    assert isinstance(send(center, 0, 1, 1.0, -1.0)[0], Exchanged)
    assert events(center, CenterFailed) == []
    return center


def test_what_a_rule_keeps_from_numpy_is_seen_by_the_next_message():
    center = silently_ruined()
    (reply,) = send(center, 1, 1, np.nan)  # As a worker sends it that trained on from NaN.
    assert isinstance(reply, Refused)
    assert reply.reason == "the message holds NaN or infinity: the center holds NaN or infinity"
    (event,) = events(center, CenterFailed)
    assert event.error == "The training has diverged: the center holds NaN or infinity."


def test_a_message_that_holds_nan_is_skipped_where_the_center_is_finite():
    center = start(Ratio(), bad_updates=BadUpdates("skip"))
    assert isinstance(send(center, 1, 1, np.nan)[0], Skipped)
    assert events(center, CenterFailed) == []


def test_what_a_rule_keeps_from_numpy_is_seen_when_the_last_worker_leaves():
    center = silently_ruined()
    center.handle(Leave(0))
    assert events(center, CenterFailed) == []
    center.handle(Leave(1))
    assert len(events(center, CenterFailed)) == 1


def test_no_snapshot_of_a_center_that_is_not_finite_replaces_one_that_is(tmp_path):
    center = start(Ratio(silent=True))
    store = Store(str(tmp_path), keep=1)
    writer = SnapshotWriter(center, store, SnapshotOptions(str(tmp_path)), {})
    writer.start()
    send(center, 0, 1, 1.0)
    writer.write_now()
    send(center, 0, 2, -1.0)  # Now it divides by 0.
    writer.write_now()
    writer.close()
    assert np.isfinite(store.newest().members[0].center).all()
    polled = center.handle(Poll())[0][1].events
    assert [type(event).__name__ for event in polled[-2:]] == ["CenterFailed", "SnapshotFailed"]


def test_an_infinity_of_the_rules_own_is_its_own_affair():
    center = start(Ratio())
    (reply,) = send(center, 0, 1, 1e30, 1.0)
    assert isinstance(reply, Refused)  # For its size, and not for the rule's best loss so far.
    assert isinstance(send(center, 0, 1, 1e-30, 1.0)[0], Exchanged)
    assert center.finite.check(center.event_log) is None


@pytest.mark.parametrize("rule", [FedAdam(), GapAware(), LocalSGD()], ids=repr)
def test_noise_of_an_ordinary_size_ruins_nothing(rule):
    center = start(rule)
    generator = np.random.default_rng(0)
    for sequence in range(1, 100):
        for worker in (0, 1):
            replies = send(center, worker, sequence, *generator.normal(size=4))
            assert all(isinstance(reply, Exchanged) for reply in replies)
