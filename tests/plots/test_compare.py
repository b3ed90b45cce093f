"""Pictures of trainings: what they show is what was trained, in one style."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

import distkeras
from distkeras.algorithms import ADAG
from distkeras.events import ServerRestored, Timing, Window
from distkeras.lifecycle import TrainingResult
from distkeras.plots.curves import Point, curves_of
from distkeras.plots.style import COLORS, charts, line_style, styled
from distkeras.runs import Run, RunResumed
from distkeras.simulation import Quadratic, simulate
from distkeras.trainers import History

TIMING = Timing(0.5, 0.1, 0.1, 0.0, 30, 70)


def windows(count=8, begin=1000.0, timing=TIMING):
    """Windows of two workers in turn, one a second, of 10 rows each."""
    return [
        Window(
            *(number % 2, number // 4, number // 2, 1, 10, {"loss": 8.0 - number, "accuracy": number / 8}),
            staleness=0,
            timestamp=begin + number,
            number=number + 1,
            timing=timing,
        )
        for number in range(count)
    ]


def history(**options):
    found = History(windows(**options))
    for epoch in range(2):
        found.add_epoch(epoch, {"loss": 1.0, "val_loss": 2.0 - epoch, "val_accuracy": 0.5 + epoch / 4})
    return found


@pytest.fixture
def address(tmp_path):
    return f"memory://compared/{tmp_path.name}"


def run(address, events):
    """Write a run with two epochs of 40 rows."""
    with Run.open(address) as made:
        made.begin({"batch_size": 5})
        for event in events:
            made.write(event)
            if isinstance(event, Window) and event.iteration % 2 and event.worker == 1:
                epoch = event.epoch
                made.epoch(epoch, {"loss": 1.0, "val_accuracy": 0.5 + epoch / 4}, samples=40 * (epoch + 1))
        made.finish({"reason": "finished"}, [])
    return address


def test_a_history_has_its_metrics_by_time_samples_and_bytes():
    curves = curves_of(history())
    times, losses = curves.along("loss", "time")
    assert losses == [8.0 - number for number in range(8)]
    assert times == pytest.approx(range(8), abs=0.2)  # The end of a bucket of 7 s / 200.
    assert curves.along("loss", "samples")[0] == [10 * number for number in range(1, 9)]
    assert curves.along("loss", "bytes")[0] == [100 * number for number in range(1, 9)]
    assert [(point.samples, point.value) for point in curves.points["val_accuracy"]] == [
        (40, 0.5),
        (80, 0.75),
    ]
    assert [round(point.time) for point in curves.points["val_accuracy"]] == [3, 7]


def test_a_run_has_the_curves_of_its_history(address):
    of_run, of_history = curves_of(run(address, windows())), curves_of(history())
    for along in ("time", "samples", "bytes"):
        assert of_run.along("accuracy", along) == of_history.along("accuracy", along)
    assert of_run.label == address.rpartition("/")[2]
    validated = [(point.samples, point.bytes, point.value) for point in of_run.points["val_accuracy"]]
    assert [(samples, value) for samples, _, value in validated] == [(40, 0.5), (80, 0.75)]
    result = TrainingResult("finished", "", 2, run=address)
    assert curves_of(result).points == of_run.points


def test_windows_that_a_restored_server_has_lost_are_not_drawn_and_time_and_bytes_go_on(address):
    first = windows(6)
    restored = ServerRestored([2, 2], [False, False], 40, 4, 1006.5)
    again = [replace(each, timestamp=each.timestamp + 4) for each in windows()[4:]]
    curves = curves_of(run(address, [*first, restored, *again]))
    assert curves.along("loss", "samples")[0] == [10 * number for number in range(1, 9)]
    assert curves.along("loss", "time")[0][-1] == pytest.approx(11, abs=0.2)


def test_the_time_between_two_sessions_of_a_run_is_left_out():
    from distkeras.plots.curves import _Collector
    from distkeras.runs.rollup import Second, WorkerSecond

    def second(start):
        return Second(start, 1.0, 10, 1, 1, 0, {"loss": 1.0}, [1], {"0": WorkerSecond(10, 1)})

    collector = _Collector("run")
    restored = ServerRestored([2], [False], 20, 2, 90_000.5)
    for rolled in (second(100.0), second(101.0), RunResumed(0, "snapshot", 90_000.0), restored):
        collector.take(rolled)
    collector.take(second(90_003.0))
    assert [point.time for point in collector.curves.points["loss"]] == [1.0, 2.0, 6.0]
    assert [point.samples for point in collector.curves.points["loss"]] == [10, 20, 30]


def test_trainings_are_compared_by_the_validation_they_have_in_common(address):
    figure = distkeras.compare([run(address, windows()), history()], labels=["ADAG", "DiLoCo"])
    assert len(figure.axes) == 3
    assert figure.get_suptitle() == "val_accuracy"
    for axes in figure.axes:
        assert [line.get_label() for line in axes.lines] == ["ADAG", "DiLoCo"]
        assert [line.get_color() for line in axes.lines] == list(COLORS[:2])
        assert [list(line.get_ydata()) for line in axes.lines] == [[0.5, 0.75], [0.5, 0.75]]
    assert "bytes" in figure.axes[2].get_xlabel()
    loss = distkeras.compare([history(), history(timing=None)], "loss")
    assert len(loss.axes) == 2  # Of one of them no bytes were measured.
    assert [line.get_label() for line in loss.axes[0].lines] == ["training 1", "training 2"]


def test_a_simulation_and_its_run_are_compared_with_a_training(address):
    result = simulate(
        *(ADAG(5), Quadratic(noise=0.1)), num_workers=2, num_commits=20, learning_rate=0.05, run=address
    )
    for along in ("time", "samples"):
        assert curves_of(address).along("loss", along) == curves_of(result).along("loss", along)
    curves = curves_of(result)
    assert curves.points["loss"][-1] == Point(
        float(result.evaluated[-1]),
        int(result.samples[-1]),
        result.bytes_sent + result.bytes_received,
        float(result.losses[-1]),
    )
    figure = distkeras.compare([result, history()])
    assert figure.get_suptitle() == "loss"
    assert len(result.plot().axes) == 3


@pytest.mark.parametrize(
    ("trainings", "options", "expected"),
    [
        ([], {}, "list of trainings to compare. Received: []"),
        ("runs/one", {}, "list of trainings to compare. Received: 'runs/one'"),
        ([History()], {}, "a metric in common. Received: 'training' with none"),
        ([history()], {"metric": "auc"}, "the metric 'auc'. Received: 'training', which has loss, accuracy"),
        ([history()], {"labels": ["a", "b"]}, "Expected 1 labels"),
        ([TrainingResult("finished", "", 1)], {}, "Received: a result with run=None"),
    ],
)
def test_what_cannot_be_compared_is_refused(trainings, options, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        distkeras.compare(trainings, **options)


def test_something_else_is_refused_with_what_is_expected():
    with pytest.raises(TypeError, match=r"address of a run, a history, a trainer.*Received: <class 'int'>"):
        distkeras.compare([3])


def test_no_two_lines_of_a_picture_look_alike():
    styles = [tuple(line_style(number).items()) for number in range(4 * len(COLORS))]
    assert len(set(map(str, styles))) == len(styles)
    with styled():
        figure, [[axes]] = charts(1, 1, "a title")
    assert not axes.spines["top"].get_visible()
    assert figure.get_suptitle() == "a title"
    assert math.isclose(figure.get_size_inches()[0], 3.6)
