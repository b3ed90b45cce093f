"""`fit` takes the place of `keras.Model.fit`: same model, history and decisions, from data of any kind."""

from __future__ import annotations

import functools
import warnings

import keras
import numpy as np
import pandas as pd
import pytest

import distkeras
from distkeras.algorithms import DOWNPOUR, DynSGD, Sequential
from distkeras.trainers.fit import recommended

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(40, 3)).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int32)


def compiled(optimizer="adam", **arguments):
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **arguments)
    return model


class Rates(keras.callbacks.Callback):
    """Notes the model that it sees, and halves the learning rate after every epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((epoch, sorted(logs), self.model))
        self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2


def test_one_worker_leaves_the_model_and_history_of_keras(spark):
    del spark  # The active session.
    mine, theirs = compiled(), compiled()
    arguments = {"batch_size": 16, "epochs": 2, "shuffle": False, "verbose": 0, "validation_split": 0.2}
    arguments["class_weight"] = {0: 1.0, 1: 3.0}
    expected = theirs.fit(X, Y, callbacks=[Rates()], **arguments)
    rates = Rates()
    history = distkeras.fit(mine, X, Y, num_workers=1, callbacks=[rates], **arguments)
    assert type(history) is keras.callbacks.History
    assert history is mine.history
    assert history.epoch == expected.epoch
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, rtol=1e-5)
    for one, other in zip(mine.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert int(mine.optimizer.iterations) == int(theirs.optimizer.iterations) == 4
    assert [epoch for epoch, _, _ in rates.seen] == [0, 1]
    assert all(model is mine for _, _, model in rates.seen)
    # A second `fit` goes on from the optimizer's state.
    expected = theirs.fit(X[:16], Y[:16], epochs=3, initial_epoch=2, verbose=0, shuffle=False)
    history = distkeras.fit(
        mine, X[:16], Y[:16], epochs=3, initial_epoch=2, verbose=0, shuffle=False, num_workers=1
    )
    assert history.epoch == [2]
    np.testing.assert_allclose(history.history["loss"], expected.history["loss"], rtol=1e-5)
    assert int(mine.optimizer.iterations) == 5


def test_dataframes_and_datasets_train_as_arrays_do(spark):
    expected = compiled("sgd")
    distkeras.fit(expected, X, Y, batch_size=8, shuffle=False, num_workers=1, verbose=0)

    def minibatches():
        for first in range(0, 40, 8):
            yield X[first : first + 8], Y[first : first + 8]

    rows = spark.createDataFrame(pd.DataFrame({"a": list(X), "b": Y})).coalesce(1)
    forms = {
        "DataFrame": (rows, {"features_col": "a", "label_col": "b", "batch_size": 8}),
        "generator": (minibatches(), {}),
    }
    for name, (data, options) in forms.items():
        model = compiled("sgd")
        model.build((None, 3))
        distkeras.fit(model, data, num_workers=1, shuffle=False, verbose=0, **options)
        for one, other in zip(model.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=name)


def test_several_workers_take_the_recommended_algorithm_and_say_so(spark, capsys):
    del spark
    model = compiled("sgd")
    before = int(model.optimizer.iterations)
    history = distkeras.fit(model, X, Y, global_batch_size=8, epochs=2, seed=1)  # As many as there are slots.
    assert "2 workers, DOWNPOUR(communication_window=5)" in capsys.readouterr().out
    assert len(history.history["loss"]) == 2
    assert int(model.optimizer.iterations) > before
    assert [type(recommended(workers)) for workers in (1, 2, 4, 5, 64)] == [
        Sequential,
        DOWNPOUR,
        DOWNPOUR,
        DynSGD,
        DynSGD,
    ]


def test_evaluate_and_predict_equal_those_of_keras(spark):
    del spark
    model = compiled()
    model.build((None, 3))
    weights = np.linspace(0, 1, 40, dtype=np.float32)
    expected = model.evaluate(X, Y, sample_weight=weights, batch_size=16, verbose=0)
    found = distkeras.evaluate(model, X, Y, sample_weight=weights, batch_size=16, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    named = distkeras.evaluate(model, X, Y, steps=2, batch_size=8, verbose=0, return_dict=True)
    assert named == pytest.approx(
        model.evaluate(X, Y, steps=2, batch_size=8, verbose=0, return_dict=True), rel=1e-5
    )
    np.testing.assert_allclose(distkeras.predict(model, X, verbose=0), model.predict(X, verbose=0), rtol=1e-5)


def test_a_loss_that_is_not_finite_is_for_the_callbacks_to_judge(spark):
    del spark
    x, y = X.copy(), Y.astype(np.float32)
    x[17, 0], y[33] = np.nan, np.inf
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    stop = keras.callbacks.TerminateOnNaN()
    with pytest.warns(UserWarning, match="NaN or infinity") as caught:
        history = distkeras.fit(
            model, x, y, batch_size=8, epochs=3, num_workers=1, verbose=0, shuffle=False, callbacks=[stop]
        )
    assert {each.filename for each in caught if "NaN" in str(each.message)} == {__file__}
    assert len(history.history["loss"]) == 1
    assert not np.isfinite(history.history["loss"][0])
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    with pytest.warns(UserWarning, match="NaN or infinity"):
        assert not np.isfinite(distkeras.evaluate(model, x, y, verbose=0))


class Noted(keras.callbacks.Callback):
    """Notes the logs of every batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((batch, logs["lasting"], logs["loss"]))


def test_metrics_that_do_not_reset_and_executions_of_several_steps_count_as_in_keras(spark):
    """Executions are whole: an epoch of three steps has two of two, and a pass of five ends the next one."""
    del spark

    class LastingError(keras.metrics.MeanSquaredError):
        """Counts over all epochs."""

        def __init__(self):
            super().__init__(name="lasting")

        def reset_state(self):
            pass

    arguments = {"batch_size": 8, "epochs": 3, "steps_per_epoch": 3, "shuffle": False, "verbose": 0}
    found = []
    for fit in (keras.Model.fit, functools.partial(distkeras.fit, num_workers=1)):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("sgd", "mse", metrics=["mae", LastingError()], steps_per_execution=2)
        noted = Noted()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns that the data ends before the epoch.
            history = fit(model, X, Y.astype(np.float32), callbacks=[noted], **arguments)
        found.append((history.history, noted.seen))
    (expected, batches), (logs, seen) = found
    assert logs.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(logs[name], values, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(seen, batches, rtol=1e-5)


@pytest.mark.parametrize("form", ["list", "dict"])
def test_outputs_without_a_loss_need_no_labels(spark, form):
    del spark

    def make():
        keras.utils.set_random_seed(2)
        inputs = keras.Input((3,))
        outputs = {name: keras.layers.Dense(2, name=name)(inputs) for name in ("a", "b", "c")}
        model = keras.Model(inputs, outputs if form == "dict" else list(outputs.values()))
        losses = {"a": "mse", "c": "mae"}
        model.compile("sgd", losses if form == "dict" else [losses.get(name) for name in outputs])
        return model

    draw = np.random.default_rng(1)
    y = {name: draw.normal(size=(40, 2)).astype(np.float32) for name in ("a", "c")}
    y = y if form == "dict" else list(y.values())
    mine, theirs = make(), make()
    expected = theirs.fit(X, y, shuffle=False, verbose=0)
    history = distkeras.fit(mine, X, y, shuffle=False, verbose=0, num_workers=1)
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, rtol=1e-5)
    for one, other in zip(mine.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert distkeras.evaluate(mine, X, y, verbose=0) == pytest.approx(
        theirs.evaluate(X, y, verbose=0), rel=1e-5
    )


def test_outputs_keep_the_structure_of_the_model(spark):
    del spark
    a, b = keras.Input((3,), name="a"), keras.Input((2, 2), name="b")
    model = keras.Model({"a": a, "b": b}, {"double": b * 2, "sum": keras.ops.sum(a, axis=-1)})
    batches = []
    seen = keras.callbacks.LambdaCallback(
        on_predict_batch_end=lambda batch, logs: batches.append((batch, len(logs["sum"])))
    )
    ones = np.ones((40, 2, 2), np.float32)
    found = distkeras.predict(model, {"a": X, "b": ones}, batch_size=16, callbacks=[seen], verbose=0)
    np.testing.assert_array_equal(found["double"], 2 * ones)
    np.testing.assert_allclose(found["sum"], X.sum(axis=1), rtol=1e-5, atol=1e-6)
    assert batches == [(0, 16), (1, 16), (2, 8)]


def test_a_stream_of_pieces_is_one_training(spark):
    whole, pieces = compiled(), compiled()
    whole.build((None, 3))
    pieces.build((None, 3))
    pieces.set_weights(whole.get_weights())
    whole.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    trainer = distkeras.SingleTrainer(pieces, batch_size=8, verbose=0)
    trainer.partial_fit((X[:16], Y[:16]))
    empty = spark.createDataFrame([], "features array<float>, label int")
    last = trainer.partial_fit(empty)
    model = trainer.partial_fit((X[16:], Y[16:]))
    assert model is not last
    assert int(model.optimizer.iterations) == 5
    for one, other in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


REFUSED = {
    "not compiled": ({"model": "uncompiled"}, ValueError, "call `model.compile"),
    "no model": ({"model": "none"}, TypeError, "must be a Keras model"),
    "loss": ({"loss": "mse"}, TypeError, r"give the loss to `model.compile`"),
    "num_epoch": ({"num_epoch": 3}, TypeError, "give `epochs`"),
    "unknown": ({"epoch": 3}, TypeError, "`fit` has no argument `epoch`"),
    "both sizes": ({"batch_size": 8, "global_batch_size": 8}, ValueError, "of all workers together"),
    "uneven": ({"global_batch_size": 9}, ValueError, "can share equally, such as 10"),
    "epochs": ({"epochs": -1}, ValueError, "an integer from 0"),
    "verbose": ({"verbose": 3}, ValueError, '0, 1, 2 or "auto"'),
    "steps": ({"steps_per_epoch": 0}, ValueError, "`steps_per_epoch` must be a positive integer"),
    "weights": ({"sample_weight": X[:3, 0]}, ValueError, "equal numbers of rows"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_are_refused_by_name(name):
    arguments, error, words = REFUSED[name]
    models = {"uncompiled": keras.Sequential([keras.layers.Dense(1)]), "none": "model"}
    model = models.get(arguments.pop("model", "")) or compiled()
    with pytest.raises(error, match=words):
        distkeras.fit(model, X, Y, **{"num_workers": 2, "verbose": 0} | arguments)


def test_no_epochs_train_nothing_but_call_the_callbacks():
    model, called = compiled(), []
    begun = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: called.append("begin"))
    history = distkeras.fit(model, X, Y, epochs=2, initial_epoch=2, callbacks=[begun], num_workers=1)
    assert history.history == {}
    assert called == ["begin"]


def test_a_split_of_a_dataset_is_refused():
    with pytest.raises(ValueError, match="`validation_data` with a dataset"):
        distkeras.fit(compiled(), ((X, Y) for _ in range(2)), validation_split=0.5, num_workers=1)
