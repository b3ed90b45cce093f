"""The history: by worker, by iteration over all workers, as a table, as a picture."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from distkeras.events import Timing, Window
from distkeras.trainers import History


def window(worker, iteration, loss, samples=10, staleness=0, timestamp=100.0):
    return Window(worker, 0, iteration, 1, samples, {"loss": loss}, staleness, timestamp)


@pytest.fixture
def history():
    return History(
        [
            window(0, 0, 4.0, samples=30, timestamp=100.0),
            window(1, 0, 2.0, samples=10, staleness=1, timestamp=101.0),
            window(2, 0, 6.0, samples=10, staleness=2, timestamp=102.0),
            window(1, 1, 1.0, timestamp=103.0),
        ]
    )


def test_the_average_is_over_all_workers_weighted_by_their_rows(history):
    first, second = history.averaged()
    assert (first.iteration, first.workers, first.samples) == (0, 3, 50)
    assert first.metrics["loss"] == pytest.approx((4 * 30 + 2 * 10 + 6 * 10) / 50)
    assert first.staleness == 1.0
    assert first.timestamp == 102.0
    assert (second.workers, second.metrics["loss"]) == (1, 1.0)


def test_a_loss_that_is_no_number_is_not_averaged_away(history):
    history.append(window(3, 0, math.nan))
    assert math.isnan(history.averaged()[0].metrics["loss"])


def test_one_executor_alone(history):
    assert [w.iteration for w in history.executor(1)] == [0, 1]
    assert history.executor(7) == []


def test_the_table_has_a_row_a_window_and_time_from_zero(history):
    table = history.to_pandas()
    assert table["time"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert table["loss"].tolist() == [4.0, 2.0, 6.0, 1.0]
    assert table["staleness"].tolist() == [0, 1, 2, 0]


def test_the_table_of_no_windows_is_empty():
    assert len(History().to_pandas()) == 0


def test_the_plot_has_the_mean_and_a_line_a_worker_against_time_and_the_validation(history):
    history.add_epoch(0, {"loss": 2.0, "val_loss": 3.0})
    by_time, by_samples = history.plot().axes  # No bytes were measured.
    assert [line.get_label() for line in by_time.lines][-2:] == ["all workers", "validation"]
    assert len(by_time.lines) == 3 + 2
    assert list(by_time.lines[1].get_ydata()) == [2.0, 1.5]  # The running mean of worker 1.
    assert list(by_samples.lines[0].get_xdata()) == [30, 40, 50, 60]
    assert list(by_samples.lines[1].get_ydata()) == [3.0]
    assert by_time.get_ylabel() == "loss"
    assert "seconds" in by_time.get_xlabel()
    assert "rows" in by_samples.get_xlabel()


def test_windows_without_a_metric_do_not_count_for_it():
    mixed = History([window(0, 0, 1.0), Window(1, 0, 0, 1, 10, {"loss": 3.0, "auc": 0.5}, 0, 100.0)])
    assert mixed.averaged()[0].metrics == {"loss": 2.0, "auc": 0.5}


def test_windows_that_a_restored_server_does_not_have_are_dropped(history):
    history.roll_back([1, 1, 0])
    assert [(window.worker, window.iteration) for window in history] == [(0, 0), (1, 0)]


def test_a_table_has_a_column_for_each_field_of_the_timing():
    measured = replace(window(0, 0, 1.0), timing=Timing(computing=0.5, bytes_out=96))
    table = History([measured, window(1, 0, 2.0)]).to_pandas()
    assert "timing" not in table
    assert (table["computing"][0], table["bytes_out"][0], table["loss"][0]) == (0.5, 96, 1.0)
    assert table["computing"].isna().tolist() == [False, True]
