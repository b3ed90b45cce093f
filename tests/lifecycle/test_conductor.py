"""The conductor: what happens around the ends of epochs, and in which order."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from small_jobs import ROWS, SmallJob

from distkeras.center.orders import FOREVER
from distkeras.events import CenterKept, ServerRestored, UpdateRefused
from distkeras.lifecycle import StopWhen


class Told(keras.callbacks.Callback):
    """Tells its calls, and does what a test wants at the end of an epoch."""

    def __init__(self, at_end=lambda model, epoch: None):
        super().__init__()
        self.calls, self.at_end = [], at_end

    def on_train_begin(self, logs=None):
        self.calls.append("train begins")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(f"begin {epoch}")

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(f"end {epoch}")
        self.at_end(self.model, epoch)

    def on_train_end(self, logs=None):
        self.calls.append("train ends")


def test_workers_wait_at_each_epoch_except_the_last_one():
    told = Told()
    job = SmallJob([told], num_epoch=3)
    assert job.until == [ROWS]
    assert told.calls == ["train begins", "begin 0"]
    job.epoch(0, 0.9)
    assert job.until == [ROWS, 2 * ROWS]
    assert told.calls[2:] == ["end 0", "begin 1"]
    job.epoch(1, 0.8)
    job.epoch(2, 0.7)
    assert job.until == [ROWS, 2 * ROWS, FOREVER]
    assert told.calls[-1] == "begin 2"  # The last epoch waits for the last center.
    center = job.control.center + 1
    job.end(center)
    assert told.calls[-2:] == ["end 2", "train ends"]
    np.testing.assert_array_equal(job.conductor.live.vector(), center)
    assert job.closed == [(0, {"loss": 0.9}), (1, {"loss": 0.8}), (2, {"loss": 0.7})]
    assert job.conductor.callbacks.history.history == {"loss": [0.9, 0.8, 0.7]}


@pytest.mark.parametrize("early", [False, True])
def test_a_model_is_saved_while_workers_train_unless_a_callback_may_change_it_at_the_next_beginning(early):
    saved = []
    callbacks = [Told()] if early else [keras.callbacks.EarlyStopping("loss")]
    job = SmallJob(callbacks, save=lambda epoch, logs: saved.append((epoch, logs, list(job.until))))
    job.epoch(0, 0.5)
    assert saved == [(0, {"loss": 0.5}, [ROWS] if early else [ROWS, 2 * ROWS])]
    job.conductor.stop.set("stop", "")
    job.epoch(1, 0.25)
    job.end()
    assert [epoch for epoch, _, _ in saved] == [0, 1]


def test_epochs_count_from_the_first_one_of_the_user():
    told = Told()
    job = SmallJob([told], num_epoch=2, first=5)
    job.epoch(0)
    assert told.calls == ["train begins", "begin 5", "end 5", "begin 6"]


def test_a_callback_that_stops_leaves_the_version_that_it_saw():
    def stop(model, epoch):
        model.stop_training = epoch == 1

    told = Told(stop)
    job = SmallJob([told], num_epoch=9, holds=False)
    first, second = job.control.center + 1, job.control.center + 2
    job.control.copies = {ROWS: first, 2 * ROWS: second}
    assert job.control.kept == [ROWS, 2 * ROWS]
    assert job.until == []
    job.epoch(0)
    assert told.calls[-1] == "begin 0"  # The copy has not been reported yet.
    job.conductor.take(CenterKept(ROWS, 2, 2, 0.0))
    assert told.calls[-2:] == ["end 0", "begin 1"]
    assert job.control.kept[-1] == 3 * ROWS
    job.conductor.take(CenterKept(2 * ROWS, 4, 4, 0.0))
    job.epoch(1)
    assert job.stopped
    assert job.conductor.stop.reason == "callback"
    job.window()  # Windows that were under way.
    job.end(second + 40)
    assert told.calls[-2:] == ["end 1", "train ends"]
    np.testing.assert_array_equal(job.conductor.live.vector(), second)


def test_a_stop_between_epochs_closes_the_part_of_an_epoch():
    told = Told()
    job = SmallJob([told], num_epoch=9)
    job.epoch(0)
    job.window(0.25)
    job.conductor.stop.set("stop", "in a test")
    job.conductor.look()
    assert job.stopped
    assert job.until[-1] == FOREVER
    job.epoch(1, whole=False)
    assert job.end() == {"loss": 0.25}
    assert told.calls[-3:] == ["begin 1", "end 1", "train ends"]


def test_a_new_rate_is_ordered_once_and_told():
    def lower(model, epoch):
        model.optimizer.learning_rate = 0.25

    job = SmallJob([Told(lower)], num_epoch=4)
    job.epoch(0)
    job.epoch(1)
    assert [order["learning_rate"] for order in job.control.orders if "learning_rate" in order] == [0.25]
    assert job.rates == [0.25]
    names = [name for order in job.control.orders for name in order]
    assert names.index("learning_rate") < [*names, "until"].index("until", names.index("until") + 1)


def test_written_weights_become_the_center_or_are_refused():
    def write(model, epoch):
        model.set_weights([np.full_like(weight, 7.0) for weight in model.get_weights()])

    job = SmallJob([Told(write)], num_epoch=4)
    job.epoch(0)
    (written,) = job.control.written
    assert (written == 7.0).all()
    job.epoch(1)  # The same weights again are no change.
    assert len(job.control.written) == 1

    job = SmallJob([Told(write)], num_epoch=4, holds=False)
    job.control.copies = {ROWS: job.control.center}
    job.conductor.take(CenterKept(ROWS, 2, 2, 0.0))
    with pytest.raises(ValueError, match="Told"):
        job.epoch(0)


def test_epochs_that_a_restored_server_reports_again_are_closed_once():
    told = Told()
    job = SmallJob([told], num_epoch=9)
    job.epoch(0)
    job.epoch(1)
    job.conductor.take(ServerRestored([1], [False], 4, 1, 0.0))
    job.samples = 4
    for epoch in range(3):
        job.epoch(epoch)
    assert [call for call in told.calls if call.startswith("end")] == ["end 0", "end 1", "end 2"]


def test_a_loss_that_is_not_finite_reaches_callbacks():
    job = SmallJob([keras.callbacks.TerminateOnNaN()], num_epoch=3)
    job.window(0.5)
    job.conductor.take(UpdateRefused(0, 0, 1, "its loss is nan", 0.0))
    assert job.stopped
    assert job.conductor.stop.reason == "not finite"
    assert np.isnan(job.end()["loss"])
    assert job.conductor.callbacks.history.epoch == [0]


def test_windows_are_the_batches_of_callbacks():
    seen = []
    told = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(batch),
        on_train_batch_end=lambda batch, logs: seen.append((batch, logs["loss"])),
    )
    job = SmallJob([told], num_epoch=2, by_steps=True)
    job.window(0.5)
    assert job.until == [1, 5]  # The worker waits after each window.
    job.window(0.25)
    assert seen == [0, (0, 0.5), 1, (1, 0.375)]
    assert job.until == [1, 5]
    job.epoch(0)
    assert job.until == [1, 5, 9]


def test_no_batch_has_a_number_above_the_last_one_of_the_epoch_though_windows_reach_over_its_end():
    seen = []
    told = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(batch),
        on_train_batch_end=lambda batch, logs: seen.append(batch),
    )
    job = SmallJob([told], num_epoch=2, holds=False)  # An epoch has two steps.
    for _ in range(3):
        job.window()
    assert seen == [0, 0, 1, 1, 1, 1]


def test_targets_and_time_end_a_training():
    now = [0.0]
    job = SmallJob(num_epoch=9, stop_when=StopWhen(loss=0.5, minutes=2), clock=lambda: now[0])
    job.epoch(0, 0.75)
    assert not job.stopped
    job.epoch(1, 0.5)
    assert job.stopped
    assert job.conductor.stop.reason == "target"
    job = SmallJob(num_epoch=9, stop_when=StopWhen(minutes=2), clock=lambda: now[0])
    now[0] = 121.0
    job.conductor.look()
    assert job.stopped
    assert job.conductor.stop.reason == "time"


def test_unknown_target_is_named():
    job = SmallJob(num_epoch=9, stop_when=StopWhen(accuracy=0.5))
    with pytest.raises(ValueError, match=r"accuracy=0\.5.*loss"):
        job.epoch(0)


@pytest.mark.parametrize(
    ("name", "value", "reached"),
    [("loss", 0.1, True), ("loss", 0.3, False), ("val_accuracy", 0.3, True), ("auc", 0.1, False)],
)
def test_better_is_smaller_or_larger_by_the_name_of_the_metric(name, value, reached):
    assert bool(StopWhen(**{name: 0.2}).reached({name: value})) == reached
