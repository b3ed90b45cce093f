"""Two runs at one address for snapshots: the later one has it, and the earlier one is told who."""

from __future__ import annotations

import json
import os
import resource

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR
from distkeras.center import Center, CenterConfig, take_snapshot
from distkeras.center.requests import Exchange, Join, Poll
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.resume import find_interrupted
from distkeras.cluster.server import ServerFailed, ServerProcess, ServerSetup
from distkeras.cluster.servers import Servers
from distkeras.events import CenterFailed
from distkeras.wire.client import Client
from distkeras.wire.lease import Fenced
from distkeras.wire.snapshot_writer import SnapshotWriter
from distkeras.wire.store import SnapshotOptions, Store


def snapshot(commits=0):
    center = Center(CenterConfig(DOWNPOUR()), np.zeros(4, np.float32), clock=lambda: 7.0)
    center.handle(Join(0))
    for sequence in range(1, commits + 1):
        center.handle(Exchange(0, sequence, 1, 1, 0, sequence, np.ones(4, np.float32)))
    return take_snapshot(center, {})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["local", "memory"])
def address(request, tmp_path):
    """A folder on a filesystem that can create files exclusively, and one on another."""
    return str(tmp_path / "run") if request.param == "local" else f"memory:/{tmp_path}"


def test_the_run_that_took_the_address_later_has_it_and_the_other_is_told_who(address):
    first, second = Store(address, run="first"), Store(address, run="second")
    first.write(snapshot(1))
    second.write(snapshot(2))
    with pytest.raises(Fenced, match=rf"It is held by run second \(process {os.getpid()} on "):
        first.write(snapshot(3))
    second.write(snapshot(4))
    assert second.newest().unread.num_updates == 4
    second.release()
    with pytest.raises(Fenced, match="That run has ended since"):
        first.write(snapshot(5))


def test_a_snapshot_under_way_is_left_in_peace_by_a_driver_that_only_looks(tmp_path):
    store = Store(str(tmp_path))
    store.write(snapshot(1))
    fs, _ = store.open()
    move, options = fs.mv, ServerOptions(snapshots=SnapshotOptions(str(tmp_path)))

    def look_first(*args):
        assert any(name.endswith(".part") for name in names(tmp_path))
        assert find_interrupted(options, resume=True) is not None
        with pytest.raises(ValueError, match="did not end, or that still runs: run "):
            find_interrupted(options, resume=False)
        move(*args)

    fs.mv = look_first
    try:
        store.write(snapshot(2))
    finally:
        fs.mv = move
    assert Store(str(tmp_path)).newest().unread.num_updates == 2


def test_a_snapshot_under_way_is_not_finished_once_another_run_has_the_address(tmp_path, monkeypatch):
    first, second = Store(str(tmp_path)), Store(str(tmp_path), run="second")
    first.write(snapshot(1))
    late, write = snapshot(2), type(snapshot()).write

    def taken_meanwhile(self, file):
        write(self, file)
        second.take()

    monkeypatch.setattr(type(late), "write", taken_meanwhile)
    with pytest.raises(Fenced, match="held by run second"):
        first.write(late)
    assert names(tmp_path) == ["lease-0000000002.json", "snapshot-0000000001-0000000001.npz"]


def test_nothing_but_snapshots_of_ours_is_ever_removed(tmp_path):
    theirs = ["my-precious-snapshot-0000000001.npz", "snapshot-0000000001.npz.bak", "snapshot-1.npz"]
    theirs += ["x-lease-0000000001.json", "their.part", "x.npz.part"]
    for name in theirs:
        (tmp_path / name).write_text("mine")
    store = Store(str(tmp_path), keep=1)
    for commits in range(3):
        store.write(snapshot(commits))
    store.clear()
    store.release()
    assert names(tmp_path) == sorted(theirs)


def test_snapshots_of_a_later_run_come_after_all_of_an_earlier_one(tmp_path):
    first = Store(str(tmp_path), keep=10)
    for commits in range(3):
        first.write(snapshot(commits))
    second = Store(str(tmp_path), keep=10)
    second.write(snapshot(1))
    stray = tmp_path / "snapshot-0000000001-0000000099.npz"  # As by a machine that stood still for an hour.
    (tmp_path / "snapshot-0000000001-0000000003.npz").rename(stray)
    assert second.newest().unread.num_updates == 1
    assert second.write(snapshot(2)).endswith("snapshot-0000000002-0000000005.npz")


def test_snapshots_that_were_written_before_there_were_epochs_are_read(tmp_path):
    store = Store(str(tmp_path))
    os.rename(store.write(snapshot(3)), tmp_path / "snapshot-0000000007.npz")
    assert Store(str(tmp_path)).newest().unread.num_updates == 3
    assert Store(str(tmp_path)).write(snapshot(4)).endswith("snapshot-0000000002-0000000008.npz")


def test_a_run_goes_on_after_its_own_killed_process_but_not_after_another_run(tmp_path):
    Store(str(tmp_path), run="ours").write(snapshot(1))
    again = Store(str(tmp_path), run="ours", epoch=1)
    again.take()
    assert again.epoch == 2
    late = Store(str(tmp_path), run="ours", epoch=1)
    late.take()  # As where the second was killed before it could tell its epoch.
    assert late.epoch == 3
    other = Store(str(tmp_path), run="theirs")
    other.take()
    with pytest.raises(Fenced, match="run theirs"):
        Store(str(tmp_path), run="ours", epoch=3).take()
    other.write(snapshot(2))
    other.release()
    with pytest.raises(Fenced):  # What lies there is of another training, even if that has ended.
        Store(str(tmp_path), run="ours", epoch=2).take()


def test_a_run_goes_on_under_the_lease_of_its_killed_process_where_the_disk_is_full(tmp_path):
    Store(str(tmp_path), run="ours").write(snapshot(1))
    again = Store(str(tmp_path), run="ours", epoch=1)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # As where the disk is full: no file gets a byte.
    try:
        with pytest.raises(OSError, match="too large"):
            Store(str(tmp_path), run="theirs").take()
        again.take()
        with pytest.raises(OSError, match="too large"):
            again.write(snapshot(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert again.epoch == 1
    assert names(tmp_path) == ["lease-0000000001.json", "snapshot-0000000001-0000000001.npz"]
    again.write(snapshot(2))
    assert Store(str(tmp_path)).newest().unread.num_updates == 2
    other = Store(str(tmp_path), run="theirs")
    other.take()
    with pytest.raises(Fenced, match="run theirs"):
        again.write(snapshot(3))


def test_of_two_that_take_the_same_epoch_one_has_it(tmp_path):
    first = Store(str(tmp_path))
    first.take()
    lease = tmp_path / "lease-0000000001.json"
    lease.write_text(json.dumps(json.loads(lease.read_text()) | {"run": "other"}))
    with pytest.raises(Fenced, match="run other"):
        first.write(snapshot())


def test_an_address_that_a_later_version_holds_is_refused(tmp_path):
    (tmp_path / "lease-0000000001.json").write_text('{"version": 2}')
    with pytest.raises(ValueError, match=r"Expected a lease of version 1. Received: .*lease-0000000001"):
        Store(str(tmp_path)).take()


def test_an_address_that_is_held_is_refused_before_its_first_snapshot_but_not_to_resume(tmp_path, caplog):
    options = ServerOptions(snapshots=SnapshotOptions(str(tmp_path)))
    store = Store(str(tmp_path), run="alive")
    store.take()
    with pytest.raises(ValueError, match="did not end, or that still runs: run alive"):
        find_interrupted(options, resume=False)
    assert find_interrupted(options, resume=True) is None
    assert "are taken over from run alive" in caplog.text
    store.release()
    assert find_interrupted(options, resume=False) is None


def test_a_server_that_lost_its_address_ends_the_job_with_a_message(tmp_path):
    center = Center(CenterConfig(DOWNPOUR()), np.zeros(4, np.float32), clock=lambda: 7.0)
    writer = SnapshotWriter(center, Store(str(tmp_path)), SnapshotOptions(str(tmp_path)), {})
    writer.start()
    center.handle(Join(0))
    writer.write_now()
    Store(str(tmp_path), run="second").take()
    center.handle(Exchange(0, 1, 1, 1, 0, 1, np.ones(4, np.float32)))
    writer.write_now()
    writer.close()
    (event,) = [e for e in center.handle(Poll(0))[0][1].events if isinstance(e, CenterFailed)]
    assert "held by run second" in event.error
    assert Store(str(tmp_path)).holder().run == "second"


def start(tmp_path, **options):
    snapshots = SnapshotOptions(str(tmp_path), seconds=1000)
    setup = ServerSetup(CenterConfig(DOWNPOUR()), options=ServerOptions(snapshots=snapshots, heartbeat=1.0))
    return ServerProcess(setup, np.zeros(4, np.float32), **options)


def test_a_server_process_gives_its_address_back_and_a_killed_one_does_not_come_back_over_another(tmp_path):
    with start(tmp_path) as server, Client(server.address) as client:
        client.call(Join(0))
        assert Store(str(tmp_path)).holder().run == server._job.run
        server._process.kill()
        server._process.wait()
        assert server.revive(0)
        with start(tmp_path, resume=0) as second:
            server._process.kill()
            server._process.wait()
            with pytest.raises(ServerFailed, match=f"held by run {second._job.run}"):
                server.revive(0)
    assert Store(str(tmp_path)).holder() is None


def test_several_servers_have_an_address_each(tmp_path):
    options = ServerOptions(snapshots=SnapshotOptions(str(tmp_path)))
    with Servers(2, ServerSetup(CenterConfig(DOWNPOUR()), options=options), np.zeros(8, np.float32)):
        held = [Store(str(path)).holder() for path in (tmp_path, tmp_path / "server-1")]
        assert None not in held
    assert [path.name for path in tmp_path.iterdir()] == ["server-1"]
