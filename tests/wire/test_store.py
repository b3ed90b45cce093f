"""Snapshots on filesystems: the last few, whole or not there; what happens when the disk is full."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from distkeras.algorithms import DOWNPOUR
from distkeras.center import Center, CenterConfig, take_snapshot
from distkeras.center.requests import Exchange, Join, Poll
from distkeras.events import SnapshotFailed
from distkeras.wire.snapshot_writer import SnapshotWriter
from distkeras.wire.store import SnapshotOptions, Store


def make_center(size=4):
    return Center(CenterConfig(DOWNPOUR()), np.zeros(size, np.float32), clock=lambda: 7.0)


def commit(center, sequence):
    center.handle(Exchange(0, sequence, 1, 1, 0, sequence, np.ones(center.size, np.float32)))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def newest_sequence(store):
    return store.newest().members[0].workers[0]["sequence"]


class Objects(MemoryFileSystem):
    """Has no folders but those of files, as S3."""

    protocol = "objects"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def makedirs(self, path, exist_ok=False):
        pass

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("objects://"))


register_implementation("objects", Objects, clobber=True)


@pytest.mark.parametrize("address", ["folder", "memory://snapshots", "objects://bucket/snapshots"])
def test_the_last_few_are_kept_and_the_newest_is_read(tmp_path, address):
    store = Store(address if "://" in address else str(tmp_path / address), keep=3)
    assert store.newest() is None
    assert store.newest_facts() is None
    center = make_center()
    center.handle(Join(0))
    for sequence in range(1, 6):
        commit(center, sequence)
        name = store.write(take_snapshot(center, {}))
    assert name.endswith("snapshot-0000000001-0000000005.npz")
    assert len(store._names()) == 3
    assert newest_sequence(store) == 5
    store.clear()
    assert store.newest() is None


def test_a_file_that_is_not_whole_is_passed_over_for_the_one_before(tmp_path, caplog):
    store = Store(str(tmp_path))
    center = make_center()
    center.handle(Join(0))
    for sequence in (1, 2):
        commit(center, sequence)
        last = Path(store.write(take_snapshot(center, {})))
    last.write_bytes(last.read_bytes()[:-50])
    assert newest_sequence(store) == 1
    assert "snapshot-0000000001-0000000002.npz is skipped" in caplog.text


def test_what_was_cut_off_while_it_was_written_is_no_snapshot(tmp_path):
    store = Store(str(tmp_path))
    part = tmp_path / "snapshot-0000000001-0000000009.npz.part"
    part.write_bytes(b"half")
    assert store.newest() is None
    assert part.exists()  # Whoever reads does not know whether it is still being written.
    store.take()
    assert not part.exists()


def test_a_full_disk_leaves_no_part_and_the_earlier_snapshots(tmp_path):
    store = Store(str(tmp_path))
    center = make_center(1_000_000)
    store.write(take_snapshot(center, {}))
    fs, _ = store.open()
    opened = fs.open

    # The device that is always full: the system's own error, at whatever write comes first.
    def full(name, mode):
        if mode == "rb":
            return opened(name, mode)
        Path(name).touch()
        return opened("/dev/full", mode)

    fs.open = full
    with pytest.raises(OSError, match="No space left"):
        store.write(take_snapshot(center, {}))
    fs.open = opened
    assert names(tmp_path) == ["lease-0000000001.json", "snapshot-0000000001-0000000001.npz"]
    assert store.newest().members[0].center.size == 1_000_000


def test_a_snapshot_that_fails_is_reported_and_the_next_is_tried(tmp_path):
    store = Store(str(tmp_path))
    center = make_center()
    writer = SnapshotWriter(center, store, SnapshotOptions(str(tmp_path)), {})
    writer.start()
    write = store.write

    def fail(snapshot):
        raise OSError("No space left on device")

    store.write = fail
    center.handle(Join(0))
    writer.write_now()
    event = center.handle(Poll(0))[0][1].events[-1]
    assert event == SnapshotFailed("OSError: No space left on device", 7.0)
    store.write = write
    writer.write_now()
    assert store.newest() is not None
    writer.close()


def test_a_snapshot_follows_every_so_many_commits(tmp_path):
    store = Store(str(tmp_path), keep=100)
    center = make_center()
    writer = SnapshotWriter(center, store, SnapshotOptions(str(tmp_path), seconds=None, commits=2), {})
    writer.start()
    center.handle(Join(0))
    for sequence in range(1, 5):
        commit(center, sequence)
        deadline = time.monotonic() + 10
        while len(store._names()) < sequence // 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    writer.close()
    assert newest_sequence(store) == 4


@pytest.mark.parametrize(
    "options", [{"seconds": None}, {"seconds": 0}, {"commits": -1}, {"keep": 0}], ids=lambda o: str(o)
)
def test_senseless_options_are_refused(options):
    with pytest.raises(ValueError, match="Expected a positive number"):
        SnapshotOptions(**options)
