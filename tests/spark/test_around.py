"""What goes around a training on Spark: with one worker as in Keras's `fit`; decisions reach the workers."""

from __future__ import annotations

import os
import signal
import threading
import warnings

import keras
import numpy as np
import pytest

import distkeras
from distkeras.lifecycle import Around, StopWhen, Validation

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(200, 6)).astype("float32")
Y = (X.sum(1) > 0).astype("int64")
TRAIN, HELD = (X[:150], Y[:150]), (X[150:], Y[150:])


def small_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dropout(0.2, seed=3),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Written(keras.callbacks.Callback):
    """Notes what a callback can see, and writes weights once."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        steps = int(self.model.optimizer.iterations)
        self.seen.append((epoch, steps, float(self.model.get_weights()[0].sum()), sorted(logs)))
        if epoch == 1:
            self.model.set_weights([weight * 0.5 for weight in self.model.get_weights()])


def around():
    """Return callbacks that lower the rate, write weights and stop."""
    return [
        keras.callbacks.ReduceLROnPlateau("val_loss", patience=0, factor=0.3, min_delta=0.05),
        keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=0.03, restore_best_weights=True),
        Written(),
    ]


def test_one_worker_in_place_equals_fit_in_weights_logs_and_decisions(spark):
    ours, keras_own = small_model(), small_model()
    ours_around, own_around = around(), around()
    own = keras_own.fit(*TRAIN, 32, 9, shuffle=False, validation_data=HELD, callbacks=own_around, verbose=0)
    trainer = distkeras.SingleTrainer(ours, batch_size=32, num_epoch=9)
    history = trainer.train_in_place(
        TRAIN, Around(callbacks=ours_around, validation=Validation(HELD)), shuffle=False
    )
    assert history.epoch == own.epoch
    assert len(own.epoch) < 9, "The case shows nothing: no callback has stopped."
    assert ours_around[2].seen == own_around[2].seen
    assert history.history.keys() == own.history.keys()
    for name, values in own.history.items():
        np.testing.assert_allclose(history.history[name], values, rtol=1e-5, err_msg=name)
    assert len(set(history.history["learning_rate"])) > 1, "The case shows nothing: no rate has changed."
    for mine, its in zip(ours.variables, keras_own.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), its.numpy())
    for mine, its in zip(ours.optimizer.variables, keras_own.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), its.numpy())
    assert trainer.result.reason == "callback"
    assert trainer.result.epochs == len(own.epoch)
    # It goes on from there, as `fit` does.
    keras_own.fit(*TRAIN, 32, 1, shuffle=False, verbose=0)
    distkeras.SingleTrainer(ours, batch_size=32, num_epoch=1).train_in_place(TRAIN, Around(), shuffle=False)
    for mine, its in zip(ours.get_weights(), keras_own.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)
    expected = keras_own.evaluate(*HELD, verbose=0, return_dict=True)
    found = trainer.evaluate(HELD, model=ours)
    assert found == pytest.approx(expected, rel=1e-5)


def test_callbacks_that_look_at_batches_see_each_one_and_stop_there(spark):
    def stopping(seen):
        def at_end(batch, logs):
            seen.append((batch, round(logs["loss"], 5)))
            told.model.stop_training = len(seen) == 7

        told = keras.callbacks.LambdaCallback(on_train_batch_end=at_end)
        return told

    ours, keras_own, mine, its = small_model(), small_model(), [], []
    own = keras_own.fit(*TRAIN, 32, 5, shuffle=False, callbacks=[stopping(its)], verbose=0)
    trainer = distkeras.SingleTrainer(ours, batch_size=32, num_epoch=5)
    history = trainer.train_in_place(TRAIN, Around(callbacks=[stopping(mine)]), shuffle=False)
    assert [batch for batch, _ in mine] == [batch for batch, _ in its]
    np.testing.assert_allclose([loss for _, loss in mine], [loss for _, loss in its], rtol=1e-4)
    assert history.epoch == own.epoch == [0, 1]
    for one, other in zip(ours.get_weights(), keras_own.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("where", ["driver", "workers"])
def test_asynchronous_workers_are_validated_and_stopped(spark, where):
    model = small_model()
    before = [weight.copy() for weight in model.get_weights()]
    seen = []
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, dict(logs))))
    trainer = distkeras.ADAG(model, num_workers=2, batch_size=8, num_epoch=10_000, communication_window=2)
    trained = trainer.train(
        TRAIN, validation_data=HELD, validate_on=where, callbacks=[told], stop=StopWhen(val_accuracy=0.7)
    )
    assert trainer.result.reason == "target"
    assert [epoch for epoch, _ in seen] == list(range(len(seen)))
    _, last = seen[-1]
    assert last["val_accuracy"] >= 0.7
    # The model is the version that was judged.
    assert trained.evaluate(*HELD, verbose=0) == pytest.approx(
        [last["val_loss"], last["val_accuracy"]], rel=1e-4
    )
    for weight, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, was)


def test_synchronous_workers_take_weights_and_rate_of_a_callback(spark):
    class Zero(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.model.set_weights([np.zeros_like(weight) for weight in self.model.get_weights()])
                self.model.optimizer.learning_rate = 0.0

    trainer = distkeras.AveragingTrainer(small_model(), num_workers=2, batch_size=16, num_epoch=3)
    trained = trainer.train(TRAIN, callbacks=[Zero()])
    assert trainer.get_history().history["loss"][1:] == pytest.approx([np.log(2)] * 2)
    assert all((weight == 0).all() for weight in trained.get_weights())


def test_members_of_an_ensemble_are_validated_and_stop_by_themselves(spark):
    seen = {0: [], 1: []}

    def callbacks_of(member):
        note = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen[member].append(dict(logs))
        )
        # The first member stops at once, the other never does.
        return [note, keras.callbacks.EarlyStopping("val_loss", patience=1 + 99 * member, min_delta=9.0)]

    # An odd number of rows: the members' epochs differ in length.
    rows = (X[:101], Y[:101])
    trainer = distkeras.EnsembleTrainer(small_model(), num_ensembles=2, batch_size=4, num_epoch=6)
    members = trainer.train(rows, validation_data=HELD, callbacks=callbacks_of)
    assert (len(seen[0]), len(seen[1])) == (2, 6)
    for member, logs in zip(members, seen.values(), strict=True):
        assert member.evaluate(*HELD, verbose=0)[0] == pytest.approx(logs[-1]["val_loss"], rel=1e-4)
    first, second = trainer.evaluate(HELD)
    assert [first["loss"], second["loss"]] == pytest.approx(
        [seen[0][-1]["val_loss"], seen[1][-1]["val_loss"]]
    )


def endless(model, **options):
    return distkeras.SingleTrainer(model, batch_size=32, num_epoch=1_000_000, **options)


def at_the_end_of_the_second_epoch(do):
    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: do() if epoch == 1 else None)


def test_a_training_is_stopped_from_another_thread_and_by_ctrl_c(spark):
    trainer = endless(small_model())
    stop = at_the_end_of_the_second_epoch(lambda: threading.Thread(target=trainer.stop).start())
    trained = trainer.train(TRAIN, callbacks=[stop])
    assert trainer.result.reason == "stop"
    assert trained.evaluate(*TRAIN, verbose=0)[0] < small_model().evaluate(*TRAIN, verbose=0)[0]

    press = at_the_end_of_the_second_epoch(lambda: os.kill(os.getpid(), signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.warns(UserWarning, match="Ctrl-C ended"):
        trained = trainer.train(TRAIN, callbacks=[press])
    assert trainer.result.reason == "interrupt"
    model = small_model()
    with pytest.raises(KeyboardInterrupt):
        endless(model).train_in_place(TRAIN, Around(callbacks=[press]), shuffle=False)
    for mine, its in zip(model.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_exception_of_a_callback_ends_the_job_and_leaves_the_last_center(spark):
    class Mine(Exception):
        pass

    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.weights = self.model.get_weights()
            if epoch == 1:
                raise Mine("in a callback")

    fails = Fails()
    trainer = endless(small_model())
    with pytest.raises(Mine) as raised:
        trainer.train(TRAIN, callbacks=[fails])
    assert any("state changes" in note for note in raised.value.__notes__)
    for mine, its in zip(trainer.interrupted_model().get_weights(), fails.weights, strict=True):
        np.testing.assert_array_equal(mine, its)
    with pytest.raises(RuntimeError, match="no snapshot of an interrupted"):
        distkeras.SingleTrainer(small_model()).interrupted_model()


def test_a_rate_that_a_callback_sets_is_judged_anew_by_the_theory(spark):
    def fast(epoch, rate):
        return 50.0 if epoch else rate

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3, clipnorm=1e-6), "mse")
    trainer = distkeras.AEASGD(
        model, num_workers=2, batch_size=16, num_epoch=2, rho=5.0, communication_window=2
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train((X, Y), callbacks=[keras.callbacks.LearningRateScheduler(fast)])
    assert any(issubclass(each.category, distkeras.UnstableWarning) for each in caught)


def test_rows_for_the_validation_are_split_off(spark):
    trainer = distkeras.SingleTrainer(small_model(), batch_size=32, num_epoch=1)
    trained = trainer.train((X, Y), validation_split=0.25, steps_per_epoch=3)
    (loss,) = trainer.get_history().history["val_loss"]
    assert loss == pytest.approx(trained.evaluate(*HELD, verbose=0)[0], rel=1e-4)
    assert sum(window.samples for window in trainer.get_history()) == 96


def test_what_cannot_be_is_refused_before_any_work():
    trainer = distkeras.SingleTrainer(small_model())
    for arguments, message in (
        ({"validation_data": HELD, "validation_split": 0.1}, "Expected either"),
        ({"callbacks": [keras.callbacks.EarlyStopping]}, "make an instance"),
        ({"stop": 3}, "StopWhen"),
        ({"validation_split": 1.5}, "validation_split=1.5"),
        ({"steps_per_epoch": 0}, "steps_per_epoch=0"),
        ({"validation_data": HELD, "validate_on": "moon"}, "validate_on='moon'"),
        ({"validation_data": HELD, "validation_freq": 0}, "validation_freq=0"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            trainer.train(TRAIN, **arguments)
