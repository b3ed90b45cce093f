"""Tests of the replica, run by test_replica.py on every backend."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from distkeras.model.randomness import generator_states, reseed, set_generators
from distkeras.model.spec import deserialize_model, serialize_model
from distkeras.model.variables import tree_of, value_of
from distkeras.model.weights import initial_vector, set_vector
from distkeras.worker.backends import make_replica
from distkeras.worker.metric_states import add_states, assign_states, packed
from distkeras.worker.minibatch import Minibatch
from distkeras.worker.step_buffer import MAX_STEPS

BACKEND = keras.backend.backend()
ROWS, BATCH = 30, 8  # the last minibatch has 6 rows


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(7)


def dense_model():
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(6, activation="relu"), keras.layers.Dense(3)], name="dense"
    )


def compiled_dense(optimizer="sgd", **settings):
    model = dense_model()
    settings = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)} | settings
    model.compile(optimizer, **settings)
    return model


def dense_data(weighted=False):
    draw = np.random.default_rng(3)
    x = draw.normal(size=(ROWS, 5)).astype(np.float32)
    y = draw.integers(0, 3, ROWS).astype(np.int32)
    weights = draw.uniform(0.1, 2.0, ROWS).astype(np.float32) if weighted else None
    return x, y, weights


def batches(x, y, weights=None, size=BATCH):
    """Minibatches of 8 rows and a last one of 6."""
    for start in range(0, ROWS, size):
        rows = slice(start, start + size)
        yield tuple(cut(part, rows) for part in (x, y, weights))


def cut(part, rows):
    if isinstance(part, dict):
        return {name: value[rows] for name, value in part.items()}
    return None if part is None else part[rows]


def assert_trains_like_keras(model, data):
    """A replica and `train_on_batch` see the same minibatches: weights and metrics must agree at each."""
    spec = serialize_model(model)
    plain, replica = deserialize_model(spec), make_replica(deserialize_model(spec))
    for batch in batches(*data):
        replica.train(*batch)
        expected = plain.train_on_batch(*batch, return_dict=True)
        measured = replica.metrics()
        assert next(iter(measured)) == "loss"
        assert set(measured) == set(expected)
        for name, value in expected.items():
            assert measured[name] == pytest.approx(float(value), rel=2e-5, abs=1e-6), name
    start = initial_vector(model)
    assert np.abs(replica.read() - start).max() > 1e-3
    np.testing.assert_allclose(replica.read(), initial_vector(plain), rtol=2e-5, atol=2e-6)
    replica.sync()
    np.testing.assert_array_equal(initial_vector(replica.model), replica.read())
    plain_state, state = seed_states(plain), seed_states(replica.model)
    assert [value.tolist() for value in state] == [value.tolist() for value in plain_state]


def assert_windows_train_like_keras(model, x, y, tolerance=2e-5, plain=None):
    """As above, but nothing is asked of the replica for 4 minibatches of 8 rows, twice.

    `plain` is what Keras trains; default: the same model.
    """
    spec = serialize_model(model)
    replica = make_replica(deserialize_model(spec))
    start = replica.read()
    if plain is None:
        plain = deserialize_model(spec)
    else:
        plain.set_weights(model.get_weights())
    for _ in range(2):
        expected = []
        for first in range(0, 32, BATCH):
            batch = cut(x, slice(first, first + BATCH)), cut(y, slice(first, first + BATCH))
            replica.train(*batch)
            expected.append(plain.train_on_batch(*batch, return_dict=True)["loss"])
        assert replica.metrics()["loss"] == pytest.approx(np.mean(expected), rel=tolerance)
    assert np.abs(replica.read() - start).max() > 1e-3
    np.testing.assert_allclose(
        replica.read(), initial_vector(plain, replica.layout), rtol=tolerance, atol=tolerance / 10
    )
    replica.sync()
    for mine, other in zip(replica.model.optimizer.variables, plain.optimizer.variables, strict=True):
        mine, other = (keras.ops.convert_to_numpy(each) for each in (mine, other))
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance / 10)


def window_data():
    draw = np.random.default_rng(3)
    return draw.normal(size=(32, 5)).astype(np.float32), draw.integers(0, 3, 32).astype(np.int32)


def seed_states(model):
    found = [variable for variable in model.variables if "seed_generator_state" in variable.path]
    return [keras.ops.convert_to_numpy(variable) for variable in found]


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.05),
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.9)),
    ],
)
def test_dense_model_trains_like_keras(optimizer):
    assert_trains_like_keras(compiled_dense(optimizer(), metrics=["accuracy"]), dense_data())


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.5, clipnorm=0.05, gradient_accumulation_steps=2),
        lambda: keras.optimizers.Adam(0.01, clipvalue=0.01, use_ema=True, ema_overwrite_frequency=3),
        lambda: keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(0.05, 10), weight_decay=0.1, global_clipnorm=0.1
        ),
    ],
    ids=["clipnorm-accumulation", "clipvalue-average", "global-clipnorm-schedule-decay"],
)
def test_settings_of_the_optimizer_train_like_keras(optimizer):
    assert_windows_train_like_keras(compiled_dense(optimizer()), *window_data())


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_like_keras(policy):
    layers = [keras.layers.Dense(6, activation="relu", dtype=policy), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.1)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=256, dynamic_growth_steps=3)
    model.compile(optimizer, loss)
    assert_windows_train_like_keras(model, *window_data(), tolerance=1e-4)


@pytest.mark.parametrize("jit_compile", [True, False, "auto"])
def test_jit_compile_trains_like_keras(jit_compile, monkeypatch):
    # PyTorch then has nothing to compile with, and stays eager: else it would take minutes.
    monkeypatch.setenv("CXX", "/no/such/compiler")
    model = compiled_dense("sgd", jit_compile=jit_compile)
    plain = compiled_dense("sgd", jit_compile=False) if BACKEND == "torch" else None
    assert_windows_train_like_keras(model, *window_data(), plain=plain)


def test_embedding_lstm_and_attention_train_like_keras():
    words = keras.Input((4,), dtype="int32")
    states = keras.layers.LSTM(3, return_sequences=True)(keras.layers.Embedding(9, 4)(words))
    mixed = keras.layers.MultiHeadAttention(2, 2, dropout=0.1, seed=3)(states, states)
    mixed = keras.layers.LayerNormalization()(states + mixed)
    model = keras.Model(words, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(mixed)))
    # The bias of attention's keys has a gradient of zero: with a small epsilon rounding errors make steps.
    model.compile(keras.optimizers.RMSprop(0.01, epsilon=1e-3), "mse")
    draw = np.random.default_rng(3)
    x, y = draw.integers(0, 9, (32, 4)).astype(np.int32), draw.normal(size=(32, 1)).astype(np.float32)
    assert_windows_train_like_keras(model, x, y)


def test_minibatches_that_wait_are_trained_as_if_one_by_one():
    spec = serialize_model(compiled_dense(keras.optimizers.Adam(0.01), metrics=["accuracy"]))
    patient, asked = make_replica(deserialize_model(spec)), make_replica(deserialize_model(spec))
    draw = np.random.default_rng(2)
    for rows in [8] * (MAX_STEPS + 3) + [6, 8, 8, 6, 6]:  # longer than may wait; then the form changes
        x, y = draw.normal(size=(rows, 5)).astype(np.float32), draw.integers(0, 3, rows).astype(np.int32)
        patient.train(x, y)
        asked.train(x, y)
        asked.metrics()
    np.testing.assert_array_equal(patient.read(), asked.read())
    assert 0 <= patient.metrics()["accuracy"] <= 1
    for _ in range(2):
        patient.train(x, y)
    before = patient.read()
    patient.write(before * 2)
    np.testing.assert_array_equal(patient.read(), before * 2)
    assert patient.num_compilations == asked.num_compilations == (0 if BACKEND == "torch" else 2)


def test_on_a_gpu_no_step_is_waited_for(monkeypatch):
    if BACKEND != "jax":  # Each waits, or not, as its own library does.
        return
    import jax

    spec = serialize_model(compiled_dense("adam"))
    plain = make_replica(deserialize_model(spec))
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        ahead = make_replica(deserialize_model(spec))
    assert plain.device is None
    assert ahead.device is not None
    waited, wait = [], jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda arrays: waited.append(1) or wait(arrays))
    x, y, _ = dense_data()
    for _ in range(2):
        plain.train(x, y)
    plain.metrics()
    assert waited
    waited.clear()
    for _ in range(2):
        ahead.train(x, y)
    ahead.metrics()
    assert not waited
    np.testing.assert_allclose(ahead.read(), plain.read(), rtol=1e-6)


def test_weighted_rows_train_like_keras():
    model = compiled_dense("adam", metrics=["accuracy"], weighted_metrics=["sparse_categorical_crossentropy"])
    assert_trains_like_keras(model, dense_data(weighted=True))


def test_convolutions_batch_normalization_and_dropout_train_like_keras():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            # Before BatchNorm a bias has a gradient of zero: Adam would make steps of its rounding errors.
            keras.layers.Conv2D(4, 3, kernel_regularizer="l2", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.4, seed=11),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    _, y, _ = dense_data()
    x = np.random.default_rng(5).normal(size=(ROWS, 6, 6, 1)).astype(np.float32)
    assert_trains_like_keras(model, (x, y))


def test_model_of_named_inputs_and_outputs_trains_like_keras():
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    joined = keras.layers.Concatenate()([keras.layers.Dense(5, activation="tanh")(left), right])
    outputs = {
        "score": keras.layers.Dense(1, name="score")(joined),
        "kind": keras.layers.Dense(3, activation="softmax", name="kind")(joined),
    }
    model = keras.Model({"left": left, "right": right}, outputs)
    model.compile(
        keras.optimizers.SGD(0.1),
        loss={"score": "mse", "kind": "sparse_categorical_crossentropy"},
        loss_weights={"score": 0.5, "kind": 2.0},
        metrics={"score": ["mae"], "kind": ["accuracy"]},
    )
    draw = np.random.default_rng(9)
    x = {"left": draw.normal(size=(ROWS, 4)), "right": draw.normal(size=(ROWS, 2))}
    y = {"score": draw.normal(size=(ROWS, 1)), "kind": draw.integers(0, 3, ROWS)}
    x = {name: part.astype(np.float32) for name, part in x.items()}
    y = {"score": y["score"].astype(np.float32), "kind": y["kind"].astype(np.int32)}
    assert_trains_like_keras(model, (x, y))


@keras.saving.register_keras_serializable("suite")
class Doubled(keras.Model):
    """A subclass that trains on doubled targets by a `train_step` of its own, on every backend."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="tanh")
        self.outer = keras.layers.Dense(1)

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.outer.build((input_shape[0], self.units))

    def call(self, x):
        return self.outer(self.hidden(x))

    def get_config(self):
        return super().get_config() | {"units": self.units}

    def train_step(self, *arguments):
        *state, (x, y, weights) = arguments
        return super().train_step(*state, (x, 2.0 * y, weights))


def test_subclass_with_its_own_train_step_trains_like_keras():
    model = Doubled()
    model.build((None, 5))
    model.compile(keras.optimizers.SGD(0.05), "mse", metrics=["mae"])
    x, y, _ = dense_data()
    data = (x, y[:, None].astype(np.float32))
    assert_trains_like_keras(model, data)
    ordinary = keras.Sequential([keras.Input((5,)), model.hidden, model.outer])
    ordinary.compile(keras.optimizers.SGD(0.05), "mse")
    replica, other = (
        make_replica(deserialize_model(serialize_model(model))),
        make_replica(deserialize_model(serialize_model(ordinary))),
    )
    for x_part, y_part, _ in batches(*data):
        replica.train(x_part, y_part)
        other.train(x_part, 2.0 * y_part)
    np.testing.assert_allclose(replica.read(), other.read(), rtol=2e-5, atol=2e-6)


class Lasting(keras.metrics.Mean):
    """Does not reset, as a user's metric may that counts over all epochs."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true)

    def reset_state(self):
        pass


def test_a_metric_that_does_not_reset_has_the_states_of_its_own_rows():
    spec = serialize_model(compiled_dense("sgd", metrics=["accuracy", Lasting(name="lasting")]))
    model = deserialize_model(spec)
    replica = make_replica(model)
    for label in (1, 2):
        for rows in (8, 4):
            replica.train(np.zeros((rows, 5), np.float32), np.full(rows, label, np.int32))
        metrics, states = replica.metrics_and_states()
        assert metrics["lasting"] == pytest.approx(label)
        assert [float(each) for each in states[-2:]] == [12 * label, 12]
    # An evaluation, too, counts its own rows.
    minibatch = Minibatch(np.zeros((8, 5), np.float32), np.full(8, 2, np.int32), None, 8)
    states = replica.evaluate(replica.read(), [minibatch] * 3)
    assert [float(each) for each in states[-2:]] == [48, 24]


def test_adopted_weights_fulfil_the_constraints():
    """A step may not be able to compute elsewhere, such as where it takes the root of a weight."""
    dense = keras.layers.Dense(2, kernel_constraint="non_neg")
    model = keras.Sequential([keras.Input((3,)), dense])
    model.compile("sgd", "mse")
    replica = make_replica(model)
    given = np.linspace(-1, 1, 8, dtype=np.float32)
    before = given.copy()
    replica.write(given)
    np.testing.assert_array_equal(replica.read(), before)
    replica.adopt(given)
    np.testing.assert_array_equal(given, before)
    np.testing.assert_array_equal(replica.read(), np.concatenate([np.maximum(given[:6], 0), given[6:]]))


def test_metrics_are_of_the_steps_since_the_last_call():
    spec = serialize_model(compiled_dense(keras.optimizers.SGD(0.0), metrics=["accuracy"]))
    replica, model = make_replica(deserialize_model(spec)), deserialize_model(spec)
    assert replica.metrics() == {}
    x, y, _ = dense_data()
    for x_part, y_part, _ in batches(x, y):
        replica.train(x_part, y_part)
    loss, accuracy = model.evaluate(x, y, verbose=0)
    assert replica.metrics() == pytest.approx({"loss": loss, "accuracy": accuracy}, rel=1e-5)
    assert replica.metrics() == {}
    replica.train(x[:8], y[:8])
    loss, accuracy = model.evaluate(x[:8], y[:8], verbose=0)
    assert replica.metrics() == pytest.approx({"loss": loss, "accuracy": accuracy}, rel=1e-5)


def test_a_window_that_is_forgotten_leaves_neither_metrics_nor_minibatches_that_wait():
    spec = serialize_model(compiled_dense(keras.optimizers.SGD(0.1), metrics=["accuracy"]))
    dropping, other = make_replica(deserialize_model(spec)), make_replica(deserialize_model(spec))
    start = dropping.read()
    x, y, _ = dense_data()
    for replica in (dropping, other):
        replica.train(x[:8], y[:8])
        replica.collect_metrics()  # The window began in the epoch before.
        if replica is dropping:
            for steps in (1, MAX_STEPS + 3):
                for _ in range(steps):
                    replica.train(x[8:16], y[8:16])
                replica.forget()
        else:
            replica.metrics()
            replica.collect_metrics()
        replica.write(start)
        replica.train(x[16:24], y[16:24])
    np.testing.assert_array_equal(dropping.read(), other.read())
    assert dropping.metrics() == other.metrics()
    for mine, its in zip(dropping.collected_metrics(), other.collected_metrics(), strict=True):
        np.testing.assert_array_equal(mine, its)
    dropping.forget()
    assert dropping.metrics() == {}


def test_states_of_windows_add_up_and_an_evaluation_between_them_leaves_no_trace():
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dropout(0.3, seed=2), keras.layers.Dense(2, activation="sigmoid")]
    )
    metrics = [keras.metrics.AUC(name="auc"), keras.metrics.F1Score(average=None, name="f1")]
    model.compile(keras.optimizers.Adam(0.1), "binary_crossentropy", weighted_metrics=metrics)
    spec = serialize_model(model)
    replica = make_replica(deserialize_model(spec))
    x, y, weights = (part[: 2 * BATCH] for part in dense_data(weighted=True))
    y = np.eye(2, dtype=np.float32)[y % 2]
    other = np.random.default_rng(1).normal(size=replica.layout.size).astype(np.float32)
    minibatches = [(x[:8], y[:8], weights[:8]), (x[8:], y[8:], weights[8:])]
    rows = [Minibatch(*each, BATCH) for each in minibatches]
    judge = deserialize_model(spec)
    set_vector(judge, other)
    expected = judge.evaluate(x, y, BATCH, sample_weight=weights, verbose=0, return_dict=True)
    windows = []
    for batch in minibatches:
        evaluation = packed(replica.evaluate(other, rows))
        replica.train(*batch)
        windows.append(packed(replica.metrics_and_states()[1]))
    fitted = deserialize_model(spec)
    history = fitted.fit(x, y, BATCH, shuffle=False, sample_weight=weights, verbose=0).history
    np.testing.assert_allclose(replica.read(), initial_vector(fitted), rtol=2e-5, atol=2e-6)
    replica.sync()
    for mine, its in zip(replica.model.non_trainable_variables, fitted.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(value_of(mine), value_of(its))
    for states, wanted in (
        (evaluation, expected),
        (add_states([b"", *windows]), {name: values[0] for name, values in history.items()}),
    ):
        assign_states(judge, states)
        results = judge.get_metrics_result()
        assert set(results) == set(wanted) == {"loss", "auc", "f1"}
        for name, value in wanted.items():
            mine = keras.ops.convert_to_numpy(results[name])
            np.testing.assert_allclose(mine, keras.ops.convert_to_numpy(value), rtol=2e-5, err_msg=name)
    with pytest.raises(ValueError, match=r"Expected states of .* numbers: the metrics of"):
        assign_states(judge, evaluation[:-8])


def test_metric_of_several_values_gives_each_a_number():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, activation="sigmoid")])
    model.compile("sgd", "binary_crossentropy", metrics=[keras.metrics.F1Score(average=None, name="f1")])
    replica = make_replica(deserialize_model(serialize_model(model)))
    x, y, _ = dense_data()
    replica.train(x, np.eye(2, dtype=np.float32)[y % 2])
    assert list(replica.metrics()) == ["loss", "f1_0", "f1_1"]


def test_what_is_written_is_read_exactly():
    model = compiled_dense("adam")
    replica = make_replica(deserialize_model(serialize_model(model)))
    np.testing.assert_array_equal(replica.read(), initial_vector(model))
    vector = np.random.default_rng(1).normal(size=replica.layout.size).astype(np.float32)
    replica.write(vector)
    np.testing.assert_array_equal(replica.read(), vector)
    x, y, _ = dense_data()
    replica.train(x, y)
    assert np.abs(replica.read() - vector).max() > 0
    replica.write(vector)
    np.testing.assert_array_equal(replica.read(), vector)


def test_order_of_the_vector_is_that_of_the_layout():
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.BatchNormalization(), keras.layers.Dense(3)], name="ordered"
    )
    model.compile("sgd", "mse")
    replica = make_replica(deserialize_model(serialize_model(model)))
    vector = np.arange(replica.layout.size, dtype=np.float32)
    replica.write(vector)
    replica.sync()
    weights = {path: value_of(weight) for path, weight in tree_of(replica.model).variables.items()}
    for (path, shape), part in zip(
        (*replica.layout.trainable, *replica.layout.statistics), replica.layout.unpack(vector), strict=True
    ):
        assert weights[path].shape == shape
        np.testing.assert_array_equal(weights[path], part)
    np.testing.assert_array_equal(initial_vector(replica.model), vector)


def aligned(size):
    """A vector at an address that XLA would share rather than copy."""
    memory = np.zeros(size * 4 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size * 4].view(np.float32)


@pytest.mark.parametrize("shape", [(5, 3), (64,)])
def test_writer_may_reuse_its_vector(shape):
    if len(shape) == 1:
        model = keras.Sequential([keras.Input(shape), keras.layers.BatchNormalization(center=False)])
    else:
        model = keras.Sequential([keras.Input(shape[:1]), keras.layers.Dense(shape[1])])
    model.compile("sgd", "mse")
    replica = make_replica(deserialize_model(serialize_model(model)))
    vector = aligned(replica.layout.size)
    vector[:] = 0.25
    replica.write(vector)
    vector[:] = 9.0
    first = replica.read()
    np.testing.assert_array_equal(first, np.full(replica.layout.size, 0.25, np.float32))
    replica.train(np.ones((4, shape[0]), np.float32), np.ones((4, shape[-1]), np.float32))
    assert np.abs(replica.read()).max() < 9.0
    assert (vector == 9.0).all()


def test_reader_owns_its_vector():
    replica = make_replica(deserialize_model(serialize_model(compiled_dense())))
    x, y, _ = dense_data()
    before = replica.read()
    kept = before.copy()
    replica.train(x, y)
    np.testing.assert_array_equal(before, kept)
    before[:] = 7.0
    assert (replica.read() != 7.0).all()


def test_vector_of_another_size_is_refused():
    replica = make_replica(deserialize_model(serialize_model(compiled_dense())))
    size = replica.layout.size
    for wrong in (np.zeros(size + 1, np.float32), np.zeros((size, 1), np.float32), np.zeros(0, np.float32)):
        with pytest.raises(ValueError, match=rf"shape \({size},\).*Received"):
            replica.write(wrong)


def test_weights_of_other_types_are_cast():
    policy = keras.DTypePolicy("bfloat16")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, dtype=policy), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    replica = make_replica(deserialize_model(serialize_model(model)))
    vector = np.linspace(-1, 1, replica.layout.size, dtype=np.float32)
    replica.write(vector)
    back = replica.read()
    assert back.dtype == np.float32
    np.testing.assert_allclose(back[:24], vector[:24], rtol=2**-8)
    np.testing.assert_array_equal(back[24:], vector[24:])


def test_nothing_but_a_partial_minibatch_compiles_again(compilations):
    replica = make_replica(deserialize_model(serialize_model(compiled_dense("adam", metrics=["accuracy"]))))
    x, y, _ = dense_data()

    def window():
        for x_part, y_part, _ in list(batches(x, y))[:3]:
            replica.train(x_part, y_part)
        replica.write(replica.read() * np.float32(0.5))
        return replica.metrics()

    window()
    expected = 0 if BACKEND == "torch" else 1
    assert replica.num_compilations == expected
    before = compilations()
    window()
    window()
    assert compilations() == before
    assert replica.num_compilations == expected
    replica.train(x[:6], y[:6])
    replica.metrics()
    after_partial = compilations()
    for _ in range(3):  # epochs; windows of 4 and of 3 minibatches, with and without the partial one
        window()
        replica.train(x[:8], y[:8])
        replica.train(x[:6], y[:6])
    replica.metrics()
    assert replica.num_compilations == 2 * expected
    assert compilations() == after_partial


@pytest.fixture
def compilations():
    """Counts what XLA really compiles; on other backends the replica's own count must do."""
    durations = []
    if BACKEND == "jax":
        import jax

        def listen(name, _seconds, **_details):
            if "backend_compile" in name:
                durations.append(name)

        jax.monitoring.register_event_duration_secs_listener(listen)
    return lambda: len(durations)


def test_compilations_are_seen_by_the_counter(compilations):
    if BACKEND == "jax":
        import jax

        before = compilations()
        jax.jit(lambda value: value * 17.5)(np.float32(3))
        assert compilations() == before + 1
    else:
        assert compilations() == 0


def test_optimizer_state_stays_after_a_write():
    model = compiled_dense(keras.optimizers.SGD(0.1, momentum=0.9))
    replica = make_replica(deserialize_model(serialize_model(model)))
    x, y, _ = dense_data()
    start = replica.read()
    replica.train(x, y)
    first = replica.read() - start
    replica.write(start)
    replica.train(x, y)
    # The same gradient again: v <- 0.9 v + first.
    np.testing.assert_allclose(replica.read() - start, 1.9 * first, rtol=1e-4, atol=1e-6)


def test_synced_model_goes_on_like_the_replica():
    replica = make_replica(deserialize_model(serialize_model(compiled_dense("adam"))))
    x, y, _ = dense_data()
    replica.train(x, y)
    replica.sync()
    assert int(replica.model.optimizer.iterations) == 1
    np.testing.assert_array_equal(initial_vector(replica.model), replica.read())
    replica.train(x, y)
    replica.sync()
    assert int(replica.model.optimizer.iterations) == 2


@pytest.mark.parametrize("seed", [3, None])
def test_workers_draw_other_masks_and_worker_zero_those_of_keras(seed):
    model = keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Dropout(0.5, seed=seed),
            keras.layers.Dense(1, kernel_initializer="ones"),  # No weight comes near zero.
        ]
    )
    model.compile(keras.optimizers.SGD(0.005), "mse")
    spec = serialize_model(model)
    x, y = np.ones((4, 20), np.float32), np.ones((4, 1), np.float32)

    def trained(worker):
        copy = deserialize_model(spec)
        reseed(copy, worker)
        set_generators(states, worker)
        replica = make_replica(copy)
        replica.train(x, y)
        return replica.read()

    keras.utils.set_random_seed(5)
    states = generator_states()
    plain = deserialize_model(spec)
    plain.train_on_batch(x, y)
    np.testing.assert_allclose(trained(0), initial_vector(plain), rtol=1e-5, atol=1e-7)
    first = trained(1)
    assert np.abs(first - trained(0)).max() > 1e-4
    assert np.abs(first - trained(2)).max() > 1e-4
    np.testing.assert_array_equal(trained(1), first)


def test_step_that_runs_eagerly_trains_like_keras():
    model = compiled_dense("sgd", run_eagerly=True, metrics=["accuracy"])
    assert_trains_like_keras(model, dense_data())


def test_model_that_is_not_compiled_is_refused():
    with pytest.raises(ValueError, match="compiled model"):
        make_replica(dense_model())
