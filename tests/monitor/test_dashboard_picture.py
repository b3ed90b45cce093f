"""What the page draws of a run: every number is one of the run's, however long the run is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_runs import Synthetic, logs_of, write_run

from distkeras.events import ServerRestored, Timing, Window, WorkerJoined, WorkerLeft, WorkerLost
from distkeras.monitor.dashboard.buckets import Buckets
from distkeras.monitor.dashboard.following import Followed
from distkeras.monitor.dashboard.picture import Picture
from distkeras.runs import Run, RunResumed
from distkeras.runs.folder import Folder, find_filesystem
from distkeras.runs.rollup import Epoch, Rollup

MADE = Synthetic(workers=20, windows=1000, seconds=60, ends=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the address of a finished run of twenty workers, three of them with faults."""
    address = tmp_path_factory.mktemp("runs") / "finished"
    write_run(address, MADE)
    return address


def followed(address):
    return Followed(Folder(*find_filesystem(str(address))))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 5000), st.floats(0.01, 3), st.integers(0, 9)), min_size=1, max_size=60)
)
def test_buckets_lose_nothing_when_their_width_doubles(numbers):
    buckets = Buckets(most=16)
    for time, seconds, value in numbers:
        index = buckets.at(time, seconds)
        assert index < buckets.count <= 16
        buckets.add(index, "sum", value)
        buckets.add_in(index, "grid", np.array([value]), np.array([1.0]))
    assert buckets.sums("sum").sum() == sum(value for *_, value in numbers)
    grid = buckets.grid("grid", range(10))
    assert grid.sum(axis=0).tolist() == [sum(value == each for *_, value in numbers) for each in range(10)]
    assert buckets.width * buckets.count >= max(time for time, *_ in numbers)


def test_the_figures_of_a_finished_run_are_those_that_were_written(finished):
    answer = followed(finished).since("")
    head, workers = answer["head"], answer["workers"]
    assert answer["about"]["status"] == "finished"
    assert (head["windows"], head["samples"]) == (MADE.windows, MADE.windows * MADE.rows)
    assert [entry["epoch"] for entry in answer["epochs"]] == list(range(MADE.epochs))
    assert answer["epochs"][-1]["logs"] == logs_of(MADE, MADE.epochs - 1)
    assert sum(workers["rows"]) == head["samples"]
    assert sum(map(sum, answer["columns"]["staleness"])) == MADE.windows
    assert set(workers["state"]) == {"done", "failed"}
    assert workers["attempt"][1] == 1
    assert {line["kind"] for line in answer["log"]} >= {"WorkerLost", "WorkerBack", "WorkerFailed"}
    snapshots = answer["servers"]["snapshots"]
    assert (snapshots["count"], snapshots["bytes"]) == (1, 13_000_000)
    # What the server held back is a part of the exchange, and counts once.
    parts = [np.array(answer["columns"]["shares"][name]) for name in ("exchanging", "blocked")]
    assert parts[1].sum() == pytest.approx(0.15 / 0.85 * parts[0].sum(), rel=0.01)


def test_the_head_counts_epochs_from_the_first_one_of_the_run(tmp_path):
    with Run.open(str(tmp_path / "run")) as run:
        facts = {"epoch_rows": [20, 10], "epochs": 6, "first_epoch": 2, "backend": "torch"}
        run.begin({"num_workers": 1, "num_rows": 1000, "num_epoch": 9}, facts=facts)
        for number in range(4):
            run.write(window(0, number, 100.0 + number))
    answer = followed(tmp_path / "run").since("")
    head = answer["head"]
    assert (head["epoch"], head["epochs"], head["total"], head["samples"]) == (4, 6, 60, 40)
    assert head["left"] == pytest.approx(20 / head["rate"])
    assert answer["about"]["backend"] == "torch"


def test_many_workers_are_a_band_and_the_slowest_by_name(finished):
    columns = followed(finished).since("")["columns"]
    assert len(columns["bands"]) == 3
    assert len(columns["named"]) == 3
    last = [band[-1] for band in columns["bands"]]
    assert last == sorted(last)


@pytest.mark.parametrize("most", [16, 1000])
def test_answers_since_a_cursor_join_to_the_whole(tmp_path, most):
    """The page has what it would have if it had asked once at the end, also across doublings of the width."""
    made = Synthetic(workers=3, windows=240, seconds=40, faults=False)
    run = write_run(tmp_path / "run", made, stop_after=0)
    page = followed(tmp_path / "run")
    page._picture = Picture(most)
    cursor, joined, epochs, lines = "", [], [], []
    from synthetic_runs import perform, steps

    for number, step in enumerate(steps(made)):
        if step[0] > 0:
            perform(run, step)
        if number % 60 == 0:
            page._looked = -page.every
            answer = page.since(cursor)
            cursor = answer["cursor"]
            joined, epochs, lines = ([], [], []) if answer["reset"] else (joined, epochs, lines)
            joined = [*joined[: answer["from"]], *answer["columns"]["samples"]]
            epochs, lines = [*epochs, *answer["epochs"]], [*lines, *answer["log"]]
    run.close()
    page._looked = -page.every
    rest, whole = page.since(cursor), page.since("")
    if not rest["reset"]:
        assert [*joined[: rest["from"]], *rest["columns"]["samples"]] == whole["columns"]["samples"]
        assert [*epochs, *rest["epochs"]] == whole["epochs"]
        assert [*lines, *rest["log"]] == whole["log"]
    assert whole["head"]["windows"] == made.windows
    assert page.since(whole["cursor"])["log"] == []
    assert page.since("another page's")["reset"]


def window(worker, number, at, samples=10):
    timing = Timing(0.5, 0.1, 0.2, 0.1, 100, 100)
    return Window(worker, 0, number, 1, samples, {"loss": 1.0}, 0, at, number + 1, timing=timing)


def picture_of(*events):
    rollup, picture = Rollup(), Picture()
    for event in events:
        entries = [event] if isinstance(event, Epoch) else rollup.add(event)
        for entry in entries:
            picture.take(entry)
    for entry in rollup.flush():
        picture.take(entry)
    return picture


def test_a_restarted_server_takes_rows_back_and_workers_train_on():
    picture = picture_of(
        WorkerJoined(0, 0, 0, 0, 100.0),
        *(window(0, number, 100.5 + number) for number in range(4)),
        WorkerLeft(0, 104.5),
        ServerRestored([2], [False], 20, 2, 105.0),
        window(0, 2, 106.5),
    )
    head = picture.head(40, 1)
    assert (head["samples"], head["windows"], head["updates"]) == (30, 3, 3)
    states = [state for _, state, _ in picture.crew.lanes()[0]]
    assert states == ["starting", "training", "done", "waiting", "training"]
    samples = [value for value in picture.since("")["columns"]["samples"] if value is not None]
    assert samples[-1] == 30
    assert max(samples) == 40


def test_the_time_between_two_drivers_is_left_out():
    picture = picture_of(
        window(0, 0, 100.0),
        Epoch(0, {"loss": 1.0}, 10, 1.0, 100.5),
        Epoch(1, {"loss": 0.9}, 20, 2.0, 101.5),
        RunResumed(1, "checkpoint", 90_000.0),
        window(0, 0, 90_001.0),
    )
    answer = picture.since("")
    assert picture.buckets.until < 10
    assert [entry["epoch"] for entry in answer["epochs"]] == [0]  # The other one does not count any more.


def test_an_epoch_of_an_ensemble_has_the_logs_of_all_members():
    picture = picture_of(
        window(0, 0, 100.0),
        Epoch(0, {"loss": 1.0}, 10, 1.0, 100.5, member=1),
        Epoch(1, {"loss": 0.8}, 20, 2.0, 100.7, member=1),
        Epoch(0, {"loss": 2.0}, 10, 1.0, 100.9, member=0),
    )
    assert [entry["logs"] for entry in picture.since("")["epochs"]] == [
        {"loss, member 1": 1.0, "loss, member 0": 2.0},
        {"loss, member 1": 0.8},
    ]


def test_a_lost_worker_and_its_replacement_are_seen():
    picture = picture_of(
        WorkerJoined(0, 0, 0, 0, 100.0),
        window(0, 0, 101.0),
        WorkerLost(0, 10.0, 111.0),
        WorkerJoined(0, 1, 0, 5, 115.0),
        window(0, 1, 118.0),
    )
    (lane,) = picture.crew.lanes()
    assert [(state, attempt) for _, state, attempt in lane] == [
        ("starting", 0),
        ("training", 0),
        ("lost", 0),
        ("starting", 1),
        ("training", 1),
    ]
    table = picture.crew.table()
    assert (table["problems"], table["rows"]) == ([1], [20.0])


def test_numbers_that_json_lacks_reach_the_page_as_texts():
    picture = picture_of(window(0, 0, 100.0), Epoch(0, {"loss": float("nan")}, 10, 1.0, 100.5))
    answer = json.loads(json.dumps(picture.since(""), allow_nan=False))
    assert answer["epochs"][0]["logs"] == {"loss": "nan"}


def test_a_run_without_a_driver_that_wrote_is_waited_for(tmp_path):
    with Run.open(str(tmp_path / "run")) as run:
        assert "run.json is missing" in followed(tmp_path / "run").since("")["about"]["error"]
        run.begin({"num_workers": 2, "num_rows": 10, "num_epoch": 1})
        answer = followed(tmp_path / "run").since("")
        assert answer["about"]["status"] == "running"
        assert answer["columns"]["rate"] == []
