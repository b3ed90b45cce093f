"""The callbacks of a resumed training go on as if nothing had happened."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from distkeras.lifecycle.callback_state import CallbackStates
from distkeras.runs import Run, load_run

LOGS = [
    {"loss": loss, "val_loss": value}
    for loss, value in zip(
        (0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.39), (0.9, 0.5, 0.6, 0.7, 0.65, 0.7, 0.8, 0.9), strict=True
    )
]


def built():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


class Counting(keras.callbacks.Callback):
    """A user's own callback, which counts and does not know of `distkeras`."""

    def __init__(self, patience=2):
        super().__init__()
        self.patience = patience
        self.seen, self.best, self.names, self.handle = [], None, {"a": 1}, object()

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((epoch, logs["loss"]))
        self.best = np.float32(logs["loss"])
        self.names[str(epoch)] = epoch
        self.extra = np.full(3, epoch)


class Stating(keras.callbacks.Callback):
    """A user's own callback with a state."""

    hidden = 0

    def on_train_begin(self, logs=None):
        self.hidden = 0

    def on_epoch_end(self, epoch, logs=None):
        self.hidden += 10

    def get_state(self):
        return {"hidden": self.hidden}

    def set_state(self, state):
        self.hidden = state["hidden"]


class Patient(keras.callbacks.EarlyStopping):
    """A user's own kind of one of Keras's callbacks."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls = 0

    def on_epoch_end(self, epoch, logs=None):
        self.calls += 1
        super().on_epoch_end(epoch, logs)


def made(folder, counting_patience=2):
    callbacks = keras.callbacks
    return [
        callbacks.EarlyStopping(patience=4, restore_best_weights=True, min_delta=0.01),
        callbacks.ReduceLROnPlateau(patience=2, cooldown=2, factor=0.5),
        callbacks.ModelCheckpoint(str(folder / "best.keras"), save_best_only=True),
        callbacks.CSVLogger(str(folder / "log.csv")),
        callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.99),
        callbacks.TerminateOnNaN(),
        Counting(counting_patience),
        Stating(),
        Patient(patience=100),
        Patient(patience=3),
    ]


def go(model, callbacks, epochs, started=False):
    """Do what `fit` does around the epochs, without training; return the epoch at which it stopped."""
    run = keras.callbacks.CallbackList(callbacks, model=model, add_history=False)
    if not started:
        run.on_train_begin()
    for epoch in epochs:
        run.on_epoch_begin(epoch)
        model.set_weights([weight + 1 for weight in model.get_weights()])
        run.on_epoch_end(epoch, dict(LOGS[epoch]))
        if model.stop_training:
            return epoch
    return None


def facts(callbacks):
    names = (
        "wait",
        "best",
        "best_epoch",
        "stopped_epoch",
        "cooldown_counter",
        "seen",
        "names",
        "hidden",
        "calls",
    )
    return [{name: vars(each)[name] for name in names if name in vars(each)} for each in callbacks]


@pytest.mark.parametrize("killed", [1, 3, 4])
def test_callbacks_of_a_resumed_run_decide_as_if_they_had_not_ended(tmp_path, killed):
    whole, second, through = tmp_path / "whole", tmp_path / "parts", str(tmp_path / "run")
    whole.mkdir(), second.mkdir()
    model, callbacks = built(), made(whole)
    stopped = go(model, callbacks, range(8))

    model2, callbacks2 = built(), made(second)
    model2.set_weights([np.zeros_like(weight) for weight in model2.get_weights()])
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    states = CallbackStates(callbacks2)
    assert go(model2, callbacks2, range(killed)) is None
    with Run.open(through) as run:
        run.begin({})
        run.epoch(killed - 1, LOGS[killed - 1], {"callbacks": states.get()})
    rate = float(model2.optimizer.learning_rate)
    go(model2, callbacks2, range(killed, killed + 1), started=True)  # A row that no longer counts.

    resumed, callbacks3 = built(), made(second, counting_patience=7)
    record = load_run(through).records()[-1].state["callbacks"]
    states = CallbackStates(callbacks3)
    states.before_training(record, killed)
    run = keras.callbacks.CallbackList(callbacks3, model=resumed, add_history=False)
    run.on_train_begin()
    assert states.set(record) == []
    resumed.optimizer.learning_rate = rate  # The center's orders have it.
    resumed.set_weights([np.full_like(weight, float(killed)) for weight in resumed.get_weights()])
    assert go(resumed, callbacks3, range(killed, 8), started=True) == stopped == 4
    assert json.dumps(facts(callbacks3), default=float) == json.dumps(facts(callbacks), default=float)
    assert callbacks3[6].patience == 7  # An argument that was changed stays so.
    assert float(resumed.optimizer.learning_rate) == pytest.approx(0.1 * 0.99**5 * 0.5)
    for callback in callbacks3[3:4]:
        callback.on_train_end()
    rows = (second / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1", "2", "3", "4"]
    best = callbacks3[0].best_weights
    assert all((weight == 2).all() for weight in best)  # After epoch 1, or as the file has it.


def test_what_does_not_fit_is_said_and_changes_nothing(tmp_path):
    early, plateau = keras.callbacks.EarlyStopping(patience=4), keras.callbacks.ReduceLROnPlateau()
    early.wait, early.best = 3, 0.5
    record = CallbackStates([early, plateau]).get()
    fresh = keras.callbacks.EarlyStopping(patience=9)
    said = CallbackStates([Stating(), fresh]).set(record)
    assert said == [
        "Stating starts anew: the run has no state for it",
        "the state of ReduceLROnPlateau is not used: there is no such callback",
    ]
    assert (fresh.wait, fresh.best, fresh.patience) == (3, 0.5, 9)


def test_a_state_that_cannot_be_kept_is_refused_by_name():
    class Odd(Stating):
        def get_state(self):
            return {"handle": object()}

    with pytest.raises(TypeError, match=r"`Odd\.get_state\(\)`.*numbers, texts, arrays"):
        CallbackStates([Odd()]).get()


def test_every_callback_of_keras_is_known():
    from distkeras.lifecycle.callback_state import _STATES

    stock = {
        name
        for name, value in vars(keras.callbacks).items()
        if isinstance(value, type) and name not in ("Callback", "CallbackList", "MonitorCallback")
    }
    assert stock <= _STATES.keys()
