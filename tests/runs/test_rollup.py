"""The rollups of a run: by second and by epoch, as they are written and as they are read."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import pytest

from distkeras.events import (
    EpochEnded,
    RoundClosed,
    RoundOpened,
    ServerRestored,
    ServerStatus,
    Timing,
    Window,
    WorkerJoined,
)
from distkeras.runs import Epoch, Run, RunResumed, Second, Totals, load_run
from distkeras.runs import rollup as rollups
from distkeras.runs.folder import Folder, find_filesystem
from distkeras.runs.rollup import Rollup, WorkerSecond
from distkeras.runs.rollup_reader import RollupReader

TIMING = Timing(0.5, 0.125, 0.25, 0.0625, 400, 300, 1)


def window(iteration, timestamp, worker=0, loss=0.5, staleness=1, number=None, rows=8):
    number = iteration + 1 if number is None else number
    kept = worker, 0, iteration, 2, rows, {"loss": loss}, staleness, timestamp, number
    return Window(*kept, timing=TIMING)


def status(timestamp, exchanges, server=0):
    return ServerStatus(server, 2**20, 0.5, 3, exchanges, 0.1, *(math.nan,) * 2, 10, 10, 2.0, 1.0, timestamp)


def ended(epoch, samples):
    return EpochEnded(epoch, samples, 99, 1, 2, b"states", 1, 0.0, 0, True, 5.0)


def rolled_up(events, seconds=1.0):
    own = Rollup(seconds)
    return [rolled for event in events for rolled in own.add(event)] + own.flush()


def folder_of(address):
    return Folder(*find_filesystem(str(address)))


@pytest.fixture(params=["local", "memory"])
def address(request, tmp_path):
    """Where files can be appended to, and where they cannot."""
    return str(tmp_path / "run") if request.param == "local" else f"memory://rollup/{tmp_path.name}"


def test_the_windows_of_a_second_are_added_up():
    events = [
        window(0, 100.25, loss=1.0, staleness=0),
        window(0, 100.75, worker=1, loss=2.0, staleness=5, rows=24),
        window(1, 101.5, loss=3.0),
    ]
    first, second = rolled_up(events)
    expected = 100.0, 1.0, 32, 2, 2, 32, {"loss": 1.75}, [1, 0, 0, 1]
    own = {"0": WorkerSecond(8, 1, *TIMING), "1": WorkerSecond(24, 1, *TIMING)}
    assert first == Second(*expected, own)
    assert (second.start, second.rows, second.samples, list(second.workers)) == (101.0, 8, 40, ["0"])


def test_rare_events_are_kept_and_frequent_ones_left_out():
    joined = WorkerJoined(0, 0, 0, 0, 1.5)
    events = [joined, RoundOpened(0, 0, 2, 1.5), status(1.25, 3), status(1.75, 5), window(0, 1.5)]
    assert rolled_up([*events, status(2.5, 9)])[:2] == [joined, events[3]]
    assert [each.exchanges for each in rolled_up([status(1.0, 3), status(4.0, 8)])] == [3, 8]
    (epoch,) = rolled_up([ended(0, 8)])
    assert epoch == replace(ended(0, 8), states=b"")


def test_the_windows_of_a_round_are_one_update():
    rounds = []
    for number in (1, 2, 3):
        commits = [window(number - 1, 9.5, worker, number=number) for worker in range(3)]
        rounds += [RoundOpened(number - 1, 0, 3, 9.5), *commits, RoundClosed(number, [0, 1, 2], 3, [], 9.5)]
    (second,) = rolled_up(rounds)
    assert (second.updates, second.windows, second.rows) == (3, 9, 72)
    discarded = [replace(window(0, 9.5), verdict="discard"), window(0, 9.5, worker=1, number=2)]
    (second,) = rolled_up(discarded)
    assert (second.updates, second.windows) == (1, 2)


def test_a_window_that_comes_late_is_added_to_the_last_bucket_unless_the_clock_was_set_back():
    times = [100.9, 101.1, 100.95, 20.0]
    seconds = rolled_up([window(index, time) for index, time in enumerate(times)])
    assert [(each.start, each.windows) for each in seconds] == [(100.0, 1), (101.0, 2), (20.0, 1)]


def test_the_buckets_of_a_long_run_get_wider(monkeypatch):
    monkeypatch.setattr(rollups, "MOST_BUCKETS", 10)
    seconds = rolled_up(window(index, float(index)) for index in range(100))
    assert [each.seconds for each in seconds] == [1.0] * 10 + [2.0] * 11 + [4.0] * 10 + [8.0] * 4
    assert [each.start + each.seconds for each in seconds[:-1]] == [each.start for each in seconds[1:]]
    assert sum(each.rows for each in seconds) == seconds[-1].samples == 800
    monkeypatch.setattr(rollups, "MOST_ENTRIES", 20)  # Wide buckets for many workers.
    many = rolled_up(window(index, float(index), worker) for index in range(20) for worker in range(10))
    assert [each.seconds for each in many] == [1.0, 1.0, 2.0, 2.0, 2.0, 4.0, 4.0, 8.0]


RESTORED = ServerRestored([2, 1], [False, False], 24, 3, 104.0)
AGAIN = [
    *(window(index, 101.0 + index, worker) for index in range(3) for worker in range(2)),
    RESTORED,
    *(window(index, 105.0, 0) for index in (2, 3)),
    *(window(index, 105.5, 1) for index in (1, 2, 3)),
]
"""A server that restarted has lost three windows, and gets them again, and two more."""


def test_after_a_restart_the_totals_are_those_of_the_history(address):
    with Run.open(address) as run:
        run.begin({})
        for event in AGAIN:
            run.write(event)
        run.finish({"reason": "finished"})
    found, totals = load_run(address), Totals()
    for rolled in found.rollups():
        totals.take(rolled)
    history = list(found.windows())
    assert (totals.windows, totals.samples) == (len(history), sum(each.samples for each in history))
    assert (totals.windows, totals.updates, totals.samples) == (8, 8, 64)
    *_, last = (rolled for rolled in found.rollups() if isinstance(rolled, Second))
    assert last.samples == 64


def test_a_driver_that_goes_on_writes_what_the_killed_one_had_not_come_to_write(address):
    killed = Run.open(address)  # It ends in the middle of a second, and closes nothing.
    killed.begin({"epochs": 2})
    for event in AGAIN:
        killed.write(event)
    killed.epoch(0, {"loss": math.nan, "val_loss": 0.25}, samples=40)
    killed._rollups._writer.flush()
    for number, source in ((4, "snapshot"), (6, "checkpoint")):
        with Run.open(address, resume=True) as run:
            run.begin({"epochs": 2}, source=source, epochs=int(source == "checkpoint"))
            if source == "snapshot":
                run.write(ServerRestored([number] * 2, [False] * 2, 64, 8, 200.0))
                run.write(window(3, 201.0))  # The server sends again what the killed driver has read.
            run.write(window(number, 201.5))
            run.write(ended(0, 72))
    rolled = list(load_run(address).rollups())
    own = Rollup()
    expected = [each for event in load_run(address).events() for each in own.add(event)] + own.flush()
    assert [each for each in rolled if not isinstance(each, Epoch)] == expected
    (epoch,) = (each for each in rolled if isinstance(each, Epoch))
    assert (epoch.epoch, epoch.samples, epoch.logs["val_loss"], epoch.member) == (0, 40, 0.25, None)
    assert math.isnan(epoch.logs["loss"])
    assert own.totals.windows == len(list(load_run(address).windows())) == 10


def test_a_driver_that_has_lost_its_run_leaves_its_last_bucket_to_the_next_one(address):
    first = Run.open(address)
    first.begin({})
    first.write(window(0, 1.5))
    first.epoch(0, {"loss": 0.5})
    with Run.open(address, resume=True) as second:
        first.close()
        second.begin({}, source="snapshot")
    rolled = list(load_run(address).rollups())
    assert [each.rows for each in rolled if isinstance(each, Second)] == [8]
    assert [each.logs for each in rolled if isinstance(each, Epoch)] == [{"loss": 0.5}]


def test_a_run_that_begins_anew_forgets_what_came_before():
    again = [window(0, 1.5), window(1, 1.5), RunResumed(0, "checkpoint", 2.0), window(0, 3.0)]
    totals = Totals()
    for rolled in rolled_up(again):
        totals.take(rolled)
    assert (totals.windows, totals.samples, totals.updates) == (1, 8, 1)


def test_totals_go_back_to_the_end_of_an_epoch_and_count_on_from_there():
    first = [window(0, 1.5), ended(0, 8), window(1, 1.5), ended(1, 16), window(2, 2.5)]
    second = [RunResumed(1, "checkpoint", 3.0), window(0, 4.5), ended(0, 8), window(1, 4.5), ended(1, 16)]
    third = [RunResumed(2, "checkpoint", 5.0), window(0, 6.5), ServerRestored([0], [False], 0, 0, 7.0)]
    own = Rollup()
    counts = []
    for part in (first, second, third):
        for event in part:
            own.add(event)
        counts.append((own.totals.samples, own.totals.windows))
    assert counts == [(24, 3), (24, 3), (16, 2)]
    assert own.totals.of_center(8) == 24


def test_rollups_are_read_while_they_are_written(address):
    with Run.open(address) as run:
        reader = RollupReader(folder_of(address))
        assert list(reader.new()) == []
        run.begin({})
        found = []
        for index in range(6):
            run.write(window(index, 50.0 + index))
            run.events()  # Where nothing can be appended to, it writes a file.
            run._rollups._writer.flush()
            found.append([each.start for each in reader.new()])
        assert found == [[], [50.0], [51.0], [52.0], [53.0], [54.0]]
    assert [each.start for each in reader.new()] == [55.0]
    assert list(reader.new()) == []


def test_the_rollups_of_an_older_run_are_made_of_its_events_also_while_it_goes_on(address):
    with Run.open(address) as run:
        run.begin({})
        path = folder_of(address)
        reader = RollupReader(path)
        facts = path.read("run.json").replace(b'"rollups": true', b'"rollups": false')
        path.write("run.json", facts)
        run.write(window(0, 50.0))
        run.events()
        assert [each.rows for each in reader.new()] == [8]
        run.write(window(1, 50.5))
        run.epoch(0, {"loss": 0.5}, samples=16)
        second, epoch = reader.new()
    assert (second.start, second.samples) == (50.0, 16)
    assert (epoch.epoch, epoch.samples, epoch.logs) == (0, 16, {"loss": 0.5})
    assert list(reader.new()) == []


def test_a_broken_line_is_counted_and_the_next_ones_are_read(tmp_path):
    with Run.open(tmp_path / "run") as run:
        run.begin({})
        for index in range(3):
            run.write(window(index, 50.0 + index))
    path = tmp_path / "run" / "rollups" / "00001.jsonl"
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b'["Second",{"rows":\n' + third + b'["Flown",{}]\n' + second[:-9])
    reader = RollupReader(folder_of(tmp_path / "run"))
    assert [each.start for each in reader.new()] == [50.0, 52.0]
    assert (reader.broken, reader.first_broken[:27]) == (1, f"rollups/00001.jsonl, byte {len(first)}"[:27])
    with pytest.raises(ValueError, match=r"Expected whole lines\. Received: rollups/00001.jsonl, byte"):
        list(load_run(tmp_path / "run").rollups())


def test_a_run_whose_folder_is_gone_has_no_rollups(tmp_path):
    with Run.open(tmp_path / "run") as run:
        run.begin({})
        run.write(window(0, 50.0))
    shutil.rmtree(tmp_path / "run" / "rollups")
    assert list(load_run(tmp_path / "run").rollups()) == []
