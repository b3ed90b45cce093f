"""Validation beside the driver equals `evaluate`, and survives the death of its process."""

from __future__ import annotations

import keras
import numpy as np
import pyarrow as pa
import pytest

from distkeras.lifecycle.validation import SideEvaluation, SideEvaluationFailed, launched_side
from distkeras.model.spec import first_vector, serialize_model
from distkeras.worker.columns import Column, Columns
from distkeras.worker.evaluate import Evaluation, EvaluationTask, partial_states, together
from distkeras.worker.payload import pack
from distkeras.worker.side_evaluation import Subject, evaluated, minibatches_of

ROWS, BATCH = 83, 32


def make_model():
    """Two outputs, weights of rows for each, and metrics that are no means of minibatches."""
    inputs = keras.Input((4,))
    hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(6, "tanh")(inputs))
    outputs = [
        keras.layers.Dense(1, "sigmoid", name="click")(hidden),
        keras.layers.Dense(3, "softmax", kernel_regularizer="l2", name="kind")(hidden),
    ]
    model = keras.Model(inputs, outputs)
    model.compile(
        "sgd",
        {"click": "binary_crossentropy", "kind": "categorical_crossentropy"},
        metrics={"click": [keras.metrics.AUC(name="auc")]},
        weighted_metrics={"kind": [keras.metrics.F1Score(average=None, name="f1"), "accuracy"]},
        loss_weights={"click": 0.3, "kind": 2.0},
    )
    return model


def make_rows():
    draw = np.random.default_rng(4)
    x = draw.normal(size=(ROWS, 4)).astype(np.float32)
    click = draw.integers(0, 2, (ROWS, 1)).astype(np.float32)
    kind = np.eye(3, dtype=np.float32)[draw.integers(0, 3, ROWS)]
    weights = [draw.uniform(0.1, 3, ROWS).astype(np.float32) for _ in range(2)]
    return x, [click, kind], weights


def make_table():
    x, y, weights = make_rows()
    columns = Columns(
        (Column("x", (4,), "float32"),),
        (Column("click", (1,), "float32"), Column("kind", (3,), "float32")),
        (Column("wclick", (), "float32"), Column("wkind", (), "float32")),
    )
    table = pa.table(
        {
            "x": list(x),
            "click": y[0][:, 0],
            "kind": list(y[1]),
            "wclick": weights[0],
            "wkind": weights[1],
        }
    )
    return columns, table


def expected(model, rows=ROWS):
    x, y, weights = make_rows()
    weights = [each[:rows] for each in weights]
    return model.evaluate(
        x[:rows], [each[:rows] for each in y], BATCH, sample_weight=weights, verbose=0, return_dict=True
    )


def check(logs, wanted):
    assert list(logs) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_weights_are_judged_as_by_evaluate_and_a_killed_process_is_replaced_once():
    model = make_model()
    spec = serialize_model(model)
    columns, table = make_table()
    options = {"batch_size": BATCH, "backend": "jax", "threads": 1}
    with (
        launched_side("jax", 1) as launched,
        SideEvaluation(spec, columns, table, launched=launched, **options) as side,
    ):
        assert not launched
        side._process._popen.kill()  # At once: a start takes seconds.
        for seed in range(2):  # The metrics of the first version are not in those of the second.
            draw = np.random.default_rng(seed)
            for weight in model.trainable_variables:
                weight.assign(draw.normal(size=weight.shape))
            check(side.judge(first_vector(model, spec)), expected(model))
        with pytest.raises(SideEvaluationFailed, match="KeyError: 'no/such/variable'"):
            side.judge(first_vector(model, spec), {"no/such/variable": np.zeros(1)})
        side._process._popen.kill()
        with pytest.raises(SideEvaluationFailed, match=r"was killed by signal 9.*for the second time"):
            side.judge(first_vector(model, spec))


def test_only_the_first_steps_are_judged():
    model = make_model()
    columns, table = make_table()
    minibatches = minibatches_of(Subject(serialize_model(model), columns, table, BATCH, steps=2))
    check(evaluated(model, minibatches)[-1], expected(model, 2 * BATCH))


def test_states_of_partitions_of_several_minibatches_add_up_to_evaluate_of_all_rows(tmp_path):
    model = make_model()
    columns, table = make_table()
    evaluation = Evaluation(serialize_model(model), columns, batch_size=16)
    task = EvaluationTask(pack(evaluation, tmp_path), "jax", 1)
    shares = (table[:50], table[50:], table[:0])
    parts = [partial_states(task, 0, iter(share.to_batches()))["states"] for share in shares]
    check(dict(sorted(together(model, columns, 16, parts).items())), expected(model))
