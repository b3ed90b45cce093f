"""TensorBoard's own reader finds the curves of a training in the files that the monitor writes."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest
from events_of import START, ended, facts, windows

from distkeras.events import ServerRestored, ServerStatus
from distkeras.monitor import TensorBoard, event_file
from distkeras.runs import CenterEvaluated, RunResumed
from distkeras.runs.folder import Folder, find_filesystem
from distkeras.runs.notes import Notes
from distkeras.runs.rollup import Epoch


@pytest.fixture
def read(monkeypatch):
    """Return a function that reads a folder's scalars: by name, (step, value) in order."""
    # The reader then does without TensorFlow, whose import takes seconds.
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", ModuleType("notf"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def scalars(folder):
        found = EventAccumulator(str(folder), {"scalars": 0})
        found.Reload()
        scalars.texts = found.Tags()["tensors"]
        return {
            name: [(each.step, each.value) for each in found.Scalars(name)]
            for name in found.Tags()["scalars"]
        }

    return scalars


def test_curves_are_means_by_second_over_the_rows_of_the_center(tmp_path, read):
    board = TensorBoard(tmp_path)
    board.begin(facts())
    seen = windows(0, 20)  # Four windows a second, in five seconds.
    status = ServerStatus(0, 10**6, 1.0, 3, 20, 0.1, 0.01, 0.02, 5, 6, 2.5, float("nan"), START + 5)
    board.take(seen[:7])
    board.take([ended(0, 70, seen[6].timestamp), *seen[7:], status])  # In the middle of a second.
    board.take([Epoch(0, {"loss": 0.5, "val_loss": 0.7}, 200, 5.0, START + 5.2)])
    board.take([CenterEvaluated(200, 20, {"loss": 0.6}, START + 5.3)])
    board.end({"reason": "finished"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["center", "worker-0", "worker-1"]
    worker, center = read(tmp_path / "worker-1"), read(tmp_path / "center")
    assert [step for step, _ in center["loss"]] == [40, 80, 120, 160, 200]
    for second, (_, value) in enumerate(center["loss"]):
        own = [window.metrics["loss"] for window in seen[4 * second : 4 * second + 4]]
        assert value == pytest.approx(sum(own) / 4)
    assert worker["accuracy"] == [(40, pytest.approx(0.02)), (80, pytest.approx(0.06))] + [
        (40 * second, pytest.approx((4 * second - 2) / 100)) for second in (3, 4, 5)
    ]
    assert {value for _, value in center["rows_per_second"]} == {40.0}
    assert {value for _, value in worker["rows_per_second"]} == {20.0}
    assert center["share/computing"][0][1] == pytest.approx(0.6)
    assert center["share/blocked"][0][1] == pytest.approx(0.2)
    assert center["bytes_per_second/out"][0][1] == 4000
    assert center["epoch/loss"] == [(200, 0.5)]
    assert center["val_loss"] == [(200, pytest.approx(0.7)), (200, pytest.approx(0.6))]
    assert center["server-0/memory_bytes"] == [(200, 10**6)]
    assert "server-0/message_norm" not in center  # It was unknown.
    assert board._files == {}
    assert read.texts == ["settings"]


def test_points_after_a_restart_of_the_server_are_dropped_and_drawn_again(tmp_path, read):
    (tmp_path / "worker-of-mine").mkdir()
    board = TensorBoard(tmp_path)
    board.begin(facts())
    again = windows(8, 16, loss=lambda number: 100.0, start=START + 10)
    board.take([*windows(0, 16), ended(0, 160, START + 3.9)])
    board.take([ServerRestored([4, 4], [False, False], 80, 8, START + 5), *again])
    board.end({"reason": "finished"})
    for name in ("center", "worker-0", "worker-1"):
        loss = read(tmp_path / name)["loss"]
        assert [step for step, _ in loss] == [40, 80, 120, 160]
        assert [value == 100.0 for _, value in loss] == [False, False, True, True]
    assert list((tmp_path / "worker-of-mine").iterdir()) == []


def test_members_of_an_ensemble_have_steps_of_their_own_rows(tmp_path, read):
    board = TensorBoard(tmp_path)
    board.begin(facts(members=2))
    seen = windows(0, 16)
    back = ServerRestored([4, 4], [False, False], 80, 8, START + 5)
    board.take(
        [*seen, back, *windows(8, 12, start=START + 10), Epoch(1, {"loss": 0.5}, 60, 9.0, START, member=1)]
    )
    board.end({"reason": "finished"})
    assert [step for step, _ in read(tmp_path / "center")["loss"]] == [40, 80, 120]
    worker = read(tmp_path / "worker-1")
    assert [step for step, _ in worker["loss"]] == [20, 40, 60]
    assert worker["epoch/loss"] == [(60, 0.5)]


@pytest.mark.parametrize("source", ["snapshot", "checkpoint"])
def test_steps_of_a_resumed_training_go_on_in_the_same_folder(tmp_path, read, source):
    """The driver was killed with 160 rows; the snapshot has 80, and the checkpoint is of the first 40."""
    notes = Notes(Folder(*find_filesystem(str(tmp_path / "run"))))
    first = TensorBoard()
    first.begin(facts(run=str(tmp_path / "run"), notes=notes))
    first.take(windows(0, 16))
    first.take([])
    first._flush()  # And then the driver is killed: there is no end.
    second = TensorBoard()
    kept = 8 if source == "snapshot" else 4
    behind = 0 if source == "snapshot" else 40
    resumed = Notes(Folder(*find_filesystem(str(tmp_path / "run"))))
    second.begin(facts(run="elsewhere", notes=resumed, is_resumed=True, source=source, behind=behind))
    second.take([RunResumed(1, source, START + 100)])
    if source == "snapshot":
        # Two windows that were in the snapshot, and of which the killed driver knew nothing.
        second.take(windows(6, 8, loss=lambda number: 200.0, start=START + 20))
        second.take([ServerRestored([4, 4], [False, False], 80, 8, START + 100)])
    second.take(windows(kept, 16, loss=lambda number: 100.0, start=START + 200))
    second.end({"reason": "finished"})
    for name in ("center", "worker-0"):
        loss = read(tmp_path / "run" / "tensorboard" / name)["loss"]
        assert [step for step, _ in loss] == [40, 80, 120, 160]
        assert [value == 100.0 for _, value in loss] == [step > 10 * kept for step, _ in loss]


def test_the_folder_lies_in_a_local_run_and_else_here_and_many_workers_get_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    board = TensorBoard(workers=1)
    for run, folder in (
        (str(tmp_path / "run-7"), "run-7/tensorboard"),
        ("memory://run-7", "tensorboard/run-7"),
    ):
        board.begin(facts(run=run))
        board.take(windows(0, 8))
        board.end({"reason": "finished"})
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["center", "worker-0"]
    with pytest.raises(ValueError, match="`workers` must be an integer from 0"):
        TensorBoard(workers=-1)


def test_without_the_package_the_training_does_not_begin(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"distkeras\[tensorboard\]"):
        event_file.parts.__wrapped__()


def test_writing_imports_neither_pytorch_nor_tensorflow_nor_tensorboardx_as_a_whole(tmp_path):
    code = (
        "import sys; from distkeras.monitor.event_file import EventFile; from pathlib import Path\n"
        "file = EventFile(Path(sys.argv[1])); file.scalars({'loss': 1.0}, 5, 1.0); file.close()\n"
        "print({'torch', 'tensorflow', 'keras', 'tensorboardX'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert len(list(tmp_path.iterdir())) == 1
