"""The data of `fit`: what Keras takes becomes what a trainer takes, once, and nothing is lost on the way."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse

from distkeras.cluster import written
from distkeras.trainers.data_of_fit import build, data_of, is_dataset, limited, validation_of

X = np.arange(20, dtype=np.float32).reshape(10, 2)
Y = np.arange(10)
W = np.linspace(0, 1, 10, dtype=np.float32)


class Three(keras.utils.PyDataset):
    """Minibatches of 4, 4 and 2 rows; endless if it has no number of them."""

    def __init__(self, num_batches=3):
        super().__init__()
        self.number = num_batches

    @property
    def num_batches(self):
        return self.number

    def __getitem__(self, index):
        first = 4 * (index % 3)
        return X[first : first + 4], Y[first : first + 4], W[first : first + 4]


def rows_in(data, folder):
    table = pq.read_table(folder).rename_columns(list(data.rows.names))
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X.astype(np.float64), Y),
        (keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(Y)),
        (pd.DataFrame(X, columns=["a", "b"]), pd.Series(Y)),
        (scipy.sparse.csr_matrix(X), Y),
    ],
    ids=["float64", "tensors", "pandas", "sparse"],
)
def test_arrays_of_every_kind_become_numpy_arrays_in_keras_own_float(tmp_path, x, y):
    data = data_of(x, y, W, folder=tmp_path)
    found, labels, weights = data.rows
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X)
    np.testing.assert_array_equal(np.ravel(labels), Y)
    np.testing.assert_array_equal(weights, W)
    assert (data.num_rows, data.num_batches(4), data.in_order) == (10, 3, False)


def test_a_table_without_labels_beside_it_keeps_its_columns(tmp_path):
    table = pd.DataFrame({"features": list(X), "label": Y})
    assert data_of(table, folder=tmp_path).rows is table
    arrow = pa.table({"a": Y})
    assert data_of(arrow, folder=tmp_path).rows is arrow
    with pytest.raises(ValueError, match="by `label_col`"):
        data_of("rows.parquet", Y, folder=tmp_path)


def test_a_structure_of_inputs_keeps_its_form(tmp_path):
    assert list(data_of({"a": X, "b": Y}, Y, folder=tmp_path).rows[0]) == ["a", "b"]
    x, y, _ = data_of((X, X), (Y, Y), folder=tmp_path).rows
    assert isinstance(x, list)
    assert isinstance(y, list)


def test_a_py_dataset_is_written_out_once_with_its_weights(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "distkeras"):
        data = data_of(Three(), folder=tmp_path)
    rows = rows_in(data, tmp_path)
    for name, expected in (("x", X), ("y", Y), ("sample_weight", W)):
        np.testing.assert_array_equal(rows[name], expected)
    assert (data.num_rows, data.batch_size, data.in_order) == (10, 4, False)
    assert "The dataset was written once" in caplog.text
    assert "differ in size" not in caplog.text  # The last one may be smaller.


def test_a_generator_is_read_only_as_far_as_it_is_needed(tmp_path):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield X[:3], Y[:3]

    data = data_of(endless(), folder=tmp_path, steps=4)
    assert data.num_rows == 12
    assert data.in_order
    assert len(taken) <= 5  # Keras looks at the first one ahead.


def test_minibatches_of_different_sizes_are_said(tmp_path, caplog):
    def uneven():
        yield from ((X[:3], Y[:3]), (X[3:5], Y[3:5]), (X[5:8], Y[5:8]))

    with caplog.at_level(logging.WARNING, "distkeras"):
        data = data_of(uneven(), folder=tmp_path)
    assert "differ in size" in caplog.text
    np.testing.assert_array_equal(rows_in(data, tmp_path)["y"], Y[:8])


def test_rows_of_matrices_and_sequences_of_different_lengths_are_written(tmp_path):
    images, sequences = tmp_path / "images", tmp_path / "sequences"
    images.mkdir()
    sequences.mkdir()
    x = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    data = data_of(((x[i : i + 2], Y[i : i + 2]) for i in (0, 2)), folder=images)
    assert data.rows.roles.shapes == {"x": (2, 3)}
    np.testing.assert_array_equal(rows_in(data, images)["x"].reshape(x.shape), x)
    data = data_of(((np.ones((2, length)), Y[:2]) for length in (3, 5)), folder=sequences)
    lengths = [len(row) for row in pq.read_table(sequences)["c0"].to_pylist()]
    assert lengths == [3, 3, 5, 5]


def test_data_without_an_end_is_refused_by_name(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`steps_per_epoch` with an endless dataset"):
        data_of(Three(None), folder=tmp_path)
    monkeypatch.setattr(written, "MOST_BATCHES", 7)

    def endless():
        while True:
            yield X, Y

    with pytest.raises(ValueError, match=r"a finite dataset.*7 minibatches so far"):
        data_of(endless(), folder=tmp_path)
    with pytest.raises(ValueError, match="at least one minibatch"):
        data_of(Three(), folder=tmp_path, steps=0)


def test_labels_beside_a_dataset_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`y` only with arrays: give it as part of the dataset"):
        data_of(Three(), Y, folder=tmp_path)
    with pytest.raises(ValueError, match="equal numbers of rows"):
        data_of(X, Y[:3], folder=tmp_path)
    assert is_dataset(Three())
    assert not is_dataset(X)


def test_steps_of_a_validation_are_the_first_minibatches(tmp_path):
    for given in ((X, Y), [X, Y]):
        data = validation_of(given, folder=tmp_path, batch_size=3, steps=2)
        np.testing.assert_array_equal(data.rows[1], Y[:6])
    table = pd.DataFrame({"features": list(X), "label": Y})
    with pytest.raises(ValueError, match="`validation_steps` only with arrays or datasets"):
        validation_of(table, folder=tmp_path, batch_size=3, steps=2)
    with pytest.raises(ValueError, match="4 parts"):
        validation_of((X, Y, W, W), folder=tmp_path, batch_size=3, steps=None)
    assert limited(data, None, 3, "steps") is data


def test_a_model_is_built_from_the_first_rows_for_minibatches_of_any_size(tmp_path):
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    build(model, data_of(X, np.ones((10, 3)), folder=tmp_path).first)
    assert model.input_shape == (None, 2)
    alone = keras.Sequential([keras.layers.Dense(3)])
    build(alone, data_of(X, folder=tmp_path).first)
    assert alone.input_shape == (None, 2)
    # A compiled model is built for a prediction without the labels that its loss needs.
    unlabelled = keras.Sequential([keras.layers.Dense(3)])
    unlabelled.compile("sgd", "mse")
    build(unlabelled, data_of(X, folder=tmp_path).first, labelled=False)
    assert unlabelled.input_shape == (None, 2)


def test_pytorch_which_has_no_open_batch_size_fixes_none_in_a_model_that_is_built():
    code = """
import keras, numpy
from distkeras.trainers.data_of_fit import build
model = keras.Sequential([keras.layers.Dense(3)])
model.compile("sgd", "mse")
build(model, (numpy.ones((4, 2), "float32"), numpy.ones((4, 3), "float32"), None))
print(model.input_shape)
"""
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ended.stdout.splitlines()[-1:] == ["(None, 2)"], ended.stderr


def test_a_data_loader_is_a_dataset(tmp_path):
    torch = pytest.importorskip("torch")
    rows = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    data = data_of(torch.utils.data.DataLoader(rows, batch_size=4), folder=tmp_path)
    np.testing.assert_array_equal(rows_in(data, tmp_path)["x"], X)
    assert data.in_order
