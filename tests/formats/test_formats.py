"""What earlier releases wrote is read: snapshots, leases and frames. The folders are of `write.py`."""

from __future__ import annotations

import io
import json
import math
import shutil

import fsspec
import numpy as np
import pytest
import write

from distkeras.center import restore_snapshot
from distkeras.center.snapshot import read, read_facts
from distkeras.runs import Epoch, Run, Totals, load_run
from distkeras.wire import frames
from distkeras.wire.lease import Holder, find_holder

RELEASES = sorted(path for path in write.HERE.iterdir() if (path / "frames.json").exists())


def test_there_is_something_of_an_earlier_release():
    assert RELEASES


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_snapshot_of_an_earlier_release_is_gone_on_with(release):
    data = (release / "snapshot.npz").read_bytes()
    expected = write.center()
    restored = write.center()
    snapshot = read(io.BytesIO(data))
    restore_snapshot(restored, snapshot)
    assert restored.num_updates == expected.num_updates
    np.testing.assert_allclose(restored.snapshot(), expected.snapshot(), rtol=1e-6)
    facts = read_facts(io.BytesIO(data))
    assert (facts["settings"], facts["finished"]) == ({"batch_size": 32}, False)
    assert [type(event).__name__ for event in snapshot.unread.events].count("Window") == 2


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_the_lease_of_an_earlier_release_says_who_holds_the_folder(release):
    holder = find_holder(fsspec.filesystem("file"), str(release / "lease"))
    assert holder == Holder("run", 3, "machine", 7, "2026-01-02T03:04:05+00:00")


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_run_of_an_earlier_release_is_read_and_gone_on_with(release, tmp_path):
    shutil.copytree(release / "run", tmp_path / "run")
    found = load_run(tmp_path / "run")
    assert (found.status, found.settings) == ("interrupted", {"batch_size": 32, "num_epoch": 2})
    assert [session["source"] for session in found.facts["sessions"]] == ["start", "snapshot"]
    assert found.facts["sessions"][0]["result"] == {"reason": "finished"}
    assert [window.iteration for window in found.windows()] == [0, 1, 2]
    rolled = list(found.rollups())  # Made of its events: it has none.
    first, second = found.records()
    assert (first.logs["loss"], math.isnan(first.logs["val_loss"]), second.samples) == (0.5, True, 48)
    [[name, state]] = first.state["callbacks"]
    assert (name, state["best"], state["best_weights"][0].tolist()) == ("EarlyStopping", math.inf, [[1], [1]])
    assert (found.checkpoints().best, found.model("best").count_params()) == (1, 3)
    with Run.open(tmp_path / "run", resume=True) as run:
        run.begin(run.earlier, epochs=1, source="snapshot")
        assert run.roll_back(1).epoch == 0
        run.epoch(1, {"loss": 0.125})
    assert load_run(tmp_path / "run").history["loss"] == [0.5, 0.125]
    again = list(load_run(tmp_path / "run").rollups())
    for each in (rolled, again):
        totals = Totals()
        for part in each:
            totals.take(part)
        assert (totals.windows, totals.updates, totals.samples) == (3, 3, 24)
    assert [part.logs["loss"] for part in rolled if isinstance(part, Epoch)] == [0.5, 0.25]
    assert [part.logs["loss"] for part in again if isinstance(part, Epoch)] == [0.5, 0.25, 0.125]
    assert [part.samples for part in rolled if isinstance(part, Epoch)] == [24, 48]


def test_a_lease_of_a_later_release_says_what_to_do(tmp_path):
    (tmp_path / "lease-0000000001.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(ValueError, match=r"another release of distkeras.*use that release"):
        find_holder(fsspec.filesystem("file"), str(tmp_path))


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_frames_are_what_they_were_or_have_another_version_and_are_refused_by_it(release):
    """Both sides of a connection are of one release: other frames need another number, by which they know."""
    kept = json.loads((release / "frames.json").read_text())
    every = {type(message).__name__: message for message in write.all_messages()}
    for name, text in kept["frames"].items():
        data = bytes.fromhex(text)
        if kept["version"] == frames.VERSION:
            assert write.encoded(every.pop(name)).hex() == text
        else:
            header = data[: frames.HEADER.size]
            with pytest.raises(frames.FrameError, match=f"frame of version {frames.VERSION}"):
                frames.parse_header(header, frames.REQUESTS | frames.REPLIES, 2**20, 4 * write.SIZE)
    assert kept["version"] != frames.VERSION or not every


@pytest.mark.parametrize("message", write.all_messages(), ids=lambda message: type(message).__name__)
def test_every_frame_is_read_as_what_was_written(message):
    data = write.encoded(message)
    header, rest = data[: frames.HEADER.size], data[frames.HEADER.size :]
    cls, length, (_, size) = frames.parse_header(
        header, frames.REQUESTS | frames.REPLIES, 2**20, 4 * write.SIZE
    )
    text, body = rest[:length], rest[length + frames.padding_of(length) :]
    vector = np.frombuffer(body, np.float32) if size else None
    frames.check(header, text, vector, True)
    assert write.encoded(frames.parse(cls, text, vector)) == data
