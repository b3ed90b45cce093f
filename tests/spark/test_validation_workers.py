"""Validation by the workers, each on its share, equals `evaluate` of the same weights on all rows."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import distkeras

BATCH = 8
FEATURES, LABELS, WEIGHTS = "x", ["click", "kind"], ["heavy", None]


def make_model():
    """Two outputs, weights of rows for one, and metrics that are no means of minibatches."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(6, "tanh")(inputs))
    outputs = [
        keras.layers.Dense(1, "sigmoid", name="click")(hidden),
        keras.layers.Dense(3, "softmax", kernel_regularizer="l2", name="kind")(hidden),
    ]
    model = keras.Model(inputs, outputs)
    model.compile(
        "adam",
        {"click": "binary_crossentropy", "kind": "categorical_crossentropy"},
        metrics={
            "click": [keras.metrics.AUC(name="auc")],
            "kind": [keras.metrics.F1Score("macro", name="f1")],
        },
        weighted_metrics={"click": ["accuracy"]},
        loss_weights={"click": 0.3, "kind": 2.0},
    )
    return model


def make_rows(num_rows, seed):
    draw = np.random.default_rng(seed)
    return {
        "x": draw.normal(size=(num_rows, 4)).astype(np.float32),
        "click": draw.integers(0, 2, (num_rows, 1)).astype(np.float32),
        "kind": np.eye(3, dtype=np.float32)[draw.integers(0, 3, num_rows)],
        "heavy": draw.uniform(0.1, 3, num_rows).astype(np.float32),
    }


class Evaluated(keras.callbacks.Callback):
    """Evaluates the model at the end of each epoch, and notes what the logs say."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows
        self.pairs = []

    def on_epoch_end(self, epoch, logs=None):
        rows = self.rows
        labels, weights = [rows[name] for name in LABELS], [rows["heavy"], np.ones(len(rows["heavy"]))]
        expected = self.model.evaluate(
            rows["x"], labels, BATCH, sample_weight=weights, verbose=0, return_dict=True
        )
        self.pairs.append(({name: logs[f"val_{name}"] for name in expected}, expected))


@pytest.mark.parametrize("rule", ["LocalSGD", "DOWNPOUR"])  # One waits at the end of an epoch, one does not.
def test_every_epoch_is_judged_as_by_evaluate_of_its_weights(spark, rule):
    rows, held = make_rows(90, 0), make_rows(37, 1)
    evaluated = Evaluated(held)
    trainer = getattr(distkeras, rule)(
        make_model(),
        num_workers=2,
        batch_size=BATCH,
        num_epoch=2,
        features_col=FEATURES,
        label_col=LABELS,
        sample_weight_col=WEIGHTS,
        seed=0,
    )
    trainer.train(rows, validation_data=held, validate_on="workers", callbacks=[evaluated])
    assert len(evaluated.pairs) == 2
    for logs, expected in evaluated.pairs:
        assert logs == pytest.approx(expected, rel=1e-5, abs=1e-6)
