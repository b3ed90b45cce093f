"""Snapshots: a center goes on as if nothing had been, and what is not whole is not read."""

from __future__ import annotations

import io
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, REGISTRY, DiLoCo, Sequential
from distkeras.center import Center, CenterConfig, Independent, SnapshotError, restore_snapshot, take_snapshot
from distkeras.center.requests import Exchange, Join, Leave, Poll
from distkeras.center.snapshot import Snapshot, read, read_facts
from distkeras.events import ServerRestored, Window, WorkerJoined

SIZE = 6


def make_center(rule, num_workers=2, **options):
    initial = np.linspace(-1, 1, SIZE, dtype=np.float32)
    config = CenterConfig(rule, num_workers, num_trainable=4, **options)
    return Center(config, initial, clock=lambda: 7.0, num_shards=2)


def commit(worker, sequence, seed):
    values = np.random.default_rng(seed).normal(scale=0.1, size=SIZE).astype(np.float32)
    return Exchange(worker, sequence, 2, 8, 0, 2 * sequence, values, {"loss": 0.25})


def join_all(center):
    for worker in range(center.num_workers):
        center.handle(Join(worker))


def commit_all(center, first, last):
    for sequence in range(first, last + 1):
        for worker in range(center.num_workers):
            center.handle(commit(worker, sequence, 100 * sequence + worker))


def through_bytes(snapshot):
    file = io.BytesIO()
    snapshot.write(file)
    return read(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize("rule", REGISTRY.values(), ids=lambda rule: rule.__name__)
def test_a_restored_center_of_any_rule_goes_on_bit_for_bit(rule):
    center, restored = make_center(rule()), make_center(rule())
    join_all(center)
    commit_all(center, 1, 3)
    restore_snapshot(restored, through_bytes(take_snapshot(center, {})))
    join_all(center)  # What a worker holds is not restored: all of them join anew.
    join_all(restored)
    for each in (center, restored):
        commit_all(each, 4, 6)
    assert restored.snapshot().tobytes() == center.snapshot().tobytes()
    assert restored.num_updates == center.num_updates
    assert restored.num_commits == center.num_commits
    for mine, theirs in zip(restored.shards, center.shards, strict=True):
        assert mine.state.keys() == theirs.state.keys()
        for name in mine.state:
            np.testing.assert_array_equal(mine.state[name], theirs.state[name])


def test_a_snapshot_does_not_change_with_the_center():
    center = make_center(DiLoCo())
    join_all(center)
    snapshot = take_snapshot(center, {})
    before = describe(snapshot)
    commit_all(center, 1, 2)
    assert describe(snapshot) == before


def test_members_of_an_ensemble_are_restored_each_to_its_place():
    def make():
        config = CenterConfig(Sequential(2), 2, independent=True)
        return Independent(config, np.zeros((2, SIZE), np.float32), clock=lambda: 7.0)

    center, restored = make(), make()
    center.handle(Join(1))
    center.handle(commit(1, 1, 5))
    restore_snapshot(restored, through_bytes(take_snapshot(center, {})))
    assert [member.snapshot().tolist() for member in restored.members] == [
        member.snapshot().tolist() for member in center.members
    ]
    ((_, joined),) = restored.handle(Join(1))
    assert (joined.sequence, joined.step) == (1, 2)


@pytest.mark.parametrize("seen", range(6))
def test_the_driver_reads_every_event_once_whatever_it_had_seen(seen):
    center, restored = make_center(DOWNPOUR()), make_center(DOWNPOUR())
    center.handle(Join(0))
    commit_windows(center, 0, [1, 2])
    snapshot = through_bytes(take_snapshot(center, {}))  # It has events 0 to 2.
    commit_windows(center, 0, [3, 4])
    known = center.handle(Poll(0))[0][1].events[:seen]
    restore_snapshot(restored, snapshot, since=seen)
    polled = restored.handle(Poll(seen))[0][1]
    events = [*known, *polled.events]
    assert [type(event) for event in events[:3]] == [WorkerJoined, Window, Window][: len(events)]
    (told,) = [event for event in events if isinstance(event, ServerRestored)]
    assert told == ServerRestored([2, 0], [False, False], 16, 2, 7.0)
    kept = [e.iteration for e in events if isinstance(e, Window) and e.iteration < told.commits[e.worker]]
    assert kept == [0, 1]
    assert restored.handle(Poll(polled.next))[0][1].events == []


def commit_windows(center, worker, sequences):
    for sequence in sequences:
        center.handle(commit(worker, sequence, sequence))


def test_no_byte_of_a_snapshot_can_change_or_miss_unnoticed():
    center = make_center(DiLoCo())
    join_all(center)
    commit_all(center, 1, 2)
    file = io.BytesIO()
    take_snapshot(center, {"seed": 3}).write(file)
    whole = file.getvalue()
    truth = describe(read(io.BytesIO(whole)))
    random = np.random.default_rng(0)
    broken = 0
    for position in random.choice(len(whole), 400, replace=False):
        changed = bytearray(whole)
        changed[position] ^= 1 << random.integers(8)
        for content in (bytes(changed), whole[:position]):
            try:
                found = describe(read(io.BytesIO(content)))
            except SnapshotError:
                broken += 1
            else:
                assert found == truth  # A date in the archive, say: nothing that is read.
    assert broken > 600


def describe(snapshot: Snapshot):
    return [
        (
            member.center.tobytes(),
            [{name: value.tobytes() for name, value in state.items()} for state in member.states],
            member.counts,
            member.workers,
        )
        for member in snapshot.members
    ], (snapshot.unread, snapshot.settings)


def test_the_facts_can_be_read_alone():
    center = make_center(DOWNPOUR(), num_workers=1)
    join_all(center)
    commit_windows(center, 0, [1])
    center.handle(Leave(0))
    file = io.BytesIO()
    take_snapshot(center, {"seed": 3}).write(file)
    facts = read_facts(io.BytesIO(file.getvalue()))
    assert (facts["settings"], facts["finished"], facts["num_updates"]) == ({"seed": 3}, True, 1)


def test_a_snapshot_of_another_job_is_refused():
    snapshot = take_snapshot(make_center(DOWNPOUR()), {})
    for other in (make_center(DiLoCo()), make_center(DOWNPOUR(), num_workers=3)):
        with pytest.raises(SnapshotError, match="Expected a snapshot of"):
            restore_snapshot(other, snapshot)


def test_a_rules_state_that_is_no_array_of_numbers_is_named():
    class Odd(DOWNPOUR):
        def init(self, center):
            return {"seen": [object()]}

    with pytest.raises(TypeError, match=r"numbers in the algorithm's state.*Received: seen"):
        take_snapshot(make_center(Odd()), {}).write(io.BytesIO())


def test_a_center_whose_rule_failed_half_way_is_not_kept():
    class Fails(DOWNPOUR):
        def apply(self, center, message, commit, state):
            if center[0] > 0:  # The second shard.
                raise ZeroDivisionError
            return super().apply(center, message, commit, state)

    center = make_center(Fails())
    center.handle(Join(0))
    with pytest.raises(ZeroDivisionError):
        center.handle(commit(0, 1, 1))
    with pytest.raises(SnapshotError, match="applied a part of a message"):
        take_snapshot(center, {})


def test_no_snapshot_has_half_a_commit():
    """Every commit adds one to all of the center: whenever it is taken, the ledger says what its sum is."""
    center = Center(CenterConfig(DOWNPOUR(), 3), np.zeros(4096, np.float32), clock=time.time, num_shards=64)
    stop = threading.Event()

    def work(worker):
        center.handle(Join(worker))
        for sequence in range(1, 100_000):
            if stop.is_set():
                return
            center.handle(Exchange(worker, sequence, 1, 1, 0, sequence, np.ones(4096, np.float32)))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        snapshot = take_snapshot(center, {})
        commits = sum(worker["sequence"] for worker in snapshot.members[0].workers)
        assert set(snapshot.members[0].center.tolist()) == {float(commits)}
        assert snapshot.unread.num_updates == commits
    stop.set()
    for thread in threads:
        thread.join(10)


def test_a_snapshot_that_the_first_version_wrote_is_read():
    """The file is of that version: whoever changes the format keeps reading it, or tells the user."""
    with open(Path(__file__).with_name("snapshot-version-1.npz"), "rb") as file:
        snapshot = read(file)
    assert snapshot.settings == {"batch_size": 32}
    assert [type(event).__name__ for event in snapshot.unread.events] == [
        *["WorkerJoined"] * 2,
        *["Window"] * 4,
        *["WorkerLeft", "WorkerLost"],
    ]
    center = make_center(DiLoCo())
    restore_snapshot(center, snapshot)
    (state,) = snapshot.members
    assert [(w["sequence"], w["step"], w["samples"], w["left"]) for w in state.workers] == [
        (2, 4, 16, False),
        (2, 4, 16, True),
    ]
    assert center.num_updates == 2
    np.testing.assert_array_equal(center.snapshot(), state.center)
    np.testing.assert_allclose(state.center[:4], [-0.51595, -0.11595, 0.28405, 0.68405], atol=1e-3)
    assert state.states[0].keys() == center.shards[0].state.keys()


def test_a_snapshot_of_a_later_version_is_refused_by_its_number(tmp_path):
    file = io.BytesIO()
    facts = {"version": 3}
    np.savez(file, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8))
    with pytest.raises(SnapshotError, match=r"format 2 or earlier.*: format 3, of a later release. Upgrade"):
        read(io.BytesIO(file.getvalue()))
