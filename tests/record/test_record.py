"""The record of a center, and its replay: the same bits, whatever happened."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, REGISTRY, Algorithm, DynSGD, LocalSGD, Sequential
from distkeras.center import (
    BadUpdates,
    Center,
    CenterConfig,
    Independent,
    ProtocolError,
    restore_snapshot,
    take_snapshot,
)
from distkeras.center.answers import Refused
from distkeras.center.requests import Beat, Exchange, Fail, Join, Leave, Poll, Pull
from distkeras.events import RecordFailed, UpdateRefused, Window, WorkerBack, WorkerLost
from distkeras.record import Recorded, RecordError, ReplayDiverged, Start, Step, read_record, replay

SIZE = 6


def make_center(rule, num_workers=2, **options):
    initial = np.linspace(-1, 1, SIZE, dtype=np.float32)
    config = CenterConfig(rule, num_workers, num_trainable=4, **options)
    return Center(config, initial, clock=lambda: 7.0, num_shards=2)


def commit(worker, sequence, value=None, loss=0.25):
    values = np.random.default_rng((worker, sequence)).normal(scale=0.1, size=SIZE).astype(np.float32)
    if value is not None:
        values[:] = value
    return Exchange(worker, sequence, 2, 8, 0, 2 * sequence, values, {"loss": loss})


def same(replayed, center):
    """The replay led to this very center, and to its count of updates."""
    assert replayed.center.tobytes() == center.snapshot().tobytes()
    assert replayed.num_updates == center.num_updates


@pytest.mark.parametrize("rule", REGISTRY.values(), ids=lambda rule: rule.__name__)
def test_a_record_of_any_rule_leads_to_the_same_bits(rule, tmp_path):
    path = str(tmp_path / "server-0.record")
    center = make_center(rule(), overlap=not rule.synchronous)
    recorded = Recorded(center, path)
    for worker in (0, 1):
        recorded.handle(Join(worker))
    for sequence in (1, 2, 3):
        for worker in (1, 0):
            recorded.handle(commit(worker, sequence))
        recorded.handle(commit(1, sequence))  # The reply was lost: it is sent again, and answered.
    recorded.handle(Join(0, attempt=1))  # Its process was killed in a window, and is replaced.
    recorded.handle(commit(0, 4))
    recorded.handle(Leave(1))
    recorded.handle(Leave(0))
    replayed = replay(path)
    same(replayed, center)
    assert replayed.events == center.event_log.read(0).events


@dataclass(frozen=True)
class Doubling(Algorithm):
    """A rule of a user's, which fails at a message of minus ones."""

    def apply(self, center, message, commit, state):
        if message[0] == -1:
            raise FloatingPointError("a rule's own error")
        center += 2 * message
        return center


def test_faults_stand_in_the_record_and_the_replay_follows_them(tmp_path):
    path = str(tmp_path / "server-0.record")
    center = make_center(DynSGD(), 3, bad_updates=BadUpdates("skip", limit=2))
    recorded = Recorded(center, path)
    for worker in (0, 1, 2):
        recorded.handle(Join(worker))
    recorded.handle(commit(0, 1))
    recorded.handle(commit(1, 1, value=math.nan))  # passed over
    recorded.handle(commit(1, 2, loss=math.inf))
    with pytest.raises(ProtocolError):
        recorded.handle(commit(0, 7))
    recorded.mark_lost(2, 31.0)
    for _ in range(2):  # The first is news; the second changes nothing, and is not written down.
        recorded.handle(Beat(2))
    recorded.handle(commit(2, 1))
    snapshot = take_snapshot(center, {})
    recorded.handle(commit(0, 2))  # Lost with the server.
    recorded.close()
    # The server is killed while it writes; another goes on from the snapshot, under the same record.
    with open(path, "ab") as file:
        file.write(b"\0\0\0\x40half an entry")
    center = make_center(DynSGD(), 3, bad_updates=BadUpdates("skip", limit=2))
    restore_snapshot(center, snapshot)
    recorded = Recorded(center, path, restart=True)
    recorded.handle(commit(0, 2))  # answered by Rejoin
    recorded.handle(Join(0))
    recorded.handle(commit(0, 2, value=0.5))
    recorded.handle(Fail(1, "its traceback"))
    recorded.handle(Pull())
    recorded.handle(Poll())
    seen = []
    replayed = replay(str(tmp_path), on_step=lambda step, center: seen.append((step, center.num_updates)))
    same(replayed, center)
    steps = [step for step, _ in seen]
    assert [step.number for step in steps] == list(range(len(steps)))
    assert sum(isinstance(step.request, Beat) for step in steps) == 1
    assert [step.error for step in steps if step.error] == ["ProtocolError"]
    kinds = [type(event) for event in replayed.events]
    assert [kinds.count(kind) for kind in (UpdateRefused, WorkerLost, WorkerBack)] == [2, 1, 2]
    (last,) = [
        step for step in steps if isinstance(step.request, Exchange) and step.request.message[0] == 0.5
    ]
    assert (last.request.worker, last.request.sequence, last.request.num_samples) == (0, 2, 8)
    assert [told.staleness for told in last.told] == [0]


@pytest.mark.parametrize(("quorum", "without_lost"), [(None, True), (2, False)])
def test_rounds_close_in_a_replay_as_they_did(quorum, without_lost, tmp_path):
    path = str(tmp_path / "server-0.record")
    center = make_center(LocalSGD(), 3, quorum=quorum, without_lost=without_lost)
    recorded = Recorded(center, path)
    for worker in (0, 1, 2):
        recorded.handle(Join(worker))
    recorded.handle(commit(2, 1))
    recorded.handle(commit(0, 1))
    if without_lost:
        recorded.mark_lost(1, 31.0)  # closes the round
    recorded.handle(commit(0, 2))
    recorded.handle(commit(1, 1))
    recorded.handle(commit(2, 2))
    assert center.num_updates == 2
    same(replay(path), center)


def test_the_members_of_an_ensemble_are_replayed_each_by_itself(tmp_path):
    path = str(tmp_path / "server-0.record")
    config = CenterConfig(Sequential(3), 2, independent=True)
    center = Independent(config, np.arange(12, dtype=np.float32).reshape(2, 6), clock=lambda: 7.0)
    recorded = Recorded(center, path)
    for worker in (0, 1):
        recorded.handle(Join(worker))
        recorded.handle(commit(worker, 1))
    replayed = replay(path)
    assert replayed.center.tolist() == [member.snapshot().tolist() for member in center.members]
    snapshot = take_snapshot(center, {})
    again = Independent(config, np.zeros((2, 6), np.float32), clock=lambda: 7.0)
    restore_snapshot(again, snapshot)
    recorded.close()
    Recorded(again, path, restart=True).handle(Join(1))
    assert replay(path).center.tobytes() == replayed.center.tobytes()


def test_a_rule_of_ones_own_is_given_to_the_replay_and_its_errors_are_expected(tmp_path):
    path = str(tmp_path / "server-0.record")
    center = make_center(Doubling())
    recorded = Recorded(center, path)
    recorded.handle(Join(0))
    recorded.handle(commit(0, 1))
    with pytest.raises(FloatingPointError):
        recorded.handle(commit(0, 2, value=-1))
    same(replay(path, Doubling()), center)
    with pytest.raises(ValueError, match=r"Doubling, which is not part of this library.*algorithm=None"):
        replay(path)
    with pytest.raises(ValueError, match=r"Expected the algorithm of the record.*Received: .*DOWNPOUR"):
        replay(path, DOWNPOUR())


@dataclass(frozen=True)
class Spoiling(Algorithm):
    """Makes the center NaN, and NumPy notes no error."""

    def apply(self, center, message, commit, state):
        center[0] = np.nan
        return center


def test_commits_that_are_refused_since_a_snapshot_found_nan_are_refused_in_the_replay(tmp_path):
    path = str(tmp_path / "server-0.record")
    center = make_center(Spoiling())
    recorded = Recorded(center, path)
    recorded.handle(Join(0))
    recorded.handle(commit(0, 1))
    assert center.finite.check(center.event_log) is not None  # As the thread does that writes snapshots.
    ((_, refused),) = recorded.handle(commit(0, 2))
    assert isinstance(refused, Refused)
    same(replay(path, Spoiling()), center)


def test_a_replay_that_goes_another_way_says_where(tmp_path):
    path = str(tmp_path / "server-0.record")
    recorded = Recorded(make_center(Doubling()), path)
    recorded.handle(Join(1))
    for sequence in (1, 2):
        recorded.handle(commit(1, sequence, value=sequence))

    @dataclass(frozen=True)
    class Doubling2(Doubling):
        def apply(self, center, message, commit, state):
            center += 2 * message if message[0] == 1 else 3 * message
            return center

    Doubling2.__qualname__ = "Doubling"
    with pytest.raises(ReplayDiverged, match=r"at step 2 of .*Exchange of worker 1, sequence 2"):
        replay(path, Doubling2())


def test_what_is_no_record_or_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "server-0.record"
    recorded = Recorded(make_center(DOWNPOUR()), str(path))
    recorded.handle(Join(0))
    whole = path.read_bytes()
    for at in range(30, len(whole), 97):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        try:  # A length that was changed may look like an entry that is not whole.
            entries = list(read_record(str(path)))
        except RecordError:
            continue
        assert len(entries) < 2 or entries[-1].told is None
    path.write_bytes(whole.replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(RecordError):
        replay(str(path))
    (tmp_path / "other").write_text("a file of another kind")
    for make in (lambda name: list(read_record(name)), lambda name: Recorded(make_center(DOWNPOUR()), name)):
        with pytest.raises(RecordError, match=r"Received: .*other"):
            make(str(tmp_path / "other"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match=r"server-0\.record, server-1\.record and so on.*Received: \[\]"):
        replay(str(tmp_path / "empty"))


def test_a_record_that_cannot_be_written_ends_there_and_the_training_goes_on(tmp_path, monkeypatch):
    path = str(tmp_path / "server-0.record")
    center = make_center(DOWNPOUR())
    recorded = Recorded(center, path)
    recorded.handle(Join(0))
    recorded.handle(commit(0, 1))
    before = center.snapshot()

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            if len(data) > 20:
                self.file.write(data[:20])
            raise OSError(28, "No space left on device")

        def __getattr__(self, name):
            return getattr(self.file, name)

    recorded._writer._file = Full(recorded._writer._file)
    recorded.handle(commit(0, 2))
    recorded.handle(commit(0, 3))
    assert center.num_updates == 3
    (failed,) = [event for event in center.event_log.read(0).events if isinstance(event, RecordFailed)]
    assert "No space left on device" in failed.error
    assert replay(path).center.tobytes() == before.tobytes()


def test_the_order_of_several_threads_is_that_of_the_record(tmp_path):
    path = str(tmp_path / "server-0.record")
    config = CenterConfig(DynSGD(), 4)
    center = Center(config, np.zeros(4096, np.float32), clock=lambda: 7.0, num_shards=8)
    recorded = Recorded(center, path)

    def work(worker):
        random = np.random.default_rng(worker)
        recorded.handle(Join(worker))
        for sequence in range(1, 26):
            message = random.normal(size=4096).astype(np.float32)
            recorded.handle(Exchange(worker, sequence, 1, 1, 0, sequence, message))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replayed = replay(path)
    same(replayed, center)
    assert [window.worker for window in replayed.events if isinstance(window, Window)] == [
        entry.request.worker
        for entry in read_record(path)
        if isinstance(entry, Step) and isinstance(entry.request, Exchange)
    ]
    assert isinstance(next(iter(read_record(path))), Start)
